use std::fmt::Write;

use ureq::http::Uri;

use crate::{Error, Result};

/// The part of an address that decides who gets the token: scheme, host, port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) is_https: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// `None` unless the address is absolute HTTP or HTTPS without user name.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let is_https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        Some(Origin {
            is_https,
            host: authority.host().to_ascii_lowercase(),
            port,
        })
    }
}

/// Checks the hub's address and drops a final `/`.
///
/// # Errors
/// [`Error::Setting`] unless it is `http://` or `https://`, a host, and perhaps a port and a path.
pub(crate) fn parse_endpoint(endpoint: &str) -> Result<(String, Origin)> {
    let refuse = || Error::Setting {
        setting: "HF_ENDPOINT",
        reason: format!("'{endpoint}' is no address such as https://huggingface.co"),
    };
    let trimmed = endpoint.trim().trim_end_matches('/');
    let uri: Uri = trimmed.parse().map_err(|_| refuse())?;
    let origin = Origin::of(&uri).ok_or_else(refuse)?;
    if uri.query().is_some() || trimmed.contains('#') {
        return Err(refuse());
    }
    Ok((trimmed.to_owned(), origin))
}

/// The address that a `Location` header means, seen from `base`.
///
/// # Errors
/// What is wrong with it, as the end of the sentence "… redirects …".
pub(crate) fn follow(base: &Uri, location: &str) -> Result<Uri, String> {
    let refuse = || format!("to '{}', which is no HTTP address", without_query(location));
    let location = location.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str().unwrap_or("https");
    let authority = base.authority().map_or("", |authority| authority.as_str());
    let has_scheme = location
        .split(['/', '?'])
        .next()
        .is_some_and(|start| start.contains(':'));
    let absolute = if has_scheme {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let uri: Uri = absolute.parse().map_err(|_| refuse())?;
    let origin = Origin::of(&uri).ok_or_else(refuse)?;
    if base.scheme_str() == Some("https") && !origin.is_https {
        return Err("from https to http".to_owned());
    }
    Ok(uri)
}

/// An address for a message: signed links keep their credentials in the query.
pub(crate) fn shown(uri: &Uri) -> String {
    without_query(&uri.to_string()).to_owned()
}

fn without_query(address: &str) -> &str {
    address.split('?').next().unwrap_or_default()
}

/// Percent-encodes a part of a path; `/` stays where `keep_slashes` says so.
pub(crate) fn encode(text: &str, keep_slashes: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || (keep_slashes && byte == b'/') {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        assert_eq!(
            parse_endpoint("https://huggingface.co/").unwrap().0,
            "https://huggingface.co"
        );
        assert_eq!(
            parse_endpoint("http://m:8080/api/hf").unwrap().0,
            "http://m:8080/api/hf"
        );
        for bad in [
            "",
            "huggingface.co",
            "ftp://a",
            "https://",
            "https://u:p@a",
            "https://a?b",
            "file:///etc",
        ] {
            assert!(parse_endpoint(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap()).unwrap();
        assert_eq!(origin("https://A.b/x"), origin("https://a.B:443/y?z"));
        for other in ["http://a.b", "https://a.b:444", "https://b.a", "https://a.b.c"] {
            assert_ne!(origin("https://a.b"), origin(other), "{other}");
        }
    }

    #[test]
    fn locations() {
        let base: Uri = "https://a/b/c?d".parse().unwrap();
        for (location, expected) in [
            ("https://x/y?z=1#f", "https://x/y?z=1"),
            ("//x/y", "https://x/y"),
            ("/y?u=http://z", "https://a/y?u=http://z"),
            ("y", "https://a/b/y"),
            ("?q", "https://a/b/c?q"),
        ] {
            assert_eq!(follow(&base, location).unwrap().to_string(), expected);
        }
        for bad in [
            "http://x/y",
            "ftp://x",
            "file:///etc/passwd",
            "https://u@x/",
            "https://",
            "\u{7f}",
        ] {
            assert!(follow(&base, bad).is_err(), "{bad:?}");
        }
        assert_eq!(shown(&"https://x/y?Signature=s".parse().unwrap()), "https://x/y");
    }

    #[test]
    fn encoding() {
        assert_eq!(encode("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(encode("a b/é#?.x", true), "a%20b/%C3%A9%23%3F.x");
    }
}
