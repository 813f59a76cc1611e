//! Explains how far `PRAGMA schema_version` moved by the differences that are seen. Pure.
//!
//! Every statement that changes the schema moves the version by one, VACUUM too. A change that leaves nothing to see
//! (DROP COLUMN c, ADD COLUMN c) can therefore only be ruled out where the differences account for every increment. What
//! is counted here is the least number of statements that makes the differences: a version that moved further hides
//! something. Counting too little only copies a table without need; counting too much would hide a change.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::index_sql::normal;
use crate::sqlite::lexer::tokens;

/// One object of `sqlite_schema` that has SQL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectNote {
    /// `table`, `index`, `view` or `trigger`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The table that it belongs to.
    pub table: String,
    /// Its CREATE statement.
    pub sql: String,
}

/// DROP TABLE and CREATE TABLE: no number of differences within one table needs more than these two to lose something.
const REBUILD: i64 = 2;

/// What a view is called among the tables, where its triggers are counted: no table has such a name.
const VIEW: &str = "\0view ";

/// The least number of statements that leads from one schema to the other.
pub fn statements_seen(before: &[ObjectNote], after: &[ObjectNote]) -> i64 {
    let (old, new) = (Schema::of(before), Schema::of(after));
    let renamed = renames(&old, &new);
    let mut count = table_statements(&old, &new, &renamed);
    let mut rewritten_alone = false;
    let mut rewritten_any = false;
    for (name, table) in &old.tables {
        let new_name = renamed.get(name).unwrap_or(name);
        let Some(now) = new.tables.get(new_name) else { continue };
        let parts = Parts::compare(&old, &new, (name, new_name));
        let is_view = name.starts_with(VIEW);
        let differs = table.sql != now.sql;
        let appended = differs.then(|| appended_columns(&table.sql, &now.sql, &[])).flatten();
        if is_view && differs {
            // Dropping the view, which is counted among the views, drops its triggers too.
            count += parts.new + parts.changed;
            continue;
        }
        let rewritten = differs && !renamed.contains_key(name) && appended.is_none();
        rewritten_any |= rewritten || renamed.contains_key(name);
        rewritten_alone |= rewritten && parts.gone == 0;
        // The cheapest way to append columns that keeps every trigger and index is to append them.
        let appended = appended.map_or(0, |columns| columns.min(REBUILD + parts.kept));
        let rename = i64::from(renamed.contains_key(name));
        count += (rename + appended + parts.gone).min(REBUILD.max(appended + rename)) + parts.new;
        count += parts.relocated_or_changed(rewritten || rename > 0);
    }
    for parts in new.tables.keys().filter(|name| !old.tables.contains_key(*name)) {
        if !renamed.values().any(|renamed| renamed == parts) {
            count += Parts::compare(&old, &new, ("", parts)).new;
        }
    }
    let views = Parts::count(&old.views, &new.views, |_| false);
    // A rename of a table or column rewrites, in one statement, whatever mentions it.
    let rewrites = rewritten_any;
    count += views.gone + views.new + if rewrites { 0 } else { views.changed * REBUILD };
    count + i64::from(rewritten_alone && renamed.is_empty())
}

type Named<'a> = BTreeMap<String, &'a ObjectNote>;

/// The objects by name, without case.
struct Schema<'a> {
    tables: Named<'a>,
    views: Named<'a>,
    /// Indexes and triggers, by table.
    parts: BTreeMap<String, Named<'a>>,
    all_parts: BTreeSet<String>,
    none: Named<'a>,
}

impl<'a> Schema<'a> {
    fn of(objects: &'a [ObjectNote]) -> Self {
        let mut schema = Self {
            tables: Named::new(),
            views: Named::new(),
            parts: BTreeMap::new(),
            all_parts: BTreeSet::new(),
            none: Named::new(),
        };
        for object in objects {
            let (name, table) = (object.name.to_ascii_lowercase(), object.table.to_ascii_lowercase());
            match object.kind.as_str() {
                "table" => drop(schema.tables.insert(name, object)),
                "view" => drop(schema.views.insert(name, object)),
                kind => {
                    schema.all_parts.insert(format!("{kind} {name}"));
                    schema.parts.entry(table).or_default().insert(format!("{kind} {name}"), object);
                }
            }
        }
        // What stands on a view (INSTEAD OF triggers) is counted as if the view were a table that never changes.
        for (name, view) in &schema.views {
            schema.tables.insert(format!("{VIEW}{name}"), view);
            if let Some(parts) = schema.parts.remove(name) {
                schema.parts.insert(format!("{VIEW}{name}"), parts);
            }
        }
        schema
    }

