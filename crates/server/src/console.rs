//! The console: one page and one script in the binary, and the figures that they show.

use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
};
use serde_json::{Value, json};

use crate::routes::App;

const PAGE: &str = include_str!("../assets/console.html");
const SCRIPT: &str = include_str!("../assets/console.js");

/// Only what the binary itself serves may run; nothing may be sent elsewhere.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The page.
pub async fn page() -> Response<Body> {
    file(PAGE, "text/html; charset=utf-8")
}

/// Its script.
pub async fn script() -> Response<Body> {
    file(SCRIPT, "text/javascript; charset=utf-8")
}

/// The figures of the live view.
pub fn status(app: &App) -> Value {
    let status = app.backend.status();
    let reuse = app.metrics.reuse();
    let missed: serde_json::Map<String, Value> = reuse
        .missed
        .iter()
        .map(|(reason, (tokens, _))| ((*reason).to_owned(), json!(tokens)))
        .collect();
    let memory: serde_json::Map<String, Value> = status
        .memory_bytes
        .iter()
        .map(|(kind, bytes)| ((*kind).to_owned(), json!(bytes)))
        .collect();
    json!({
        "model": app.backend.model().name,
        "health": app.health.report().to_json(app.gate.is_draining()),
        "queued": status.queued,
        "running": status.running,
        "prefill_tokens_per_second": status.prefill_tokens_per_second,
        "decode_tokens_per_second": status.decode_tokens_per_second,
        "prompt_tokens": reuse.prompt,
        "reused_tokens": reuse.reused,
        "missed_tokens": missed,
        "memory_bytes": memory,
    })
}

fn file(content: &'static str, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(content));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
