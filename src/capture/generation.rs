//! Rows of `__cdc_tables`: each captured table, generation by generation.
//!
//! A table gets a new generation, with a new id, whenever its definition, its key or its unique indexes change, so that
//! an entry of the log is read with what it was written under. Rows are never deleted; the newest of a line is the one
//! that no other replaces.

use std::collections::HashMap;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::{Error, Images};
use crate::model::{IndexOrigin, Selection, TableId, TableSchema};
use crate::sqlite::{ident, store};

/// An index as a generation remembers it: those made by CREATE INDEX, for the others are in the table's own DDL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IndexNote {
    /// Its name.
    pub name: String,
    /// Whether it is unique.
    pub unique: bool,
    /// Its CREATE INDEX.
    pub sql: String,
}

/// One generation of a captured table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Its id, which trigger bodies and log entries carry.
    pub id: TableId,
    /// The ids that the table had before, newest first.
    pub ancestors: Vec<TableId>,
    /// The table's name.
    pub schema_name: String,
    /// The key's columns, in the key's order; the rowid under the name that it can be read by.
    pub key_columns: Vec<String>,
    /// All columns in declared order, generated ones too.
    pub columns: Vec<String>,
    /// Its CREATE TABLE.
    pub ddl: String,
    /// Its indexes, by name.
    pub indexes: Vec<IndexNote>,
    /// What its entries carry.
    pub images: Images,
}

impl Generation {
    /// A table as it is now, under that id.
    pub(super) fn of(table: &TableSchema, id: TableId, ancestors: Vec<TableId>, images: Images) -> Self {
        let strings = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        Self {
            id,
            ancestors,
            schema_name: table.name.clone(),
            key_columns: strings(table.key_columns().into_iter().map(|(name, _)| name).collect()),
            columns: strings(table.columns.iter().map(|column| column.name.as_str()).collect()),
            ddl: table.ddl.clone(),
            indexes: index_notes(table),
            images,
        }
    }

    /// Writes it down.
    pub(super) fn insert(&self, connection: &Connection) -> Result<(), Error> {
        connection
            .prepare_cached(
                "INSERT INTO main.__cdc_tables(id, name, replaces, columns, key, ddl, indexes, images)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute((
                self.id.0,
                &self.schema_name,
                self.ancestors.first().map(|id| id.0),
                serde_json::to_string(&self.columns)?,
                serde_json::to_string(&self.key_columns)?,
                &self.ddl,
                serde_json::to_string(&self.indexes)?,
                self.images.word(),
            ))?;
        Ok(())
    }
}

/// A table's indexes as a generation remembers them.
pub(super) fn index_notes(table: &TableSchema) -> Vec<IndexNote> {
    let created = table.indexes.iter().filter(|index| index.origin == IndexOrigin::Created);
    let note = |index: &crate::model::Index| IndexNote {
        name: index.name.clone(),
        unique: index.unique,
        sql: index.sql.clone().unwrap_or_default(),
    };
    created.map(note).collect()
}

/// Whether any captured table of these holds a row.
///
/// # Errors
/// As [`tables`].
pub fn holds_rows(connection: &Connection, selection: &Selection) -> Result<bool, Error> {
    for table in tables(connection)?.iter().filter(|table| selection.has(&table.schema_name)) {
        if connection.prepare(&format!("SELECT 1 FROM main.{}", ident(&table.schema_name)))?.exists([])? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The newest generation of each captured table, by name.
///
/// # Errors
/// [`Error::NotInstalled`], or SQLite's.
pub fn tables(connection: &Connection) -> Result<Vec<Generation>, Error> {
    if !store::table_exists(connection, "__cdc_tables")? {
        return Err(Error::NotInstalled);
    }
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, name, replaces, columns, key, ddl, indexes, dropped, {} FROM main.__cdc_tables ORDER BY id",
        images_column(connection)?
    ))?;
    let mut rows = statement.query([])?;
    let (mut parents, mut newest) = (HashMap::new(), HashMap::new());
    while let Some(row) = rows.next()? {
        let (id, replaces): (i64, Option<i64>) = (row.get(0)?, row.get(2)?);
        if let Some(replaced) = replaces {
            newest.remove(&replaced);
            parents.insert(id, replaced);
        }
        let generation = Generation {
            id: TableId(id),
            ancestors: Vec::new(),
            schema_name: row.get(1)?,
            columns: serde_json::from_str(&row.get::<_, String>(3)?)?,
            key_columns: serde_json::from_str(&row.get::<_, String>(4)?)?,
            ddl: row.get(5)?,
            indexes: serde_json::from_str(&row.get::<_, String>(6)?)?,
            images: Images::by_word(&row.get::<_, String>(8)?).unwrap_or(Images::Key),
        };
        if !row.get::<_, bool>(7)? {
            newest.insert(id, generation);
        }
    }
    let mut live: Vec<Generation> = newest.into_values().collect();
    for generation in &mut live {
        let mut id = generation.id.0;
        while let Some(parent) = parents.get(&id) {
            generation.ancestors.push(TableId(*parent));
            id = *parent;
        }
    }
    live.sort_by(|a, b| a.schema_name.cmp(&b.schema_name));
    Ok(live)
}

/// Makes room for [`Generation::images`] where an earlier Twinlite made the table: what it captured were keys.
pub(super) fn ensure_images(connection: &Connection) -> Result<(), Error> {
    if !has_images(connection)? {
        connection.execute_batch("ALTER TABLE main.__cdc_tables ADD COLUMN images TEXT NOT NULL DEFAULT 'key'")?;
    }
    Ok(())
}

fn has_images(connection: &Connection) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM pragma_table_info('__cdc_tables') WHERE name = 'images'")?.exists([])
}

/// How the mode of a generation's images is read: it is `key` in a table that has no column for it.
pub(super) fn images_column(connection: &Connection) -> rusqlite::Result<&'static str> {
    Ok(if has_images(connection)? { "images" } else { "'key'" })
}

/// The id that the next generation gets.
pub(super) fn next_id(connection: &Connection) -> Result<i64, Error> {
    if !store::table_exists(connection, "__cdc_tables")? {
        return Ok(1);
    }
    Ok(connection.query_row("SELECT coalesce(max(id), 0) + 1 FROM main.__cdc_tables", [], |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{catalog, in_memory};

    #[test]
    fn the_newest_of_each_line_is_a_table_and_knows_its_ancestors() {
        let connection = in_memory().expect("memory");
        connection.execute_batch(store::CAPTURE_TABLES).expect("tables");
        connection.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b AS (a + 1))").expect("ddl");
        let table = catalog::table(&connection, "t").expect("catalog").expect("table");
        for (id, ancestors) in [(1, vec![]), (2, vec![1]), (3, vec![]), (4, vec![2, 1])] {
            let ancestors = ancestors.into_iter().map(TableId).collect();
            Generation::of(&table, TableId(id), ancestors, Images::Key).insert(&connection).expect("insert");
        }
        connection.execute("UPDATE __cdc_tables SET dropped = 1 WHERE id = 3", []).expect("update");
        let live = tables(&connection).expect("tables");
        assert_eq!(live, [Generation::of(&table, TableId(4), vec![TableId(2), TableId(1)], Images::Key)]);
        assert_eq!(live[0].columns, ["id", "a", "b"]);
        assert_eq!(next_id(&connection).expect("id"), 5);
    }
}
