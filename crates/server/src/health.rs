//! Health: a real token, generated every interval.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::backend::Backend;

/// Intervals without a new probe after which the last one counts no more.
const STALE_INTERVAL_COUNT: u32 = 4;

/// Generates tokens to see that the model works.
#[derive(Debug)]
pub struct Health {
    interval: Duration,
    started: Instant,
    last: Mutex<Option<Probe>>,
}

#[derive(Clone, Debug)]
struct Probe {
    ended: Instant,
    took: Duration,
    result: Result<(), String>,
}

/// What is known about the model's health.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whether the last probe is recent and gave a token.
    pub is_healthy: bool,
    /// Seconds since the last probe ended, if there was one.
    pub age_seconds: Option<f64>,
    /// What the last probe took.
    pub took_seconds: Option<f64>,
    /// What is wrong.
    pub problem: Option<String>,
    /// Seconds since the server started.
    pub uptime_seconds: f64,
}

impl Health {
    /// Probes follow one another by `interval`.
    pub fn new(interval: Duration) -> Self {
        Health {
            interval,
            started: Instant::now(),
            last: Mutex::new(None),
        }
    }

    /// Probes without end; a busy model has as long as it needs to be called healthy.
    pub async fn run(&self, backend: Arc<dyn Backend>) {
        loop {
            let backend = Arc::clone(&backend);
            let time_max = self.interval * (STALE_INTERVAL_COUNT - 1);
            let started = Instant::now();
            let probe = tokio::task::spawn_blocking(move || backend.probe(time_max)).await;
            let result = probe.unwrap_or_else(|_| Err("the probe panicked".to_owned()));
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Probe {
                ended: Instant::now(),
                took: started.elapsed(),
                result,
            });
            tokio::time::sleep(self.interval).await;
        }
    }

    /// What is known now.
    pub fn report(&self) -> Report {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let age = last.as_ref().map(|probe| probe.ended.elapsed());
        let problem = match (&last, age) {
            (
                Some(Probe {
                    result: Err(problem), ..
                }),
                _,
            ) => Some(problem.clone()),
            (_, Some(age)) if age > self.interval * STALE_INTERVAL_COUNT => {
                Some("the model has not generated the token that it was asked for".to_owned())
            }
            (None, _) => Some("no token has been generated yet".to_owned()),
            _ => None,
        };
        Report {
            is_healthy: problem.is_none(),
            age_seconds: age.map(|age| age.as_secs_f64()),
            took_seconds: last.map(|probe| probe.took.as_secs_f64()),
            problem,
            uptime_seconds: self.started.elapsed().as_secs_f64(),
        }
    }
}

impl Report {
    /// Body of `GET /health`.
    pub fn to_json(&self, is_draining: bool) -> Value {
        let status = match (is_draining, self.is_healthy) {
            (true, _) => "draining",
            (_, true) => "ok",
            (_, false) => "failing",
        };
        json!({
            "status": status,
            "problem": self.problem,
            "probe": { "age_seconds": self.age_seconds, "took_seconds": self.took_seconds },
            "certificate": null,
            "uptime_seconds": self.uptime_seconds,
            "version": env!("CARGO_PKG_VERSION"),
        })
    }
}
