//! Each rule left out once: a history must notice.

use super::history::History;
use super::oracle::Fault;
use super::scenes;
use crate::apply::merge::mutant::{Mutant, leave_out};

/// What notices that a rule is left out.
#[derive(Clone, Copy)]
enum By {
    /// The random history of that seed.
    Seed(u64),
    /// A history that is told, which says whether it ended well.
    Scene(fn() -> bool),
}

use By::{Scene, Seed};

/// A history that notices, for each rule. Where the generator of histories changes, find them anew:
/// `cargo test --lib mutants -- --ignored --nocapture`.
const NOTICED_BY: [(Mutant, By); 17] = [
    (Mutant::NoVersion, Seed(1)),
    (Mutant::AckOnly, Seed(2)),
    (Mutant::NoSeen, Seed(12)),
    (Mutant::NoEcho, Seed(314)),
    (Mutant::Backwards, Seed(11)),
    (Mutant::NoRaise, Seed(259)),
    (Mutant::SilentDisplace, Seed(339)),
    (Mutant::LoudKnown, Scene(scenes::a_value_moves_between_ranges)),
    (Mutant::SilentReject, Seed(317)),
    (Mutant::PruneAcked, Scene(scenes::an_acknowledgement_overtakes_a_window)),
    (Mutant::ChunkBlind, Seed(0)),
    (Mutant::ChunkQuiet, Seed(62)),
    (Mutant::BlindQuiet, Seed(58)),
    (Mutant::ReaderDrift, Seed(318)),
    (Mutant::NoAbsorb, Seed(0)),
    (Mutant::SentIsThere, Scene(scenes::two_repairs_cross)),
    (Mutant::NeverThere, Scene(scenes::a_copy_comes_long_after_one_was_sent)),
];

fn fault(mutant: Mutant, seed: u64) -> Option<Fault> {
    leave_out(Some(mutant));
    let fault = std::panic::catch_unwind(|| History::new(seed).run()).unwrap_or(Some(Fault::Damaged));
    leave_out(None);
    fault
}

#[test]
fn each_rule_left_out_is_noticed() {
    for (mutant, by) in NOTICED_BY {
        let noticed = match by {
            Seed(seed) => fault(mutant, seed).is_some(),
            Scene(scene) => {
                leave_out(Some(mutant));
                let well = std::panic::catch_unwind(scene).unwrap_or(false);
                leave_out(None);
                !well
            }
        };
        assert!(noticed, "nobody notices {mutant:?}");
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
        eprintln!("{mutant:?} {found:?}");
    }
}
