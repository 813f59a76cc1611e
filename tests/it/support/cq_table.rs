//! CloudQuery's test table, with a column of every type that its SDK knows, and rows for it.
//!
//! The columns are those of the SDK's own writer suite, in its order: 231 with everything. Values are drawn from another
//! generator than the SDK's, but have the shapes that its values have; a seed makes them the same each time.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "random values may be cut to any width")]

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryBuilder, LargeBinaryArray, LargeStringArray, ListArray,
    MapArray, PrimitiveArray, RecordBatch, StringArray, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal128Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Field, FieldRef, Fields, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalDayTime, IntervalDayTimeType, IntervalMonthDayNano,
    IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType, Time32MillisecondType, Time32SecondType,
    Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use twinlite::cloudquery::table::columns;
use twinlite::cloudquery::types::extension_of;
use twinlite::cloudquery::{Column, Extension, Table};

/// 2024-05-06T07:08:09.123456Z, the time that every generated time is, in µs.
const STABLE_TIME_US: i64 = 1_714_979_289_123_456;

const DAY_US: i64 = 86_400_000_000;

/// Which groups of columns a test table goes without.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub skip_dates: bool,
    pub skip_durations: bool,
    pub skip_intervals: bool,
    pub skip_large_types: bool,
    pub skip_times: bool,
    pub skip_timestamps: bool,
    pub skip_decimals: bool,
    pub skip_structs: bool,
    pub skip_lists: bool,
    pub skip_maps: bool,
}

/// The test table under a name.
pub fn test_table(name: &str, options: Options) -> Table {
    let mut columns = vec![Column::new("id", DataType::Int64).with_not_null(true)];
    columns.extend(scalars(options));
    if !options.skip_structs {
        let child = |column: &Column| {
            let field = column.field();
            let inner = Field::new(field.name(), field.data_type().clone(), false);
            extension_of(field).map_or(inner.clone(), |extension| of_extension(inner, extension))
        };
        let fields: Fields = columns.iter().map(child).collect();
        columns.push(Column::new("struct", DataType::Struct(fields)));
    }
    if !options.skip_lists {
        let listed = columns.iter().filter(|column| column.name() != "json");
        let lists: Vec<Column> = listed
            .map(|column| {
                let item = value_field("item", column);
                Column::new(&format!("{}_list", column.name()), DataType::List(Arc::new(item)))
            })
            .collect();
        columns.extend(lists);
    }
    if !options.skip_maps {
        let maps: Vec<Column> = columns
            .iter()
            .flat_map(|column| {
                let (name, value) = (column.name(), value_field("value", column));
                [("string", DataType::Utf8), ("int", DataType::Int64)]
                    .map(|(key_name, key)| map(&format!("{key_name}_{name}_map"), key, value.clone()))
            })
            .collect();
        columns.extend(maps);
    }
    Table::new(name, columns)
}

fn scalars(options: Options) -> Vec<Column> {
    use DataType as T;
    let plain = |name: &str, data_type: T| Column::new(name, data_type);
    let mut columns: Vec<Column> =
        [T::Int8, T::Int16, T::Int32, T::Int64, T::UInt8, T::UInt16, T::UInt32, T::UInt64, T::Float32, T::Float64]
            .into_iter()
            .map(|data_type| Column::new(&data_type.to_string().to_lowercase(), data_type))
            .collect();
    columns.extend([plain("binary", T::Binary), plain("string", T::Utf8), plain("boolean", T::Boolean)]);
    let extensions = [Extension::Uuid, Extension::Inet, Extension::Mac, Extension::Json];
    columns.extend(extensions.map(|extension| Column::extension(extension.name(), extension)));
    if !options.skip_dates {
        columns.extend([plain("date32", T::Date32), plain("date64", T::Date64)]);
    }
    if !options.skip_durations {
        columns.extend(UNITS.map(|(name, unit)| plain(&format!("duration_{name}"), T::Duration(unit))));
    }
    if !options.skip_intervals {
        columns.extend([
            plain("interval_month", T::Interval(IntervalUnit::YearMonth)),
            plain("interval_day_time", T::Interval(IntervalUnit::DayTime)),
            plain("interval_month_day_nano", T::Interval(IntervalUnit::MonthDayNano)),
        ]);
    }
    if !options.skip_large_types {
        columns.extend([plain("large_binary", T::LargeBinary), plain("large_string", T::LargeUtf8)]);
    }
    if !options.skip_times {
        columns.extend([
            plain("time32_s", T::Time32(TimeUnit::Second)),
            plain("time32_ms", T::Time32(TimeUnit::Millisecond)),
            plain("time64_us", T::Time64(TimeUnit::Microsecond)),
            plain("time64_ns", T::Time64(TimeUnit::Nanosecond)),
        ]);
    }
    if !options.skip_timestamps {
        let zoned = |unit| T::Timestamp(unit, Some("UTC".into()));
        columns.extend(UNITS.map(|(name, unit)| plain(&format!("timestamp_{name}"), zoned(unit))));
    }
    if !options.skip_decimals {
        columns.push(plain("decimal128", T::Decimal128(19, 10)));
    }
    columns
}

