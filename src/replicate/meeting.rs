//! What becomes of both directions of a two-way link when its ends meet. Pure: both ends decide alike from what each has
//! told the other.
//!
//! An end's history is *lost* for the other where its log no longer reaches back to the other's checkpoint, or the other
//! has none. If one direction is lost, it is copied again. If nobody knows any more who had seen what, because both are
//! lost, or one is and the other's copy is unfinished, it is a first contact: one end's content wins.

use crate::apply::{FromPeer, How, ToPeer};
use crate::model::{Checkpoint, NodeId, Trouble};

/// What is known of one end.
#[derive(Clone, Debug)]
pub struct Side {
    /// Its node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Whether its log no longer reaches back to what the other end has applied of it.
    pub lost: bool,
    /// Whether the copy of its tables at the other end is unfinished.
    pub unfinished: bool,
    /// The end of its log.
    pub head: Checkpoint,
    /// Whether its database holds no row of the link's tables.
    pub empty: bool,
    /// Whether it has had all that the other end had. Empty, it has deleted that.
    pub met: bool,
    /// Whether its log did not produce what the other end has applied of it: it was restored from a backup.
    pub restored: bool,
    /// How a first contact goes, as its config says.
    pub seed: Option<Seed>,
}

/// How a first contact of two full databases goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Whose rows win where both have one.
    pub winner: String,
    /// Whether what only one has stays.
    pub how: How,
}

impl Seed {
    /// As Hello has it: the winner's name, or `merge:` and the name.
    pub fn word(&self) -> String {
        match self.how {
            How::Replace => self.winner.clone(),
            How::Union => format!("merge:{}", self.winner),
        }
    }

    /// What [`Self::word`] made.
    pub fn of_word(word: &str) -> Self {
        match word.strip_prefix("merge:") {
            Some(winner) => Self { winner: winner.to_owned(), how: How::Union },
            None => Self { winner: word.to_owned(), how: How::Replace },
        }
    }
}

/// As the config has it.
impl std::fmt::Display for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.how {
            How::Replace => write!(f, "`seed: {}`", self.winner),
            How::Union => write!(f, "`seed: merge` with `seed_prefer: {}`", self.winner),
        }
    }
}

/// What was decided for one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// What becomes of what the peer sends.
    pub from_peer: FromPeer,
    /// What becomes of what it sends itself.
    pub to_peer: ToPeer,
}

/// Which end keeps first what was decided. Each keeps for itself, and the connection may be lost in between; so the one goes
/// first after which the same is decided again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Nothing was decided.
    Neither,
    /// This end.
    First,
    /// The other.
    Second,
}

impl Order {
    /// Of this end, where the two decided this for themselves.
    ///
    /// In a first contact the loser goes first, and holds nothing of the winner's until its windows come
    /// ([`crate::sqlite::store::UNSETTLED`]): a winner that went first would take its peer for one that merely lacks a copy.
    /// Where one direction is copied again, who sends it goes first: being blind costs nothing but conflicts, while a
    /// receiver that went first would look as if it had been there all the time.
    pub fn of(ours: &Decided, theirs: &Decided) -> Self {
        match (ours, theirs) {
            (Decided { from_peer: FromPeer::SeedWon { .. }, .. }, _) => Self::Second,
            (_, Decided { from_peer: FromPeer::SeedWon { .. }, .. }) => Self::First,
            (Decided { to_peer: ToPeer::CopiedAgain, .. }, _) => Self::First,
            (_, Decided { to_peer: ToPeer::CopiedAgain, .. }) => Self::Second,
            (Decided { to_peer: ToPeer::GoesOn, .. }, Decided { to_peer: ToPeer::GoesOn, .. }) => Self::Neither,
        }
    }
}

/// Decides for `us`, who meets `them`.
///
/// # Errors
/// A first contact of two databases that both hold rows, and nobody said whose win.
pub fn decide(us: &Side, them: &Side) -> Result<Decided, Trouble> {
    let all_unknown = (us.lost || us.unfinished) && (them.lost || them.unfinished);
    if us.restored || them.restored || ((us.lost || them.lost) && all_unknown) {
        let (winner, how) = winner(us, them)?;
        let head = them.head;
        // Who had nothing when its log ended there has logged whatever it has since: the peer's windows say what they had
        // seen of that.
        let gives_nothing_up = has_nothing(us, them);
        let copies = (winner == us.node || how == How::Union) && !gives_nothing_up;
        let to_peer = if copies { ToPeer::CopiedAgain } else { ToPeer::GoesOn };
        return Ok(match winner == us.node {
            true => Decided { from_peer: FromPeer::SeedWon { head, how }, to_peer },
            // Who has nothing gives nothing up: it need not be blind, nor say again what it gets.
            false if gives_nothing_up => Decided { from_peer: FromPeer::CopiedAgain { head }, to_peer },
            false => Decided { from_peer: FromPeer::SeedLost { head, how }, to_peer },
        });
    }
    Ok(Decided {
        from_peer: if them.lost { FromPeer::CopiedAgain { head: them.head } } else { FromPeer::GoesOn },
        to_peer: if us.lost { ToPeer::CopiedAgain } else { ToPeer::GoesOn },
    })
}

/// Whether an end has neither rows nor deletions to defend: it is new, or there is nothing at the other end either. Who
/// deleted all its rows may mean it.
fn has_nothing(side: &Side, other: &Side) -> bool {
    side.empty && (!side.met || other.empty)
}

