//! Values of SQLite in columns of one Arrow type: what fits, and what becomes of the rest.
//!
//! A column of SQLite's holds any value, whatever it was declared as. A [`Kind`] says which values a column's Arrow type
//! holds without loss; any other value is a mismatch, of which [`OnTypeMismatch`] decides.

use arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, BooleanBuilder, FixedSizeBinaryBuilder, Float64Builder, Int64Builder,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, TimeUnit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};
use rusqlite::types::ValueRef;
use uuid::Uuid;

use crate::cloudquery::{Column, Extension};
use crate::config::OnTypeMismatch;

/// What a column holds at the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 64-bit integers.
    Integer,
    /// Doubles; and integers that are one exactly.
    Real,
    /// UTF-8 text.
    Text,
    /// Text, for columns that SQLite calls numeric: only text keeps every decimal. Numbers are written out.
    Numeric,
    /// Bytes.
    Blob,
    /// 0 and 1; and the words `true` and `false`.
    Boolean,
    /// Microseconds since 1970, UTC, from text as SQLite's own functions or RFC 3339 have it.
    Timestamp,
    /// JSON text.
    Json,
    /// 16 bytes, or their text.
    Uuid,
    /// An address with or without a prefix length.
    Inet,
}

impl Kind {
    /// A nullable column of that kind, without flags.
    pub fn column(self, name: &str) -> Column {
        match self {
            Self::Integer => Column::new(name, DataType::Int64),
            Self::Real => Column::new(name, DataType::Float64),
            Self::Text | Self::Numeric => Column::new(name, DataType::Utf8),
            Self::Blob => Column::new(name, DataType::Binary),
            Self::Boolean => Column::new(name, DataType::Boolean),
            Self::Timestamp => Column::new(name, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
            Self::Json => Column::extension(name, Extension::Json),
            Self::Uuid => Column::extension(name, Extension::Uuid),
            Self::Inet => Column::extension(name, Extension::Inet),
        }
    }

    /// What it is called in an error.
    pub fn word(self) -> &'static str {
        match self {
            Self::Integer => "an integer",
            Self::Real => "a double",
            Self::Text | Self::Numeric => "UTF-8 text",
            Self::Blob => "bytes",
            Self::Boolean => "a truth value",
            Self::Timestamp => "a timestamp of microseconds",
            Self::Json => "JSON",
            Self::Uuid => "a UUID",
            Self::Inet => "a network address",
        }
    }
}

