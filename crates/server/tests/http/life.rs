//! Health, metrics, and the end of a server.

use std::{
    net::TcpStream,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::support::{JSON, Running, eventually, message, read};
use serde_json::{Value, json};

#[test]
fn health_and_metrics_tell_what_happens() {
    let server = Running::with(|_| ());
    eventually("healthy", || server.ask("GET /health", "", "").status == 200);
    let health = server.ask("GET /health", "", "").json();
    assert_eq!(
        (&health["status"], &health["certificate"]),
        (&json!("ok"), &Value::Null)
    );
    assert_eq!(health["cache_fault"], "the folder is gone");
    assert!(health["probe"]["age_seconds"].as_f64().unwrap() < 5.0);

    server.post("/v1/chat/completions", &json!({ "events": 5 }));
    server.ask("GET /nothing", "", "");
    let page = server.ask("GET /metrics", "", "").body;
    for line in [
        "cachalot_http_responses_total{route=\"/v1/chat/completions\",status=\"200\"} 1",
        "cachalot_http_responses_total{route=\"other\",status=\"404\"} 1",
        "cachalot_queue_requests 0",
        "cachalot_prefill_tokens_total 7",
        "cachalot_memory_bytes{kind=\"pages\"} 4096",
        "cachalot_prompt_tokens_total 100",
        "cachalot_prompt_tokens_reused_total 60",
        "cachalot_prompt_tokens_missed_total{reason=\"diverged\"} 40",
        "cachalot_time_to_first_token_seconds_count 1",
        "cachalot_time_per_token_seconds_count 4",
        "cachalot_healthy 1",
        "cachalot_cache_fault 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} in {page}");
    }
    let status = server.ask("GET /console/status", "", "").json();
    assert_eq!(
        (
            &status["decode_tokens_per_second"],
            &status["missed_tokens"]["diverged"]
        ),
        (&json!(2.5), &json!(40))
    );
    let models = server.ask("GET /v1/models", "", "").json();
    assert_eq!(models["data"][0]["id"], "scripted");
    assert_eq!(server.ask("GET /v1/models/claude-opus-4", "", "").status, 200);
    assert_eq!(
        server.ask("GET /v1/models/gpt-4", "", "").json()["error"]["code"],
        "model_not_found"
    );
}

#[test]
fn answers_under_way_are_finished() {
    let mut server = Running::with(|options| options.drain_time_max = Duration::from_secs(20));
    let body = json!({ "stream": true, "silence_ms": 700 }).to_string();
    let connection = server.connect(message("POST /v1/messages", JSON, &body).as_bytes());
    eventually("begun", || server.begun.load(Ordering::SeqCst) == 1);
    let started = Instant::now();
    server.stop();
    eventually("closed to others", || TcpStream::connect(server.address).is_err());
    let response = read(connection);
    assert_eq!((response.status, response.body.matches("data: x").count()), (200, 2));
    assert_eq!(server.join(), 0);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn answers_that_take_too_long_are_cut() {
    let mut server = Running::with(|options| options.drain_time_max = Duration::from_millis(300));
    let body = json!({ "stream": true, "silence_ms": 60_000 }).to_string();
    let _connection = server.connect(message("POST /v1/messages", JSON, &body).as_bytes());
    eventually("begun", || server.begun.load(Ordering::SeqCst) == 1);
    let started = Instant::now();
    assert_eq!(server.join(), 1);
    assert!(started.elapsed() < Duration::from_secs(10));
}
