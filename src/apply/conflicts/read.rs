//! Reads what is recorded.

use rusqlite::{Connection, Row};

use super::{Error, FOREIGN_KEY};
use crate::model::{Key, NodeId, Value};
use crate::sqlite::store;

/// Records that are read at once, so that whoever lists very many holds few of them, and no read transaction is open while
/// somebody reads what was printed.
const PAGE_RECORDS_MAX: usize = 1_000;

/// What the rows of a page may hold in bytes; a single larger one makes a page.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// A conflict without the row that lost.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// What it is asked for by.
    pub id: i64,
    /// When it was recorded: `2026-07-28T14:03:07.123Z`.
    pub at: String,
    /// The peer whose window it came with; none where no window made it.
    pub peer: Option<NodeId>,
    /// What the peer is called here, where it still has a link.
    pub peer_name: Option<String>,
    /// The table.
    pub table: String,
    /// The row's key.
    pub key: Key,
    /// `local`: what was here won; `incoming`: what came did; empty where nothing lost.
    pub winner: String,
    /// What decided: the policy, or the seed of a first contact; none where nothing lost.
    pub policy: Option<String>,
    /// Of a broken foreign key, the table that the row refers to.
    pub refers_to: Option<String>,
    /// `concurrent`, `unique_value`, `lost_history`, `repair`, or `foreign_key`.
    pub why: String,
    /// The version of what was here, where it is known.
    pub local_version: Option<String>,
    /// The version of what came, where it had one.
    pub incoming_version: Option<String>,
    /// Whether what lost is a row; otherwise it was its deletion, or nothing.
    pub is_row: bool,
}

impl Summary {
    /// Whether it says that a row breaks a foreign key. Nothing lost then.
    pub fn is_foreign_key(&self) -> bool {
        self.why == FOREIGN_KEY
    }
}

/// What lost.
#[derive(Clone, Debug, PartialEq)]
pub enum Loser {
    /// A row: each column's name with its value.
    Row(Vec<(String, Value)>),
    /// That the row was deleted, whose key has these columns.
    Deletion(Vec<String>),
    /// Nothing: a row breaks a foreign key by these columns.
    Nothing(Vec<String>),
}

/// A conflict whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What there is besides what lost.
    pub summary: Summary,
    /// What lost.
    pub loser: Loser,
}

const SUMMARY: &str = "SELECT c.id,
    coalesce(strftime('%Y-%m-%dT%H:%M:%fZ', c.at / 1000.0, 'unixepoch'), ''), c.peer, p.name, c.tbl, c.key, c.winner, c.policy, c.why, c.local_version,
    c.incoming_version, c.loser IS NOT NULL";
/// Where the loser stands after the columns of [`SUMMARY`]; the names of its columns follow.
const LOSER: usize = 12;
const FROM: &str = "FROM main.__cdc_conflicts c LEFT JOIN main.__cdc_checkpoints p ON p.peer = c.peer";

/// How many are recorded; 0 where nothing of ours is in the database.
///
/// # Errors
/// SQLite's.
pub fn count(conn: &Connection) -> Result<u64, Error> {
    if !store::table_exists(conn, "__cdc_conflicts")? {
        return Ok(0);
    }
    let count: i64 = conn.query_row("SELECT count(*) FROM main.__cdc_conflicts", [], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// Records after `after`, the oldest first, each whole: a part of all, from one moment; none at the end. `None` is before
/// the first. A record never changes, it only goes.
///
/// # Errors
/// SQLite's, or a record that is damaged.
pub fn page(conn: &Connection, after: Option<i64>) -> Result<Vec<Record>, Error> {
    if !store::table_exists(conn, "__cdc_conflicts")? {
        return Ok(Vec::new());
    }
    let sql = format!("{SUMMARY}, c.loser, c.columns {FROM} WHERE c.id > ?1 ORDER BY c.id");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([after.unwrap_or(i64::MIN)])?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        bytes += row.get_ref(LOSER)?.as_bytes_or_null().ok().flatten().map_or(0, <[u8]>::len);
        page.push(record(row)?);
        if page.len() >= PAGE_RECORDS_MAX || bytes >= PAGE_BYTES_MAX {
            break;
        }
    }
    Ok(page)
}

/// One of them, whole.
///
/// # Errors
/// [`Error::Unknown`], SQLite's, or a record that is damaged.
pub fn get(conn: &Connection, id: i64) -> Result<Record, Error> {
    if !store::table_exists(conn, "__cdc_conflicts")? {
        return Err(Error::Unknown { id });
    }
    let sql = format!("{SUMMARY}, c.loser, c.columns {FROM} WHERE c.id = ?1");
    let mut statement = conn.prepare(&sql)?;
    let mut rows = statement.query([id])?;
    rows.next()?.map_or(Err(Error::Unknown { id }), record)
}

fn record(row: &Row<'_>) -> Result<Record, Error> {
    let summary = summary(row)?;
    let damaged = || damaged(summary.id);
    let columns: String = row.get(LOSER + 1)?;
    let columns: Vec<String> = serde_json::from_str(&columns).map_err(|_| damaged())?;
    let loser = match row.get_ref(LOSER)?.as_blob_or_null().map_err(|_| damaged())? {
        None if summary.is_foreign_key() => Loser::Nothing(columns),
        None => Loser::Deletion(columns),
        Some(loser) => {
            let values = Key::from_bytes(loser).filter(|row| row.0.len() == columns.len());
            Loser::Row(columns.into_iter().zip(values.ok_or_else(damaged)?.0).collect())
        }
    };
    Ok(Record { summary, loser })
}

fn summary(row: &Row<'_>) -> Result<Summary, Error> {
    let id = row.get(0)?;
    let peer: i64 = row.get(2)?;
    let why: String = row.get(8)?;
    // One column holds both.
    let (policy, refers_to) = if why == FOREIGN_KEY { (None, row.get(7)?) } else { (row.get(7)?, None) };
    Ok(Summary {
        id,
        at: row.get(1)?,
        peer: (peer != 0).then_some(NodeId(peer)),
        peer_name: row.get(3)?,
        table: row.get(4)?,
        key: Key::from_bytes(&row.get::<_, Vec<u8>>(5)?).ok_or_else(|| damaged(id))?,
        winner: row.get(6)?,
        policy,
        refers_to,
        why,
        local_version: row.get(9)?,
        incoming_version: row.get(10)?,
        is_row: row.get(11)?,
    })
}

fn damaged(id: i64) -> Error {
    Error::Damaged { id }
}
