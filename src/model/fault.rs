//! What a failure asks of whoever meets it.

/// What to do about a failure. Every module's `Error` says which, exhaustively.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It may pass by itself (busy, no connection, disk full): back off and try again.
    Retry,
    /// A person has to act first: the link halts, says what and where, and looks again at a slow pace.
    Halt,
    /// Only a fresh copy helps, and that needs nobody.
    CopyAgain,
    /// The caller's arguments or configuration are wrong: exit code 2.
    Usage,
}

/// A failure as `status` and a peer see it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Trouble {
    /// A short stable word, such as `divergence` or `disk_full`.
    pub code: String,
    /// What happened and where.
    pub message: String,
    /// What a person can do about it; empty where nothing needs doing.
    pub hint: String,
}
