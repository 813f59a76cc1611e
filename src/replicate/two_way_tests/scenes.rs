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

/// A copy takes a unique value from a row that its sender has otherwise by now, which comes with a later range.
pub(super) fn a_value_moves_between_ranges() -> bool {
    let mut world = two(1);
    run(&mut world, 0, "INSERT INTO t VALUES (1, 1, 'x'), (3, 3, 'y')");
    settle(&mut world);
    let app = &world.nodes[0].app;
    let sql = "SELECT group_concat(sql, ';') FROM sqlite_schema WHERE type = 'trigger'";
    let triggers: String = app.query_row(sql, [], |row| row.get(0)).expect("triggers");
    let drops = "SELECT group_concat('DROP TRIGGER ' || name, ';') FROM sqlite_schema WHERE type = 'trigger'";
    let drops: String = app.query_row(drops, [], |row| row.get(0)).expect("triggers");
    let unseen = "UPDATE t SET u0 = 'z', id = 4 WHERE k = 3; UPDATE t SET u0 = 'y', id = 2 WHERE k = 1";
    run(&mut world, 0, &format!("{drops}; {unseen}; {triggers}"));
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

#[test]
fn what_is_rare_ends_well_too() {
    assert!(a_window_comes_while_the_log_is_full());
    assert!(a_row_is_written_amid_a_merge());
    assert!(an_acknowledgement_overtakes_a_window());
    assert!(a_value_moves_between_ranges());
}
