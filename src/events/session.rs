//! One run of an engine, from where its consumer is: reads, hands over, notes, waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Standing};
use super::engine::{Observer, Progress, State};
use super::keeper::{Compared, Keeper};
use super::ledger::Ledger;
use super::log::{Ask, Log, Next, Outcome};
use super::start::Start;
use super::taken;
use super::{ChangesHandler, Ended, Engine, Error};
use crate::capture::wake::{AfterEvent, Wake};
use crate::capture::{self, Maintainer};
use crate::config::OnGap;
use crate::model::{Fault, Position};
use crate::sqlite::{self, Db};
use crate::telemetry::{EventsHandle, EventsState, failpoint};

/// How long a handler may go on with its batch once it is to stop. What it has not taken by then is handed over again.
const HANDLER_GRACE: Duration = Duration::from_secs(5);

/// How long it is waited before a read that failed for a passing reason is tried again.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Reads in a row that may fail for a passing reason: a minute of them is no passing reason any more.
const READS_FAILED_MAX: u32 = 300;

pub(super) struct Session {
    log: Db<Log>,
    wake: Wake,
    after_event: AfterEvent,
    ledger: Ledger,
    ask: Ask,
    cdc: bool,
    bootstrap: bool,
    takes_over: bool,
    consumer: String,
    database: std::path::PathBuf,
    observer: Option<Observer>,
    status: Option<EventsHandle>,
    events: u64,
    head: i64,
    reads_failed: u32,
    /// Whether a batch was handed over of which nobody said that it was taken.
    in_doubt: bool,
}

/// What comes after a step.
enum Then {
    /// There is more.
    GoOn,
    /// Something has to change first.
    Wait,
    End(Ended),
}

impl Session {
    pub async fn open(engine: &Engine, start: Start, maintainer: Db<Maintainer>) -> Result<Self, Error> {
        let (path, clock) = (engine.database.clone(), Arc::clone(&engine.clock));
        // Watching begins before the first read, so that nothing is missed.
        let opened = tokio::task::spawn_blocking(move || {
            let wake = Wake::new(&path)?;
            let log = Db::spawn("events-reader", move || Log::open(&path, clock))?;
            Ok::<_, Error>((wake, log))
        });
        let (wake, log) = opened.await.map_err(|_| Error::Closed(sqlite::Closed))??;
        let Start { id, at, standing, selection, takes_over, images: _ } = start;
        let ledger =
            Ledger::new(maintainer, (&engine.consumer, id), (at.position.epoch, standing.clone()), &engine.clock);
        let ask = Ask {
            standing,
            epoch: at.position.epoch,
            mark: (at.position.seq > 0).then_some((at.ts_ms, at.fingerprint)),
            selection: Arc::new(selection),
            batch_size: engine.batch_size,
            stop_at_gap: engine.on_gap == OnGap::Stop,
        };
        Ok(Self {
            log,
            wake,
            after_event: AfterEvent::default(),
            ledger,
            head: at.position.seq,
            ask,
            cdc: engine.cdc,
            bootstrap: engine.bootstrap,
            takes_over,
            consumer: engine.consumer.clone(),
            database: engine.database.clone(),
            observer: engine.observer.clone(),
            status: None,
            events: 0,
            reads_failed: 0,
            in_doubt: false,
        })
    }

    /// The same, telling there how it goes.
    pub fn shown_by(self, status: EventsHandle) -> Self {
        Self { status: Some(status), ..self }
    }

    /// Runs until it is done, cancelled, or something stands in the way.
    pub async fn run(
        &mut self,
        keeper: &Keeper,
        handler: &mut dyn ChangesHandler,
        cancel: &CancellationToken,
    ) -> Result<Ended, Error> {
        tracing::info!(consumer = self.consumer, from = self.ask.standing.seq, "running");
        if self.takes_over && !self.drain_taken(handler, cancel).await? {
            return Ok(Ended::Cancelled);
        }
        if !self.cdc && !self.bootstrap {
            return Ok(Ended::Done);
        }
        loop {
            if cancel.is_cancelled() {
                return Ok(Ended::Cancelled);
            }
            if keeper.torn_down().is_cancelled() {
                return Err(Error::TornDown { database: self.database.clone() });
            }
            match self.step(keeper, handler, cancel).await? {
                Then::GoOn => {}
                Then::End(ended) => return Ok(ended),
                Then::Wait => self.wait(keeper, cancel).await?,
            }
        }
    }

