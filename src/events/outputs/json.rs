//! An event as JSON, by hand into a buffer: no tree is built.
//!
//! An event is an object of `table`, `timestamp`, `operation`, `before` and `after`, in this order. An image is an object of
//! column and value in the order of the table's columns, or `null` where the operation has none. A value:
//!
//! | SQLite | JSON |
//! |---|---|
//! | NULL | `null` |
//! | integer | a number of digits alone, all of them |
//! | real | a number with a point or an exponent, the shortest that reads back to the same bits |
//! | infinite real | `{"$real": "Infinity"}` or `{"$real": "-Infinity"}` |
//! | text | a string; a NUL in it as `\u0000` |
//! | text that is not UTF-8 | `{"$text": …}`, its bytes said as those of a BLOB |
//! | BLOB | a string: hexadecimal, or base 64 |
//!
//! No other value is an object, so the tagged ones cannot be taken for anything else. A BLOB cannot be told from text by the
//! JSON alone: the column's own type has to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Datelike as _, Timelike as _};

use crate::config::BlobEncoding;
use crate::model::{Event, Value};

/// How events are said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// How bytes are.
    pub blobs: BlobEncoding,
    /// Whether timestamps have milliseconds; without, they are cut off.
    pub subseconds: bool,
}

impl Default for Form {
    fn default() -> Self {
        Self { blobs: BlobEncoding::Hex, subseconds: true }
    }
}

/// What RFC 3339 can say: years of four digits, in ms since 1970.
const TIMES: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// Appends an event, without a line break: JSON as it is written here has none.
pub fn write_event(text: &mut Vec<u8>, event: &Event, form: &Form) {
    text.extend_from_slice(b"{\"table\":");
    write_string(text, &event.table.name);
    text.extend_from_slice(b",\"timestamp\":\"");
    write_timestamp(text, event.ts_ms, form.subseconds);
    text.extend_from_slice(b"\",\"operation\":\"");
    text.extend_from_slice(event.operation.word().as_bytes());
    text.push(b'"');
    for (name, image) in [("before", &event.before), ("after", &event.after)] {
        text.extend_from_slice(b",\"");
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b"\":");
        match image {
            Some(values) => write_image(text, &event.table.columns, values, form.blobs),
            None => text.extend_from_slice(b"null"),
        }
    }
    text.push(b'}');
}

fn write_image(text: &mut Vec<u8>, columns: &[String], values: &[Value], blobs: BlobEncoding) {
    assert_eq!(columns.len(), values.len(), "an image has a value for each column");
    let mut opening = b'{';
    for (column, value) in columns.iter().zip(values) {
        text.push(std::mem::replace(&mut opening, b','));
        write_string(text, column);
        text.push(b':');
        write_value(text, value, blobs);
    }
    if columns.is_empty() {
        text.push(opening);
    }
    text.push(b'}');
}

fn write_value(text: &mut Vec<u8>, value: &Value, blobs: BlobEncoding) {
    match value {
        Value::Null => text.extend_from_slice(b"null"),
        Value::Integer(integer) => write_plain(text, integer),
        Value::Real(real) if real.is_finite() => write_plain(text, real),
        // SQLite stores no NaN; whoever builds an event by hand gets it said all the same.
        Value::Real(real) => {
            let word = if real.is_nan() { "NaN" } else { ["Infinity", "-Infinity"][usize::from(*real < 0.0)] };
            write_tagged(text, "$real", |text| text.extend_from_slice(word.as_bytes()));
        }
        Value::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(string) => write_string(text, string),
            Err(_) => write_tagged(text, "$text", |text| write_bytes(text, bytes, blobs)),
        },
        Value::Blob(bytes) => {
            text.push(b'"');
            write_bytes(text, bytes, blobs);
            text.push(b'"');
        }
    }
}

fn write_tagged(text: &mut Vec<u8>, tag: &str, inner: impl FnOnce(&mut Vec<u8>)) {
    text.extend_from_slice(b"{\"");
    text.extend_from_slice(tag.as_bytes());
    text.extend_from_slice(b"\":\"");
    inner(text);
    text.extend_from_slice(b"\"}");
}

