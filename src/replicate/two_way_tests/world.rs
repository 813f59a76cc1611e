//! Nodes and what happens between them, step by step: sending, applying, cutting, meeting, pruning.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::link::Link;
use super::node::{Node, Shape};
use crate::apply::merge::mutant::{Mutant, left_out};
use crate::apply::{FromPeer, How, LinkRules, Meeting, MergeRules, Policies, Policy, ToPeer, Window};
use crate::capture::CheckpointVerdict;
use crate::capture::source::{ChangeSource, ReadOutcome, ReadRequest, TwoWay};
use crate::codec::Compression;
use crate::link::{Frame, HeldTable};
use crate::migrate::Mode;
use crate::model::{Clock, RangeMode, SchemaKinds, Selection};
use crate::replicate::copies::{Copies, Manner, RangeBounds};
use crate::replicate::meeting::{self, Decided, Order, Seed, Side};

/// Times of a history begin here, so that no clock is ever below 0.
pub(super) const BEGINNING_MS: i64 = 1_000_000;

/// The nodes of a history.
pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) edges: Vec<(usize, usize)>,
    /// Which node wins on an edge; otherwise the last write.
    pub(super) policies: BTreeMap<(usize, usize), Option<usize>>,
    pub(super) now: i64,
    pub(super) blinds: usize,
    pub(super) seeds: usize,
    /// How a first contact joins two databases.
    pub(super) how: How,
    /// How many of them left what only one had.
    pub(super) unions: usize,
    _folder: tempfile::TempDir,
}

impl World {
    pub(super) fn new(
        template: &Path,
        shape: Shape,
        skews: &[i64],
        edges: &[(usize, usize)],
        policies: BTreeMap<(usize, usize), Option<usize>>,
    ) -> Self {
        let folder = folder();
        let nodes =
            skews.iter().enumerate().map(|(number, skew)| Node::new(folder.path(), template, number, shape, *skew));
        let nodes: Vec<Node> = nodes.collect();
        let edges = edges.to_vec();
        let mut world =
            Self { nodes, edges, policies, now: 0, blinds: 0, seeds: 0, how: How::Replace, unions: 0, _folder: folder };
        for (a, b) in world.edges.clone() {
            for (x, y) in [(a, b), (b, a)] {
                let head = world.nodes[y].maintainer.log_state().expect("log").head;
                let from_peer = FromPeer::SeedWon { head, how: How::Replace };
                world.agree((x, y), Decided { from_peer, to_peer: ToPeer::GoesOn }, false);
                let sent = world.nodes[x].maintainer.log_state().expect("log").head;
                let windows_before = world.windows_applied(x, y);
                world.nodes[x].links.insert(y, Link::at(sent, windows_before));
            }
        }
        world
    }

    fn agree(&mut self, (at, peer): (usize, usize), decided: Decided, is_first: bool) {
        let Decided { from_peer, to_peer } = decided;
        let (peer, peer_name) = (self.nodes[peer].id, name(peer));
        let our_head = self.nodes[at].head();
        self.nodes[at]
            .applier
            .meet(&Meeting { peer, peer_name, from_peer, to_peer, our_head, is_first })
            .expect("meet");
    }

    /// How many windows of a peer's were ever applied at a node.
    fn windows_applied(&self, at: usize, peer: usize) -> u64 {
        crate::sqlite::store::windows_applied(&self.nodes[at].app, self.nodes[peer].id).expect("read")
    }

    /// Sets every clock.
    pub(super) fn tick(&mut self) {
        for node in &self.nodes {
            node.clock.set(BEGINNING_MS + self.now + node.skew);
        }
    }

