//! How an engine begins: capture in place where that is asked for, tables that can be had, and where the consumer is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::{Instant, sleep};

use super::batch::Standing;
use super::bootstrap::Copies;
use super::keeper::Keeper;
use super::{Engine, Error};
use crate::admin::{self, Request, SetupRequest};
use crate::capture::consumers::{self, EVENTS};
use crate::capture::{self, CaptureOptions, Images, Installed, Maintainer, NOTHING_GIVEN, Progress, Retention};
use crate::model::{Checkpoint, Fault, NodeId, Selection};
use crate::sqlite::catalog::{TableKind, table_list};
use crate::sqlite::{Db, store};

/// How long installing is tried beside an application that holds the write lock: a person waits at the terminal.
const INSTALL_TRIES_FOR: Duration = Duration::from_secs(15);

/// How long it is waited between two tries.
const INSTALL_TRY_EVERY: Duration = Duration::from_millis(100);

/// Where a consumer begins.
pub(super) struct Start {
    /// The id under which its tables are noted.
    pub id: NodeId,
    pub at: Checkpoint,
    pub standing: Standing,
    pub selection: Selection,
    /// Whether what was taken over from sqlite-cdc is this consumer's.
    pub takes_over: bool,
    /// What the log's entries carry now.
    pub images: Images,
}

/// What a log of keys leaves out, and what to do for more, for a person.
pub fn keys_only(database: &Path) -> String {
    format!(
        "the change log of {0} keeps keys only: of several changes of a row the last is told, with the row as it is, and not \
         what it was before; for every change with both, run `twinlite setup --db {0} --images full`",
        database.display()
    )
}

/// Opens the database for writing, captured as it is, or as it would be by default.
pub(super) fn open(engine: &Engine) -> Result<Maintainer, Error> {
    let mut maintainer = Maintainer::open(&engine.database, CaptureOptions::default(), Arc::clone(&engine.clock))?;
    if let Some(timeout) = engine.busy_timeout {
        maintainer.connection().busy_timeout(timeout)?;
    }
    read_options(&mut maintainer, engine.retention)?;
    Ok(maintainer)
}

/// Has a database captured as it is, or as it would be by default.
pub(super) fn read_options(maintainer: &mut Maintainer, retention: Option<Retention>) -> Result<(), Error> {
    let stored = CaptureOptions::stored(maintainer.connection())?;
    let mut options = stored.unwrap_or(CaptureOptions { images: Images::Full, ..CaptureOptions::default() });
    options.retention = retention.unwrap_or(options.retention);
    // What capture may have missed goes to the peers by the rules for both ways, whoever notices.
    options.two_way = applies_changes(maintainer.connection())?;
    maintainer.set_options(options);
    Ok(())
}

/// Whether a peer's changes are applied into this database.
fn applies_changes(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(store::table_exists(connection, "__cdc_checkpoints")?
        && connection.prepare("SELECT 1 FROM main.__cdc_checkpoints")?.exists([])?)
}

/// Does what comes before the first event.
pub(super) async fn start(engine: &Engine, maintainer: &Db<Maintainer>, keeper: &Keeper) -> Result<Start, Error> {
    let asked = engine.clone();
    maintainer.call(move |maintainer| check_names(&asked, maintainer.connection())).await??;
    if engine.setup {
        let asked = engine.clone();
        maintainer.call(move |maintainer| check_capturable(&asked, maintainer)).await??;
        set_up(engine, maintainer, keeper).await?;
    }
    if keeper.owns() {
        // A log that is full is begun anew, and a schema that moved while nobody looked is compared.
        let make_right = |maintainer: &mut Maintainer| match CaptureOptions::stored(maintainer.connection())? {
            Some(_) => maintainer.install().map(drop),
            None => Ok(()),
        };
        patiently(maintainer, make_right).await?;
    }
    let asked = engine.clone();
    let start = maintainer.call(move |maintainer| begin(&asked, maintainer)).await??;
    // A node says it once for all that it runs.
    if start.images == Images::Key && !engine.beside {
        tracing::warn!("{}", keys_only(&engine.database));
    }
    Ok(start)
}