fn write_bytes(text: &mut Vec<u8>, bytes: &[u8], blobs: BlobEncoding) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    match blobs {
        BlobEncoding::Hex => {
            let digits = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
            text.extend(bytes.iter().flat_map(digits));
        }
        BlobEncoding::Base64 => text.extend_from_slice(STANDARD.encode(bytes).as_bytes()),
    }
}

/// Appends a string in quotes.
pub(super) fn write_string(text: &mut Vec<u8>, string: &str) {
    write_plain(text, string);
}

fn write_plain<T: serde::Serialize + ?Sized>(text: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(text, value).expect("a string or a number can be said, and a buffer takes it");
}

/// Appends a time as RFC 3339 has it, UTC. A time that it cannot say is the nearest that it can.
pub fn write_timestamp(text: &mut Vec<u8>, ts_ms: i64, subseconds: bool) {
    let within = ts_ms.clamp(*TIMES.start(), *TIMES.end());
    let time = DateTime::from_timestamp_millis(within).expect("within what RFC 3339 can say");
    let year = u32::try_from(time.year()).expect("clamped to years of four digits");
    for (number, width, after) in [
        (year, 4, b'-'),
        (time.month(), 2, b'-'),
        (time.day(), 2, b'T'),
        (time.hour(), 2, b':'),
        (time.minute(), 2, b':'),
    ] {
        write_padded(text, number, width);
        text.push(after);
    }
    write_padded(text, time.second(), 2);
    if subseconds {
        text.push(b'.');
        write_padded(text, time.timestamp_subsec_millis(), 3);
    }
    text.push(b'Z');
}

