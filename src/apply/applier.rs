//! The applier: one connection, which nothing else writes with, and what it knows of each peer.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::catalog::Received;
use super::checkpoint::{self, Copies};
use super::file::{self, create_file, switch_to_wal};
use super::merge::{self, Both, LogIndex, Watch};
use super::{Applied, Error, Held, Meeting, Recapture, Window, ahead, gone, mirror, user_triggers};
use crate::model::{NodeId, Selection};
use crate::sqlite::{self, Role};
use crate::telemetry::failpoint;

/// The page cache: a window's pages, or those of an index that is written in no order, are not written and read again
/// and again.
const CACHE_KIB: u32 = 32 << 10;

/// Applies the windows of any number of peers to one database. Lives on a [`sqlite::Db`]'s thread.
pub struct Applier {
    conn: Connection,
    path: PathBuf,
    node: NodeId,
    peers: HashMap<NodeId, Received>,
    index: Option<LogIndex>,
    recapture: Option<Box<dyn Recapture>>,
    /// The schema that the user's triggers were last looked at in, for each peer.
    triggers_at: HashMap<NodeId, i64>,
}

impl Applier {
    /// Opens the local database, makes it a node's where it is not yet, and switches it to WAL. With `create`, a file
    /// that is not there is made: readable and writable for its group, which is its folder's.
    ///
    /// # Errors
    /// [`Error::Create`], [`Error::Wal`], or why the file is no usable database.
    pub fn open(path: &Path, create: bool) -> Result<Self, Error> {
        if create && !path.exists() {
            create_file(path).map_err(|source| Error::Create { path: path.to_owned(), source })?;
        }
        let conn = sqlite::open(path, Role::Applier, create)?;
        switch_to_wal(&conn, path)?;
        // What the source holds, the mirror holds.
        conn.execute_batch(&format!("PRAGMA ignore_check_constraints = ON; PRAGMA cache_size = -{CACHE_KIB}"))?;
        let transaction = Transaction::new_unchecked(&conn, TransactionBehavior::Immediate)?;
        let node = sqlite::store::ensure_node(&transaction)?;
        transaction.commit()?;
        let (path, peers, triggers_at) = (path.to_owned(), HashMap::new(), HashMap::new());
        Ok(Self { conn, path, node, peers, index: None, recapture: None, triggers_at })
    }

    /// Sets what puts the capture of this database right when a schema change was applied.
    pub fn set_recapture(&mut self, recapture: Box<dyn Recapture>) {
        self.recapture = Some(recapture);
    }

    /// Keeps what both ends of a two-way link agreed on, before any window of the session. When this returns, it is
    /// durable.
    ///
    /// # Errors
    /// SQLite's.
    pub fn meet(&mut self, meeting: &Meeting) -> Result<(), Error> {
        let transaction = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
        merge::keep(&transaction, meeting)?;
        transaction.commit()?;
        self.peers.remove(&meeting.peer);
        Ok(())
    }

    /// Keeps how the first contact with a peer goes that only sends, before its first window: whether its rows win over
    /// ours, and whether what only we have stays. When this returns, it is durable.
    ///
    /// # Errors
    /// SQLite's.
    pub fn meet_sender(&mut self, peer: NodeId, wins: bool, how: merge::How) -> Result<(), Error> {
        let transaction = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
        merge::keep_one_way(&transaction, peer, wins, how)?;
        Ok(transaction.commit()?)
    }

    /// Whether a table here holds a row, of those that may come over a link.
    ///
    /// # Errors
    /// SQLite's.
    pub fn holds_rows(&self, selection: &Selection) -> Result<bool, Error> {
        Ok(file::holds_rows(&self.conn, selection)?)
    }

