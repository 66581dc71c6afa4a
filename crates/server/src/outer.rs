//! What wraps every handler: CORS, common headers, panics.

use std::{
    panic::AssertUnwindSafe,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    task::Poll,
};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, Method, Response, StatusCode, header},
};

use crate::{Protocol, Refusal};

/// What every answer but the console's may load: nothing.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

static REQUEST_COUNT: AtomicU64 = AtomicU64::new(0);

/// Whether a browser asks what a page may send.
pub fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a page whose origin is allowed.
pub fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, DELETE"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("*, authorization"),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// Adds what every response has: an id, who may read it, and that nothing in it may run.
pub fn add_headers(response: &mut Response<Body>, origin: Option<HeaderValue>, is_draining: bool) {
    let headers = response.headers_mut();
    let number = REQUEST_COUNT.fetch_add(1, Ordering::Relaxed);
    if let Ok(id) = HeaderValue::from_str(&format!("req_{:x}_{number:x}", std::process::id())) {
        // One client library reads the first name, one the second.
        headers.insert("x-request-id", id.clone());
        headers.insert("request-id", id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(POLICY);
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
    }
    if is_draining {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Runs a handler; should it panic, the client hears of a fault and the connection lives on.
pub async fn contained(handler: impl Future<Output = Response<Body>>, protocol: Protocol) -> Response<Body> {
    let mut handler = pin!(handler);
    std::future::poll_fn(|context| {
        // A handler that panicked is not polled again.
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(context)));
        polled.unwrap_or_else(|_| Poll::Ready(fault().to_response(protocol)))
    })
    .await
}

/// A fault of the server.
pub fn fault() -> Refusal {
    Refusal::new(500, "the server failed at this request; others are not affected").with_code("internal_error")
}
