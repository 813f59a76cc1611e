//! Events of a log of keys: one a key and read, with the row as it is now.

use super::tests::{Consumer, line};
use super::{EventRequest, RowsRequest, clip, read_events, read_rows};
use crate::capture::Images;
use crate::model::{Selection, Value};

fn keys(ddl: &str) -> Consumer {
    Consumer::of(ddl, Images::Key)
}

#[test]
fn each_key_is_told_once_at_its_last_entry_with_the_row_as_it_is_now() {
    let mut db = keys("CREATE TABLE t(id INTEGER PRIMARY KEY, a, g AS (a + 1), u UNIQUE)");
    db.db.run("INSERT INTO t(id, a, u) VALUES (1, 5, 1), (2, 5, 2), (3, 5, 3); UPDATE t SET a = 7 WHERE id = 1");
    db.db.run("DELETE FROM t WHERE id = 2");
    let events = db.drain();
    let lines: Vec<String> = events.iter().map(|(event, _)| line(event)).collect();
    assert_eq!(lines, ["t + (3, 5, 6, 3)", "t + (1, 7, 8, 1)", "t - (2)"], "in the order of the last entries");
    assert_eq!(events[2].0.table.columns, ["id"], "a deletion has the key alone");
    assert_eq!(db.says("UPDATE t SET a = 1 WHERE id = 1; UPDATE t SET a = 2 WHERE id = 1"), ["t none > (1, 2, 3, 1)"]);
    assert_eq!(db.says("DELETE FROM t WHERE id = 3; INSERT INTO t(id) VALUES (3)"), ["t none > (3, NULL, NULL, NULL)"]);
    assert_eq!(
        db.says("INSERT INTO t(id) VALUES (9); DELETE FROM t WHERE id = 9"),
        ["t - (9)"],
        "it may have been known"
    );
    assert_eq!(db.says("BEGIN; INSERT INTO t(a) VALUES (1); ROLLBACK"), [""; 0]);
}

/// An entry of its own tells of the row with the same key nowhere, and of other rows as touches.
#[test]
fn rows_that_replace_displaces_are_gone_and_touches_of_others_say_nothing() {
    let mut db = keys("CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE)");
    db.says("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')");
    assert_eq!(db.says("REPLACE INTO t VALUES (1, 'x')"), ["t + (1, 'x')"]);
    assert_eq!(db.says("REPLACE INTO t VALUES (1, 'b')"), ["t - (2)", "t + (1, 'b')"]);
    assert_eq!(db.says("UPDATE OR REPLACE t SET u = 'c' WHERE id = 1"), ["t - (3)", "t none > (1, 'c')"]);
    assert_eq!(db.says("INSERT OR IGNORE INTO t VALUES (4, 'c')"), [""; 0]);
    assert_eq!(
        db.says(
            "UPDATE t SET u = 'd' WHERE id = 1; INSERT OR IGNORE INTO t VALUES (4, 'd'); INSERT INTO t VALUES (5, 5)"
        ),
        ["t none > (1, 'd')", "t + (5, 5)"],
        "in the place of what was written, not of the touch"
    );
    assert_eq!(
        db.says("REPLACE INTO t VALUES (7, 5); REPLACE INTO t VALUES (5, 6)"),
        ["t + (7, 5)", "t none > (5, 6)"]
    );
}