    /// The local node's id.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Its connection.
    #[cfg(test)]
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.conn
    }

    /// Forgets the peers that are not named, and whose copies into this database have not ended: no link receives from them
    /// any more. Before anything is applied. Returns their names.
    ///
    /// # Errors
    /// SQLite's.
    pub fn forget_all_but(&self, names: &[String]) -> Result<Vec<String>, Error> {
        gone::forget_all_but(&self.conn, names)
    }

    /// How many conflicts are recorded here.
    ///
    /// # Errors
    /// SQLite's.
    pub fn conflicts(&self) -> Result<u64, super::conflicts::Error> {
        super::conflicts::count(&self.conn)
    }

    /// What is held of a peer. `peer` is its id, where that is known already; a session begins with this.
    ///
    /// # Errors
    /// [`Error::PeerChanged`], or SQLite's.
    pub fn held(&mut self, peer_name: &str, peer: Option<NodeId>) -> Result<Held, Error> {
        let Some(stored) = checkpoint::by_name(&self.conn, peer_name, peer)? else { return Ok(Held::default()) };
        let (tables, left) = Copies::load(&self.conn, stored.peer)?.held();
        let due = sqlite::store::copy_due(&self.conn, stored.peer)?;
        Ok(Held {
            checkpoint: stored.checkpoint.filter(|_| due != Some(sqlite::store::UNSETTLED)),
            tables,
            between_transactions: stored.between_transactions,
            windows: stored.windows,
            seen: stored.seen,
            copy_due: due.is_some(),
            union: merge::is_union(&self.conn, stored.peer)?,
            left,
        })
    }

    /// Applies one window in one transaction. When this returns, it is durable; when it fails, nothing of it is there.
    ///
    /// # Errors
    /// [`Error::Window`], which says why.
    pub fn apply(&mut self, window: Window<'_>) -> Result<Applied, Error> {
        let (name, from, to) = (window.peer_name.to_owned(), window.from, window.end.to.position);
        self.transact(window).map_err(|error| error.in_window(&name, from, to))
    }

    fn transact(&mut self, window: Window<'_>) -> Result<Applied, Error> {
        let (peer, merges) = (window.peer, window.rules.merge.is_some());
        let mut tries_left = if merges { ahead::TRIES_MAX } else { 0 };
        let transaction = loop {
            if tries_left > 0 {
                let recapture = Watch(self.recapture.as_deref_mut());
                ahead::look(&mut self.conn, self.node, &mut self.index, recapture)?;
            }
            user_triggers::look(&mut self.conn, self.triggers_at.entry(peer).or_default(), window.rules)?;
            let transaction = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
            if tries_left == 0 || ahead::is_near(&transaction, self.index.as_ref())? {
                break transaction;
            }
            tries_left -= 1;
        };
        user_triggers::check(&transaction, self.triggers_at[&peer], window.rules)?;
        let begun = Instant::now();
        // Out of the map until the commit: what a failed transaction knew of the schema is not so.
        let mut received = match self.peers.remove(&peer) {
            Some(received) => received,
            None => Received::load(&transaction, peer)?,
        };
        // The same: a failure takes back the temporary tables that it was made with, or what it absorbed.
        let mut index = self.index.take();
        index.as_mut().map(LogIndex::take_entries_read);
        let both = Both { us: self.node, index: &mut index };
        let lent = (merges.then_some(both), Watch(self.recapture.as_deref_mut()));
        let mut applied = mirror::apply(&transaction, &mut received, window, lent)?;
        failpoint::hit(failpoint::APPLY_BEFORE_COMMIT);
        transaction.commit()?;
        applied.held_lock = begun.elapsed();
        applied.absorbed = index.as_mut().map_or(0, LogIndex::take_entries_read);
        failpoint::hit(failpoint::APPLY_AFTER_COMMIT);
        self.peers.insert(peer, received);
        self.index = index;
        file::checkpoint_wal(&self.conn, &self.path);
        Ok(applied)
    }
}

#[cfg(test)]
mod tests {
    use super::super::NeedRange;
    use super::super::testing::{Peer, Replica, Said, integers, key, started};
    use super::*;
    use crate::model::{CopyState, TableId, Value};

