//! Every refusal is in the format of the protocol that was spoken.

use crate::support::{JSON, Running, message, read};
use cachalot_server::{Error, Server, ServerOptions};
use serde_json::json;

#[test]
fn in_each_protocols_format() {
    let server = Running::with(|options| options.limits.body_bytes_max = 1000);
    let long = "x".repeat(200_000);
    for (path, is_anthropic) in [
        ("/v1/chat/completions", false),
        ("/v1/responses", false),
        ("/v1/completions", false),
        ("/v1/messages", true),
        ("/v1/messages/count_tokens", true),
    ] {
        let post = format!("POST {path}");
        let form = "content-type: application/x-www-form-urlencoded\r\n";
        for (status, response) in [
            (405, server.ask(&format!("GET {path}"), "", "")),
            (404, server.ask(&format!("POST {path}/nothing/here"), JSON, "{}")),
            (413, server.ask(&post, JSON, &long)),
            (415, server.ask(&post, form, "{}")),
            (415, server.ask(&post, "", "{}")),
        ] {
            assert_eq!(response.status, status, "{path}: {response:?}");
            let error = &response.json()["error"];
            assert!(
                error["message"].is_string() && error["type"].is_string(),
                "{response:?}"
            );
            assert_eq!(response.json()["type"] == "error", is_anthropic, "{path}: {response:?}");
        }
    }
    for (path, kind) in [("/v1/chat/completions", "server_error"), ("/v1/messages", "api_error")] {
        let response = server.post(path, &json!({ "act": "panic" }));
        assert_eq!(
            (response.status, &response.json()["error"]["type"]),
            (500, &json!(kind))
        );
        let response = server.post(path, &json!({ "act": "fail" }));
        assert_eq!(
            (response.status, &response.json()["error"]["type"]),
            (500, &json!(kind))
        );
        let response = server.post(path, &json!({ "act": "full" }));
        assert_eq!((response.status, response.header("retry-after")), (429, Some("7")));
        assert_eq!(response.json()["error"]["type"], "rate_limit_error");
    }
    let anthropic = server.ask("GET /v1/nothing", "anthropic-version: 2023-06-01\r\n", "");
    assert_eq!(anthropic.json()["type"], "error");
}

#[test]
fn without_a_known_key() {
    let server = Running::with(|options| {
        options.keys.add("alpha").unwrap();
        options.keys.add("beta").unwrap();
    });
    let ask = |request: &str, headers: &str| server.ask(request, &format!("{JSON}{headers}"), "{}");
    for request in [
        "POST /v1/chat/completions",
        "POST /v1/messages",
        "POST /tokenize",
        "GET /v1/models",
        "GET /metrics",
    ] {
        assert_eq!(ask(request, "").status, 401, "{request}");
        assert_eq!(ask(request, "authorization: Bearer wrong\r\n").status, 401, "{request}");
        assert_eq!(ask(request, "authorization: Bearer alpha\r\n").status, 200, "{request}");
        assert_eq!(ask(request, "x-api-key: beta\r\n").status, 200, "{request}");
    }
    assert_eq!(ask("GET /", "").status, 200);
    assert_eq!(ask("GET /openapi.json", "").status, 200);
    // A response belongs to the key that asked for it.
    assert_eq!(ask("GET /v1/responses/resp_1", "x-api-key: alpha\r\n").status, 200);
    assert_eq!(ask("GET /v1/responses/resp_1", "x-api-key: beta\r\n").status, 404);
    assert_eq!(
        ask("DELETE /v1/responses/resp_1", "x-api-key: alpha\r\n").json()["deleted"],
        true
    );
}

#[test]
fn foreign_names_and_origins() {
    let server = Running::with(|options| options.cors_origins = vec!["https://mine.example".to_owned()]);
    let rebound = server.ask(
        "POST /v1/chat/completions",
        &format!("{JSON}host: evil.example\r\n"),
        "{}",
    );
    assert_eq!(
        (rebound.status, &rebound.json()["error"]["code"]),
        (403, &json!("host_not_allowed"))
    );
    assert_eq!(server.ask("GET /", "host: evil.example\r\n", "").status, 403);

    let ask = "access-control-request-method: POST\r\norigin: https://";
    let mine = server.ask("OPTIONS /v1/messages", &format!("{ask}mine.example\r\n"), "");
    assert_eq!(
        (mine.status, mine.header("access-control-allow-origin")),
        (204, Some("https://mine.example"))
    );
    let other = server.ask("OPTIONS /v1/messages", &format!("{ask}other.example\r\n"), "");
    assert_eq!((other.status, other.header("access-control-allow-origin")), (405, None));
}

#[test]
fn bytes_that_are_no_http() {
    let server = Running::with(|options| {
        options.limits.header_count_max = 20;
        options.limits.header_bytes_max = 8192;
        options.limits.header_time_max = std::time::Duration::from_millis(300);
    });
    let many: String = (0..30).map(|index| format!("x-{index}: 1\r\n")).collect();
    assert_eq!(server.ask("GET /health", &many, "").status, 431);
    let long = format!("x: {}\r\n", "y".repeat(20_000));
    assert_eq!(server.ask("GET /health", &long, "").status, 431);
    assert_eq!(read(server.connect(b"\x16\x03\x01 nonsense\r\n\r\n")).status, 400);
    // Headers that never end: the connection is closed.
    let mut closed = String::new();
    let mut slow = server.connect(b"GET /health HTTP/1.1\r\nhost: loc");
    std::io::Read::read_to_string(&mut slow, &mut closed).unwrap();
    // A body that ends early.
    let cut = message("POST /v1/messages", JSON, "{}").replace("content-length: 2", "content-length: 20");
    let stream = server.connect(cut.as_bytes());
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    drop(stream);
    assert_eq!(server.post("/v1/messages", &json!({})).status, 200);
}

#[test]
fn addresses_that_others_reach_need_a_key() {
    let mut options = ServerOptions {
        address: "0.0.0.0:0".parse().unwrap(),
        ..ServerOptions::default()
    };
    let error = Server::listen(options.clone()).unwrap_err();
    assert!(matches!(error, Error::Unprotected { .. }), "{error}");
    options.open_to_everybody = true;
    let server = Server::listen(options.clone()).unwrap();
    let taken = Server::listen(ServerOptions {
        address: server.address(),
        ..options
    });
    assert!(matches!(taken, Err(Error::Listen { .. })));
}
