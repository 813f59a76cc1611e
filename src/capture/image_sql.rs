//! The bodies of triggers in image mode `full`: what [`super::trigger_sql`] says in one entry, said with the row before
//! and after. Pure.
//!
//! [`crate::sqlite::LogOp`] draws the entries of each change. An image is cut after [`VALUES_MAX`] columns, which is how
//! many the log has at most; a table has at least that many, or all of its image in one entry, so how an image is cut
//! depends on its own width alone, not on the log's.

use super::index_sql::rowid_name;
use super::touch_sql::Slot;
use super::trigger_sql::{Body, Op, Trigger, changed};
use crate::model::{KeyShape, TableSchema};
use crate::sqlite::ident;
use crate::sqlite::range_sql::key_may_be_null;

/// Columns of an image in one entry, at most: wide enough for most tables, and a narrow row's entry is not longer for it,
/// because SQLite stores no NULLs at a row's end that were never given.
pub const VALUES_MAX: usize = 64;

/// How many value columns the log needs for images of a table with that many columns.
pub fn values_for(columns: usize) -> usize {
    columns.min(VALUES_MAX)
}

/// The rowid that is logged behind the key: where the key may have a NULL in it, several rows may have that key, and a touch
/// must say which of them it means.
pub fn logged_rowid(table: &TableSchema) -> Option<&'static str> {
    if key_may_be_null(table) { rowid_name(table) } else { None }
}

/// How many key columns the log needs for images of a table.
pub fn keys_for(table: &TableSchema) -> usize {
    table.key_columns().len() + usize::from(logged_rowid(table).is_some())
}

/// The triggers of a table whose log has images.
pub(super) fn triggers(body: &Body<'_>, before_insert: &[Slot], before_update: &[Slot]) -> Vec<Trigger> {
    let mut identity = body.keys.clone();
    identity.extend(logged_rowid(body.table).map(str::to_owned));
    let columns = body.table.columns.iter().map(|column| ident(&column.name)).collect();
    let table = Imaged { body, identity, columns };
    vec![
        body.after("ai", "INSERT", &table.image("NEW", &Op::Insert.code().to_string(), body.time())),
        body.after("au", "UPDATE", &table.after_update()),
        body.after("ad", "DELETE", &table.image("OLD", &Op::Delete.code().to_string(), body.time())),
        table.before_insert(before_insert),
        table.before_update(before_update),
    ]
}

struct Imaged<'b, 't> {
    body: &'b Body<'t>,
    /// What a row is told from others by: its key, and its rowid where several rows may have that key.
    identity: Vec<String>,
    columns: Vec<String>,
}

impl Imaged<'_, '_> {
    /// The entries of one image: the first has the key and says what it is, the others go on.
    fn image(&self, row: &str, op: &str, time: String) -> Vec<String> {
        let values = |parts: Parts| format!("{} VALUES ({})", parts.into, parts.values);
        self.parts(row, op, &time).into_iter().map(values).collect()
    }

    fn parts(&self, row: &str, op: &str, time: &str) -> Vec<Parts> {
        let mut parts = Vec::new();
        for (number, chunk) in self.columns.chunks(VALUES_MAX).enumerate() {
            let (time, op, key) = match number {
                0 => (time.to_owned(), op.to_owned(), self.identity.len()),
                _ => (self.body.time_of_last(), Op::Image.code().to_string(), 0),
            };
            let mut places: Vec<String> = (0..key).map(|place| format!("k{place}")).collect();
            places.extend((0..chunk.len()).map(|place| format!("v{place}")));
            let mut values = vec![time, self.body.id.0.to_string(), op];
            values.extend(self.identity.iter().take(key).chain(chunk).map(|column| format!("{row}.{column}")));
            let into = format!("INSERT INTO {}(ts, tbl, op, {})", self.body.log, places.join(", "));
            parts.push(Parts { into, values: values.join(", ") });
        }
        parts
    }

    /// The row before, then the row after. One entry of both would pass the application's limit on a row's length at half
    /// the size.
    fn after_update(&self) -> Vec<String> {
        let changed = changed(&self.identity);
        let either = |same: Op, moved: Op| format!("{} + {} * ({changed})", same.code(), moved.code() - same.code());
        let mut statements = self.image("OLD", &either(Op::Update, Op::Leave), self.body.time());
        statements.extend(self.image("NEW", &either(Op::Image, Op::Arrive), self.body.time_of_last()));
        statements
    }

    /// Names the rows that hold what the new one wants, with their images. Whether there are any is looked up first, for
    /// what gathers their images is set up for every insert otherwise.
    fn before_insert(&self, slots: &[Slot]) -> Trigger {
        let table = ident(&self.body.table.name);
        let exists = |slot: &Slot| format!("EXISTS (SELECT 1 FROM {table} AS x WHERE {})", slot.holds);
        let any: Vec<String> = slots.iter().map(exists).collect();
        let when = format!("({}) AND {}", any.join(" OR "), self.body.guard());
        let touches: Vec<String> = slots.iter().flat_map(|slot| self.touch(slot, &slot.holds)).collect();
        self.body.trigger("bi", "BEFORE INSERT", &when, &touches)
    }

    /// The same for updates that name a column which the unique slots depend on; others do not even start it.
    fn before_update(&self, slots: &[Slot]) -> Trigger {
        let itself = self.body.is_itself();
        let mut depends_on: Vec<String> = slots.iter().flat_map(|slot| slot.depends_on.iter().cloned()).collect();
        depends_on.sort();
        depends_on.dedup();
        let touches: Vec<String> = slots
            .iter()
            .flat_map(|slot| {
                self.touch(slot, &format!("({}) AND {} AND {itself}", changed(&slot.depends_on), slot.holds))
            })
            .collect();
        let mut names: Vec<&str> = depends_on.iter().map(String::as_str).collect();
        if !self.body.table.without_rowid {
            names.extend(super::trigger_sql::ROWID_NAMES);
        }
        let moment = format!("BEFORE UPDATE OF {}", names.join(", "));
        let when = format!("({}) AND {}", changed(&depends_on), self.body.guard());
        self.body.trigger("bu", &moment, &when, &touches)
    }

    fn touch(&self, slot: &Slot, holds: &str) -> Vec<String> {
        let op = if slot.of_key { Op::KeyTouch } else { Op::Touch };
        let table = ident(&self.body.table.name);
        let select = |parts: Parts| format!("{} SELECT {} FROM {table} AS x WHERE {holds}", parts.into, parts.values);
        self.parts("x", &op.code().to_string(), &self.body.time()).into_iter().map(select).collect()
    }
}

/// One statement's two halves.
struct Parts {
    into: String,
    values: String,
}

/// The slot that the key itself is: what has the new row's key, where that key is the rowid.
pub(super) fn rowid_slot(table: &TableSchema) -> Option<Slot> {
    let rowid = match &table.key {
        KeyShape::Rowid { name } => (*name).to_owned(),
        KeyShape::RowidAlias { column } => ident(&table.columns[*column].name),
        KeyShape::Columns { .. } | KeyShape::None => return None,
    };
    Some(Slot { holds: format!("x.{rowid} = NEW.{rowid}"), depends_on: vec![rowid], of_key: true })
}
