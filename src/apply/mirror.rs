//! Applies one window inside the caller's transaction.
//!
//! One way the peer's rows replace what is here: a mirror holds nothing that its source does not have. Where both ends
//! write, [`super::merge`] decides what becomes of each row; all else is the same.

mod due;

use std::iter::Peekable;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::catalog::{Received, Terms};
use super::checkpoint::{self, Reached};
use super::copy::{self, Covered};
use super::merge::{Both, Merge, Watch};
use super::protect::{ApplyFlag, Protection};
use super::rows::Writer;
use super::statement::Target;
use super::{Applied, Error, NeedRange, SourceError, Window, made, merge, moves};
use crate::migrate;
use crate::model::{CopyingBack, Digest, Position, Range, RangeMode, Rows, TableId, WindowItem};
use crate::sqlite::store::{self, meta_key};
use crate::sqlite::{self, ident};

type Items<'a, 'b> = Peekable<&'a mut &'b mut dyn Iterator<Item = Result<WindowItem, SourceError>>>;

/// Applies everything that the window says, up to but without the commit. `received` is what earlier windows of the
/// session said, or what is stored.
///
/// # Errors
/// Whatever stops the window; the caller rolls back, and throws `received` away.
pub(super) fn apply<'a, 'w: 'a>(
    conn: &'a Connection,
    received: &'a mut Received,
    window: Window<'w>,
    (both, mut watch): (Option<Both<'a>>, Watch<'_>),
) -> Result<Applied, Error> {
    let Window { peer, peer_name, rules, from, lost_history, mut items, end, copying_back, now_ms } = window;
    // Before the apply flag takes the limit's place.
    let log_is_full = both.is_some() && store::log_is_full(conn)?;
    let frame = Frame { peer, peer_name, rules, from, lost_history, end, copying_back, log_is_full, now_ms };
    let mut items: Items<'_, '_> = (&mut items).peekable();
    let begins_session = matches!(items.peek(), Some(Ok(WindowItem::Catalog)));
    let lost = check_order(conn, &frame, begins_session)?;
    if both.is_some() {
        watch.notice_drift(conn)?;
    }
    // What migrates needs no triggers; below they are on if the link says so.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    moves::count(conn)?;
    let flag = ApplyFlag::raise(conn, rules.protect)?;
    let applied = Applied::nothing(end.to);
    let mut work = Work { conn, frame, received, applied, ask: Vec::new(), created: Vec::new(), merge: None };
    if lost {
        work.received.copies.begin_all_anew();
    }
    work.settle_schema(&mut items)?;
    if both.is_some() {
        watch.follow(conn)?;
    }
    if both.is_some() && !frame.is_one_way() {
        work.settle_both(begins_session)?;
    } else if begins_session {
        work.forget_meeting()?;
    }
    work.begin_marked_copies();
    if lost {
        work.ask.clear();
    }
    if let Some(both) = both {
        work.merge = Some(both.begin(conn, &frame)?);
    }
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, rules.user_triggers)?;
    for item in items {
        work.item(item.map_err(Error::Source)?)?;
    }
    work.end_merge()?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    work.finish()?;
    flag.lower(conn)?;
    if rules.merge.is_some() {
        watch.follow(conn)?;
        made::note(conn, peer)?;
    }
    sqlite::still_in_transaction(conn)?;
    work.received.schema_version = sqlite::catalog::schema_version(conn)?;
    moves::leave(conn, work.received.schema_version)?;
    Ok(work.applied)
}

/// What holds for the whole window.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) peer: crate::model::NodeId,
    pub(super) peer_name: &'a str,
    pub(super) rules: &'a super::LinkRules,
    pub(super) from: Position,
    lost_history: bool,
    pub(super) end: &'a crate::model::WindowEnd,
    pub(super) copying_back: CopyingBack,
    /// Whether the application's changes here go unlogged.
    pub(super) log_is_full: bool,
    pub(super) now_ms: i64,
}

impl Frame<'_> {
    /// Whether the peer never sees what is here, though its changes are merged.
    pub(super) fn is_one_way(&self) -> bool {
        self.rules.merge.as_ref().is_some_and(|rules| rules.one_way)
    }
}

