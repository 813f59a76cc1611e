//! Histories that random ones meet seldom, told step by step. Each says whether it ended well.

use std::collections::BTreeMap;

use super::history::template_of;
use super::node::{Rows, Shape};
use super::world::World;
use crate::apply::How;

/// Two nodes, without a difference between their clocks.
fn two(uniques: usize) -> World {
    let shape = Shape { key: 0, uniques, index: 0 };
    World::new(&template_of(shape), shape, &[0, 0], &[(0, 1)], BTreeMap::new())
}

fn run(world: &mut World, node: usize, sql: &str) {
    world.now += 1;
    world.tick();
    world.nodes[node].app.execute_batch(sql).expect("a statement");
}

fn settle(world: &mut World) {
    for _ in 0..200 {
        world.now += 1;
        for (a, b) in [(0, 1), (1, 0)] {
            world.send(a, b, 1);
            while world.is_waiting(a, b) {
                world.deliver(a, b);
            }
        }
        if world.is_quiet() {
            return;
        }
    }
}

fn states(world: &World) -> (Rows, Rows) {
    (world.nodes[0].rows(), world.nodes[1].rows())
}

/// A window of b's is on its way that had not seen a's change. b has seen that since, and says so at once; a may not prune
/// it before a window says so too.
pub(super) fn an_acknowledgement_overtakes_a_window() -> bool {
    let mut world = two(0);
    settle(&mut world);
    run(&mut world, 1, "INSERT INTO t VALUES (1, 1)");
    world.send(1, 0, 1);
    run(&mut world, 0, "INSERT INTO t VALUES (1, 2); INSERT INTO t VALUES (2, 3)");
    world.send(0, 1, 1);
    world.deliver(0, 1);
    let acknowledged = world.nodes[0].head();
    world.prune(0, acknowledged);
    world.deliver(1, 0);
    settle(&mut world);
    let (a, b) = states(&world);
    a == b && a.get(&1).is_some_and(|row| row.id == 2)
}

/// A statement with which a node's application changes what no trigger logs.
fn unlogged(world: &World, node: usize, sql: &str) -> String {
    let app = &world.nodes[node].app;
    let one = |sql: &str| app.query_row::<String, _, _>(sql, [], |row| row.get(0)).expect("triggers");
    let triggers = one("SELECT group_concat(sql, ';') FROM sqlite_schema WHERE type = 'trigger'");
    let drops = one("SELECT group_concat('DROP TRIGGER ' || name, ';') FROM sqlite_schema WHERE type = 'trigger'");
    format!("{drops}; {sql}; {triggers}")
}

/// A copy takes a unique value from a row that its sender has otherwise by now, which comes with a later range.
pub(super) fn a_value_moves_between_ranges() -> bool {
    let mut world = two(1);
    run(&mut world, 0, "INSERT INTO t VALUES (1, 1, 'x'), (3, 3, 'y')");
    settle(&mut world);
    let unseen = "UPDATE t SET u0 = 'z', id = 4 WHERE k = 3; UPDATE t SET u0 = 'y', id = 2 WHERE k = 1";
    let unseen = unlogged(&world, 0, unseen);
    run(&mut world, 0, &unseen);
    settle(&mut world);
    let (a, b) = states(&world);
    a == b && a.get(&3).is_some_and(|row| row.id == 4) && a.get(&1).is_some_and(|row| row.id == 2)
}

/// Whether that row is at a node, or in its conflicts.
fn is_kept(world: &World, id: i64) -> bool {
    let kept =
        |node: &super::node::Node| node.rows().values().any(|row| row.id == id) || node.recorded().0.contains(&id);
    world.nodes.iter().any(kept)
}

/// A log is full, and before its node notices, a window overwrites what the application has written unlogged.
pub(super) fn a_window_comes_while_the_log_is_full() -> bool {
    let mut world = two(0);
    run(&mut world, 0, "INSERT INTO t VALUES (1, 1)");
    settle(&mut world);
    world.fill(0);
    run(&mut world, 0, "UPDATE t SET id = 2");
    run(&mut world, 1, "UPDATE t SET id = 3");
    world.send(1, 0, 1);
    world.deliver(1, 0);
    world.begin_anew(0);
    world.connect(0, 1, false);
    settle(&mut world);
    let (a, b) = states(&world);
    a == b && is_kept(&world, 2) && is_kept(&world, 3)
}