/// The storage class of a value, for an error that must not show the value.
pub(super) fn class(value: ValueRef<'_>) -> &'static str {
    match value {
        ValueRef::Null => "NULL",
        ValueRef::Integer(_) => "an integer",
        ValueRef::Real(_) => "a real",
        ValueRef::Text(text) if std::str::from_utf8(text).is_err() => "text that is not UTF-8",
        ValueRef::Text(_) => "text",
        ValueRef::Blob(_) => "a blob",
    }
}

/// One column's values so far.
pub(super) enum Values {
    Integer(Int64Builder),
    Real(Float64Builder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Boolean(BooleanBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Uuid(FixedSizeBinaryBuilder),
}

impl Values {
    pub fn new(kind: Kind) -> Self {
        match kind {
            Kind::Integer => Self::Integer(Int64Builder::new()),
            Kind::Real => Self::Real(Float64Builder::new()),
            Kind::Text | Kind::Numeric => Self::Text(StringBuilder::new()),
            Kind::Blob | Kind::Json | Kind::Inet => Self::Bytes(BinaryBuilder::new()),
            Kind::Boolean => Self::Boolean(BooleanBuilder::new()),
            Kind::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            Kind::Uuid => Self::Uuid(FixedSizeBinaryBuilder::new(16)),
        }
    }

    /// Adds a value; whether it fits. One that does not is not added.
    pub fn push(&mut self, kind: Kind, value: ValueRef<'_>, policy: OnTypeMismatch) -> bool {
        if matches!(value, ValueRef::Null) {
            self.push_null();
            return true;
        }
        if self.push_fitting(kind, value) {
            return true;
        }
        match policy {
            OnTypeMismatch::Error => false,
            OnTypeMismatch::Null => {
                self.push_null();
                true
            }
            OnTypeMismatch::Text => self.push_as_text(kind, value),
        }
    }

    fn push_fitting(&mut self, kind: Kind, value: ValueRef<'_>) -> bool {
        match self {
            Self::Integer(values) => integer(value).map(|value| values.append_value(value)),
            Self::Real(values) => real(value).map(|value| values.append_value(value)),
            Self::Text(values) if kind == Kind::Numeric && !matches!(value, ValueRef::Text(_)) => {
                number(value).map(|value| values.append_value(value))
            }
            Self::Text(values) => text(value).map(|value| values.append_value(value)),
            Self::Bytes(values) => bytes(kind, value).map(|value| values.append_value(value)),
            Self::Boolean(values) => boolean(value).map(|value| values.append_value(value)),
            Self::Timestamp(values) => timestamp(value).map(|value| values.append_value(value)),
            Self::Uuid(values) => {
                uuid(value).map(|value| values.append_value(value.as_bytes()).expect("16 bytes, as was asked for"))
            }
        }
        .is_some()
    }

    /// What `on_type_mismatch: text` makes of a value: numbers written out, bytes as base64 in columns of text, text as
    /// its bytes in columns of bytes. Columns of other types have no place for text.
    fn push_as_text(&mut self, kind: Kind, value: ValueRef<'_>) -> bool {
        let written = match value {
            ValueRef::Null => None,
            ValueRef::Integer(_) | ValueRef::Real(_) => number(value),
            ValueRef::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => Some(text.to_owned()),
                Err(_) => Some(STANDARD.encode(text)),
            },
            ValueRef::Blob(blob) => Some(STANDARD.encode(blob)),
        };
        match (self, written, value) {
            (Self::Text(values), Some(written), _) => values.append_value(written),
            (Self::Bytes(values), _, ValueRef::Text(text)) if kind == Kind::Blob => values.append_value(text),
            (Self::Bytes(values), Some(written), _) if kind == Kind::Blob => values.append_value(written),
            _ => return false,
        }
        true
    }

    fn push_null(&mut self) {
        match self {
            Self::Integer(values) => values.append_null(),
            Self::Real(values) => values.append_null(),
            Self::Text(values) => values.append_null(),
            Self::Bytes(values) => values.append_null(),
            Self::Boolean(values) => values.append_null(),
            Self::Timestamp(values) => values.append_null(),
            Self::Uuid(values) => values.append_null(),
        }
    }

    pub fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Integer(values) => ArrayBuilder::finish(values),
            Self::Real(values) => ArrayBuilder::finish(values),
            Self::Text(values) => ArrayBuilder::finish(values),
            Self::Bytes(values) => ArrayBuilder::finish(values),
            Self::Boolean(values) => ArrayBuilder::finish(values),
            Self::Timestamp(values) => ArrayBuilder::finish(values),
            Self::Uuid(values) => ArrayBuilder::finish(values),
        }
    }
}

fn integer(value: ValueRef<'_>) -> Option<i64> {
    match value {
        ValueRef::Integer(integer) => Some(integer),
        _ => None,
    }
}

fn real(value: ValueRef<'_>) -> Option<f64> {
    match value {
        ValueRef::Real(real) => Some(real),
        #[expect(clippy::cast_precision_loss, reason = "what is lost is looked for")]
        ValueRef::Integer(integer) => {
            let real = integer as f64;
            #[expect(clippy::cast_possible_truncation, reason = "the comparison is of wider integers")]
            (real as i128 == i128::from(integer)).then_some(real)
        }
        _ => None,
    }
}

fn text(value: ValueRef<'_>) -> Option<&str> {
    match value {
        ValueRef::Text(text) => std::str::from_utf8(text).ok(),
        _ => None,
    }
}

/// A number written out, as it reads back bit by bit.
fn number(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Integer(integer) => Some(integer.to_string()),
        ValueRef::Real(f64::INFINITY) => Some("+Inf".to_owned()),
        ValueRef::Real(f64::NEG_INFINITY) => Some("-Inf".to_owned()),
        ValueRef::Real(real) => Some(format!("{real:?}")),
        _ => None,
    }
}

