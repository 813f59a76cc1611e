//! Nodes that all take writes, as processes, each link over a network of the test's own.

use std::{fs, path::PathBuf};

use rusqlite::Connection;
use serde_json::Value;

use super::{
    Place, open, open_reader,
    process::{Process, free_port, twinlite},
    proxy::Proxy,
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

    /// Waits until every node holds what all others have committed: it looks into the files, not at what the program says
    /// of itself.
    #[track_caller]
    pub fn quiesce(&mut self) {
        until("every node to hold what the others do", || {
            for node in &mut self.nodes {
                if let Some(process) = &mut node.process {
                    process.assert_running();
                }
            }
            let before = self.position()?;
            if before == self.position()? { Ok(()) } else { Err("it still moves".to_owned()) }
        });
    }

    /// The ends of all logs, where each is applied at its peers.
    fn position(&self) -> Result<Vec<(i64, i64)>, String> {
        let ends = self.nodes.iter().map(log_end).collect::<Result<Vec<_>, _>>()?;
        for node in &self.nodes {
            // A copy that is due or under way begins at the end of the peer's log, and so has nothing behind it there.
            let unfinished = "SELECT (SELECT count(*) FROM __cdc_copies WHERE state <> 'done')
                + (SELECT count(*) FROM __cdc_meta WHERE key LIKE 'copy_due:%')";
            let conn = open_reader(&node.database);
            match conn.query_row(unfinished, [], |row| row.get::<_, i64>(0)) {
                Ok(0) => {}
                found => return Err(format!("{}: unfinished copies: {found:?}", node.name)),
            }
        }
        for (number, node) in self.nodes.iter().enumerate() {
            let peers: Vec<usize> = if number == 0 { (1..self.nodes.len()).collect() } else { vec![0] };
            for peer in peers {
                let applied = applied(node, &self.nodes[peer].name)?;
                if applied != ends[peer] {
                    return Err(format!(
                        "{} is at {:?}, {} has {applied:?}",
                        self.nodes[peer].name, ends[peer], node.name
                    ));
                }
            }
        }
        Ok(ends)
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

fn look(node: &Node) -> Result<Connection, String> {
    if !node.database.exists() {
        return Err(format!("{} has no database yet", node.name));
    }
    let conn = open_reader(&node.database);
    conn.execute_batch("BEGIN").map_err(|error| error.to_string())?;
    Ok(conn)
}

fn log_end(node: &Node) -> Result<(i64, i64), String> {
    let conn = look(node)?;
    let one = |sql: &str| -> Result<i64, String> {
        conn.query_row(sql, [], |row| row.get(0)).map_err(|error| format!("{}: {error}", node.name))
    };
    let known = one("SELECT value FROM __cdc_meta WHERE key = 'schema_version'")?;
    let actual = one("PRAGMA schema_version")?;
    if actual != known {
        return Err(format!("{}: the schema is at {actual}, accounted for up to {known}", node.name));
    }
    Ok((one("SELECT value FROM __cdc_meta WHERE key = 'epoch'")?, one("SELECT coalesce(max(seq), 0) FROM __cdc_log")?))
}

fn applied(node: &Node, peer: &str) -> Result<(i64, i64), String> {
    let conn = look(node)?;
    let text = |error: rusqlite::Error| format!("{}: {error}", node.name);
    let unfinished: Option<String> = conn
        .query_row(
            "SELECT group_concat(name) FROM (SELECT name FROM __cdc_copies WHERE state IN ('pending', 'copying') UNION ALL
             SELECT key FROM __cdc_meta WHERE key LIKE 'copy_due:%' OR key = 'missed')",
            [],
            |row| row.get(0),
        )
        .map_err(text)?;
    if let Some(tables) = unfinished {
        return Err(format!("{}: copies unfinished: {tables}", node.name));
    }
    // The first of them is what was agreed on when the two met; a window follows in any case, with the schema.
    let sql = "SELECT coalesce(epoch, 0), coalesce(seq, 0) FROM __cdc_checkpoints WHERE name = ?1 AND windows > 1";
    conn.query_row(sql, [peer], |row| Ok((row.get(0)?, row.get(1)?))).map_err(text)
}
