//! Paths and what answers them.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Path, Request, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header},
    middleware::{self, Next},
    routing::{get, post},
};
use serde_json::{Value, json};

use crate::{
    Protocol, Refusal, answering,
    answering::Tracker,
    backend::{Backend, Inquiry},
    body, console,
    gate::Gate,
    health::Health,
    metrics::{self, Metrics},
    models, openapi, outer,
};

/// What all handlers share.
pub struct App {
    pub backend: Arc<dyn Backend>,
    pub gate: Gate,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
}

type Shared = State<Arc<App>>;
type Reply = Response<Body>;

/// The patterns of [`router`]; metrics have no other names of routes.
const PATTERNS: [&str; 16] = [
    "/",
    "/console/status",
    "/detokenize",
    "/health",
    "/metrics",
    "/openapi.json",
    "/tokenize",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/models",
    "/v1/models/{*name}",
    "/v1/responses",
    "/v1/responses/{id}",
    "/console.js",
];

/// All routes, with the checks that every request passes.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat_completions))
        .route("/v1/responses", post(responses))
        .route("/v1/responses/{id}", get(stored_response).delete(forget_response))
        .route("/v1/messages", post(messages))
        .route("/v1/messages/count_tokens", post(count_tokens))
        .route("/v1/completions", post(completions))
        .route("/v1/models", get(list_models))
        .route("/v1/models/{*name}", get(one_model))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/health", get(health))
        .route("/metrics", get(metrics_page))
        .route("/openapi.json", get(openapi_document))
        .route("/", get(console::page))
        .route("/console.js", get(console::script))
        .route("/console/status", get(console_status))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), pass))
        .with_state(app)
}

/// What every request passes: the host check, CORS, counting, and an answer even when a handler panics.
async fn pass(State(app): Shared, matched: Option<MatchedPath>, request: Request, next: Next) -> Reply {
    let pattern = matched.as_ref().map_or("other", MatchedPath::as_str);
    let route = PATTERNS.into_iter().find(|known| *known == pattern).unwrap_or("other");
    let protocol = protocol_of(request.uri(), request.headers());
    let origin = app.gate.allowed_origin(request.headers());
    let is_page = request.uri().path() == "/" || request.uri().path().starts_with("/console");
    let mut response = match app.gate.check_host(request.headers(), request.uri(), is_page) {
        Err(refusal) => refusal.to_response(protocol),
        Ok(()) if origin.is_some() && outer::is_preflight(&request) => outer::preflight(),
        Ok(()) => outer::contained(next.run(request), protocol).await,
    };
    outer::add_headers(&mut response, origin, app.gate.is_draining());
    app.metrics.count_response(route, response.status().as_u16());
    response
}

async fn chat_completions(app: Shared, request: Request) -> Reply {
    answer(app, request, Protocol::ChatCompletions).await
}

async fn responses(app: Shared, request: Request) -> Reply {
    answer(app, request, Protocol::Responses).await
}

async fn messages(app: Shared, request: Request) -> Reply {
    answer(app, request, Protocol::Messages).await
}

async fn completions(app: Shared, request: Request) -> Reply {
    answer(app, request, Protocol::Completions).await
}

/// The way of every request for an answer.
async fn answer(State(app): Shared, request: Request, protocol: Protocol) -> Reply {
    let started = Instant::now();
    match begin(&app, request, protocol, started).await {
        Ok((answer, tracker)) => answering::respond(answer, protocol, app.gate.limits(), tracker).await,
        Err(refusal) => refusal.to_response(protocol),
    }
}

async fn begin(
    app: &Arc<App>,
    request: Request,
    protocol: Protocol,
    started: Instant,
) -> Result<(crate::backend::Answer, Tracker), Refusal> {
    let (parts, body) = request.into_parts();
    let admitted = app
        .gate
        .identify(&parts.headers)
        .and_then(|owner| Ok((owner, app.gate.admit(owner)?)));
    let (owner, ticket) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => {
            body::discard(body).await;
            return Err(refusal);
        }
    };
    let tracker = Tracker::new(Arc::clone(&app.metrics), started, ticket);
    let read = body::read_json(&parts.headers, body, &app.gate).await;
    let read = match read {
        Ok(read) => read,
        Err(refusal) => return Err(tracker.refused(refusal)),
    };
    let backend = Arc::clone(&app.backend);
    let deadline = started + app.gate.limits().answer_time_max;
    let answer = compute(move || {
        backend.answer(Inquiry {
            protocol,
            body: read.bytes.clone(),
            owner,
            deadline,
        })
    })
    .await;
    match answer {
        Ok(answer) => Ok((answer, tracker)),
        Err(refusal) => Err(tracker.refused(refusal)),
    }
}

/// Runs work that takes a while off the threads that serve connections.
async fn compute<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refusal> + Send + 'static) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(outer::fault()))
}

async fn count_tokens(app: Shared, request: Request) -> Reply {
    convert(app, request, Protocol::Messages, |backend, body| {
        backend.count_tokens(body)
    })
    .await
}

async fn tokenize(app: Shared, request: Request) -> Reply {
    convert(app, request, Protocol::Completions, |backend, body| {
        backend.tokenize(body)
    })
    .await
}