    /// Notes what was taken last, whatever it ended with, and closes what it has open.
    pub async fn close(self, ended: Result<Ended, Error>) -> Result<Ended, Error> {
        let Self { mut ledger, log, in_doubt, .. } = self;
        let noted = match &ended {
            // There is nothing to note it in.
            Err(Error::TornDown { .. }) => Ok(()),
            // It would bring the consumer back that is to know that it lost something.
            Err(Error::EventsLost { .. } | Error::Restored { .. } | Error::FileReplaced { .. }) => Ok(()),
            Ok(_) | Err(_) => ledger.note_at_end(in_doubt).await,
        };
        log.close().await;
        let ended = ended?;
        noted?;
        Ok(ended)
    }

    /// Hands over what was taken over from sqlite-cdc, which is older than everything in our log; `false` where it was
    /// cancelled meanwhile.
    async fn drain_taken(
        &mut self,
        handler: &mut dyn ChangesHandler,
        cancel: &CancellationToken,
    ) -> Result<bool, Error> {
        loop {
            let (epoch, size) = (self.ask.epoch, self.ask.batch_size);
            let read = self.ledger.call(move |maintainer| taken::next(maintainer.connection(), epoch, size)).await??;
            let Some((changes, up_to)) = read else { return Ok(true) };
            let then = self.ask.standing.clone();
            if !self.hand_over(Batch { changes, then }, handler, cancel).await? {
                return Ok(false);
            }
            self.ledger.call(move |maintainer| capture::forget_taken(maintainer.connection(), up_to)).await??;
            failpoint::hit(failpoint::EVENTS_AFTER_FORGET);
        }
    }