/// Two databases are merged, and the winner writes a row that it did not have after its copy was whole. The row that the
/// loser had, it leaves as it is, and its own overwrites that one.
pub(super) fn a_row_is_written_amid_a_merge() -> bool {
    let mut world = two(0);
    world.how = How::Union;
    run(&mut world, 1, "INSERT INTO t VALUES (1, 10)");
    for node in [0, 1] {
        world.fill(node);
        world.begin_anew(node);
    }
    world.connect(0, 1, false);
    for _ in 0..4 {
        world.send(0, 1, 1);
        world.deliver(0, 1);
    }
    run(&mut world, 0, "INSERT INTO t VALUES (1, 20)");
    world.send(1, 0, 1);
    world.deliver(1, 0);
    settle(&mut world);
    let (a, b) = states(&world);
    a == b && is_kept(&world, 10) && is_kept(&world, 20)
}

/// Rows that a range is sure to hold all of, as those of a small table.
const WHOLE: usize = 10;

/// a has once copied its table to b, over this connection. Now b missed something, so its table is copied to a, and its
/// application writes a row of a range that is on its way. b had applied all of a's copy when it read that range, so nothing
/// crosses: a took the range's rows for changes of its own, later than that write, which lost to them at both ends.
pub(super) fn a_copy_comes_long_after_one_was_sent() -> bool {
    let mut world = two(0);
    run(&mut world, 0, "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)");
    settle(&mut world);
    assert!(world.resync(0));
    settle(&mut world);
    let logged = world.nodes[0].head();
    let unseen = unlogged(&world, 1, "UPDATE t SET id = id + 10");
    run(&mut world, 1, &unseen);
    world.send(1, 0, WHOLE);
    run(&mut world, 1, "UPDATE t SET id = 20 WHERE k = 1");
    world.now += 10;
    world.deliver(1, 0);
    settle(&mut world);
    let (a, b) = states(&world);
    let is_newest = a == b && a.get(&1).is_some_and(|row| row.id == 20) && a.get(&2).is_some_and(|row| row.id == 12);
    is_newest && world.nodes[0].head() == logged && are_without_conflict(&world)
}

fn are_without_conflict(world: &World) -> bool {
    world.nodes.iter().all(|node| node.number("SELECT count(*) FROM __cdc_conflicts") == 0)
}

/// Two nodes with one row, which is another one at each, and nobody knows; both ends are asked to copy it. Both copies are on
/// their way when the first of them arrives, and nothing is left of the other to be sent. Says whether both are one again.
fn crossing(world: &mut World) -> bool {
    for (node, id) in [(0, 10), (1, 20)] {
        let no_limit = "UPDATE __cdc_meta SET value = -value WHERE key = 'capture_limit'";
        run(world, node, &format!("BEGIN; {no_limit}; UPDATE t SET id = {id}; {no_limit}; COMMIT"));
    }
    assert!(world.resync(0) && world.resync(1));
    world.send(0, 1, WHOLE);
    world.send(1, 0, WHOLE);
    settle(world);
    let (a, b) = states(world);
    a == b && is_kept(world, 10) && is_kept(world, 20)
}

/// Each end takes what the other had, if neither says it as a change of its own.
pub(super) fn two_repairs_cross() -> bool {
    let mut world = two(0);
    run(&mut world, 0, "INSERT INTO t VALUES (1, 1)");
    settle(&mut world);
    crossing(&mut world)
}

/// The same where the connection before ended with a window applied whose answer was lost, and another lost itself: the
/// windows' numbers begin anew, and so does the count of those that are applied.
pub(super) fn two_repairs_cross_after_a_cut() -> bool {
    let mut world = two(0);
    settle(&mut world);
    run(&mut world, 0, "INSERT INTO t VALUES (1, 1)");
    world.send(0, 1, WHOLE);
    run(&mut world, 0, "UPDATE t SET id = 2");
    world.send(0, 1, WHOLE);
    world.deliver(0, 1);
    world.cut(0, 1);
    world.connect(0, 1, false);
    settle(&mut world);
    crossing(&mut world)
}

#[test]
fn what_is_rare_ends_well_too() {
    assert!(a_window_comes_while_the_log_is_full());
    assert!(a_row_is_written_amid_a_merge());
    assert!(an_acknowledgement_overtakes_a_window());
    assert!(a_value_moves_between_ranges());
    assert!(a_copy_comes_long_after_one_was_sent());
    assert!(two_repairs_cross());
    assert!(two_repairs_cross_after_a_cut());
}
