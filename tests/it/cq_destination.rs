//! CloudQuery's destination by its own interface, into real files and into memory: what the SDK's writer suite leaves out
//! (see `cq_suite` for that).

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::DataType;
use rusqlite::Connection;
use tokio::sync::mpsc;
use twinlite::cloudquery::delete::{DeleteRecord, Group, Predicate, Relation};
use twinlite::cloudquery::destination::{Count, Destination, Error, Options, Spec, Timeout, Writer};
use twinlite::cloudquery::{Column, Extension, Table};

use crate::support::cq_rows::{boolean, int, ints, record, synced, synced_row, text, texts, time, times, uuid};

/// A database that is written into, and the means to look at it as an application does.
struct Base {
    destination: Destination,
    folder: tempfile::TempDir,
}

impl Base {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Spec)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut spec = spec(&folder.path().join("a.db").display().to_string());
        change(&mut spec);
        Self { destination: Destination::open(&spec, &Options::default()).await.unwrap(), folder }
    }

    fn writer(&self) -> Writer {
        self.destination.writer()
    }

    /// Another connection to the file.
    fn look(&self) -> Connection {
        Connection::open(self.folder.path().join("a.db")).unwrap()
    }

    fn one<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        self.look().query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    fn list(&self, sql: &str) -> String {
        let looking = self.look();
        let mut statement = looking.prepare(sql).unwrap();
        let count = statement.column_count();
        let cell = |row: &rusqlite::Row<'_>, place| match row.get_ref(place).unwrap() {
            rusqlite::types::ValueRef::Null => "NULL".to_owned(),
            rusqlite::types::ValueRef::Integer(integer) => integer.to_string(),
            rusqlite::types::ValueRef::Real(real) => real.to_string(),
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            rusqlite::types::ValueRef::Blob(blob) => format!("{blob:02x?}"),
        };
        let line = |row: &rusqlite::Row<'_>| Ok((0..count).map(|place| cell(row, place)).collect::<Vec<_>>().join("|"));
        statement.query_map([], line).unwrap().map(Result::unwrap).collect::<Vec<_>>().join(" ")
    }

    fn tables(&self) -> String {
        self.list("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    }
}

fn spec(connection_string: &str) -> Spec {
    Spec { connection_string: connection_string.to_owned(), ..Spec::default() }
}

fn id_and_name() -> Table {
    Table::new("t", vec![int("id").with_not_null(true).with_primary_key(true), text("name")])
}

fn named(id: i64, name: &str) -> RecordBatch {
    record(&id_and_name(), vec![ints([id]), texts([name])])
}

/// Rows of any of the migration cases' tables, all different, ids from `from` on.
fn rows(table: &Table, from: i64, count: i64) -> RecordBatch {
    let ids = from..from + count;
    let column = |column: &Column| -> ArrayRef {
        match (column.data_type(), Extension::of(column.field())) {
            (DataType::Int64, _) => ints(ids.clone()),
            (DataType::Utf8, _) => Arc::new(StringArray::from_iter_values(ids.clone().map(|id| format!("text {id}")))),
            (DataType::Boolean, _) => Arc::new(BooleanArray::from_iter(ids.clone().map(|id| Some(id % 3 == 0)))),
            (DataType::FixedSizeBinary(16), Some(Extension::Uuid)) => {
                let bytes = ids.clone().map(|id| (i128::from(id) * 0x0123_4567_89ab_cdef_1357).to_be_bytes());
                Arc::new(FixedSizeBinaryArray::try_from_iter(bytes).unwrap())
            }
            (other, _) => panic!("no rows of type {other}"),
        }
    };
    record(table, table.columns.iter().map(column).collect())
}

/// Everything in a table, as one batch.
async fn read(destination: &Destination, table: &Table) -> Result<RecordBatch, Error> {
    let (send, mut receive) = mpsc::channel(1);
    let schema = Arc::new(table.to_schema());
    let reading = destination.read(table.clone(), send);
    let collecting = async {
        let mut batches = Vec::new();
        while let Some(batch) = receive.recv().await {
            let batch = batch?;
            assert_eq!(batch.schema(), schema, "exactly what was asked for");
            batches.push(batch);
        }
        Ok::<_, Error>(batches)
    };
    let (read, batches) = tokio::join!(reading, collecting);
    read?;
    Ok(concat_batches(&schema, &batches?).unwrap())
}

async fn count(destination: &Destination, table: &Table) -> usize {
    read(destination, table).await.unwrap().num_rows()
}

async fn write(destination: &Destination, records: impl IntoIterator<Item = RecordBatch>) {
    let mut writer = destination.writer();
    for record in records {
        writer.insert(record).await.unwrap();
    }
    writer.flush().await.unwrap();
}

async fn migrate(destination: &Destination, table: &Table) {
    destination.writer().migrate(table.clone(), false).await.unwrap();
}

fn at(seconds: i64, nanos: i32) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos })
}

fn equals(column: &str, array: ArrayRef) -> Predicate {
    let record = RecordBatch::try_from_iter_with_nullable([("value", array, true)]).unwrap();
    Predicate::new(column, record).unwrap()
}

fn where_all(table: &str, predicates: Vec<Predicate>) -> DeleteRecord {
    DeleteRecord { table: table.to_owned(), groups: vec![Group { or: false, predicates }], relations: vec![] }
}

async fn memory() -> Destination {
    Destination::open(&spec(":memory:"), &Options::default()).await.unwrap()
}

mod migrations {
    //! What the suite does not ask of a migration.