    /// One window, and at most one range of a copy, from one read transaction.
    pub(super) fn send(&mut self, a: usize, b: usize, rows_max: usize) {
        self.tick();
        let peer = self.nodes[b].id;
        let node = &mut self.nodes[a];
        node.maintainer.reconcile().expect("reconcile");
        let link = node.links.get_mut(&b).expect("a link");
        if !link.up {
            return;
        }
        let bounds = RangeBounds { rows_max, bytes_max: 1 << 20 };
        let mut step = link.copies.step(bounds);
        let mut again = true;
        loop {
            let request = request(
                link,
                (step.clone(), TwoWay { peer, yields: node.id > peer, windows_before: link.windows_before }),
            );
            let mut items = Vec::new();
            let outcome = node.reader.read(&request, &mut |item| {
                items.push(item);
                Ok(())
            });
            match outcome.expect("read") {
                ReadOutcome::SchemaChanged => {
                    node.maintainer.reconcile().expect("reconcile");
                }
                ReadOutcome::Nothing { .. } => return,
                ReadOutcome::Window(window) => {
                    let mut begins = window.tables.as_ref().is_some_and(|tables| link.copies.catalog(tables));
                    begins |= link.copies.mark(&window.end.markers, &window.end.repairs);
                    if begins && std::mem::take(&mut again) && window.copied.is_none() {
                        step = link.copies.step(bounds);
                        continue;
                    }
                    link.send(&window, items);
                    if let Some(copied) = &window.copied {
                        let low = step.as_ref().and_then(|step| step.low.as_ref());
                        link.copies.sent(link.number, low, copied);
                        link.served = link.number;
                    }
                    return;
                }
            }
        }
    }

    /// Whether something is on its way.
    pub(super) fn is_waiting(&self, a: usize, b: usize) -> bool {
        !self.nodes[a].links[&b].windows.is_empty()
    }

    /// Applies the next window.
    pub(super) fn deliver(&mut self, a: usize, b: usize) {
        self.tick();
        let Some(frames) = self.nodes[a].links.get_mut(&b).expect("a link").windows.pop_front() else { return };
        let (mut begin, mut commit, mut items) = (None, None, Vec::new());
        for bytes in frames {
            match Frame::decode(bytes).expect("a frame") {
                Frame::Begin(frame) => begin = Some(frame),
                Frame::Item(item) => items.push(item),
                Frame::Commit(frame) => commit = Some(frame),
                other => panic!("{other:?}"),
            }
        }
        let (begin, commit) = (begin.expect("begin"), commit.expect("commit"));
        let mut commit = commit;
        if left_out(Mutant::NoSeen) {
            commit.end.seen = 0;
        }
        if left_out(Mutant::AckOnly) {
            commit.end.seen = crate::sqlite::store::applied_seq(&self.nodes[a].app, self.nodes[b].id).expect("read");
        }
        if left_out(Mutant::SentIsThere) {
            commit.end.applied = u64::MAX;
        }
        if left_out(Mutant::NeverThere) {
            commit.end.applied = 0;
        }
        let rules = self.rules(a, b);
        let (peer, peer_name) = (self.nodes[a].id, name(a));
        let node = &mut self.nodes[b];
        let now_ms = node.clock.now_ms();
        let copying_back = node.links[&a].copying_back(commit.end.applied);
        let mut items = items.into_iter().map(Ok);
        let window = Window {
            peer,
            peer_name: &peer_name,
            rules: &rules,
            from: begin.from,
            lost_history: begin.lost_history,
            items: &mut items,
            end: &commit.end,
            copying_back,
            now_ms,
        };
        let applied = node.applier.apply(window).expect("apply");
        node.links.get_mut(&a).expect("a link").seen = applied.seen;
        let sender = self.nodes[a].links.get_mut(&b).expect("a link");
        for need in &applied.needs {
            sender.copies.need(need.table, need.low.as_ref(), need.high.as_ref());
        }
        sender.copies.acknowledged(begin.number);
    }

    fn rules(&self, a: usize, b: usize) -> LinkRules {
        let preferred = self.policies.get(&(a, b)).or_else(|| self.policies.get(&(b, a))).copied().flatten();
        let default =
            preferred.map_or(Policy::LastWriteWins, |node| Policy::Prefer { name: name(node), ours: node == b });
        let policies = Policies { default, tables: Vec::new() };
        let forwards = self.nodes[b].links.len() > 1;
        LinkRules {
            mode: Mode::Safe,
            kinds: SchemaKinds { triggers: false, ..SchemaKinds::ALL },
            selection: Selection::all(),
            protect: false,
            user_triggers: false,
            adopt: true,
            merge: Some(MergeRules {
                our_name: name(b),
                forwards,
                one_way: false,
                policies,
                clock_skew_max_ms: i64::MAX,
            }),
        }
    }

