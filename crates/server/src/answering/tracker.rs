use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use crate::{Refusal, backend::Part, gate::Ticket, metrics::Metrics};

/// Measures an answer, and keeps its place among those being computed. Dropped before the answer's end, it counts as
/// cancelled.
#[derive(Debug)]
pub struct Tracker {
    metrics: Arc<Metrics>,
    started: Instant,
    last_token: Option<Instant>,
    is_over: bool,
    is_refused: bool,
    _ticket: Ticket,
}

impl Tracker {
    /// Begins to measure an answer that was asked for at `started`.
    pub fn new(metrics: Arc<Metrics>, started: Instant, ticket: Ticket) -> Self {
        metrics.open_count.fetch_add(1, Ordering::Relaxed);
        Tracker {
            metrics,
            started,
            last_token: None,
            is_over: false,
            is_refused: false,
            _ticket: ticket,
        }
    }

    /// Ends without an answer; the client hears `refusal`.
    pub fn refused(mut self, refusal: Refusal) -> Refusal {
        self.is_refused = true;
        refusal
    }

    /// Counts a part.
    pub fn observe(&mut self, part: &Part) {
        match part {
            Part::Admitted(reuse) => self.metrics.count_reuse(reuse),
            Part::Token => {
                let now = Instant::now();
                let since = self.last_token.unwrap_or(self.started);
                self.metrics
                    .count_token(self.last_token.is_none(), now.duration_since(since));
                self.last_token = Some(now);
            }
            Part::Body(_) | Part::End | Part::Failed(_) => self.is_over = true,
            Part::Prefill { .. } | Part::Events(_) => {}
        }
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.metrics.open_count.fetch_sub(1, Ordering::Relaxed);
        if self.is_refused {
            return;
        }
        if self.is_over {
            self.metrics.answer_time.observe(self.started.elapsed());
        } else {
            self.metrics.cancelled_count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