    use super::*;

    #[tokio::test]
    async fn a_table_is_declared_as_the_official_destination_declares_it() {
        let base = Base::new().await;
        let columns = vec![
            uuid("_cq_id").with_not_null(true).with_unique(true),
            int("a \"b\"").with_primary_key(true),
            text("c").with_primary_key(true),
            Column::new("real", DataType::Float16),
            boolean("flag"),
            time("time"),
            Column::new("bytes", DataType::Binary),
        ];
        migrate(&base.destination, &Table::new("select \"x\"", columns)).await;
        assert_eq!(
            base.one::<String>("SELECT sql FROM sqlite_schema WHERE type = 'table'"),
            "CREATE TABLE \"select \"\"x\"\"\" (\"_cq_id\" text NOT NULL, \"a \"\"b\"\"\" integer, \"c\" text, \
             \"real\" real, \"flag\" boolean, \"time\" timestamp, \"bytes\" text, CONSTRAINT \"select \"\"x\"\"_cqpk\" \
             PRIMARY KEY (\"a \"\"b\"\"\", \"c\"))"
        );
        assert_eq!(base.one::<String>("PRAGMA journal_mode"), "wal");
    }

    #[tokio::test]
    async fn where_nothing_differs_nothing_is_touched_forced_or_not() {
        let base = Base::new().await;
        migrate(&base.destination, &id_and_name()).await;
        write(&base.destination, [named(1, "a")]).await;
        let version: i64 = base.one("PRAGMA schema_version");
        let mut other = id_and_name();
        other.name = "T".into();
        other.columns.reverse();
        other.columns[0] = Column::extension("NAME", Extension::Json);
        for force in [false, true] {
            base.writer().migrate(other.clone(), force).await.unwrap();
        }
        assert_eq!(base.one::<i64>("PRAGMA schema_version"), version);
        assert_eq!(base.list("SELECT * FROM t"), "1|a");
    }