/// Refuses a window that does not begin at the checkpoint. Says whether every table is copied again: where the peer says
/// that history is lost, or where there is none yet.
fn check_order(conn: &Connection, frame: &Frame<'_>, begins_session: bool) -> Result<bool, Error> {
    let Frame { from, lost_history, .. } = *frame;
    let to = frame.end.to.position;
    if to.epoch != from.epoch || to.seq < from.seq {
        return Err(Error::Malformed("it ends before it begins"));
    }
    let stored = checkpoint::by_name(conn, frame.peer_name, Some(frame.peer))?;
    let stored = stored.and_then(|stored| stored.checkpoint).map(|checkpoint| checkpoint.position);
    match stored {
        _ if lost_history => Ok(true),
        Some(stored) if stored == from => Ok(false),
        // First contact. Amid a session it would mean that what was here has been removed meanwhile.
        None if begins_session => Ok(true),
        Some(_) | None => Err(Error::OutOfOrder { stored, from }),
    }
}

/// A window being applied.
struct Work<'a> {
    conn: &'a Connection,
    frame: Frame<'a>,
    received: &'a mut Received,
    applied: Applied,
    /// Tables whose copy begins anew by our own decision.
    ask: Vec<TableId>,
    /// Tables that this window's catalog made.
    created: Vec<TableId>,
    /// Where both ends write.
    merge: Option<Merge<'a>>,
}

