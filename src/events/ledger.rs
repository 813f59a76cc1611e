//! How far a consumer is, and how far it is noted to be: at most once a second, for every write of ours can cost the
//! application a retry.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Error;
use super::batch::Standing;
use crate::capture::consumers::EVENTS;
use crate::capture::{self, Maintainer};
use crate::model::{Clock, Epoch, Fault, NodeId, Position};
use crate::sqlite::Db;
use crate::telemetry::failpoint;

/// How often it is noted at most.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// How long noting is tried at the end beside an application that holds the write lock.
const END_TRIES_FOR: Duration = Duration::from_secs(10);

/// How long it is waited between two tries.
const END_TRY_EVERY: Duration = Duration::from_millis(100);

pub(super) struct Ledger {
    maintainer: Db<Maintainer>,
    consumer: String,
    id: NodeId,
    epoch: Epoch,
    clock: Arc<dyn Clock>,
    standing: Standing,
    noted: Standing,
    /// Whether the tables were noted since this ledger began.
    noted_whole: bool,
    noted_at: Option<Instant>,
}

impl Ledger {
    pub fn new(
        maintainer: Db<Maintainer>,
        (consumer, id): (&str, NodeId),
        (epoch, standing): (Epoch, Standing),
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let (consumer, clock) = (consumer.to_owned(), Arc::clone(clock));
        let noted = standing.clone();
        Self { maintainer, consumer, id, epoch, clock, standing, noted, noted_whole: false, noted_at: None }
    }

    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Everything up to there was taken.
    pub fn taken(&mut self, standing: Standing) {
        self.standing = standing;
    }

    /// Whether there is something to note.
    pub fn is_behind(&self) -> bool {
        self.standing != self.noted
    }

    /// When it may be noted.
    pub fn due(&self) -> Instant {
        self.noted_at.map_or_else(Instant::now, |at| at + NOTE_EVERY)
    }

    pub async fn note_if_due(&mut self) -> Result<(), Error> {
        if self.is_behind() && self.due() <= Instant::now() { self.note().await } else { Ok(()) }
    }

    /// Notes how far the consumer is. What fails for a passing reason is tried again when it is due.
    pub async fn note(&mut self) -> Result<(), Error> {
        self.noted_at = Some(Instant::now());
        match self.write(true).await? {
            Err(error) if error.fault() == Fault::Retry && error.word() != "disk_full" => {
                tracing::debug!(error = &error as &dyn std::error::Error, "note how far the consumer is: later");
                Ok(())
            }
            Err(source) => Err(Error::Note { consumer: self.consumer.clone(), source }),
            Ok(()) => Ok(()),
        }
    }

    /// Notes it for the last time. `open`: a batch beyond may have been taken, of which nobody heard.
    pub async fn note_at_end(&mut self, open: bool) -> Result<(), Error> {
        let begun = Instant::now();
        let mut due = self.is_behind() || !self.standing.copies.are_done();
        while due {
            match self.write(open).await? {
                Err(error) if error.fault() == Fault::Retry && begun.elapsed() < END_TRIES_FOR => {
                    sleep(END_TRY_EVERY).await;
                }
                Err(source) => return Err(Error::Note { consumer: self.consumer.clone(), source }),
                Ok(()) => due = false,
            }
        }
        Ok(())
    }

    async fn write(&mut self, open: bool) -> Result<Result<(), capture::Error>, Error> {
        let standing = self.standing.clone();
        let position = Position { epoch: self.epoch, seq: standing.seq };
        let news = !self.noted_whole || !open || standing.copies != self.noted.copies;
        let tables = news.then(|| standing.copies.given(open));
        let (name, id, clock) = (self.consumer.clone(), self.id, Arc::clone(&self.clock));
        let note = move |maintainer: &mut Maintainer| {
            failpoint::hit(failpoint::EVENTS_BEFORE_NOTE);
            let connection = maintainer.connection_mut();
            if tables.is_none() && capture::note_position(connection, (&name, EVENTS), position, &*clock)? {
                return Ok(());
            }
            let tables = tables.unwrap_or_default();
            capture::note_progress(connection, (&name, EVENTS), (id, position, &tables), &*clock)
        };
        let written = self.maintainer.call(note).await?;
        if written.is_ok() {
            failpoint::hit(failpoint::EVENTS_AFTER_NOTE);
            (self.noted, self.noted_whole) = (standing, true);
        }
        Ok(written)
    }

    /// Runs something else where the position is written.
    pub async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Maintainer) -> T + Send + 'static,
    ) -> Result<T, Error> {
        Ok(self.maintainer.call(work).await?)
    }

    /// Makes capture right after the schema has moved; for whoever owns the database.
    pub async fn reconcile(&self) -> Result<(), Error> {
        let reconciled = self.maintainer.call(Maintainer::reconcile).await?;
        match reconciled {
            Err(error) if error.fault() == Fault::Retry => {
                tracing::debug!(error = &error as &dyn std::error::Error, "compare the schema: try again");
                sleep(END_TRY_EVERY).await;
                Ok(())
            }
            reconciled => {
                reconciled?.notes.iter().for_each(|note| tracing::info!("{note}"));
                Ok(())
            }
        }
    }
}
