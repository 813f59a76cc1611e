//! When a batch that was not taken is tried again.

use std::time::Duration;

/// The first wait: most failures are a restart of the server.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait: a person who mended a server should not wait longer to see it.
const LONGEST: Duration = Duration::from_secs(30);

/// The tries of one batch. Times are since the first try.
#[derive(Debug)]
pub(super) struct Retry {
    /// How long to go on; `None`: for ever.
    limit: Option<Duration>,
    failed: u32,
}

impl Retry {
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self { limit, failed: 0 }
    }

    /// Tries that failed.
    pub(super) fn failed(&self) -> u32 {
        self.failed
    }

    /// A try failed, this long after the first one began: how long to wait for the next, or `None` where there is none.
    /// `chance`, from 0 to 1, spreads the waits from half to all of a step that doubles, so that many senders do not come
    /// back at one moment. The last try is at the limit.
    pub(super) fn next(&mut self, elapsed: Duration, chance: f64) -> Option<Duration> {
        let step = FIRST.saturating_mul(1 << self.failed.min(16)).min(LONGEST);
        self.failed = self.failed.saturating_add(1);
        let wait = step.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
        match self.limit {
            None => Some(wait),
            Some(limit) => limit.checked_sub(elapsed).filter(|left| !left.is_zero()).map(|left| wait.min(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_for_ever() {
        let mut retry = Retry::new(None);
        let waits: Vec<Duration> = (0..40).map(|_| retry.next(Duration::MAX, 1.0).expect("for ever")).collect();
        assert_eq!(waits[..3], [FIRST, FIRST * 2, FIRST * 4]);
        assert_eq!(waits[39], LONGEST);
        assert_eq!(retry.failed(), 40);
        assert_eq!(Retry::new(None).next(Duration::ZERO, 0.0), Some(FIRST / 2));
    }

    #[test]
    fn the_last_try_is_at_the_limit_and_none_after_it() {
        let mut retry = Retry::new(Some(Duration::from_millis(150)));
        assert_eq!(retry.next(Duration::ZERO, 1.0), Some(FIRST));
        assert_eq!(retry.next(FIRST, 1.0), Some(Duration::from_millis(50)));
        assert_eq!(retry.next(Duration::from_millis(150), 1.0), None);
        assert_eq!(Retry::new(Some(Duration::ZERO)).next(Duration::ZERO, 1.0), None, "no retries at all");
    }
}