impl Work<'_> {
    /// Applies the catalog, where the window has one; where it has none and somebody changed the schema here, the last
    /// one again, so that nothing is written into a table that is no longer what it was.
    fn settle_schema(&mut self, items: &mut Items<'_, '_>) -> Result<(), Error> {
        let catalog = if matches!(items.peek(), Some(Ok(WindowItem::Catalog))) {
            Some(read_catalog(items)?)
        } else if sqlite::catalog::schema_version(self.conn)? == self.received.schema_version {
            None
        } else {
            self.received.catalog.take()
        };
        let Some(catalog) = catalog else { return Ok(()) };
        let Frame { peer, peer_name, rules, .. } = self.frame;
        let outcome = self.received.migrate(self.conn, &Terms { peer, rules }, catalog)?;
        sqlite::still_in_transaction(self.conn)?;
        self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        self.applied.migrated = outcome.migrated;
        self.applied.notes.extend(outcome.notes);
        (self.ask, self.created) = (outcome.ask, outcome.created);
        // Between two writers capture accounts for what moved here, and copies to everyone.
        if rules.merge.is_none() && moves::take(self.conn, peer)? {
            self.ask.extend(self.received.compare_by_rowid());
        }
        let tables = self.received.targets.values().map(|target| (target.id, target.name.as_str()));
        let protection = Protection { peer, peer_name, on: rules.protect };
        self.applied.migrated |= protection.reconcile(self.conn, tables)?;
        Ok(())
    }

    /// Writes what was kept back.
    fn end_merge(&mut self) -> Result<(), Error> {
        let Some(merge) = self.merge.take() else { return Ok(()) };
        let (written, conflicts, logged) = merge.finish()?;
        self.applied.upserts += written.upserts;
        self.applied.deletes += written.deletes;
        (self.applied.conflicts, self.applied.logged) = (conflicts, logged);
        Ok(())
    }

    /// Both ends know of these: the marker is in the peer's log.
    fn begin_marked_copies(&mut self) {
        let end = self.frame.end;
        for table in &end.markers {
            self.received.copies.begin_anew(*table);
        }
        for table in end.repairs.iter().filter(|table| !end.markers.contains(table)) {
            self.received.copies.begin_asked(*table, true);
        }
        self.ask.retain(|asked| !end.markers.contains(asked) && !end.repairs.contains(asked));
    }

    fn item(&mut self, item: WindowItem) -> Result<(), Error> {
        match item {
            WindowItem::Rows(Rows { table, .. })
            | WindowItem::Range(Range { table, .. })
            | WindowItem::Digest(Digest { table, .. })
                if self.received.away.contains(&table) =>
            {
                Ok(())
            }
            WindowItem::Rows(rows) => self.rows(&rows),
            WindowItem::Range(range) => self.range(&range),
            WindowItem::Digest(digest) => self.digest(&digest),
            WindowItem::Catalog | WindowItem::Table(_) | WindowItem::Object(_) => {
                Err(Error::Malformed("schema comes after rows"))
            }
        }
    }

    fn target(&self, table: TableId) -> Result<&Target, Error> {
        self.received.targets.get(&table).ok_or(Error::UnknownTable { id: table })
    }

    fn writer(&self, table: TableId) -> Result<Writer<'_>, Error> {
        Ok(Writer { conn: self.conn, target: self.target(table)?, firing: self.frame.rules.user_triggers })
    }

    fn rows(&mut self, rows: &Rows) -> Result<(), Error> {
        if let Some(merge) = &mut self.merge {
            let target = self.received.targets.get(&rows.table).ok_or(Error::UnknownTable { id: rows.table })?;
            return merge.rows(target, rows);
        }
        let written = self.writer(rows.table)?.apply(rows)?;
        self.applied.upserts += written.upserts;
        self.applied.deletes += written.deletes;
        Ok(())
    }

    fn range(&mut self, range: &Range) -> Result<(), Error> {
        let covered = Covered::by_range(range);
        covered.check(self.target(range.table)?)?;
        if let Some(merge) = &mut self.merge {
            let copy = self.received.copies.get(range.table);
            let of_copy = range.low.is_some() && copy.is_some_and(|copy| copy.lost_history);
            let target = self.received.targets.get(&range.table).ok_or(Error::UnknownTable { id: range.table })?;
            // Who only sends does not know how the first contact goes here.
            let union = self.frame.is_one_way() && merge::is_union(self.conn, self.frame.peer)?;
            let mode = if union { RangeMode::Union } else { range.mode };
            merge.range(target, (range, mode), range.lost_history || of_copy)?;
        } else {
            let written = copy::apply_range(&self.writer(range.table)?, range)?;
            self.applied.upserts += written.upserts;
            self.applied.deletes += written.deletes;
        }
        self.cover(&covered)
    }

    fn digest(&mut self, digest: &Digest) -> Result<(), Error> {
        let covered = Covered::by_digest(digest);
        let target = self.target(digest.table)?;
        covered.check(target)?;
        match copy::compare_digest(self.conn, target, digest)? {
            Some(need) => {
                self.applied.needs.push(need);
                Ok(())
            }
            None => self.cover(&covered),
        }
    }

    /// Counts a piece of a copy, and makes what waits for the copy's end.
    fn cover(&mut self, covered: &Covered<'_>) -> Result<(), Error> {
        let ended = covered.advance(&mut self.received.copies);
        if covered.low.is_none() {
            // The peer begins anew by itself.
            self.ask.retain(|asked| *asked != covered.table);
        }
        if ended {
            let name = self.target(covered.table)?.name.clone();
            let made = migrate::create_deferred_indexes(self.conn, self.frame.peer, &name)?;
            self.applied.migrated |= made > 0;
        }
        Ok(())
    }

    /// What the window's end says, and how far everything is now.
    fn finish(&mut self) -> Result<(), Error> {
        let Frame { peer, peer_name, end, .. } = self.frame;
        for (table, value) in &end.sequences {
            self.sequence(table, *value)?;
        }
        if self.frame.rules.merge.is_none() {
            // Where changes are merged, each database has its own.
            self.pragma("user_version", end.user_version)?;
            self.pragma("application_id", end.application_id)?;
        }
        if self.frame.rules.merge.is_none() && store::epoch(self.conn)?.is_some() {
            let hlc: Option<i64> = store::meta(self.conn, meta_key::HLC)?;
            if hlc.is_none_or(|hlc| hlc < end.to.ts_ms) {
                store::set_meta(self.conn, meta_key::HLC, end.to.ts_ms)?;
            }
        }
        let between_transactions = !end.last_part;
        let checkpoint = &end.to;
        // Whatever swallowed a failure above: a checkpoint without its rows would lose them for good.
        sqlite::still_in_transaction(self.conn)?;
        let reached = Reached { peer, name: peer_name, checkpoint, seen: end.seen, between_transactions };
        checkpoint::store(self.conn, &reached)?;
        let asked = std::mem::take(&mut self.ask).into_iter();
        self.applied.needs.extend(asked.map(|table| NeedRange { table, low: None, high: None }));
        self.applied.tables = self.received.copies.store(self.conn, peer)?;
        self.applied.seen = end.seen;
        if self.frame.rules.merge.is_some()
            && self.received.copies.all_done()
            && !store::copy_unfinished(self.conn, peer)?
        {
            merge::end_seed(self.conn, peer)?;
        }
        Ok(())
    }

    /// The larger value stays. A name that is not a table of this peer's is not ours to count.
    fn sequence(&self, table: &str, value: i64) -> Result<(), Error> {
        let received = |target: &&Target| target.name.eq_ignore_ascii_case(table);
        let Some(target) = self.received.targets.values().find(received) else { return Ok(()) };
        if !store::table_exists(self.conn, "sqlite_sequence")? {
            return Ok(());
        }
        let sql = "UPDATE main.sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1";
        if self.conn.prepare_cached(sql)?.execute((&target.name, value))? == 0 {
            let sql = "INSERT INTO main.sqlite_sequence(name, seq) VALUES (?1, ?2)";
            self.conn.prepare_cached(sql)?.execute((&target.name, value))?;
        }
        Ok(())
    }

    fn pragma(&self, name: &str, value: Option<i32>) -> Result<(), Error> {
        let Some(value) = value else { return Ok(()) };
        let now: i32 = self.conn.prepare_cached(&format!("PRAGMA main.{name}"))?.query_row([], |row| row.get(0))?;
        if now != value {
            self.conn.execute_batch(&format!("PRAGMA main.{} = {value}", ident(name)))?;
        }
        Ok(())
    }
}

