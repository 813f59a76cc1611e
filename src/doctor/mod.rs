//! What is wrong, or risky, about databases that are to be replicated: named checks, each with why it matters and what to
//! do about it.
//!
//! The facts of a database are read once ([`facts`] from the file system, [`content`] through SQLite); the checks decide
//! over them and over nothing else ([`files`], [`upkeep`], [`tables`], [`relations`]), each group in a file of its own.
//! [`CHECKS`] has them all.
//!
//! Promised: nothing is written and no lock is held but SQLite's own while it reads, each query in a transaction of its
//! own and bounded in time unless `deep` was asked for. A database in WAL mode that nobody has open is read as a file
//! that stands still, so that SQLite makes nothing beside it. Where a crash left a WAL without its index, SQLite makes the
//! index, as for any reader.
//!
//! Not promised: that what is found is still so; and that a database without findings replicates. What only the running
//! application knows (its SQLite's version, its pragmas, its TEMP triggers) cannot be seen from here.

pub mod facts;

mod check;
mod content;
mod files;
mod relations;
mod tables;
mod upkeep;

use std::collections::BTreeMap;

use check::Findings;
pub use check::{Check, Finding, Report, Scope, Severity};
use facts::{Facts, Subject};

/// The form of the JSON that `twinlite doctor` writes.
pub const FORMAT: u32 = 1;

/// Every check, group by group.
pub const CHECKS: &[&[Check]] = &[files::CHECKS, upkeep::CHECKS, tables::CHECKS, relations::CHECKS];

/// Examines databases, each by itself and all beside each other. `deep`: without bounds on what is read and for how long.
pub fn examine(subjects: &[Subject], deep: bool) -> Vec<Report> {
    let all: Vec<Facts> = subjects.iter().map(|subject| Facts::read(subject, deep)).collect();
    let mut reports: Vec<Report> = all.iter().map(judge).collect();
    let mut holders: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (place, facts) in all.iter().enumerate() {
        if let Some(id) = facts.content.as_ref().and_then(|content| content.node_id) {
            holders.entry(id.0).or_default().push(place);
        }
    }
    for places in holders.values().filter(|places| places.len() > 1) {
        for place in places {
            let others = places.iter().filter(|other| *other != place);
            let others = others.map(|other| all[*other].subject.database.display().to_string()).collect();
            reports[*place].findings.push(upkeep::same_node_id(others));
        }
    }
    reports
}

/// What the checks find in one database, the worst first.
fn judge(facts: &Facts) -> Report {
    let mut findings = Findings::new(facts.subject.two_way);
    files::judge(facts, &mut findings);
    if let Some(content) = &facts.content {
        upkeep::judge(content, &mut findings);
        tables::judge(content, &mut findings);
        relations::judge(&facts.subject, content, &mut findings);
    }
    let node_id = facts.content.as_ref().and_then(|content| content.node_id).map(|id| id.to_string());
    Report { database: facts.subject.database.display().to_string(), node_id, findings: findings.sorted() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_check_has_a_name_of_its_own_and_says_everything() {
        let all: Vec<&Check> = CHECKS.iter().copied().flatten().collect();
        let names: BTreeSet<&str> = all.iter().map(|check| check.name).collect();
        assert_eq!(names.len(), all.len(), "two checks of one name");
        assert!(all.len() >= 20, "{} checks", all.len());
        for check in all {
            let is_word = check.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(is_word && check.name.len() <= 24, "{}", check.name);
            assert!(!check.why.is_empty() && !check.fix.is_empty(), "{}", check.name);
        }
    }

    /// The table of the page, made from the checks: what this prints where it fails belongs there.
    #[test]
    fn the_documentation_lists_every_check_as_it_is() {
        let row = |check: &Check| {
            let scope = match check.scope {
                Scope::Always => "",
                Scope::TwoWay => ", with `--two-way`",
            };
            format!("| `{}` | {}{scope} | {} | {} |", check.name, check.severity.word(), check.why, check.fix)
        };
        let wanted: Vec<String> = CHECKS.iter().copied().flatten().map(row).collect();
        let page = include_str!("../../docs/doctor.md");
        let found: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        assert!(found == wanted, "docs/doctor.md wants:\n{}\n", wanted.join("\n"));
    }
}
