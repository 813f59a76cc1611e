//! Random arrays of every type that can be stored, with the values at the edges.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "random values may be cut to any width")]

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, DictionaryArray, FixedSizeBinaryBuilder, FixedSizeListArray,
    LargeBinaryArray, LargeListArray, LargeListViewArray, LargeStringArray, ListArray, ListViewArray, MapArray,
    NullArray, PrimitiveArray, StringArray, StringViewArray, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::*;
use half::f16;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use twinlite::cloudquery::types::extension_of;
use twinlite::cloudquery::{Column, Extension};

/// A field. One whose type is that of an extension is of the extension: `FixedSizeBinary(16)` is a UUID, and `Binary`
/// JSON; `LargeBinary` an address, and `BinaryView` one of hardware.
pub fn field(name: &str, data_type: DataType, nullable: bool) -> Field {
    let extension = match &data_type {
        DataType::FixedSizeBinary(16) => Some(Extension::Uuid),
        DataType::Binary => Some(Extension::Json),
        DataType::LargeBinary => Some(Extension::Inet),
        DataType::BinaryView => Some(Extension::Mac),
        _ => None,
    };
    let field = Field::new(name, data_type, nullable);
    let Some(extension) = extension else { return field };
    field.with_metadata(Column::extension("", extension).field().metadata().clone())
}

/// A type, nested up to two deep.
pub fn data_type() -> impl Strategy<Value = DataType> {
    let leaf = leaf().boxed();
    let once = nested(leaf.clone()).boxed();
    let inner = prop_oneof![leaf.clone(), once.clone()].boxed();
    prop_oneof![1 => leaf, 1 => once, 2 => nested(inner)]
}

fn leaf() -> impl Strategy<Value = DataType> {
    let unit = || {
        prop::sample::select(vec![TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond])
    };
    let zone = prop::sample::select(vec![None, Some("UTC"), Some("+05:30"), Some("-08:00"), Some("Europe/Berlin")]);
    let plain = vec![
        DataType::Null,
        DataType::Boolean,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Float16,
        DataType::Float32,
        DataType::Float64,
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Binary,
        DataType::LargeBinary,
        DataType::BinaryView,
        DataType::FixedSizeBinary(16),
        DataType::FixedSizeBinary(5),
        DataType::FixedSizeBinary(0),
        DataType::Date32,
        DataType::Date64,
        DataType::Time32(TimeUnit::Second),
        DataType::Time32(TimeUnit::Millisecond),
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Time64(TimeUnit::Nanosecond),
        DataType::Interval(IntervalUnit::YearMonth),
        DataType::Interval(IntervalUnit::DayTime),
        DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Decimal32(9, 3),
        DataType::Decimal64(18, 0),
        DataType::Decimal128(19, 10),
        DataType::Decimal128(38, -5),
        DataType::Decimal256(76, 38),
    ];
    prop_oneof![
        6 => prop::sample::select(plain),
        1 => (unit(), zone).prop_map(|(unit, zone)| DataType::Timestamp(unit, zone.map(Into::into))),
        1 => unit().prop_map(DataType::Duration),
        1 => prop::sample::select(vec![DataType::Utf8, DataType::Int64, DataType::Float64])
            .prop_map(|values| DataType::Dictionary(Box::new(DataType::UInt16), Box::new(values))),
    ]
}

fn nested(inner: BoxedStrategy<DataType>) -> impl Strategy<Value = DataType> {
    let item = (inner.clone(), any::<bool>()).prop_map(|(inner, nullable)| {
        // The null type has nothing but NULL.
        let nullable = nullable || inner == DataType::Null;
        Arc::new(field("item", inner, nullable))
    });
    let named = (inner.clone(), prop::sample::select(vec!["a", "b", "Z", "<é>\"", ""]));
    let keys = prop::sample::select(vec![DataType::Utf8, DataType::Int64, DataType::FixedSizeBinary(16)]);
    prop_oneof![
        item.clone().prop_map(DataType::List),
        item.clone().prop_map(DataType::LargeList),
        item.clone().prop_map(DataType::ListView),
        item.clone().prop_map(DataType::LargeListView),
        (item, 0..4).prop_map(|(item, size)| DataType::FixedSizeList(item, size)),
        prop::collection::vec(named, 0..4).prop_map(|fields| {
            DataType::Struct(fields.into_iter().map(|(inner, name)| field(name, inner, true)).collect())
        }),
        (keys, inner).prop_map(|(key, value)| {
            let pair = Fields::from(vec![field("key", key, false), field("value", value, true)]);
            DataType::Map(Arc::new(Field::new("entries", DataType::Struct(pair), false)), false)
        }),
    ]
}

