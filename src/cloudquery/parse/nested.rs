//! Lists, maps, structs and dictionaries, whose values are JSON.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, FixedSizeListArray, GenericListArray, GenericListViewArray, MapArray, NullBufferBuilder,
    OffsetSizeTrait, PrimitiveArray, StructArray,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowDictionaryKeyType, ArrowNativeType, DataType, Field, FieldRef, Fields, Int8Type, Int16Type, Int32Type,
    Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::bytes::{Bytes, Texts};
use super::json::Cursor;
use super::{Bad, Build, Scalar, scalar};
use crate::cloudquery::types::extension_of;

const TOO_MANY: Bad = "the values are too many for one array";
const MISMATCHED: Bad = "the values do not make an array of the type";
const NOT_NULLABLE: Bad = "its JSON has a null where the type allows none";

/// A builder for a field of any type that can be stored.
pub(super) fn build(field: &Field) -> Option<Box<dyn Build>> {
    let data_type = field.data_type();
    if let Some(texts) = Texts::of(data_type) {
        return Some(Box::new(texts));
    }
    if let Some(bytes) = Bytes::of(data_type, extension_of(field)) {
        return Some(Box::new(bytes));
    }
    match data_type {
        DataType::List(item) => list(item, Kind::Small),
        DataType::LargeList(item) => list(item, Kind::Large),
        DataType::ListView(item) => list(item, Kind::SmallView),
        DataType::LargeListView(item) => list(item, Kind::LargeView),
        DataType::FixedSizeList(item, size) if *size >= 0 => list(item, Kind::Fixed(*size)),
        DataType::Map(entries, sorted) => {
            let DataType::Struct(fields) = entries.data_type() else { return None };
            let [_, _] = fields.as_ref() else { return None };
            let pairs = Struct::of(fields, &["key", "value"])?;
            Some(Box::new(Map { entries: Arc::clone(entries), pairs, sorted: *sorted, rows: Rows::default() }))
        }
        DataType::Struct(fields) => {
            let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
            Some(Box::new(Struct::of(fields, &names)?))
        }
        DataType::Dictionary(keys, values) => {
            let values = build(&Field::new("", values.as_ref().clone(), true))?;
            let key = keys.as_ref().clone();
            Some(Box::new(Dictionary { key, values, seen: HashMap::new(), keys: Vec::new() }))
        }
        data_type => scalar::build(data_type),
    }
}

fn list(item: &FieldRef, kind: Kind) -> Option<Box<dyn Build>> {
    let items = Items { field: Arc::clone(item), build: build(item)? };
    Some(Box::new(List { kind, items, rows: Rows::default() }))
}

/// Appends the JSON text of a nested value.
fn append_text(build: &mut dyn Build, value: &Scalar<'_>) -> Result<(), Bad> {
    let text = match value {
        Scalar::Integer(_) | Scalar::Real(_) => None,
        value => value.text(),
    };
    let mut cursor = Cursor::new(text.ok_or("it is not JSON")?);
    if cursor.null() {
        build.null();
    } else {
        build.json(&mut cursor)?;
    }
    cursor.end()
}

/// The values of a field within a nested type.
struct Items {
    field: FieldRef,
    build: Box<dyn Build>,
}

impl Items {
    fn append(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Bad> {
        if cursor.null() { self.append_null() } else { self.build.json(cursor) }
    }

    fn append_null(&mut self) -> Result<(), Bad> {
        if !self.field.is_nullable() {
            return Err(NOT_NULLABLE);
        }
        self.build.null();
        Ok(())
    }
}

/// Where each row's items end, and which rows are NULL.
struct Rows {
    ends: Vec<usize>,
    nulls: NullBufferBuilder,
}

impl Default for Rows {
    fn default() -> Self {
        Self { ends: vec![0], nulls: NullBufferBuilder::new(0) }
    }
}

impl Rows {
    fn end(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    fn null(&mut self, items: usize) {
        self.ends.push(self.end() + items);
        self.nulls.append_null();
    }

    fn row(&mut self, items: usize) {
        self.ends.push(self.end() + items);
        self.nulls.append_non_null();
    }

    fn offsets<O: OffsetSizeTrait>(&self) -> Result<Vec<O>, Bad> {
        self.ends.iter().map(|end| O::from_usize(*end).ok_or(TOO_MANY)).collect()
    }

    fn offset_buffer<O: OffsetSizeTrait>(&self) -> Result<OffsetBuffer<O>, Bad> {
        Ok(OffsetBuffer::new(self.offsets()?.into()))
    }
}

/// The kinds of lists, which differ only in how the array says where a row's items are.
#[derive(Clone, Copy)]
enum Kind {
    Small,
    Large,
    SmallView,
    LargeView,
    Fixed(i32),
}

struct List {
    kind: Kind,
    items: Items,
    rows: Rows,
}

impl List {
    fn offsets<O: OffsetSizeTrait>(&mut self) -> Result<ArrayRef, Bad> {
        let (offsets, values) = (self.rows.offset_buffer::<O>()?, self.items.build.finish()?);
        let field = Arc::clone(&self.items.field);
        let list = GenericListArray::try_new(field, offsets, values, self.rows.nulls.finish());
        Ok(Arc::new(list.map_err(|_| MISMATCHED)?))
    }