    pub(super) fn cut(&mut self, a: usize, b: usize) {
        for (x, y) in [(a, b), (b, a)] {
            self.nodes[x].links.get_mut(&y).expect("a link").cut();
        }
    }

    /// The handshake; the first node's content wins, if it comes to that. `is_lost`: the connection, when one end has kept what
    /// was decided and the other has not.
    pub(super) fn connect(&mut self, a: usize, b: usize, is_lost: bool) {
        if self.nodes[a].links[&b].up {
            return;
        }
        self.tick();
        let sides = [self.side(a, b, a), self.side(b, a, a)];
        let decide = |ours: usize| meeting::decide(&sides[ours], &sides[1 - ours]).expect("a seed is named");
        let [at_a, at_b] = [decide(0), decide(1)];
        let mut ends = [(a, b, at_a, at_b), (b, a, at_b, at_a)];
        if Order::of(&at_a, &at_b) == Order::Second {
            ends.reverse();
        }
        for (x, y, decided, other) in ends {
            self.agree((x, y), decided, Order::of(&decided, &other) == Order::First);
            if is_lost {
                return;
            }
            self.blinds += usize::from(decided.to_peer == ToPeer::CopiedAgain);
            self.seeds += usize::from(matches!(decided.from_peer, FromPeer::SeedWon { .. }));
            self.unions += usize::from(matches!(decided.from_peer, FromPeer::SeedWon { how: How::Union, .. }));
        }
        for (x, y, _, at_y) in ends {
            let (peer_name, id) = (name(x), self.nodes[x].id);
            let held = self.nodes[y].applier.held(&peer_name, Some(id)).expect("held");
            let sent = match at_y.from_peer {
                FromPeer::GoesOn => held.checkpoint.expect("a checkpoint"),
                FromPeer::CopiedAgain { head } | FromPeer::SeedLost { head, .. } | FromPeer::SeedWon { head, .. } => {
                    head
                }
            };
            let anew = crate::sqlite::store::copy_due(&self.nodes[y].app, id).expect("due").is_some();
            let table = |table: &crate::apply::HeldTable| HeldTable {
                progress: table.progress.clone(),
                name: table.name.clone(),
                rows: table.rows,
            };
            let tables: Vec<HeldTable> = held.tables.iter().map(table).collect();
            let windows_before = self.windows_applied(x, y);
            let link = self.nodes[x].links.get_mut(&y).expect("a link");
            // Every window that comes is read after this.
            let seen = sent.position.seq;
            let mode = if held.union { RangeMode::Union } else { RangeMode::Exact };
            let copies = Copies::new(&tables, anew, Manner::Merged).in_mode(mode);
            *link = Link { copies, seen, ..Link::at(sent, windows_before) };
        }
    }

    fn side(&mut self, at: usize, peer: usize, winner: usize) -> Side {
        let (our_name, id) = (name(at), self.nodes[at].id);
        let held = self.nodes[peer].applier.held(&our_name, Some(id)).expect("held");
        let unfinished = self.nodes[peer].is_copying(id);
        let node = &self.nodes[at];
        let lost = match held.checkpoint {
            None => true,
            Some(checkpoint) => match node.maintainer.judge_checkpoint(&checkpoint).expect("judge") {
                CheckpointVerdict::Known => false,
                CheckpointVerdict::CutOff => true,
                CheckpointVerdict::Diverged { why } => panic!("diverged: {why}"),
            },
        };
        let head = node.maintainer.log_state().expect("log").head;
        let seed = Some(Seed { winner: name(winner), how: self.how });
        Side { node: id, name: our_name, lost, unfinished, head, empty: false, met: true, restored: false, seed }
    }

