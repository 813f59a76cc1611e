//! Checks of what joins tables: foreign keys, views, and triggers of the user's.

use std::collections::BTreeSet;

use super::check::{Check, Findings, Scope, Severity};
use super::content::{Content, ForeignKey, ROWS_COUNTED_MAX};
use super::facts::Subject;
use crate::model::{KeyShape, ObjectKind, TableSchema};
use crate::sqlite::lexer::{Token, tokens};

const FK_INDEX: Check = Check {
    name: "foreign_key_index",
    severity: Severity::Warning,
    scope: Scope::TwoWay,
    why: "Each deletion of a parent reads the whole child table under the write lock, and so does each search for rows that a merge left without parents.",
    fix: "Make an index that begins with these columns.",
};
const FK_BROKEN: Check = Check {
    name: "foreign_key_broken",
    severity: Severity::Warning,
    scope: Scope::Always,
    why: "Rows without their parents are replicated as they are; an application that enforces foreign keys may refuse to change them.",
    fix: "`PRAGMA foreign_key_check` lists them: add the parents, or remove the rows.",
};
const FK_MISMATCH: Check = Check {
    name: "foreign_key_mismatch",
    severity: Severity::Warning,
    scope: Scope::Always,
    why: "A foreign key names columns that are no key of its parent: with `foreign_keys=ON` writes fail, and nothing can be checked after a merge.",
    fix: "Make the parent's columns a PRIMARY KEY or give them a UNIQUE index of the same collation; or correct the foreign key.",
};
const BROKEN_VIEW: Check = Check {
    name: "broken_view",
    severity: Severity::Warning,
    scope: Scope::Always,
    why: "A view names what is not there: `ALTER TABLE … RENAME` and `DROP COLUMN` of any table fail for it, migrations of yours included.",
    fix: "Drop the view, or make it anew.",
};
const TRIGGER_WRITES: Check = Check {
    name: "trigger_writes",
    severity: Severity::Error,
    scope: Scope::TwoWay,
    why: "With `user_triggers: on` both ends would fire it for one change and each send what it wrote: the link is refused.",
    fix: "Set `user_triggers: off` (what the trigger wrote at one end travels by itself), or drop the trigger.",
};

/// The checks of this group.
pub(super) const CHECKS: &[Check] = &[TRIGGER_WRITES, FK_INDEX, FK_BROKEN, FK_MISMATCH, BROKEN_VIEW];

/// Decides.
pub(super) fn judge(subject: &Subject, content: &Content, findings: &mut Findings) {
    let wanted = &content.capture.wanted;
    let table = |name: &str| wanted.iter().find(|table| table.name.eq_ignore_ascii_case(name));
    let bare = content.foreign_keys.iter().filter(|key| table(&key.child).is_some_and(|table| !has_index(table, key)));
    let bare = bare.map(|key| format!("{}({}) to {}", key.child, key.columns.join(", "), key.parent)).collect();
    findings.note(&FK_INDEX, "foreign keys without an index on their columns: {}", bare);
    findings.note_each(
        &FK_BROKEN,
        content.orphans.iter().map(|(child, rows)| {
            let least = if *rows >= ROWS_COUNTED_MAX { "at least " } else { "" };
            (child.clone(), format!("{least}{rows} rows of table {{}} name a parent that is not there"))
        }),
    );
    let said = |(name, why): &(String, String), what: &str| (name.clone(), format!("{what} {{}}: {why}"));
    findings.note_each(&FK_MISMATCH, content.mismatched.iter().map(|found| said(found, "table")));
    findings.note_each(&BROKEN_VIEW, content.broken_views.iter().map(|found| said(found, "view")));
    if subject.user_triggers {
        let captured: BTreeSet<String> = wanted.iter().map(|table| table.name.to_ascii_lowercase()).collect();
        let triggers = content.objects.iter().filter(|object| object.kind == ObjectKind::Trigger);
        let writing = triggers.filter(|trigger| written(&trigger.sql).iter().any(|name| captured.contains(name)));
        let writing = writing.map(|trigger| format!("{} on {}", trigger.name, trigger.table)).collect();
        findings.note(&TRIGGER_WRITES, "triggers write into captured tables: {}", writing);
    }
}

/// Whether an index, the key included, begins with the child's columns, in whatever order.
fn has_index(table: &TableSchema, key: &ForeignKey) -> bool {
    let place = |name: &String| table.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name));
    let wanted: BTreeSet<Option<usize>> = key.columns.iter().map(place).collect();
    if let KeyShape::RowidAlias { column } = table.key
        && wanted == BTreeSet::from([Some(column)])
    {
        return true;
    }
    table.indexes.iter().any(|index| {
        let first: BTreeSet<Option<usize>> = index.columns.iter().take(wanted.len()).map(|part| part.column).collect();
        !index.partial && first == wanted
    })
}

/// The tables that a trigger's body writes, in lower case.
fn written(sql: &str) -> Vec<String> {
    let all = tokens(sql);
    let begin = all.iter().position(|token| token.is("BEGIN")).unwrap_or(all.len());
    let body = &all[begin..];
    let mut found = Vec::new();
    for (place, token) in body.iter().enumerate() {
        let starts = place == 0 || body[place - 1].is_symbol(";") || body[place - 1].is("BEGIN");
        let named = match starts {
            // REPLACE INTO t, INSERT OR IGNORE INTO t, DELETE FROM t.
            true if token.is("INSERT") || token.is("REPLACE") => after(&body[place..], "INTO"),
            true if token.is("DELETE") => after(&body[place..], "FROM"),
            true if token.is("UPDATE") => updated(&body[place + 1..]),
            _ => None,
        };
        found.extend(named.map(|name| name.to_ascii_lowercase()));
    }
    found
}

fn after(tokens: &[Token<'_>], word: &str) -> Option<String> {
    let at = tokens.iter().position(|token| token.is(word))?;
    tokens.get(at + 1).and_then(Token::name)
}

/// The table after UPDATE: behind an `OR …`, if there is one.
fn updated(rest: &[Token<'_>]) -> Option<String> {
    let at = if rest.first()?.is("OR") { 2 } else { 0 };
    rest.get(at).and_then(Token::name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_trigger_writes_is_found_and_what_it_reads_is_not() {
        let writes = |body: &str| written(&format!("CREATE TRIGGER x AFTER UPDATE OF a ON t BEGIN {body} END"));
        assert_eq!(writes("INSERT OR IGNORE INTO Log(a) SELECT update_ FROM t;"), ["log"]);
        assert_eq!(writes("UPDATE OR REPLACE \"s t\" SET a = 1; DELETE FROM [u] WHERE a = 2;"), ["s t", "u"]);
        assert_eq!(writes("REPLACE INTO v VALUES (1);"), ["v"]);
        assert!(writes("SELECT RAISE(IGNORE) FROM u WHERE a = 'DELETE FROM t';").is_empty());
        assert_eq!(writes("INSERT INTO a VALUES (1) ON CONFLICT DO UPDATE SET b = replace(b, 1, 2);"), ["a"]);
    }
}