/// An array of a field's type that a seed determines.
pub fn array(field: &Field, rows: usize, seed: u64) -> ArrayRef {
    make(field, rows, &mut StdRng::seed_from_u64(seed))
}

fn nulls(field: &Field, rows: usize, rng: &mut StdRng) -> Option<NullBuffer> {
    field.is_nullable().then(|| (0..rows).map(|_| rng.random_bool(0.8)).collect::<Vec<bool>>().into())
}

fn lengths(rows: usize, nulls: Option<&NullBuffer>, rng: &mut StdRng) -> Vec<usize> {
    (0..rows)
        .map(|row| if nulls.is_some_and(|nulls| nulls.is_null(row)) { 0 } else { rng.random_range(0..4) })
        .collect()
}

fn make(field: &Field, rows: usize, rng: &mut StdRng) -> ArrayRef {
    let nulls = nulls(field, rows, rng);
    match field.data_type() {
        DataType::Null => Arc::new(NullArray::new(rows)),
        DataType::List(item) => {
            let lengths = lengths(rows, nulls.as_ref(), rng);
            let values = make(item, lengths.iter().sum(), rng);
            Arc::new(ListArray::new(Arc::clone(item), OffsetBuffer::from_lengths(lengths), values, nulls))
        }
        DataType::LargeList(item) => {
            let lengths = lengths(rows, nulls.as_ref(), rng);
            let values = make(item, lengths.iter().sum(), rng);
            Arc::new(LargeListArray::new(Arc::clone(item), OffsetBuffer::from_lengths(lengths), values, nulls))
        }
        DataType::ListView(item) => {
            let lengths = lengths(rows, nulls.as_ref(), rng);
            let values = make(item, lengths.iter().sum(), rng);
            let ends = OffsetBuffer::<i32>::from_lengths(lengths.iter().copied());
            let sizes: Vec<i32> = lengths.iter().map(|length| *length as i32).collect();
            let starts = ends[..rows].to_vec();
            Arc::new(ListViewArray::new(Arc::clone(item), starts.into(), sizes.into(), values, nulls))
        }
        DataType::LargeListView(item) => {
            let lengths = lengths(rows, nulls.as_ref(), rng);
            let values = make(item, lengths.iter().sum(), rng);
            let ends = OffsetBuffer::<i64>::from_lengths(lengths.iter().copied());
            let sizes: Vec<i64> = lengths.iter().map(|length| *length as i64).collect();
            let starts = ends[..rows].to_vec();
            Arc::new(LargeListViewArray::new(Arc::clone(item), starts.into(), sizes.into(), values, nulls))
        }
        DataType::FixedSizeList(item, size) => {
            let values = make(item, rows * usize::try_from(*size).unwrap(), rng);
            let list = FixedSizeListArray::try_new_with_length(Arc::clone(item), *size, values, nulls, rows);
            Arc::new(list.unwrap())
        }
        DataType::Struct(fields) => {
            let children = fields.iter().map(|child| make(child, rows, rng)).collect();
            Arc::new(StructArray::try_new_with_length(fields.clone(), children, nulls, rows).unwrap())
        }
        DataType::Map(entries, sorted) => {
            let DataType::Struct(fields) = entries.data_type() else { unreachable!() };
            let lengths = lengths(rows, nulls.as_ref(), rng);
            let count = lengths.iter().sum();
            let children = fields.iter().map(|child| make(child, count, rng)).collect();
            let pairs = StructArray::new(fields.clone(), children, None);
            Arc::new(MapArray::new(Arc::clone(entries), OffsetBuffer::from_lengths(lengths), pairs, nulls, *sorted))
        }
        DataType::Dictionary(_, values) => {
            let values = make(&Field::new("", values.as_ref().clone(), false), 5, rng);
            let keys = (0..rows).map(|row| {
                let valid = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
                valid.then(|| rng.random_range(0..5))
            });
            Arc::new(DictionaryArray::<UInt16Type>::new(keys.collect(), values))
        }
        _ => leaf_array(field, rows, nulls.as_ref(), rng),
    }
}

/// Values that are NULL where there is a null, and random elsewhere.
fn values<V>(rows: usize, nulls: Option<&NullBuffer>, mut value: impl FnMut() -> V) -> Vec<Option<V>> {
    (0..rows).map(|row| nulls.is_none_or(|nulls| nulls.is_valid(row)).then(&mut value)).collect()
}

fn primitive<T: ArrowPrimitiveType>(
    field: &Field,
    rows: usize,
    nulls: Option<&NullBuffer>,
    value: impl FnMut() -> T::Native,
) -> ArrayRef {
    let array: PrimitiveArray<T> = values(rows, nulls, value).into_iter().collect();
    Arc::new(array.with_data_type(field.data_type().clone()))
}