    /// Removes entries below `to`, if every peer that is connected has seen them.
    pub(super) fn prune(&mut self, at: usize, to: i64) {
        let node = &self.nodes[at];
        let safe = |(peer, link): (&usize, &Link)| match left_out(Mutant::PruneAcked) {
            true => crate::sqlite::store::applied_seq(&self.nodes[*peer].app, node.id).expect("read"),
            false => link.seen,
        };
        if node.links.iter().any(|(peer, link)| link.up && to > safe((peer, link))) {
            return;
        }
        node.app.execute("DELETE FROM __cdc_log WHERE seq < ?1", [to.min(node.head())]).expect("prune");
    }

    /// Whether a peer that is away has not applied what was pruned below `to`.
    pub(super) fn has_cut_off(&self, at: usize, to: i64) -> bool {
        let node = &self.nodes[at];
        let applied = |peer: usize| crate::sqlite::store::applied_seq(&self.nodes[peer].app, node.id).expect("read");
        node.links.iter().any(|(peer, link)| !link.up && applied(*peer) < to - 1)
    }

    /// Whether a node's log has reached its limit, so that its triggers log nothing.
    pub(super) fn is_full(&self, at: usize) -> bool {
        self.nodes[at]
            .number("SELECT value <= (SELECT max(seq) FROM __cdc_log) FROM __cdc_meta WHERE key = 'capture_limit'")
            == 1
    }

    /// Lets a node's log reach its limit.
    pub(super) fn fill(&mut self, at: usize) {
        let node = &self.nodes[at];
        let sql = "UPDATE __cdc_meta SET value = (SELECT max(seq) FROM __cdc_log) WHERE key = 'capture_limit'";
        node.app.execute(sql, []).expect("a lower limit");
    }

    /// The node ends, for its log is full, and begins again, which begins a new log.
    pub(super) fn begin_anew(&mut self, at: usize) {
        self.tick();
        let peers: Vec<usize> = self.nodes[at].links.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.cut(at, peer));
        let node = &mut self.nodes[at];
        node.restart();
        assert!(node.maintainer.install().expect("install").new_epoch);
    }

    /// Copies a node's table to its peers again, because somebody asked for it.
    pub(super) fn resync(&mut self, at: usize) -> bool {
        let peers: Vec<usize> = self.nodes[at].links.keys().copied().collect();
        let busy = |peer: &usize| {
            let (ours, theirs) = (&self.nodes[at].links[peer], &self.nodes[*peer].links[&at]);
            let copying =
                self.nodes[at].is_copying(self.nodes[*peer].id) || self.nodes[*peer].is_copying(self.nodes[at].id);
            !ours.up || !ours.copies.done() || !theirs.copies.done() || copying || self.nodes[*peer].has_missed()
        };
        if self.nodes[at].has_missed() || peers.iter().any(busy) {
            return false;
        }
        self.tick();
        self.nodes[at].maintainer.request_copy(&[]).expect("request");
        true
    }

    /// Whether everything has arrived everywhere.
    pub(super) fn is_quiet(&self) -> bool {
        let quiet = |(a, b): (usize, usize)| {
            let (node, link) = (&self.nodes[a], &self.nodes[a].links[&b]);
            link.windows.is_empty()
                && link.copies.done()
                && link.catalog.is_some()
                && link.sent.position.seq == node.head()
                && !node.has_missed()
                && !self.nodes[b].is_copying(node.id)
        };
        self.edges.iter().all(|(a, b)| quiet((*a, *b)) && quiet((*b, *a)))
    }
}

fn request(link: &Link, (copy, way): (Option<crate::capture::source::CopyStep>, TwoWay)) -> ReadRequest {
    let after = link.sent.position.seq;
    ReadRequest {
        after,
        mark: (after > 0).then_some((link.sent.ts_ms, link.sent.fingerprint)),
        catalog_known: link.catalog,
        selection: Arc::new(Selection::all()),
        kinds: SchemaKinds::ALL,
        copy,
        window_rows: None,
        two_way: Some(way),
        batch_rows: 100,
        batch_bytes: 1 << 20,
        compression: Compression::None,
    }
}

/// What a node is called.
pub(super) fn name(node: usize) -> String {
    format!("n{node}")
}

/// In memory, where the machine has such a folder.
pub(super) fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("folder")
}
