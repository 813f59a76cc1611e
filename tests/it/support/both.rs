//! Two nodes that both take writes, as two processes, with a network of the test's own between them.

use std::{fs, path::PathBuf};

use rusqlite::Connection;
use serde_json::Value;

use super::{
    Place, open, open_reader,
    oracle::Oracle,
    process::{Process, expect_code, free_port, status},
    proxy::Proxy,
    rest::{self, End, Rest},
    wait::until,
};

/// Looks in a row that must find both ends at rest: what one applies may make it say something, and a schema that is sent
/// to and fro never rests.
const QUIET_LOOKS: usize = 20;

/// Two nodes, `a` and `b`, and the network between them. `a` listens.
pub struct Both {
    /// Where both databases are.
    pub place: Place,
    /// The network.
    pub proxy: Proxy,
    nodes: [Option<Process>; 2],
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that listens.
    A,
    /// The one that dials.
    B,
}

impl Side {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::A => "node-a",
            Self::B => "node-b",
        }
    }
}

impl Both {
    /// Configures both, runs `schema` at `a` with `b` empty, starts them, and waits until both hold the same. `link`: lines
    /// for the link in both files, each indented by four spaces.
    #[track_caller]
    pub fn start(schema: &str, link: &str) -> Self {
        let place = Place::new();
        let port = free_port();
        let proxy = Proxy::start(format!("127.0.0.1:{port}").parse().unwrap());
        for side in Side::ALL {
            let (listen, peer) = match side {
                Side::A => (format!("listen: 127.0.0.1:{port}\n"), String::new()),
                Side::B => (String::new(), format!("    peer: {}\n", proxy.address())),
            };
            let config = format!(
                "name: {}\nspec: {{ connection_string: {} }}\n{listen}links:\n  - name: {}\n    directions: both\n    seed: node-a\n{peer}{link}",
                side.name(),
                place.file(&format!("{}.db", side.name())).display(),
                side.other().name(),
            );
            fs::write(place.file(&format!("{}.yaml", side.name())), config).unwrap();
        }
        let mut both = Self { place, proxy, nodes: [None, None] };
        both.open(Side::A).execute_batch(schema).unwrap();
        drop(both.open(Side::B));
        for side in Side::ALL {
            both.run(side);
        }
        both.equal(&[]);
        both
    }

    /// The database of one.
    pub fn database(&self, side: Side) -> PathBuf {
        self.place.file(&format!("{}.db", side.name()))
    }

    /// An application's connection.
    pub fn open(&self, side: Side) -> Connection {
        open(&self.database(side))
    }

    /// Starts one.
    pub fn run(&mut self, side: Side) {
        let node = Process::run(&self.place.file(&format!("{}.yaml", side.name())), &[]);
        self.nodes[side as usize] = Some(node);
    }

    /// Stops one.
    #[track_caller]
    pub fn stop(&mut self, side: Side) {
        if let Some(node) = self.nodes[side as usize].take() {
            node.stop();
        }
    }

    /// Cuts the link, and waits until both have noticed.
    pub fn cut(&self) {
        self.proxy.refuse();
        self.proxy.cut();
    }

    /// Runs SQL at one, as its application does.
    #[track_caller]
    pub fn sql(&self, side: Side, sql: &str) {
        self.open(side).execute_batch(sql).unwrap_or_else(|error| panic!("{}: {sql}: {error}", side.name()));
    }

    /// One value of one's, as text.
    #[track_caller]
    pub fn cell(&self, side: Side, sql: &str) -> Option<String> {
        let sql = format!("SELECT CAST(({sql}) AS TEXT)");
        open_reader(&self.database(side)).query_row(&sql, [], |row| row.get(0)).unwrap()
    }