    async fn step(
        &mut self,
        keeper: &Keeper,
        handler: &mut dyn ChangesHandler,
        cancel: &CancellationToken,
    ) -> Result<Then, Error> {
        let ask = self.ask.clone();
        let outcome = match self.log.call(move |log| log.next(&ask)).await? {
            Err(error) if error.fault() == Fault::Retry && self.reads_failed < READS_FAILED_MAX => {
                self.reads_failed += 1;
                tracing::debug!(error = &error as &dyn std::error::Error, "read the log: try again");
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = sleep(READ_AGAIN_AFTER) => {}
                }
                return Ok(Then::GoOn);
            }
            outcome => outcome.map_err(|error| self.explained(error, keeper))?,
        };
        self.reads_failed = 0;
        match outcome {
            Outcome::SchemaMoved => match keeper.compare().await? {
                Compared::Done => Ok(Then::GoOn),
                Compared::NotYet => Ok(Then::Wait),
                Compared::OursToDo => {
                    self.ledger.reconcile().await?;
                    Ok(Then::GoOn)
                }
            },
            Outcome::Lost => Err(Error::EventsLost { consumer: self.consumer.clone() }),
            Outcome::Restored => Err(Error::Restored { consumer: self.consumer.clone(), seq: self.ask.standing.seq }),
            Outcome::Next(next) => self.take(next, handler, cancel).await,
        }
    }

    /// A log that is gone was most likely torn down.
    fn explained(&self, error: Error, keeper: &Keeper) -> Error {
        match error {
            Error::Read(capture::ReadError::NotCaptured) => Error::TornDown { database: self.database.clone() },
            Error::Sqlite(_) | Error::Read(_) if keeper.torn_down().is_cancelled() => {
                Error::TornDown { database: self.database.clone() }
            }
            error => error,
        }
    }

    async fn take(
        &mut self,
        next: Next,
        handler: &mut dyn ChangesHandler,
        cancel: &CancellationToken,
    ) -> Result<Then, Error> {
        self.head = next.head;
        let gave = !next.batches.is_empty();
        for batch in next.batches {
            if !self.hand_over(batch, handler, cancel).await? {
                return Ok(Then::End(Ended::Cancelled));
            }
        }
        (self.ask.standing, self.ask.mark) = (next.standing, next.mark);
        self.ledger.taken(self.ask.standing.clone());
        self.tell(0);
        self.ledger.note_if_due().await?;
        if let Some(table) = next.gap {
            return Err(Error::Gap { table });
        }
        let whole = self.ask.standing.copies.are_done();
        Ok(match (next.at_end, whole) {
            (true, true) if !self.cdc => Then::End(Ended::Done),
            // What came while the batches were taken is there already.
            (true, true) if gave => Then::GoOn,
            (true, true) => Then::Wait,
            (false, _) | (_, false) => Then::GoOn,
        })
    }

    /// Hands a batch over; `false` where it was cancelled meanwhile.
    async fn hand_over(
        &mut self,
        batch: Batch,
        handler: &mut dyn ChangesHandler,
        cancel: &CancellationToken,
    ) -> Result<bool, Error> {
        if cancel.is_cancelled() {
            return Ok(false);
        }
        failpoint::hit(failpoint::EVENTS_BEFORE_BATCH);
        self.in_doubt = true;
        let call = handler.handle_changes(&batch.changes);
        tokio::pin!(call);
        let taken = loop {
            tokio::select! {
                biased;
                taken = &mut call => break taken,
                () = cancel.cancelled() => match timeout(HANDLER_GRACE, &mut call).await {
                    Ok(taken) => break taken,
                    Err(_) => return Ok(self.left(&batch)),
                },
                () = sleep_until(self.ledger.due()), if self.ledger.is_behind() => self.ledger.note().await?,
            }
        };
        if taken.is_err() && cancel.is_cancelled() {
            return Ok(self.left(&batch));
        }
        taken.map_err(|source| Error::Handler { id: batch.changes.id.clone(), source })?;
        failpoint::hit(failpoint::EVENTS_AFTER_BATCH);
        self.in_doubt = false;
        self.events += batch.changes.events.len() as u64;
        self.ledger.taken(batch.then);
        self.tell(batch.changes.events.len() as u64);
        self.ledger.note_if_due().await?;
        Ok(true)
    }

    /// A batch that nobody has taken is the next one that is handed over; `false`, as it is cancelled.
    fn left(&self, batch: &Batch) -> bool {
        tracing::info!(
            consumer = self.consumer,
            batch = batch.changes.id,
            "stopped before a batch was taken: it comes first next time"
        );
        false
    }

    /// Tells how far it is, with so many more events.
    fn tell(&self, more: u64) {
        let standing: &Standing = self.ledger.standing();
        let state = if standing.copies.are_done() { State::Live } else { State::Bootstrap };
        let position = Position { epoch: self.ask.epoch, seq: standing.seq };
        let head = self.head.max(standing.seq);
        if let Some(status) = &self.status {
            let state = if state == State::Live { EventsState::Live } else { EventsState::Bootstrap };
            status.progress((state, more), position, head);
        }
        if let Some(observer) = &self.observer {
            observer(Progress { state, position, head, events: self.events });
        }
    }

    /// Waits until the database has changed, and notes meanwhile what is to be noted.
    async fn wait(&mut self, keeper: &Keeper, cancel: &CancellationToken) -> Result<(), Error> {
        loop {
            let again = self.after_event.wait();
            let due = self.ledger.is_behind().then(|| self.ledger.due());
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = keeper.torn_down().cancelled() => return Ok(()),
                written = self.wake.changed() => if written { self.after_event = AfterEvent::begin() },
                () = sleep(again.unwrap_or_default()), if again.is_some() => self.after_event = self.after_event.next(),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.ledger.note().await?,
            }
            if self.wake.replaced() {
                return Err(Error::FileReplaced { database: self.database.clone() });
            }
            if self.log.call(Log::changed).await?.unwrap_or(true) {
                keeper.changed();
                return Ok(());
            }
        }
    }
}