/// Refuses names that can have no events, before anything is changed.
fn check_names(engine: &Engine, connection: &Connection) -> Result<(), Error> {
    let tables = table_list(connection)?;
    for name in &engine.tables {
        let entry = tables.iter().find(|table| table.name.eq_ignore_ascii_case(name));
        let reason = match entry.map(|entry| entry.kind) {
            Some(TableKind::Ordinary) => continue,
            Some(TableKind::Virtual) => "it is a virtual table, on which SQLite has no triggers",
            Some(TableKind::Shadow) => "it belongs to a virtual table, which writes it as it likes",
            None if is_view(connection, name)? => "it is a view: name the tables that it is made of",
            None if is_reserved(name) => "it is SQLite's or Twinlite's own",
            None => return Err(Error::NoTable { name: name.clone(), database: engine.database.clone() }),
        };
        return Err(Error::NotCapturable { name: name.clone(), reason: reason.to_owned() });
    }
    Ok(())
}

/// Refuses tables that capture would skip, before it is installed.
fn check_capturable(engine: &Engine, maintainer: &Maintainer) -> Result<(), Error> {
    if engine.tables.is_empty() {
        return Ok(());
    }
    let options = asked_for(maintainer.options(), &wanted(engine, maintainer)?);
    let skipped = capture::would_skip(maintainer.connection(), &options)?;
    let refused = |name: &String| skipped.iter().find(|table| table.name.eq_ignore_ascii_case(name));
    match engine.tables.iter().find_map(refused) {
        Some(table) => Err(Error::NotCapturable { name: table.name.clone(), reason: table.reason.clone() }),
        None => Ok(()),
    }
}

fn is_view(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM main.sqlite_schema WHERE type = 'view' AND name = ?1 COLLATE NOCASE";
    connection.prepare_cached(sql)?.exists([name])
}

fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("sqlite_") || name.starts_with(crate::sqlite::catalog::OURS)
}

/// A glob that means that table alone.
fn literal_glob(name: &str) -> String {
    let mut glob = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '*' | '?' | '[' | ']' | '{' | '}' | '\\' => glob.extend(['[', character, ']']),
            plain => glob.push(plain),
        }
    }
    glob
}

/// What is captured once the engine's tables are, too.
fn wanted(engine: &Engine, maintainer: &Maintainer) -> Result<SetupRequest, Error> {
    let stored = CaptureOptions::stored(maintainer.connection())?;
    let globs: Vec<String> = engine.tables.iter().map(|name| literal_glob(name)).collect();
    let mut request = SetupRequest {
        // A log that is there is changed by whoever says so in so many words.
        images: stored.is_none().then(|| Images::Full.word().to_owned()),
        log_table: engine.log_table.clone(),
        take_over: engine.take_over,
        ..SetupRequest::default()
    };
    match &stored {
        None => request.tables = (!globs.is_empty()).then_some(globs),
        Some(stored) => {
            let missing: Vec<String> = engine
                .tables
                .iter()
                .zip(globs)
                .filter_map(|(name, glob)| (!stored.selection.has(name)).then_some(glob))
                .collect();
            if !missing.is_empty() {
                let (tables, skipped) = stored.selection.globs();
                request.tables = Some(tables.iter().cloned().chain(missing).collect());
                request.skip_tables = Some(skipped.to_vec());
            }
        }
    }
    Ok(request)
}

/// How a database that is captured so is to be captured by a request.
fn asked_for(options: &CaptureOptions, wanted: &SetupRequest) -> CaptureOptions {
    let mut options = options.clone();
    let (tables, skipped) = options.selection.globs();
    let tables = wanted.tables.as_deref().unwrap_or(tables);
    let skipped = wanted.skip_tables.as_deref().unwrap_or(skipped);
    if let Ok(selection) = Selection::new(tables, skipped) {
        options.selection = selection;
    }
    options.images = wanted.images.as_deref().and_then(Images::by_word).unwrap_or(options.images);
    if let Some(name) = &wanted.log_table {
        options.log_table.clone_from(name);
    }
    options
}