fn one<T: Clone>(rng: &mut StdRng, edges: &[T], random: impl FnOnce(&mut StdRng) -> T) -> T {
    if rng.random_bool(0.4) { edges.choose(rng).unwrap().clone() } else { random(rng) }
}

fn int(rng: &mut StdRng) -> i64 {
    one(rng, &[0, 1, -1, i64::MIN, i64::MAX, (1 << 53) + 1, -86_400_000, 86_399_999], |rng| rng.random())
}

fn int32(rng: &mut StdRng) -> i32 {
    one(rng, &[0, 1, -1, i32::MIN, i32::MAX, 86_400], |rng| rng.random())
}

/// Without −0.0, whose sign SQLite does not keep.
fn double(rng: &mut StdRng) -> f64 {
    let edges = [0.0, 1.0, 0.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, 5e-324, 1e21, 1e-7, -1e15];
    one(rng, &edges, |rng| f64::from_bits(rng.random())).abs_nan()
}

trait AbsNan {
    /// The one NaN that is kept: its bits are not a value.
    fn abs_nan(self) -> Self;
}

impl AbsNan for f64 {
    fn abs_nan(self) -> Self {
        if self.is_nan() { Self::NAN } else { self }
    }
}

fn single(rng: &mut StdRng) -> f32 {
    let edges =
        [0.0, 0.1, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 274.514, 16_777_216.0];
    let value = one(rng, &edges, |rng| f32::from_bits(rng.random()));
    if value.is_nan() { f32::NAN } else { value }
}

/// Without −0.0, which small numbers become.
fn half_float(rng: &mut StdRng) -> f16 {
    let value = f16::from_f32(single(rng));
    if value == f16::ZERO { f16::ZERO } else { value }
}

fn text(rng: &mut StdRng) -> String {
    let edges = ["", "null", "(null)", "<&>\u{2028}", "a\0b", "\"\\/\n", "1", "NaN", "é\u{1f600}", " x "];
    one(rng, &edges.map(str::to_owned), |rng| rng.random::<u32>().to_string())
}

fn bytes(rng: &mut StdRng) -> Vec<u8> {
    let length = rng.random_range(0..7);
    (0..length).map(|_| rng.random()).collect()
}

fn json(rng: &mut StdRng) -> Vec<u8> {
    let edges: [&[u8]; 16] = [
        b"{}",
        b"[]",
        b"null",
        b"\"text\"",
        b"true",
        b"12345678901234567890",
        b"1e400",
        b"{\"b\": 1, \"a\": [null]}",
        b" {}",
        b"1\n",
        b"",
        b"{oops",
        b"\xff\x00",
        b"\"\\ud800\"",
        b"\t\"x\"",
        b"\"<\"",
    ];
    one(rng, &edges.map(<[u8]>::to_vec), |rng| format!("{{\"n\":{}}}", rng.random::<i64>()).into_bytes())
}

/// The bytes of a value of a type with an extension, or of plain bytes.
fn payload(extension: Option<Extension>, rng: &mut StdRng) -> Vec<u8> {
    match extension {
        Some(Extension::Json) => json(rng),
        Some(Extension::Inet) => {
            one(rng, &["", "::1/128", "2001:DB8::/32", "odd"].map(|text| text.as_bytes().to_vec()), |rng| {
                format!("10.0.0.{}/8", rng.random::<u8>()).into_bytes()
            })
        }
        Some(Extension::Uuid) => rng.random::<[u8; 16]>().to_vec(),
        Some(Extension::Mac) | None => bytes(rng),
    }
}

