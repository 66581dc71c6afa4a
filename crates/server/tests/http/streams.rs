//! Streams: what is sent while the model is silent, and clients that go away or do not read.

use std::{
    io::Read,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::support::{JSON, Running, eventually, message};
use serde_json::json;

#[test]
fn tell_what_was_reused_and_keep_silent_connections_alive() {
    let server = Running::with(|options| options.limits.keep_alive_interval = Duration::from_millis(100));
    let response = server.post(
        "/v1/chat/completions",
        &json!({ "stream": true, "silence_ms": 1000, "events": 3 }),
    );
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    assert_eq!(response.header("x-cachalot-prompt-tokens"), Some("100"));
    assert_eq!(response.header("x-cachalot-reused-tokens"), Some("60"));
    assert_eq!(response.header("x-cachalot-reuse-missed"), Some("diverged; token=60"));
    assert!(response.body.contains(": prompt 80 of 100 tokens\n\n"), "{response:?}");
    let kept = response.body.matches(": keep-alive\n\n").count();
    assert!((5..=10).contains(&kept), "{kept} in {response:?}");
    assert_eq!(response.body.matches("data: x\n\n").count(), 3);

    let whole = server.post("/v1/chat/completions", &json!({}));
    assert_eq!(
        (whole.json(), whole.header("x-cachalot-reused-tokens")),
        (json!({ "text": "x" }), Some("60"))
    );
}

#[test]
fn ping_clients_of_the_messages_protocol() {
    let server = Running::with(|options| options.limits.keep_alive_interval = Duration::from_millis(100));
    let ping = "event: ping\ndata: {\"type\":\"ping\"}\n\n";
    for (path, begins, pinged) in [
        ("/v1/messages", true, true),
        ("/v1/messages", false, false),
        ("/v1/chat/completions", true, false),
    ] {
        let script = json!({ "stream": true, "silence_ms": 1000, "begins": begins });
        let response = server.post(path, &script);
        let count = response.body.matches(ping).count();
        let expected = if pinged { 4..=10 } else { 0..=0 };
        assert!(expected.contains(&count), "{path}: {count} in {response:?}");
        assert_eq!(response.body.matches("data: x\n\n").count(), 2, "{response:?}");
    }
}

#[test]
fn end_when_the_client_goes() {
    let server = Running::with(|_| ());
    for stream in [true, false] {
        let before = server.abandoned.load(Ordering::SeqCst);
        let begun = server.begun.load(Ordering::SeqCst);
        let body = json!({ "stream": stream, "silence_ms": 60_000 }).to_string();
        let connection = server.connect(message("POST /v1/messages", JSON, &body).as_bytes());
        eventually("begun", || server.begun.load(Ordering::SeqCst) > begun);
        std::thread::sleep(Duration::from_millis(100));
        drop(connection);
        eventually("abandoned", || server.abandoned.load(Ordering::SeqCst) > before);
    }
    eventually("counted", || {
        server
            .ask("GET /metrics", "", "")
            .body
            .contains("cachalot_answers_cancelled_total 2\n")
    });
}

#[test]
fn a_client_that_does_not_read_is_given_up_and_others_are_served() {
    let server = Running::with(|options| options.limits.stall_time_max = Duration::from_millis(500));
    let body = json!({ "stream": true, "events": 100_000, "event_bytes": 10_000 }).to_string();
    let mut stalled = server.connect(message("POST /v1/chat/completions", JSON, &body).as_bytes());
    let started = Instant::now();
    assert_eq!(server.post("/v1/messages", &json!({ "stream": true })).status, 200);
    eventually("given up", || server.abandoned.load(Ordering::SeqCst) == 1);
    assert!(started.elapsed() >= Duration::from_millis(400));
    let mut rest = Vec::new();
    let _ = stalled.read_to_end(&mut rest);
    assert!(rest.len() < 50_000_000, "{}", rest.len());
}

#[test]
fn places_are_bounded() {
    let server = Running::with(|options| options.limits.request_count_max = 1);
    let body = json!({ "stream": true, "silence_ms": 60_000 }).to_string();
    let held = server.connect(message("POST /v1/messages", JSON, &body).as_bytes());
    eventually("begun", || server.begun.load(Ordering::SeqCst) == 1);
    let refused = server.post("/v1/messages", &json!({}));
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("2")));
    drop(held);
    eventually("free again", || server.post("/v1/messages", &json!({})).status == 200);
}
