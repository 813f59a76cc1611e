//! The thread that a connection lives on.
//!
//! SQLite blocks, so nothing async touches it: whoever needs a database sends a closure to its thread and awaits the
//! answer. The thread owns a state `S` (a connection, with whatever is cached beside it) and ends when the last handle
//! is dropped.

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

/// Jobs that wait at most: more callers than this wait for room, which no correct node comes near.
const JOBS_WAITING_MAX: usize = 64;

/// The thread is gone.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("the database's thread has ended")]
pub struct Closed;

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// A handle to a state that lives on a thread of its own. Clones share the thread.
pub struct Db<S> {
    jobs: mpsc::Sender<Job<S>>,
    thread: Arc<Thread>,
}

struct Thread(std::sync::Mutex<Option<std::thread::JoinHandle<()>>>);

impl<S> Clone for Db<S> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone(), thread: Arc::clone(&self.thread) }
    }
}

impl<S: 'static> Db<S> {
    /// Starts the thread and makes the state on it.
    ///
    /// # Errors
    /// Whatever `make` returns; the thread has ended then.
    ///
    /// # Panics
    /// If the machine has no thread left.
    pub fn spawn<E: Send + 'static>(
        name: &str,
        make: impl FnOnce() -> Result<S, E> + Send + 'static,
    ) -> Result<Self, E> {
        let (jobs, mut waiting) = mpsc::channel::<Job<S>>(JOBS_WAITING_MAX);
        let (made, outcome) = std::sync::mpsc::sync_channel(1);
        let work = move || {
            let mut state = match make() {
                Ok(state) => state,
                Err(error) => return drop(made.send(Err(error))),
            };
            let _ = made.send(Ok(()));
            while let Some(job) = waiting.blocking_recv() {
                job(&mut state);
            }
        };
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(work).expect("a thread can be started");
        outcome.recv().expect("the thread answers before it ends")?;
        Ok(Self { jobs, thread: Arc::new(Thread(std::sync::Mutex::new(Some(handle)))) })
    }

    /// Runs `job` on the thread, after whatever was sent before it. A job that was begun is finished even if the caller
    /// goes away.
    ///
    /// # Errors
    /// [`Closed`] if the thread has ended.
    pub async fn call<T: Send + 'static>(&self, job: impl FnOnce(&mut S) -> T + Send + 'static) -> Result<T, Closed> {
        let (answer, answered) = oneshot::channel();
        let job: Job<S> = Box::new(move |state| drop(answer.send(job(state))));
        self.jobs.send(job).await.map_err(|_| Closed)?;
        answered.await.map_err(|_| Closed)
    }

    /// Has `job` run on the thread, after whatever was sent before it, and waits for nothing but room.
    ///
    /// # Errors
    /// [`Closed`] if the thread has ended.
    pub async fn tell(&self, job: impl FnOnce(&mut S) + Send + 'static) -> Result<(), Closed> {
        self.jobs.send(Box::new(job)).await.map_err(|_| Closed)
    }

    /// Ends the thread after what was sent to it, and waits until the connection is closed. Other handles find it gone.
    pub async fn close(self) {
        let Self { jobs, thread } = self;
        drop(jobs);
        let Ok(Thread(handle)) = Arc::try_unwrap(thread) else { return };
        let handle = handle.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(handle) = handle {
            let _ = tokio::task::spawn_blocking(move || handle.join()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_run_in_order_on_one_state() {
        let db = Db::spawn("test", || Ok::<_, Closed>(Vec::new())).expect("spawn");
        for number in 0..3 {
            db.call(move |state: &mut Vec<i32>| state.push(number)).await.expect("call");
        }
        assert_eq!(db.call(|state| state.clone()).await, Ok(vec![0, 1, 2]));
        db.close().await;
    }

    #[tokio::test]
    async fn a_panicking_job_closes_the_database_instead_of_hanging_its_caller() {
        let db = Db::spawn("test", || Ok::<_, Closed>(())).expect("spawn");
        assert_eq!(db.call(|()| panic!("on purpose")).await, Err::<(), _>(Closed));
        assert_eq!(db.call(|()| 1).await, Err(Closed));
    }
}