    /// A table that a person made, with everything that an edit of its definition must leave alone.
    const MADE_BY_HAND: &str = "
        CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, _cq_id text NOT NULL, -- the id
            n VARCHAR(10) COLLATE NOCASE CONSTRAINT nn NOT NULL UNIQUE DEFAULT 'x,y', twice AS (n || n), \"odd \"\"name\" TEXT
            CHECK (\"odd \"\"name\" <> 'no'), extra NOT NULL DEFAULT 5, other REFERENCES u(x), UNIQUE (extra, n));
        CREATE TABLE u(x PRIMARY KEY, t REFERENCES t(id));
        CREATE INDEX tn ON t(n) WHERE n > 'a';
        CREATE VIEW v AS SELECT id, n FROM t;
        CREATE TABLE seen(n);
        CREATE TRIGGER tt AFTER INSERT ON t BEGIN INSERT INTO seen VALUES (NEW.n); END;
        INSERT INTO t(_cq_id, n) VALUES ('a', 'one'), ('b', 'two');
        INSERT INTO t(id, _cq_id, n) VALUES (90, 'z', 'gone'); DELETE FROM t WHERE id = 90;";

    #[tokio::test]
    async fn a_rebuild_keeps_rows_and_everything_that_hangs_on_the_table() {
        let base = Base::new().await;
        base.look().execute_batch(MADE_BY_HAND).unwrap();
        let id = int("id").with_not_null(true).with_primary_key(true);
        let wanted = Table::new("t", vec![id, text("_cq_id").with_not_null(true), text("n"), text("fresh")]);
        migrate(&base.destination, &wanted).await;
        assert_eq!(
            base.list("SELECT id, _cq_id, n, twice, extra, fresh FROM t"),
            "1|a|one|oneone|5|NULL 2|b|two|twotwo|5|NULL"
        );
        assert_eq!(base.list("SELECT * FROM v"), "1|one 2|two");
        let look = base.look();
        look.execute_batch("INSERT INTO t(_cq_id, n, extra) VALUES ('c', NULL, 5), ('d', 'one', 6)").unwrap();
        assert_eq!(base.list("SELECT id FROM t ORDER BY id"), "1 2 91 92", "AUTOINCREMENT goes on");
        assert_eq!(
            base.list("SELECT n FROM seen"),
            "one two gone NULL one",
            "the trigger fires, and did not meanwhile"
        );
        assert_eq!(base.list("SELECT name FROM sqlite_schema WHERE name LIKE 't_'"), "tn tt");
        assert!(
            look.execute("INSERT INTO t(_cq_id, n, \"odd \"\"name\") VALUES ('e', 'e', 'no')", []).is_err(),
            "CHECK"
        );
        assert!(look.execute("INSERT INTO t(_cq_id, n) VALUES ('e', 'ONE')", []).is_err(), "the other UNIQUE");
        assert_eq!(base.list("SELECT \"table\" FROM pragma_foreign_key_list('u')"), "t");
        assert!(!base.tables().contains("__cdc"), "{}", base.tables());
        let version: i64 = base.one("PRAGMA schema_version");
        migrate(&base.destination, &wanted).await;
        assert_eq!(base.one::<i64>("PRAGMA schema_version"), version, "once is enough");
    }

    #[tokio::test]
    async fn the_key_moves_only_where_rows_fit_it() {
        let base = Base::new().await;
        let columns = |key: &str| {
            let column = |column: Column| {
                let is_key = column.name() == key;
                column.with_primary_key(is_key)
            };
            vec![column(int("id").with_not_null(true)), column(uuid("_cq_id").with_not_null(true))]
        };
        let (from, to) = (Table::new("t", columns("id")), Table::new("t", columns("_cq_id")));
        migrate(&base.destination, &from).await;
        let same = rows(&from, 1, 1);
        write(
            &base.destination,
            [record(
                &from,
                vec![ints([1, 2]), {
                    let one = same.column(1).clone();
                    arrow::compute::concat(&[&one, &one]).unwrap()
                }],
            )],
        )
        .await;
        let refused = base.writer().migrate(to.clone(), false).await.expect_err("two rows have one id").to_string();
        assert!(refused.contains("table \"t\"") && refused.contains("key"), "{refused}");
        assert_eq!(base.list("SELECT id FROM t"), "1 2");
        base.writer().migrate(to, true).await.unwrap();
        assert_eq!(base.one::<i64>("SELECT count(*) FROM t"), 0);
        assert_eq!(base.list("SELECT name FROM pragma_table_info('t') WHERE pk"), "_cq_id");
    }

    #[tokio::test]
    async fn a_key_that_old_rows_cannot_have_is_added_to_an_empty_table_alone() {
        let base = Base::new().await;
        let from = Table::new("t", vec![int("id").with_not_null(true).with_primary_key(true)]);
        let cq_id = uuid("_cq_id").with_not_null(true).with_primary_key(true);
        let to = Table::new("t", vec![cq_id, int("id").with_not_null(true)]);
        migrate(&base.destination, &from).await;
        migrate(&base.destination, &to).await;
        write(&base.destination, [rows(&to, 1, 2)]).await;
        base.writer().migrate(from.clone(), true).await.unwrap();
        write(&base.destination, [rows(&from, 1, 2)]).await;
        let refused = base.writer().migrate(to, false).await.expect_err("rows have no _cq_id");
        assert!(matches!(refused, Error::Refused { .. }));
        assert_eq!(base.one::<i64>("SELECT count(*) FROM t"), 2);
    }

    #[tokio::test]
    async fn a_table_of_any_declared_types_is_compared_and_never_panics() {
        let base = Base::new().await;
        base.look()
            .execute_batch(
                "CREATE TABLE t(id INT, n VARCHAR(10), x, d DECIMAL(10, 2), w \"some words\", b BLOB, g AS (id + 1), f);
                 INSERT INTO t(id) VALUES (1);
                 CREATE VIEW v AS SELECT 1;
                 CREATE VIRTUAL TABLE f USING fts5(a);",
            )
            .unwrap();
        let fits = Table::new("t", vec![int("id"), text("n"), Column::new("d", DataType::Float64)]);
        migrate(&base.destination, &fits).await;
        let refused =
            |table: Table| async { base.writer().migrate(table, false).await.expect_err("refused").to_string() };
        let why = refused(Table::new("t", vec![int("id"), Column::new("b", DataType::Binary)])).await;
        assert!(why.contains("Type changed from \"binary\" to \"binary\"") || why.contains("column \"b\""), "{why}");
        let why = refused(Table::new("v", vec![int("id")])).await;
        assert!(why.contains("table \"v\""), "{why}");
        let why = refused(Table::new("F", vec![text("a")])).await;
        assert!(why.contains("virtual"), "{why}");
        for name in ["sqlite_x", "SQLITE_sequence", "__cdc_log", "__CDC_x"] {
            let why = refused(Table::new(name, vec![int("id")])).await;
            assert!(why.contains("reserved"), "{why}");
        }
        let why = refused(Table::new("n", vec![int("a"), int("A")])).await;
        assert!(why.contains("twice"), "{why}");
        assert_eq!(base.one::<i64>("SELECT count(*) FROM t"), 1);
    }

    /// Who follows a table without a key knows its rows by their rowids.
    #[tokio::test]
    async fn a_rebuild_keeps_the_rowids_of_a_table_without_a_key() {
        let base = Base::new().await;
        let made = "CREATE TABLE t(id INT, n TEXT NOT NULL);
            INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'); DELETE FROM t WHERE id = 2;";
        base.look().execute_batch(made).unwrap();
        migrate(&base.destination, &Table::new("t", vec![int("id"), text("n")])).await;
        assert_eq!(base.list("SELECT rowid, id, n FROM t"), "1|1|a 3|3|c");
        base.look().execute("INSERT INTO t VALUES (4, NULL)", []).expect("it was rebuilt");
    }

    /// Ours are made anew by whoever made them, with the table as it is then.
    #[tokio::test]
    async fn making_a_table_anew_keeps_what_works_on_it() {
        let base = Base::new().await;
        base.look()
            .execute_batch(
                "CREATE TABLE t(id INT, n TEXT); INSERT INTO t VALUES (1, 'a');
                 CREATE TRIGGER __cdc_t AFTER INSERT ON t BEGIN INSERT INTO seen VALUES ('captured'); END;
                 CREATE TABLE seen(n);
                 CREATE INDEX by_id ON t(id); CREATE INDEX by_n ON t(n);
                 CREATE TRIGGER good AFTER INSERT ON t BEGIN INSERT INTO seen VALUES (NEW.id); END;
                 CREATE TRIGGER bad AFTER INSERT ON t BEGIN INSERT INTO seen VALUES (NEW.n); END;
                 CREATE VIEW v AS SELECT id FROM t;",
            )
            .unwrap();
        let wanted = Table::new("t", vec![int("id").with_not_null(true), text("m")]);
        base.writer().migrate(wanted.clone(), true).await.unwrap();
        write(&base.destination, [rows(&wanted, 7, 1)]).await;
        assert_eq!(base.list("SELECT id, m FROM t"), "7|text 7");
        assert_eq!(base.list("SELECT name FROM sqlite_schema WHERE tbl_name = 't' ORDER BY name"), "by_id good t");
        assert_eq!((base.list("SELECT n FROM seen"), base.list("SELECT id FROM v")), ("7".into(), "7".into()));
    }

    #[tokio::test]
    async fn rows_that_wait_are_written_before_their_table_changes() {
        let base = Base::new().await;
        let mut writer = base.writer();
        writer.migrate(id_and_name(), false).await.unwrap();
        writer.insert(named(1, "a")).await.unwrap();
        let mut more = id_and_name();
        more.columns.push(text("more"));
        writer.migrate(more.clone(), false).await.unwrap();
        assert_eq!(base.list("SELECT * FROM t"), "1|a|NULL");
        writer.insert(rows(&more, 2, 1)).await.unwrap();
        writer.insert(named(3, "old schema")).await.unwrap();
        writer.flush().await.unwrap();
        assert_eq!(base.list("SELECT * FROM t"), "1|a|NULL 2|text 2|text 2 3|old schema|NULL");
    }
}

mod deletions {
    //! Deletions that the suite does not ask for.

