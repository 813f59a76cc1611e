//! Nodes that all take writes, as processes, each link over a network of the test's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rusqlite::Connection;
use serde_json::Value;

use super::{
    Place, open, open_reader,
    process::{Process, free_port, twinlite},
    proxy::Proxy,
    rest::{self, End, Rest},
    wait::until,
};

/// A node, which can be started, killed and started again.
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its database.
    pub database: PathBuf,
    /// Its config.
    pub config: PathBuf,
    /// While it runs.
    pub process: Option<Process>,
}

impl Node {
    /// Starts it.
    pub fn start(&mut self, env: &[(&str, &str)]) {
        self.process = Some(Process::run(&self.config, env));
    }

    /// Stops it, as SIGTERM does.
    #[track_caller]
    pub fn stop(&mut self) {
        self.process.take().expect("it runs").stop();
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Removes its database. It does not run, and no application has it open.
    pub fn remove_database(&self) {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{suffix}", self.database.display()));
        }
    }

    /// Puts a backup in the place of its database, under the same conditions.
    pub fn restore(&self, backup: &Path) {
        self.remove_database();
        fs::copy(backup, &self.database).unwrap();
    }

    /// Waits until a failpoint that it was started with has killed it.
    #[track_caller]
    pub fn until_it_died(&mut self) {
        let process = self.process.as_mut().expect("it was started");
        until("the failpoint to be reached", || process.ended().map(drop).ok_or_else(|| "it runs".to_owned()));
        self.process = None;
    }

    /// A connection as an application has it.
    pub fn app(&self) -> Connection {
        open(&self.database)
    }

    /// One number.
    #[track_caller]
    pub fn number(&self, sql: &str) -> i64 {
        open_reader(&self.database).query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// What it says of its links; nothing before it has a database.
    pub fn links(&self) -> Vec<Value> {
        let database = self.database.to_str().unwrap();
        let output = twinlite(&["status", "--db", database, "-o", "json"]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["links"].as_array().cloned().unwrap_or_default()
    }
}

/// Nodes, and the networks between them: a star around the first one.
pub struct Nodes {
    /// Where the databases are.
    pub place: Place,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The way from each node but the first to the first.
    pub proxies: Vec<Proxy>,
}

/// What nodes are configured with besides the necessary.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Lines for every node's file.
    pub node: String,
    /// Lines for every link, each indented by four spaces.
    pub link: String,
}

impl Nodes {
    /// Configures that many nodes, `a` and on, each with a link to `a`; starts none.
    pub fn new(place: Place, count: usize, settings: &Settings) -> Self {
        let names: Vec<String> = ('a'..='z').take(count).map(String::from).collect();
        let port = free_port();
        let proxies: Vec<Proxy> =
            (1..count).map(|_| Proxy::start(format!("127.0.0.1:{port}").parse().unwrap())).collect();
        let mut nodes = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let (database, config) = (place.file(&format!("{name}.db")), place.file(&format!("{name}.yaml")));
            let mut text =
                format!("name: {name}\nspec: {{ connection_string: {} }}\n{}", database.display(), settings.node);
            match number {
                0 => {
                    text.push_str(&format!("listen: 127.0.0.1:{port}\nlinks:\n"));
                    for peer in &names[1..] {
                        text.push_str(&format!("  - name: {peer}\n    directions: both\n{}", settings.link));
                    }
                }
                _ => text.push_str(&format!(
                    "links:\n  - name: a\n    peer: {}\n    directions: both\n{}",
                    proxies[number - 1].address(),
                    settings.link
                )),
            }
            fs::write(&config, text).unwrap();
            nodes.push(Node { name: name.clone(), database, config, process: None });
        }
        Self { place, nodes, proxies }
    }

    /// The same, started, with these tables in the first one's database, and quiet.
    #[track_caller]
    pub fn running(count: usize, ddl: &str, settings: &Settings) -> Self {
        let mut nodes = Self::new(Place::new(), count, settings);
        nodes.nodes[0].app().execute_batch(ddl).unwrap();
        nodes.start();
        nodes.quiesce();
        nodes
    }

    /// Has every config say whose rows win where two meet.
    pub fn let_win(&self, name: &str) {
        for node in &self.nodes {
            let (both, text) = ("    directions: both\n", fs::read_to_string(&node.config).unwrap());
            fs::write(&node.config, text.replace(both, &format!("{both}    seed: {name}\n"))).unwrap();
        }
    }

    /// Starts those that do not run.
    pub fn start(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.process.is_none()) {
            node.start(&[]);
        }
    }

    /// Stops those that run.
    #[track_caller]
    pub fn stop(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.process.is_some()) {
            node.stop();
        }
    }

    /// Waits until every link is up, both ways, by what the nodes say of themselves: the files of nodes that are about to
    /// start say no more than that they were at rest before.
    #[track_caller]
    pub fn await_links(&mut self) {
        let wanted = 4 * (self.nodes.len() - 1);
        until("every link to be live", || {
            self.assert_running();
            let links: Vec<Value> = self.nodes.iter().flat_map(Node::links).collect();
            let live = links.iter().filter(|link| link["state"] == "live").count();
            if live == wanted { Ok(()) } else { Err(format!("{live} of {wanted} directions: {links:?}")) }
        });
    }

    #[track_caller]
    fn assert_running(&mut self) {
        for process in self.nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
            process.assert_running();
        }
    }

    /// Waits until every node holds what all others have committed: it looks into the files, not at what the program says
    /// of itself.
    #[track_caller]
    pub fn quiesce(&mut self) {
        until("every node to hold what the others do", || {
            self.assert_running();
            let before = self.at_rest()?;
            if before == self.at_rest()? { Ok(()) } else { Err("it still moves".to_owned()) }
        });
    }

    /// What all of them hold, if nothing is on its way.
    fn at_rest(&self) -> Result<Vec<Rest>, String> {
        let ends: Vec<End<'_>> =
            self.nodes.iter().map(|node| End { name: &node.name, database: &node.database }).collect();
        let links: Vec<(usize, usize)> = (1..ends.len()).map(|node| (0, node)).collect();
        rest::at_rest(&ends, &links)
    }

    /// Waits, and then every table is equal everywhere, and every database is sound.
    #[track_caller]
    pub fn assert_equal(&mut self) {
        self.quiesce();
        for node in &self.nodes[1..] {
            super::oracle::assert_equal(&self.nodes[0].database, &node.database);
        }
        for node in &self.nodes {
            let check: String =
                open_reader(&node.database).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(check, "ok", "{}", node.name);
        }
    }
}
