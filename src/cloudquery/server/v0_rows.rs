//! Rows as JSON, as sources of protocol version 1 send them: `{"table_name": …, "data": [{"type": …, "value": …}]}`.
//!
//! A value is an object whose `Status` is 2 where it is present; where it stands in it depends on its type. What a column
//! is decides how its value is read; one that is of another type has nothing there, which is an error.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, Float64Array, Int64Array, ListArray, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat};
use prost_types::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cloudquery::{Extension, Table};

/// The status of a value that is there.
const PRESENT: u64 = 2;

#[derive(Deserialize)]
struct Resource {
    table_name: String,
    #[serde(default)]
    data: Option<Vec<Cell>>,
}

#[derive(Deserialize)]
struct Cell {
    #[serde(default)]
    value: Value,
}

/// Where a row comes from: what an old source leaves to the destination to add.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    pub(super) source: String,
    pub(super) sync_time: Option<Timestamp>,
}

impl Origin {
    /// The values of `_cq_source_name` and `_cq_sync_time`.
    fn cells(&self) -> [Cell; 2] {
        let time = self.sync_time.and_then(|time| {
            let time = DateTime::from_timestamp(time.seconds, u32::try_from(time.nanos).ok()?)?;
            Some(json!({"Time": time.to_rfc3339_opts(SecondsFormat::Micros, true), "Status": PRESENT}))
        });
        let source = json!({"Str": self.source, "Status": PRESENT});
        [Cell { value: source }, Cell { value: time.unwrap_or_default() }]
    }
}

/// The record of one resource. Where it has fewer values than its table has columns, its origin comes first.
///
/// # Errors
/// What is wrong, and in which table and column; never a value.
pub(super) fn parse(json: &[u8], tables: &[Table], origin: &Origin) -> Result<RecordBatch, String> {
    let resource: Resource = serde_json::from_slice(json).map_err(|error| format!("resource: {error}"))?;
    let name = &resource.table_name;
    let Some(table) = tables.iter().find(|table| table.name == *name) else {
        return Err(format!("resource: table {name:?} is not among those that the stream began with"));
    };
    let mut cells = resource.data.unwrap_or_default();
    if cells.len() < table.columns.len() {
        cells.splice(0..0, origin.cells());
    }
    if cells.len() != table.columns.len() {
        let (found, want) = (cells.len(), table.columns.len());
        return Err(format!("resource: table {name:?} has {want} columns, and the row {found} values"));
    }
    let schema = Arc::new(table.to_schema());
    let read = |(field, cell): (&Arc<Field>, Cell)| {
        let wrong = |why| format!("resource: table {name:?}: column {:?}: {why}", field.name());
        array(field, std::slice::from_ref(&cell.value)).map_err(wrong)
    };
    let arrays = schema.fields().iter().zip(cells).map(read).collect::<Result<_, _>>()?;
    RecordBatch::try_new(Arc::clone(&schema), arrays).map_err(|error| format!("resource: table {name:?}: {error}"))
}

fn is_present(value: &Value) -> bool {
    value.get("Status").and_then(Value::as_u64) == Some(PRESENT)
}

/// Values of one type as an array.
fn array(field: &Field, values: &[Value]) -> Result<ArrayRef, String> {
    let binary = |read: &dyn Fn(&Value) -> Option<Vec<u8>>| {
        Ok::<ArrayRef, String>(Arc::new(BinaryArray::from_iter(each(values, "bytes", read)?)))
    };
    Ok(match (Extension::of(field), field.data_type()) {
        (Some(Extension::Uuid), _) => {
            let uuids = each(values, "a UUID", |value| uuid(&value["Bytes"]))?.into_iter();
            Arc::new(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size(uuids, 16).map_err(|error| error.to_string())?,
            )
        }
        (Some(Extension::Json), _) => return binary(&|value| bytes(&value["Bytes"])),
        (Some(Extension::Inet), _) => return binary(&|value| Some(inet(&value["IPNet"])?.into_bytes())),
        (Some(Extension::Mac), _) => return binary(&|value| bytes(&value["Addr"])),
        (None, DataType::Boolean) => {
            Arc::new(BooleanArray::from(each(values, "a boolean", |value| value["Bool"].as_bool())?))
        }
        (None, DataType::Int64) => Arc::new(Int64Array::from(each(values, "a number", |value| value["Int"].as_i64())?)),
        (None, DataType::Float64) => {
            Arc::new(Float64Array::from(each(values, "a number", |value| value["Float"].as_f64())?))
        }
        // Databases that end text at a NUL were written to by these sources, so they never meant one.
        (None, DataType::Utf8) => {
            let text = |value: &Value| Some(value["Str"].as_str()?.replace('\0', ""));
            Arc::new(StringArray::from(each(values, "text", text)?))
        }
        (None, DataType::Binary) => return binary(&|value| bytes(&value["Bytes"])),
        (None, DataType::Timestamp(..)) => {
            let micros = each(values, "a time", |value| micros(&value["Time"]))?;
            Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC"))
        }
        (None, DataType::List(item)) => return list(item, values),
        (None, other) => return Err(format!("{other} is none of this version's types")),
    })
}

