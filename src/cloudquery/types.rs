//! How Arrow's types stand in SQLite: the declared type of a column, and what counts as another type.
//!
//! Many Arrow types share a [`Class`], which is all that an existing table tells about a column: `uuid`, `list<…>` and
//! `utf8` are all declared `text`. Within a class a type may change without a migration; across classes it may not.

use std::fmt::Write as _;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit, TimeUnit};

use super::{Column, Extension};

/// What a column is declared as in SQLite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Every integer.
    Integer,
    /// Every float.
    Real,
    /// Text, and everything that has a text form; bytes too, for SQLite leaves a BLOB in a `text` column as it is.
    Text,
    /// Truth values.
    Boolean,
    /// Timestamps of any unit and zone, as RFC 3339 text.
    Timestamp,
    /// Declared `blob`, or nothing. No Arrow type is declared so; tables made by hand are.
    Blob,
}

impl Class {
    /// The class that a field's type belongs to.
    pub fn of(field: &Field) -> Self {
        if extension_of(field).is_some() { Self::Text } else { Self::of_type(field.data_type()) }
    }

    fn of_type(data_type: &DataType) -> Self {
        match data_type {
            DataType::Boolean => Self::Boolean,
            DataType::Timestamp(..) => Self::Timestamp,
            DataType::Dictionary(_, values) => Self::of_type(values),
            data_type if data_type.is_integer() => Self::Integer,
            data_type if data_type.is_floating() => Self::Real,
            _ => Self::Text,
        }
    }

    /// The class of a column in an existing table, whatever its declared type is.
    ///
    /// SQLite's own rules of affinity decide first, for they decide what becomes of a value. What they leave numeric is a
    /// truth value or a timestamp where the word says so, and a number otherwise.
    pub fn of_declared(declared: &str) -> Self {
        let declared = declared.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| declared.contains(word));
        if says(&["int"]) {
            Self::Integer
        } else if says(&["char", "clob", "text"]) {
            Self::Text
        } else if says(&["blob"]) || declared.trim().is_empty() {
            Self::Blob
        } else if says(&["real", "floa", "doub"]) {
            Self::Real
        } else if says(&["bool"]) {
            Self::Boolean
        } else if says(&["timestamp", "datetime"]) {
            Self::Timestamp
        } else {
            Self::Real
        }
    }

    /// The type that a column of this class is declared with.
    pub fn declared_type(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Text => "text",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp",
            Self::Blob => "blob",
        }
    }

    /// The Arrow type that stands for the class where nothing more is known.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Integer => DataType::Int64,
            Self::Real => DataType::Float64,
            Self::Text => DataType::LargeUtf8,
            Self::Boolean => DataType::Boolean,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Blob => DataType::Binary,
        }
    }

    /// The column of an existing table, of which only its name and its declared type are known.
    pub fn existing_column(name: &str, declared: &str) -> Column {
        Column::new(name, Self::of_declared(declared).data_type())
    }
}

/// The extension type of a field, where its storage is what that type travels as. Bytes of another width are another
/// type: the name alone says nothing.
pub fn extension_of(field: &Field) -> Option<Extension> {
    let extension = Extension::of(field)?;
    let fits = match (extension, field.data_type()) {
        (Extension::Uuid, DataType::FixedSizeBinary(16)) => true,
        (Extension::Uuid, _) => false,
        (_, DataType::Binary | DataType::LargeBinary | DataType::BinaryView) => true,
        (_, _) => false,
    };
    fits.then_some(extension)
}

/// Whether two fields are of the same type: structure, and the names and nullability of children, but not metadata.
/// Extension types are told apart by their names alone.
pub fn same_type(a: &Field, b: &Field) -> bool {
    match (extension_of(a), extension_of(b)) {
        (Some(a), Some(b)) => a == b,
        (None, None) => same_data_type(a.data_type(), b.data_type()),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn same_data_type(a: &DataType, b: &DataType) -> bool {
    use DataType as T;
    match (a, b) {
        (T::List(a), T::List(b))
        | (T::LargeList(a), T::LargeList(b))
        | (T::ListView(a), T::ListView(b))
        | (T::LargeListView(a), T::LargeListView(b)) => same_child(a, b),
        (T::FixedSizeList(a, a_size), T::FixedSizeList(b, b_size)) => a_size == b_size && same_child(a, b),
        (T::Struct(a), T::Struct(b)) => same_children(a, b),
        // What the entries are called is not part of a map's type.
        (T::Map(a, a_sorted), T::Map(b, b_sorted)) => a_sorted == b_sorted && same_entries(a, b),
        (a, b) => a == b,
    }
}

fn same_child(a: &FieldRef, b: &FieldRef) -> bool {
    a.name() == b.name() && a.is_nullable() == b.is_nullable() && same_type(a, b)
}

fn same_children(a: &Fields, b: &Fields) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_child(a, b))
}

fn same_entries(a: &FieldRef, b: &FieldRef) -> bool {
    match (a.data_type(), b.data_type()) {
        (DataType::Struct(a), DataType::Struct(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_nullable() == b.is_nullable() && same_type(a, b))
        }
        _ => false,
    }
}