    use super::*;

    /// In CloudQuery's own batch writer the deletion came before the row that it deletes.
    #[tokio::test]
    async fn a_deletion_sees_the_rows_before_it_and_not_those_after() {
        let base = Base::new().await;
        let mut writer = base.writer();
        writer.migrate(id_and_name(), false).await.unwrap();
        writer.insert(named(100, "a")).await.unwrap();
        writer.delete_record(where_all("t", vec![equals("id", ints([100]))])).await.unwrap();
        writer.insert(named(101, "b")).await.unwrap();
        writer.flush().await.unwrap();
        assert_eq!(base.list("SELECT id FROM t"), "101");
    }

    #[tokio::test]
    async fn stale_is_told_within_one_second_and_by_source() {
        let base = Base::new().await;
        migrate(&base.destination, &synced()).await;
        let second = 1_715_000_009_000_000;
        let rows =
            [(1, "s", 0), (2, "s", 499_999), (3, "s", 500_000), (4, "s", 500_001), (5, "other", 0), (6, "s#2", 0)];
        let mut writer = base.writer();
        for (id, source, micros) in rows {
            writer.insert(synced_row(id, source, second + micros)).await.unwrap();
        }
        let nulls: Vec<ArrayRef> =
            vec![ints([7]), texts(["s"]), Arc::new(TimestampMicrosecondArray::from(vec![None]).with_timezone("UTC"))];
        writer.insert(record(&synced(), nulls)).await.unwrap();
        writer.delete_stale("T", "s", None).await.unwrap();
        assert_eq!(base.one::<i64>("SELECT count(*) FROM t"), 7, "no time, no row");
        writer.delete_stale("T", "s", at(1_715_000_009, 500_000_000)).await.unwrap();
        assert_eq!(base.list("SELECT id FROM t"), "3 4 5 6 7");
        writer.delete_stale("t", "s", at(1_715_000_009, 500_000_001)).await.unwrap();
        assert_eq!(base.list("SELECT id FROM t"), "4 5 6 7");
    }

    #[tokio::test]
    async fn a_deletion_of_what_is_not_there_fails_and_poisons_nothing() {
        let base = Base::new().await;
        migrate(&base.destination, &id_and_name()).await;
        let mut writer = base.writer();
        let why = writer.delete_stale("nowhere", "s", at(5, 0)).await.expect_err("no table").to_string();
        assert!(why.contains("\"nowhere\"") && why.contains("does not exist"), "{why}");
        let why = writer.delete_stale("t", "s", at(5, 0)).await.expect_err("no columns").to_string();
        assert!(why.contains("_cq_source_name"), "{why}");
        let why = writer.delete_record(where_all("nowhere", vec![])).await.expect_err("no table").to_string();
        assert!(why.contains("\"nowhere\""), "{why}");
        let lacking = where_all("t", vec![equals("no column", texts(["no column"]))]);
        let why = writer.delete_record(lacking).await.expect_err("no column").to_string();
        assert!(why.contains("\"no column\""), "{why}");
        writer.insert(named(1, "a")).await.unwrap();
        writer.flush().await.unwrap();
        assert_eq!(base.list("SELECT id FROM t"), "1");
    }