    fn parts(&self, table: &str) -> &Named<'a> {
        self.parts.get(table).unwrap_or(&self.none)
    }
}

/// What became of the indexes and triggers of one table, or of the views.
struct Parts {
    gone: i64,
    new: i64,
    changed: i64,
    kept: i64,
}

impl Parts {
    /// Of a table under its old and its new name. What stands on another table now, or stood there, was moved by a
    /// rename and needed no statement of its own.
    fn compare(old: &Schema<'_>, new: &Schema<'_>, (old_name, new_name): (&str, &str)) -> Self {
        let elsewhere = |part: &str| old.all_parts.contains(part) && new.all_parts.contains(part);
        Self::count(old.parts(old_name), new.parts(new_name), elsewhere)
    }

    fn count(old: &Named<'_>, new: &Named<'_>, elsewhere: impl Fn(&str) -> bool) -> Self {
        let mut parts = Self { gone: 0, new: 0, changed: 0, kept: 0 };
        for (name, object) in old {
            match new.get(name) {
                None => parts.gone += i64::from(!elsewhere(name)),
                Some(now) if now.sql == object.sql => parts.kept += 1,
                Some(_) => parts.changed += 1,
            }
        }
        let is_new = |name: &&String| !old.contains_key(*name) && !elsewhere(name);
        parts.new = i64::try_from(new.keys().filter(is_new).count()).unwrap_or(i64::MAX);
        parts
    }

    /// Objects of the same name and another text: dropped and made again, unless a rename rewrote them.
    fn relocated_or_changed(&self, rewritten: bool) -> i64 {
        if rewritten || self.changed == 0 {
            return 0;
        }
        // Each is made anew; dropping them costs at most a rebuild, together with what was dropped for good.
        self.changed + (self.gone + self.changed).min(REBUILD) - self.gone.min(REBUILD)
    }
}

/// Statements that made and dropped tables, without the renamed ones.
fn table_statements(old: &Schema<'_>, new: &Schema<'_>, renamed: &BTreeMap<String, String>) -> i64 {
    let is_virtual = |schema: &Schema<'_>, name: &str| {
        schema.tables.iter().any(|(table, note)| {
            tokens(&note.sql).get(1).is_some_and(|second| second.is("VIRTUAL"))
                && name.starts_with(&format!("{table}_"))
        })
    };
    let ours_to_count = |name: &String| !name.starts_with(VIEW) && name != "sqlite_sequence";
    let gone = old.tables.keys().filter(|name| {
        // Dropping a virtual table drops its shadows in the same statement; making one makes each by itself.
        !new.tables.contains_key(*name) && !renamed.contains_key(*name) && ours_to_count(name) && !is_virtual(old, name)
    });
    let made = new.tables.keys().filter(|name| {
        !old.tables.contains_key(*name) && !renamed.values().any(|renamed| renamed == *name) && ours_to_count(name)
    });
    let (statistics, made): (Vec<&String>, Vec<&String>) = made.partition(|name| name.starts_with("sqlite_stat"));
    let count = gone.count() + made.len() + usize::from(!statistics.is_empty());
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Tables that one RENAME may have moved: gone under one name, there under another, alike but for names that changed.
fn renames(old: &Schema<'_>, new: &Schema<'_>) -> BTreeMap<String, String> {
    let is_table = |name: &&String| !name.starts_with(VIEW);
    let gone: Vec<&String> =
        old.tables.keys().filter(is_table).filter(|name| !new.tables.contains_key(*name)).collect();
    let mut fresh: BTreeSet<&String> =
        new.tables.keys().filter(is_table).filter(|name| !old.tables.contains_key(*name)).collect();
    let every: Vec<String> = gone.iter().copied().chain(fresh.iter().copied()).cloned().collect();
    let mut renamed = BTreeMap::new();
    for name in &gone {
        let was = normal(&old.tables[*name].sql, &every);
        let found = fresh.iter().copied().find(|candidate| {
            let now = normal(&new.tables[*candidate].sql, &every);
            let alike = |(a, b): (&String, &String)| a == b || every.contains(a) && every.contains(b);
            was.len() == now.len() && was.iter().zip(&now).all(alike)
        });
        if let Some(found) = found {
            fresh.remove(found);
            renamed.insert((*name).clone(), found.clone());
        }
    }
    renamed
}

