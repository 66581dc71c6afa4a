//! From an answer's parts to an HTTP response: one JSON body, or server-sent events.

mod events;
mod tracker;

use std::time::{Duration, Instant};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Response, header},
};
use tokio::sync::mpsc;

use crate::{
    Limits, Protocol, Refusal,
    backend::{Answer, Part, Reuse},
};
use events::EventBody;
pub use tracker::Tracker;

/// How long a stream's headers wait for the news of what was reused. A stream that waits longer begins without it.
const ADMISSION_TIME_MAX: Duration = Duration::from_secs(1);

/// The response to an inquiry whose answer has begun.
pub async fn respond(answer: Answer, protocol: Protocol, limits: &Limits, mut tracker: Tracker) -> Response<Body> {
    let mut parts = answer.parts;
    if !answer.is_streamed {
        return whole(&mut parts, protocol, &mut tracker).await;
    }
    let (reuse, pending) = match beginning(&mut parts, &mut tracker).await {
        Ok(beginning) => beginning,
        Err(refusal) => return refusal.to_response(protocol),
    };
    let body = EventBody::new(parts, protocol, limits.keep_alive_interval, tracker, pending);
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Asks proxies such as nginx not to collect the stream.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    if let Some(reuse) = reuse {
        tell_reuse(&reuse, headers);
    }
    response
}

/// Reads parts until it is known what was reused, or until there is something to send.
async fn beginning(
    parts: &mut mpsc::Receiver<Part>,
    tracker: &mut Tracker,
) -> Result<(Option<Reuse>, Option<Part>), Refusal> {
    let end = tokio::time::Instant::from_std(Instant::now() + ADMISSION_TIME_MAX);
    loop {
        let Ok(part) = tokio::time::timeout_at(end, parts.recv()).await else {
            return Ok((None, None));
        };
        if let Some(part) = &part {
            tracker.observe(part);
        }
        match part {
            Some(Part::Admitted(reuse)) => return Ok((Some(reuse), None)),
            Some(Part::Failed(refusal)) => return Err(refusal),
            Some(part @ (Part::Events(_) | Part::End)) => return Ok((None, Some(part))),
            Some(_) => {}
            None => return Err(lost()),
        }
    }
}

async fn whole(parts: &mut mpsc::Receiver<Part>, protocol: Protocol, tracker: &mut Tracker) -> Response<Body> {
    let mut reuse = None;
    while let Some(part) = parts.recv().await {
        tracker.observe(&part);
        match part {
            Part::Admitted(found) => reuse = Some(found),
            Part::Body(value) => {
                let mut response = Response::new(Body::from(value.to_string()));
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                if let Some(reuse) = reuse {
                    tell_reuse(&reuse, headers);
                }
                return response;
            }
            Part::Failed(refusal) => return refusal.to_response(protocol),
            Part::Prefill { .. } | Part::Token | Part::Events(_) | Part::End => {}
        }
    }
    lost().to_response(protocol)
}

/// Puts what was reused into headers.
fn tell_reuse(reuse: &Reuse, headers: &mut HeaderMap) {
    headers.insert("x-cachalot-prompt-tokens", HeaderValue::from(reuse.prompt));
    headers.insert("x-cachalot-reused-tokens", HeaderValue::from(reuse.reused));
    if let Some((reason, position)) = reuse.missed {
        let text = match position {
            Some(position) => format!("{reason}; token={position}"),
            None => reason.to_owned(),
        };
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert("x-cachalot-reuse-missed", value);
        }
    }
}

/// An answer whose parts end without a last one.
fn lost() -> Refusal {
    Refusal::new(500, "the answer was lost; this is a fault of the server, try again")
}
