//! Each rule left out once: a history must notice.

use super::history::History;
use super::oracle::Fault;
use crate::apply::merge::mutant::{Mutant, leave_out};

/// A history that notices, for each rule. Where the generator of histories changes, find them anew:
/// `cargo test --lib mutants -- --ignored --nocapture`.
const NOTICED_BY: [(Mutant, u64); 15] = [
    (Mutant::NoVersion, 1),
    (Mutant::AckOnly, 2),
    (Mutant::NoSeen, 12),
    (Mutant::NoEcho, 1649),
    (Mutant::Backwards, 11),
    (Mutant::NoRaise, 259),
    (Mutant::SilentDisplace, 339),
    (Mutant::LoudKnown, 0),
    (Mutant::SilentReject, 317),
    (Mutant::PruneAcked, 0),
    (Mutant::ChunkBlind, 0),
    (Mutant::ChunkQuiet, 62),
    (Mutant::BlindQuiet, 12),
    (Mutant::ReaderDrift, 318),
    (Mutant::NoAbsorb, 0),
];

fn fault(mutant: Mutant, seed: u64) -> Option<Fault> {
    leave_out(Some(mutant));
    let fault = std::panic::catch_unwind(|| History::new(seed).run()).unwrap_or(Some(Fault::Damaged));
    leave_out(None);
    fault
}

#[test]
fn each_rule_left_out_is_noticed() {
    for (mutant, seed) in NOTICED_BY {
        assert!(fault(mutant, seed).is_some(), "nobody notices {mutant:?} in history {seed}");
    }
}

#[test]
#[ignore = "a search, for whoever changes the generator of histories"]
fn find_histories_that_notice() {
    let most: u64 = std::env::var("TWINLITE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000);
    let only = std::env::var("TWINLITE_MUTANT").ok();
    for (mutant, _) in NOTICED_BY {
        if only.as_ref().is_some_and(|only| *only != format!("{mutant:?}")) {
            continue;
        }
        let found = (0..most).find_map(|seed| Some((seed, fault(mutant, seed)?)));
        println!("{mutant:?} {found:?}");
    }
}
