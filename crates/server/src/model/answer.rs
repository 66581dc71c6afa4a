//! One request: from its body to the parts of its answers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use cachalot_engine::{Event, FinishReason, Flow, RequestHandle};
use cachalot_protocol::{
    AnswerEncoder, AnswerOptions, EndReason, ErrorKind, Frame, Protocol, ProtocolError, unique_suffix,
};
use tokio::sync::mpsc;

use super::{
    PART_COUNT_MAX, Shared,
    errors::{from_engine, from_engine_late, refusal},
    random_seed,
};
use crate::backend::{Answer, Inquiry, Part, Reuse};

/// Events of an answer that may wait for a client that reads too slowly; then the answer is given up. The engine never
/// waits.
pub const EVENT_COUNT_MAX: usize = 16_384;

/// An event of one of the answers to a request.
type Arrival = (usize, Event);

/// Reads the request, submits its answers and starts the task that writes them.
pub fn begin(shared: &Arc<Shared>, inquiry: Inquiry) -> Result<Answer, ProtocolError> {
    let call = shared.read(&inquiry)?;
    let scope = inquiry.owner.map(|owner| owner.to_string()).unwrap_or_default();
    let prepared = shared.preparer.prepare(&call, &shared.replay, &scope)?;
    let options = AnswerOptions {
        id_suffix: unique_suffix(),
        created: std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |time| time.as_secs()),
        model: call.model.clone(),
    };
    let encoder = AnswerEncoder::new(&call, &prepared, shared.preparer.encoder().tokenizer(), options);
    let (sender, arrivals) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let seed = call.sampling.seed.unwrap_or_else(random_seed);
    let mut handles = Handles(Vec::new());
    for choice in 0..call.answer_count {
        let request = shared.request(&call, &prepared, &inquiry, seed.wrapping_add(choice as u64))?;
        let sink = sink(choice, sender.clone(), Arc::clone(&waiting));
        let submitted = shared.service.submit(request, Box::new(sink));
        handles.0.push(submitted.map_err(from_engine)?);
    }
    let (parts_sender, parts) = mpsc::channel(PART_COUNT_MAX);
    let writer = Writer {
        shared: Arc::clone(shared),
        encoder,
        protocol: inquiry.protocol,
        owner: inquiry.owner,
        is_streamed: call.stream,
        is_stored: call.store && inquiry.protocol == Protocol::Responses,
        has_begun: false,
        handles,
        waiting,
        parts: parts_sender,
    };
    let is_streamed = call.stream;
    tokio::spawn(writer.run(arrivals));
    Ok(Answer { is_streamed, parts })
}

/// Hands events over without ever waiting.
fn sink(
    choice: usize,
    sender: mpsc::UnboundedSender<Arrival>,
    waiting: Arc<AtomicUsize>,
) -> impl FnMut(Event) -> Flow + Send {
    move |event| {
        let count = waiting.fetch_add(1, Ordering::Relaxed);
        let is_heard = sender.send((choice, event)).is_ok();
        if is_heard && count < EVENT_COUNT_MAX {
            Flow::Continue
        } else {
            Flow::Cancel
        }
    }
}

/// The engine's requests of one client's request; cancelled when nobody waits for them any more.
struct Handles(Vec<RequestHandle>);

impl Drop for Handles {
    fn drop(&mut self) {
        self.0.iter().for_each(RequestHandle::cancel);
    }
}

/// Writes the answers to one request.
struct Writer {
    shared: Arc<Shared>,
    encoder: AnswerEncoder,
    protocol: Protocol,
    owner: Option<usize>,
    is_streamed: bool,
    is_stored: bool,
    has_begun: bool,
    handles: Handles,
    waiting: Arc<AtomicUsize>,
    parts: mpsc::Sender<Part>,
}

/// The client went away.
struct Gone;

impl Writer {
    /// Runs until the answers are over or the client has gone; either way the engine's requests end.
    async fn run(mut self, mut arrivals: mpsc::UnboundedReceiver<Arrival>) {
        loop {
            let arrival = tokio::select! {
                arrival = arrivals.recv() => arrival,
                () = self.parts.closed() => return,
            };
            let Some((choice, event)) = arrival else { return };
            let waiting = self.waiting.fetch_sub(1, Ordering::Relaxed);
            if waiting > EVENT_COUNT_MAX {
                // What follows is missing, since the engine was told to stop.
                let error = ProtocolError::new(ErrorKind::Timeout, "the answer was not read fast enough");
                let _ = self.fail(&error).await;
                return;
            }
            match self.take(choice, event).await {
                Ok(false) => {}
                Ok(true) | Err(Gone) => return,
            }
        }
    }

    /// Takes an event; whether it was the last one.
    async fn take(&mut self, choice: usize, event: Event) -> Result<bool, Gone> {
        let frames = match event {
            Event::Admitted { reused, missed, prompt } => {
                if self.has_begun {
                    return Ok(false);
                }
                self.has_begun = true;
                let missed = missed.map(|reason| (reason.name(), reason.position()));
                self.send(Part::Admitted(Reuse { prompt, reused, missed })).await?;
                self.encoder.start(reused)
            }
            Event::Prefill { done, total } => {
                // Only for people: left out rather than waited for.
                let _ = self.parts.try_send(Part::Prefill { done, total });
                return Ok(false);
            }
            Event::Token(token) => {
                self.send(Part::Token).await?;
                self.encoder.token(choice, token.token, token.logprob, &token.top)
            }
            Event::Finished(finish) => {
                let reason = match finish.reason {
                    FinishReason::Stop => EndReason::Stop,
                    FinishReason::Length => EndReason::Length,
                    FinishReason::Cancelled => EndReason::Cancelled,
                    FinishReason::Deadline => {
                        let message = "the answer took longer than this server allows";
                        return self.fail(&ProtocolError::new(ErrorKind::Timeout, message)).await;
                    }
                };
                self.encoder.finish(choice, reason)
            }
            Event::Failed(error) => {
                let error = if self.has_begun {
                    from_engine_late(error)
                } else {
                    from_engine(error)
                };
                return self.fail(&error).await;
            }
        };
        self.send_frames(&frames).await?;
        if self.encoder.is_over(choice) {
            self.handles.0[choice].cancel();
        }
        if self.encoder.is_done() {
            self.end().await?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Keeps what later turns need, and sends the end.
    async fn end(&mut self) -> Result<(), Gone> {
        self.encoder.record(&self.shared.replay);
        let body = self.encoder.body();
        if self.is_stored
            && let Some(history) = self.encoder.history()
        {
            let id = self.encoder.id();
            self.shared.responses.insert(id, self.owner, history, body.clone());
        }
        let last = if self.is_streamed { Part::End } else { Part::Body(body) };
        self.send(last).await
    }

    /// Breaks off.
    async fn fail(&mut self, error: &ProtocolError) -> Result<bool, Gone> {
        if self.is_streamed && self.has_begun {
            let frames = self.encoder.fail(error);
            self.send_frames(&frames).await?;
            self.send(Part::End).await?;
        } else {
            self.send(Part::Failed(refusal(error, self.protocol))).await?;
        }
        Ok(true)
    }

    async fn send_frames(&mut self, frames: &[Frame]) -> Result<(), Gone> {
        if frames.is_empty() {
            return Ok(());
        }
        let text: String = frames.iter().map(ToString::to_string).collect();
        self.send(Part::Events(text)).await
    }

    async fn send(&mut self, part: Part) -> Result<(), Gone> {
        self.parts.send(part).await.map_err(|_| Gone)
    }
}