    /// A number of one's.
    #[track_caller]
    pub fn count(&self, side: Side, sql: &str) -> i64 {
        open_reader(&self.database(side)).query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Runs a script by `twinlite ddl` at one.
    #[track_caller]
    pub fn ddl(&self, side: Side, sql: &str) {
        let script = self.place.file("change.sql");
        fs::write(&script, sql).unwrap();
        expect_code(0, &["ddl".into(), "--db".into(), self.database(side).into_os_string(), script.into_os_string()]);
    }

    /// Conflicts recorded at both, in words; but for rows whose parents are not there yet, amid a migration.
    pub fn all_conflicts(&self) -> Vec<String> {
        let mut all = Vec::new();
        for side in Side::ALL {
            let conn = open_reader(&self.database(side));
            let mut statement = conn.prepare("SELECT * FROM __cdc_conflicts WHERE why <> 'foreign_key'").unwrap();
            let columns = statement.column_count();
            let rows = statement.query_map([], |row| {
                let cell =
                    |place| Ok::<_, rusqlite::Error>(format!("{:?}", row.get::<_, rusqlite::types::Value>(place)?));
                Ok((0..columns).map(cell).collect::<Result<Vec<_>, _>>()?.join(" | "))
            });
            all.extend(rows.unwrap().map(|row| format!("{}: {}", side.name(), row.unwrap())));
        }
        all
    }

    /// Waits until each holds everything that the other has committed, and neither has more to say.
    #[track_caller]
    pub fn quiesce(&mut self) {
        let (mut last, mut same) = (None, 0);
        until("both ends to hold what the other does", || {
            for node in self.nodes.iter_mut().flatten() {
                node.assert_running();
            }
            let now = self.at_rest()?;
            same = if last.as_ref() == Some(&now) { same + 1 } else { 0 };
            last = Some(now);
            if same < QUIET_LOOKS { Err("it moves".to_owned()) } else { Ok(()) }
        });
    }

    /// What both hold, if nothing is on its way.
    fn at_rest(&self) -> Result<Vec<Rest>, String> {
        let databases = Side::ALL.map(|side| self.database(side));
        let ends = Side::ALL.map(|side| End { name: side.name(), database: &databases[side as usize] });
        rest::at_rest(&ends, &[(0, 1)])
    }

    /// Waits for rest, and panics unless both hold the same. `skip`: objects that may differ.
    #[track_caller]
    pub fn equal(&mut self, skip: &[&str]) {
        self.quiesce();
        self.assert_same(skip);
    }

    /// Panics unless both hold the same, by rows and by schema.
    #[track_caller]
    pub fn assert_same(&self, skip: &[&str]) {
        let skip: Vec<String> = skip.iter().map(|&name| name.to_owned()).collect();
        let oracle = Oracle { versions: false, sequences: false, skip: skip.clone(), extra: skip, any_order: false };
        oracle.assert_equal(&self.database(Side::A), &self.database(Side::B));
    }

    /// Waits for rest, and panics unless both hold the same, however the constraints of a table are ordered.
    #[track_caller]
    pub fn equal_in_any_order(&mut self) {
        self.quiesce();
        let oracle = Oracle { versions: false, sequences: false, any_order: true, ..Oracle::default() };
        oracle.assert_equal(&self.database(Side::A), &self.database(Side::B));
    }

    /// How many copies of tables drift has begun at one, and whether it is blind towards the other.
    pub fn drift(&self, side: Side) -> (i64, bool) {
        let markers = self.count(side, "SELECT count(*) FROM __cdc_log WHERE op = 6");
        let blind = self.count(side, "SELECT count(*) FROM __cdc_checkpoints WHERE blind_until > seq");
        (markers, blind > 0)
    }

    /// Waits until one's `status` says that the link halted; returns what it says.
    #[track_caller]
    pub fn halted(&self, side: Side) -> String {
        let database = self.database(side);
        until(&format!("{} to halt", side.name()), || {
            let status = status(&database);
            let links: Vec<&Value> = status["links"].as_array().unwrap().iter().collect();
            match links.iter().find(|link| link["state"] == "halted") {
                Some(link) => Ok(link["last_error"].to_string()),
                None => Err(status.to_string()),
            }
        })
    }
}
