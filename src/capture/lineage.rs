//! Which table continues which generation, and what became of its definition. Pure.
//!
//! A table is recognised by the ids of the triggers that stand on it, for they move with a rename; where they are gone,
//! by its name.

use std::collections::{BTreeMap, BTreeSet};

use super::accounting::appended_columns;
use super::generation::{Generation, IndexNote, index_notes};
use super::index_sql::normal;
use super::situation::Situation;
use super::trigger_sql::table_of_trigger;
use crate::model::{TableId, TableSchema};

/// For each wanted table, the generation that it continues.
pub(super) fn continued(situation: &Situation) -> Vec<Option<&Generation>> {
    let known: BTreeMap<TableId, &Generation> =
        situation.generations.iter().map(|generation| (generation.id, generation)).collect();
    let mut standing: BTreeMap<String, BTreeSet<TableId>> = BTreeMap::new();
    for object in situation.objects.iter().filter(|object| object.kind == "trigger") {
        if let Some(id) = table_of_trigger(&object.name).filter(|id| known.contains_key(id)) {
            standing.entry(object.table.to_ascii_lowercase()).or_default().insert(id);
        }
    }
    let mut taken = BTreeSet::new();
    let mut lines: Vec<Option<&Generation>> = Vec::new();
    for table in &situation.wanted {
        let ids = standing.get(&table.name.to_ascii_lowercase());
        let candidates: Vec<&Generation> = ids.into_iter().flatten().filter_map(|id| known.get(id).copied()).collect();
        let same_name = candidates.iter().find(|known| known.schema_name.eq_ignore_ascii_case(&table.name));
        let chosen = same_name.or(candidates.last()).copied();
        taken.extend(chosen.map(|generation| generation.id));
        lines.push(chosen);
    }
    let on_some_table: BTreeSet<TableId> = standing.values().flatten().copied().collect();
    for (line, table) in lines.iter_mut().zip(&situation.wanted).filter(|(line, _)| line.is_none()) {
        let by_name = situation.generations.iter().find(|generation| {
            let free = !taken.contains(&generation.id) && !on_some_table.contains(&generation.id);
            free && generation.schema_name.eq_ignore_ascii_case(&table.name)
        });
        taken.extend(by_name.map(|generation| generation.id));
        *line = by_name;
    }
    lines
}

/// How a table's definition differs from its newest generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Not at all, or only in layout.
    None,
    /// A non-unique index came, went, or changed.
    PlainIndexes,
    /// Only its name.
    Renamed,
    /// Columns were appended, these; its name may differ too.
    Appended(Vec<String>),
    /// Columns have other names and are the same otherwise; its name may differ too.
    ColumnsRenamed,
    /// Only unique indexes differ, these words say how.
    UniqueIndexes,
    /// Anything else.
    Other,
}

impl Change {
    /// Whether entries must be read under another id from here on.
    pub fn is_new_generation(&self) -> bool {
        match self {
            Self::None | Self::PlainIndexes => false,
            Self::Renamed | Self::Appended(_) | Self::ColumnsRenamed | Self::UniqueIndexes | Self::Other => true,
        }
    }
}

/// Compares a table with its newest generation, DDL and index list whole.
pub(super) fn change(known: &Generation, table: &TableSchema) -> Change {
    let mut names: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
    names.extend(known.columns.iter().cloned());
    names.extend([table.name.clone(), known.schema_name.clone()]);
    let notes = index_notes(table);
    names.extend(notes.iter().chain(&known.indexes).map(|index| index.name.clone()));
    let compare = Compare { known, table, names: &names };
    let (same_unique, same_plain) = (compare.same_indexes(&notes, true), compare.same_indexes(&notes, false));
    let renamed = !known.schema_name.eq_ignore_ascii_case(&table.name);
    let (was, now) = (compare.known_ddl(&known.ddl), normal(&table.ddl, &names));
    if was == now {
        return match (same_unique, renamed, same_plain) {
            (false, _, _) => Change::UniqueIndexes,
            (true, true, _) => Change::Renamed,
            (true, false, false) => Change::PlainIndexes,
            (true, false, true) => Change::None,
        };
    }
    if let Some(appended) = compare.appended().filter(|_| same_unique) {
        return Change::Appended(appended);
    }
    if compare.columns_renamed(&was, &now, &notes) { Change::ColumnsRenamed } else { Change::Other }
}

struct Compare<'a> {
    known: &'a Generation,
    table: &'a TableSchema,
    names: &'a [String],
}

