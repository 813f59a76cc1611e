//! The connection that capture is maintained on, for a database thread of its own.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::consumers::{self, Consumer};
use super::{
    CaptureOptions, CheckpointVerdict, Error, Generation, Installed, LogState, PruneRequest, Pruned, Reconciled,
    SkippedTable, checkpoint, ddl, drift, generation, install, prune, resync, take_over, teardown,
};
use super::{FIRST_CONSUMER, forget_taken};
use crate::model::{Checkpoint, Clock, NodeId, Position};
use crate::sqlite;

/// A connection with what capture needs to know, as the state of a [`crate::sqlite::Db`] thread.
pub struct Maintainer {
    connection: Connection,
    options: CaptureOptions,
    clock: Arc<dyn Clock>,
}

impl Maintainer {
    /// Over a connection opened as [`crate::sqlite::Role::Maintainer`].
    pub fn new(connection: Connection, options: CaptureOptions, clock: Arc<dyn Clock>) -> Self {
        Self { connection, options, clock }
    }

    /// Opens the database for it.
    ///
    /// # Errors
    /// Why the file cannot be used.
    pub fn open(path: &Path, options: CaptureOptions, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let connection = sqlite::open(path, sqlite::Role::Maintainer, false)?;
        sqlite::store::check_format(&connection)?;
        Ok(Self::new(connection, options, clock))
    }

    /// Keeps the log for this peer from `from` on. Writes nothing where the peer is known already.
    ///
    /// # Errors
    /// [`consumers::list`]'s.
    pub fn meet_peer(&mut self, name: &str, peer: NodeId, from: Position) -> Result<(), Error> {
        let known = consumers::list(&self.connection)?;
        let known = known.iter().any(|one| one.name == name && one.peer == Some(peer) && !one.cut_off);
        if known {
            return Ok(());
        }
        let consumer = Consumer {
            name: name.to_owned(),
            kind: "link".to_owned(),
            peer: Some(peer),
            position: Some(from),
            cut_off: false,
        };
        consumers::meet(&self.connection, &consumer, &*self.clock)
    }

    /// The connection, for reading what has no method here.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The connection, for a transaction that has no method here.
    pub fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Captures otherwise from the next [`Self::install`] or [`Self::reconcile`] on.
    pub fn set_options(&mut self, options: CaptureOptions) {
        self.options = options;
    }

    /// How the database is captured.
    pub fn options(&self) -> &CaptureOptions {
        &self.options
    }

    /// [`super::take_over()`].
    ///
    /// # Errors
    /// Its errors.
    pub fn take_over(&mut self) -> Result<(Vec<String>, Installed), Error> {
        take_over::take_over(&mut self.connection, &self.options, &*self.clock)
    }

    /// [`super::install()`].
    ///
    /// # Errors
    /// Its errors.
    pub fn install(&mut self) -> Result<Installed, Error> {
        install::install(&mut self.connection, &self.options, &*self.clock)
    }

    /// [`super::reconcile`].
    ///
    /// # Errors
    /// Its errors.
    pub fn reconcile(&mut self) -> Result<Reconciled, Error> {
        drift::reconcile(&mut self.connection, &self.options, &*self.clock)
    }

    /// [`super::run_ddl`].
    ///
    /// # Errors
    /// Its errors.
    pub fn run_ddl(&mut self, script: &str) -> Result<Reconciled, Error> {
        ddl::run_ddl(&mut self.connection, script, &self.options, &*self.clock)
    }

    /// [`super::prune()`], under the retention of the options.
    ///
    /// # Errors
    /// Its errors.
    pub fn prune(&mut self, acknowledged: Vec<(String, i64)>) -> Result<Pruned, Error> {
        let request = PruneRequest { acknowledged, retention: self.options.retention, keep_all: self.options.keep_all };
        prune::prune(&mut self.connection, &request, &*self.clock)
    }

    /// [`super::request_copy`].
    ///
    /// # Errors
    /// Its errors.
    pub fn request_copy(&mut self, tables: &[String]) -> Result<Vec<String>, Error> {
        resync::request_copy(&mut self.connection, tables, &*self.clock)
    }

    /// Keeps the log for these consumers no longer. Says so for a person.
    ///
    /// # Errors
    /// [`Error::UnknownConsumer`]; then none was dropped. SQLite's.
    pub fn drop_consumers(&mut self, names: &[String]) -> Result<Vec<String>, Error> {
        let known = consumers::list(&self.connection)?;
        if let Some(name) = names.iter().find(|name| !known.iter().any(|one| one.name == **name)) {
            return Err(Error::UnknownConsumer { name: name.clone() });
        }
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut did = Vec::new();
        for name in names {
            consumers::forget(&transaction, name)?;
            did.push(format!("dropped consumer {name}: the log is kept for it no longer"));
            // Nobody wants what was taken over.
            if name == FIRST_CONSUMER {
                let entries = forget_taken(&transaction, i64::MAX)?;
                did.push(format!("forgot {entries} entries of sqlite-cdc"));
            }
        }
        transaction.commit()?;
        Ok(did)
    }

    /// [`super::teardown()`].
    ///
    /// # Errors
    /// Its errors.
    pub fn teardown(&mut self) -> Result<Vec<String>, Error> {
        teardown::teardown(&mut self.connection)
    }

    /// [`super::tables`].
    ///
    /// # Errors
    /// Its errors.
    pub fn tables(&self) -> Result<Vec<Generation>, Error> {
        generation::tables(&self.connection)
    }

    /// The tables that are wanted and cannot be captured, and why.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], or SQLite's.
    pub fn skipped(&self) -> Result<Vec<SkippedTable>, Error> {
        drift::skipped(&self.connection)
    }

    /// [`super::log_state`].
    ///
    /// # Errors
    /// Its errors.
    pub fn log_state(&self) -> Result<LogState, Error> {
        checkpoint::log_state(&self.connection)
    }

    /// [`super::judge_checkpoint`].
    ///
    /// # Errors
    /// Its errors.
    pub fn judge_checkpoint(&self, checkpoint: &Checkpoint) -> Result<CheckpointVerdict, Error> {
        checkpoint::judge_checkpoint(&self.connection, checkpoint)
    }
}