const UNITS: [(&str, TimeUnit); 4] = [
    ("s", TimeUnit::Second),
    ("ms", TimeUnit::Millisecond),
    ("us", TimeUnit::Microsecond),
    ("ns", TimeUnit::Nanosecond),
];

fn of_extension(field: Field, extension: Extension) -> Field {
    let column = Column::extension("", extension);
    let keys = ["ARROW:extension:name", "ARROW:extension:metadata"];
    let metadata = column.field().metadata();
    let pairs: HashMap<String, String> =
        keys.iter().map(|key| ((*key).to_owned(), metadata.get(key).unwrap().clone())).collect();
    field.with_metadata(pairs)
}

/// A column's type as a nullable child.
fn value_field(name: &str, column: &Column) -> Field {
    let field = Field::new(name, column.data_type().clone(), true);
    extension_of(column.field()).map_or(field.clone(), |extension| of_extension(field, extension))
}

fn map(name: &str, key: DataType, value: Field) -> Column {
    let pair = Fields::from(vec![Field::new("key", key, false), value]);
    let entries = Field::new("entries", DataType::Struct(pair), false);
    Column::new(name, DataType::Map(Arc::new(entries), false))
}

/// Makes rows. Equal seeds make equal rows, and equal columns have equal values.
pub struct Generator {
    seed: u64,
    next_id: i64,
    streams: HashMap<String, StdRng>,
    /// What `_cq_source_name` is.
    pub source_name: String,
    /// What `_cq_sync_time` is, in µs.
    pub sync_time_us: i64,
}

/// The rows that an array is made for: their ids, and which of them have a value.
struct Slots {
    ids: Vec<i64>,
    valid: Vec<bool>,
}

impl Slots {
    fn nulls(&self) -> Option<NullBuffer> {
        Some(NullBuffer::from(self.valid.clone())).filter(|nulls| nulls.null_count() > 0)
    }

    /// So many items for each row that has a value.
    fn items(&self, valid: &[bool]) -> (Self, OffsetBuffer<i32>) {
        let rows = || self.ids.iter().zip(&self.valid).filter(|(_, valid)| **valid);
        let ids = rows().flat_map(|(id, _)| std::iter::repeat_n(*id, valid.len())).collect();
        let valid_items = rows().flat_map(|_| valid.iter().copied()).collect();
        let lengths = self.valid.iter().map(|is| if *is { valid.len() } else { 0 });
        (Self { ids, valid: valid_items }, OffsetBuffer::from_lengths(lengths))
    }
}

impl Generator {
    /// A generator whose ids begin after `seed`.
    pub fn new(seed: u64) -> Self {
        let mut new = Self {
            seed,
            next_id: 0,
            streams: HashMap::new(),
            source_name: "source-test".to_owned(),
            sync_time_us: STABLE_TIME_US,
        };
        new.reset();
        new
    }

    /// Begins again, with the same ids and values.
    pub fn reset(&mut self) {
        self.next_id = i64::try_from(self.seed).unwrap() + 1;
        self.streams.clear();
    }

    /// The next rows of a table. Rows of nulls have values only where they must: in keys, in NOT NULL columns, and in
    /// those that CloudQuery adds.
    pub fn batch(&mut self, table: &Table, rows: usize, null_rows: bool) -> RecordBatch {
        let ids: Vec<i64> = (self.next_id..).take(rows).collect();
        self.next_id += i64::try_from(rows).unwrap();
        let arrays = table.columns.iter().map(|column| {
            let always = [columns::CQ_ID, columns::CQ_SOURCE_NAME, columns::CQ_SYNC_TIME].contains(&column.name());
            let valid = !null_rows || always || column.not_null() || column.primary_key();
            let slots = Slots { ids: ids.clone(), valid: vec![valid; rows] };
            self.column(column, &slots)
        });
        let arrays: Vec<ArrayRef> = arrays.collect();
        RecordBatch::try_new(Arc::new(table.to_schema()), arrays).unwrap()
    }

