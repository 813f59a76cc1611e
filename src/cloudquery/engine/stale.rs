//! Which tables' stale rows go after a sync: those of every table that was said to be there, but for
//!
//! * incremental tables and the tables below them, where a state backend keeps how far they came: what they did not send
//!   this time is still true;
//! * tables that the source could not read, and the tables below them: what it did not send nobody knows. The `cloudquery`
//!   CLI deletes those rows.

use std::collections::{HashMap, HashSet};

use arrow::datatypes::Schema;

use crate::cloudquery::Table;

/// The tables of one sync.
#[derive(Debug, Default)]
pub(super) struct Stale {
    /// In the order of their first appearance.
    order: Vec<String>,
    tables: HashMap<String, Known>,
    failed: HashSet<String>,
}

#[derive(Debug)]
struct Known {
    parent: Option<String>,
    incremental: bool,
}

impl Stale {
    /// A table is there.
    pub(super) fn table(&mut self, schema: &Schema) {
        // Without a name it would have been refused before.
        let Ok(table) = Table::from_schema(schema) else { return };
        let known = Known { parent: table.parent().map(str::to_owned), incremental: table.incremental() };
        if self.tables.insert(table.name.clone(), known).is_none() {
            self.order.push(table.name);
        }
    }

    /// A table could not be read.
    pub(super) fn failed(&mut self, table: &str) {
        self.failed.insert(table.to_owned());
    }

    /// The tables whose stale rows are to go.
    pub(super) fn tables(&self, with_backend: bool) -> Vec<&str> {
        self.order.iter().map(String::as_str).filter(|table| !self.kept(table, with_backend)).collect()
    }

    /// The tables whose stale rows stay because the source could not read them.
    pub(super) fn kept_for_failures(&self) -> Vec<&str> {
        let failed = |table: &&str| self.above(table).any(|(name, _)| self.failed.contains(name));
        self.order.iter().map(String::as_str).filter(failed).collect()
    }

    fn kept(&self, table: &str, with_backend: bool) -> bool {
        self.above(table).any(|(name, known)| self.failed.contains(name) || (with_backend && known.incremental))
    }

    /// A table, its parent, and so on; no more often than there are tables, whatever a source says of parents.
    fn above<'a>(&'a self, table: &str) -> impl Iterator<Item = (&'a String, &'a Known)> {
        let step = |(_, known): &(&'a String, &'a Known)| self.tables.get_key_value(known.parent.as_deref()?);
        std::iter::successors(self.tables.get_key_value(table), step).take(self.tables.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloudquery::table::schema_keys;

    fn sync() -> Stale {
        let mut stale = Stale::default();
        for (name, parent, incremental) in [
            ("a", "", "false"),
            ("a_child", "a", ""),
            ("log", "", "true"),
            ("log_line", "log", ""),
            ("log_word", "log_line", "false"),
            ("a", "", "false"),
            ("loop1", "loop2", ""),
            ("loop2", "loop1", ""),
        ] {
            let mut table = Table::new(name, Vec::new());
            table.metadata.insert(schema_keys::DEPENDS_ON, parent);
            table.metadata.insert(schema_keys::INCREMENTAL, incremental);
            stale.table(&table.to_schema());
        }
        stale
    }

    #[test]
    fn incremental_tables_keep_their_rows_where_a_state_is_kept() {
        let all = ["a", "a_child", "log", "log_line", "log_word", "loop1", "loop2"];
        assert_eq!(sync().tables(false), all);
        assert_eq!(sync().tables(true), ["a", "a_child", "loop1", "loop2"]);
    }

    #[test]
    fn tables_that_could_not_be_read_keep_their_rows() {
        let mut stale = sync();
        stale.failed("log_line");
        stale.failed("unknown");
        assert_eq!(stale.tables(false), ["a", "a_child", "log", "loop1", "loop2"]);
        assert_eq!(stale.kept_for_failures(), ["log_line", "log_word"]);
    }
}
