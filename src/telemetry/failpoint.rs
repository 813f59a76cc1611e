//! Named steps at which a test kills or holds the process.
//!
//! `TWINLITE_FAILPOINT="apply_before_commit=3"` kills the process (SIGKILL, so nothing is cleaned up) when that step is
//! reached for the third time; `"apply_before_commit=3:pause"` writes a line to stderr instead and holds the thread that
//! reached it for ever. Active in debug builds and with the feature `failpoints`; otherwise [`hit`] is nothing at all.
//!
//! Every name is a constant here, so that a test can sweep [`ALL`].

/// A window was read from the log, and is not sent yet.
pub const CAPTURE_AFTER_READ: &str = "capture_after_read";
/// A window's last frame was handed to the transport.
pub const LINK_AFTER_SEND: &str = "link_after_send";
/// Everything of a window is written, and not committed.
pub const APPLY_BEFORE_COMMIT: &str = "apply_before_commit";
/// A window is committed.
pub const APPLY_AFTER_COMMIT: &str = "apply_after_commit";
/// The receiver has applied a window and is about to acknowledge it.
pub const RECEIVER_BEFORE_ACK: &str = "receiver_before_ack";
/// An acknowledgement came, and the sender has not looked at it.
pub const SENDER_BEFORE_ACK: &str = "sender_before_ack";
/// The sender has taken an acknowledgement into account.
pub const SENDER_AFTER_ACK: &str = "sender_after_ack";
/// A range of a copy was read.
pub const SNAPSHOT_AFTER_RANGE_READ: &str = "snapshot_after_range_read";
/// A range of a copy was sent.
pub const SNAPSHOT_AFTER_RANGE_SENT: &str = "snapshot_after_range_sent";
/// A range of a copy was applied and committed.
pub const SNAPSHOT_AFTER_RANGE_APPLIED: &str = "snapshot_after_range_applied";
/// What two ends decided when they met is kept at the one that keeps first, and the other does not know it.
pub const MEETING_KEPT_FIRST: &str = "meeting_kept_first";
/// A batch of events is about to be handed over.
pub const EVENTS_BEFORE_BATCH: &str = "events_before_batch";
/// A batch of events was taken, and that is not noted yet.
pub const EVENTS_AFTER_BATCH: &str = "events_after_batch";
/// How far an event consumer is is about to be written.
pub const EVENTS_BEFORE_NOTE: &str = "events_before_note";
/// How far an event consumer is was committed.
pub const EVENTS_AFTER_NOTE: &str = "events_after_note";
/// Entries of sqlite-cdc that were handed over are forgotten.
pub const EVENTS_AFTER_FORGET: &str = "events_after_forget";
/// Our capture is in the place of that of sqlite-cdc, and that is not committed.
pub const TAKE_OVER_BEFORE_COMMIT: &str = "take_over_before_commit";
/// It is committed, and nobody has been told.
pub const TAKE_OVER_AFTER_COMMIT: &str = "take_over_after_commit";

/// Every failpoint.
pub const ALL: [&str; 18] = [
    CAPTURE_AFTER_READ,
    LINK_AFTER_SEND,
    APPLY_BEFORE_COMMIT,
    APPLY_AFTER_COMMIT,
    RECEIVER_BEFORE_ACK,
    SENDER_BEFORE_ACK,
    SENDER_AFTER_ACK,
    SNAPSHOT_AFTER_RANGE_READ,
    SNAPSHOT_AFTER_RANGE_SENT,
    SNAPSHOT_AFTER_RANGE_APPLIED,
    MEETING_KEPT_FIRST,
    EVENTS_BEFORE_BATCH,
    EVENTS_AFTER_BATCH,
    EVENTS_BEFORE_NOTE,
    EVENTS_AFTER_NOTE,
    EVENTS_AFTER_FORGET,
    TAKE_OVER_BEFORE_COMMIT,
    TAKE_OVER_AFTER_COMMIT,
];

/// The environment variable that arms one failpoint.
pub const VARIABLE: &str = "TWINLITE_FAILPOINT";

/// Says that the step `name` is reached. Does nothing unless a test armed it.
#[inline]
pub fn hit(name: &str) {
    #[cfg(any(debug_assertions, feature = "failpoints"))]
    armed::hit(name);
    #[cfg(not(any(debug_assertions, feature = "failpoints")))]
    let _ = name;
}

#[cfg(any(debug_assertions, feature = "failpoints"))]
mod armed {
    use std::io::Write;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{ALL, VARIABLE};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Then {
        Kill,
        Pause,
    }

    #[derive(Debug)]
    struct Armed {
        name: String,
        at: u64,
        then: Then,
        hits: AtomicU64,
    }

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

    pub(super) fn hit(name: &str) {
        let Some(armed) = ARMED.get_or_init(from_environment) else { return };
        if due(armed, name) {
            act(armed);
        }
    }

    fn due(armed: &Armed, name: &str) -> bool {
        armed.name == name && armed.hits.fetch_add(1, Ordering::SeqCst) + 1 == armed.at
    }

    fn from_environment() -> Option<Armed> {
        let value = std::env::var(VARIABLE).ok().filter(|value| !value.is_empty())?;
        let armed = parse(&value);
        if armed.is_none() {
            // A test that arms nothing by a typing error would wait for a death that never comes.
            let _ = writeln!(std::io::stderr(), "{VARIABLE}={value}: want name=N or name=N:pause, a name of {ALL:?}");
            std::process::exit(2);
        }
        armed
    }

    fn parse(value: &str) -> Option<Armed> {
        let (name, rest) = value.split_once('=')?;
        let (at, then) = match rest.split_once(':') {
            None => (rest, Then::Kill),
            Some((at, "pause")) => (at, Then::Pause),
            Some(_) => return None,
        };
        let at = at.parse().ok().filter(|at| *at > 0)?;
        ALL.contains(&name).then(|| Armed { name: name.to_owned(), at, then, hits: AtomicU64::new(0) })
    }

    fn act(armed: &Armed) {
        if armed.then == Then::Kill {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
        let _ = writeln!(std::io::stderr(), "failpoint {} reached, hit {}: holding", armed.name, armed.at);
        loop {
            std::thread::park();
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_failpoint_is_due_at_its_nth_hit_alone() {
            let armed = parse("apply_before_commit=2:pause").expect("parses");
            assert_eq!(armed.then, Then::Pause);
            assert!(!due(&armed, "apply_after_commit"));
            let hits = [(); 4].map(|()| due(&armed, "apply_before_commit"));
            assert_eq!(hits, [false, true, false, false]);
        }

        #[test]
        fn what_arms_nothing_is_refused() {
            for wrong in ["", "apply_before_commit", "apply_before_commit=0", "nowhere=1", "link_after_send=1:nap"] {
                assert!(parse(wrong).is_none(), "{wrong}");
            }
        }
    }
}
