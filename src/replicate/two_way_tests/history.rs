//! One random history: what happens, and what must hold when all has arrived.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use super::node::{Rows, Shape, template};
use super::oracle::{Facts, Fault, Oracle};
use super::random::Random;
use super::world::{BEGINNING_MS, World, folder};
use crate::apply::How;
use crate::model::Version;

/// Rounds after which a history that is still not quiet never will be.
const ROUNDS_MAX: usize = 400;

/// Databases to begin with, one for each shape: installing takes longer than a history.
static TEMPLATES: Mutex<BTreeMap<Shape, PathBuf>> = Mutex::new(BTreeMap::new());

pub(super) fn template_of(shape: Shape) -> PathBuf {
    let mut made = TEMPLATES.lock().expect("nobody panicked");
    made.entry(shape)
        .or_insert_with(|| {
            let path = folder().keep().join("template.db");
            template(&path, shape);
            path
        })
        .clone()
}

/// A history that is being made.
pub(super) struct History {
    random: Random,
    /// Apart, so that what happens besides does not depend on it.
    faults: Random,
    world: World,
    oracle: Oracle,
    facts: Facts,
    keys: usize,
    values: usize,
    jumps: i64,
    writers: Vec<usize>,
    may: May,
    /// Whether our triggers are gone.
    is_missing: bool,
    /// What happened, to be shown.
    pub(super) told: Vec<String>,
}

/// What may happen in it.
struct May {
    prune: bool,
    drift: bool,
    resync: bool,
    /// Logs reach their limit, and what is written then is not logged.
    fill: bool,
}

