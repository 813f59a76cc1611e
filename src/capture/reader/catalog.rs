//! Says what a link's tables are: the catalog that stands at the beginning of a session, and again where it changed.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension};

use super::captured::{Captured, Table};
use super::objects::Object;
use crate::capture::read_error::Error;
use crate::capture::source::{CatalogTable, ReadRequest, Sink};
use crate::codec;
use crate::model::{
    IndexOrigin, KeyShape, ObjectKind, SchemaKinds, SchemaObject, TableDef, TableId, TableSchema, WindowItem,
};
use crate::sqlite::{ident, store};

/// Rows that are counted at most to say how many a table has; a page or a few of most tables.
const COUNTED_MAX: u64 = 1_000;

/// Bytes that a row takes at least, by which a rowid that jumped ahead does not make a small file's table huge.
const ROW_BYTES_MIN: u64 = 8;

/// Gives the sink the whole catalog of the link, and says which tables are in it, and which views and triggers are not
/// although they are wanted.
pub(super) fn emit(
    connection: &Connection,
    captured: &Captured,
    request: &ReadRequest,
    sink: &mut Sink<'_>,
) -> Result<(Vec<CatalogTable>, Vec<String>), Error> {
    sink(WindowItem::Catalog).map_err(Error::Spool)?;
    let mut tables = Vec::new();
    for table in captured.tables().filter(|table| request.selection.has(table.name())) {
        let rows_estimate = rows_estimate(connection, &table.schema)?;
        let (id, ancestors, name) = (table.id, table.ancestors.clone(), table.name().to_owned());
        sink(WindowItem::Table(definition(table, request.kinds, rows_estimate))).map_err(Error::Spool)?;
        let is_alike = |ancestor: &&TableId| captured.readable_as(**ancestor).is_some();
        let keyed_alike = ancestors.iter().filter(is_alike).copied().collect();
        tables.push(CatalogTable { id, ancestors, name, rows_estimate, keyed_alike });
    }
    let carried = tables.iter().map(|table| table.name.to_ascii_lowercase()).collect();
    let (travelling, held_back) = travelling(captured, request.kinds, carried);
    for object in travelling {
        sink(WindowItem::Object(object.object.clone())).map_err(Error::Spool)?;
    }
    let named = |object: &Object| format!("{} {:?}", object.object.kind.sql(), object.object.name);
    Ok((tables, held_back.into_iter().map(named).collect()))
}

fn definition(table: &Table, kinds: SchemaKinds, rows_estimate: u64) -> TableDef {
    let schema = &table.schema;
    let created = schema.indexes.iter().filter(|index| index.origin == IndexOrigin::Created);
    let indexes = created.filter(|index| index.unique || kinds.indexes).filter_map(|index| {
        let (name, table, sql) = (index.name.clone(), schema.name.clone(), index.sql.clone()?);
        Some(SchemaObject { kind: ObjectKind::Index, name, table, sql })
    });
    TableDef {
        id: table.id,
        ancestors: table.ancestors.clone(),
        name: schema.name.clone(),
        ddl: schema.ddl.clone(),
        indexes: indexes.collect(),
        arrow_schema: codec::arrow_schema(schema),
        rows_estimate,
    }
}

/// The views and triggers that have all they need at the other side: what the link carries, and what is no table of
/// this database (SQLite's own tables and table-valued functions). And those that have not.
fn travelling(captured: &Captured, kinds: SchemaKinds, mut carried: BTreeSet<String>) -> (Vec<&Object>, Vec<&Object>) {
    let is_wanted = |object: &Object| match object.object.kind {
        ObjectKind::View => kinds.views,
        ObjectKind::Trigger => kinds.triggers,
        ObjectKind::Index => false,
    };
    let mut waiting: Vec<&Object> = captured.objects.iter().filter(|object| is_wanted(object)).collect();
    let mut chosen: Vec<&Object> = Vec::new();
    // A view may need a younger one, so those that are left are looked at again as long as that finds any.
    loop {
        let (ready, rest): (Vec<&Object>, Vec<&Object>) = waiting.into_iter().partition(|object| {
            let own = object.object.name.to_ascii_lowercase();
            let is_view = object.object.kind == ObjectKind::View;
            let there = |name: &String| carried.contains(name) || (is_view && *name == own) || !captured.has(name);
            !object.names_ours && object.needs.iter().all(there)
        });
        waiting = rest;
        if ready.is_empty() {
            break;
        }
        let views = ready.iter().filter(|object| object.object.kind == ObjectKind::View);
        carried.extend(views.map(|object| object.object.name.to_ascii_lowercase()));
        chosen.extend(ready);
    }
    chosen.sort_by_key(|object| object.object.kind == ObjectKind::Trigger);
    (chosen, waiting)
}

/// How many rows a table has, roughly, without reading it: exact for small ones, then what ANALYZE found, then the
/// rowids' span; where there is nothing of that, only that it is not small.
fn rows_estimate(connection: &Connection, table: &TableSchema) -> Result<u64, Error> {
    let name = ident(&table.name);
    let sql = format!("SELECT count(*) FROM (SELECT 1 FROM main.{name} LIMIT {COUNTED_MAX})");
    let counted = unsigned(connection.query_row(&sql, [], |row| row.get(0))?);
    if counted < COUNTED_MAX {
        return Ok(counted);
    }
    if let Some(analyzed) = analyzed(connection, &table.name)? {
        return Ok(analyzed.max(counted));
    }
    let rowid = match &table.key {
        KeyShape::Rowid { name } => (*name).to_owned(),
        KeyShape::RowidAlias { column } => ident(&table.columns[*column].name),
        KeyShape::Columns { .. } | KeyShape::None => return Ok(counted),
    };
    let sql = format!("SELECT (SELECT max({rowid}) FROM main.{name}), (SELECT min({rowid}) FROM main.{name})");
    let (last, first): (i64, i64) = connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let span = last.abs_diff(first).saturating_add(1);
    Ok(span.min(rows_fitting(connection)?).max(counted))
}

fn analyzed(connection: &Connection, table: &str) -> rusqlite::Result<Option<u64>> {
    if !store::table_exists(connection, "sqlite_stat1")? {
        return Ok(None);
    }
    // The first number of `stat` is the index's rows; a partial index has fewer than its table.
    let sql = "SELECT max(CAST(stat AS INTEGER)) FROM main.sqlite_stat1 WHERE tbl = ?1 COLLATE NOCASE";
    let rows: Option<Option<i64>> = connection.prepare_cached(sql)?.query_row([table], |row| row.get(0)).optional()?;
    Ok(rows.flatten().map(unsigned))
}

fn rows_fitting(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name: &str| connection.query_row(&format!("PRAGMA main.{name}"), [], |row| row.get::<_, i64>(0));
    Ok(unsigned(pragma("page_count")?).saturating_mul(unsigned(pragma("page_size")?)) / ROW_BYTES_MIN)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
