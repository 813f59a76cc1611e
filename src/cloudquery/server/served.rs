//! What is served, and how far a client has got with it.
//!
//! Init makes a [`Session`] of a spec; Close ends it; Init again makes another and drops the one before, whose open Write
//! streams end as they began, in their own database. One of Init, Read, Sync and Close runs at a time; Write does not
//! count, so that a source may read its state while its destination is written into.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use super::status::{Failure, said};
use crate::cloudquery::destination::{Destination, Options, Spec};
use crate::cloudquery::source::{Source, SourceFactory};
use crate::telemetry::plugin_log;

/// What a server offers its clients.
#[derive(Clone, Default)]
pub struct Served {
    /// Which databases they may name.
    pub options: Options,
    /// What opens sources; without it the plugin is a destination alone.
    pub sources: Option<Arc<dyn SourceFactory>>,
}

/// A plugin: what it serves, and where its clients have got to. Clones are handles to the same.
#[derive(Clone)]
pub(super) struct Plugin {
    served: Arc<Served>,
    /// Held by whoever must be alone.
    turn: Arc<Semaphore>,
    state: Arc<Mutex<State>>,
}

#[derive(Clone)]
enum State {
    /// Nobody has called Init, or the last one failed.
    New,
    Open(Arc<Session>),
    Closed,
}

/// What an Init made.
pub(super) struct Session {
    pub(super) destination: Destination,
    spec: Vec<u8>,
    no_connection: bool,
    source: OnceCell<Arc<dyn Source>>,
}

/// Why there is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// Init was not called.
    New,
    /// Close was.
    Closed,
}

impl Absent {
    /// The failure of a call, given what it says where Init was not called.
    pub(super) fn or(self, before_init: Failure) -> Failure {
        match self {
            Self::New => before_init,
            Self::Closed => Failure::Closed,
        }
    }
}

impl Plugin {
    pub(super) fn new(served: Served) -> Self {
        let state = Arc::new(Mutex::new(State::New));
        Self { served: Arc::new(served), turn: Arc::new(Semaphore::new(1)), state }
    }

    pub(super) fn served(&self) -> &Served {
        &self.served
    }

    /// The right to be alone until it is dropped; `None` while another has it.
    pub(super) fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.turn).try_acquire_owned().ok()
    }

    pub(super) fn session(&self) -> Result<Arc<Session>, Absent> {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::New => Err(Absent::New),
            State::Open(session) => Ok(Arc::clone(session)),
            State::Closed => Err(Absent::Closed),
        }
    }

    fn set(&self, state: State) -> State {
        std::mem::replace(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner), state)
    }

    /// Init. The session before is dropped first, so that a database can be opened anew; where it fails there is none.
    pub(super) async fn init(&self, spec: &[u8], no_connection: bool, invocation_id: &str) -> Result<(), Failure> {
        let _turn = self.turn().ok_or(Failure::InitBusy)?;
        drop(self.set(State::New));
        plugin_log::set_invocation(invocation_id);
        let failed = |error: &(dyn std::error::Error + 'static)| Failure::Init(said(error));
        let parsed = Spec::parse(spec).map_err(|error| failed(&error))?;
        let options = Options { no_connection, ..self.served.options.clone() };
        let destination = Destination::open(&parsed, &options).await.map_err(|error| failed(&error))?;
        let session = Session { destination, spec: spec.to_vec(), no_connection, source: OnceCell::new() };
        self.set(State::Open(Arc::new(session)));
        tracing::info!(no_connection, "initialized");
        Ok(())
    }

    /// Close. Before any Init there is nothing to close, and nothing wrong with that.
    pub(super) async fn close(&self) -> Result<(), Failure> {
        let _turn = self.turn().ok_or(Failure::CloseBusy)?;
        match self.set(State::Closed) {
            State::New => {
                self.set(State::New);
                Ok(())
            }
            State::Open(session) => session.destination.close().await.map_err(|error| Failure::Close(said(&error))),
            State::Closed => Err(Failure::CloseTwice),
        }
    }

    /// The session's source, opened where nobody has asked for it before. The error says why there is none.
    pub(super) async fn source(&self, session: &Session) -> Result<Arc<dyn Source>, String> {
        let Some(sources) = &self.served.sources else { return Err("not implemented".to_owned()) };
        let open = || sources.open(&session.spec, session.no_connection);
        session.source.get_or_try_init(open).await.cloned().map_err(|error| said(&error))
    }
}
