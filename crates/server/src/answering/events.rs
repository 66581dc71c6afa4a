//! Server-sent events as a body.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::{sync::mpsc, time::Sleep};

use super::{Tracker, lost};
use crate::{Protocol, Refusal, backend::Part};

/// Bytes after which ready events are written rather than collected.
const FRAME_BYTES_MAX: usize = 16 << 10;

/// Time between two comments about the progress of a prompt.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// What keeps clients of Anthropic's protocol waiting, who do not see comments.
const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// A stream of events that is computed as the client reads it. Dropping it cancels the answer.
pub struct EventBody {
    parts: mpsc::Receiver<Part>,
    protocol: Protocol,
    /// Read already, and next to be sent.
    pending: Option<Part>,
    keep_alive_interval: Duration,
    keep_alive: Pin<Box<Sleep>>,
    last_progress: Option<Instant>,
    /// When the last event was sent, comments aside; none before the first.
    last_event: Option<Instant>,
    tracker: Option<Tracker>,
}

impl EventBody {
    /// The stream of `parts`, `pending` first.
    pub fn new(
        parts: mpsc::Receiver<Part>,
        protocol: Protocol,
        keep_alive_interval: Duration,
        tracker: Tracker,
        pending: Option<Part>,
    ) -> Self {
        EventBody {
            parts,
            protocol,
            pending,
            keep_alive_interval,
            keep_alive: Box::pin(tokio::time::sleep(keep_alive_interval)),
            last_progress: None,
            last_event: None,
            tracker: Some(tracker),
        }
    }

    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Part> {
        if let Some(part) = self.pending.take() {
            return Poll::Ready(part);
        }
        let part = ready!(self.parts.poll_recv(context)).unwrap_or_else(|| Part::Failed(lost()));
        if let Some(tracker) = &mut self.tracker {
            tracker.observe(&part);
        }
        Poll::Ready(part)
    }

    /// Adds what is to be sent for `part` to `text`; whether the stream goes on.
    fn write(&mut self, part: Part, text: &mut String) -> bool {
        match part {
            Part::Events(events) => {
                self.last_event = Some(Instant::now());
                text.push_str(&events);
            }
            Part::Prefill { done, total } => self.write_progress(done, total, text),
            Part::Admitted(reuse) => {
                text.push_str(&format!(": reused {} of {} tokens\n\n", reuse.reused, reuse.prompt));
            }
            Part::Failed(refusal) => text.push_str(&refusal.to_event(self.protocol)),
            Part::Body(_) => {
                let fault = Refusal::new(500, "the answer came in the wrong form; this is a fault of the server");
                text.push_str(&fault.to_event(self.protocol));
                return false;
            }
            Part::Token => {}
            Part::End => return false,
        }
        true
    }

    fn write_progress(&mut self, done: usize, total: usize, text: &mut String) {
        let is_due = self
            .last_progress
            .is_none_or(|last| last.elapsed() >= PROGRESS_INTERVAL);
        if is_due {
            self.last_progress = Some(Instant::now());
            text.push_str(&format!(": prompt {done} of {total} tokens\n\n"));
            self.write_ping(text);
        }
    }

    /// Adds a ping where the protocol has such and no event was sent for long. None comes before the first event.
    fn write_ping(&mut self, text: &mut String) {
        let is_due = self
            .last_event
            .is_some_and(|last| last.elapsed() >= self.keep_alive_interval);
        if self.protocol == Protocol::Messages && is_due {
            self.last_event = Some(Instant::now());
            text.push_str(PING);
        }
    }
}

impl Body for EventBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let mut text = String::new();
        while this.tracker.is_some() && text.len() < FRAME_BYTES_MAX {
            let Poll::Ready(part) = this.poll_part(context) else {
                break;
            };
            let is_last = matches!(part, Part::Failed(_));
            if !this.write(part, &mut text) || is_last {
                this.tracker = None;
            }
        }
        if text.is_empty() {
            if this.tracker.is_none() {
                return Poll::Ready(None);
            }
            ready!(this.keep_alive.as_mut().poll(context));
            this.write_ping(&mut text);
            if text.is_empty() {
                text.push_str(": keep-alive\n\n");
            }
        }
        let next = tokio::time::Instant::now() + this.keep_alive_interval;
        this.keep_alive.as_mut().reset(next);
        // The timer was changed after it was asked; ask again so that it wakes this task.
        let _ = this.keep_alive.as_mut().poll(context);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(text)))))
    }

    fn is_end_stream(&self) -> bool {
        self.tracker.is_none() && self.pending.is_none()
    }
}
