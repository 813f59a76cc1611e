//! Checks of what Twinlite itself keeps in a database.

use super::check::{Check, Finding, Findings, Scope, Severity};
use super::content::Content;
use crate::capture::LogRoom;
use crate::sqlite::store::FORMAT;

/// Part of the log's room, as a divisor, that is left when it is said to be nearly full.
const ROOM_LEFT: i64 = 5;

const NEWER_FORMAT: Check = Check {
    name: "newer_format",
    severity: Severity::Error,
    scope: Scope::Always,
    why: "A newer Twinlite wrote here, and this one would misread what it keeps.",
    fix: "Run the newer binary.",
};
const BOOKKEEPING: Check = Check {
    name: "bookkeeping",
    severity: Severity::Error,
    scope: Scope::Always,
    why: "What Twinlite keeps in `__cdc_` tables is missing or makes no sense, so nobody knows what was captured or applied.",
    fix: "If the file is sound otherwise: `twinlite teardown`, then `twinlite setup`; replicas are copied again.",
};
const LOG_MISSING: Check = Check {
    name: "log_missing",
    severity: Severity::Error,
    scope: Scope::Always,
    why: "Triggers of Twinlite's write into a table that is not there: every write of the application to their tables fails.",
    fix: "`twinlite teardown` removes the triggers, and writes work again; then `twinlite setup`, and replicas are copied again.",
};
const LOG_FULL: Check = Check {
    name: "log_full",
    severity: Severity::Error,
    scope: Scope::Always,
    why: "The log reached its limit with nobody there to prune it: the triggers have stopped, changes go unlogged.",
    fix: "Start the node: it begins a new epoch and repairs its replicas by digest. Both ways, what changes of a peer overwrite until then is kept as conflicts.",
};
const LOG_NEAR_FULL: Check = Check {
    name: "log_near_full",
    severity: Severity::Warning,
    scope: Scope::Always,
    why: "Nobody prunes the log; at its limit the triggers stop, and replicas need a repair by digest.",
    fix: "Start the node, or reconnect the replica that is away; or raise `capture.retention`.",
};
const FOREIGN_LOG: Check = Check {
    name: "foreign_log",
    severity: Severity::Error,
    scope: Scope::Always,
    why: "Two change logs would each be written by every change, so `setup` refuses.",
    fix: "`twinlite setup --take-over` takes its place and keeps what is in it for event consumers; or remove it with its own tool.",
};
const TRIGGERS_OFF: Check = Check {
    name: "triggers_off",
    severity: Severity::Error,
    scope: Scope::Always,
    why: "A trigger of Twinlite's is gone or altered (a rebuilt table loses its triggers): changes may go unlogged.",
    fix: "Start the node, or run `twinlite setup`: it makes them anew, and the tables are copied again by digest.",
};
const YOUNGER_TRIGGER: Check = Check {
    name: "younger_trigger",
    severity: Severity::Warning,
    scope: Scope::Always,
    why: "SQLite fires the youngest trigger first: with RAISE(IGNORE) this one would keep changes from being logged.",
    fix: "Start the node, or run `twinlite setup`: it makes its own triggers anew, so that they fire first.",
};
const SCHEMA_MOVED: Check = Check {
    name: "schema_moved",
    severity: Severity::Info,
    scope: Scope::Always,
    why: "The schema changed, or VACUUM ran, since the triggers were last compared with it.",
    fix: "Nothing: a running node, or the next to start, compares them and copies again what may have been missed. `twinlite ddl` spares that copy.",
};
const CUT_OFF: Check = Check {
    name: "cut_off",
    severity: Severity::Warning,
    scope: Scope::Always,
    why: "It was away beyond `capture.retention`, so changes that it lacks are gone from the log.",
    fix: "Reconnect it: it is repaired by digest. If it will not come back, forget it; if it comes late often, raise `capture.retention`.",
};
const CONFLICTS: Check = Check {
    name: "conflicts",
    severity: Severity::Warning,
    scope: Scope::Always,
    why: "Both sides changed a row without having seen the other's change; the row that lost is kept only there.",
    fix: "Look at each with `twinlite conflicts list` and `show`; `apply` makes the loser win, `drop` forgets it.",
};
const COPY_UNFINISHED: Check = Check {
    name: "copy_unfinished",
    severity: Severity::Info,
    scope: Scope::Always,
    why: "Until its copy is complete, a table shows rows of several moments.",
    fix: "Nothing while the node runs; else start it, and the copy goes on where it stopped.",
};
const SAME_NODE_ID: Check = Check {
    name: "same_node_id",
    severity: Severity::Error,
    scope: Scope::Always,
    why: "One file is a copy of the other: two nodes of one id are refused when they meet.",
    fix: "Run `twinlite teardown` on the copy before it becomes a node of its own.",
};

