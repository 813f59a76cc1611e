//! CloudQuery's values in SQLite: what is stored is what the official plugin stores, and reads back as what was sent.
//!
//! The fixtures were written by the SDK; `probe.txt` says what it makes of each value of `record_probe.bin`: its type, its
//! text, and what the official plugin stored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Float64Array, Int64Array, ListArray, RecordBatch, StructArray, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Int64Type, TimeUnit, TimestampSecondType, UInt64Type};
use proptest::prelude::*;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, params_from_iter};
use twinlite::cloudquery::parse::ArrayReader;
use twinlite::cloudquery::text::text;
use twinlite::cloudquery::types::{Class, same_type, type_name};
use twinlite::cloudquery::value::{Converter, cell};
use twinlite::cloudquery::{Table, ipc};

use crate::support::cq_arrays;
use crate::support::cq_table::{Generator, Options, test_table};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cloudquery").join(name)
}

fn record(name: &str) -> RecordBatch {
    let (_, mut batches) = ipc::decode_records(&std::fs::read(fixture(name)).unwrap()).unwrap();
    assert_eq!(batches.len(), 1);
    batches.remove(0)
}

/// Stores a batch in a table declared for it.
fn stored(batch: &RecordBatch) -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    let schema = batch.schema();
    let columns: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| format!("\"{}\" {}", field.name(), Class::of(field).declared_type()))
        .collect();
    conn.execute(&format!("create table t ({})", columns.join(",")), []).unwrap();
    let converters: Vec<Converter> = schema.fields().iter().map(|field| Converter::new(field).unwrap()).collect();
    let marks = vec!["?"; columns.len()].join(",");
    let mut insert = conn.prepare(&format!("insert into t values ({marks})")).unwrap();
    for row in 0..batch.num_rows() {
        let values =
            converters.iter().zip(batch.columns()).map(|(converter, array)| converter.value(array, row).unwrap());
        insert.execute(params_from_iter(values)).unwrap();
    }
    drop(insert);
    conn
}

/// Reads the columns of a table back as these types.
fn read(conn: &Connection, fields: &[Arc<Field>]) -> Vec<ArrayRef> {
    let mut readers: Vec<ArrayReader> = fields.iter().map(|field| ArrayReader::new(field).unwrap()).collect();
    let mut select = conn.prepare("select * from t order by rowid").unwrap();
    let mut rows = select.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        for (at, reader) in readers.iter_mut().enumerate() {
            reader.push(row.get_ref(at).unwrap()).unwrap();
        }
    }
    readers.into_iter().map(|reader| reader.finish().unwrap()).collect()
}

fn assert_round_trip(batch: &RecordBatch) {
    let schema = batch.schema();
    let arrays = read(&stored(batch), schema.fields());
    for ((field, sent), got) in schema.fields().iter().zip(batch.columns()).zip(&arrays) {
        assert_eq!(got.data_type(), field.data_type(), "{}", field.name());
        assert_eq!(got, sent, "{}", field.name());
    }
    // The metadata of the fields is the request's own.
    assert_eq!(RecordBatch::try_new(schema, arrays).unwrap(), *batch);
}

#[test]
fn every_fixture_reads_back_as_it_was_sent() {
    for (name, columns) in [("testtable_0.bin", 231), ("testtable_1.bin", 231), ("record_probe.bin", 234)] {
        let batch = record(name);
        assert!(batch.num_rows() > 0 && batch.num_columns() >= columns, "{name}: {}", batch.num_columns());
        assert_round_trip(&batch);
    }
}

#[test]
fn generated_rows_read_back_as_they_were_made() {
    let table = test_table("t", Options::default());
    let mut generator = Generator::new(7);
    let (normal, null) = (generator.batch(&table, 10, false), generator.batch(&table, 10, true));
    assert_round_trip(&normal);
    assert_round_trip(&null);
    assert_eq!(normal.column(0).as_primitive::<Int64Type>().values().to_vec(), (8..18).collect::<Vec<_>>());
    assert!(normal.columns().iter().all(|column| column.null_count() == 0));
    assert!(null.columns()[1..].iter().all(|column| column.null_count() == 10));
    generator.reset();
    assert_eq!(generator.batch(&table, 10, false), normal);
}

#[test]
fn test_table_is_the_one_of_the_sdk() {
    let theirs = Table::from_schema(&record("testtable_0.bin").schema()).unwrap();
    let ours = test_table("t", Options::default());
    assert_eq!(ours.columns.len(), 231);
    for (ours, theirs) in ours.columns.iter().zip(&theirs.columns) {
        assert_eq!(ours.name(), theirs.name());
        assert_eq!(ours.not_null(), theirs.not_null(), "{}", ours.name());
        assert_eq!(ours.data_type(), theirs.data_type(), "{}", ours.name());
        assert!(same_type(ours.field(), theirs.field()), "{}", ours.name());
    }
    let skip =
        |skip_maps, skip_structs, skip_lists| Options { skip_maps, skip_structs, skip_lists, ..Options::default() };
    assert_eq!(test_table("t", skip(true, false, false)).columns.len(), 77);
    assert_eq!(test_table("t", skip(true, true, false)).columns.len(), 75);
    assert_eq!(test_table("t", skip(true, true, true)).columns.len(), 38);
}

