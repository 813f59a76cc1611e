//! One random history: what happens, and what must hold when all has arrived.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use super::node::{Rows, Shape, template};
use super::oracle::{Facts, Fault, Oracle};
use super::random::Random;
use super::shrink;
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
    /// What the nodes are, to be shown.
    setting: String,
    /// What happened. Done again, it comes to the same.
    pub(super) happened: Vec<Step>,
}

/// One thing that happened, and when.
#[derive(Clone, Debug)]
pub(super) struct Step {
    now: i64,
    what: What,
}

/// What can happen.
#[derive(Clone, Debug)]
enum What {
    /// A transaction of the application's; not captured where our triggers are gone for it.
    Write {
        node: usize,
        skew: i64,
        captured: bool,
        statements: Vec<String>,
    },
    Send {
        from: usize,
        to: usize,
        rows_max: usize,
    },
    Deliver {
        from: usize,
        to: usize,
    },
    Cut {
        a: usize,
        b: usize,
    },
    Restart {
        node: usize,
    },
    Connect {
        a: usize,
        b: usize,
        is_lost: bool,
    },
    Prune {
        node: usize,
        to: i64,
    },
    Resync {
        node: usize,
    },
    /// A log reaches its limit.
    Fill {
        node: usize,
    },
    /// The node of such a log notices.
    BeginAnew {
        node: usize,
    },
}

