//! What entries are read with: the generations of every captured table, and the tables as they are now.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rusqlite::Connection;

use super::entries::Layout;
use super::in_read;
use super::touches::Touches;
use crate::capture::image_sql::logged_rowid;
use crate::capture::read_error::Error;
use crate::capture::{Images, change_log, generation};
use crate::model::{Collation, Epoch, EventTable, Key, KeyShape, NormalKey, Selection, TableId, TableSchema, Value};
use crate::sqlite::generations::Generations;
use crate::sqlite::range_sql::compare;
use crate::sqlite::row_sql::KeyQuery;
use crate::sqlite::{self, Bind, borrowed, catalog, ident, store, value_of};

/// What a consumer's reader knows from one call to the next. Begin with the default.
#[derive(Default)]
pub struct EventCatalog {
    read_at: Option<(Epoch, i64)>,
    pub(super) log: String,
    pub(super) layout: Layout,
    generations: HashMap<TableId, Known>,
    lines: BTreeMap<TableId, Line>,
    pub(super) touches: Touches,
}

/// One generation.
#[derive(Clone)]
pub(super) struct Known {
    /// The table as it was.
    pub table: Arc<EventTable>,
    /// What its entries carry.
    pub images: Images,
    /// Columns of its key.
    pub keys: usize,
    /// The table as it is now, where entries of this generation can be read by its key.
    pub line: Option<TableId>,
    /// The table that it has become, whatever its key.
    pub newest: Option<TableId>,
}

/// A captured table as it is now.
pub(super) struct Line {
    /// Its columns, as images have them.
    imaged: Arc<EventTable>,
    /// The same and the rowid before them, where that is the key: who has no image has nothing else to know a row by.
    pub keyed: Arc<EventTable>,
    /// The columns of its key alone.
    pub key_alone: Arc<EventTable>,
    /// What its newest generation's entries carry.
    images: Images,
    pub schema: TableSchema,
    collations: Vec<Collation>,
    /// Reads [`TableSchema::all_columns`].
    pub by_key: KeyQuery,
    /// Finds a row by its rowid and then its key, where that is logged.
    pub by_rowid: Option<String>,
}

impl Line {
    fn new(schema: TableSchema) -> Self {
        let of = |columns: Vec<&str>| {
            let columns = columns.into_iter().map(str::to_owned).collect();
            Arc::new(EventTable { name: schema.name.clone(), columns })
        };
        let imaged = of(schema.columns.iter().map(|column| column.name.as_str()).collect());
        let keyed = if is_rowid(&schema) { of(schema.all_columns()) } else { Arc::clone(&imaged) };
        let key_alone = of(schema.key_columns().into_iter().map(|(name, _)| name).collect());
        let (collations, by_key) = (schema.key_collations(), KeyQuery::of_all(&schema));
        let by_rowid = logged_rowid(&schema).map(|rowid| by_rowid_sql(&schema, rowid));
        Self { imaged, keyed, key_alone, images: Images::Key, schema, collations, by_key, by_rowid }
    }

    /// The table as rows of it are given to who begins: in the form in which its entries will tell of them.
    pub fn table(&self) -> &Arc<EventTable> {
        match self.images {
            Images::Key => &self.keyed,
            Images::Full => &self.imaged,
        }
    }

    /// How many cells of [`TableSchema::all_columns`] come before those of [`Self::table`].
    pub fn cells_before(&self) -> usize {
        self.schema.all_columns().len() - self.table().columns.len()
    }

    /// The rows that are this key: one at most, unless there is a NULL in it. Cells are those of [`Self::keyed`].
    pub fn rows_now(&self, connection: &Connection, key: &Key) -> Result<Vec<Vec<Value>>, Error> {
        let mut rows = Vec::new();
        self.by_key.prepare(connection)?.each(key, |row| {
            rows.push(row.values().map(value_of).collect());
            Ok::<_, Error>(())
        })?;
        Ok(rows)
    }

    /// The key of such a row, in the row's own spelling.
    pub fn key_of(&self, row: &[Value]) -> Key {
        Key(self.schema.key_in_all().into_iter().map(|place| row[place].clone()).collect())
    }

    pub fn normal(&self, key: &Key) -> NormalKey {
        key.normal(&self.collations)
    }

    /// Whether the row is there that is told from others by this key, and this rowid where one is logged.
    pub fn has_row(&self, connection: &Connection, key: &Key, rowid: Option<i64>) -> Result<bool, Error> {
        if let (Some(sql), Some(rowid)) = (&self.by_rowid, rowid) {
            let mut statement = connection.prepare_cached(sql)?;
            statement.raw_bind_parameter(1, rowid)?;
            for (place, value) in key.0.iter().enumerate() {
                statement.raw_bind_parameter(place + 2, Bind(value))?;
            }
            return Ok(statement.raw_query().next()?.is_some());
        }
        let mut there = false;
        self.by_key.prepare(connection)?.each(key, |_| {
            there = true;
            Ok::<_, Error>(())
        })?;
        Ok(there)
    }
}

