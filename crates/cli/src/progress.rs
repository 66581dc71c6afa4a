//! Progress bars that appear on a terminal when work takes longer than a second.

use std::{
    io::{IsTerminal, stderr},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const DELAY: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(200);

/// A progress bar; gone from the screen when dropped. Can be shared between threads.
pub struct LateBar {
    bar: ProgressBar,
    /// Ends the thread that waits to show the bar.
    done: Option<Sender<()>>,
    waiting: Option<JoinHandle<()>>,
}

impl LateBar {
    /// Counts `unit`s.
    pub fn counting(message: &'static str, unit: &str) -> Self {
        LateBar::new(message, &format!("{{human_pos}} of {{human_len}} {unit}, {{eta}} left"))
    }

    /// Counts bytes.
    pub fn of_bytes(message: &'static str) -> Self {
        LateBar::new(
            message,
            "{decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left",
        )
    }

    fn new(message: &'static str, numbers: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let template = format!("{{msg}} {{wide_bar}} {numbers}");
        bar.set_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(message);
        if !stderr().is_terminal() {
            return LateBar {
                bar,
                done: None,
                waiting: None,
            };
        }
        let (done, end) = channel();
        let late = bar.clone();
        let waiting = std::thread::spawn(move || {
            if end.recv_timeout(DELAY) == Err(RecvTimeoutError::Timeout) {
                late.set_draw_target(ProgressDrawTarget::stderr());
                late.enable_steady_tick(TICK);
            }
        });
        LateBar {
            bar,
            done: Some(done),
            waiting: Some(waiting),
        }
    }

    /// `done` of `total` are done.
    pub fn set(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
    }
}

impl Drop for LateBar {
    fn drop(&mut self) {
        self.done.take();
        if let Some(waiting) = self.waiting.take() {
            let _ = waiting.join();
        }
        self.bar.finish_and_clear();
    }
}