impl History {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = random.pick(&[2, 2, 3, 4, 5]);
        let skews: Vec<i64> = (0..count).map(|_| random.range(-50, 50)).collect();
        let star = random.chance(50);
        let edges: Vec<(usize, usize)> =
            (1..count).map(|node| (if star { 0 } else { random.below(node) }, node)).collect();
        let keys = random.pick(&[1, 2, 3, 4]);
        let uniques = random.pick(&[0, 0, 1, 1, 2, 3]);
        let shape = Shape { key: random.below(Shape::KEYS), uniques, index: random.below(Shape::INDEXES) };
        let values = random.pick(&[2, 3, 4]);
        let mut policies = BTreeMap::new();
        for edge in &edges {
            let preferred = random.pick(&[None, None, Some(edge.0), Some(edge.1)]);
            policies.insert(*edge, preferred.filter(|_| random.chance(30)));
        }
        let may = May { prune: random.chance(40), drift: random.chance(15), resync: random.chance(20), fill: false };
        let jumps = random.pick(&[0, 0, 80, 1000]);
        let writers = if random.chance(15) { vec![random.below(count)] } else { (0..count).collect() };
        let facts = Facts { one_writer: writers.len() == 1, uniques: uniques > 0, ..Facts::default() };
        let world = World::new(&template_of(shape), shape, &skews, &edges, policies);
        let told = vec![format!("{shape:?} edges {edges:?} skews {skews:?} policies {:?}", world.policies)];
        let faults = Random::new(seed ^ 0x00ff_00ff_00ff_00ff);
        let (oracle, is_missing) = (Oracle::default(), false);
        Self { random, faults, world, oracle, facts, keys, values, jumps, writers, may, is_missing, told }
    }

    /// One with more that goes wrong: logs that reach their limit, and first contacts that merge.
    fn harder(seed: u64) -> Self {
        let mut history = Self::new(seed);
        history.may.fill = history.faults.chance(50);
        if history.faults.chance(50) {
            (history.may.prune, history.world.how) = (true, How::Union);
        }
        history
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        self.told.push(what());
    }

    /// Runs it. What is wrong, if anything is.
    pub(super) fn run(&mut self) -> Option<Fault> {
        for _ in 0..self.random.range(10, 200) {
            self.world.now += self.random.range(0, 10);
            self.step();
        }
        self.settle()
    }

    fn step(&mut self) {
        let edge = self.random.below(self.world.edges.len());
        let (mut a, mut b) = self.world.edges[edge];
        if self.random.chance(50) {
            (a, b) = (b, a);
        }
        if self.may.drift && self.random.chance(2) {
            let node = self.random.pick(&self.writers);
            self.miss(node);
        }
        if self.may.resync && self.random.chance(3) && self.world.resync(a) {
            self.facts.resyncs += 1;
            self.tell(|| format!("resync {a}"));
        }
        if self.may.fill {
            self.fill_or_begin_anew();
        }
        match self.random.below(100) {
            0..30 => {
                let node = self.random.pick(&self.writers);
                self.write(node);
            }
            30..55 => self.send(a, b),
            55..88 => self.deliver(a, b),
            88..92 => {
                self.tell(|| format!("cut {a} {b}"));
                self.world.cut(a, b);
                self.restart(a);
            }
            92..97 => self.connect(edge),
            _ if self.may.prune => self.prune(),
            _ => {}
        }
    }

    fn send(&mut self, a: usize, b: usize) {
        let rows_max = self.random.pick(&[1, 2]);
        self.tell(|| format!("send {a} {b}"));
        self.world.send(a, b, rows_max);
    }

    fn deliver(&mut self, a: usize, b: usize) {
        if self.world.is_waiting(a, b) {
            self.tell(|| format!("deliver {a} {b}"));
            self.world.deliver(a, b);
        }
    }

    /// Now and then a link is cut because its node ended: all its links are, then.
    fn restart(&mut self, node: usize) {
        if !self.faults.chance(30) {
            return;
        }
        self.tell(|| format!("restart {node}"));
        let peers: Vec<usize> = self.world.nodes[node].links.keys().copied().collect();
        for peer in peers {
            self.world.cut(node, peer);
        }
        self.world.nodes[node].restart();
    }

    /// A log reaches its limit, and some time later its node notices.
    fn fill_or_begin_anew(&mut self) {
        if !self.faults.chance(3) {
            return;
        }
        let node = self.faults.pick(&self.writers);
        if self.world.is_full(node) {
            self.begin_anew(node);
        } else {
            self.tell(|| format!("fill {node}"));
            self.world.fill(node);
            self.facts.drifts += 1;
        }
    }

    fn begin_anew(&mut self, node: usize) {
        self.tell(|| format!("a new log at {node}"));
        self.facts.went_back |= self.world.nodes[node].went_back();
        self.oracle.log_ended(node);
        self.world.begin_anew(node);
    }

    fn connect(&mut self, edge: usize) {
        let (a, b) = self.world.edges[edge];
        self.tell(|| format!("connect {a} {b}"));
        self.world.connect(a, b);
    }

    fn prune(&mut self) {
        let node = self.random.below(self.world.nodes.len());
        self.facts.went_back |= self.world.nodes[node].went_back();
        let head = self.world.nodes[node].head();
        let to = self.random.range(0, head);
        self.tell(|| format!("prune {node} {to}"));
        self.world.prune(node, to);
    }

    /// A transaction of the application's.
    fn write(&mut self, node: usize) {
        if self.jumps > 0 && self.random.chance(10) {
            self.world.nodes[node].skew = self.random.range(-self.jumps, self.jumps);
        }
        self.world.tick();
        self.world.nodes[node].app.execute_batch("BEGIN IMMEDIATE").expect("begin");
        for _ in 0..self.random.pick(&[1, 1, 1, 2, 3]) {
            self.statement(node);
        }
        self.world.nodes[node].app.execute_batch("COMMIT").expect("commit");
    }

    /// The same, while our triggers are gone.
    fn miss(&mut self, node: usize) {
        self.tell(|| format!("miss {node}"));
        let app = &self.world.nodes[node].app;
        let mut statement = app.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").expect("prepare");
        let triggers = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
            .expect("triggers")
            .collect::<rusqlite::Result<Vec<_>>>()
            .expect("triggers");
        drop(statement);
        for (name, _) in &triggers {
            app.execute_batch(&format!("DROP TRIGGER \"{name}\"")).expect("drop");
        }
        self.is_missing = true;
        self.write(node);
        self.is_missing = false;
        for (_, sql) in &triggers {
            self.world.nodes[node].app.execute_batch(sql).expect("create");
        }
        self.facts.drifts += 1;
    }

    fn statement(&mut self, node: usize) {
        let shape = self.world.nodes[node].shape;
        let before = self.world.nodes[node].rows();
        let lives: Vec<usize> = before.keys().copied().collect();
        let key = self.random.below(self.keys);
        let or = self.random.pick(&["", " OR REPLACE", " OR REPLACE", " OR IGNORE", " OR ABORT", " OR FAIL"]);
        let id = self.oracle.id();
        let sql = match self.random.below(100) {
            0..15 if !lives.is_empty() => {
                let old = self.random.pick(&lives);
                let (old, new) = (shape.key_sql(old), shape.key_sql(key));
                format!("UPDATE{or} t SET k = {new}, id = {id} WHERE k = {old}")
            }
            15..32 => format!("DELETE FROM t WHERE k = {}", shape.key_sql(key)),
            _ => {
                let value = |random: &mut Random| {
                    let value = random.below(self.values);
                    if value == 0 { "NULL".to_owned() } else { format!("'{}'", ["a", "b", "c"][value - 1]) }
                };
                let values: Vec<String> = (0..shape.uniques).map(|_| value(&mut self.random)).collect();
                let all = values.iter().map(|value| format!(", {value}")).collect::<String>();
                let sets: String =
                    values.iter().enumerate().map(|(place, value)| format!(", u{place} = {value}")).collect();
                let key = shape.key_sql(key);
                match or {
                    "" => {
                        format!("INSERT INTO t VALUES ({key}, {id}{all}) ON CONFLICT(k) DO UPDATE SET id = {id}{sets}")
                    }
                    _ => format!("INSERT{or} INTO t VALUES ({key}, {id}{all})"),
                }
            }
        };
        // What a constraint refuses is not written.
        let outcome = self.world.nodes[node].app.execute_batch(&sql);
        let after = self.world.nodes[node].rows();
        self.tell(|| format!("at {node}: {sql}{}", if outcome.is_err() { " (refused)" } else { "" }));
        let (origin, now) = (self.world.nodes[node].id, BEGINNING_MS + self.world.now + self.world.nodes[node].skew);
        let seen = &self.world.nodes[node];
        let unlogged = Version { ts_ms: now, origin, seq: seen.head() + 1 };
        let version = |key| seen.newest_version(key).unwrap_or(unlogged);
        let is_logged = !self.is_missing && !self.world.is_full(node);
        self.oracle.note((node, is_logged), (&before, &after), self.facts.one_writer, version);
    }

    /// Brings all that is left everywhere, in random order.
    fn settle(&mut self) -> Option<Fault> {
        for node in 0..self.world.nodes.len() {
            if self.world.is_full(node) {
                self.begin_anew(node);
            }
        }
        for edge in 0..self.world.edges.len() {
            self.connect(edge);
        }
        let ways: Vec<(usize, usize)> = self.world.edges.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]).collect();
        for round in 0..ROUNDS_MAX {
            for _ in 0..ways.len() * 3 {
                self.world.now += 1;
                let (a, b) = self.random.pick(&ways);
                if self.random.chance(40) || !self.world.is_waiting(a, b) {
                    self.send(a, b);
                } else {
                    self.deliver(a, b);
                }
            }
            if round % 2 == 1 && self.world.is_quiet() {
                return self.oracle.verdict(&self.world, &self.facts);
            }
        }
        Some(Fault::NeverQuiet)
    }

    /// What every node holds, to be shown.
    pub(super) fn states(&self) -> Vec<Rows> {
        self.world.nodes.iter().map(super::node::Node::rows).collect()
    }
}

