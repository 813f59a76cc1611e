//! Decisions of two ends that meet, and of two that lost each other in between.

use super::meeting::{Decided, Order, Seed, Side, decide, with_sender};
use crate::apply::{FromPeer, How, ToPeer};
use crate::model::{Checkpoint, Epoch, NodeId, Position};

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
        met: false,
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
        assert_eq!(decide(&a, &b).expect("decided").from_peer, FromPeer::SeedLost { head: b.head, how: How::Replace });
        assert_eq!(decide(&b, &a).expect("decided").from_peer, FromPeer::SeedWon { head: a.head, how: How::Replace });
        a.seed = Some(Seed::of_word("n1"));
        assert_eq!(decide(&a, &b).expect_err("they differ").code, "seed_differs");
        b.empty = true;
        assert_eq!(decide(&a, &b).expect("decided").to_peer, ToPeer::CopiedAgain, "an empty one has nothing to win");
    }
}
#[test]
fn a_restored_database_never_wins() {
    let mut a = Side { restored: true, ..side(1, false, false) };
    let b = side(2, false, false);
    assert_eq!(decide(&a, &b).expect_err("nobody said").code, "divergence");
    a.seed = Some(Seed::of_word("n2"));
    assert_eq!(decide(&b, &a).expect("decided").to_peer, ToPeer::CopiedAgain);
    assert!(matches!(decide(&a, &b).expect("decided").from_peer, FromPeer::SeedLost { .. }));
}

/// It was treated as if nothing were set, and asked for a seed.
#[test]
fn a_seed_that_cannot_be_followed_is_named_with_the_reason() {
    let restored = Side { restored: true, ..side(1, false, false) };
    let b = side(2, false, false);
    let with = |side: &Side, seed: &str| Side { seed: Some(Seed::of_word(seed)), ..side.clone() };
    for (a, b, set) in [
        (with(&restored, "n1"), b.clone(), "`seed: n1`, as \"n1\" has it,"),
        (restored.clone(), with(&b, "n1"), "`seed: n1`, as \"n2\" has it,"),
        (
            with(&restored, "merge:n1"),
            with(&b, "merge:n1"),
            "`seed: merge` with `seed_prefer: n1`, as \"n1\" and \"n2\"",
        ),
    ] {
        let error = decide(&a, &b).expect_err("it lost something");
        let because = "cannot be followed: only \"n2\" holds what \"n1\" lost";
        assert!(error.code == "divergence" && error.message.contains(because), "{error:?}");
        assert!(error.message.contains(set) && error.hint.contains("let `seed` be \"n2\""), "{error:?}");
    }
    let neither = decide(&with(&restored, "n3"), &b).expect_err("it names nobody");
    assert_eq!(neither.code, "seed_unknown");
    assert!(neither.message.contains("`seed: n3`, as \"n1\" has it,"), "{neither:?}");
    let both = decide(&with(&restored, "n2"), &Side { restored: true, ..b }).expect_err("each lost something");
    assert!(both.code == "both_restored" && both.hint.contains("teardown"), "{both:?}");
    let sender = with_sender("n1", ("n2", false), Some(&Seed::of_word("n1"))).expect_err("it would copy nothing");
    assert!(sender.message.contains("`seed: n1` cannot be followed"), "{sender:?}");
}