/// Reads those that are present.
fn each<T>(values: &[Value], want: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Vec<Option<T>>, String> {
    let one = |value: &Value| match is_present(value) {
        true => read(value).map(Some).ok_or_else(|| format!("want {want}")),
        false => Ok(None),
    };
    values.iter().map(one).collect()
}

fn list(item: &Arc<Field>, values: &[Value]) -> Result<ArrayRef, String> {
    let elements = |value: &Value| match value.get("Elements") {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(elements) => elements.as_array().cloned(),
    };
    let lists = each(values, "a list", elements)?;
    let nulls: NullBuffer = lists.iter().map(Option::is_some).collect();
    let offsets = OffsetBuffer::from_lengths(lists.iter().map(|list| list.as_ref().map_or(0, Vec::len)));
    let items: Vec<Value> = lists.into_iter().flatten().flatten().collect();
    let items = array(item, &items)?;
    let list = ListArray::try_new(Arc::clone(item), offsets, items, Some(nulls)).map_err(|error| error.to_string())?;
    debug_assert_eq!(list.len(), values.len());
    Ok(Arc::new(list))
}

fn uuid(value: &Value) -> Option<[u8; 16]> {
    let numbers: Option<Vec<u8>> =
        value.as_array()?.iter().map(|number| number.as_u64().and_then(|number| u8::try_from(number).ok())).collect();
    numbers?.try_into().ok()
}

/// Go writes no bytes at all as `null`.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    if value.is_null() {
        return Some(Vec::new());
    }
    STANDARD.decode(value.as_str()?).ok()
}

fn micros(value: &Value) -> Option<i64> {
    Some(DateTime::parse_from_rfc3339(value.as_str()?).ok()?.timestamp_micros())
}