/// What a field's type is called, as arrow-go and with it every other plugin calls it.
pub fn type_name(field: &Field) -> String {
    match extension_of(field) {
        Some(extension) => extension.name().to_owned(),
        None => data_type_name(field.data_type()),
    }
}

fn data_type_name(data_type: &DataType) -> String {
    use DataType as T;
    match data_type {
        T::Null => "null".to_owned(),
        T::Boolean => "bool".to_owned(),
        T::Int8 | T::Int16 | T::Int32 | T::Int64 => lower(data_type),
        T::UInt8 | T::UInt16 | T::UInt32 | T::UInt64 => lower(data_type),
        T::Float16 | T::Float32 | T::Float64 => lower(data_type),
        T::Utf8 => "utf8".to_owned(),
        T::LargeUtf8 => "large_utf8".to_owned(),
        T::Utf8View => "string_view".to_owned(),
        T::Binary => "binary".to_owned(),
        T::LargeBinary => "large_binary".to_owned(),
        T::BinaryView => "binary_view".to_owned(),
        T::FixedSizeBinary(width) => format!("fixed_size_binary[{width}]"),
        T::Date32 => "date32".to_owned(),
        T::Date64 => "date64".to_owned(),
        T::Time32(unit) => format!("time32[{}]", unit_name(*unit)),
        T::Time64(unit) => format!("time64[{}]", unit_name(*unit)),
        T::Timestamp(unit, Some(zone)) if !zone.is_empty() => format!("timestamp[{}, tz={zone}]", unit_name(*unit)),
        T::Timestamp(unit, _) => format!("timestamp[{}]", unit_name(*unit)),
        T::Duration(unit) => format!("duration[{}]", unit_name(*unit)),
        T::Interval(IntervalUnit::YearMonth) => "month_interval".to_owned(),
        T::Interval(IntervalUnit::DayTime) => "day_time_interval".to_owned(),
        T::Interval(IntervalUnit::MonthDayNano) => "month_day_nano_interval".to_owned(),
        T::Decimal32(precision, scale) => format!("decimal32({precision}, {scale})"),
        T::Decimal64(precision, scale) => format!("decimal64({precision}, {scale})"),
        T::Decimal128(precision, scale) => format!("decimal({precision}, {scale})"),
        T::Decimal256(precision, scale) => format!("decimal256({precision}, {scale})"),
        T::List(item) => format!("list<{}>", item_name(item)),
        T::LargeList(item) => format!("large_list<{}>", item_name(item)),
        T::ListView(item) => format!("list_view<{}>", item_name(item)),
        T::LargeListView(item) => format!("large_list_view<{}>", item_name(item)),
        T::FixedSizeList(item, size) => format!("fixed_size_list<{}>[{size}]", item_name(item)),
        T::Struct(fields) => struct_name(fields),
        T::Map(entries, sorted) => map_name(entries, *sorted),
        T::Dictionary(keys, values) => {
            let (keys, values) = (data_type_name(keys), data_type_name(values));
            format!("dictionary<values={values}, indices={keys}, ordered=false>")
        }
        T::RunEndEncoded(ends, values) => {
            format!("run_end_encoded<run_ends: {}, values: {}>", type_name(ends), type_name(values))
        }
        T::Union(..) => lower(data_type),
    }
}

/// Arrow's own name of a type in lower case, which for these is arrow-go's too.
fn lower(data_type: &DataType) -> String {
    data_type.to_string().to_ascii_lowercase()
}

/// A unit of time as it is written: `s`, `ms`, `us`, `ns`.
pub(super) fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}

fn item_name(item: &Field) -> String {
    let nullable = if item.is_nullable() { ", nullable" } else { "" };
    format!("{}: {}{nullable}", item.name(), type_name(item))
}

