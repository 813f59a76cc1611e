//! How long to wait before the next try.

use std::time::Duration;

/// The first wait: short, for most losses are a restart of the peer.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait: a person who mended a network should not wait longer to see it.
const LONGEST: Duration = Duration::from_secs(5);

/// Waits that double, with jitter, so that many replicas do not come back at one moment.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next wait: between half and all of a doubling step.
    pub fn next_wait(&mut self) -> Duration {
        let step = FIRST.saturating_mul(1 << self.tries.min(16)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        step.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Something worked: begin anew.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..40).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST / 2);
        assert!(waits[3] >= FIRST * 4 && waits[3] <= FIRST * 8);
        assert!(waits[39] <= LONGEST && waits[39] >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.next_wait() <= FIRST);
    }
}