/// A circle is told by a change that comes back, so not when two ends meet.
#[test]
fn who_asks_for_a_seed_says_what_to_do_where_links_form_a_circle() {
    let error = decide(&side(1, true, false), &side(2, true, false)).expect_err("nobody said");
    assert!(error.code == "seed_needed" && error.hint.contains("circle"), "{error:?}");
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

/// The deleted rows came back from the other end, and nobody was asked.
#[test]
fn who_deleted_all_its_rows_is_not_new() {
    let mut a = Side { met: true, ..side(1, true, false) };
    let mut b = Side { empty: true, met: true, ..side(2, true, false) };
    let refused = decide(&a, &b).expect_err("nobody said");
    assert_eq!(decide(&b, &a), Err(refused.clone()));
    assert_eq!(refused.code, "seed_needed");
    assert!(refused.message.contains("\"n1\" holds rows, and that of \"n2\" has none left"), "{}", refused.message);

    a.seed = Some(Seed::of_word("n2"));
    let (at_a, at_b) = (decide(&a, &b).expect("decided"), decide(&b, &a).expect("decided"));
    assert_eq!(at_a.from_peer, FromPeer::SeedLost { head: b.head, how: How::Replace });
    assert_eq!(at_b.to_peer, ToPeer::CopiedAgain, "what it has is nothing, and that is copied");

    (a.empty, b.met) = (true, false);
    assert!(decide(&a, &b).is_ok(), "there is nothing to win at either end");
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

/// What is seen of the two after `first` has kept what it decided, and the other has not: that it holds nothing.
fn after(decided: &Decided, first: &Side, other: &Side) -> (Side, Side) {
    let (mut first, mut other) = (first.clone(), other.clone());
    if decided.from_peer != FromPeer::GoesOn {
        (other.lost, other.restored, other.unfinished) = (true, false, true);
        first.met = false;
    }
    (first, other)
}

fn sides() -> Vec<[Side; 2]> {
    let flags = |bits: u32, node| {
        let is = |bit: u32| bits & (1 << bit) != 0;
        let [lost, unfinished, empty, met, restored] = [0, 1, 2, 3, 4].map(is);
        Side { empty, met: met && !unfinished, restored, ..side(node, lost || restored, unfinished) }
    };
    let seeds = [None, Some("n1"), Some("n2"), Some("merge:n1"), Some("merge:n2")];
    let seeds = seeds.map(|seed| seed.map(Seed::of_word));
    let all = (0..32).flat_map(|one| (0..32).map(move |two| [flags(one, 1), flags(two, 2)]));
    all.flat_map(|pair| seeds.clone().map(|seed| pair.clone().map(|side| Side { seed: seed.clone(), ..side })))
        .collect()
}

/// Half of it kept became another decision: an end that should have been asked, or been given what it lost, went on.
#[test]
fn what_only_the_first_has_kept_is_decided_again() {
    let mut orders = std::collections::BTreeMap::new();
    for [a, b] in sides() {
        let (Ok(at_a), Ok(at_b)) = (decide(&a, &b), decide(&b, &a)) else { continue };
        let (order, other) = (Order::of(&at_a, &at_b), Order::of(&at_b, &at_a));
        *orders.entry(format!("{order:?}")).or_insert(0) += 1;
        let (a_kept, b_kept) = match (order, other) {
            (Order::First, Order::Second) => after(&at_a, &a, &b),
            (Order::Second, Order::First) => {
                let (b, a) = after(&at_b, &b, &a);
                (a, b)
            }
            (Order::Neither, Order::Neither) => continue,
            differ => panic!("{differ:?}: {a:?} {b:?}"),
        };
        let again = [decide(&a_kept, &b_kept), decide(&b_kept, &a_kept)].map(|again| again.expect("decided"));
        let wins = |decided: &Decided| matches!(decided.from_peer, FromPeer::SeedWon { .. });
        let copied = |decided: &Decided| !wins(decided) && decided.from_peer != FromPeer::GoesOn;
        for (before, again) in [at_a, at_b].iter().zip(&again) {
            assert_eq!(
                (wins(before), copied(before)),
                (wins(again), copied(again)),
                "{before:?} {again:?} {a:?} {b:?}"
            );
        }
        // Who has nothing any more gives nothing up, however it lost.
        if [&a, &b].into_iter().zip([&a_kept, &b_kept]).all(|(before, kept)| !before.empty || before.met == kept.met) {
            assert_eq!(again, [at_a, at_b], "{a:?} {b:?}");
        }
    }
    assert!(orders.len() == 3 && orders.values().all(|count| *count > 100), "{orders:?}");
}