    #[tokio::test]
    async fn groups_are_joined_by_and_and_null_is_is_null() {
        let base = Base::new().await;
        let table =
            Table::new("t", vec![int("a"), text("b"), uuid("u"), time("w"), Column::new("z", DataType::Binary)]);
        migrate(&base.destination, &table).await;
        let fill = "DELETE FROM t; INSERT INTO t(a, b) VALUES (1, 'x'), (1, 'y'), (2, 'x'), (2, NULL), (NULL, 'x');
             INSERT INTO t(a, u, w, z) VALUES (9, '00000000-0000-0000-0000-000000000007', '1970-01-01T00:00:00.5Z', X'00ff')";
        let null = |array: ArrayRef| arrow::compute::nullif(&array, &BooleanArray::from(vec![true])).unwrap();
        let group = |or, predicates| Group { or, predicates };
        let (a, b) = (|value| equals("a", ints([value])), |value: &'static str| equals("B", texts([value])));
        let seven: ArrayRef =
            Arc::new(FixedSizeBinaryArray::try_from_iter([7_u128.to_be_bytes()].into_iter()).unwrap());
        let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values([&[0_u8, 255][..]]));
        let uuid_seven = {
            let batch = record(&Table::new("p", vec![uuid("u")]), vec![seven]);
            Predicate::new("u", batch).unwrap()
        };
        for (groups, left) in [
            (vec![group(false, vec![a(1), b("x")])], "1|y 2|x 2|NULL NULL|x 9|NULL"),
            (vec![group(true, vec![a(1), b("x")])], "2|NULL 9|NULL"),
            (vec![group(true, vec![a(1), a(2)]), group(false, vec![b("x")])], "1|y 2|NULL NULL|x 9|NULL"),
            (vec![group(false, vec![equals("a", null(ints([0])))])], "1|x 1|y 2|x 2|NULL 9|NULL"),
            (vec![group(true, vec![equals("b", null(texts([""]))), a(1)])], "2|x NULL|x"),
            (vec![group(false, vec![]), group(true, vec![a(2)]), group(true, vec![])], "1|x 1|y NULL|x 9|NULL"),
            (vec![group(true, vec![])], ""),
            (vec![group(false, vec![uuid_seven])], "1|x 1|y 2|x 2|NULL NULL|x"),
            (vec![group(false, vec![equals("w", times([500_000]))])], "1|x 1|y 2|x 2|NULL NULL|x"),
            (vec![group(false, vec![equals("z", bytes)])], "1|x 1|y 2|x 2|NULL NULL|x"),
            (vec![group(false, vec![b("NULL OR 1")])], "1|x 1|y 2|x 2|NULL NULL|x 9|NULL"),
        ] {
            base.look().execute_batch(fill).unwrap();
            let delete = DeleteRecord { table: "t".into(), groups: groups.clone(), relations: vec![] };
            base.writer().delete_record(delete).await.unwrap();
            assert_eq!(base.list("SELECT a, b FROM t ORDER BY rowid"), left, "{groups:?}");
        }
    }

    #[tokio::test]
    async fn a_deletion_may_name_thousands_of_values() {
        let base = Base::new().await;
        migrate(&base.destination, &id_and_name()).await;
        write(&base.destination, [rows(&id_and_name(), 0, 5_000)]).await;
        let predicates = (0..4_998).map(|id| equals("id", ints([id]))).collect();
        let groups = vec![Group { or: true, predicates }; 2];
        base.writer().delete_record(DeleteRecord { table: "t".into(), groups, relations: vec![] }).await.unwrap();
        assert_eq!(base.list("SELECT id FROM t"), "4998 4999");
        let same = vec![equals("id", ints([4_999])); 3_000];
        base.writer().delete_record(where_all("t", same)).await.unwrap();
        assert_eq!(base.list("SELECT id FROM t"), "4998");
    }

    #[tokio::test]
    async fn children_go_with_their_parents_at_any_depth() {
        let base = Base::new().await;
        let table = |name: &str| Table::new(name, vec![text("_cq_id"), text("_cq_parent_id"), text("x")]);
        let mut writer = base.writer();
        for name in ["p", "c", "g", "other"] {
            writer.migrate(table(name), false).await.unwrap();
        }
        let row =
            |name: &str, id: &str, parent: &str| record(&table(name), vec![texts([id]), texts([parent]), texts(["x"])]);
        for (name, id, parent) in [
            ("p", "p1", "-"),
            ("p", "p2", "-"),
            ("c", "c1", "p1"),
            ("c", "c2", "p1"),
            ("c", "c3", "p2"),
            ("c", "p2", "-"),
            ("g", "g1", "c1"),
            ("g", "g2", "c3"),
            ("g", "g3", "p1"),
            ("other", "o1", "p1"),
        ] {
            writer.insert(row(name, id, parent)).await.unwrap();
        }
        let relation = |table: &str, parent: &str| Relation { table: table.into(), parent: parent.into() };
        let delete = |relations| DeleteRecord {
            table: "p".into(),
            groups: vec![Group { or: false, predicates: vec![equals("_cq_id", texts(["p1"]))] }],
            relations,
        };
        writer.flush().await.unwrap();
        let why = writer.delete_record(delete(vec![relation("g", "c"), relation("c", "p")])).await.expect_err("order");
        assert!(why.to_string().contains("table \"g\"") && why.to_string().contains("\"c\""), "{why}");
        assert_eq!(base.one::<i64>("SELECT count(*) FROM p"), 2, "all or nothing");
        writer.delete_record(delete(vec![relation("c", "P"), relation("g", "C")])).await.unwrap();
        assert_eq!(base.list("SELECT _cq_id FROM p"), "p2");
        assert_eq!(base.list("SELECT _cq_id FROM c"), "c3 p2");
        assert_eq!(base.list("SELECT _cq_id FROM g"), "g2 g3", "an id belongs to its table");
        assert_eq!(base.list("SELECT _cq_id FROM other"), "o1", "what is not listed stays");
    }
}

mod writing {
    //! Batches, failures, and several at once.

    use super::*;

