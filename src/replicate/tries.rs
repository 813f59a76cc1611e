//! A link's tries to run: what is said of one that failed, and how long to wait before the next.

use std::time::Duration;

use super::Error;
use super::backoff::Backoff;
use crate::model::Trouble;
use crate::telemetry::LinkState;

/// How often a halted link looks whether somebody has acted. Long enough to cost nothing, short enough that a person
/// sees it go on.
const HALTED_LOOK_EVERY: Duration = Duration::from_secs(3);
/// The tries of one link, one after the other.
#[derive(Debug, Default)]
pub struct Tries {
    backoff: Backoff,
    last: Option<Trouble>,
}

impl Tries {
    /// Whether what stopped the last one may still stand in the way.
    pub fn failed_before(&self) -> bool {
        self.last.is_some()
    }

    /// One ended without a failure: the next follows soon.
    pub fn ended(&mut self) {
        self.backoff.reset();
    }

    /// One was good: a failure from now on is a new one, whatever it says.
    pub fn was_good(&mut self) {
        *self = Self::default();
    }

    /// Says what stopped one, unless it did before, or `said` elsewhere. How long to wait.
    pub fn failed(&mut self, link: &str, error: &Error, (trouble, said): (&Trouble, bool)) -> Duration {
        let halted = error.link_state() == LinkState::Halted;
        if self.last.as_ref() != Some(trouble) && !said {
            if halted {
                tracing::error!(link, code = trouble.code, hint = trouble.hint, "link halted: {}", trouble.message);
            } else {
                tracing::warn!(link, code = trouble.code, "link interrupted: {}", trouble.message);
            }
        }
        tracing::debug!(link, error = error as &dyn std::error::Error, "the session ended");
        self.last = Some(trouble.clone());
        if halted { HALTED_LOOK_EVERY } else { self.backoff.next_wait() }
    }
}