fn read_catalog(items: &mut Items<'_, '_>) -> Result<migrate::Catalog, Error> {
    let mut catalog = migrate::Catalog { tables: Vec::new(), objects: Vec::new() };
    let is_schema = |item: &Result<WindowItem, SourceError>| {
        matches!(item, Ok(WindowItem::Catalog | WindowItem::Table(_) | WindowItem::Object(_)))
    };
    while let Some(item) = items.next_if(is_schema) {
        match item.map_err(Error::Source)? {
            WindowItem::Table(table) => catalog.tables.push(table),
            WindowItem::Object(object) => catalog.objects.push(object),
            WindowItem::Catalog | WindowItem::Rows(_) | WindowItem::Range(_) | WindowItem::Digest(_) => {}
        }
    }
    Ok(catalog)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Peer, Replica, started};
    use super::*;
    use crate::model::{CopyState, Fault, Selection};

    #[test]
    fn a_poisoned_row_halts_before_it_and_goes_on_when_the_operator_has_acted() {
        for (ddl, here) in [
            ("CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "CREATE TABLE t(id INTEGER PRIMARY KEY, v NOT NULL)"),
            (
                "CREATE TABLE t(id INTEGER PRIMARY KEY, v)",
                "CREATE TABLE t(id INTEGER PRIMARY KEY, v NOT NULL DEFAULT 'wrong')",
            ),
        ] {
            let (mut peer, mut replica) = started(ddl);
            replica.run(&format!("DROP TABLE t; {here}"));
            peer.run("INSERT INTO t VALUES (1, 'fine'), (2, NULL)");
            let window = peer.next(vec![peer.upserts("t", "1")]);
            let error = replica.apply(window.clone()).expect_err("NULL");
            assert_eq!((error.word(), error.fault()), ("poisoned_row", Fault::Halt));
            let message = format!("{error}: {}", std::error::Error::source(&error).expect("cause"));
            assert!(message.contains("from \"peer\"") && message.contains("table \"t\", key (2)"), "{message}");
            let rows: i64 = replica.look().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("count");
            assert_eq!(rows, 0, "nothing of the window");
            replica.run(&format!("DROP TABLE t; {ddl}"));
            // The session that failed is over; the next one begins with the catalog.
            let items = peer.catalog().into_iter().chain(window.items.clone()).collect();
            replica.apply(super::super::testing::Said { items, ..window }).expect("goes on");
            replica.assert_equal(&peer);
        }
    }

    #[test]
    fn tables_that_the_link_does_not_take_are_refused() {
        let peer = Peer::new("CREATE TABLE mine(a); CREATE TABLE theirs(a)");
        let mut replica = Replica::new();
        replica.rules.selection = Selection::new(&["mine".to_owned()], &[]).expect("glob");
        let error = replica.apply(peer.first(peer.catalog())).expect_err("theirs");
        assert_eq!(error.word(), "not_allowed");
        replica.rules.selection = Selection::all();
        let mut items = peer.catalog();
        if let WindowItem::Table(def) = &mut items[1] {
            def.name = "__CDC_meta".to_owned();
        }
        assert_eq!(replica.apply(peer.first(items)).expect_err("ours").word(), "not_allowed");
    }

    #[test]
    fn rows_of_a_table_that_was_never_described_begin_a_new_session() {
        let (mut peer, mut replica) = started("CREATE TABLE t(a)");
        replica.reopen();
        let window = peer.next(vec![peer.upserts("t", "1")]);
        let error = replica.apply(window).expect_err("unknown");
        assert_eq!((error.word(), error.fault()), ("unknown_table", Fault::Retry));
    }

    #[test]
    fn the_larger_sequence_stays_and_versions_follow() {
        let (mut peer, mut replica) = started("CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT)");
        let sequence = |replica: &Replica| -> Option<i64> {
            replica
                .look()
                .query_row("SELECT max(seq) FROM sqlite_sequence WHERE name = 't'", [], |row| row.get(0))
                .expect("seq")
        };
        for (sent, kept) in [(7, 7), (5, 7), (9, 9)] {
            let mut window = peer.next(vec![]);
            window.end.sequences = vec![("t".to_owned(), sent), ("other".to_owned(), 1)];
            (window.end.user_version, window.end.application_id) = (Some(-3), Some(12));
            replica.apply(window).expect("apply");
            assert_eq!(sequence(&replica), Some(kept));
        }
        let read = |sql: &str| -> i32 { replica.look().query_row(sql, [], |row| row.get(0)).expect("pragma") };
        assert_eq!((read("PRAGMA user_version"), read("PRAGMA application_id")), (-3, 12));
        assert_eq!(read("SELECT count(*) FROM sqlite_sequence"), 1);
    }

    #[test]
    fn a_part_of_a_window_says_that_readers_are_between_transactions() {
        let (mut peer, mut replica) = started("CREATE TABLE t(a)");
        let mut window = peer.next(vec![]);
        window.end.last_part = false;
        replica.apply(window).expect("apply");
        assert!(replica.held().between_transactions);
        replica.apply(peer.next(vec![])).expect("apply");
        assert!(!replica.held().between_transactions);
    }

    #[test]
    fn a_new_generation_keeps_its_progress_and_a_table_that_is_gone_has_none() {
        let (mut peer, mut replica) = started("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
        replica.apply(peer.next(vec![peer.range("t", None, None, true)])).expect("apply");
        peer.generation = 1;
        let applied = replica.apply(peer.next(peer.catalog())).expect("apply");
        assert!(applied.needs.is_empty());
        let held = replica.held();
        assert_eq!(held.tables.len(), 1);
        assert_eq!((held.tables[0].progress.table, &held.tables[0].progress.state), (TableId(2), &CopyState::Done));
        peer.run("DROP TABLE t");
        replica.apply(peer.next(peer.catalog())).expect("apply");
        assert!(replica.held().tables.is_empty());
    }

    #[test]
    fn a_table_that_somebody_dropped_here_is_made_and_asked_for() {
        let (mut peer, mut replica) = started("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
        replica.apply(peer.next(vec![peer.range("t", None, None, true)])).expect("apply");
        replica.run("DROP TABLE t");
        peer.run("INSERT INTO t VALUES (1, 1)");
        let applied = replica.apply(peer.next(vec![peer.upserts("t", "1")])).expect("apply");
        assert_eq!(applied.needs, [NeedRange { table: TableId(1), low: None, high: None }]);
        assert_eq!(replica.state("t"), CopyState::Pending);
        replica.assert_equal(&peer);
    }
}