/// Runs many histories on all cores; every one must be without fault.
fn run_all(first: u64, count: u64, of_seed: fn(u64) -> History) {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8)) as u64;
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let failed = &failed;
            scope.spawn(move || {
                for seed in (first..first + count).filter(|seed| seed % threads == thread) {
                    let mut history = of_seed(seed);
                    let fault = history.run();
                    if let Some(fault) = fault {
                        let mut failed = failed.lock().expect("nobody panicked");
                        failed.push((history.told.len(), seed, fault, history.told.clone(), history.states()));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("nobody panicked");
    failed.sort_by_key(|(length, ..)| *length);
    let faults: Vec<(u64, Fault)> = failed.iter().map(|(_, seed, fault, ..)| (*seed, *fault)).collect();
    if let Some((_, seed, fault, told, states)) = failed.first() {
        panic!(
            "{} of {count} histories: {faults:?}\nseed {seed}: {fault:?} (again: TWINLITE_SEED={seed})\n{}\n{states:#?}",
            failed.len(),
            told.join("\n")
        );
    }
}

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn nodes_that_write_end_equal_and_nothing_is_lost_unrecorded() {
    let first = from_env("TWINLITE_SEED", 0);
    let count = from_env("TWINLITE_CASES", if first > 0 { 1 } else { 2_000 });
    run_all(first, count, History::new);
}

#[test]
fn logs_that_reach_their_limit_and_databases_that_are_merged_lose_nothing_unrecorded() {
    let first = from_env("TWINLITE_SEED", 0);
    let count = from_env("TWINLITE_CASES", if first > 0 { 1 } else { 500 });
    run_all(first, count, History::harder);
}