    const SHOP: &str = "CREATE TABLE a(id INTEGER PRIMARY KEY, u UNIQUE, v); CREATE TABLE b(x, y)";

    #[test]
    fn a_window_is_applied_and_its_checkpoint_stored() {
        let mut peer = Peer::new(SHOP);
        let mut replica = Replica::new();
        peer.run("INSERT INTO a VALUES (1, 'x', 1), (2, 'y', 2); INSERT INTO b VALUES (1, 2), (1, 2)");
        let mut items = peer.catalog();
        items.extend([peer.upserts("a", "1"), peer.upserts("b", "1")]);
        let applied = replica.apply(peer.first(items)).expect("apply");
        assert_eq!((applied.upserts, applied.deletes, applied.migrated), (4, 0, true));
        assert_eq!(applied.tables.len(), 2);
        replica.assert_equal(&peer);

        peer.run("UPDATE a SET id = 3 WHERE id = 1; DELETE FROM b WHERE rowid = 1");
        let items = vec![peer.deletes("a", &[integers(&[1])]), peer.deletes("b", &[integers(&[1]), integers(&[77])])];
        let items = items.into_iter().chain([peer.upserts("a", "id = 3")]).collect();
        let applied = replica.apply(peer.next(items)).expect("apply");
        assert_eq!((applied.upserts, applied.deletes), (1, 2), "a row that is gone already is no failure");
        replica.assert_equal(&peer);

        let held = replica.reopen().held("peer", Some(peer.id)).expect("held");
        assert_eq!(held.checkpoint.map(|checkpoint| checkpoint.position), Some(peer.position()));
        assert_eq!((held.windows, held.between_transactions), (2, false));
    }

    #[test]
    fn two_rows_may_swap_a_unique_value_within_a_window() {
        for user_triggers in [false, true] {
            let mut peer = Peer::new(SHOP);
            let mut replica = Replica::new();
            replica.rules.user_triggers = user_triggers;
            peer.run("INSERT INTO a VALUES (1, 'x', 1), (2, 'y', 2)");
            let mut items = peer.catalog();
            items.push(peer.upserts("a", "1"));
            replica.apply(peer.first(items)).expect("apply");
            peer.run("UPDATE a SET u = 'z' WHERE id = 1; UPDATE a SET u = 'x' WHERE id = 2; UPDATE a SET u = 'y' WHERE id = 1");
            replica.apply(peer.next(vec![peer.upserts("a", "1")])).expect("apply");
            replica.assert_equal(&peer);
        }
    }

    #[test]
    fn a_window_that_comes_twice_or_too_early_is_refused() {
        let mut peer = Peer::new(SHOP);
        let mut replica = Replica::new();
        let first = peer.first(peer.catalog());
        replica.apply(first.clone()).expect("apply");
        let second = peer.next(vec![]);
        let third = peer.next(vec![]);
        assert_eq!(replica.apply(third).expect_err("early").word(), "out_of_order");
        replica.apply(second.clone()).expect("in order");
        assert_eq!(replica.apply(second).expect_err("twice").word(), "out_of_order");
        assert_eq!(replica.held().windows, 2);
    }

    #[test]
    fn an_error_in_the_middle_leaves_nothing_of_the_window() {
        let peer = Peer::new(SHOP);
        let mut replica = Replica::new();
        peer.run("INSERT INTO a VALUES (1, 'x', 1)");
        let mut items = peer.catalog();
        items.push(peer.upserts("a", "1"));
        let mut window = peer.first(items);
        window.fails = true;
        let error = replica.apply(window.clone()).expect_err("the spool broke");
        assert_eq!((error.word(), error.fault()), ("spool", crate::model::Fault::Retry));
        assert_eq!(replica.held(), Held::default());
        assert!(!sqlite::store::table_exists(&replica.look(), "a").expect("look"));
        window.fails = false;
        replica.apply(window).expect("apply");
        replica.assert_equal(&peer);
    }

