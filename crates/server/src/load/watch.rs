//! What the server says of itself while it is loaded.

use std::time::{Duration, Instant};

use super::{client::Target, report::ServerSample};

const INTERVAL: Duration = Duration::from_secs(1);

/// How long a server may take to finish what clients have left behind.
const SETTLING_TIME_MAX: Duration = Duration::from_secs(30);

/// One look at the server's metrics; none if it has no such.
pub async fn look(target: &Target, origin: Instant) -> Option<ServerSample> {
    let page = tokio::time::timeout(Duration::from_secs(10), target.fetch("/metrics", None));
    let page = page.await.ok()?.ok()?;
    let page = std::str::from_utf8(&page).ok()?;
    let value = |name: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse::<f64>().ok())
    };
    Some(ServerSample {
        seconds: origin.elapsed().as_secs_f64(),
        queued: value("cachalot_queue_requests")?,
        running: value("cachalot_running_requests")?,
        connections: value("cachalot_connections")?,
        resident_bytes: value("process_resident_memory_bytes").unwrap_or(f64::NAN),
    })
}

/// Looks every second, without end.
pub async fn watch(target: Target, origin: Instant, samples: std::sync::Arc<std::sync::Mutex<Vec<ServerSample>>>) {
    loop {
        if let Some(sample) = look(&target, origin).await {
            samples
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .push(sample);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Waits until the server has nothing to do; whether it came to that, with the last look.
pub async fn settle(target: &Target, origin: Instant) -> Option<(bool, ServerSample)> {
    let end = Instant::now() + SETTLING_TIME_MAX;
    loop {
        let sample = look(target, origin).await?;
        let is_idle = sample.queued == 0.0 && sample.running == 0.0;
        if is_idle || Instant::now() > end {
            return Some((is_idle, sample));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
