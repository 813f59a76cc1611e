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

/// What was decided for one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// What becomes of what the peer sends.
    pub from_peer: FromPeer,
    /// What becomes of what it sends itself.
    pub to_peer: ToPeer,
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
        let copies = (winner == us.node || how == How::Union) && !us.empty;
        let to_peer = if copies { ToPeer::CopiedAgain } else { ToPeer::GoesOn };
        return Ok(match winner == us.node {
            true => Decided { from_peer: FromPeer::SeedWon { head, how }, to_peer },
            // Who has nothing gives nothing up: it need not be blind, nor say again what it gets.
            false if us.empty => Decided { from_peer: FromPeer::CopiedAgain { head }, to_peer },
            false => Decided { from_peer: FromPeer::SeedLost { head, how }, to_peer },
        });
    }
    Ok(Decided {
        from_peer: if them.lost { FromPeer::CopiedAgain { head: them.head } } else { FromPeer::GoesOn },
        to_peer: if us.lost { ToPeer::CopiedAgain } else { ToPeer::GoesOn },
    })
}

fn winner(us: &Side, them: &Side) -> Result<(NodeId, How), Trouble> {
    if let Some(restored) = [us, them].into_iter().find(|side| side.restored) {
        return after_restore(us, them, restored);
    }
    match (us.empty, them.empty) {
        (true, true) => return Ok((us.node.min(them.node), How::Replace)),
        (true, false) => return Ok((them.node, How::Replace)),
        (false, true) => return Ok((us.node, How::Replace)),
        (false, false) => {}
    }
    agreed(us, them)?.ok_or_else(|| {
        trouble(
            "seed_needed",
            format!(
                "the databases of \"{}\" and \"{}\" both hold rows, and which of them had \
                 seen what is not known: they never met, or their logs do not reach back",
                us.name, them.name
            ),
            "say whose rows win, at both ends of the link: `seed: <node name>`, or `seed: merge` with `seed_prefer` to \
             keep what only one has; what is overwritten is kept as conflicts",
        )
    })
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
            format!("the databases of \"{us}\" and \"{them}\" both hold rows, and \"{them}\" only sends its own"),
            "say on this link whether they replace what is here, `seed: <the sending node>`, or `seed: merge` with \
             `seed_prefer` to keep what only this one has; what is overwritten is kept as conflicts",
        )),
    }
}

/// Only the other end holds what a restored database lost, so only it may win.
fn after_restore(us: &Side, them: &Side, restored: &Side) -> Result<(NodeId, How), Trouble> {
    match agreed(us, them)? {
        Some((winner, how)) if winner != restored.node && !(us.restored && them.restored) => Ok((winner, how)),
        _ => Err(trouble(
            "divergence",
            format!(
                "the log of \"{}\" did not produce what the other end has applied of it: its database was restored from \
                 a backup, lost its last commits or was made anew",
                restored.name
            ),
            "only the other end holds what was lost: let its name be `seed` at both ends of the link",
        )),
    }
}

/// What both configs say, or the one that says anything.
fn agreed(us: &Side, them: &Side) -> Result<Option<(NodeId, How)>, Trouble> {
    let named = |seed: &Seed| {
        let winner = [us, them].into_iter().find(|side| side.name == seed.winner)?;
        Some((winner.node, seed.how))
    };
    match (us.seed.as_ref().and_then(named), them.seed.as_ref().and_then(named)) {
        (Some(ours), Some(theirs)) if ours != theirs => Err(trouble(
            "seed_differs",
            format!("the configs of \"{}\" and \"{}\" say different things of a first contact", us.name, them.name),
            "let `seed` and `seed_prefer` be the same at both ends",
        )),
        (ours, theirs) => Ok(ours.or(theirs)),
    }
}

