use std::io::Read;
use std::time::Duration;

use ureq::http::{HeaderMap, HeaderValue, Uri, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::address::{self, Origin};
use crate::refusal::{Subject, refusal};
use crate::retry::{Backoff, Failure};
use crate::stop::Stop;
use crate::{Error, Result, Settings};

const REDIRECT_COUNT_MAX: usize = 10;

/// Speaks HTTP with one hub and the hosts that it redirects to, on behalf of one download.
pub(crate) struct Client<'a> {
    settings: &'a Settings,
    endpoint: String,
    origin: Origin,
    agent: Agent,
    stop: Stop,
}

/// An answer after all redirects, before its body is read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The headers of the last answer that came from the hub itself.
    pub(crate) hub_headers: HeaderMap,
    /// The address for messages.
    pub(crate) url: String,
    pub(crate) body: Body,
    /// Whether the hub itself answered, not a host that it redirects to.
    pub(crate) is_from_hub: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    Head,
}

impl<'a> Client<'a> {
    /// # Errors
    /// [`Error::Setting`] if the endpoint is no HTTP address.
    pub(crate) fn new(settings: &'a Settings) -> Result<Self> {
        let (endpoint, origin) = address::parse_endpoint(&settings.endpoint)?;
        let roots = match &settings.certificates {
            Some(certificates) => RootCerts::new_with_certs(&certificates.0),
            None => RootCerts::WebPki,
        };
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // Redirects are followed here, hop by hop: each decides anew whether the token goes along.
            .max_redirects(0)
            .proxy(settings.proxy())
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .user_agent(concat!("cachalot/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_resolve(Some(settings.connect_timeout))
            .timeout_connect(Some(settings.connect_timeout))
            .timeout_recv_response(Some(settings.stall_timeout))
            .timeout_per_read(Some(settings.stall_timeout))
            .timeout_per_write(Some(settings.stall_timeout))
            .max_idle_connections(settings.connection_count)
            .max_idle_connections_per_host(settings.connection_count)
            .build()
            .new_agent();
        Ok(Client {
            settings,
            endpoint,
            origin,
            agent,
            stop: Stop::new(),
        })
    }

    pub(crate) fn settings(&self) -> &Settings {
        self.settings
    }

    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Ends all requests, also those that wait for bytes, and all pauses.
    pub(crate) fn interrupt(&self) {
        self.stop.raise();
        self.agent.clone().shutdown();
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn has_token(&self) -> bool {
        self.settings.token.is_some()
    }

    /// The address of something at the hub; `path` starts with `/` and is encoded already.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.endpoint)
    }

    /// Asks for the bytes from `offset_bytes` on.
    pub(crate) fn get(&self, url: &str, offset_bytes: u64) -> Result<Answer, Failure> {
        self.send(Method::Get, url, offset_bytes, None)
    }

    /// Asks the hub for the headers of a file; does not follow a redirect to another host.
    pub(crate) fn head(&self, url: &str) -> Result<Answer, Failure> {
        self.send(Method::Head, url, 0, Some(self.settings.stall_timeout))
    }

    /// Fetches a document of at most `bytes_max` bytes within `time_max`, trying again as the settings say.
    pub(crate) fn get_document(
        &self,
        url: &str,
        subject: Subject<'_>,
        bytes_max: u64,
        time_max: Duration,
        on_retry: impl Fn(&Error, Duration),
    ) -> Result<Vec<u8>> {
        self.retrying(on_retry, || {
            let answer = self.send(Method::Get, url, 0, Some(time_max))?;
            if answer.status != 200 {
                return Err(refusal(self, &answer, subject));
            }
            let mut document = Vec::new();
            let mut body = answer.body.into_reader().take(bytes_max + 1);
            body.read_to_end(&mut document)
                .map_err(|error| self.broken(&answer.url, &error))?;
            if document.len() as u64 > bytes_max {
                let reason = format!("expected at most {bytes_max} bytes");
                return Err(Error::Answer {
                    url: answer.url,
                    reason,
                }
                .into());
            }
            Ok(document)
        })
    }

    /// Repeats `attempt` until it succeeds, fails for good, or the attempts are used up.
    pub(crate) fn retrying<T>(
        &self,
        on_retry: impl Fn(&Error, Duration),
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T> {
        let mut backoff = Backoff::new(&self.settings.retry);
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(failure) => {
                    let (pause, error) = backoff.after(failure)?;
                    on_retry(&error, pause);
                    self.stop.pause(pause)?;
                }
            }
        }
    }

    /// The failure that a cut, stalled or refused connection means.
    pub(crate) fn broken(&self, url: &str, reason: &dyn std::fmt::Display) -> Failure {
        if self.stop.is_raised() {
            return Error::Cancelled.into();
        }
        Failure::passing(Error::Transport {
            url: url.to_owned(),
            reason: reason.to_string(),
        })
    }

    fn send(
        &self,
        method: Method,
        url: &str,
        offset_bytes: u64,
        time_max: Option<Duration>,
    ) -> Result<Answer, Failure> {
        let mut uri: Uri = url
            .parse()
            .map_err(|error: ureq::http::uri::InvalidUri| Error::Answer {
                url: url.to_owned(),
                reason: error.to_string(),
            })?;
        let mut is_from_hub = true;
        let mut hub_headers = HeaderMap::new();
        for _ in 0..=REDIRECT_COUNT_MAX {
            self.stop.check()?;
            let shown = address::shown(&uri);
            let response = self
                .request(method, &uri, offset_bytes, is_from_hub, time_max)
                .map_err(|error| self.unreachable(&shown, error))?;
            let (parts, body) = response.into_parts();
            let (status, headers) = (parts.status.as_u16(), parts.headers);
            if is_from_hub {
                hub_headers.clone_from(&headers);
            }
            match redirect_target(&uri, status, &headers)? {
                Some(next) if method == Method::Get || self.is_hub(&next) => {
                    // A host that is not the hub is never trusted with the token, nor is anything after it.
                    is_from_hub = is_from_hub && self.is_hub(&next);
                    uri = next;
                }
                _ => {
                    return Ok(Answer {
                        status,
                        headers,
                        hub_headers,
                        url: shown,
                        body,
                        is_from_hub,
                    });
                }
            }
        }
        let reason = format!("more than {REDIRECT_COUNT_MAX} times");
        Err(Error::Redirect {
            url: address::shown(&uri),
            reason,
        }
        .into())
    }

    fn request(
        &self,
        method: Method,
        uri: &Uri,
        offset_bytes: u64,
        with_token: bool,
        time_max: Option<Duration>,
    ) -> Result<ureq::http::Response<Body>, ureq::Error> {
        let mut request = match method {
            Method::Get => self.agent.get(uri.clone()),
            Method::Head => self.agent.head(uri.clone()),
        };
        if offset_bytes > 0 {
            request = request.header(header::RANGE, format!("bytes={offset_bytes}-"));
        }
        if with_token && let Some(token) = &self.settings.token {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.text()))
                .map_err(|error| ureq::Error::Http(error.into()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        request.config().timeout_global(time_max).build().call()
    }

    fn is_hub(&self, uri: &Uri) -> bool {
        Origin::of(uri).as_ref() == Some(&self.origin)
    }

    fn unreachable(&self, url: &str, error: ureq::Error) -> Failure {
        let is_final = matches!(
            error,
            ureq::Error::BadUri(_)
                | ureq::Error::Http(_)
                | ureq::Error::Tls(_)
                | ureq::Error::Rustls(_)
                | ureq::Error::InvalidProxyUrl
                | ureq::Error::LargeResponseHeader(..)
        );
        match self.broken(url, &error) {
            Failure::Passing { error, .. } if is_final => Failure::Final(error),
            failure => failure,
        }
    }
}

/// Where an answer sends on to, if it does.
fn redirect_target(uri: &Uri, status: u16, headers: &HeaderMap) -> Result<Option<Uri>> {
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let target = match location {
        Some(location) => address::follow(uri, location),
        None => Err("without saying where to".to_owned()),
    };
    target.map(Some).map_err(|reason| Error::Redirect {
        url: address::shown(uri),
        reason,
    })
}
