//! Checks of single tables: whether they can be captured, their keys and indexes, and what SQLite does with them that
//! surprises.

use super::check::{Check, Findings, Scope, Severity};
use super::content::Content;
use crate::model::{Index, IndexOrigin, KeyShape, TableSchema};
use crate::sqlite::lexer::{Token, TokenKind, tokens};

/// Columns above which a table is called wide: each change sends the whole row.
const COLUMNS_MAX: usize = 500;

const NOT_CAPTURED: Check = Check {
    name: "not_captured",
    severity: Severity::Warning,
    scope: Scope::Always,
    why: "The table is wanted and is not replicated.",
    fix: "Change what the reason names, or leave the table out with `skip_tables` so that nobody waits for it.",
};
const VIRTUAL_TABLE: Check = Check {
    name: "virtual_table",
    severity: Severity::Info,
    scope: Scope::Always,
    why: "No trigger can be put on a virtual table, so neither it nor what it keeps its content in is replicated.",
    fix: "Replicate the table that it indexes, and rebuild the index at the other end (FTS5: `INSERT INTO t(t) VALUES('rebuild')`, or its triggers with `user_triggers: on`).",
};
const NULL_KEY: Check = Check {
    name: "null_in_key",
    severity: Severity::Warning,
    scope: Scope::Always,
    why: "A primary key of a rowid table may hold NULLs, several times: such rows are told apart by nothing, and travel only together.",
    fix: "Give these rows a key, and declare the column NOT NULL.",
};
const NO_KEY: Check = Check {
    name: "no_primary_key",
    severity: Severity::Error,
    scope: Scope::TwoWay,
    why: "Such a table's rows are known by their rowids: both sides hand out the same ones for different rows, and VACUUM renumbers them.",
    fix: "Declare a primary key, best a random one: `id BLOB PRIMARY KEY NOT NULL DEFAULT (randomblob(16))`.",
};
const AUTO_KEY: Check = Check {
    name: "auto_assigned_key",
    severity: Severity::Warning,
    scope: Scope::TwoWay,
    why: "The next id is max(rowid) + 1 on both sides, with AUTOINCREMENT too: two new rows get one id, one of them loses. Ranges do not help, for a peer's row moves the counter.",
    fix: "Use random keys: `id BLOB PRIMARY KEY NOT NULL DEFAULT (randomblob(16))` or a UUID as TEXT (a DEFAULT is ignored on INTEGER PRIMARY KEY); or let one side alone insert.",
};
const UNIQUE: Check = Check {
    name: "unique_besides_key",
    severity: Severity::Warning,
    scope: Scope::TwoWay,
    why: "Two rows of different keys, written on both sides, can want the same value: one of them is removed and kept as a conflict.",
    fix: "Make the value part of the key, let one side alone write it, or look at `twinlite conflicts` regularly.",
};
const REPLACE_IN_SCHEMA: Check = Check {
    name: "replace_in_schema",
    severity: Severity::Info,
    scope: Scope::Always,
    why: "ON CONFLICT REPLACE deletes rows without firing DELETE triggers, but for `recursive_triggers=ON`. Twinlite logs them by BEFORE triggers; triggers of your own miss them.",
    fix: "Nothing for replication; prefer UPSERT where your own triggers must see the deletion.",
};
const STRICT_IGNORE: Check = Check {
    name: "strict_ignore",
    severity: Severity::Info,
    scope: Scope::Always,
    why: "While captured, `INSERT OR IGNORE` of a wrongly typed row raises where SQLite alone would have ignored it.",
    fix: "Check the types in the application, or catch the error there.",
};
const LEGACY_RENAME: Check = Check {
    name: "legacy_rename",
    severity: Severity::Info,
    scope: Scope::Always,
    why: "Triggers on these tables read the table itself: after RENAME TABLE under `legacy_alter_table=ON`, or before SQLite 3.25, writes fail for a moment, until they are made anew.",
    fix: "Rename such a table through `twinlite ddl`.",
};
const DOUBLE_QUOTES: Check = Check {
    name: "double_quoted_string",
    severity: Severity::Info,
    scope: Scope::Always,
    why: "A string in double quotes is one only by SQLite's leniency, which many builds switch off: there the index cannot be made.",
    fix: "Make the index anew with single quotes.",
};
const WIDE: Check = Check {
    name: "wide_table",
    severity: Severity::Info,
    scope: Scope::Always,
    why: "A change of one column sends the whole row, and each window holds all columns of its rows in memory.",
    fix: "Put columns that change together into tables of their own; or lower `window_rows` and `batch_size`.",
};