fn struct_name(fields: &Fields) -> String {
    let mut name = "struct<".to_owned();
    for (at, field) in fields.iter().enumerate() {
        let comma = if at > 0 { ", " } else { "" };
        let nullable = if field.is_nullable() { " nullable" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(name, "{comma}{}: {}{nullable}", field.name(), type_name(field));
    }
    name.push('>');
    name
}

fn map_name(entries: &Field, sorted: bool) -> String {
    let DataType::Struct(fields) = entries.data_type() else { return "map<>".to_owned() };
    let [key, value] = fields.as_ref() else { return "map<>".to_owned() };
    let sorted = if sorted { ", keys_sorted" } else { "" };
    let nullable = if value.is_nullable() { ", items_nullable" } else { "" };
    format!("map<{}, {}{sorted}{nullable}>", type_name(key), type_name(value))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn list(data_type: DataType, nullable: bool) -> FieldRef {
        Arc::new(Field::new("item", data_type, nullable))
    }

    fn map(value_nullable: bool, sorted: bool, entries: &str) -> DataType {
        let pair = Fields::from(vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("value", DataType::Int64, value_nullable),
        ]);
        DataType::Map(Arc::new(Field::new(entries, DataType::Struct(pair), false)), sorted)
    }

    #[test]
    fn types_are_called_what_arrow_go_calls_them() {
        use DataType as T;
        let pair = Fields::from(vec![Field::new("a", T::Int64, false), Field::new("b", T::Utf8, true)]);
        for (data_type, expected) in [
            (T::Null, "null"),
            (T::Boolean, "bool"),
            (T::Int8, "int8"),
            (T::UInt64, "uint64"),
            (T::Float16, "float16"),
            (T::Utf8View, "string_view"),
            (T::FixedSizeBinary(16), "fixed_size_binary[16]"),
            (T::Time32(TimeUnit::Millisecond), "time32[ms]"),
            (T::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), "timestamp[us, tz=UTC]"),
            (T::Timestamp(TimeUnit::Second, None), "timestamp[s]"),
            (T::Decimal128(19, 10), "decimal(19, 10)"),
            (T::Decimal256(76, 2), "decimal256(76, 2)"),
            (T::Interval(IntervalUnit::MonthDayNano), "month_day_nano_interval"),
            (T::List(list(T::Int64, true)), "list<item: int64, nullable>"),
            (T::LargeList(list(T::Int64, false)), "large_list<item: int64>"),
            (T::FixedSizeList(list(T::Utf8, true), 3), "fixed_size_list<item: utf8, nullable>[3]"),
            (T::Struct(pair), "struct<a: int64, b: utf8 nullable>"),
            (map(true, false, "entries"), "map<utf8, int64, items_nullable>"),
            (map(false, true, "entries"), "map<utf8, int64, keys_sorted>"),
            (
                T::Dictionary(Box::new(T::Int32), Box::new(T::Utf8)),
                "dictionary<values=utf8, indices=int32, ordered=false>",
            ),
        ] {
            assert_eq!(type_name(&Field::new("c", data_type, true)), expected);
        }
        for extension in [Extension::Uuid, Extension::Json, Extension::Inet, Extension::Mac] {
            assert_eq!(type_name(Column::extension("c", extension).field()), extension.name());
        }
    }

    #[test]
    fn types_are_the_same_by_structure_and_extension() {
        use DataType as T;
        let plain = |data_type| Field::new("c", data_type, true);
        let same = |a: T, b: T| same_type(&plain(a), &plain(b));
        assert!(same(T::List(list(T::Int64, true)), T::List(list(T::Int64, true))));
        assert!(!same(T::List(list(T::Int64, true)), T::List(list(T::Int64, false))));
        assert!(!same(T::List(list(T::Int64, true)), T::LargeList(list(T::Int64, true))));
        let renamed = Arc::new(Field::new("element", T::Int64, true));
        assert!(!same(T::List(list(T::Int64, true)), T::List(renamed)));
        assert!(same(map(true, false, "entries"), map(true, false, "key_value")));
        assert!(!same(map(true, false, "entries"), map(false, false, "entries")));
        let zoned = |zone: &str| T::Timestamp(TimeUnit::Second, Some(zone.into()));
        assert!(!same(zoned("UTC"), zoned("+00:00")));
        let uuid = Column::extension("c", Extension::Uuid);
        assert!(same_type(uuid.field(), uuid.clone().with("other", "metadata").field()));
        assert!(!same_type(uuid.field(), &plain(T::FixedSizeBinary(16))));
        let within = |field: &Field| plain(T::List(Arc::new(field.clone().with_name("item"))));
        assert!(!same_type(&within(uuid.field()), &within(&plain(T::FixedSizeBinary(16)))));
    }

    #[test]
    fn an_extension_whose_storage_is_another_is_none() {
        let odd = Column::new("c", DataType::Utf8).with(super::super::table::field_keys::EXTENSION_NAME, "uuid");
        assert_eq!(extension_of(odd.field()), None);
        assert_eq!(type_name(odd.field()), "utf8");
    }

    #[test]
    fn every_declared_type_has_a_class() {
        for (declared, expected) in [
            ("integer", Class::Integer),
            ("INT", Class::Integer),
            ("UNSIGNED BIG INT", Class::Integer),
            ("text", Class::Text),
            ("VARCHAR(10)", Class::Text),
            ("nchar(55)", Class::Text),
            ("CLOB", Class::Text),
            ("blob", Class::Blob),
            ("", Class::Blob),
            (" ", Class::Blob),
            ("real", Class::Real),
            ("DOUBLE PRECISION", Class::Real),
            ("FLOAT", Class::Real),
            ("NUMERIC", Class::Real),
            ("DECIMAL(10,5)", Class::Real),
            ("boolean", Class::Boolean),
            ("BOOL", Class::Boolean),
            ("timestamp", Class::Timestamp),
            ("TIMESTAMP WITH TIME ZONE", Class::Timestamp),
            ("DATETIME", Class::Timestamp),
            // SQLite's first rule: it has INT in it.
            ("POINT", Class::Integer),
            ("é\u{0}(", Class::Real),
        ] {
            assert_eq!(Class::of_declared(declared), expected, "{declared:?}");
        }
        for class in [Class::Integer, Class::Real, Class::Text, Class::Boolean, Class::Timestamp, Class::Blob] {
            assert_eq!(Class::of_declared(class.declared_type()), class);
        }
    }
}