fn leaf_array(field: &Field, rows: usize, nulls: Option<&NullBuffer>, rng: &mut StdRng) -> ArrayRef {
    use DataType as T;
    let extension = extension_of(field);
    match field.data_type() {
        T::Boolean => Arc::new(BooleanArray::from(values(rows, nulls, || rng.random::<bool>()))),
        T::Utf8 => Arc::new(StringArray::from(values(rows, nulls, || text(rng)))),
        T::LargeUtf8 => Arc::new(LargeStringArray::from(values(rows, nulls, || text(rng)))),
        T::Utf8View => Arc::new(values(rows, nulls, || text(rng)).into_iter().collect::<StringViewArray>()),
        T::Binary => Arc::new(values(rows, nulls, || payload(extension, rng)).into_iter().collect::<BinaryArray>()),
        T::LargeBinary => {
            Arc::new(values(rows, nulls, || payload(extension, rng)).into_iter().collect::<LargeBinaryArray>())
        }
        T::BinaryView => {
            Arc::new(values(rows, nulls, || payload(extension, rng)).into_iter().collect::<BinaryViewArray>())
        }
        T::FixedSizeBinary(width) => {
            let mut builder = FixedSizeBinaryBuilder::new(*width);
            for value in values(rows, nulls, || (0..*width).map(|_| rng.random()).collect::<Vec<u8>>()) {
                match value {
                    Some(value) => builder.append_value(value).unwrap(),
                    None => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        T::Int8 => primitive::<Int8Type>(field, rows, nulls, || rng.random()),
        T::Int16 => primitive::<Int16Type>(field, rows, nulls, || rng.random()),
        T::Int32 => primitive::<Int32Type>(field, rows, nulls, || int32(rng)),
        T::Int64 => primitive::<Int64Type>(field, rows, nulls, || int(rng)),
        T::UInt8 => primitive::<UInt8Type>(field, rows, nulls, || rng.random()),
        T::UInt16 => primitive::<UInt16Type>(field, rows, nulls, || rng.random()),
        T::UInt32 => primitive::<UInt32Type>(field, rows, nulls, || rng.random()),
        T::UInt64 => primitive::<UInt64Type>(field, rows, nulls, || int(rng) as u64),
        T::Float16 => primitive::<Float16Type>(field, rows, nulls, || half_float(rng)),
        T::Float32 => primitive::<Float32Type>(field, rows, nulls, || single(rng)),
        T::Float64 => primitive::<Float64Type>(field, rows, nulls, || double(rng)),
        T::Decimal32(..) => primitive::<Decimal32Type>(field, rows, nulls, || int32(rng)),
        T::Decimal64(..) => primitive::<Decimal64Type>(field, rows, nulls, || int(rng)),
        T::Decimal128(..) => primitive::<Decimal128Type>(field, rows, nulls, || {
            one(rng, &[0, 1, -1, i128::MIN, i128::MAX, 10_000_000_000], |rng| rng.random())
        }),
        T::Decimal256(..) => primitive::<Decimal256Type>(field, rows, nulls, || {
            one(rng, &[i256::ZERO, i256::MINUS_ONE, i256::MAX, i256::MIN], |rng| {
                i256::from_parts(rng.random(), rng.random())
            })
        }),
        _ => temporal_array(field, rows, nulls, rng),
    }
}

fn temporal_array(field: &Field, rows: usize, nulls: Option<&NullBuffer>, rng: &mut StdRng) -> ArrayRef {
    use DataType as T;
    match field.data_type() {
        T::Date32 => primitive::<Date32Type>(field, rows, nulls, || int32(rng)),
        T::Date64 => primitive::<Date64Type>(field, rows, nulls, || int(rng)),
        T::Time32(TimeUnit::Second) => primitive::<Time32SecondType>(field, rows, nulls, || int32(rng)),
        T::Time32(_) => primitive::<Time32MillisecondType>(field, rows, nulls, || int32(rng)),
        T::Time64(TimeUnit::Microsecond) => primitive::<Time64MicrosecondType>(field, rows, nulls, || int(rng)),
        T::Time64(_) => primitive::<Time64NanosecondType>(field, rows, nulls, || int(rng)),
        T::Timestamp(TimeUnit::Second, _) => primitive::<TimestampSecondType>(field, rows, nulls, || int(rng)),
        T::Timestamp(TimeUnit::Millisecond, _) => {
            primitive::<TimestampMillisecondType>(field, rows, nulls, || int(rng))
        }
        T::Timestamp(TimeUnit::Microsecond, _) => {
            primitive::<TimestampMicrosecondType>(field, rows, nulls, || int(rng))
        }
        T::Timestamp(TimeUnit::Nanosecond, _) => primitive::<TimestampNanosecondType>(field, rows, nulls, || int(rng)),
        T::Duration(TimeUnit::Second) => primitive::<DurationSecondType>(field, rows, nulls, || int(rng)),
        T::Duration(TimeUnit::Millisecond) => primitive::<DurationMillisecondType>(field, rows, nulls, || int(rng)),
        T::Duration(TimeUnit::Microsecond) => primitive::<DurationMicrosecondType>(field, rows, nulls, || int(rng)),
        T::Duration(TimeUnit::Nanosecond) => primitive::<DurationNanosecondType>(field, rows, nulls, || int(rng)),
        T::Interval(IntervalUnit::YearMonth) => primitive::<IntervalYearMonthType>(field, rows, nulls, || int32(rng)),
        T::Interval(IntervalUnit::DayTime) => {
            primitive::<IntervalDayTimeType>(field, rows, nulls, || IntervalDayTime::new(int32(rng), int32(rng)))
        }
        T::Interval(IntervalUnit::MonthDayNano) => primitive::<IntervalMonthDayNanoType>(field, rows, nulls, || {
            IntervalMonthDayNano::new(int32(rng), int32(rng), int(rng))
        }),
        other => panic!("no values of {other}"),
    }
}
