//! Time, taken from outside so that tests can set it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Tells the wall clock's time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970, UTC.
    fn now_ms(&self) -> i64;

    /// Until the next time that is a whole multiple of `every`: what recurs at such times wakes an idle machine once, not
    /// once for each. One that is all but here is taken for the one before, whose timer fired a little early.
    fn until_beat(&self, every: Duration) -> Duration {
        let every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX).max(1);
        let past_ms = self.now_ms().unsigned_abs() % every_ms;
        let wait = Duration::from_millis(every_ms - past_ms);
        if wait < every / 100 { wait + every } else { wait }
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now_ms(&self) -> i64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A clock that stands where a test puts it.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock at that time.
    pub fn at(now_ms: i64) -> Self {
        Self(AtomicI64::new(now_ms))
    }

    /// Moves it, also backwards.
    pub fn set(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_are_together_and_never_two_at_once() {
        let beat = |now_ms, every_ms| ManualClock::at(now_ms).until_beat(Duration::from_millis(every_ms)).as_millis();
        assert_eq!([10_000, 10_001, 10_500].map(|now_ms| beat(now_ms, 1_000)), [1_000, 999, 500]);
        // A timer that fires a little early must not fire again at once.
        assert_eq!([10_990, 10_999].map(|now_ms| beat(now_ms, 1_000)), [10, 1_001]);
        assert_eq!((beat(12_000, 5_000), beat(0, 0), beat(-1, 1_000)), (3_000, 1, 999));
    }
}
