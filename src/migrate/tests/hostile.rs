//! What a peer sends is data, never SQL to trust.

use super::support::*;

fn def(name: &str, ddl: &str) -> TableDef {
    TableDef {
        id: TableId(2),
        ancestors: Vec::new(),
        name: name.to_owned(),
        ddl: ddl.to_owned(),
        indexes: Vec::new(),
        arrow_schema: Bytes::new(),
        rows_estimate: 0,
    }
}

fn object(kind: ObjectKind, name: &str, table: &str, sql: &str) -> SchemaObject {
    SchemaObject { kind, name: name.to_owned(), table: table.to_owned(), sql: sql.to_owned() }
}

/// A replica with a table of its own, which no peer's statement may touch.
fn apply(catalog: &Catalog) -> (Ends, Result<Outcome, Error>) {
    let mut ends = Ends::new(Mode::Forced);
    ends.replica.execute_batch("CREATE TABLE secret(s); INSERT INTO secret VALUES ('kept')").unwrap();
    let before = schema(&ends.replica);
    let done = ends.apply(catalog);
    if done.is_err() {
        assert_eq!(schema(&ends.replica), before, "nothing is left behind");
    }
    assert_eq!(ask(&ends.replica, "SELECT s FROM secret"), "kept");
    (ends, done)
}

#[test]
fn ddl_that_is_more_than_a_table_is_denied() {
    for (name, ddl) in [
        ("t", "ATTACH ':memory:' AS x"),
        ("t", "PRAGMA writable_schema = ON"),
        ("t", "CREATE TABLE t(a); DROP TABLE secret"),
        ("t", "CREATE TABLE t(a); CREATE TABLE u(a)"),
        ("t", "CREATE TABLE u(a)"),
        ("t", "CREATE TABLE t AS SELECT * FROM secret"),
        ("t", "CREATE TABLE t(a CHECK(load_extension('x')))"),
        ("t", "CREATE TABLE t(a, b AS (load_extension(a)))"),
        ("t", "CREATE TABLE main.t(a)"),
        ("t", "CREATE TEMP TABLE t(a)"),
        ("t", "CREATE VIRTUAL TABLE t USING rtree(a, b, c)"),
        ("t", "DROP TABLE secret"),
        ("t", "/* CREATE TABLE t(a) */ VACUUM INTO 'x'"),
        ("t", ""),
        ("__cdc_meta", "CREATE TABLE __cdc_meta(a)"),
        ("__CDC_x", "CREATE TABLE __CDC_x(a)"),
        ("sqlite_stat1", "CREATE TABLE sqlite_stat1(a)"),
    ] {
        let (_, done) = apply(&Catalog { tables: vec![def(name, ddl)], objects: vec![] });
        assert!(matches!(done, Err(Error::Denied { .. } | Error::Unusable { .. })), "{ddl}: {done:?}");
    }
}

#[test]
fn an_index_that_is_on_another_table_or_more_than_an_index_is_denied() {
    for (table, sql) in [
        ("secret", "CREATE UNIQUE INDEX i ON secret(s)"),
        ("t", "CREATE UNIQUE INDEX i ON secret(s)"),
        ("t", "CREATE INDEX i ON t(a); DROP TABLE secret"),
        ("t", "CREATE INDEX i ON t(load_extension(a))"),
        ("t", "CREATE INDEX __cdc_i ON t(a)"),
        ("t", "DROP TABLE secret"),
    ] {
        let mut table_def = def("t", "CREATE TABLE t(a)");
        let name = if sql.contains("__cdc_i") { "__cdc_i" } else { "i" };
        table_def.indexes.push(object(ObjectKind::Index, name, table, sql));
        let (_, done) = apply(&Catalog { tables: vec![table_def], objects: vec![] });
        assert!(matches!(done, Err(Error::Denied { .. } | Error::Unusable { .. })), "{sql}: {done:?}");
    }
}

