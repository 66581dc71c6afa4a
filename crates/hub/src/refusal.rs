use std::time::Duration;

use ureq::http::HeaderMap;

use crate::client::{Answer, Client};
use crate::retry::Failure;
use crate::{Error, FilePath, Repository, Revision};

const SERVER_MESSAGE_CHARACTERS_MAX: usize = 200;

/// What a request is about, for its errors.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) revision: &'a Revision,
    pub(crate) file: Option<&'a FilePath>,
}

/// The failure that an answer without the wanted content means.
pub(crate) fn refusal(client: &Client<'_>, answer: &Answer, subject: Subject<'_>) -> Failure {
    let refused_by_hub = if answer.is_from_hub {
        hub_error(client, answer, subject)
    } else {
        None
    };
    if let Some(error) = refused_by_hub {
        return Failure::Final(error);
    }
    let (url, status) = (answer.url.clone(), answer.status);
    let message = text(&answer.headers, "x-error-message").map(printable);
    let wait = wait_asked_for(&answer.headers);
    match (status, wait) {
        (429, Some(duration)) => {
            let error = Error::RateLimited {
                url,
                wait: duration,
                token_sent: client.has_token(),
            };
            Failure::Passing { error, wait }
        }
        (408 | 425 | 429 | 500.., _) => Failure::Passing {
            error: Error::Status { url, status, message },
            wait,
        },
        // Signed links expire; the next attempt gets a new one from the hub.
        (400..=499, _) if !answer.is_from_hub => Failure::passing(Error::Status { url, status, message }),
        _ => Failure::Final(Error::Status { url, status, message }),
    }
}

/// What the hub's own refusals mean; `None` for those that have no meaning of their own.
fn hub_error(client: &Client<'_>, answer: &Answer, subject: Subject<'_>) -> Option<Error> {
    let Subject {
        repository,
        revision,
        file,
    } = subject;
    let (repository, revision) = (repository.clone(), revision.clone());
    let (endpoint, token_sent) = (client.endpoint().to_owned(), client.has_token());
    let status = answer.status;
    match (text(&answer.headers, "x-error-code"), status, file) {
        (Some("RevisionNotFound"), _, _) => Some(Error::RevisionNotFound { repository, revision }),
        (Some("GatedRepo"), _, _) => Some(Error::Gated {
            repository,
            endpoint,
            token_sent,
        }),
        (Some("RepoNotFound"), _, _) | (_, 401, _) | (_, 404, None) => Some(Error::RepositoryNotFound {
            repository,
            endpoint,
            status,
            token_sent,
        }),
        (_, 404, Some(file)) => Some(Error::FileNotFound {
            repository,
            file: file.clone(),
        }),
        (_, 403, _) => Some(Error::Gated {
            repository,
            endpoint,
            token_sent,
        }),
        _ => None,
    }
}

/// The pause that a server asks for: `Retry-After` in seconds, or `t=` of `RateLimit`.
///
/// A `Retry-After` that is a date counts as none; the ordinary pause then applies.
fn wait_asked_for(headers: &HeaderMap) -> Option<Duration> {
    let retry_after = text(headers, "retry-after").and_then(|value| value.trim().parse().ok());
    let rate_limit = || {
        let mut parameters = text(headers, "ratelimit")?.split(';');
        parameters
            .find_map(|parameter| parameter.trim().strip_prefix("t="))?
            .parse()
            .ok()
    };
    retry_after.or_else(rate_limit).map(Duration::from_secs)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A server's words, fit for a terminal.
fn printable(text: &str) -> String {
    let visible = text.chars().filter(|character| !character.is_control());
    visible.take(SERVER_MESSAGE_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_that_servers_ask_for() {
        for (name, value, expected_s) in [
            ("retry-after", "7", Some(7)),
            ("retry-after", " 0 ", Some(0)),
            ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT", None),
            ("retry-after", "-1", None),
            ("ratelimit", "\"resolvers\";r=0;t=55", Some(55)),
            ("ratelimit", "\"resolvers\";r=0", None),
            ("other", "7", None),
        ] {
            let name: ureq::http::HeaderName = name.parse().unwrap();
            let headers = HeaderMap::from_iter([(name.clone(), value.parse().unwrap())]);
            let found_s = wait_asked_for(&headers).map(|wait| wait.as_secs());
            assert_eq!(found_s, expected_s, "{name}: {value}");
        }
    }
}