fn trouble(code: &str, message: String, hint: &str) -> Trouble {
    Trouble { code: code.to_owned(), message, hint: hint.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Epoch, Position};

    fn side(node: i64, lost: bool, unfinished: bool) -> Side {
        let position = Position { epoch: Epoch(node), seq: node * 10 };
        let head = Checkpoint { position, ts_ms: 1, fingerprint: 1 };
        Side {
            node: NodeId(node),
            name: format!("n{node}"),
            lost,
            unfinished,
            head,
            empty: false,
            restored: false,
            seed: None,
        }
    }

    #[test]
    fn one_lost_direction_is_copied_and_two_are_a_first_contact() {
        let (a, b) = (side(1, false, false), side(2, false, false));
        let quiet = Decided { from_peer: FromPeer::GoesOn, to_peer: ToPeer::GoesOn };
        assert_eq!(decide(&a, &b), Ok(quiet));
        assert_eq!(decide(&side(1, false, true), &b), Ok(quiet), "an unfinished copy goes on");
        let (a, b) = (side(1, true, false), side(2, false, false));
        assert_eq!(decide(&a, &b).expect("decided").to_peer, ToPeer::CopiedAgain);
        assert_eq!(decide(&b, &a).expect("decided").from_peer, FromPeer::CopiedAgain { head: a.head });
        for (first, second) in [((true, false), (true, false)), ((true, false), (false, true))] {
            let mut a = side(1, first.0, first.1);
            let mut b = side(2, second.0, second.1);
            assert_eq!(decide(&a, &b).expect_err("nobody said").code, "seed_needed");
            b.seed = Some(Seed::of_word("n2"));
            assert_eq!(
                decide(&a, &b).expect("decided").from_peer,
                FromPeer::SeedLost { head: b.head, how: How::Replace }
            );
            assert_eq!(
                decide(&b, &a).expect("decided").from_peer,
                FromPeer::SeedWon { head: a.head, how: How::Replace }
            );
            a.seed = Some(Seed::of_word("n1"));
            assert_eq!(decide(&a, &b).expect_err("they differ").code, "seed_differs");
            b.empty = true;
            assert_eq!(
                decide(&a, &b).expect("decided").to_peer,
                ToPeer::CopiedAgain,
                "an empty one has nothing to win"
            );
        }
    }
    #[test]
    fn a_restored_database_never_wins() {
        let mut a = Side { restored: true, ..side(1, false, false) };
        let b = side(2, false, false);
        assert_eq!(decide(&a, &b).expect_err("nobody said").code, "divergence");
        a.seed = Some(Seed::of_word("n1"));
        assert_eq!(decide(&a, &b).expect_err("it lost something").code, "divergence");
        a.seed = Some(Seed::of_word("n2"));
        assert_eq!(decide(&b, &a).expect("decided").to_peer, ToPeer::CopiedAgain);
        assert!(matches!(decide(&a, &b).expect("decided").from_peer, FromPeer::SeedLost { .. }));
    }

    #[test]
    fn a_merge_copies_both_ways() {
        let a = Side { seed: Some(Seed::of_word("merge:n1")), ..side(1, true, false) };
        let b = side(2, true, false);
        for (us, them) in [(&a, &b), (&b, &a)] {
            let decided = decide(us, them).expect("decided");
            assert_eq!(decided.to_peer, ToPeer::CopiedAgain);
            assert!(matches!(
                decided.from_peer,
                FromPeer::SeedWon { how: How::Union, .. } | FromPeer::SeedLost { how: How::Union, .. }
            ));
        }
        assert_eq!(Seed::of_word(&a.seed.clone().expect("one").word()), a.seed.expect("one"));
    }
    /// It was blind until the other had its copy of nothing, and recorded what that one wrote twice meanwhile.
    #[test]
    fn a_winner_that_is_empty_is_not_blind() {
        let [a, b] = [1, 2].map(|node| Side { empty: true, ..side(node, true, false) });
        let (at_a, at_b) = (decide(&a, &b).expect("decided"), decide(&b, &a).expect("decided"));
        assert_eq!((at_a.to_peer, at_b.to_peer), (ToPeer::GoesOn, ToPeer::GoesOn));
        assert_eq!(at_a.from_peer, FromPeer::SeedWon { head: b.head, how: How::Replace });
        assert_eq!(at_b.from_peer, FromPeer::CopiedAgain { head: a.head });
    }

    #[test]
    fn an_empty_sender_takes_nothing_away_and_a_full_one_only_where_somebody_said_so() {
        let said = |seed: Option<&str>, is_empty| {
            with_sender("a", ("s", is_empty), seed.map(Seed::of_word).as_ref()).map_err(|trouble| trouble.code)
        };
        for seed in [None, Some("s"), Some("a"), Some("merge:s")] {
            assert_eq!(said(seed, true), Ok((false, How::Union)), "{seed:?}");
        }
        assert_eq!(said(Some("s"), false), Ok((true, How::Replace)));
        assert_eq!(said(Some("merge:s"), false), Ok((true, How::Union)));
        for seed in [None, Some("a")] {
            assert_eq!(said(seed, false), Err("seed_needed".to_owned()), "{seed:?}");
        }
    }

    #[test]
    fn an_empty_database_is_filled_like_one_that_was_away() {
        let a = side(1, true, false);
        let b = Side { empty: true, ..side(2, true, false) };
        let (at_a, at_b) = (decide(&a, &b).expect("decided"), decide(&b, &a).expect("decided"));
        assert_eq!(at_a.from_peer, FromPeer::SeedWon { head: b.head, how: How::Replace });
        assert_eq!((at_b.from_peer, at_b.to_peer), (FromPeer::CopiedAgain { head: a.head }, ToPeer::GoesOn));
    }
}
