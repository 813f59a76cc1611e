//! The applier: one connection, which nothing else writes with, and what it knows of each peer.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::catalog::Received;
use super::checkpoint::{self, Copies};
use super::{Applied, Error, Held, Window, mirror};
use crate::model::NodeId;
use crate::sqlite::{self, Role};
use crate::telemetry::failpoint;

/// The WAL is checkpointed above this size: an application that only reads would never do it.
const WAL_BYTES_MAX: u64 = 32 << 20;

/// Applies the windows of any number of peers to one database. Lives on a [`sqlite::Db`]'s thread.
pub struct Applier {
    conn: Connection,
    path: PathBuf,
    node: NodeId,
    peers: HashMap<NodeId, Received>,
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
        conn.execute_batch("PRAGMA ignore_check_constraints = ON")?;
        let transaction = Transaction::new_unchecked(&conn, TransactionBehavior::Immediate)?;
        let node = sqlite::store::ensure_node(&transaction)?;
        transaction.commit()?;
        Ok(Self { conn, path: path.to_owned(), node, peers: HashMap::new() })
    }

    /// The local node's id.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What is held of a peer. `peer` is its id, where that is known already; a session begins with this, and forgets
    /// what an earlier one said.
    ///
    /// # Errors
    /// [`Error::PeerChanged`], or SQLite's.
    pub fn held(&mut self, peer_name: &str, peer: Option<NodeId>) -> Result<Held, Error> {
        let Some(stored) = checkpoint::by_name(&self.conn, peer_name, peer)? else { return Ok(Held::default()) };
        let (tables, left) = Copies::load(&self.conn, stored.peer)?.held();
        Ok(Held {
            checkpoint: stored.checkpoint,
            tables,
            between_transactions: stored.between_transactions,
            windows: stored.windows,
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
        let peer = window.peer;
        let transaction = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
        let begun = Instant::now();
        // Out of the map until the commit: what a failed transaction knew of the schema is not so.
        let mut received = match self.peers.remove(&peer) {
            Some(received) => received,
            None => Received::load(&transaction, peer)?,
        };
        let mut applied = mirror::apply(&transaction, &mut received, window)?;
        failpoint::hit("apply_before_commit");
        transaction.commit()?;
        applied.held_lock = begun.elapsed();
        failpoint::hit("apply_after_commit");
        self.peers.insert(peer, received);
        self.checkpoint_wal();
        Ok(applied)
    }

    /// Moves what the WAL holds into the database, as far as its readers let it. A failure costs nothing but disk.
    fn checkpoint_wal(&self) {
        let mut wal = self.path.clone().into_os_string();
        wal.push("-wal");
        if std::fs::metadata(wal).is_ok_and(|wal| wal.len() > WAL_BYTES_MAX)
            && let Err(error) = self.checkpoint_if_behind()
        {
            tracing::debug!(%error, "WAL not checkpointed");
        }
    }

    /// A WAL keeps its size once it was written from its beginning again, so the file's size alone says nothing.
    fn checkpoint_if_behind(&self) -> rusqlite::Result<()> {
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let (frames, moved) = self.conn.prepare_cached("PRAGMA main.wal_checkpoint(NOOP)")?.query_row([], read)?;
        let page: i64 = self.conn.prepare_cached("PRAGMA main.page_size")?.query_row([], |row| row.get(0))?;
        if (frames - moved).saturating_mul(page).cast_unsigned() > WAL_BYTES_MAX {
            self.conn.prepare_cached("PRAGMA main.wal_checkpoint(PASSIVE)")?.query_row([], |_| Ok(()))?;
        }
        Ok(())
    }
}

fn switch_to_wal(conn: &Connection, path: &Path) -> Result<(), Error> {
    let mode: String = conn
        .query_row("PRAGMA main.journal_mode = WAL", [], |row| row.get(0))
        .map_err(sqlite::Error::doing("switch the replica to WAL"))?;
    if mode.eq_ignore_ascii_case("wal") {
        return Ok(());
    }
    Err(Error::Wal { path: path.to_owned(), mode })
}

/// SQLite gives `-wal` and `-shm` the mode of the database's file.
fn create_file(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
    const MODE: u32 = 0o660;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let group = std::fs::metadata(folder)?.gid();
    if file.metadata()?.gid() != group
        && let Err(error) = fchown(&file, None, Some(group))
    {
        tracing::warn!(%error, "new replica keeps our own group, not its folder's");
    }
    // The umask may have taken the group's bits away.
    file.set_permissions(std::fs::Permissions::from_mode(MODE))
}