fn write_padded(text: &mut Vec<u8>, number: u32, width: u32) {
    for place in (0..width).rev() {
        let digit = number / 10_u32.pow(place) % 10;
        text.push(b'0' + u8::try_from(digit).expect("one digit"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{EventTable, Operation};

    fn event(columns: &[&str], before: Option<Vec<Value>>, after: Option<Vec<Value>>) -> Event {
        let operation = match (&before, &after) {
            (None, None) => Operation::Resync,
            (None, Some(_)) => Operation::Insert,
            (Some(_), None) => Operation::Delete,
            (Some(_), Some(_)) => Operation::Update,
        };
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        let table = Arc::new(EventTable { name: "my table \"x\"".into(), columns });
        Event { table, seq: 7, ts_ms: 1_714_953_791_568, operation, before, after }
    }

    fn said(event: &Event, form: &Form) -> String {
        let mut text = Vec::new();
        write_event(&mut text, event, form);
        String::from_utf8(text).expect("JSON is UTF-8")
    }

    fn value_said(value: &Value, blobs: BlobEncoding) -> String {
        let mut text = Vec::new();
        write_value(&mut text, value, blobs);
        String::from_utf8(text).expect("JSON is UTF-8")
    }

    #[test]
    fn an_event_has_five_keys_in_order_and_its_images_the_columns_in_theirs() {
        let row = vec![Value::Integer(i64::MAX), Value::text("a\u{0}\"\nü"), Value::Blob(vec![0xab, 0])];
        let update = event(&["z", "", "a\"b"], Some(vec![Value::Null, Value::Real(1.0), Value::Null]), Some(row));
        let wanted = r#"{"table":"my table \"x\"","timestamp":"2024-05-06T00:03:11.568Z","operation":"UPDATE","before":{"z":null,"":1.0,"a\"b":null},"after":{"z":9223372036854775807,"":"a\u0000\"\nü","a\"b":"AB00"}}"#;
        assert_eq!(said(&update, &Form::default()), wanted);
        let form = Form { blobs: BlobEncoding::Base64, subseconds: false };
        let coarse = wanted.replace(".568Z", "Z").replace("AB00", "qwA=");
        assert_eq!(said(&update, &form), coarse);
        let resync = event(&["z"], None, None);
        assert!(said(&resync, &form).ends_with(r#""operation":"RESYNC","before":null,"after":null}"#));
        let bare = event(&[], None, Some(vec![]));
        assert!(said(&bare, &form).ends_with(r#""before":null,"after":{}}"#));
    }

    #[test]
    fn what_json_cannot_say_is_tagged() {
        let hex = |value| value_said(&value, BlobEncoding::Hex);
        assert_eq!(hex(Value::Real(f64::INFINITY)), r#"{"$real":"Infinity"}"#);
        assert_eq!(hex(Value::Real(f64::NEG_INFINITY)), r#"{"$real":"-Infinity"}"#);
        assert_eq!(hex(Value::Real(f64::NAN)), r#"{"$real":"NaN"}"#);
        assert_eq!(hex(Value::Text(vec![b'a', 0xff])), r#"{"$text":"61FF"}"#);
        assert_eq!(value_said(&Value::Text(vec![0xff]), BlobEncoding::Base64), r#"{"$text":"/w=="}"#);
        assert_eq!(hex(Value::Text(br#"{"$text":"61"}"#.to_vec())), r#""{\"$text\":\"61\"}""#, "text stays text");
    }

    #[test]
    fn a_time_that_rfc_3339_cannot_say_is_the_nearest_that_it_can() {
        let said = |ts_ms| {
            let mut text = Vec::new();
            write_timestamp(&mut text, ts_ms, true);
            String::from_utf8(text).expect("digits")
        };
        assert_eq!(said(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(said(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(said(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!([said(i64::MIN), said(i64::MAX)], ["0000-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z"]);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            // Every bit pattern but those that SQLite stores as NULL.
            any::<u64>().prop_map(f64::from_bits).prop_filter("NaN", |real| !real.is_nan()).prop_map(Value::Real),
            any::<String>().prop_map(|text| Value::text(&text)),
            any::<Vec<u8>>().prop_map(Value::Text),
            any::<Vec<u8>>().prop_map(Value::Blob),
        ]
    }

    fn bytes_of(text: &str, blobs: BlobEncoding) -> Vec<u8> {
        match blobs {
            BlobEncoding::Base64 => STANDARD.decode(text).expect("base 64"),
            BlobEncoding::Hex => {
                let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits"));
                pairs.map(|pair| u8::from_str_radix(pair, 16).expect("digits")).collect()
            }
        }
    }

    /// Reads a value back by the table of the module's header, knowing only whether a string is a BLOB.
    fn read_back(text: &str, is_blob: bool, blobs: BlobEncoding) -> Value {
        use serde_json::Value as Json;
        match serde_json::from_str(text).expect("JSON") {
            Json::Null => Value::Null,
            // serde_json reads numbers with rounding of its own; the text is what is promised.
            Json::Number(_) if text.contains(['.', 'e', 'E']) => Value::Real(text.parse().expect("a real")),
            Json::Number(_) => Value::Integer(text.parse().expect("an integer")),
            Json::String(string) if is_blob => Value::Blob(bytes_of(&string, blobs)),
            Json::String(string) => Value::Text(string.into_bytes()),
            Json::Object(map) => match map.iter().next().map(|(tag, inner)| (tag.as_str(), inner.as_str())) {
                Some(("$real", Some("Infinity"))) => Value::Real(f64::INFINITY),
                Some(("$real", Some("-Infinity"))) => Value::Real(f64::NEG_INFINITY),
                Some(("$text", Some(inner))) => Value::Text(bytes_of(inner, blobs)),
                other => panic!("{other:?}"),
            },
            other => panic!("{other}"),
        }
    }

    proptest! {
        #[test]
        fn every_value_reads_back_to_the_same_bits(value in any_value(), base64: bool) {
            let blobs = if base64 { BlobEncoding::Base64 } else { BlobEncoding::Hex };
            let text = value_said(&value, blobs);
            prop_assert!(!text.contains('\n'), "a line is an event");
            prop_assert_eq!(read_back(&text, matches!(value, Value::Blob(_)), blobs), value);
        }

        #[test]
        fn every_event_is_one_line_of_json_with_each_column_once(
            row in prop::collection::btree_map(any::<String>(), any_value(), 0..6),
            table: String,
            ts_ms: i64,
        ) {
            let columns: Vec<String> = row.keys().cloned().collect();
            let table = Arc::new(EventTable { name: table, columns });
            let after = Some(row.values().cloned().collect());
            let event = Event { table, seq: 1, ts_ms, operation: Operation::Insert, before: None, after };
            let text = said(&event, &Form::default());
            prop_assert!(!text.contains('\n'));
            let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            prop_assert_eq!(&json["table"], &serde_json::Value::from(event.table.name.as_str()));
            let found: Vec<&String> = json["after"].as_object().expect("an image").keys().collect();
            prop_assert_eq!(found, row.keys().collect::<Vec<_>>());
        }
    }
}