    fn column(&mut self, column: &Column, slots: &Slots) -> ArrayRef {
        match column.name() {
            columns::CQ_SOURCE_NAME => Arc::new(StringArray::from(vec![self.source_name.as_str(); slots.ids.len()])),
            columns::CQ_SYNC_TIME => {
                let times = PrimitiveArray::<TimestampMicrosecondType>::from(vec![self.sync_time_us; slots.ids.len()]);
                Arc::new(times.with_data_type(column.data_type().clone()))
            }
            name => {
                let seed = self.seed;
                let stream = self.streams.entry(name.to_owned()).or_insert_with(|| StdRng::seed_from_u64(seed));
                array(column.field(), slots, stream)
            }
        }
    }
}

fn array(field: &Field, slots: &Slots, rng: &mut StdRng) -> ArrayRef {
    if let Some(extension) = extension_of(field) {
        return extension_array(extension, slots, rng);
    }
    match field.data_type() {
        DataType::List(item) => {
            let (inner, offsets) = slots.items(&[true, false, true]);
            Arc::new(ListArray::new(Arc::clone(item), offsets, array(item, &inner, rng), slots.nulls()))
        }
        DataType::Map(entries, _) => {
            let (inner, offsets) = slots.items(&[true, true]);
            let pairs = struct_array(entries, &inner, rng);
            Arc::new(MapArray::new(Arc::clone(entries), offsets, pairs, slots.nulls(), false))
        }
        DataType::Struct(_) => Arc::new(struct_array(&Arc::new(field.clone()), slots, rng)),
        _ => scalar_array(field, slots, rng),
    }
}

fn struct_array(field: &FieldRef, slots: &Slots, rng: &mut StdRng) -> StructArray {
    let DataType::Struct(fields) = field.data_type() else { panic!("{field} is no struct") };
    let children = fields.iter().map(|child| array(child, slots, rng)).collect();
    StructArray::new(fields.clone(), children, slots.nulls())
}