/// The checks of this group.
pub(super) const CHECKS: &[Check] = &[
    NEWER_FORMAT,
    BOOKKEEPING,
    LOG_MISSING,
    LOG_FULL,
    FOREIGN_LOG,
    TRIGGERS_OFF,
    SAME_NODE_ID,
    LOG_NEAR_FULL,
    YOUNGER_TRIGGER,
    CUT_OFF,
    CONFLICTS,
    SCHEMA_MOVED,
    COPY_UNFINISHED,
];

/// Decides.
pub(super) fn judge(content: &Content, findings: &mut Findings) {
    let capture = &content.capture;
    if let Some(found) = content.newer_format {
        let said = format!("{{}} says format {found}, this binary knows {FORMAT}");
        findings.note(&NEWER_FORMAT, &said, vec!["__cdc_meta".to_owned()]);
    }
    findings.note_each(&BOOKKEEPING, content.nonsense.iter().map(|said| ("__cdc_meta".to_owned(), said.clone())));
    findings.note(&LOG_MISSING, "triggers write to {}, which is not there", capture.missing.clone());
    if let Some(room) = &capture.log {
        judge_log(room, findings);
    }
    let foreign = capture.foreign_log.iter().cloned().collect();
    findings.note(&FOREIGN_LOG, "table {} is the change log of sqlite-cdc", foreign);
    let off = capture.off.iter().map(|(table, trigger)| format!("{trigger} on {table}")).collect();
    findings.note(&TRIGGERS_OFF, "not as Twinlite made them: {}", off);
    let younger = capture.overtaken.iter().map(|(table, trigger)| format!("{trigger} on {table}")).collect();
    findings.note(&YOUNGER_TRIGGER, "younger than Twinlite's own triggers: {}", younger);
    findings.note(&CUT_OFF, "cut off from the log: {}", content.cut_off.clone());
    let (tables, counts): (Vec<String>, Vec<i64>) = content.conflicts.iter().cloned().unzip();
    let said = format!("conflicts recorded in tables {{}}: {}", counts.iter().sum::<i64>());
    findings.note(&CONFLICTS, &said, tables);
    if let Some(notes) = &capture.moved {
        let what = if notes.is_empty() { "nothing that is captured".to_owned() } else { notes.join("; ") };
        findings.note(&SCHEMA_MOVED, &format!("{{}} moved: {what}"), vec!["schema_version".to_owned()]);
    }
    findings.note(&COPY_UNFINISHED, "not yet copied whole: {}", content.copying.clone());
}

fn judge_log(room: &LogRoom, findings: &mut Findings) {
    let log = || vec![room.name.clone()];
    let left = room.limit.saturating_sub(room.head);
    if left <= 0 {
        findings.note(&LOG_FULL, &format!("the triggers of {{}} stopped at entry {}", room.limit), log());
    } else if left <= room.limit.saturating_sub(room.oldest.max(1) - 1) / ROOM_LEFT {
        let said = format!("entries that still fit into {{}} before its triggers stop: {left}");
        findings.note(&LOG_NEAR_FULL, &said, log());
    }
}

/// That these files have the id of the one that is examined.
pub(super) fn same_node_id(others: Vec<String>) -> Finding {
    SAME_NODE_ID.found("the node id is also that of {}", others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_full_at_its_limit_and_nearly_full_before() {
        let found = |head, oldest, limit| {
            let mut findings = Findings::new(false);
            judge_log(&LogRoom { name: "__cdc_log".to_owned(), head, oldest, limit }, &mut findings);
            findings.sorted().first().map(|finding| finding.check)
        };
        assert_eq!(found(100, 1, 100), Some("log_full"));
        assert_eq!(found(99, 1, 100), Some("log_near_full"));
        assert_eq!(found(80, 1, 100), Some("log_near_full"));
        assert_eq!(found(79, 1, 100), None);
        assert_eq!(found(0, 0, 100), None);
        assert_eq!(found(1_079, 1_001, 1_100), None, "what was pruned does not count");
        assert_eq!(found(1_080, 1_001, 1_100), Some("log_near_full"));
    }
}