    fn views<O: OffsetSizeTrait>(&mut self) -> Result<ArrayRef, Bad> {
        let (ends, values) = (self.rows.offsets::<O>()?, self.items.build.finish()?);
        let sizes: Vec<O> = ends.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let starts: ScalarBuffer<O> = ends[..sizes.len()].to_vec().into();
        let field = Arc::clone(&self.items.field);
        let list = GenericListViewArray::try_new(field, starts, sizes.into(), values, self.rows.nulls.finish());
        Ok(Arc::new(list.map_err(|_| MISMATCHED)?))
    }

    fn fixed(&mut self, size: i32) -> Result<ArrayRef, Bad> {
        let (values, length) = (self.items.build.finish()?, self.rows.ends.len() - 1);
        let (field, nulls) = (Arc::clone(&self.items.field), self.rows.nulls.finish());
        let list = FixedSizeListArray::try_new_with_length(field, size, values, nulls, length);
        Ok(Arc::new(list.map_err(|_| MISMATCHED)?))
    }
}

impl Build for List {
    fn null(&mut self) {
        let Kind::Fixed(size) = self.kind else { return self.rows.null(0) };
        let size = usize::try_from(size).unwrap_or(0);
        for _ in 0..size {
            self.items.build.null();
        }
        self.rows.null(size);
    }

    fn scalar(&mut self, value: Scalar<'_>) -> Result<(), Bad> {
        append_text(self, &value)
    }

