//! Two nodes as two processes, with a network of the test's own between them.

use std::{fs, path::PathBuf};

use super::{
    Place,
    process::{Process, free_port, quiesce},
    proxy::Proxy,
};

/// Which node dials the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dials {
    /// The node that sends.
    Source,
    /// The node that receives.
    Replica,
}

/// Two nodes, each of which can be started, killed and started again, and the network between them.
pub struct Pair {
    /// Where both databases are.
    pub place: Place,
    /// The network.
    pub proxy: Proxy,
    /// The node that sends, while it runs.
    pub source: Option<Process>,
    /// The node that receives, while it runs.
    pub replica: Option<Process>,
    /// Where the sender's status is served.
    pub source_admin: String,
    /// Where the receiver's status is served.
    pub replica_admin: String,
}

/// What a pair is configured with besides the necessary.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who dials.
    pub dials: Dials,
    /// Lines for the whole of the source's file.
    pub source: String,
    /// Lines for the link in the source's file, each indented by four spaces.
    pub source_link: String,
    /// Lines for the whole of the replica's file.
    pub replica: String,
    /// Lines for the link in the replica's file, each indented by four spaces.
    pub replica_link: String,
}

impl Default for Options {
    fn default() -> Self {
        let none = String::new;
        Self { dials: Dials::Replica, source: none(), source_link: none(), replica: none(), replica_link: none() }
    }
}

impl Pair {
    /// Configures both nodes in `place`; starts neither.
    pub fn new(place: Place, options: &Options) -> Self {
        let listening = free_port();
        let proxy = Proxy::start(format!("127.0.0.1:{listening}").parse().unwrap());
        let (listen, peer) = (format!("listen: 127.0.0.1:{listening}\n"), format!("    peer: {}\n", proxy.address()));
        let source_dials = options.dials == Dials::Source;
        let chosen = |yes: bool, text: &str| if yes { text.to_owned() } else { String::new() };
        let admins = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
        let source = format!(
            "name: source\nspec: {{ connection_string: {} }}\n{}admin: {{ listen: {} }}\n{}links:\n  - name: replica\n    directions: send\n{}{}",
            place.source().display(),
            chosen(!source_dials, &listen),
            admins[0],
            options.source,
            chosen(source_dials, &peer),
            options.source_link,
        );
        let replica = format!(
            "name: replica\nspec: {{ connection_string: {} }}\n{}admin: {{ listen: {} }}\n{}links:\n  - name: source\n    directions: receive\n{}{}",
            place.replica().display(),
            chosen(source_dials, &listen),
            admins[1],
            options.replica,
            chosen(!source_dials, &peer),
            options.replica_link,
        );
        fs::write(place.file("source.yaml"), source).unwrap();
        fs::write(place.file("replica.yaml"), replica).unwrap();
        let [source_admin, replica_admin] = admins;
        Self { place, proxy, source: None, replica: None, source_admin, replica_admin }
    }

    /// The config of the node that sends.
    pub fn source_config(&self) -> PathBuf {
        self.place.file("source.yaml")
    }

    /// The config of the node that receives.
    pub fn replica_config(&self) -> PathBuf {
        self.place.file("replica.yaml")
    }

    /// Starts the node that sends.
    pub fn start_source(&mut self, env: &[(&str, &str)]) {
        self.source = Some(Process::run(&self.source_config(), env));
    }

    /// Starts the node that receives.
    pub fn start_replica(&mut self, env: &[(&str, &str)]) {
        self.replica = Some(Process::run(&self.replica_config(), env));
    }

    /// Starts both.
    pub fn start(&mut self) {
        self.start_source(&[]);
        self.start_replica(&[]);
    }

    /// Waits until the replica holds what the source does, and panics if a node ends meanwhile.
    #[track_caller]
    pub fn quiesce(&mut self) {
        let (source, replica) = (self.place.source(), self.place.replica());
        let (one, other) = (&mut self.source, &mut self.replica);
        super::process::quiesce_with(&source, &replica, &mut || {
            for node in [&mut *one, &mut *other].into_iter().flatten() {
                node.assert_running();
            }
        });
    }

    /// Like [`Pair::quiesce`], and then the oracle decides.
    #[track_caller]
    pub fn assert_equal(&mut self) {
        self.quiesce();
        super::oracle::assert_equal(&self.place.source(), &self.place.replica());
    }

    /// Stops both, as SIGTERM does, and panics unless they end well.
    #[track_caller]
    pub fn stop(mut self) -> Place {
        for node in [self.source.take(), self.replica.take()].into_iter().flatten() {
            node.stop();
        }
        std::mem::replace(&mut self.place, Place::new())
    }
}

/// A pair that is already up and equal, for tests that begin there.
#[track_caller]
pub fn running(place: Place, options: &Options) -> Pair {
    let mut pair = Pair::new(place, options);
    pair.start();
    quiesce(&pair.place.source(), &pair.place.replica());
    pair
}