/// The lines of `probe.txt` that begin with a word.
fn probe(word: &str) -> Vec<String> {
    let text = std::fs::read_to_string(fixture("probe.txt")).unwrap();
    let lines: Vec<String> = text.lines().filter_map(|line| line.strip_prefix(word)).map(str::to_owned).collect();
    assert!(!lines.is_empty());
    lines
}

#[test]
fn texts_and_names_of_types_are_those_of_the_sdk() {
    let batch = record("record_probe.bin");
    let lines = probe("COL ");
    assert_eq!(lines.len(), 234);
    for line in lines {
        let (head, expected) = line.split_once(" | valuestr=").unwrap();
        let [place, type_expected, _] = head.split(" | ").collect::<Vec<_>>()[..] else { panic!("{head}") };
        let (at, name) = place.split_once(' ').unwrap();
        let at: usize = at.parse().unwrap();
        let schema = batch.schema();
        let field = schema.field(at);
        assert_eq!(field.name(), name);
        assert_eq!(type_name(field), type_expected, "{name}");
        assert_eq!(text(batch.column(at), field, 0).unwrap(), expected, "{name}");
    }
}

#[test]
fn stored_values_are_those_of_the_official_plugin() {
    let batch = record("record_probe.bin");
    let conn = stored(&batch);
    let mut seen = 0;
    for line in probe("VAL ") {
        let (head, expected) = line.split_once(" q=").unwrap();
        let [name, row, class] = head.split(' ').collect::<Vec<_>>()[..] else { panic!("{head}") };
        let at: usize = row.trim_start_matches('r').parse().unwrap();
        // A later record made the other rows.
        if at >= batch.num_rows() {
            continue;
        }
        let rowid = at + 1;
        let sql = format!("select typeof(\"{name}\"), quote(\"{name}\") from t where rowid = {rowid}");
        let (got_class, got): (String, String) =
            conn.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(format!("typeof={got_class}"), class, "{name} {row}");
        // How a float is written depends on SQLite's version.
        match (got.parse::<f64>(), expected.parse::<f64>()) {
            (Ok(got), Ok(expected)) if got_class == "real" => assert!(got == expected, "{name} {row}"),
            _ => assert_eq!(got, expected, "{name} {row}"),
        }
        seen += 1;
    }
    assert_eq!(seen, 234);
}

#[test]
fn declared_types_are_those_of_the_official_plugin() {
    let ddl = probe("DDL CREATE TABLE \"probe\" ").remove(0);
    let declared: BTreeMap<&str, &str> = ddl
        .trim_matches(['(', ')'])
        .split(',')
        .filter_map(|column| column.trim_start_matches('"').split_once("\" "))
        .map(|(name, declared)| (name, declared.split(' ').next().unwrap()))
        .collect();
    let batch = record("record_probe.bin");
    for field in batch.schema().fields() {
        assert_eq!(Class::of(field).declared_type(), declared[field.name().as_str()], "{}", field.name());
    }
}

