//! Hands incoming connections to the links that wait for them, by the name in Hello.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::link::{self, Connection, Frame, Hello, Listener};
use crate::model::Trouble;
use crate::replicate::session::read_hello;

/// Connections that may wait for one link: the newest counts, and a peer has one or two on the way when it reconnects.
const WAITING_MAX: usize = 4;
/// Connections that may be in Hello at once, whoever they are from.
const GREETING_MAX: usize = 64;

/// The links that wait to be dialled, by the peer's name.
pub(super) type Waiting = HashMap<String, mpsc::Sender<(Connection, Hello)>>;

/// Where a link finds its connections.
pub(super) fn expect(waiting: &mut Waiting, peer: &str) -> mpsc::Receiver<(Connection, Hello)> {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    waiting.insert(peer.to_owned(), sender);
    receiver
}

/// Takes a connection's Hello, and hands it over.
pub(super) fn start(
    listener: Listener,
    waiting: Waiting,
    our_name: &str,
    (stop, tasks): (&CancellationToken, &mut JoinSet<()>),
) {
    let (incoming, arrived) = mpsc::channel(GREETING_MAX);
    let serving = stop.clone();
    tasks.spawn(async move {
        if let Err(error) = link::serve(listener, incoming, serving).await {
            tracing::error!(error = &error as &dyn std::error::Error, "listening ended");
        }
    });
    tasks.spawn(hand_over(arrived, Arc::new(waiting), our_name.to_owned(), stop.clone()));
}

async fn hand_over(
    mut arrived: mpsc::Receiver<Connection>,
    waiting: Arc<Waiting>,
    our_name: String,
    stop: CancellationToken,
) {
    let mut greetings = JoinSet::new();
    loop {
        let connection = tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = greetings.join_next() => continue,
            connection = arrived.recv() => connection,
        };
        let Some(connection) = connection else { return };
        if greetings.len() >= GREETING_MAX {
            tracing::warn!(peer = connection.peer, "too many connections at once; refused one");
            continue;
        }
        greetings.spawn(greet(connection, Arc::clone(&waiting), our_name.clone()));
    }
}

async fn greet(mut connection: Connection, waiting: Arc<Waiting>, our_name: String) {
    let hello = match read_hello(&mut connection.stream).await {
        Ok(hello) => hello,
        Err(error) => {
            tracing::warn!(
                peer = connection.peer,
                error = &error as &dyn std::error::Error,
                "no Hello from a connection"
            );
            return;
        }
    };
    if let Some(link) = waiting.get(&hello.name) {
        let _ = link.send((connection, hello)).await;
        return;
    }
    tracing::warn!(peer = connection.peer, name = hello.name, "a node that no link waits for was refused");
    let trouble = Trouble {
        code: "unknown_node".to_owned(),
        message: format!("node \"{our_name}\" has no link named \"{}\" that waits to be dialled", hello.name),
        hint: "add the link there, or correct the name here".to_owned(),
    };
    let _ = connection.sink.control(Frame::Fault(trouble));
    while let Ok(Some(_)) = connection.stream.next().await {}
}