/// The checks of this group.
pub(super) const CHECKS: &[Check] = &[
    NO_KEY,
    NOT_CAPTURED,
    NULL_KEY,
    AUTO_KEY,
    UNIQUE,
    VIRTUAL_TABLE,
    REPLACE_IN_SCHEMA,
    STRICT_IGNORE,
    LEGACY_RENAME,
    DOUBLE_QUOTES,
    WIDE,
];

/// Decides.
pub(super) fn judge(content: &Content, findings: &mut Findings) {
    let capture = &content.capture;
    let skipped = capture.skipped.iter();
    findings.note_each(
        &NOT_CAPTURED,
        skipped.map(|table| (table.name.clone(), format!("table {{}} cannot be captured: {}", table.reason))),
    );
    findings.note(&VIRTUAL_TABLE, "virtual tables are not captured: {}", capture.virtuals.clone());
    let nulls = content.null_keys.iter().map(|(table, column)| format!("{table}.{column}")).collect();
    findings.note(&NULL_KEY, "columns of primary keys hold NULLs: {}", nulls);
    let named = |is: &dyn Fn(&TableSchema) -> bool| {
        capture.wanted.iter().filter(|table| is(table)).map(|table| table.name.clone()).collect::<Vec<_>>()
    };
    let touches = |table: &TableSchema| capture.touching.contains(&table.name);
    findings.note(
        &NO_KEY,
        "tables without a primary key: {}",
        named(&|table| matches!(table.key, KeyShape::Rowid { .. } | KeyShape::None)),
    );
    let auto = capture.wanted.iter().filter_map(|table| table.rowid_alias().map(|column| (table, column)));
    let auto = auto.map(|(table, column)| format!("{}.{}", table.name, column.name)).collect();
    findings.note(&AUTO_KEY, "SQLite assigns the keys {}", auto);
    let indexes = |is: &dyn Fn(&TableSchema, &Index) -> bool| {
        let all = capture.wanted.iter().flat_map(|table| table.indexes.iter().map(move |index| (table, index)));
        all.filter(|(table, index)| is(table, index)).map(|(table, index)| index_name(table, index)).collect()
    };
    let unique = indexes(&|_, index| index.unique && index.origin != IndexOrigin::PrimaryKey);
    findings.note(&UNIQUE, "unique besides the key: {}", unique);
    let replace = named(&|table| has_words(&table.ddl, &["ON", "CONFLICT", "REPLACE"]));
    findings.note(&REPLACE_IN_SCHEMA, "ON CONFLICT REPLACE is declared in tables {}", replace);
    let strict = named(&|table| table.strict && touches(table));
    findings.note(&STRICT_IGNORE, "STRICT tables with unique values besides the key: {}", strict);
    findings.note(&LEGACY_RENAME, "tables whose triggers read them: {}", capture.touching.clone());
    let quoted = indexes(&|table, index| index.sql.as_deref().is_some_and(|sql| quotes_a_string(table, sql)));
    findings.note(&DOUBLE_QUOTES, "strings in double quotes in the indexes {}", quoted);
    let wide = named(&|table| table.columns.len() > COLUMNS_MAX);
    findings.note(&WIDE, &format!("tables of more than {COLUMNS_MAX} columns: {{}}"), wide);
}

/// An index by its name, or by what it is on where SQLite named it.
fn index_name(table: &TableSchema, index: &Index) -> String {
    if index.origin == IndexOrigin::Created {
        return format!("{} on {}", index.name, table.name);
    }
    let columns = index.columns.iter().filter_map(|part| part.column).map(|place| table.columns[place].name.as_str());
    format!("{}({})", table.name, columns.collect::<Vec<_>>().join(", "))
}

fn has_words(sql: &str, words: &[&str]) -> bool {
    let all = tokens(sql);
    all.windows(words.len()).any(|run| run.iter().zip(words).all(|(token, word)| token.is(word)))
}

/// Whether a CREATE INDEX has a string in double quotes: what names no column of the table, nor a function.
fn quotes_a_string(table: &TableSchema, sql: &str) -> bool {
    let all = tokens(sql);
    let open = all.iter().position(|token| token.is_symbol("(")).unwrap_or(all.len());
    let inside = &all[open..];
    let is_string = |(place, token): (usize, &Token<'_>)| {
        let name = token.name().unwrap_or_default();
        let called = inside.get(place + 1).is_some_and(|next| next.is_symbol("(") || next.is_symbol("."));
        let after_collate = place > 0 && inside[place - 1].is("COLLATE");
        let is_rowid = ["rowid", "oid", "_rowid_"].iter().any(|rowid| rowid.eq_ignore_ascii_case(&name));
        token.kind == TokenKind::DoubleQuoted && !called && !after_collate && !is_rowid && table.column(&name).is_none()
    };
    inside.iter().enumerate().any(is_string)
}