/// Puts capture in place by a request, as the owner of a database does for others: what was taken over, and what was done.
pub(super) fn install_as_asked(
    maintainer: &mut Maintainer,
    wanted: &SetupRequest,
) -> Result<(Vec<String>, Installed), capture::Error> {
    let options = asked_for(maintainer.options(), wanted);
    let before = maintainer.options().clone();
    maintainer.set_options(CaptureOptions { change_images: wanted.change_images, ..options.clone() });
    let installed = match wanted.take_over {
        true => maintainer.take_over(),
        false => maintainer.install().map(|installed| (Vec::new(), installed)),
    };
    maintainer.set_options(if installed.is_ok() { options } else { before });
    installed
}

async fn set_up(engine: &Engine, maintainer: &Db<Maintainer>, keeper: &Keeper) -> Result<(), Error> {
    let asked = engine.clone();
    let read = move |maintainer: &mut Maintainer| match CaptureOptions::stored(maintainer.connection())? {
        Some(stored) if stored.images == Images::Key => Err(Error::NoImages { database: asked.database }),
        Some(_) | None => wanted(&asked, maintainer),
    };
    let request = maintainer.call(read).await??;
    if keeper.owns() {
        let install = move |maintainer: &mut Maintainer| install_as_asked(maintainer, &request);
        let (taken, installed) = patiently(maintainer, install).await?;
        taken.into_iter().chain(installed.news()).for_each(|line| tracing::info!("{line}"));
        return Ok(());
    }
    // What the owner has in place already needs no word of it.
    let in_place = request.tables.is_none() && !request.take_over;
    let asked = engine.clone();
    let log = maintainer.call(move |maintainer| check_log(&asked, maintainer.connection())).await?;
    if in_place && log.is_ok() {
        return Ok(());
    }
    let response = admin::ask(&engine.database, &Request::Setup(request.clone())).await?;
    match response {
        Some(response) if response.ok => Ok(()),
        Some(response) => {
            Err(Error::OwnerRefuses { database: engine.database.clone(), said: response.lines.join("; ") })
        }
        // It left meanwhile.
        None => {
            patiently(maintainer, move |maintainer| install_as_asked(maintainer, &request)).await?;
            Ok(())
        }
    }
}

/// Does what needs the write lock, also beside an application that keeps it for a while.
async fn patiently<T: Send + 'static>(
    maintainer: &Db<Maintainer>,
    work: impl Fn(&mut Maintainer) -> Result<T, capture::Error> + Clone + Send + 'static,
) -> Result<T, Error> {
    let begun = Instant::now();
    loop {
        match maintainer.call(work.clone()).await? {
            Err(error) if error.fault() == Fault::Retry && begun.elapsed() < INSTALL_TRIES_FOR => {
                tracing::debug!(error = &error as &dyn std::error::Error, "write to the database: try again");
                sleep(INSTALL_TRY_EVERY).await;
            }
            done => return Ok(done?),
        }
    }
}

/// Refuses a log that is none or another one; what its entries carry.
fn check_log(engine: &Engine, connection: &Connection) -> Result<Images, Error> {
    let Some(stored) = CaptureOptions::stored(connection)? else {
        return Err(Error::NotInstalled { database: engine.database.clone() });
    };
    match &engine.log_table {
        Some(wanted) if !wanted.eq_ignore_ascii_case(&stored.log_table) => {
            Err(Error::OtherLog { found: stored.log_table, wanted: wanted.clone() })
        }
        Some(_) | None => Ok(stored.images),
    }
}

