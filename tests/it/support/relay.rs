//! A link between two nodes that passes on frame by frame, and holds the first ones where a test asks for that.

use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use twinlite::link::{Address, Connection, DialOptions, Frame, FrameSink, FrameStream, bind, dial, serve};

use super::wait::until;

/// Frames with which two ends meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The Hello of the end that dials. It has looked at its database, and the other one has not.
    FirstHello,
    /// The Hello that answers. Both have looked.
    SecondHello,
    /// The verdicts of both. Neither has kept what was decided.
    Verdicts,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::FirstHello, Self::SecondHello, Self::Verdicts];

    fn of(frame: &Frame, from_dialler: bool) -> Option<Self> {
        match frame {
            Frame::Hello(_) if from_dialler => Some(Self::FirstHello),
            Frame::Hello(_) => Some(Self::SecondHello),
            Frame::Verdict(_) => Some(Self::Verdicts),
            _ => None,
        }
    }

    /// How many frames that is.
    fn frames(self) -> usize {
        match self {
            Self::FirstHello | Self::SecondHello => 1,
            Self::Verdicts => 2,
        }
    }
}

/// What is held, and how many frames of it are.
struct Gate {
    held_at: Step,
    waiting: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

/// The link. It ends when dropped.
pub struct Relay {
    address: String,
    gate: Arc<Gate>,
    stop: CancellationToken,
    _runtime: Runtime,
}

impl Relay {
    /// Listens on a port of its own for the end that dials, dials `target`, and holds the frames of that step.
    pub fn start(target: &str, held_at: Step) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let gate = Arc::new(Gate { held_at, waiting: watch::channel(0).0, open: watch::channel(false).0 });
        let listener = runtime.block_on(bind(&"127.0.0.1:0".parse::<Address>().unwrap())).unwrap();
        let address = listener.local_address().to_string();
        let stop = CancellationToken::new();
        let (incoming, mut accepted) = mpsc::channel(1);
        runtime.spawn(serve(listener, incoming, stop.clone()));
        let (target, at_gate) = (target.parse::<Address>().unwrap(), Arc::clone(&gate));
        runtime.spawn(async move {
            while let Some(dialler) = accepted.recv().await {
                // Whoever does not listen yet is dialled again, for the other end dials again.
                if let Ok(listening) = dial(&target, DialOptions::default()).await {
                    tokio::spawn(pass_on(dialler, listening, Arc::clone(&at_gate)));
                }
            }
        });
        Self { address, gate, stop, _runtime: runtime }
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Waits until the frames are held.
    #[track_caller]
    pub fn wait(&self) {
        until("the ends to meet", || match *self.gate.waiting.borrow() {
            waiting if waiting >= self.gate.held_at.frames() => Ok(()),
            waiting => Err(format!("{waiting} frames of {:?}", self.gate.held_at)),
        });
    }

    /// Lets everything pass from now on.
    pub fn open(&self) {
        self.gate.open.send_replace(true);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn pass_on(dialler: Connection, listening: Connection, gate: Arc<Gate>) {
    let out = one_way(dialler.stream, listening.sink, (&gate, true));
    let back = one_way(listening.stream, dialler.sink, (&gate, false));
    tokio::join!(out, back);
}

async fn one_way(mut from: FrameStream, to: FrameSink, (gate, from_dialler): (&Gate, bool)) {
    while let Ok(Some(frame)) = from.next().await {
        if Step::of(&frame, from_dialler) == Some(gate.held_at) {
            gate.waiting.send_modify(|waiting| *waiting += 1);
            let _ = gate.open.subscribe().wait_for(|open| *open).await;
        }
        let passed = if frame.is_control() { to.control(frame) } else { to.data(frame).await };
        if passed.is_err() {
            return;
        }
    }
}