#[test]
fn a_key_that_changes_goes_and_comes() {
    let mut db =
        keys("CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE w(k TEXT COLLATE NOCASE PRIMARY KEY, v)");
    db.says("INSERT INTO t VALUES (1, 'a'), (2, 'b'); INSERT INTO w VALUES ('a', 1)");
    assert_eq!(db.says("UPDATE t SET id = 5 WHERE id = 1"), ["t - (1)", "t + (5, 'a')"]);
    assert_eq!(
        db.says("UPDATE t SET id = 9 WHERE id = 5; UPDATE t SET id = 5 WHERE id = 2; UPDATE t SET id = 2 WHERE id = 9"),
        ["t none > (5, 'b')", "t - (9)", "t none > (2, 'a')"],
        "a swap of keys"
    );
    assert_eq!(
        db.says("UPDATE w SET k = 'A'"),
        ["w - ('a')", "w + ('A', 1)"],
        "so that who compares bytes has one row"
    );
    assert_eq!(db.says("UPDATE w SET k = 'a'; UPDATE w SET k = 'A'"), ["w - ('a')", "w + ('A', 1)"]);
    assert_eq!(db.says("UPDATE w SET k = 'a'; DELETE FROM w"), ["w - ('A')", "w - ('a')"]);
    let other = "INSERT INTO w VALUES ('x', 1); UPDATE w SET k = 'X', v = 2; UPDATE w SET k = 'y'";
    assert_eq!(db.says(other), ["w - ('x')", "w - ('X')", "w + ('y', 2)"]);
}

/// The rowid is all that names such a row, so it comes with it.
#[test]
fn a_table_without_a_key_is_told_with_its_rowid() {
    let mut db = keys("CREATE TABLE bare(a, rowid); CREATE TABLE t(id INTEGER PRIMARY KEY)");
    assert_eq!(
        db.says("INSERT INTO bare VALUES ('x', 'r'), ('x', 'r')"),
        ["bare + (1, 'x', 'r')", "bare + (2, 'x', 'r')"]
    );
    assert_eq!(db.says("UPDATE bare SET a = 'y' WHERE oid = 2"), ["bare none > (2, 'y', 'r')"]);
    db.db.run("DELETE FROM bare WHERE oid = 1");
    let gone = db.drain().remove(0).0;
    assert_eq!((line(&gone), &gone.table.columns[..]), ("bare - (1)".to_owned(), &["_rowid_".to_owned()][..]));
    let tables = db.catalog.tables(&db.db.ours, &Selection::all()).expect("tables");
    assert_eq!(tables[0].table.columns, ["_rowid_", "a", "rowid"]);
    let request = RowsRequest { table: tables[0].id, after: None, rows_max: 9, bytes_max: 999 };
    let piece = read_rows(&db.db.ours, &mut db.catalog, &request).expect("read").expect("there");
    assert_eq!((piece.table.columns.len(), piece.rows[0].len(), &piece.rows[0][0]), (3, 3, &Value::Integer(2)));
}

#[test]
fn a_key_with_a_null_is_all_its_rows_anew() {
    let mut db = keys("CREATE TABLE t(k TEXT PRIMARY KEY, v)");
    assert_eq!(db.says("INSERT INTO t VALUES (NULL, 1)"), ["t - (NULL)", "t + (NULL, 1)"]);
    let both = ["t - (NULL)", "t + (NULL, 1)", "t + (NULL, 2)"];
    assert_eq!(db.says("INSERT INTO t VALUES (NULL, 2)"), both);
    db.events_max = 1;
    assert_eq!(
        db.says("UPDATE t SET v = 5 WHERE v = 1; UPDATE t SET v = 1 WHERE v = 5; INSERT INTO t VALUES ('a', 1)").len(),
        4
    );
    assert_eq!(db.says("DELETE FROM t WHERE v = 1 AND k IS NULL"), ["t - (NULL)", "t + (NULL, 2)"]);
    assert_eq!(db.says("DELETE FROM t WHERE k IS NULL"), ["t - (NULL)"]);
}