    #[test]
    fn a_peer_of_another_id_under_a_known_name_is_refused() {
        let mut replica = Replica::new();
        let mut peer = Peer::new(SHOP);
        replica.apply(peer.first(peer.catalog())).expect("apply");
        let error = replica.applier().held("peer", Some(NodeId(999))).expect_err("another");
        assert_eq!(error.word(), "peer_changed");
        peer.id = NodeId(999);
        assert_eq!(replica.apply(peer.first(peer.catalog())).expect_err("another").word(), "peer_changed");
    }

    #[test]
    fn lost_history_copies_every_table_again() {
        let mut peer = Peer::new(SHOP);
        let mut replica = Replica::new();
        let mut items = peer.catalog();
        items.push(peer.range("a", None, None, true));
        replica.apply(peer.first(items)).expect("apply");
        assert_eq!(replica.state("a"), CopyState::Done);
        peer.seq += 100;
        let mut window = peer.first(peer.catalog());
        assert_eq!(replica.apply(window.clone()).expect_err("a gap").word(), "out_of_order");
        window.lost_history = true;
        let applied = replica.apply(window).expect("apply");
        assert!(applied.needs.is_empty(), "the peer knows");
        assert_eq!(replica.state("a"), CopyState::Pending);
        assert!(replica.held().tables.iter().all(|table| table.progress.lost_history));
    }

    #[test]
    fn a_marker_begins_a_copy_anew() {
        let mut peer = Peer::new(SHOP);
        let mut replica = Replica::new();
        let mut items = peer.catalog();
        items.push(peer.range("a", None, None, true));
        replica.apply(peer.first(items)).expect("apply");
        let mut window = peer.next(vec![peer.range("a", None, Some(key(&[5])), false)]);
        window.end.markers.push(TableId(1));
        replica.apply(window).expect("apply");
        assert_eq!(replica.state("a"), CopyState::Copying { after: key(&[5]) });
    }

    #[test]
    fn every_storage_class_arrives_bit_by_bit_whatever_the_declared_type() {
        let values =
            "(1, NULL), (2, 9223372036854775807), (3, -9223372036854775808), (4, 1e308), (5, -0.0), (6, 9e999),
            (7, 4.9e-324), (8, ''), (9, x''), (10, 'a' || char(0) || 'b'), (11, CAST(x'ff00fe' AS TEXT)),
            (12, zeroblob(100000)), (13, '1'), (14, 1), (15, 1.0), (16, x'31'), (17, '1e3 '), (18, 0.1)";
        for declared in ["", "INTEGER", "TEXT", "BLOB", "REAL", "NUMERIC", "VARCHAR(3)", "DATETIME", "ANY"] {
            for firing in [false, true] {
                let peer = Peer::new(&format!("CREATE TABLE t(id INTEGER PRIMARY KEY, v {declared})"));
                let mut replica = Replica::new();
                replica.rules.user_triggers = firing;
                peer.run(&format!("INSERT INTO t VALUES {values}"));
                let mut items = peer.catalog();
                items.push(peer.upserts("t", "1"));
                replica.apply(peer.first(items)).expect("apply");
                replica.assert_equal(&peer);
            }
        }
    }

    #[test]
    fn keys_with_null_become_exactly_the_rows_that_the_window_has() {
        let mut peer = Peer::new("CREATE TABLE t(k TEXT PRIMARY KEY, v)");
        let mut replica = Replica::new();
        peer.run("INSERT INTO t VALUES (NULL, 1), (NULL, 2), (NULL, 2), ('a', 3)");
        let mut items = peer.catalog();
        items.extend([peer.exactly("t", "k IS NULL"), peer.upserts("t", "k = 'a'")]);
        replica.apply(peer.first(items)).expect("apply");
        replica.assert_equal(&peer);
        peer.run("DELETE FROM t WHERE v = 1; UPDATE t SET v = 9 WHERE rowid = 2");
        let applied = replica.apply(peer.next(vec![peer.exactly("t", "k IS NULL")])).expect("apply");
        assert_eq!((applied.deletes, applied.upserts), (3, 2));
        replica.assert_equal(&peer);
        peer.run("DELETE FROM t WHERE k IS NULL");
        replica.apply(peer.next(vec![peer.deletes("t", &[vec![Value::Null]])])).expect("apply");
        replica.assert_equal(&peer);
    }

