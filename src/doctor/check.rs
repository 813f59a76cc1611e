//! What a check is, and what it finds.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Replication cannot work, or loses something.
    Error,
    /// It works until something else happens, or worse than it could.
    Warning,
    /// Good to know.
    Info,
}

impl Severity {
    /// As it is shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// Where a check applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere.
    Always,
    /// Only where both sides take writes.
    TwoWay,
}

/// One check. What it found is said by its [`Finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// A short word, for good.
    pub name: &'static str,
    /// How bad what it finds is.
    pub severity: Severity,
    /// Where it applies.
    pub scope: Scope,
    /// Why that matters.
    pub why: &'static str,
    /// What to do about it.
    pub fix: &'static str,
}

/// What a check found in one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, with the names that matter.
    pub found: String,
    /// The names of what it was found in: tables, columns as `table.column`, indexes, triggers, files. All of them, also
    /// where `found` shows only some.
    pub objects: Vec<String>,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
}

/// What was found in one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The file.
    pub database: String,
    /// The node's id, where the database has one.
    pub node_id: Option<String>,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
}

/// Names shown in a sentence; the others are counted, and all are in [`Finding::objects`].
const SHOWN_MAX: usize = 8;

impl Check {
    /// A finding. `said` is the sentence; `{}` in it stands for the objects.
    pub(super) fn found(&self, said: &str, objects: Vec<String>) -> Finding {
        let mut shown = objects.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
        if objects.len() > SHOWN_MAX {
            shown.push_str(&format!(" and {} more", objects.len() - SHOWN_MAX));
        }
        let Self { name, severity, why, fix, .. } = *self;
        Finding { check: name, severity, found: said.replace("{}", &shown), objects, why, fix }
    }
}

/// The findings of one database while they are gathered.
pub(super) struct Findings {
    two_way: bool,
    all: Vec<Finding>,
}

impl Findings {
    pub(super) fn new(two_way: bool) -> Self {
        Self { two_way, all: Vec::new() }
    }

    /// Notes what a check found in these objects; nothing where there are none, or where the check does not apply.
    pub(super) fn note(&mut self, check: &Check, said: &str, objects: Vec<String>) {
        if !objects.is_empty() && (check.scope == Scope::Always || self.two_way) {
            self.all.push(check.found(said, objects));
        }
    }

    /// Notes what a check found, once for each object, for each has a sentence of its own.
    pub(super) fn note_each(&mut self, check: &Check, each: impl IntoIterator<Item = (String, String)>) {
        for (object, said) in each {
            self.note(check, &said, vec![object]);
        }
    }

    pub(super) fn sorted(mut self) -> Vec<Finding> {
        self.all.sort_by_key(|finding| finding.severity);
        self.all
    }
}