/// Keys and bytes bound a read, and what is read on from its end says the same of what is left.
#[test]
fn reading_in_pieces_tells_every_key_whose_last_entry_was_passed() {
    let mut db = keys("CREATE TABLE t(id INTEGER PRIMARY KEY, b); CREATE TABLE hot(id INTEGER PRIMARY KEY, b)");
    db.db.run("INSERT INTO t VALUES (1, 1), (2, 2); INSERT INTO hot VALUES (1, 0); INSERT INTO t VALUES (3, 3)");
    db.db.run(
        "UPDATE hot SET b = 1; INSERT INTO t VALUES (4, 4); UPDATE t SET b = 9 WHERE id = 1; UPDATE hot SET b = 2",
    );
    db.events_max = 3;
    let read = db.read();
    let lines: Vec<String> = read.events.iter().map(line).collect();
    assert_eq!(lines, ["t + (1, 9)", "t + (2, 2)", "hot + (1, 2)"], "rows are as they are now");
    assert_eq!((read.to, read.at_end), (read.events[2].seq, false), "up to where the fourth key comes");
    db.after = read.to;
    let rest: Vec<String> = db.drain().iter().map(|(event, _)| line(event)).collect();
    let first = ["t + (3, 3)", "hot none > (1, 2)", "t + (4, 4)"];
    assert_eq!(rest[..3], first, "what was told is told again where there is more of it");
    assert_eq!(rest[3..], ["t none > (1, 9)", "hot none > (1, 2)"]);
}