    fn json(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Bad> {
        let mut count = 0;
        cursor.list(|cursor| {
            count += 1;
            self.items.append(cursor)
        })?;
        if matches!(self.kind, Kind::Fixed(size) if usize::try_from(size) != Ok(count)) {
            return Err("its list has another number of items");
        }
        self.rows.row(count);
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, Bad> {
        match self.kind {
            Kind::Small => self.offsets::<i32>(),
            Kind::Large => self.offsets::<i64>(),
            Kind::SmallView => self.views::<i32>(),
            Kind::LargeView => self.views::<i64>(),
            Kind::Fixed(size) => self.fixed(size),
        }
    }
}

struct Struct {
    fields: Fields,
    /// By place in `fields`.
    children: Vec<Items>,
    /// The key and the place of each child, sorted.
    keys: Vec<(String, usize)>,
    /// Which children the object at hand has given a value.
    filled: Vec<bool>,
    nulls: NullBufferBuilder,
}

impl Struct {
    /// A struct whose members have these keys in JSON.
    fn of(fields: &Fields, keys: &[&str]) -> Option<Self> {
        let child = |field: &FieldRef| Some(Items { field: Arc::clone(field), build: build(field)? });
        let children = fields.iter().map(child).collect::<Option<Vec<_>>>()?;
        let mut keys: Vec<(String, usize)> = keys.iter().enumerate().map(|(at, key)| ((*key).to_owned(), at)).collect();
        keys.sort();
        let filled = vec![false; children.len()];
        Some(Self { fields: fields.clone(), children, keys, filled, nulls: NullBufferBuilder::new(0) })
    }

    /// The next child with this key that has no value yet. Keys may repeat, and then stand for the fields in order.
    fn child(&self, key: &str) -> Result<Option<usize>, Bad> {
        let first = self.keys.partition_point(|(name, _)| name.as_str() < key);
        let mut named = self.keys[first..].iter().take_while(|(name, _)| name == key).peekable();
        if named.peek().is_none() {
            return Ok(None);
        }
        let place = named.map(|(_, at)| *at).find(|at| !self.filled[*at]);
        place.map(Some).ok_or("its JSON object has a key twice")
    }

    fn array(&mut self) -> Result<StructArray, Bad> {
        let columns: Result<Vec<ArrayRef>, Bad> = self.children.iter_mut().map(|child| child.build.finish()).collect();
        let (columns, length) = (columns?, self.nulls.len());
        StructArray::try_new_with_length(self.fields.clone(), columns, self.nulls.finish(), length)
            .map_err(|_| MISMATCHED)
    }
}

impl Build for Struct {
    fn null(&mut self) {
        for child in &mut self.children {
            child.build.null();
        }
        self.nulls.append_null();
    }

    fn scalar(&mut self, value: Scalar<'_>) -> Result<(), Bad> {
        append_text(self, &value)
    }

    fn json(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Bad> {
        self.filled.fill(false);
        cursor.object(|key, cursor| match self.child(key)? {
            Some(at) => {
                self.filled[at] = true;
                self.children[at].append(cursor)
            }
            // A field that the type no longer has.
            None => cursor.raw().map(|_| ()),
        })?;
        for (child, filled) in self.children.iter_mut().zip(&self.filled) {
            if !filled {
                child.append_null()?;
            }
        }
        self.nulls.append_non_null();
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, Bad> {
        Ok(Arc::new(self.array()?))
    }
}

struct Map {
    entries: FieldRef,
    pairs: Struct,
    sorted: bool,
    rows: Rows,
}

impl Build for Map {
    fn null(&mut self) {
        self.rows.null(0);
    }

    fn scalar(&mut self, value: Scalar<'_>) -> Result<(), Bad> {
        append_text(self, &value)
    }

    fn json(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Bad> {
        let mut count = 0;
        cursor.list(|cursor| {
            count += 1;
            self.pairs.json(cursor)
        })?;
        self.rows.row(count);
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, Bad> {
        let (offsets, pairs) = (self.rows.offset_buffer()?, self.pairs.array()?);
        let (entries, nulls) = (Arc::clone(&self.entries), self.rows.nulls.finish());
        let map = MapArray::try_new(entries, offsets, pairs, nulls, self.sorted);
        Ok(Arc::new(map.map_err(|_| MISMATCHED)?))
    }
}

/// Values that are each built once, however often they occur.
struct Dictionary {
    key: DataType,
    values: Box<dyn Build>,
    /// Each value as it was stored, by the place that it was given.
    seen: HashMap<Vec<u8>, usize>,
    keys: Vec<Option<usize>>,
}

impl Dictionary {
    /// Whether a value is new; it has the next place then.
    fn is_new(&mut self, written: Vec<u8>) -> bool {
        let next = self.seen.len();
        let at = *self.seen.entry(written).or_insert(next);
        self.keys.push(Some(at));
        at == next
    }

    fn array<K: ArrowDictionaryKeyType>(&mut self) -> Result<ArrayRef, Bad> {
        let key = |at: &Option<usize>| at.map(|at| K::Native::from_usize(at).ok_or(TOO_MANY)).transpose();
        let keys: Vec<Option<K::Native>> = self.keys.iter().map(key).collect::<Result<_, _>>()?;
        let keys: PrimitiveArray<K> = keys.into_iter().collect();
        Ok(Arc::new(DictionaryArray::try_new(keys, self.values.finish()?).map_err(|_| MISMATCHED)?))
    }
}

impl Build for Dictionary {
    fn null(&mut self) {
        self.keys.push(None);
    }

    fn scalar(&mut self, value: Scalar<'_>) -> Result<(), Bad> {
        let mut written = Vec::new();
        let (class, bytes) = match &value {
            Scalar::Integer(value) => (b'i', value.to_be_bytes().to_vec()),
            Scalar::Real(value) => (b'r', value.to_be_bytes().to_vec()),
            Scalar::Number(text) => (b'n', text.as_bytes().to_vec()),
            Scalar::Bool(value) => (b't', vec![u8::from(*value)]),
            Scalar::Text(text) => (b's', text.as_bytes().to_vec()),
            Scalar::Blob(bytes) => (b'b', bytes.to_vec()),
        };
        written.push(class);
        written.extend(bytes);
        if self.is_new(written) { self.values.scalar(value) } else { Ok(()) }
    }

    fn json(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Bad> {
        let written = cursor.raw_with_mark()?;
        if self.is_new(written.as_bytes().to_vec()) { self.values.json(&mut Cursor::new(written)) } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<ArrayRef, Bad> {
        match self.key {
            DataType::Int8 => self.array::<Int8Type>(),
            DataType::Int16 => self.array::<Int16Type>(),
            DataType::Int32 => self.array::<Int32Type>(),
            DataType::Int64 => self.array::<Int64Type>(),
            DataType::UInt8 => self.array::<UInt8Type>(),
            DataType::UInt16 => self.array::<UInt16Type>(),
            DataType::UInt32 => self.array::<UInt32Type>(),
            DataType::UInt64 => self.array::<UInt64Type>(),
            _ => Err(MISMATCHED),
        }
    }
}
