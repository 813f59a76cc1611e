//! Two histories that random ones meet once in tens of thousands, told step by step. Each says whether it ended well.

use std::collections::BTreeMap;

use super::history::template_of;
use super::node::{Rows, Shape};
use super::world::World;

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

#[test]
fn what_is_rare_ends_well_too() {
    assert!(an_acknowledgement_overtakes_a_window());
    assert!(a_value_moves_between_ranges());
}
