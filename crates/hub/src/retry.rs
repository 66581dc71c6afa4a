use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::Error;
use crate::settings::RetrySettings;

/// How a request failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Trying again cannot help.
    Final(Error),
    /// Trying again may help; `wait` is the pause that the server asks for.
    Passing { error: Error, wait: Option<Duration> },
}

impl Failure {
    pub(crate) fn passing(error: Error) -> Self {
        Failure::Passing { error, wait: None }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Final(error)
    }
}

/// Counts failures in a row and says how long to pause after each.
pub(crate) struct Backoff<'a> {
    settings: &'a RetrySettings,
    failure_count: u32,
}

impl<'a> Backoff<'a> {
    pub(crate) fn new(settings: &'a RetrySettings) -> Self {
        Backoff {
            settings,
            failure_count: 0,
        }
    }

    /// Forgets earlier failures, after real progress.
    pub(crate) fn reset(&mut self) {
        self.failure_count = 0;
    }

    /// The pause before the next attempt, and what failed.
    ///
    /// # Errors
    /// What failed, if it is final, if the attempts are used up, or if the server asks for a longer pause
    /// than the settings grant.
    pub(crate) fn after(&mut self, failure: Failure) -> Result<(Duration, Error), Error> {
        let (error, server_wait) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Passing { error, wait } => (error, wait),
        };
        self.failure_count = self.failure_count.saturating_add(1);
        let too_long = server_wait.is_some_and(|wait| wait > self.settings.server_wait_max);
        if self.failure_count >= self.settings.attempt_count || too_long {
            return Err(error);
        }
        let doublings = (self.failure_count - 1).min(16);
        let pause = self
            .settings
            .wait_first
            .saturating_mul(1 << doublings)
            .min(self.settings.wait_max);
        let pause = pause.mul_f64(jitter());
        Ok((server_wait.map_or(pause, |wait| wait.max(pause)), error))
    }
}

/// A random factor between a half and one.
fn jitter() -> f64 {
    // The standard library seeds every `RandomState` differently: random enough to spread retries.
    let random = RandomState::new().hash_one(0u8);
    0.5 + (random >> 11) as f64 / (1u64 << 54) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing(wait_s: Option<u64>) -> Failure {
        Failure::Passing {
            error: Error::Cancelled,
            wait: wait_s.map(Duration::from_secs),
        }
    }

    #[test]
    fn pauses_double_to_a_limit_and_end() {
        let settings = RetrySettings {
            attempt_count: 5,
            wait_first: Duration::from_secs(1),
            wait_max: Duration::from_secs(3),
            server_wait_max: Duration::from_secs(60),
        };
        let mut backoff = Backoff::new(&settings);
        for full_s in [1.0, 2.0, 3.0, 3.0] {
            let (pause, _) = backoff.after(passing(None)).unwrap();
            assert!(
                (full_s / 2.0..=full_s).contains(&pause.as_secs_f64()),
                "{pause:?} of {full_s}"
            );
        }
        assert!(backoff.after(passing(None)).is_err());
        backoff.reset();
        assert_eq!(backoff.after(passing(Some(60))).unwrap().0, Duration::from_secs(60));
        assert!(backoff.after(passing(Some(61))).is_err());
        assert!(backoff.after(Failure::Final(Error::Cancelled)).is_err());
    }
}
