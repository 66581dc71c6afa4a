//! Who may come in: keys, host names, origins, and how many at once.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::http::{HeaderMap, HeaderValue, Uri, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Limits, Refusal, ServerOptions, keys::KeyIndex};

/// Bytes that one permit for bodies stands for.
const BODY_UNIT_BYTES: usize = 4096;

/// Checks requests before anything is read or computed for them.
#[derive(Debug)]
pub struct Gate {
    keys: crate::ApiKeys,
    host_names: Vec<String>,
    cors_origins: Vec<String>,
    limits: Limits,
    answers: Arc<Semaphore>,
    /// One count for each key; one for all where no keys are needed.
    by_key: Vec<Arc<AtomicUsize>>,
    bodies: Arc<Semaphore>,
    is_draining: AtomicBool,
}

/// The right to have an answer computed; given back when dropped.
#[derive(Debug)]
pub struct Ticket {
    count: Arc<AtomicUsize>,
    _answer: OwnedSemaphorePermit,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Gate {
    /// A gate with the settings of a server.
    pub fn new(options: &ServerOptions) -> Self {
        let limits = options.limits.clone();
        let units = (limits.bodies_bytes_max / BODY_UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Gate {
            keys: options.keys.clone(),
            host_names: options.host_names.clone(),
            cors_origins: options.cors_origins.clone(),
            answers: Arc::new(Semaphore::new(limits.request_count_max)),
            by_key: (0..options.keys.len().max(1)).map(|_| Arc::default()).collect(),
            bodies: Arc::new(Semaphore::new(units)),
            limits,
            is_draining: AtomicBool::new(false),
        }
    }

    /// From now on no answers are begun.
    pub fn close(&self) {
        self.is_draining.store(true, Ordering::Release);
    }

    /// Whether [`Gate::close`] was called.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    /// Who asks.
    ///
    /// # Errors
    /// 401 without a known key.
    pub fn identify(&self, headers: &HeaderMap) -> Result<KeyIndex, Refusal> {
        let refused = |message| Refusal::new(401, message).with_code("invalid_api_key");
        self.keys.identify(headers).map_err(refused)
    }

    /// Refuses names that a foreign page may have pointed at this address (DNS rebinding). An IP address or `localhost`
    /// in the Host header shows that no name was resolved; with keys, a foreign page has none to send, so only pages
    /// that ask for none (`is_page`) are checked.
    ///
    /// # Errors
    /// 403 for a name that is not allowed, 400 for a header that is none.
    pub fn check_host(&self, headers: &HeaderMap, uri: &Uri, is_page: bool) -> Result<(), Refusal> {
        if !self.keys.is_empty() && !is_page {
            return Ok(());
        }
        let named = headers.get(header::HOST).and_then(|value| value.to_str().ok());
        let Some(host) = named.or_else(|| uri.host()) else {
            return Err(Refusal::new(400, "the Host header is missing or not ASCII"));
        };
        let name = host_name(host);
        let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let is_local = name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost");
        if is_address || is_local || self.host_names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return Ok(());
        }
        let message = format!("this server does not go by the name '{name}'; start it with --allow-host {name}");
        Err(Refusal::new(403, message).with_code("host_not_allowed"))
    }

    /// The value of `Access-Control-Allow-Origin` for a request's origin, if its pages may read answers.
    pub fn allowed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let text = origin.to_str().ok()?;
        let is_known = self.cors_origins.iter().any(|known| known == "*" || known == text);
        is_known.then(|| origin.clone())
    }

    /// A place among the answers being computed.
    ///
    /// # Errors
    /// 429 if there is none, 503 while the server stops.
    pub fn admit(&self, key: KeyIndex) -> Result<Ticket, Refusal> {
        if self.is_draining() {
            let refusal = Refusal::new(503, "the server is stopping; try again when it is back");
            return Err(refusal.with_code("stopping").with_retry_after(10));
        }
        let full = |message: String| {
            Refusal::new(429, message)
                .with_code("too_many_requests")
                .with_retry_after(2)
        };
        let count = Arc::clone(&self.by_key[key.unwrap_or(0)]);
        let limit = match key {
            Some(_) => self.limits.request_count_max_per_key,
            None => self.limits.request_count_max,
        };
        let Ok(answer) = Arc::clone(&self.answers).try_acquire_owned() else {
            let most = self.limits.request_count_max;
            return Err(full(format!(
                "{most} requests are being answered already; try again soon"
            )));
        };
        if count.fetch_add(1, Ordering::AcqRel) >= limit {
            count.fetch_sub(1, Ordering::AcqRel);
            return Err(full(format!("this API key has {limit} requests under way already")));
        }
        Ok(Ticket { count, _answer: answer })
    }