    #[tokio::test]
    async fn a_failed_batch_fails_the_call_leaves_nothing_and_the_next_one_works() {
        let base = Base::with(|spec| spec.batch_size = Count::new(3)).await;
        let table = Table::new("t", vec![int("id").with_not_null(true), text("name").with_not_null(true)]);
        let loose = Table::new("t", vec![int("id"), text("name")]);
        let other = Table::new("other", vec![int("id")]);
        let mut writer = base.writer();
        writer.migrate(table.clone(), false).await.unwrap();
        writer.migrate(other.clone(), false).await.unwrap();
        writer.insert(rows(&other, 1, 1)).await.unwrap();
        writer.insert(rows(&table, 1, 2)).await.unwrap();
        let null: Vec<ArrayRef> = vec![ints([3]), Arc::new(StringArray::from(vec![None::<&str>]))];
        let error = writer.insert(record(&loose, null)).await.expect_err("at once, for the batch is full");
        let said = twinlite::sqlite::said(&error);
        assert!(said.contains("table \"t\"") && said.contains("NOT NULL constraint failed: t.name"), "{said}");
        assert_eq!(writer.failed_tables(), ["other", "t"]);
        writer.flush().await.unwrap();
        assert_eq!(base.list("SELECT id FROM t UNION ALL SELECT id FROM other"), "", "dropped with it");
        writer.forget_failures();
        writer.insert(rows(&table, 7, 1)).await.unwrap();
        writer.flush().await.unwrap();
        assert_eq!((base.list("SELECT id FROM t"), writer.failed_tables().len()), ("7".into(), 0));
    }

    #[tokio::test]
    async fn a_record_that_does_not_fit_its_table_is_refused_when_it_comes() {
        let base = Base::new().await;
        base.look().execute_batch("CREATE TABLE n(i INT, r REAL, t TEXT, any)").unwrap();
        migrate(&base.destination, &id_and_name()).await;
        let mut writer = base.writer();
        let mut refused =
            async |table: Table| writer.insert(rows(&table, 1, 1)).await.expect_err("refused").to_string();
        let why = refused(Table::new("nowhere", vec![int("id")])).await;
        assert!(why.contains("\"nowhere\" does not exist"), "{why}");
        let why = refused(Table::new("t", vec![int("id"), int("x"), int("y")])).await;
        assert!(why.contains("\"t\" has no column \"x\", \"y\""), "{why}");
        let why = refused(Table::new("t", vec![int("id"), int("ID")])).await;
        assert!(why.contains("twice"), "{why}");
        for (column, word) in [(text("i"), "INT"), (int("r"), "REAL"), (int("t"), "TEXT")] {
            let why = refused(Table::new("n", vec![column])).await;
            assert!(why.contains(word) && why.contains("table \"n\""), "{why}");
        }
        let why = refused(Table::new("sqlite_schema", vec![int("id")])).await;
        assert!(why.contains("reserved"), "{why}");
        let nameless = RecordBatch::try_from_iter([("id", ints([1]))]).unwrap();
        assert_eq!(writer.insert(nameless).await.expect_err("no name").to_string(), "missing table name");
        writer.insert(rows(&Table::new("n", vec![int("any"), int("i")]), 1, 1)).await.unwrap();
        writer.flush().await.unwrap();
        assert_eq!(base.list("SELECT any, i FROM n"), "1|1");
    }

    #[tokio::test]
    async fn columns_go_by_name_and_those_not_written_are_reset() {
        let base = Base::new().await;
        let id = || int("id").with_not_null(true).with_primary_key(true);
        migrate(&base.destination, &Table::new("T", vec![id(), text("a"), text("b")])).await;
        let row = |columns: Vec<Column>, values: Vec<ArrayRef>| record(&Table::new("t", columns), values);
        let first = row(vec![text("B"), text("a"), id()], vec![texts(["b"]), texts(["a"]), ints([1])]);
        write(&base.destination, [first]).await;
        assert_eq!(base.list("SELECT id, a, b FROM t"), "1|a|b");
        write(&base.destination, [row(vec![id(), text("b")], vec![ints([1]), texts(["c"])])]).await;
        assert_eq!(base.list("SELECT id, a, b FROM t"), "1|NULL|c", "as INSERT OR REPLACE does");
        let plain = row(vec![int("id"), text("b")], vec![ints([1]), texts(["d"])]);
        let mut writer = base.writer();
        writer.insert(plain).await.unwrap();
        let error = writer.flush().await.expect_err("without the key's flag it is an INSERT");
        assert!(twinlite::sqlite::said(&error).contains("UNIQUE"), "{error}");
    }

    /// Of every extension type: NULL, no bytes at all, and nothing but a key are three things.
    #[tokio::test]
    async fn null_and_nothing_are_told_apart() {
        let of = |extension| Column::extension("value", extension);
        for column in [
            of(Extension::Json),
            of(Extension::Inet),
            of(Extension::Mac),
            text("value"),
            Column::new("value", DataType::Binary),
        ] {
            let table = Table::new("t", vec![int("id").with_primary_key(true), column.clone()]);
            let base = Base::new().await;
            migrate(&base.destination, &table).await;
            let values = arrow::compute::cast(&BinaryArray::from(vec![Some(&b""[..]), None]), column.data_type());
            let both = record(&table, vec![ints([1, 2]), values.unwrap()]);
            write(&base.destination, [both.clone()]).await;
            assert_eq!(read(&base.destination, &table).await.unwrap(), both, "{column:?}");
            assert_eq!(base.list("SELECT id FROM t WHERE value IS NULL"), "2");
        }
    }