/// What a value reads back as, over SQLite and not.
fn back(array: &ArrayRef, field: &Field) -> ArrayRef {
    let mut reader = ArrayReader::new(field).unwrap();
    for row in 0..array.len() {
        let value = cell(array, field, row).unwrap();
        reader.push(ValueRef::from(&value)).unwrap();
    }
    reader.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn values_of_every_type_read_back(data_type in cq_arrays::data_type(), seed in any::<u64>(), rows in 2..12_usize) {
        let field = cq_arrays::field("c", data_type, true);
        let array = cq_arrays::array(&field, rows, seed);
        // A slice, too: arrays from a peer may begin anywhere in their buffers.
        for array in [array.slice(1, rows - 1), array] {
            let schema = arrow::datatypes::Schema::new(vec![field.clone()]);
            let got = back(&array, &field);
            prop_assert_eq!(got.data_type(), field.data_type());
            prop_assert_eq!(&got, &array);
            assert_round_trip(&RecordBatch::try_new(Arc::new(schema), vec![array]).unwrap());
        }
    }

    #[test]
    fn broken_texts_are_errors_and_never_panics(
        column in 0..231_usize,
        cut in any::<prop::sample::Index>(),
        end in any::<prop::sample::Index>(),
        insert in "[\\[\\]{}\",:\\\\\t 0-9eE.nulltr\u{e9}-]{0,6}",
    ) {
        let table = test_table("t", Options::default());
        let field = table.columns[column].field().clone();
        let batch = Generator::new(3).batch(&table, 1, false);
        let Ok(Value::Text(valid)) = cell(batch.column(column), &field, 0) else { return Ok(()) };
        let chars: Vec<char> = valid.chars().collect();
        let (mut from, mut to) = (cut.index(chars.len()), end.index(chars.len()));
        if from > to {
            (from, to) = (to, from);
        }
        let broken: String = chars[..from].iter().copied().chain(insert.chars()).chain(chars[to..].iter().copied()).collect();
        let mut reader = ArrayReader::new(&field).unwrap();
        match reader.push(ValueRef::Text(broken.as_bytes())) {
            Ok(()) => prop_assert_eq!(reader.finish().unwrap().len(), 1),
            Err(error) => {
                let said = error.to_string();
                prop_assert!(said.contains(&format!("{:?}", field.name())), "{}", said);
                // Whatever was left behind, there is no panic.
                let _ = reader.finish();
            }
        }
    }

    #[test]
    fn anything_stored_is_read_or_refused(data_type in cq_arrays::data_type(), integer in any::<i64>(), real in any::<f64>(), bytes in any::<Vec<u8>>()) {
        let field = cq_arrays::field("c", data_type, true);
        for value in [
            ValueRef::Null,
            ValueRef::Integer(integer),
            ValueRef::Integer(integer % 300),
            ValueRef::Real(real),
            ValueRef::Text(&bytes),
            ValueRef::Blob(&bytes),
            ValueRef::Text(b""),
            ValueRef::Text(b"null"),
            ValueRef::Text(b"[]"),
            ValueRef::Text(b"{}"),
            ValueRef::Text(b"[null]"),
        ] {
            let mut reader = ArrayReader::new(&field).unwrap();
            if reader.push(value).is_ok() {
                prop_assert_eq!(reader.finish().unwrap().len(), 1);
            }
        }
    }
}

fn plain(data_type: DataType) -> Field {
    Field::new("c", data_type, true)
}

fn one_column(field: &Field, array: ArrayRef) -> RecordBatch {
    RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(vec![field.clone()])), vec![array]).unwrap()
}

/// What the values of a column are in SQLite, in the order of the column.
fn quoted(field: &Field, array: ArrayRef) -> Vec<String> {
    let conn = stored(&one_column(field, array));
    let mut select = conn.prepare("select quote(c) from t order by c").unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn numbers_that_sqlite_has_no_place_for_are_kept() {
    let large = UInt64Array::from(vec![u64::MAX, 1 << 63, (1 << 63) - 1, 0]);
    let field = plain(DataType::UInt64);
    let digits = |text: &str| format!("X'{}'", text.bytes().map(|byte| format!("{byte:02X}")).collect::<String>());
    assert_eq!(
        quoted(&field, Arc::new(large)),
        ["0", "9223372036854775807", &digits("09223372036854775808"), &digits("18446744073709551615")]
    );
    let floats = Float64Array::from(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0]);
    let field = plain(DataType::Float64);
    assert_eq!(quoted(&field, Arc::new(floats.clone())), ["-9.0e+999", "0.0", "9.0e+999", "'NaN'"]);
    // The sign of a zero is SQLite's loss, not ours.
    let floats: ArrayRef = Arc::new(floats);
    assert_eq!(&back(&floats, &field), &floats);
}

#[test]
fn files_of_the_official_plugin_are_read() {
    let read = |data_type: DataType, value: ValueRef<'_>| {
        let mut reader = ArrayReader::new(&plain(data_type)).unwrap();
        reader.push(value).unwrap();
        reader.finish().unwrap()
    };
    let negative = read(DataType::UInt64, ValueRef::Integer(-1));
    assert_eq!(negative.as_primitive::<UInt64Type>().value(0), u64::MAX);
    let spaced = DataType::List(Arc::new(Field::new("item", DataType::UInt64, true)));
    let list = read(spaced, ValueRef::Text(b" [ 18446744073709551615 ,\n null ] "));
    assert_eq!(list.as_list::<i32>().value(0).as_ref(), &UInt64Array::from(vec![Some(u64::MAX), None]) as &dyn Array);
    let time = read(DataType::Timestamp(TimeUnit::Second, None), ValueRef::Text(b"1970-01-01 00:01:00.9+00:00"));
    assert_eq!(time.as_primitive::<TimestampSecondType>().value(0), 60);
}