fn extension_array(extension: Extension, slots: &Slots, rng: &mut StdRng) -> ArrayRef {
    let mut bytes = |id: &i64| match extension {
        Extension::Uuid => {
            let digest = rng.random::<[u8; 32]>();
            uuid::Uuid::new_v5(&uuid::Uuid::nil(), &digest).as_bytes().to_vec()
        }
        Extension::Inet => {
            let [a, b, c, d] = rng.random::<[u8; 4]>();
            format!("{a}.{b}.{c}.{d}/{}", rng.random_range(8..=30)).into_bytes()
        }
        Extension::Mac => {
            let mut mac = rng.random::<[u8; 6]>();
            mac[0] &= 0xfe;
            mac.to_vec()
        }
        Extension::Json => {
            let _ = id;
            format!("{{\"test\":[\"a\",\"b\",{}]}}", rng.random_range(0..100_000)).into_bytes()
        }
    };
    let values = slots.ids.iter().zip(&slots.valid).map(|(id, valid)| valid.then(|| bytes(id)));
    match extension {
        Extension::Uuid => {
            let mut builder = FixedSizeBinaryBuilder::new(16);
            for value in values {
                match value {
                    Some(value) => builder.append_value(value).unwrap(),
                    None => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        Extension::Inet | Extension::Mac | Extension::Json => Arc::new(values.collect::<BinaryArray>()),
    }
}

fn primitive<T: ArrowPrimitiveType>(
    data_type: &DataType,
    slots: &Slots,
    mut value: impl FnMut(i64) -> T::Native,
) -> ArrayRef {
    let values = slots.ids.iter().zip(&slots.valid).map(|(id, valid)| valid.then(|| value(*id)));
    Arc::new(values.collect::<PrimitiveArray<T>>().with_data_type(data_type.clone()))
}

fn options<V>(slots: &Slots, mut value: impl FnMut() -> V) -> Vec<Option<V>> {
    slots.valid.iter().map(|valid| valid.then(&mut value)).collect()
}

fn text(rng: &mut StdRng) -> String {
    format!("AString{}", rng.random_range(0..100_000))
}

fn float(rng: &mut StdRng) -> f64 {
    format!("{}.{}", rng.random_range(0..1000), rng.random_range(0..1000)).parse().unwrap()
}

fn scalar_array(field: &Field, slots: &Slots, rng: &mut StdRng) -> ArrayRef {
    use DataType as T;
    let data_type = field.data_type();
    let is_id = field.name() == "id";
    let signed = |id: i64, rng: &mut StdRng, max: i64| if is_id { id } else { -rng.random_range(0..=max) };
    match data_type {
        T::Int8 => primitive::<Int8Type>(data_type, slots, |id| signed(id, rng, 127) as i8),
        T::Int16 => primitive::<Int16Type>(data_type, slots, |id| signed(id, rng, 32_767) as i16),
        T::Int32 => primitive::<Int32Type>(data_type, slots, |id| signed(id, rng, i32::MAX.into()) as i32),
        T::Int64 => primitive::<Int64Type>(data_type, slots, |id| signed(id, rng, i64::MAX)),
        T::UInt8 => primitive::<UInt8Type>(data_type, slots, |_| rng.random()),
        T::UInt16 => primitive::<UInt16Type>(data_type, slots, |_| rng.random()),
        T::UInt32 => primitive::<UInt32Type>(data_type, slots, |_| rng.random()),
        T::UInt64 => primitive::<UInt64Type>(data_type, slots, |_| rng.random()),
        T::Float32 => primitive::<Float32Type>(data_type, slots, |_| float(rng) as f32),
        T::Float64 => primitive::<Float64Type>(data_type, slots, |_| float(rng)),
        T::Boolean => Arc::new(BooleanArray::from(options(slots, || rng.random::<bool>()))),
        T::Utf8 => Arc::new(StringArray::from(options(slots, || text(rng)))),
        T::LargeUtf8 => Arc::new(LargeStringArray::from(options(slots, || text(rng)))),
        T::Binary => {
            let values = options(slots, || rng.random::<[u8; 4]>());
            Arc::new(values.into_iter().collect::<BinaryArray>())
        }
        T::LargeBinary => {
            let values = options(slots, || rng.random::<[u8; 4]>());
            Arc::new(values.into_iter().collect::<LargeBinaryArray>())
        }
        T::Decimal128(..) => primitive::<Decimal128Type>(data_type, slots, |_| {
            let (whole, fraction) = (rng.random_range(0..1_000_000_000_i128), rng.random_range(0..10_000_000_000_i128));
            whole * 10_000_000_000 + fraction
        }),
        _ => temporal_array(data_type, slots, rng),
    }
}

fn temporal_array(data_type: &DataType, slots: &Slots, rng: &mut StdRng) -> ArrayRef {
    use DataType as T;
    let time_us = STABLE_TIME_US % DAY_US;
    let mut day = || 19_471 + rng.random_range(0..100);
    match data_type {
        T::Date32 => return primitive::<Date32Type>(data_type, slots, |_| day()),
        T::Date64 => return primitive::<Date64Type>(data_type, slots, |_| i64::from(day()) * 86_400_000),
        T::Time32(TimeUnit::Second) => {
            return primitive::<Time32SecondType>(data_type, slots, |_| (time_us / 1_000_000) as i32);
        }
        T::Time32(_) => return primitive::<Time32MillisecondType>(data_type, slots, |_| (time_us / 1_000) as i32),
        T::Time64(TimeUnit::Microsecond) => {
            return primitive::<Time64MicrosecondType>(data_type, slots, |_| time_us);
        }
        T::Time64(_) => return primitive::<Time64NanosecondType>(data_type, slots, |_| time_us * 1_000),
        T::Timestamp(unit, _) => {
            return match unit {
                TimeUnit::Second => primitive::<TimestampSecondType>(data_type, slots, |_| STABLE_TIME_US / 1_000_000),
                TimeUnit::Millisecond => {
                    primitive::<TimestampMillisecondType>(data_type, slots, |_| STABLE_TIME_US / 1_000)
                }
                TimeUnit::Microsecond => primitive::<TimestampMicrosecondType>(data_type, slots, |_| STABLE_TIME_US),
                TimeUnit::Nanosecond => {
                    primitive::<TimestampNanosecondType>(data_type, slots, |_| STABLE_TIME_US * 1_000)
                }
            };
        }
        _ => {}
    }
    let mut count = || rng.random_range(0..10_000_000);
    match data_type {
        T::Duration(TimeUnit::Second) => primitive::<DurationSecondType>(data_type, slots, |_| count()),
        T::Duration(TimeUnit::Millisecond) => primitive::<DurationMillisecondType>(data_type, slots, |_| count()),
        T::Duration(TimeUnit::Microsecond) => primitive::<DurationMicrosecondType>(data_type, slots, |_| count()),
        T::Duration(TimeUnit::Nanosecond) => primitive::<DurationNanosecondType>(data_type, slots, |_| count()),
        T::Interval(IntervalUnit::YearMonth) => primitive::<IntervalYearMonthType>(data_type, slots, |_| 1),
        T::Interval(IntervalUnit::DayTime) => primitive::<IntervalDayTimeType>(data_type, slots, |_| {
            let n = (count() % 10_000) as i32;
            IntervalDayTime::new(n, n)
        }),
        T::Interval(IntervalUnit::MonthDayNano) => primitive::<IntervalMonthDayNanoType>(data_type, slots, |_| {
            let n = (count() % 10_000) as i32;
            IntervalMonthDayNano::new(n, n, n.into())
        }),
        other => panic!("the test table has no column of {other}"),
    }
}