/// How many columns ADD COLUMN has appended, if that is all that differs: the old text with one piece put in, which
/// begins with a comma, at the end of the columns.
pub fn appended_columns(before: &str, after: &str, names: &[String]) -> Option<i64> {
    let (was, now) = (normal(before, names), normal(after, names));
    if now.len() <= was.len() {
        return None;
    }
    let mut same = was.iter().zip(&now).take_while(|(a, b)| a == b).count();
    let length = now.len() - was.len();
    // Before a table constraint the piece may seem to begin behind its comma: the comma before the constraint is alike.
    while same > 0 && now.get(same).is_none_or(|token| token != ",") && was[same - 1] == now[same + length - 1] {
        same -= 1;
    }
    let piece = &now[same..same + length];
    if was[same..] != now[same + length..] || piece.first().map(String::as_str) != Some(",") {
        return None;
    }
    let (mut depth, mut columns) = (0_i64, 0);
    for token in piece {
        match token.as_str() {
            "(" => depth += 1,
            ")" => depth -= 1,
            "," if depth == 0 => columns += 1,
            _ => {}
        }
    }
    // A table constraint is no column, and cannot be appended by ALTER TABLE.
    let keywords = ["constraint", "primary", "unique", "check", "foreign"];
    let constraint = piece.get(1).is_some_and(|word| keywords.contains(&word.as_str()));
    (depth == 0 && !constraint).then_some(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::situation;
    use crate::sqlite::{catalog, in_memory};

    const SETUP: &str = "CREATE TABLE t(a INTEGER PRIMARY KEY, b, c UNIQUE); CREATE INDEX ti ON t(b);
        CREATE VIEW v AS SELECT a, b FROM t; CREATE TRIGGER tr AFTER INSERT ON t BEGIN SELECT 1; END;
        CREATE TRIGGER tr2 AFTER DELETE ON t BEGIN SELECT 1; END; CREATE TABLE u(x REFERENCES t(a));
        CREATE TABLE w(y, z); CREATE TRIGGER vi INSTEAD OF INSERT ON v BEGIN SELECT 1; END;";

    /// How far the version moved, and how much of that is explained.
    fn moved_and_seen(script: &str) -> (i64, i64) {
        let connection = in_memory().expect("memory");
        connection.execute_batch(SETUP).expect("setup");
        let look = || {
            let version = catalog::schema_version(&connection).expect("version");
            (version, situation::objects(&connection).expect("objects"))
        };
        let before = look();
        // A statement that fails ends the script; what ran before it counts.
        let _ = connection.execute_batch(script);
        let after = look();
        (after.0 - before.0, statements_seen(&before.1, &after.1))
    }

    #[test]
    fn one_statement_of_each_kind_explains_itself() {
        for script in [
            "CREATE TABLE n(a UNIQUE, b UNIQUE)",
            "CREATE TABLE n(a INTEGER PRIMARY KEY AUTOINCREMENT)",
            "CREATE INDEX i ON t(c)",
            "DROP INDEX ti",
            "CREATE VIEW n AS SELECT 1",
            "DROP VIEW v",
            "CREATE TRIGGER n AFTER UPDATE ON t BEGIN SELECT 1; END",
            "CREATE TRIGGER n INSTEAD OF DELETE ON v BEGIN SELECT 1; END",
            "DROP TRIGGER tr",
            "DROP TRIGGER vi",
            "DROP TABLE u",
            "DROP TABLE w",
            "ALTER TABLE w RENAME TO w2",
            "ALTER TABLE u RENAME TO u2",
            "ALTER TABLE t RENAME COLUMN b TO bb",
            "ALTER TABLE t ADD COLUMN d NOT NULL DEFAULT (5)",
            "ALTER TABLE t ADD COLUMN d DECIMAL(10, 2)",
            "ALTER TABLE w DROP COLUMN z",
            "CREATE VIRTUAL TABLE f USING fts5(x)",
            "ANALYZE",
            "REINDEX",
            "",
        ] {
            let (moved, seen) = moved_and_seen(script);
            assert_eq!(moved, seen, "{script}");
        }
        let (moved, seen) =
            moved_and_seen("ALTER TABLE t ADD COLUMN d; ALTER TABLE t ADD COLUMN e CHECK (e IN (1, 2))");
        assert_eq!((moved, seen), (2, 2));
        assert_eq!(moved_and_seen("DROP VIEW v; CREATE VIEW v AS SELECT 2").0, 2);
        assert_eq!(moved_and_seen("CREATE TABLE n(a, b, c, d); DROP TABLE w; DROP INDEX ti"), (3, 3));
    }

    #[test]
    fn what_leaves_nothing_to_see_is_not_explained() {
        for script in [
            "VACUUM",
            "ALTER TABLE w DROP COLUMN z; ALTER TABLE w ADD COLUMN z",
            "ALTER TABLE w RENAME TO ww; ALTER TABLE ww RENAME TO w",
            "DROP INDEX ti; CREATE INDEX ti ON t(b)",
            "DROP TABLE w; CREATE TABLE w(y, z)",
            "CREATE TABLE n(y, z, k); DROP TABLE w; ALTER TABLE n RENAME TO w",
            "ALTER TABLE w DROP COLUMN z; ALTER TABLE w ADD COLUMN z; CREATE INDEX i ON t(c)",
            "ALTER TABLE w DROP COLUMN z; ALTER TABLE w ADD COLUMN z; ALTER TABLE t RENAME COLUMN b TO bb",
            "DROP TRIGGER tr; DROP TABLE u; ALTER TABLE w DROP COLUMN z; ALTER TABLE w ADD COLUMN z",
        ] {
            let (moved, seen) = moved_and_seen(script);
            assert!(moved > seen, "{script}: moved {moved}, explained {seen}");
        }
    }

    /// The differences never claim more statements than made them, or a hidden one would slip in beside them.
    #[test]
    fn no_more_statements_are_seen_than_were_run() {
        let pieces = [
            "DROP TABLE IF EXISTS u;",
            "CREATE TABLE IF NOT EXISTS n(y, z);",
            "DROP TABLE IF EXISTS w; CREATE TABLE w(y, z, q);",
            "DROP VIEW IF EXISTS v; CREATE VIEW v AS SELECT 7;",
            "DROP TABLE IF EXISTS t; CREATE TABLE t(a INTEGER PRIMARY KEY, b, c UNIQUE);",
            "CREATE INDEX IF NOT EXISTS wi ON w(y);",
            "DROP INDEX IF EXISTS ti;",
            "CREATE TABLE IF NOT EXISTS t2 AS SELECT * FROM w; DROP TABLE w; ALTER TABLE t2 RENAME TO w;",
            "DROP TRIGGER IF EXISTS tr;",
            "ALTER TABLE w ADD COLUMN extra;",
            "ALTER TABLE t RENAME TO moved; CREATE TABLE t(p, q);",
            "ALTER TABLE u RENAME TO moved_u; ALTER TABLE moved_u ADD COLUMN r;",
        ];
        for first in pieces {
            for second in pieces {
                for third in pieces {
                    let script = format!("PRAGMA legacy_alter_table = ON; {first} {second}");
                    let script = if first == third || second == third { script } else { format!("{script} {third}") };
                    let (moved, seen) = moved_and_seen(&script);
                    assert!(moved >= seen, "{script}: moved {moved}, explained {seen}");
                }
            }
        }
    }
}
