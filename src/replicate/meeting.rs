//! What becomes of both directions of a two-way link when its ends meet. Pure: both ends decide alike from what each has
//! told the other.
//!
//! An end's history is *lost* for the other where its log no longer reaches back to the other's checkpoint, or the other
//! has none. If one direction is lost, it is copied again. If nobody knows any more who had seen what, because both are
//! lost, or one is and the other's copy is unfinished, it is a first contact: one end's content wins.

use crate::apply::{FromPeer, ToPeer};
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
    /// Which node's content wins a first contact, as its config says.
    pub seed: Option<String>,
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
    if (us.lost || them.lost) && all_unknown {
        let we_win = winner(us, them)? == us.node;
        let head = them.head;
        return Ok(match we_win {
            true => Decided { from_peer: FromPeer::SeedWon { head }, to_peer: ToPeer::CopiedAgain },
            false => Decided { from_peer: FromPeer::SeedLost { head }, to_peer: ToPeer::GoesOn },
        });
    }
    Ok(Decided {
        from_peer: if them.lost { FromPeer::CopiedAgain { head: them.head } } else { FromPeer::GoesOn },
        to_peer: if us.lost { ToPeer::CopiedAgain } else { ToPeer::GoesOn },
    })
}

fn winner(us: &Side, them: &Side) -> Result<NodeId, Trouble> {
    match (us.empty, them.empty) {
        (true, true) => return Ok(us.node.min(them.node)),
        (true, false) => return Ok(them.node),
        (false, true) => return Ok(us.node),
        (false, false) => {}
    }
    let named = |name: &String| [us, them].into_iter().find(|side| side.name == *name).map(|side| side.node);
    match (us.seed.as_ref().and_then(named), them.seed.as_ref().and_then(named)) {
        (Some(ours), Some(theirs)) if ours != theirs => Err(trouble(
            "seed_differs",
            format!("\"{}\" and \"{}\" each name another node whose content wins", us.name, them.name),
            "let `seed` name the same node at both ends",
        )),
        (Some(named), _) | (None, Some(named)) => Ok(named),
        (None, None) => Err(trouble(
            "seed_needed",
            format!(
                "the databases of \"{}\" and \"{}\" both hold rows, and nobody knows any more who had seen what",
                us.name, them.name
            ),
            "say whose content wins by `seed: <node name>` on both ends of the link; what it overwrites is kept as \
             conflicts",
        )),
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
        Side { node: NodeId(node), name: format!("n{node}"), lost, unfinished, head, empty: false, seed: None }
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
            b.seed = Some("n2".to_owned());
            assert_eq!(decide(&a, &b).expect("decided").from_peer, FromPeer::SeedLost { head: b.head });
            assert_eq!(decide(&b, &a).expect("decided").from_peer, FromPeer::SeedWon { head: a.head });
            a.seed = Some("n1".to_owned());
            assert_eq!(decide(&a, &b).expect_err("they differ").code, "seed_differs");
            b.empty = true;
            assert_eq!(decide(&a, &b).expect("decided").to_peer, ToPeer::CopiedAgain, "an empty one has nothing to win");
        }
    }
}
