//! How capture stands in a database, for whoever only wants to know. Reads only, and takes what [`super::install()`] refuses.

use rusqlite::Connection;

use super::accounting::ObjectNote;
use super::decide::{Witness, decide, overtaking, wanted_triggers};
use super::lineage::continued;
use super::situation::Situation;
use super::touch_sql::{Event, slots};
use super::trigger_sql::table_of_trigger;
use super::{CaptureOptions, Error, SkippedTable, change_log, generation};
use crate::model::TableSchema;
use crate::sqlite::catalog::{self, OURS, TableKind};
use crate::sqlite::lexer::{Token, tokens};
use crate::sqlite::store::{self, meta_key};

/// How capture stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examined {
    /// The tables that are wanted and can be captured.
    pub wanted: Vec<TableSchema>,
    /// Those of them whose triggers look rows up in the table itself, for a unique slot besides the key.
    pub touching: Vec<String>,
    /// The tables that are wanted, could have triggers, and cannot be captured.
    pub skipped: Vec<SkippedTable>,
    /// The virtual tables among what is wanted.
    pub virtuals: Vec<String>,
    /// The change log of sqlite-cdc, where there is one.
    pub foreign_log: Option<String>,
    /// Tables of ours that triggers of ours write or read, and that are not there: every write fails.
    pub missing: Vec<String>,
    /// What the next owner does because the schema moved since the triggers were last compared; `None` where it did not.
    pub moved: Option<Vec<String>>,
    /// Triggers of ours that are gone or altered while their table is as it was: table, trigger.
    pub off: Vec<(String, String)>,
    /// Tables on which a trigger of the user's fires before ours: table, the user's trigger.
    pub overtaken: Vec<(String, String)>,
    /// How full the log is; `None` where there is none.
    pub log: Option<LogRoom>,
}

/// How full a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRoom {
    /// The log's name.
    pub name: String,
    /// The newest entry.
    pub head: i64,
    /// The oldest entry.
    pub oldest: i64,
    /// Where the triggers stop.
    pub limit: i64,
}

/// Examines. Inside one read transaction of the caller's, or what it says may be of two moments.
///
/// # Errors
/// SQLite's, or what is stored of ours makes no sense.
pub fn examine(connection: &Connection, options: &CaptureOptions) -> Result<Examined, Error> {
    let situation = Situation::read(connection, options)?;
    let listed = catalog::table_list(connection)?;
    let kind_of = |name: &str| listed.iter().find(|entry| entry.name == name).map(|entry| entry.kind);
    let moved = situation.before.as_ref().filter(|before| before.version != situation.version);
    let moved = moved.map(|_| decide(&situation, &Witness::default()).notes);
    let of_kind = |kind| situation.skipped.iter().filter(move |table| kind_of(&table.name) == Some(kind));
    let has_slots = |table: &&TableSchema| {
        [Event::Insert, Event::Update]
            .into_iter()
            .any(|event| slots(table, event, situation.images).is_ok_and(|slots| !slots.is_empty()))
    };
    let mut examined = Examined {
        touching: situation.wanted.iter().filter(has_slots).map(|table| table.name.clone()).collect(),
        skipped: of_kind(TableKind::Ordinary).cloned().collect(),
        virtuals: of_kind(TableKind::Virtual).map(|table| table.name.clone()).collect(),
        foreign_log: change_log::foreign(connection)?,
        missing: missing(connection, &situation.objects)?,
        moved,
        log: log_room(connection, &situation)?,
        ..Examined::default()
    };
    examined.compare_triggers(&situation);
    examined.wanted = situation.wanted;
    Ok(examined)
}

impl Examined {
    fn compare_triggers(&mut self, situation: &Situation) {
        for (table, known) in situation.wanted.iter().zip(continued(situation)) {
            let Some(known) = known else { continue };
            let named = |name: &str| (table.name.clone(), name.to_owned());
            let first = overtaking(&situation.objects, table, known.id).filter(|other| !other.name.starts_with(OURS));
            self.overtaken.extend(first.map(|other| named(&other.name)));
            let standing = |sql: &str| situation.objects.iter().any(|object| object.sql == sql);
            let any = situation.objects.iter().any(|object| table_of_trigger(&object.name) == Some(known.id));
            // Where the table changed, SQLite may have rewritten them, and the next owner makes them anew.
            let same = known.ddl == table.ddl && known.indexes == generation::index_notes(table);
            if same || !any {
                let wanted = wanted_triggers(table, known.id, (&situation.log, known.images));
                let off = wanted.iter().filter(|trigger| !standing(&trigger.sql));
                self.off.extend(off.map(|trigger| named(&trigger.name)));
            }
        }
    }
}

/// The tables of ours that our triggers name and that are not there.
fn missing(connection: &Connection, objects: &[ObjectNote]) -> Result<Vec<String>, Error> {
    let ours = objects.iter().filter(|object| object.kind == "trigger" && table_of_trigger(&object.name).is_some());
    let mut named: Vec<String> = Vec::new();
    for object in ours {
        let names = tokens(&object.sql).iter().filter_map(Token::name).collect::<Vec<_>>();
        let tables = names.into_iter().filter(|name| name.starts_with(OURS) && table_of_trigger(name).is_none());
        named.extend(tables);
    }
    named.sort();
    named.dedup();
    let mut missing = Vec::new();
    for name in named {
        if !store::table_exists(connection, &name)? {
            missing.push(name);
        }
    }
    Ok(missing)
}

fn log_room(connection: &Connection, situation: &Situation) -> Result<Option<LogRoom>, Error> {
    if situation.log_width.is_none() || !store::exists(connection)? {
        return Ok(None);
    }
    let limit: Option<i64> = store::meta(connection, meta_key::CAPTURE_LIMIT)?;
    let (head, oldest) = change_log::bounds(connection, &situation.log)?;
    Ok(limit.filter(|limit| *limit != store::APPLYING).map(|limit| LogRoom {
        name: situation.log.clone(),
        head,
        oldest,
        limit,
    }))
}
