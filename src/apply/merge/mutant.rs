//! Rules that a test leaves out, one at a time, to see that the histories notice: the mutants of the model. Outside of
//! tests nothing is ever left out.

/// A rule, by what is done without it; the words are the model's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "tests alone leave rules out"))]
pub(crate) enum Mutant {
    /// An incoming change always wins.
    NoVersion,
    /// What the peer has acknowledged by now counts as seen, instead of what the window says.
    AckOnly,
    /// Every local entry still in the log counts as concurrent.
    NoSeen,
    /// A leaf does not log what it accepted over a change of its own.
    NoEcho,
    /// A hub forwards a version below one that it has already logged for the key.
    Backwards,
    /// Before the applier logs, the clock is not raised to the newest entry.
    NoRaise,
    /// A concurrent row that gives way is removed without a log entry.
    SilentDisplace,
    /// A row in the way that the sender had seen is deleted as a change of our own.
    LoudKnown,
    /// An incoming row that finds its unique value taken is dropped without a log entry.
    SilentReject,
    /// What is acknowledged is pruned, though a window that had not seen it may still arrive.
    PruneAcked,
    /// A range overwrites local changes that its sender had not seen.
    ChunkBlind,
    /// A row of a copy that replaces lost history, losing against an unseen local change, is not recorded.
    ChunkQuiet,
    /// Changes made before such a copy was whole are not recorded when they overwrite.
    BlindQuiet,
    /// Only the reader, not the applier, notices that capture missed something.
    ReaderDrift,
    /// The log's tail is not absorbed before a window is judged.
    NoAbsorb,
    /// A range crosses a copy of our own only while there is more of that to be sent.
    SentIsThere,
    /// Every range crosses our own copies, for as long as the connection lasts.
    NeverThere,
}

#[cfg(test)]
thread_local! {
    static LEFT_OUT: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Leaves a rule out on this thread from now on.
#[cfg(test)]
pub(crate) fn leave_out(mutant: Option<Mutant>) {
    LEFT_OUT.set(mutant);
}

/// Whether a test leaves this rule out.
#[cfg(test)]
pub(crate) fn left_out(mutant: Mutant) -> bool {
    LEFT_OUT.get() == Some(mutant)
}

/// Whether a test leaves this rule out: never.
#[cfg(not(test))]
pub(crate) const fn left_out(_: Mutant) -> bool {
    false
}