    #[test]
    fn a_new_replica_is_for_its_folders_group() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let replica = Replica::new();
        let found = std::fs::metadata(&replica.path).expect("file");
        assert_eq!(found.permissions().mode() & 0o777, 0o660);
        let folder = std::fs::metadata(replica.path.parent().expect("folder")).expect("folder");
        assert_eq!(found.gid(), folder.gid());
    }

    #[test]
    fn a_wal_that_has_grown_is_checkpointed() {
        let (mut peer, mut replica) = started("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
        peer.run("INSERT INTO t VALUES (1, zeroblob(5000000)), (2, zeroblob(40000000))");
        let in_database = |replica: &Replica| std::fs::metadata(&replica.path).expect("file").len();
        replica.apply(peer.next(vec![peer.upserts("t", "id = 1")])).expect("apply");
        assert!(in_database(&replica) < 1_000_000, "not for so little");
        replica.apply(peer.next(vec![peer.upserts("t", "id = 2")])).expect("apply");
        assert!(in_database(&replica) > 45_000_000);
        replica.assert_equal(&peer);
    }

    #[test]
    fn a_table_may_have_as_many_columns_as_sqlite_allows() {
        let columns: Vec<String> = (0..2_000).map(|number| format!("c{number}")).collect();
        for user_triggers in [false, true] {
            let (mut peer, mut replica) = started(&format!("CREATE TABLE t({})", columns.join(", ")));
            replica.rules.user_triggers = user_triggers;
            peer.run("INSERT INTO t(c0, c1999) VALUES (1, 2), (3, 4)");
            replica.apply(peer.next(vec![peer.range("t", None, None, true)])).expect("apply");
            peer.run("UPDATE t SET c1000 = 5");
            replica.apply(peer.next(vec![peer.range("t", None, None, true)])).expect("apply");
            let rows = "SELECT count(*) FROM t WHERE c1000 = 5 AND c1999 = c0 + 1";
            assert_eq!(replica.look().query_row(rows, [], |row| row.get::<_, i64>(0)).expect("count"), 2);
        }
    }

    /// The database may grow by so many pages.
    fn fill_disk(conn: &mut Connection, pages: i64) {
        let number =
            |conn: &Connection, sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("pragma");
        let now = number(conn, "PRAGMA page_count");
        number(conn, &format!("PRAGMA max_page_count = {}", now + pages));
    }

    /// One statement is interrupted, sooner or later, and none after it: as where a disk fails once, SQLite rolls back.
    fn interrupt(conn: &mut Connection, mut after: i64) {
        let handler = move || {
            after -= 1;
            after == -1
        };
        conn.progress_handler(100, Some(handler)).expect("handler");
    }

    /// Applies a window at a replica that is hindered ever less, until it goes through; until then nothing of it is there,
    /// and it is tried again by itself.
    fn applies_whole_or_not_at_all(replica: &mut Replica, window: &Said, (hinder, count): (Hinder, &str)) {
        let counted =
            |replica: &Replica| replica.look().query_row(count, [], |row| row.get::<_, i64>(0)).expect("count");
        let (held, before) = (replica.held(), counted(replica));
        for step in 0..10_000 {
            hinder(&mut replica.applier().conn, step);
            let done = replica.apply(window.clone());
            fill_disk(&mut replica.applier().conn, 1 << 20);
            replica.applier().conn.progress_handler(1, None::<fn() -> bool>).expect("handler");
            let Err(error) = done else {
                assert!(step > 3, "it was hindered {step} times");
                assert_ne!(counted(replica), before);
                return;
            };
            assert_eq!(error.fault(), crate::model::Fault::Retry, "step {step}: {}", sqlite::said(&error));
            assert_eq!((replica.held(), counted(replica)), (held.clone(), before), "step {step}");
        }
        panic!("it never goes through");
    }

    type Hinder = fn(&mut Connection, i64);

    const ROWS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150)
        INSERT INTO t SELECT i, printf('%0*d', 600, i) FROM n";

    #[test]
    fn a_disk_that_is_full_or_fails_leaves_nothing_of_the_window() {
        for (hinder, user_triggers) in
            [(fill_disk as Hinder, false), (fill_disk, true), (interrupt, false), (interrupt, true)]
        {
            let (mut peer, mut replica) = started("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
            replica.rules.user_triggers = user_triggers;
            peer.run(ROWS);
            let items = peer.catalog().into_iter().chain([peer.upserts("t", "1")]).collect();
            let window = peer.next(items);
            applies_whole_or_not_at_all(&mut replica, &window, (hinder, "SELECT count(*) FROM t"));
            replica.assert_equal(&peer);
            assert_eq!(replica.held().windows, 2);
        }
    }

    #[test]
    fn a_disk_that_fails_amid_a_migration_leaves_nothing_of_it() {
        for (ddl, change) in [
            ("CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "CREATE INDEX tv ON t(v)"),
            ("CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "CREATE UNIQUE INDEX tv ON t(v)"),
            (
                "CREATE TABLE t(id INTEGER PRIMARY KEY, v)",
                "ALTER TABLE t RENAME TO o; CREATE TABLE t(id INTEGER PRIMARY KEY, v NOT NULL);
                 INSERT INTO t SELECT * FROM o; DROP TABLE o",
            ),
        ] {
            let (mut peer, mut replica) = started(ddl);
            peer.run(ROWS);
            replica.apply(peer.next(vec![peer.range("t", None, None, true)])).expect("apply");
            peer.run(change);
            let window = peer.next(peer.catalog());
            let indexes = "SELECT count(*) FROM sqlite_schema WHERE name = 'tv' OR sql LIKE '%NOT NULL)%'";
            applies_whole_or_not_at_all(&mut replica, &window, (interrupt, indexes));
        }
    }

    #[test]
    fn after_a_vacuum_here_tables_whose_key_is_the_rowid_are_compared() {
        let (mut peer, mut replica) = started("CREATE TABLE k(id INTEGER PRIMARY KEY); CREATE TABLE t(a, b)");
        peer.run("INSERT INTO t VALUES (1, 1), (2, 2), (3, 3); DELETE FROM t WHERE a = 1");
        let copies = |peer: &Peer| vec![peer.range("k", None, None, true), peer.range("t", None, None, true)];
        replica.apply(peer.next(copies(&peer))).expect("apply");
        let asked = [NeedRange { table: peer.table_id("t"), low: None, high: None }];
        for between_sessions in [false, true] {
            replica.run("VACUUM");
            let mut items = Vec::new();
            if between_sessions {
                replica.reopen();
                items = peer.catalog();
            }
            let applied = replica.apply(peer.next(items)).expect("apply");
            assert_eq!(applied.needs, asked);
            assert_eq!((replica.state("t"), replica.state("k")), (CopyState::Pending, CopyState::Done));
            replica.apply(peer.next(vec![peer.range("t", None, None, true)])).expect("apply");
            replica.assert_equal(&peer);
            assert_eq!(replica.look().query_row("SELECT min(rowid) FROM t", [], |row| row.get(0)), Ok(2));
        }
        replica.reopen();
        let applied = replica.apply(peer.next(peer.catalog())).expect("apply");
        assert!(applied.needs.is_empty(), "nobody was at the schema: {:?}", applied.needs);
        peer.run("CREATE TABLE z(a)");
        let applied = replica.apply(peer.next(peer.catalog())).expect("apply");
        assert!(applied.migrated && applied.needs.is_empty(), "it was we: {:?}", applied.needs);
        assert!(replica.apply(peer.next(peer.catalog())).expect("apply").needs.is_empty());
    }
}