#[test]
fn the_bytes_of_rows_bound_a_read_and_one_row_is_read_however_large() {
    let mut db = keys("CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
    db.db.run("INSERT INTO t VALUES (1, zeroblob(5000000)), (2, zeroblob(600000)), (3, zeroblob(600000)), (4, 1)");
    assert_eq!(db.events_of_each_read(), [1, 2, 1]);
}

/// What a link needs no entry for, for it reads the schema: an event consumer is told to begin anew.
#[test]
fn what_no_entry_tells_is_told_by_a_resync() {
    let mut db = keys("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)");
    db.db.run("INSERT INTO t VALUES (1, 2, 3); ALTER TABLE t ADD COLUMN c DEFAULT 4; UPDATE t SET c = 5");
    assert!(db.read().schema_moved, "the owner of the database comes first");
    db.db.reconcile();
    assert_eq!(db.says(""), ["t + (1, 2, 3, 5)", "t resync"]);
    db.db.run("ALTER TABLE t ADD COLUMN d DEFAULT 6");
    db.db.reconcile();
    assert_eq!(db.says("UPDATE t SET a = 1"), ["t none > (1, 1, 3, 5, 6)"], "every row holds the default");
    db.db.run("UPDATE t SET a = 2; ALTER TABLE t DROP COLUMN b");
    db.db.reconcile();
    assert_eq!(db.says(""), ["t none > (1, 2, 5, 6)", "t resync"]);
    db.db.run("CREATE TABLE u(x INTEGER PRIMARY KEY); INSERT INTO u VALUES (1); CREATE TABLE empty(x)");
    db.db.reconcile();
    assert_eq!(db.says("INSERT INTO u VALUES (2)"), ["u resync", "u + (2)"]);
    db.db.run("INSERT INTO u VALUES (3); DROP TABLE empty; ALTER TABLE u RENAME TO v");
    db.db.reconcile();
    assert_eq!(db.says("INSERT INTO v VALUES (4)"), ["v + (3)", "v + (4)"], "as the table is called now");
    db.db.run("INSERT INTO v VALUES (5); DROP TABLE v; CREATE TABLE v(k TEXT PRIMARY KEY); INSERT INTO v VALUES ('a')");
    db.db.reconcile();
    assert_eq!(db.says("INSERT INTO v VALUES ('b')"), ["v resync", "v + ('b')"], "its entries had another key");
}

#[test]
fn only_the_tables_of_the_selection_are_told_by_the_names_that_they_have_now() {
    let mut db = keys("CREATE TABLE a(x INTEGER PRIMARY KEY); CREATE TABLE b(x)");
    db.db.run("INSERT INTO a VALUES (1); INSERT INTO b VALUES (2); ALTER TABLE a RENAME TO c");
    db.db.reconcile();
    for (name, told) in [("c", &["c + (1)"][..]), ("a", &[])] {
        let selection = Selection::new(&[name.to_owned()], &[]).expect("globs");
        let request = EventRequest { after: 0, events_max: 9, bytes_max: 999, selection: &selection };
        let read = read_events(&db.db.ours, &mut db.catalog, &request).expect("read");
        assert_eq!(read.events.iter().map(line).collect::<Vec<_>>(), told);
        assert!(read.at_end && read.to == db.db.head());
    }
}

#[test]
fn what_is_beyond_the_copy_is_left_to_it() {
    let mut db = keys("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    db.db.run("INSERT INTO t VALUES (1, 1), (2, 2), (5, 5)");
    db.drain();
    let table = db.catalog.tables(&db.db.ours, &Selection::all()).expect("tables").remove(0).id;
    let request = RowsRequest { table, after: None, rows_max: 2, bytes_max: 1 << 20 };
    let to = read_rows(&db.db.ours, &mut db.catalog, &request).expect("read").expect("there").last.expect("rows");
    db.db.run("UPDATE t SET v = 0; UPDATE t SET id = 9 WHERE id = 1; UPDATE t SET id = 0 WHERE id = 5; DELETE FROM t WHERE id = 9");
    let kept = db.drain().into_iter().filter_map(|(event, keys)| clip(&db.catalog, event, &keys, Some(&to)));
    assert_eq!(kept.map(|event| line(&event)).collect::<Vec<_>>(), ["t none > (2, 0)", "t - (1)", "t + (0, 0)"]);
}

/// A row of it is told with its rowid or without, so who has it in one form begins anew in the other.
#[test]
fn a_table_without_a_key_begins_anew_where_the_mode_changes() {
    let mut db = keys("CREATE TABLE bare(a); CREATE TABLE t(id INTEGER PRIMARY KEY)");
    for (images, lines) in [
        (Images::Full, ["bare + (1, 'y')", "bare resync", "bare ('x') > ('y')"]),
        (Images::Key, ["bare + ('x')", "bare resync", "bare none > (2, 'y')"]),
    ] {
        db.db.run("INSERT INTO bare VALUES ('x'); INSERT INTO t DEFAULT VALUES");
        (db.db.options.images, db.db.options.change_images) = (images, true);
        db.db.install();
        let told = db.says("UPDATE bare SET a = 'y' WHERE a = 'x'");
        // What was logged before is read as it was written, of the row as it is now.
        let shown: Vec<String> = told.into_iter().filter(|line| line.starts_with("bare")).collect();
        assert_eq!(shown, lines);
        let tables = db.catalog.tables(&db.db.ours, &Selection::all()).expect("tables");
        assert_eq!(tables[0].table.columns.len(), if images == Images::Full { 1 } else { 2 });
    }
}

/// From where `setup --images full` was said, entries have images; those before stay what they are.
#[test]
fn a_log_of_keys_becomes_one_of_images_when_it_is_said_so() {
    let mut db = Consumer::of("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", Images::Key);
    db.db.run("INSERT INTO t VALUES (1, 'x')");
    db.db.options.images = Images::Full;
    let refused = crate::capture::install(&mut db.db.ours, &db.db.options, &db.db.clock).expect_err("not said");
    assert!(refused.to_string().contains("app.db --images full"), "{refused}");
    db.db.options.change_images = true;
    assert!(!db.db.install().did.is_empty());
    let changes = db.db.ours.total_changes();
    assert!(db.db.install().did.is_empty() && db.db.ours.total_changes() == changes, "once");
    assert_eq!(
        db.says("UPDATE t SET a = 'y'"),
        ["t + (1, 'y')", "t (1, 'x') > (1, 'y')"],
        "the first is told as it is now, and nothing is copied again"
    );
    assert_eq!(db.db.tables()[0].images, Images::Full);
    db.db.options.change_images = false;
    db.db.options.images = Images::Key;
    assert!(db.db.install().did.is_empty(), "a log with images is good enough for whoever needs keys");
    assert_eq!(
        crate::capture::CaptureOptions::stored(&db.db.ours).expect("stored").expect("captured").images,
        Images::Full
    );
    db.db.options.change_images = true;
    db.db.install();
    assert_eq!(db.db.logs("UPDATE t SET a = 'z'"), ["2/3 1"]);
    db.db.run("UPDATE t SET id = 2");
    assert_eq!(db.says(""), ["t - (1)", "t + (2, 'z')"], "the key's change is a deletion and an insert again");
}