async fn detokenize(app: Shared, request: Request) -> Reply {
    convert(app, request, Protocol::Completions, |backend, body| {
        backend.detokenize(body)
    })
    .await
}

/// The way of requests that need no model.
async fn convert(
    State(app): Shared,
    request: Request,
    protocol: Protocol,
    work: impl FnOnce(&dyn Backend, &[u8]) -> Result<Value, Refusal> + Send + 'static,
) -> Reply {
    let (parts, body) = request.into_parts();
    let outcome = async {
        app.gate.identify(&parts.headers)?;
        let read = body::read_json(&parts.headers, body, &app.gate).await?;
        let backend = Arc::clone(&app.backend);
        compute(move || work(&*backend, &read.bytes)).await
    };
    reply(outcome.await, protocol)
}

async fn stored_response(State(app): Shared, Path(id): Path<String>, headers: HeaderMap) -> Reply {
    let outcome = app.gate.identify(&headers).and_then(|owner| {
        let found = app.backend.stored_response(&id, owner);
        found.ok_or_else(|| unknown_response(&id))
    });
    reply(outcome, Protocol::Responses)
}

async fn forget_response(State(app): Shared, Path(id): Path<String>, headers: HeaderMap) -> Reply {
    let outcome = app
        .gate
        .identify(&headers)
        .and_then(|owner| match app.backend.forget_response(&id, owner) {
            true => Ok(json!({ "id": id, "object": "response.deleted", "deleted": true })),
            false => Err(unknown_response(&id)),
        });
    reply(outcome, Protocol::Responses)
}

async fn list_models(State(app): Shared, headers: HeaderMap) -> Reply {
    let outcome = app.gate.identify(&headers).map(|_| models::list(&app.backend.model()));
    reply(outcome, Protocol::ChatCompletions)
}

async fn one_model(State(app): Shared, Path(name): Path<String>, headers: HeaderMap) -> Reply {
    let outcome = app.gate.identify(&headers).and_then(|_| {
        let found = models::one(&app.backend.model(), &name);
        found.ok_or_else(|| {
            let message = format!("there is no model '{name}' here; GET /v1/models lists those there are");
            Refusal::new(404, message).with_code("model_not_found")
        })
    });
    reply(outcome, Protocol::ChatCompletions)
}

async fn health(State(app): Shared) -> Reply {
    let report = app.health.report();
    let is_draining = app.gate.is_draining();
    let mut body = report.to_json(is_draining);
    // Answers do not depend on the cache: a fault of it is told, and the server is healthy all the same.
    body["cache_fault"] = json!(app.backend.status().cache_fault);
    let mut response = reply(Ok(body), Protocol::ChatCompletions);
    if is_draining || !report.is_healthy {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

async fn metrics_page(State(app): Shared, headers: HeaderMap) -> Reply {
    if let Err(refusal) = app.gate.identify(&headers) {
        return refusal.to_response(Protocol::ChatCompletions);
    }
    let text = metrics::render(&app.metrics, &app.backend.status(), &app.health.report());
    with_type(text, "text/plain; version=0.0.4")
}

async fn console_status(State(app): Shared, headers: HeaderMap) -> Reply {
    let outcome = app.gate.identify(&headers).map(|_| console::status(&app));
    reply(outcome, Protocol::ChatCompletions)
}

async fn openapi_document() -> Reply {
    with_type(openapi::DOCUMENT.to_owned(), "application/json")
}

async fn unknown_path(uri: Uri, request: Request) -> Reply {
    let protocol = protocol_of(&uri, request.headers());
    body::discard(request.into_body()).await;
    let message = format!("there is nothing at {}; GET /openapi.json lists the paths", uri.path());
    Refusal::new(404, message)
        .with_code("unknown_path")
        .to_response(protocol)
}

async fn wrong_method(uri: Uri, request: Request) -> Reply {
    let protocol = protocol_of(&uri, request.headers());
    let message = format!("{} does not take {}", uri.path(), request.method());
    body::discard(request.into_body()).await;
    Refusal::new(405, message)
        .with_code("wrong_method")
        .to_response(protocol)
}

fn unknown_response(id: &str) -> Refusal {
    let message = format!("no response '{id}' is kept here; it was never stored, or has made room for others");
    Refusal::new(404, message).with_code("response_not_found")
}

/// Whose errors a client expects that asks for something unknown.
fn protocol_of(uri: &Uri, headers: &HeaderMap) -> Protocol {
    match uri.path() {
        path if path.starts_with("/v1/messages") => Protocol::Messages,
        path if path.starts_with("/v1/responses") => Protocol::Responses,
        _ if headers.contains_key("anthropic-version") => Protocol::Messages,
        _ => Protocol::ChatCompletions,
    }
}

fn reply(outcome: Result<Value, Refusal>, protocol: Protocol) -> Reply {
    match outcome {
        Ok(value) => with_type(value.to_string(), "application/json"),
        Err(refusal) => refusal.to_response(protocol),
    }
}

fn with_type(text: String, kind: &'static str) -> Reply {
    let mut response = Response::new(Body::from(text));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