/// `address/prefix` of an address and its mask, which is ones and then zeros.
fn inet(value: &Value) -> Option<String> {
    let address: std::net::IpAddr = value["IP"].as_str()?.parse().ok()?;
    let mask = bytes(&value["Mask"])?;
    let prefix: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let leading: u32 = mask.iter().map_while(|byte| (*byte == 0xff).then_some(8)).sum();
    let next = mask.get(usize::try_from(leading / 8).ok()?).map_or(0, |byte| byte.leading_ones());
    let fits = matches!((&address, mask.len()), (std::net::IpAddr::V4(_), 4) | (_, 16));
    (fits && leading + next == prefix).then(|| format!("{address}/{prefix}"))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};

    use super::super::v0_tables;
    use super::*;

    fn tables() -> Vec<Table> {
        let columns: Vec<Value> = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 13]
            .iter()
            .map(|kind| json!({"name": format!("c{kind}"), "type": kind}))
            .collect();
        v0_tables::parse(json!([{"name": "t", "columns": columns}]).to_string().as_bytes()).expect("tables")
    }

    fn values() -> Vec<Value> {
        let net = json!({"IPNet": {"IP": "10.1.2.3", "Mask": "//8AAA=="}, "Status": 2});
        [
            json!({"Bool": true, "Status": 2}),
            json!({"Int": i64::MAX, "Status": 2}),
            json!({"Float": 1.5, "Status": 2}),
            json!({"Bytes": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255], "Status": 2}),
            json!({"Str": "a\u{0}b", "Status": 2}),
            json!({"Bytes": "AP8=", "Status": 2}),
            json!({"Elements": [{"Str": "x", "Status": 2}, {"Str": "", "Status": 1}], "Dimensions": [], "Status": 2}),
            json!({"Elements": null, "Status": 2}),
            json!({"Time": "2024-05-06T07:08:09.123456789+02:00", "Status": 2}),
            json!({"Bytes": "e30=", "Status": 2}),
            net.clone(),
            json!({"Addr": "AQIDBAUG", "Status": 2}),
            json!({"Elements": [net], "Status": 2}),
        ]
        .map(|value| json!({"type": "whatever", "value": value}))
        .to_vec()
    }

    fn row(values: &[Value]) -> Vec<u8> {
        json!({"table_name": "t", "data": values}).to_string().into_bytes()
    }

    fn origin() -> Origin {
        Origin { source: "src".to_owned(), sync_time: Some(Timestamp { seconds: 1, nanos: 5000 }) }
    }

    #[test]
    fn a_row_of_every_type_is_read() {
        let record = parse(&row(&values()), &tables(), &origin()).expect("a row");
        assert_eq!(record.num_rows(), 1);
        let column = |name: &str| record.column_by_name(name).expect(name);
        assert_eq!(column("_cq_source_name").as_string::<i32>().value(0), "src");
        assert_eq!(column("_cq_sync_time").as_primitive::<TimestampMicrosecondType>().value(0), 1_000_005);
        assert!(column("c1").as_boolean().value(0));
        assert_eq!(column("c2").as_primitive::<Int64Type>().value(0), i64::MAX);
        assert_eq!(column("c4").as_fixed_size_binary().value(0)[15], 255);
        assert_eq!(column("c5").as_string::<i32>().value(0), "ab");
        assert_eq!(column("c6").as_binary::<i32>().value(0), [0, 255]);
        let texts = column("c7").as_list::<i32>().value(0);
        assert!(texts.len() == 2 && texts.is_null(1));
        assert!(column("c8").as_list::<i32>().value(0).is_empty() && column("c8").is_valid(0));
        let time = column("c9").as_primitive::<TimestampMicrosecondType>().value(0);
        assert_eq!(time, 1_714_972_089_123_456);
        assert_eq!(column("c10").as_binary::<i32>().value(0), b"{}");
        assert_eq!(column("c12").as_binary::<i32>().value(0), b"10.1.2.3/16");
        assert_eq!(column("c16").as_binary::<i32>().value(0), [1, 2, 3, 4, 5, 6]);
        assert_eq!(column("c13").as_list::<i32>().value(0).as_binary::<i32>().value(0), b"10.1.2.3/16");
    }

    #[test]
    fn what_has_no_status_is_null() {
        let nulls = vec![json!({"type": "Text", "value": {"Status": 1}}); 12];
        let nulls = [nulls, vec![json!({})]].concat();
        let record = parse(&row(&nulls), &tables(), &Origin::default()).expect("a row");
        assert!(record.columns()[1..].iter().all(|column| column.is_null(0)));
    }

    #[test]
    fn a_wrong_value_names_its_column() {
        for (at, wrong) in [
            (0, json!({"Str": "true", "Status": 2})),
            (1, json!({"Int": 1.5, "Status": 2})),
            (3, json!({"Bytes": [1, 2], "Status": 2})),
            (3, json!({"Bytes": "AP8=", "Status": 2})),
            (5, json!({"Bytes": "no base64", "Status": 2})),
            (8, json!({"Time": "yesterday", "Status": 2})),
            (6, json!({"Elements": [{"Int": 1, "Status": 2}], "Status": 2})),
            (6, json!({"Elements": "x", "Status": 2})),
            (10, json!({"IPNet": {"IP": "10.1.2.3", "Mask": "AP8AAA=="}, "Status": 2})),
            (10, json!({"IPNet": {"IP": "::1", "Mask": "//8AAA=="}, "Status": 2})),
        ] {
            let mut values = values();
            values[at]["value"] = wrong;
            let error = parse(&row(&values), &tables(), &origin()).expect_err("wrong");
            assert!(error.contains(&format!("column \"c{}\"", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12][at])), "{error}");
        }
        for (json, word) in [
            (row(&values()[1..]), "values"),
            (row(&[values(), values()].concat()), "values"),
            (b"{\"table_name\": \"x\"}".to_vec(), "\"x\""),
            (b"[]".to_vec(), "resource"),
        ] {
            assert!(parse(&json, &tables(), &origin()).expect_err("wrong").contains(word));
        }
    }
}