impl Compare<'_> {
    /// SQL of the known generation, as it reads once the table has its present name.
    fn known_ddl(&self, sql: &str) -> Vec<String> {
        renamed_tokens(sql, self.names, &self.known.schema_name, &self.table.name)
    }

    fn same_indexes(&self, notes: &[IndexNote], unique: bool) -> bool {
        let of = |index: &&IndexNote| index.unique == unique;
        let mut was: Vec<Vec<String>> =
            self.known.indexes.iter().filter(of).map(|index| self.known_ddl(&index.sql)).collect();
        let mut now: Vec<Vec<String>> = notes.iter().filter(of).map(|index| normal(&index.sql, self.names)).collect();
        was.sort();
        now.sort();
        was == now
    }

    fn appended(&self) -> Option<Vec<String>> {
        let was = &self.known.columns;
        let now: Vec<&str> = self.table.columns.iter().map(|column| column.name.as_str()).collect();
        let prefix = was.len() < now.len() && was.iter().zip(&now).all(|(a, b)| a.eq_ignore_ascii_case(b));
        let known_ddl = self.known_ddl(&self.known.ddl).join(" ");
        let columns = appended_columns(&known_ddl, &normal(&self.table.ddl, self.names).join(" "), self.names)?;
        let fits = prefix && usize::try_from(columns).ok() == Some(now.len() - was.len());
        fits.then(|| now[was.len()..].iter().map(|name| (*name).to_owned()).collect())
    }

    /// Whether the definitions are alike but for the names of columns, place by place, and the unique indexes too.
    fn columns_renamed(&self, was: &[String], now: &[String], notes: &[IndexNote]) -> bool {
        let lower = |name: &str| name.to_ascii_lowercase();
        let pairs: Vec<(String, String)> = self
            .known
            .columns
            .iter()
            .zip(&self.table.columns)
            .map(|(old, new)| (lower(old), lower(&new.name)))
            .collect();
        let alike = |(a, b): (&String, &String)| a == b || pairs.iter().any(|(old, new)| old == a && new == b);
        let all_alike = |was: &[String], now: &[String]| was.len() == now.len() && was.iter().zip(now).all(alike);
        let unique = |notes: &[IndexNote]| notes.iter().filter(|index| index.unique).count();
        let same_index = |known: &IndexNote| {
            let now = notes.iter().find(|index| index.name.eq_ignore_ascii_case(&known.name));
            now.is_some_and(|now| all_alike(&self.known_ddl(&known.sql), &normal(&now.sql, self.names)))
        };
        self.known.columns.len() == self.table.columns.len()
            && all_alike(was, now)
            && unique(&self.known.indexes) == unique(notes)
            && self.known.indexes.iter().filter(|index| index.unique).all(same_index)
    }
}

/// The tokens of SQL, with a table's old name replaced by its new one.
pub(super) fn renamed_tokens(sql: &str, names: &[String], old: &str, new: &str) -> Vec<String> {
    let (old, new) = (old.to_ascii_lowercase(), new.to_ascii_lowercase());
    let mut all = normal(sql, names);
    if old != new {
        // Not a column of that name: a table's name stands alone, after these words.
        for place in 1..all.len() {
            let before = all[place - 1].as_str();
            if all[place] == old && matches!(before, "table" | "on" | "references" | "from" | "exists") {
                all[place].clone_from(&new);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Images;
    use crate::sqlite::{catalog, in_memory};

    fn after(script: &str) -> Change {
        let connection = in_memory().expect("memory");
        connection
            .execute_batch(
                "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b, CHECK (a <> 'x')); CREATE INDEX i ON t(a);
                CREATE UNIQUE INDEX ub ON t(b) WHERE a = \"Q\"",
            )
            .expect("ddl");
        let table = catalog::table(&connection, "t").expect("catalog").expect("table");
        let known = Generation::of(&table, TableId(1), Vec::new(), Images::Key);
        connection.execute_batch(script).expect(script);
        let name = if script.contains("RENAME TO") { "t2" } else { "t" };
        change(&known, &catalog::table(&connection, name).expect("catalog").expect("table"))
    }

    #[test]
    fn every_kind_of_change_is_told_apart() {
        let appended = |names: &[&str]| Change::Appended(names.iter().map(|name| (*name).to_owned()).collect());
        for (script, expected) in [
            ("", Change::None),
            ("DROP INDEX i", Change::PlainIndexes),
            ("CREATE INDEX j ON t(a, b)", Change::PlainIndexes),
            ("ALTER TABLE t RENAME TO t2", Change::Renamed),
            ("ALTER TABLE t ADD COLUMN c INT DEFAULT 5", appended(&["c"])),
            ("ALTER TABLE t ADD COLUMN c CHECK (c IN (1, 2)); ALTER TABLE t ADD COLUMN d", appended(&["c", "d"])),
            ("ALTER TABLE t ADD COLUMN c; ALTER TABLE t RENAME TO t2", appended(&["c"])),
            ("ALTER TABLE t RENAME COLUMN a TO c", Change::ColumnsRenamed),
            ("ALTER TABLE t RENAME COLUMN a TO A", Change::None),
            ("CREATE UNIQUE INDEX u ON t(a)", Change::UniqueIndexes),
            ("DROP INDEX ub", Change::UniqueIndexes),
            ("DROP INDEX ub; CREATE UNIQUE INDEX ub ON t(b) WHERE a = \"q\"", Change::UniqueIndexes),
            ("DROP TABLE t; CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT)", Change::Other),
            ("DROP INDEX ub; ALTER TABLE t DROP COLUMN b", Change::Other),
        ] {
            assert_eq!(after(script), expected, "{script}");
        }
    }
}