/// Where the statements of a transaction come from.
enum Statements {
    Random(usize),
    Told(Vec<String>),
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
        let setting = format!("{shape:?} edges {edges:?} skews {skews:?} policies {:?}", world.policies);
        let faults = Random::new(seed ^ 0x00ff_00ff_00ff_00ff);
        let (oracle, happened) = (Oracle::default(), Vec::new());
        Self { random, faults, world, oracle, facts, keys, values, jumps, writers, may, setting, happened }
    }

    /// One with more that goes wrong: logs that reach their limit, and first contacts that merge.
    pub(super) fn harder(seed: u64) -> Self {
        let mut history = Self::new(seed);
        history.may.fill = history.faults.chance(50);
        if history.faults.chance(50) {
            (history.may.prune, history.world.how) = (true, How::Union);
        }
        history
    }

    /// Runs it. What is wrong, if anything is.
    pub(super) fn run(&mut self) -> Option<Fault> {
        for _ in 0..self.random.range(10, 200) {
            self.world.now += self.random.range(0, 10);
            self.step();
        }
        self.settle()
    }

    /// Does what happened in a history of this seed, or a part of it, and brings what is left everywhere.
    pub(super) fn run_again(&mut self, happened: &[Step]) -> Option<Fault> {
        for step in happened {
            self.world.now = step.now;
            self.perform(step.what.clone());
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
            self.write(node, false);
        }
        if self.may.resync && self.random.chance(3) {
            self.perform(What::Resync { node: a });
        }
        if self.may.fill {
            self.fill_or_begin_anew();
        }
        match self.random.below(100) {
            0..30 => {
                let node = self.random.pick(&self.writers);
                self.write(node, true);
            }
            30..55 => self.send(a, b),
            55..88 => self.deliver(a, b),
            88..92 => {
                self.perform(What::Cut { a, b });
                // Now and then a link is cut because its node ended: all its links are, then.
                if self.faults.chance(30) {
                    self.perform(What::Restart { node: a });
                }
            }
            92..97 => {
                let is_lost = self.faults.chance(20);
                self.connect(edge, is_lost);
            }
            _ if self.may.prune => {
                let node = self.random.below(self.world.nodes.len());
                let to = self.random.range(0, self.world.nodes[node].head());
                self.perform(What::Prune { node, to });
            }
            _ => {}
        }
    }

    /// A log reaches its limit, and some time later its node notices.
    fn fill_or_begin_anew(&mut self) {
        if self.faults.chance(3) {
            let node = self.faults.pick(&self.writers);
            self.perform(if self.world.is_full(node) { What::BeginAnew { node } } else { What::Fill { node } });
        }
    }

    fn send(&mut self, from: usize, to: usize) {
        let rows_max = self.random.pick(&[1, 2]);
        self.perform(What::Send { from, to, rows_max });
    }

    fn deliver(&mut self, from: usize, to: usize) {
        if self.world.is_waiting(from, to) {
            self.perform(What::Deliver { from, to });
        }
    }

    fn connect(&mut self, edge: usize, is_lost: bool) {
        let (a, b) = self.world.edges[edge];
        self.perform(What::Connect { a, b, is_lost });
    }

    fn perform(&mut self, what: What) {
        self.happened.push(Step { now: self.world.now, what: what.clone() });
        match what {
            What::Write { node, skew, captured, statements } => {
                self.world.nodes[node].skew = skew;
                self.transaction(node, captured, Statements::Told(statements));
            }
            What::Send { from, to, rows_max } => self.world.send(from, to, rows_max),
            What::Deliver { from, to } => self.world.deliver(from, to),
            What::Cut { a, b } => self.world.cut(a, b),
            What::Restart { node } => {
                let peers: Vec<usize> = self.world.nodes[node].links.keys().copied().collect();
                for peer in peers {
                    self.world.cut(node, peer);
                }
                self.world.nodes[node].restart();
            }
            What::Connect { a, b, is_lost } => self.world.connect(a, b, is_lost),
            What::Prune { node, to } => {
                self.facts.went_back |= self.world.nodes[node].went_back();
                self.world.prune(node, to);
                if self.world.has_cut_off(node, to) {
                    self.oracle.log_pruned(node, |key| self.world.nodes[node].logs(key));
                }
            }
            What::Resync { node } => self.facts.resyncs += usize::from(self.world.resync(node)),
            What::Fill { node } => {
                self.world.fill(node);
                self.facts.drifts += 1;
            }
            What::BeginAnew { node } => {
                self.facts.went_back |= self.world.nodes[node].went_back();
                self.oracle.log_ended(node);
                self.world.begin_anew(node);
            }
        }
    }

    /// A random transaction of the application's; not captured where our triggers are gone for it.
    fn write(&mut self, node: usize, captured: bool) {
        if self.jumps > 0 && self.random.chance(10) {
            self.world.nodes[node].skew = self.random.range(-self.jumps, self.jumps);
        }
        let (now, skew) = (self.world.now, self.world.nodes[node].skew);
        let count = self.random.pick(&[1, 1, 1, 2, 3]);
        let statements = self.transaction(node, captured, Statements::Random(count));
        self.happened.push(Step { now, what: What::Write { node, skew, captured, statements } });
    }

    /// Runs a transaction, and says the statements that it was made of.
    fn transaction(&mut self, node: usize, captured: bool, statements: Statements) -> Vec<String> {
        self.world.tick();
        let triggers = if captured { Vec::new() } else { self.world.nodes[node].drop_triggers() };
        self.world.nodes[node].app.execute_batch("BEGIN IMMEDIATE").expect("begin");
        let mut ran = Vec::new();
        let count = match &statements {
            Statements::Random(count) => *count,
            Statements::Told(told) => told.len(),
        };
        for place in 0..count {
            let sql = match &statements {
                Statements::Random(_) => self.random_statement(node),
                Statements::Told(told) => told[place].clone(),
            };
            self.statement(node, &sql, captured);
            ran.push(sql);
        }
        self.world.nodes[node].app.execute_batch("COMMIT").expect("commit");
        for sql in &triggers {
            self.world.nodes[node].app.execute_batch(sql).expect("create");
        }
        self.facts.drifts += usize::from(!captured);
        ran
    }

    fn random_statement(&mut self, node: usize) -> String {
        let shape = self.world.nodes[node].shape;
        let lives: Vec<usize> = self.world.nodes[node].rows().keys().copied().collect();
        let key = self.random.below(self.keys);
        let or = self.random.pick(&["", " OR REPLACE", " OR REPLACE", " OR IGNORE", " OR ABORT", " OR FAIL"]);
        let id = self.oracle.id();
        match self.random.below(100) {
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
        }
    }

    fn statement(&mut self, node: usize, sql: &str, captured: bool) {
        let before = self.world.nodes[node].rows();
        // What a constraint refuses is not written.
        drop(self.world.nodes[node].app.execute_batch(sql));
        let after = self.world.nodes[node].rows();
        let (origin, now) = (self.world.nodes[node].id, BEGINNING_MS + self.world.now + self.world.nodes[node].skew);
        let seen = &self.world.nodes[node];
        let unlogged = Version { ts_ms: now, origin, seq: seen.head() + 1 };
        let version = |key| seen.newest_version(key).unwrap_or(unlogged);
        let is_logged = captured && !self.world.is_full(node);
        self.oracle.note((node, is_logged), (&before, &after), self.facts.one_writer, version);
    }

    /// Brings all that is left everywhere, in random order.
    fn settle(&mut self) -> Option<Fault> {
        for node in 0..self.world.nodes.len() {
            if self.world.is_full(node) {
                self.perform(What::BeginAnew { node });
            }
        }
        for edge in 0..self.world.edges.len() {
            self.connect(edge, false);
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

    /// What the nodes are, what happened, and what every node holds, to be shown.
    pub(super) fn told(&self) -> String {
        let states: Vec<Rows> = self.world.nodes.iter().map(super::node::Node::rows).collect();
        let steps: String = self.happened.iter().map(|step| format!("{:>6} {:?}\n", step.now, step.what)).collect();
        format!("{}\n{steps}{states:#?}", self.setting)
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
                        failed.push((history.happened.len(), seed, fault, history));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("nobody panicked");
    failed.sort_by_key(|(length, ..)| *length);
    let faults: Vec<(u64, Fault)> = failed.iter().map(|(_, seed, fault, _)| (*seed, *fault)).collect();
    if let Some((_, seed, fault, history)) = failed.into_iter().next() {
        let told = shrink::told(|| of_seed(seed), fault, history);
        panic!(
            "{} of {count} histories: {faults:?}\nseed {seed}: {fault:?} (again: TWINLITE_SEED={seed})\n{told}",
            faults.len()
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