fn bytes(kind: Kind, value: ValueRef<'_>) -> Option<std::borrow::Cow<'_, [u8]>> {
    match (kind, value) {
        (Kind::Blob, ValueRef::Blob(blob)) => Some(blob.into()),
        (Kind::Json, ValueRef::Text(json)) => {
            std::str::from_utf8(json).ok().filter(|json| is_json(json)).map(|json| json.as_bytes().into())
        }
        // A column declared JSON is numeric to SQLite: it made a number of what looks like one.
        (Kind::Json, ValueRef::Integer(_)) => number(value).map(|number| number.into_bytes().into()),
        (Kind::Json, ValueRef::Real(real)) if real.is_finite() => {
            number(value).map(|number| number.into_bytes().into())
        }
        (Kind::Inet, ValueRef::Text(_)) => text(value).filter(|text| is_inet(text)).map(|text| text.as_bytes().into()),
        _ => None,
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

fn is_inet(text: &str) -> bool {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let Ok(address) = address.parse::<std::net::IpAddr>() else { return false };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    prefix.is_none_or(|prefix| prefix.parse::<u8>().is_ok_and(|prefix| prefix <= longest))
}

fn boolean(value: ValueRef<'_>) -> Option<bool> {
    match value {
        ValueRef::Integer(0) => Some(false),
        ValueRef::Integer(1) => Some(true),
        ValueRef::Text(text) if text.eq_ignore_ascii_case(b"true") => Some(true),
        ValueRef::Text(text) if text.eq_ignore_ascii_case(b"false") => Some(false),
        _ => None,
    }
}

fn uuid(value: ValueRef<'_>) -> Option<Uuid> {
    match value {
        ValueRef::Blob(blob) => Uuid::from_slice(blob).ok(),
        ValueRef::Text(text) => Uuid::try_parse_ascii(text).ok(),
        _ => None,
    }
}

/// Without a zone it is UTC, as SQLite's own functions have it. Digits below the microsecond do not fit.
fn timestamp(value: ValueRef<'_>) -> Option<i64> {
    let text = text(value)?;
    let at = DateTime::parse_from_rfc3339(text).map(|at| at.naive_utc()).ok().or_else(|| without_zone(text))?;
    let nanoseconds = at.and_utc().timestamp_subsec_nanos();
    (nanoseconds % 1_000 == 0 && nanoseconds < 1_000_000_000).then(|| at.and_utc().timestamp_micros())
}

fn without_zone(text: &str) -> Option<NaiveDateTime> {
    let forms = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"];
    let moment = forms.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok());
    moment.or_else(|| Some(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_time(NaiveTime::MIN)))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};

    use super::*;

    const ALL: [Kind; 10] = [
        Kind::Integer,
        Kind::Real,
        Kind::Text,
        Kind::Numeric,
        Kind::Blob,
        Kind::Boolean,
        Kind::Timestamp,
        Kind::Json,
        Kind::Uuid,
        Kind::Inet,
    ];

    fn fits(kind: Kind, value: ValueRef<'_>, policy: OnTypeMismatch) -> Option<ArrayRef> {
        let mut values = Values::new(kind);
        values.push(kind, value, policy).then(|| values.finish())
    }

    fn bytes_of(kind: Kind, value: ValueRef<'_>, policy: OnTypeMismatch) -> Option<Vec<u8>> {
        let array = fits(kind, value, policy)?;
        Some(match array.data_type() {
            DataType::Utf8 => array.as_string::<i32>().value(0).as_bytes().to_vec(),
            DataType::Binary => array.as_binary::<i32>().value(0).to_vec(),
            other => panic!("{other}"),
        })
    }

    /// Which kinds take a value of each class as it is: the whole table, so that a change of it is seen.
    #[test]
    fn each_storage_class_fits_just_the_kinds_that_hold_it_without_loss() {
        use Kind::{Blob, Boolean, Inet, Integer, Json, Numeric, Real, Text, Timestamp, Uuid};
        for (value, expected) in [
            (ValueRef::Integer(1), &[Integer, Real, Numeric, Boolean, Json][..]),
            (ValueRef::Integer(i64::MAX), &[Integer, Numeric, Json]),
            (ValueRef::Integer(i64::MIN), &[Integer, Real, Numeric, Json]),
            (ValueRef::Real(1.0), &[Real, Numeric, Json]),
            (ValueRef::Real(f64::INFINITY), &[Real, Numeric]),
            (ValueRef::Text(b"x"), &[Text, Numeric]),
            (ValueRef::Text(b"1"), &[Text, Numeric, Json]),
            (ValueRef::Text(b"true"), &[Text, Numeric, Boolean, Json]),
            (ValueRef::Text(b"{\"a\":[1]}"), &[Text, Numeric, Json]),
            (ValueRef::Text(b"2024-05-06 07:08:09"), &[Text, Numeric, Timestamp]),
            (ValueRef::Text(b"23f9cd26-b422-5bd9-9849-f9b76986c476"), &[Text, Numeric, Uuid]),
            (ValueRef::Text(b"1.148.253.194/15"), &[Text, Numeric, Inet]),
            (ValueRef::Text(b"\xff"), &[]),
            (ValueRef::Blob(b"x"), &[Blob]),
            (ValueRef::Blob(&[7; 16]), &[Blob, Uuid]),
        ] {
            let fitting: Vec<Kind> =
                ALL.into_iter().filter(|kind| fits(*kind, value, OnTypeMismatch::Error).is_some()).collect();
            assert_eq!(fitting, expected, "{value:?}");
            for kind in ALL {
                let null = fits(kind, value, OnTypeMismatch::Null).expect("NULL fits everywhere");
                assert_eq!(null.null_count() == 0, fitting.contains(&kind), "{value:?} {kind:?}");
                assert_eq!(null.data_type(), kind.column("c").data_type(), "{kind:?}");
            }
        }
    }

    #[test]
    fn numbers_keep_every_bit() {
        for integer in [i64::MIN, -1, 0, i64::MAX] {
            let array = fits(Kind::Integer, ValueRef::Integer(integer), OnTypeMismatch::Error).expect("fits");
            assert_eq!(array.as_primitive::<Int64Type>().value(0), integer);
        }
        for real in [-0.0, f64::MIN_POSITIVE / 2.0, f64::MAX, f64::NEG_INFINITY, 0.1] {
            let array = fits(Kind::Real, ValueRef::Real(real), OnTypeMismatch::Error).expect("fits");
            assert_eq!(array.as_primitive::<Float64Type>().value(0).to_bits(), real.to_bits());
            let written = bytes_of(Kind::Numeric, ValueRef::Real(real), OnTypeMismatch::Error).expect("fits");
            let read: f64 = String::from_utf8(written).expect("text").parse().expect("a number");
            assert_eq!(read.to_bits(), real.to_bits());
        }
    }

    #[test]
    fn text_is_what_the_mismatched_become_in_columns_that_take_it() {
        let text = |kind, value| bytes_of(kind, value, OnTypeMismatch::Text);
        assert_eq!(text(Kind::Text, ValueRef::Integer(-7)).as_deref(), Some(&b"-7"[..]));
        assert_eq!(text(Kind::Text, ValueRef::Blob(&[0, 255])).as_deref(), Some(&b"AP8="[..]));
        assert_eq!(text(Kind::Numeric, ValueRef::Text(b"\xff")).as_deref(), Some(&b"/w=="[..]));
        assert_eq!(text(Kind::Blob, ValueRef::Text(b"\xff")).as_deref(), Some(&b"\xff"[..]));
        assert_eq!(text(Kind::Blob, ValueRef::Real(1.5)).as_deref(), Some(&b"1.5"[..]));
        for kind in [Kind::Integer, Kind::Real, Kind::Boolean, Kind::Timestamp, Kind::Json, Kind::Uuid, Kind::Inet] {
            assert!(fits(kind, ValueRef::Text(b"?"), OnTypeMismatch::Text).is_none(), "{kind:?}");
        }
    }

    #[test]
    fn timestamps_are_read_as_sqlite_and_rfc_3339_write_them_and_never_cut() {
        let read = |text: &'static str| {
            let array = fits(Kind::Timestamp, ValueRef::Text(text.as_bytes()), OnTypeMismatch::Error)?;
            Some(array.as_primitive::<TimestampMicrosecondType>().value(0))
        };
        let second = 1_714_979_289_000_000;
        assert_eq!(read("2024-05-06T07:08:09Z"), Some(second));
        assert_eq!(read("2024-05-06T09:08:09.120+02:00"), Some(second + 120_000));
        assert_eq!(read("2024-05-06 07:08:09"), Some(second));
        assert_eq!(read("2024-05-06 07:08:09.000001"), Some(second + 1));
        assert_eq!(read("2024-05-06 07:08"), Some(second - 9_000_000));
        assert_eq!(read("1969-12-31"), Some(-86_400_000_000));
        assert_eq!(read("2024-05-06T07:08:09.1234567Z"), None, "seven digits");
        assert_eq!(read("2024-05-06T07:08:60Z"), None, "a leap second");
        assert_eq!(read("6 May 2024"), None);
    }
}
