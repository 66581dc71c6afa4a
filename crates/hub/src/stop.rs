use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use crate::{Error, Result};

/// How often the caller's cancellation flag is looked at.
const CANCEL_POLL: Duration = Duration::from_millis(20);

/// A flag that ends the work of all threads of one download, and wakes those that pause.
pub(crate) struct Stop {
    raised: Mutex<bool>,
    woken: Condvar,
}

impl Stop {
    pub(crate) fn new() -> Self {
        Stop {
            raised: Mutex::new(false),
            woken: Condvar::new(),
        }
    }

    pub(crate) fn raise(&self) {
        *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.woken.notify_all();
    }

    pub(crate) fn is_raised(&self) -> bool {
        *self.raised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// [`Error::Cancelled`] once the flag is raised.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_raised() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    /// Pauses.
    ///
    /// # Errors
    /// [`Error::Cancelled`] as soon as the flag is raised.
    pub(crate) fn pause(&self, duration: Duration) -> Result<()> {
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.woken.wait_timeout_while(raised, duration, |raised| !*raised);
        let (raised, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *raised { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// Runs `work` on a thread of its own and calls `interrupt` once if `cancel` is raised meanwhile.
///
/// # Errors
/// Those of `work`; whatever it fails with after a cancellation is [`Error::Cancelled`].
pub(crate) fn run_until_cancelled<T: Send>(
    cancel: &AtomicBool,
    interrupt: impl FnOnce(),
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    thread::scope(|scope| {
        let (finished_sender, finished) = mpsc::channel::<()>();
        let worker = scope.spawn(move || {
            // Dropped when the work ends, also by a panic: that is the message.
            let _finished_sender = finished_sender;
            work()
        });
        let mut interrupt = Some(interrupt);
        while finished.recv_timeout(CANCEL_POLL) == Err(mpsc::RecvTimeoutError::Timeout) {
            if cancel.load(Ordering::Relaxed)
                && let Some(interrupt) = interrupt.take()
            {
                interrupt();
            }
        }
        let result = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        result.map_err(|error| if interrupt.is_none() { Error::Cancelled } else { error })
    })
}