fn winner(us: &Side, them: &Side) -> Result<(NodeId, How), Trouble> {
    if let Some(restored) = [us, them].into_iter().find(|side| side.restored) {
        return after_restore(us, them, restored);
    }
    match (has_nothing(us, them), has_nothing(them, us)) {
        (true, true) => return Ok((us.node.min(them.node), How::Replace)),
        (true, false) => return Ok((them.node, How::Replace)),
        (false, true) => return Ok((us.node, How::Replace)),
        (false, false) => {}
    }
    agreed(us, them)?.ok_or_else(|| {
        trouble(
            "seed_needed",
            format!(
                "{}, and which of them had seen what is not known: they never met, or their logs do not reach back",
                who_holds_rows(us, them)
            ),
            "say whose rows win, at both ends of the link: `seed: <node name>`, or `seed: merge` with `seed_prefer` to \
             keep what only one has; what is overwritten is kept as conflicts. Where other links join the two already, \
             take this one away instead: they would form a circle",
        )
    })
}

fn who_holds_rows(us: &Side, them: &Side) -> String {
    match [us, them].into_iter().find(|side| side.empty) {
        Some(emptied) => {
            let other = if emptied.node == us.node { them } else { us };
            format!("the database of \"{}\" holds rows, and that of \"{}\" has none left", other.name, emptied.name)
        }
        None => format!("the databases of \"{}\" and \"{}\" both hold rows", us.name, them.name),
    }
}

/// How the first contact goes with a peer that only sends, where this database holds rows: whether its rows win, and
/// whether what only we have stays. One that has none takes nothing away, whatever was said.
///
/// # Errors
/// Nobody said, or what was said would copy nothing.
pub fn with_sender(us: &str, (them, is_empty): (&str, bool), seed: Option<&Seed>) -> Result<(bool, How), Trouble> {
    match seed {
        _ if is_empty => Ok((false, How::Union)),
        Some(Seed { winner, how: How::Union }) => Ok((winner == them, How::Union)),
        Some(Seed { winner, how: How::Replace }) if winner == them => Ok((true, How::Replace)),
        Some(_) | None => Err(trouble(
            "seed_needed",
            match seed {
                None => {
                    format!(
                        "the databases of \"{us}\" and \"{them}\" both hold rows, and \"{them}\" only sends its own"
                    )
                }
                Some(seed) => format!(
                    "{seed} cannot be followed: \"{them}\" only sends its own rows, so it becomes no copy of another"
                ),
            },
            "say on this link whether they replace what is here, `seed: <the sending node>`, or `seed: merge` with \
             `seed_prefer` to keep what only this one has; what is overwritten is kept as conflicts",
        )),
    }
}

/// Only the other end holds what a restored database lost, so only it may win.
fn after_restore(us: &Side, them: &Side, restored: &Side) -> Result<(NodeId, How), Trouble> {
    if us.restored && them.restored {
        return Err(trouble(
            "both_restored",
            format!(
                "the logs of \"{}\" and \"{}\" did not produce what the other end has applied of them: both databases \
                 were restored from backups, or lost their last commits, and no `seed` can be followed, for each holds \
                 what the other lost",
                us.name, them.name
            ),
            "keep what `twinlite conflicts list` shows at both, run `twinlite teardown` on both, which leaves every row, \
             and join them anew, with `seed: merge` and `seed_prefer` to keep what only one has",
        ));
    }
    let holder = if restored.node == us.node { them } else { us };
    let agreed = agreed(us, them)?;
    if let Some((winner, how)) = agreed
        && winner == holder.node
    {
        return Ok((winner, how));
    }
    let (restored, holder) = (&restored.name, &holder.name);
    let mut message = format!(
        "the log of \"{restored}\" did not produce what the other end has applied of it: its database was restored from a \
         backup, lost its last commits or was made anew"
    );
    let seeds = said(us, them);
    if let Some((seed, _)) = seeds.first() {
        let at: Vec<String> = seeds.iter().map(|(_, at)| format!("\"{at}\"")).collect();
        message.push_str(&format!(
            "; {seed}, as {} has it, cannot be followed: only \"{holder}\" holds what \"{restored}\" lost",
            at.join(" and ")
        ));
    }
    let hint = format!("let `seed` be \"{holder}\" at both ends of the link");
    Err(Trouble { code: "divergence".to_owned(), message, hint })
}

/// The seeds that are set, each with the name of the end whose config has it.
fn said<'a>(us: &'a Side, them: &'a Side) -> Vec<(&'a Seed, &'a str)> {
    [us, them].into_iter().filter_map(|side| Some((side.seed.as_ref()?, side.name.as_str()))).collect()
}

/// What both configs say, or the one that says anything.
fn agreed(us: &Side, them: &Side) -> Result<Option<(NodeId, How)>, Trouble> {
    let mut agreed = None;
    for (seed, at) in said(us, them) {
        let Some(winner) = [us, them].into_iter().find(|side| side.name == seed.winner) else {
            return Err(trouble(
                "seed_unknown",
                format!(
                    "{seed}, as \"{at}\" has it, cannot be followed: it names neither \"{}\" nor \"{}\"",
                    us.name, them.name
                ),
                "let it name one of the two, the same at both ends of the link",
            ));
        };
        let said = (winner.node, seed.how);
        if agreed.is_some_and(|other| other != said) {
            return Err(trouble(
                "seed_differs",
                format!("the configs of \"{}\" and \"{}\" say different things of a first contact", us.name, them.name),
                "let `seed` and `seed_prefer` be the same at both ends",
            ));
        }
        agreed = Some(said);
    }
    Ok(agreed)
}

fn trouble(code: &str, message: String, hint: &str) -> Trouble {
    Trouble { code: code.to_owned(), message, hint: hint.to_owned() }
}
