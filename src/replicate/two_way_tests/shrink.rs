//! Leaves out what a history that fails does not need: runs of steps, ever shorter ones, as long as it still fails alike.

use std::panic::AssertUnwindSafe;

use super::history::{History, Step};
use super::oracle::Fault;

/// Runs at most, each of some 50 ms: a failing test may take a minute.
const RUNS_MAX: usize = 500;

/// A failed history, without what it does not need, to be shown.
pub(super) fn told(begin: impl Fn() -> History, fault: Fault, history: History) -> String {
    let whole = history.happened.clone();
    let again = |steps: &[Step]| again(&begin, steps);
    if again(&whole).is_none_or(|(found, _)| found != Some(fault)) {
        return format!("(done again step by step it does not fail, so nothing is left out)\n{}", history.told());
    }
    drop(history);
    let steps = shrink(whole, |steps| again(steps).is_some_and(|(found, _)| found == Some(fault)));
    again(&steps).map_or_else(String::new, |(_, history)| history.told())
}

/// A history with these steps in place of its own; `None` where they make no sense.
fn again(begin: impl Fn() -> History, steps: &[Step]) -> Option<(Option<Fault>, History)> {
    let run = || {
        let mut history = begin();
        (history.run_again(steps), history)
    };
    std::panic::catch_unwind(AssertUnwindSafe(run)).ok()
}

/// The shortest list found that still fails.
fn shrink<T: Clone>(mut steps: Vec<T>, fails: impl Fn(&[T]) -> bool) -> Vec<T> {
    let (mut length, mut runs) = (steps.len() / 2, 0);
    while length > 0 {
        let mut from = 0;
        while from < steps.len() && runs < RUNS_MAX {
            let to = (from + length).min(steps.len());
            let without: Vec<T> = steps[..from].iter().chain(&steps[to..]).cloned().collect();
            runs += 1;
            if fails(&without) {
                steps = without;
            } else {
                from = to;
            }
        }
        length /= 2;
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::merge::mutant::{Mutant, leave_out};

    #[test]
    fn what_is_not_needed_is_left_out() {
        let needed = [3, 17, 18, 90];
        let fails = |steps: &[i32]| needed.iter().all(|step| steps.contains(step));
        assert_eq!(shrink((0..100).collect(), fails), needed);
        assert_eq!(shrink(vec![1, 2], |_| true), Vec::<i32>::new());
    }

    #[test]
    fn a_history_that_fails_is_shown_without_what_it_does_not_need() {
        leave_out(Some(Mutant::ChunkBlind));
        let mut history = History::new(0);
        let fault = history.run().expect("a rule is left out");
        let whole = history.happened.len();
        let told = told(|| History::new(0), fault, history);
        leave_out(None);
        let steps = told.lines().filter(|line| line.contains("Write {") || line.contains("Deliver {")).count();
        assert!(steps > 1 && told.lines().count() < whole, "{told}");
    }
}