    #[tokio::test]
    async fn a_null_in_a_key_repeats_and_an_integer_key_is_never_made_up() {
        let base = Base::new().await;
        let by_name = Table::new("a", vec![int("id"), text("name").with_primary_key(true)]);
        let by_id = Table::new("b", vec![int("id").with_primary_key(true)]);
        migrate(&base.destination, &by_name).await;
        migrate(&base.destination, &by_id).await;
        let null: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>, None]));
        write(&base.destination, [record(&by_name, vec![ints([1, 2]), null])]).await;
        assert_eq!(base.list("SELECT * FROM a"), "1|NULL 2|NULL");
        let null: ArrayRef = Arc::new(Int64Array::from(vec![None]));
        let mut writer = base.writer();
        writer.insert(record(&by_id, vec![null])).await.unwrap();
        let why = writer.flush().await.expect_err("no key").to_string();
        assert!(why.contains("table \"b\"") && why.contains("\"id\""), "{why}");
        assert_eq!(base.one::<i64>("SELECT count(*) FROM b"), 0);
        // SQLite's own word for it, "datatype mismatch", names no column.
        let unsigned = Column::new("id", DataType::UInt64).with_primary_key(true);
        let by_unsigned = Table::new("c", vec![unsigned]);
        migrate(&base.destination, &by_unsigned).await;
        let largest: ArrayRef = Arc::new(arrow::array::UInt64Array::from(vec![i64::MAX as u64]));
        write(&base.destination, [record(&by_unsigned, vec![largest])]).await;
        let beyond: ArrayRef = Arc::new(arrow::array::UInt64Array::from(vec![1 << 63]));
        let mut writer = base.writer();
        writer.insert(record(&by_unsigned, vec![beyond])).await.unwrap();
        let why = writer.flush().await.expect_err("no integer").to_string();
        assert!(why.contains("table \"c\": its key \"id\" is above 2^63 - 1"), "{why}");
    }

    #[tokio::test]
    async fn batches_are_bounded_by_rows_and_a_large_record_is_cut() {
        let base = Base::with(|spec| spec.batch_size = Count::new(4)).await;
        migrate(&base.destination, &id_and_name()).await;
        let mut writer = base.writer();
        writer.insert(rows(&id_and_name(), 1, 3)).await.unwrap();
        assert_eq!(base.one::<i64>("SELECT count(*) FROM t"), 0);
        writer.insert(rows(&id_and_name(), 4, 7)).await.unwrap();
        assert_eq!(base.one::<i64>("SELECT count(*) FROM t"), 8, "two batches of four, and two rows wait");
        drop(writer);
        assert_eq!(base.one::<i64>("SELECT count(*) FROM t"), 8);
    }

    #[tokio::test]
    async fn many_small_records_do_not_wait_for_ever() {
        let base = Base::with(|spec| spec.batch_size_bytes = Count::new(100_000)).await;
        migrate(&base.destination, &id_and_name()).await;
        let mut writer = base.writer();
        let mut waited_max = 0;
        for id in 0..1_000 {
            writer.insert(named(id, "a")).await.unwrap();
            waited_max = waited_max.max(id + 1 - base.one::<i64>("SELECT count(*) FROM t"));
        }
        assert!((10..200).contains(&waited_max), "{waited_max} rows of about a kilobyte in memory waited");
        let wide = "x".repeat(60_000);
        writer.flush().await.unwrap();
        writer.insert(record(&id_and_name(), vec![ints([-1, -2, -3, -4]), texts([wide.as_str(); 4])])).await.unwrap();
        assert_eq!(base.one::<i64>("SELECT count(*) FROM t WHERE id < 0"), 4, "by bytes");
    }

    #[tokio::test]
    async fn many_tables_together_are_bounded_too() {
        let base = Base::new().await;
        let mut writer = base.writer();
        let wide = "x".repeat(9 << 20);
        let mut written = 0;
        for number in 0..9 {
            let table = Table::new(&format!("t{number}"), vec![text("a")]);
            writer.migrate(table.clone(), false).await.unwrap();
            writer.insert(record(&table, vec![texts([wide.as_str()])])).await.unwrap();
            written = base.one("SELECT count(*) FROM t0");
        }
        assert_eq!(written, 1, "nine times 9 MiB did not all wait");
    }

    #[tokio::test]
    async fn what_is_not_full_is_due_after_its_time() {
        let base = Base::with(|spec| spec.batch_timeout = Timeout::new(Duration::from_secs(20))).await;
        migrate(&base.destination, &id_and_name()).await;
        let mut writer = base.writer();
        assert_eq!(writer.deadline(), None);
        tokio::time::pause();
        let begun = tokio::time::Instant::now();
        writer.insert(named(1, "a")).await.unwrap();
        let due = writer.deadline().expect("something waits");
        assert!(due >= begun + Duration::from_secs(20));
        tokio::time::advance(Duration::from_secs(19)).await;
        writer.insert(named(2, "b")).await.unwrap();
        assert_eq!(writer.deadline(), Some(due), "the oldest row counts");
        tokio::time::sleep_until(due).await;
        writer.tick().await.unwrap();
        assert_eq!((base.list("SELECT id FROM t"), writer.deadline()), ("1 2".into(), None));
        tokio::time::resume();
        let base = Base::with(|spec| spec.batch_timeout = Timeout::new(Duration::ZERO)).await;
        migrate(&base.destination, &id_and_name()).await;
        let mut writer = base.writer();
        writer.insert(named(1, "a")).await.unwrap();
        assert_eq!(writer.deadline(), None);
    }

    #[tokio::test]
    async fn a_second_stream_and_a_read_work_while_one_is_open() {
        for name in [":memory:", "file"] {
            let folder = tempfile::tempdir().unwrap();
            let place = if name == "file" { folder.path().join("a.db").display().to_string() } else { name.into() };
            let destination = Destination::open(&spec(&place), &Options::default()).await.unwrap();
            let state = Table::new(
                "state",
                vec![text("key").with_primary_key(true), text("value"), Column::new("version", DataType::UInt64)],
            );
            let mut sync = destination.writer();
            sync.migrate(id_and_name(), false).await.unwrap();
            sync.insert(named(1, "a")).await.unwrap();
            let mut backend = destination.writer();
            backend.migrate(state.clone(), false).await.unwrap();
            let version: ArrayRef = Arc::new(arrow::array::UInt64Array::from(vec![u64::MAX]));
            let kept = record(&state, vec![texts(["k"]), texts(["v"]), version]);
            backend.insert(kept.clone()).await.unwrap();
            backend.flush().await.unwrap();
            assert_eq!(read(&destination, &state).await.unwrap(), kept, "{name}");
            assert_eq!(count(&destination, &id_and_name()).await, 0, "{name}: what waits is not read");
            sync.flush().await.unwrap();
            assert_eq!(read(&destination, &id_and_name()).await.unwrap(), named(1, "a"), "{name}");
        }
    }

    #[tokio::test]
    async fn a_slow_reader_holds_nobody_up() {
        let base = Base::new().await;
        let table = Table::new("t", vec![int("id")]);
        migrate(&base.destination, &table).await;
        write(&base.destination, [rows(&table, 0, 50_000)]).await;
        let (send, mut receive) = mpsc::channel(1);
        let reading = tokio::spawn({
            let (destination, table) = (base.destination.clone(), table.clone());
            async move { destination.read(table, send).await }
        });
        let first = receive.recv().await.expect("a batch").unwrap();
        assert!((2..50_000).contains(&first.num_rows()), "{} rows in one batch", first.num_rows());
        write(&base.destination, [rows(&table, 50_000, 10)]).await;
        let mut total = first.num_rows();
        while let Some(batch) = receive.recv().await {
            total += batch.unwrap().num_rows();
        }
        reading.await.unwrap().unwrap();
        assert_eq!(total, 50_000, "one moment of the table");
    }

    #[tokio::test]
    async fn a_read_of_what_is_not_there_fails() {
        for destination in [memory().await, Base::new().await.destination] {
            migrate(&destination, &id_and_name()).await;
            let why =
                read(&destination, &Table::new("nowhere", vec![int("id")])).await.expect_err("no table").to_string();
            assert!(why.contains("\"nowhere\""), "{why}");
            let why = read(&destination, &Table::new("t", vec![int("x")])).await.expect_err("no column").to_string();
            assert!(why.contains("\"x\""), "{why}");
            write(&destination, [named(1, "word")]).await;
            let other = Table::new("t", vec![int("name")]);
            let error = read(&destination, &other).await.expect_err("a word is no number");
            let said = twinlite::sqlite::said(&error);
            assert!(said.contains("table \"t\"") && said.contains("name") && !said.contains("word"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_closed_destination_says_so() {
        let base = Base::new().await;
        migrate(&base.destination, &id_and_name()).await;
        let mut writer = base.writer();
        writer.insert(named(1, "a")).await.unwrap();
        base.destination.close().await.unwrap();
        assert!(matches!(base.destination.close().await, Err(Error::Closed)));
        assert!(matches!(writer.flush().await, Err(Error::Closed)));
        assert!(matches!(read(&base.destination, &id_and_name()).await, Err(Error::Closed)));
        assert!(!base.folder.path().join("a.db-wal").exists(), "the last one out puts the WAL away");
        let spec = spec(&base.folder.path().join("a.db").display().to_string());
        let again = Destination::open(&spec, &Options::default()).await.unwrap();
        assert_eq!(count(&again, &id_and_name()).await, 0);
    }

    #[tokio::test]
    async fn without_a_connection_nothing_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let options = Options { no_connection: true, ..Options::default() };
        let destination = Destination::open(&spec(&path.display().to_string()), &options).await.unwrap();
        assert!(matches!(destination.writer().migrate(id_and_name(), false).await, Err(Error::NoConnection)));
        assert!(matches!(read(&destination, &id_and_name()).await, Err(Error::NoConnection)));
        destination.close().await.unwrap();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_cannot_be_opened_says_why() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("no.db"), "this is no database, whatever its name says, and long enough")
            .unwrap();
        for (name, word) in [("no.db", "not a SQLite database"), ("none/a.db", "does not exist; create it")] {
            let spec = spec(&folder.path().join(name).display().to_string());
            let why = Destination::open(&spec, &Options::default()).await.err().expect(name).to_string();
            assert!(why.contains(word), "{why}");
        }
    }

    /// Capture sees what is written here as it sees an application's writes: by triggers, which fire.
    #[tokio::test]
    async fn triggers_fire_and_are_never_dropped_for_a_write() {
        let base = Base::new().await;
        migrate(&base.destination, &id_and_name()).await;
        base.look()
            .execute_batch(
                "CREATE TABLE log(what); CREATE TRIGGER a AFTER INSERT ON t BEGIN INSERT INTO log VALUES ('+' || NEW.id); END;
                 CREATE TRIGGER b AFTER DELETE ON t BEGIN INSERT INTO log VALUES ('-' || OLD.id); END;",
            )
            .unwrap();
        write(&base.destination, [named(1, "a"), named(2, "b")]).await;
        base.writer().delete_record(where_all("t", vec![equals("id", ints([1]))])).await.unwrap();
        base.writer()
            .delete_record(DeleteRecord { table: "t".into(), groups: vec![], relations: vec![] })
            .await
            .unwrap();
        assert_eq!(base.list("SELECT what FROM log"), "+1 +2 -1 -2");
    }
}