/// The tables that the consumer is given, by their newest generation.
fn given_tables(
    engine: &Engine,
    maintainer: &Maintainer,
) -> Result<(Selection, Vec<(crate::model::TableId, String)>), Error> {
    let captured = maintainer.tables()?;
    let skipped = maintainer.skipped()?;
    for name in &engine.tables {
        if captured.iter().any(|table| table.schema_name.eq_ignore_ascii_case(name)) {
            continue;
        }
        return Err(match skipped.iter().find(|table| table.name.eq_ignore_ascii_case(name)) {
            Some(table) => Error::NotCapturable { name: name.clone(), reason: table.reason.clone() },
            None => Error::NotCaptured { name: name.clone() },
        });
    }
    let globs: Vec<String> = engine.tables.iter().map(|name| literal_glob(name)).collect();
    let named = Selection::new(&globs, &[]).unwrap_or_else(|_| Selection::all());
    let selection = named.within(engine.selection.clone());
    let tables = captured.into_iter().filter(|table| selection.has(&table.schema_name));
    let tables = tables.map(|table| (table.id, table.schema_name)).collect();
    Ok((selection, tables))
}

/// Where the consumer begins. A new one is noted, so that the log is kept for it.
fn begin(engine: &Engine, maintainer: &mut Maintainer) -> Result<Start, Error> {
    let images = check_log(engine, maintainer.connection())?;
    let (selection, tables) = given_tables(engine, maintainer)?;
    let name = engine.consumer.clone();
    let others = consumers::list(maintainer.connection())?;
    if let Some(other) = others.into_iter().find(|one| one.name == name && one.kind != EVENTS) {
        return Err(Error::NameTaken { name, kind: other.kind });
    }
    let takes_over = capture::claim_taken(maintainer.connection_mut(), &name)?;
    let known = capture::read_progress(maintainer.connection(), &name)?;
    let unfinished = known.as_ref().is_some_and(|known| !Copies::noted(&known.tables).are_done());
    let lost = known.as_ref().is_some_and(|known| known.checkpoint.is_none());
    let anew = match &known {
        None => true,
        Some(_) => engine.bootstrap && (lost || !unfinished),
    };
    if let Some(Progress { id, checkpoint, tables }) = known.clone().filter(|_| !anew) {
        let Some(at) = checkpoint else { return Err(Error::EventsLost { consumer: name }) };
        let id = if id == NOTHING_GIVEN { new_id() } else { id };
        if unfinished {
            tracing::info!(consumer = name, "goes on with the bootstrap that was not finished");
        }
        let standing = Standing { seq: at.position.seq, copies: Arc::new(Copies::noted(&tables)) };
        return Ok(Start { id, at, standing, selection, takes_over, images });
    }
    // What it was given before may be wrong by now, and so may what it is given of sqlite-cdc first.
    let is_taken = takes_over && !capture::read_taken(maintainer.connection(), 1)?.0.is_empty();
    let wipe = is_taken || known.as_ref().is_some_and(|known| known.id != NOTHING_GIVEN);
    let copies = if engine.bootstrap { Copies::of(tables, wipe) } else { Copies::default() };
    let id = known.map(|known| known.id).filter(|id| *id != NOTHING_GIVEN);
    // One that is only met was given nothing.
    let noted = id.unwrap_or(if engine.bootstrap { new_id() } else { NOTHING_GIVEN });
    let clock = Arc::clone(&engine.clock);
    let given = copies.given(true);
    let at = capture::begin_at_head(maintainer.connection_mut(), (&name, EVENTS), (noted, &given), &*clock)?;
    let id = if noted == NOTHING_GIVEN { new_id() } else { noted };
    let standing = Standing { seq: at.position.seq, copies: Arc::new(copies) };
    Ok(Start { id, at, standing, selection, takes_over, images })
}

fn new_id() -> NodeId {
    NodeId(store::random_positive())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tables_name_means_that_table_alone_whatever_is_in_it() {
        for name in ["a*", "b?", "[c]", "{d,e}", "f\\g", "!h", "Ünï çöde", "a-b", "x[!y]z"] {
            let selection = Selection::new(&[literal_glob(name)], &[]).expect(name);
            assert!(selection.has(name), "{name}");
            assert!(!selection.has(&format!("{name}x")) && !selection.has("ab") && !selection.has("d"), "{name}");
        }
    }
}