#[test]
fn nested_texts_tell_apart_what_go_does_not() {
    let json = cq_arrays::field("item", DataType::Binary, true);
    let field = plain(DataType::List(Arc::new(json.clone())));
    let values = BinaryArray::from_opt_vec(vec![
        Some(b"null"),
        None,
        Some(b"{oops"),
        Some(b"\"{oops\""),
        Some(b" 1"),
        Some(b"\xff"),
        Some(b"<"),
        Some(b"[1, 2]"),
    ]);
    let array: ArrayRef =
        Arc::new(ListArray::new(Arc::new(json), OffsetBuffer::from_lengths([8]), Arc::new(values), None));
    let expected = r#"["null",null,"{oops","{oops"," 1",["/w=="],"\u003c",[1, 2]]"#;
    assert_eq!(text(&array, &field, 0).unwrap().replace('\t', ""), expected);
    assert_eq!(&back(&array, &field), &array);

    let twice = Fields::from(vec![
        Field::new("b", DataType::Int64, true),
        Field::new("a<", DataType::Float64, true),
        Field::new("b", DataType::Int64, true),
    ]);
    let field = plain(DataType::Struct(twice.clone()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1, i64::MIN])),
        Arc::new(Float64Array::from(vec![f64::NAN, -0.0])),
        Arc::new(Int64Array::from(vec![Some(2), None])),
    ];
    let array: ArrayRef = Arc::new(StructArray::new(twice, columns, None));
    assert_eq!(text(&array, &field, 0).unwrap(), r#"{"a\u003c":"NaN","b":1,"b":2}"#);
    assert_eq!(text(&array, &field, 1).unwrap(), r#"{"a\u003c":-0,"b":-9223372036854775808,"b":null}"#);
    assert_eq!(&back(&array, &field), &array);
}

#[test]
fn values_of_another_type_are_errors_that_name_the_column() {
    let item = |data_type: DataType, nullable| DataType::List(Arc::new(Field::new("item", data_type, nullable)));
    for (data_type, stored, what) in [
        (DataType::Int8, ValueRef::Integer(300), "beyond"),
        (DataType::UInt8, ValueRef::Integer(-1), "beyond"),
        (DataType::Int64, ValueRef::Real(0.5), "not an integer"),
        (DataType::Float64, ValueRef::Text(b"secret"), "not a number"),
        (DataType::Boolean, ValueRef::Text(b"yes"), "truth"),
        (DataType::Date32, ValueRef::Text(b"2023-02-30"), "date"),
        (DataType::Decimal128(5, 2), ValueRef::Text(b"1.234"), "decimal"),
        (DataType::FixedSizeBinary(3), ValueRef::Blob(b"ab"), "number of bytes"),
        (DataType::Utf8, ValueRef::Blob(b"\xff"), "UTF-8"),
        (item(DataType::Int64, true), ValueRef::Text(b"[1"), "not valid"),
        (item(DataType::Int64, true), ValueRef::Text(b"[1] 2"), "follows"),
        (item(DataType::Int64, true), ValueRef::Text(b"[1.5]"), "not an integer"),
        (item(DataType::Int64, false), ValueRef::Text(b"[null]"), "allows none"),
        (item(DataType::Int64, true), ValueRef::Integer(1), "not JSON"),
        (DataType::Null, ValueRef::Integer(1), "not NULL"),
    ] {
        let mut reader = ArrayReader::new(&Field::new("odd \"name", data_type, true)).unwrap();
        let said = reader.push(stored).unwrap_err().to_string();
        assert!(said.contains(r#""odd \"name""#) && said.contains(what), "{said}");
        assert!(!said.contains("secret"), "a value is in the error: {said}");
    }
}

#[test]
fn unsupported_types_are_refused_by_name() {
    let ends = Arc::new(Field::new("run_ends", DataType::Int32, false));
    let values = Arc::new(Field::new("values", DataType::Utf8, true));
    let encoded = DataType::RunEndEncoded(ends, values);
    let nested = DataType::List(Arc::new(Field::new("item", encoded.clone(), true)));
    let huge = DataType::FixedSizeList(Arc::new(Field::new("item", DataType::FixedSizeBinary(1 << 12), true)), 1 << 12);
    for data_type in [encoded, nested, DataType::FixedSizeBinary(-1), huge] {
        let field = Field::new("odd", data_type, true);
        let refused = ArrayReader::new(&field).unwrap_err().to_string();
        assert!(refused.contains("\"odd\"") && refused.contains("cannot be stored"), "{refused}");
    }
    let field = Field::new(
        "odd",
        DataType::List(Arc::new(Field::new(
            "item",
            DataType::RunEndEncoded(
                Arc::new(Field::new("run_ends", DataType::Int32, false)),
                Arc::new(Field::new("values", DataType::Utf8, true)),
            ),
            true,
        ))),
        true,
    );
    assert!(Converter::new(&field).unwrap_err().to_string().contains("\"odd\""));
}
