//! Reading bodies within bounds.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::sync::OwnedSemaphorePermit;

use crate::{Refusal, gate::Gate};

/// How long the rest of a refused body is read, so that the client hears the refusal instead of a broken pipe.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(2);
const DISCARD_BYTES_MAX: usize = 64 << 20;

/// A body with the memory that was reserved for it.
#[derive(Debug)]
pub struct ReadBody {
    /// The bytes.
    pub bytes: Bytes,
    _memory: Option<OwnedSemaphorePermit>,
}

/// Reads a JSON body. A refused one is read to its end and dropped, within bounds.
///
/// # Errors
/// 415 for another content type, 413 if it is too long, 408 if it takes too long, 400 if the client stops, 429 if
/// memory for bodies is short.
pub async fn read_json(headers: &HeaderMap, mut body: Body, gate: &Gate) -> Result<ReadBody, Refusal> {
    let outcome = match check_type(headers) {
        Ok(()) => tokio::time::timeout(gate.limits().body_time_max, collect(&mut body, gate))
            .await
            .unwrap_or_else(|_| Err(Refusal::new(408, "the body did not arrive in time"))),
        Err(refusal) => Err(refusal),
    };
    if outcome.is_err() {
        discard(body).await;
    }
    outcome
}

/// Reads what is left of a body that nobody wants.
pub async fn discard(mut body: Body) {
    let mut byte_count = 0;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            byte_count += frame.data_ref().map_or(0, Bytes::len);
            if byte_count > DISCARD_BYTES_MAX {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIME_MAX, reading).await;
}

/// Only `application/json`: what a foreign page could send without asking (a form, plain text) is refused.
fn check_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = value
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Refusal::new(
        415,
        "send the body as JSON with the header `Content-Type: application/json`",
    ))
}

async fn collect(body: &mut Body, gate: &Gate) -> Result<ReadBody, Refusal> {
    let announced = body.size_hint().lower();
    gate.check_body_size(usize::try_from(announced).unwrap_or(usize::MAX))?;
    let mut bytes = BytesMut::new();
    let mut memory: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::new(400, "the body ended before its announced length"))?;
        let Ok(data) = frame.into_data() else { continue };
        gate.check_body_size(bytes.len() + data.len())?;
        let permit = gate.reserve_body(data.len())?;
        match &mut memory {
            Some(memory) => memory.merge(permit),
            None => memory = Some(permit),
        }
        bytes.extend_from_slice(&data);
    }
    Ok(ReadBody {
        bytes: bytes.freeze(),
        _memory: memory,
    })
}