fn is_rowid(table: &TableSchema) -> bool {
    matches!(table.key, KeyShape::Rowid { .. })
}

fn by_rowid_sql(table: &TableSchema, rowid: &str) -> String {
    let keys = table.key_columns().into_iter().enumerate().map(|(place, (name, collation))| {
        format!(" AND {} IS ?{} COLLATE {}", ident(name), place + 2, collation.sql())
    });
    format!("SELECT 1 FROM main.{} WHERE {rowid} = ?1{}", ident(&table.name), keys.collect::<String>())
}

/// A table that can be read by [`super::read_rows`].
#[derive(Clone, Debug, PartialEq)]
pub struct CapturedTable {
    /// Its newest generation.
    pub id: TableId,
    /// Its name and columns.
    pub table: Arc<EventTable>,
}

impl EventCatalog {
    /// The captured tables of a selection, by name.
    ///
    /// # Errors
    /// [`Error::NotCaptured`], or SQLite's.
    pub fn tables(&mut self, connection: &Connection, selection: &Selection) -> Result<Vec<CapturedTable>, Error> {
        in_read(connection, || self.refresh(connection).map(drop))?;
        let tables = self.lines.iter().filter(|(_, line)| selection.has(&line.schema.name));
        let mut tables: Vec<CapturedTable> =
            tables.map(|(id, line)| CapturedTable { id: *id, table: Arc::clone(line.table()) }).collect();
        tables.sort_by(|a, b| a.table.name.cmp(&b.table.name));
        Ok(tables)
    }

    /// How two keys of a table are ordered by [`super::read_rows`]; `None` where the table is not there.
    pub fn compare(&self, table: TableId, a: &Key, b: &Key) -> Option<Ordering> {
        let line = self.lines.get(&table)?;
        let parts = a.0.iter().zip(&b.0).zip(&line.collations);
        let mut orders = parts.map(|((a, b), collation)| compare(borrowed(a), borrowed(b), *collation));
        Some(orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal))
    }

    pub(super) fn known(&self, generation: TableId) -> Option<&Known> {
        self.generations.get(&generation)
    }

    pub(super) fn line(&self, id: TableId) -> Option<&Line> {
        self.lines.get(&id)
    }

    /// Brings it up to the schema of the caller's read transaction; `false` where that is not the one that the triggers
    /// were last compared with, so that nothing can be read.
    pub(super) fn refresh(&mut self, connection: &Connection) -> Result<bool, Error> {
        if !store::exists(connection)? {
            return Err(Error::NotCaptured);
        }
        let epoch = store::epoch(connection)?.ok_or(Error::NotCaptured)?;
        let version = catalog::schema_version(connection)?;
        if store::meta(connection, store::meta_key::SCHEMA_VERSION)? != Some(version) {
            return Ok(false);
        }
        if self.read_at == Some((epoch, version)) {
            return Ok(true);
        }
        let log = store::log_table(connection)?;
        let name: String = store::meta(connection, store::meta_key::LOG_TABLE)?.ok_or(Error::NotCaptured)?;
        let width = change_log::width(connection, &name)?.ok_or(Error::NotCaptured)?;
        let layout = Layout { keys: width.keys, values: width.values };
        let mut fresh = Self { log, layout, ..Self::default() };
        fresh.read(connection)?;
        fresh.read_at = Some((epoch, version));
        *self = fresh;
        Ok(true)
    }

    fn read(&mut self, connection: &Connection) -> Result<(), Error> {
        let lines = Generations::read(connection)?;
        for (id, newest) in &lines.newest {
            let Some(schema) = catalog::table(connection, &newest.name)? else { continue };
            self.lines.insert(*id, Line::new(schema));
        }
        let images = generation::images_column(connection)?;
        let sql = format!("SELECT id, name, columns, key, {images} FROM main.__cdc_tables ORDER BY id");
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id = TableId(row.get(0)?);
            let list = |place: usize| -> Result<Vec<String>, Error> {
                let damaged = |_| sqlite::Error::Damaged {
                    table: "__cdc_tables",
                    what: format!("generation {} has no list of columns", id.0),
                };
                Ok(serde_json::from_str(&row.get::<_, String>(place)?).map_err(damaged)?)
            };
            let images = Images::by_word(&row.get::<_, String>(4)?).unwrap_or(Images::Key);
            if let Some(line) = self.lines.get_mut(&id) {
                line.images = images;
            }
            let there = |id: &TableId| self.lines.contains_key(id);
            let known = Known {
                table: Arc::new(EventTable { name: row.get(1)?, columns: list(2)? }),
                images,
                keys: list(3)?.len(),
                line: lines.readable.get(&id).copied().filter(there),
                newest: lines.became.get(&id).copied().filter(there),
            };
            self.generations.insert(id, known);
        }
        Ok(())
    }
}