#[test]
fn views_and_triggers_that_reach_for_what_is_not_the_peers_are_denied() {
    let trigger = |body: &str| {
        let sql = format!("CREATE TRIGGER g AFTER INSERT ON t BEGIN {body}; END");
        object(ObjectKind::Trigger, "g", "t", &sql)
    };
    let view = |body: &str| object(ObjectKind::View, "v", "v", &format!("CREATE VIEW v AS {body}"));
    for object in [
        trigger("DELETE FROM secret"),
        trigger("INSERT INTO secret VALUES (1)"),
        trigger("UPDATE t SET a = (SELECT s FROM secret)"),
        trigger("UPDATE __cdc_meta SET value = 0"),
        trigger("SELECT value FROM __cdc_checkpoints, __cdc_meta"),
        trigger("INSERT INTO t SELECT load_extension('x')"),
        view("SELECT s FROM secret"),
        view("SELECT value FROM __cdc_meta"),
        view("SELECT a FROM t WHERE a IN (SELECT s FROM secret)"),
        view("WITH x AS (SELECT s FROM secret) SELECT * FROM x"),
        view("SELECT seq FROM [__CDC_not_there_yet]"),
        view("SELECT value FROM '__cdc_meta'"),
        view("SELECT load_extension('x')"),
        object(ObjectKind::Trigger, "g", "secret", "CREATE TRIGGER g AFTER INSERT ON secret BEGIN DELETE FROM t; END"),
        object(ObjectKind::Trigger, "g", "t", "CREATE TRIGGER g AFTER INSERT ON secret BEGIN DELETE FROM t; END"),
        object(ObjectKind::Trigger, "g", "t", "CREATE TEMP TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM t; END"),
        object(
            ObjectKind::Trigger,
            "__cdc_2_ai",
            "t",
            "CREATE TRIGGER __cdc_2_ai AFTER INSERT ON t BEGIN SELECT 1; END",
        ),
        object(ObjectKind::View, "v", "v", "CREATE VIEW w AS SELECT 1"),
        object(ObjectKind::View, "v", "v", "CREATE TABLE v(a)"),
        object(ObjectKind::View, "v", "v", "DROP TABLE secret"),
        object(ObjectKind::View, "v", "v", "CREATE VIEW v AS SELECT 1; DROP TABLE secret"),
    ] {
        let tables = vec![def("t", "CREATE TABLE t(a)")];
        let (_, done) = apply(&Catalog { tables, objects: vec![object.clone()] });
        assert!(matches!(done, Err(Error::Denied { .. })), "{}: {done:?}", object.sql);
    }
}

#[test]
fn a_trigger_that_writes_the_catalog_does_not_come_into_being() {
    let sql = "CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM sqlite_schema; END";
    let tables = vec![def("t", "CREATE TABLE t(a)")];
    let (ends, _) = apply(&Catalog { tables, objects: vec![object(ObjectKind::Trigger, "g", "t", sql)] });
    assert!(!names(&ends.replica).contains(&"g".to_owned()));
}

#[test]
fn what_any_schema_may_have_is_permitted() {
    let ddl = "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT DEFAULT (lower(hex(randomblob(8)))), j CHECK(json_valid(j)));
               CREATE VIEW v AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3)
                 SELECT t.a, n.i, e.value, row_number() OVER () FROM t, n, json_each(t.j) AS e;
               CREATE VIEW tables AS SELECT name FROM sqlite_schema;
               CREATE TRIGGER g AFTER INSERT ON t BEGIN UPDATE t SET a = upper(NEW.a) WHERE id IN (SELECT a FROM v);
                 UPDATE sqlite_sequence SET seq = 5 WHERE name = 't'; SELECT RAISE(IGNORE); END";
    let mut ends = Ends::new(Mode::Safe);
    let outcome = ends.change(ddl).unwrap();
    assert!(outcome.notes.is_empty(), "{outcome:?}");
    assert_eq!(schema(&ends.replica), schema(&ends.source));
}