    /// Memory for a body of `byte_count`, as long as the permit lives.
    ///
    /// # Errors
    /// 413 if a body may not be so long, 429 if others need the memory now.
    pub fn reserve_body(&self, byte_count: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        self.check_body_size(byte_count)?;
        let units = u32::try_from(byte_count.div_ceil(BODY_UNIT_BYTES)).unwrap_or(u32::MAX);
        Arc::clone(&self.bodies).try_acquire_many_owned(units).map_err(|_| {
            let message = "too many large requests are being read; try again soon";
            Refusal::new(429, message)
                .with_code("too_many_requests")
                .with_retry_after(1)
        })
    }

    /// # Errors
    /// 413 if a body may not be so long.
    pub fn check_body_size(&self, byte_count: usize) -> Result<(), Refusal> {
        let limit = self.limits.body_bytes_max;
        if byte_count <= limit {
            return Ok(());
        }
        let message = format!("the body has more than {limit} bytes, which is the limit of this server");
        Err(Refusal::new(413, message).with_code("body_too_large"))
    }

    /// The bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// A host without its port.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(change: impl FnOnce(&mut ServerOptions)) -> Gate {
        let mut options = ServerOptions::default();
        change(&mut options);
        Gate::new(&options)
    }

    fn with_host(host: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        headers
    }

    #[test]
    fn names_of_others_are_refused() {
        let gate = gate(|options| options.host_names = vec!["box.lan".to_owned()]);
        let uri = Uri::from_static("/");
        for (host, allowed) in [
            ("localhost:8000", true),
            ("LOCALHOST", true),
            ("127.0.0.1:8000", true),
            ("[::1]:8000", true),
            ("192.168.1.2", true),
            ("box.lan:8000", true),
            ("app.localhost", true),
            ("evil.example:8000", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            let outcome = gate.check_host(&with_host(host), &uri, false);
            assert_eq!(outcome.is_ok(), allowed, "{host}");
        }
        assert_eq!(gate.check_host(&HeaderMap::new(), &uri, false).unwrap_err().status, 400);
    }

    #[test]
    fn with_keys_only_pages_are_checked() {
        let gate = gate(|options| options.keys.add("k").unwrap());
        let uri = Uri::from_static("/");
        assert!(gate.check_host(&with_host("inference.internal"), &uri, false).is_ok());
        assert!(gate.check_host(&with_host("evil.example"), &uri, true).is_err());
    }

    #[test]
    fn places_are_given_back() {
        let gate = gate(|options| {
            options.keys.add("a").unwrap();
            options.keys.add("b").unwrap();
            options.limits.request_count_max = 3;
            options.limits.request_count_max_per_key = 2;
        });
        let held = [gate.admit(Some(0)).unwrap(), gate.admit(Some(0)).unwrap()];
        assert!(gate.admit(Some(0)).unwrap_err().message.contains("this API key"));
        let other = gate.admit(Some(1)).unwrap();
        let refusal = gate.admit(Some(1)).unwrap_err();
        assert_eq!((refusal.status, refusal.retry_after_seconds.is_some()), (429, true));
        drop((held, other));
        gate.admit(Some(0)).unwrap();
        gate.close();
        assert_eq!(gate.admit(Some(0)).unwrap_err().status, 503);
    }

    #[test]
    fn bodies_share_a_bound() {
        let gate = gate(|options| {
            options.limits.body_bytes_max = 8192;
            options.limits.bodies_bytes_max = 12288;
        });
        assert_eq!(gate.reserve_body(8193).unwrap_err().status, 413);
        let first = gate.reserve_body(8192).unwrap();
        assert_eq!(gate.reserve_body(8192).unwrap_err().status, 429);
        drop(first);
        assert!(gate.reserve_body(8192).is_ok());
    }

    #[test]
    fn no_origin_is_allowed_by_default() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, "https://a.example".parse().unwrap());
        assert_eq!(gate(|_| ()).allowed_origin(&headers), None);
        let listed = gate(|options| options.cors_origins = vec!["https://a.example".to_owned()]);
        assert_eq!(listed.allowed_origin(&headers).unwrap(), "https://a.example");
        headers.insert(header::ORIGIN, "https://b.example".parse().unwrap());
        assert_eq!(listed.allowed_origin(&headers), None);
    }
}
