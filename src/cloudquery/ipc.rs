//! Tables and records as Arrow IPC streams.
//!
//! What is written: continuation framing, version 5, little endian, no compression, no dictionaries, one batch a record.
//! What is read: any number of batches, and anything else is an error, whatever the bytes are.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::reader::{StreamDecoder, StreamReader};
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;

use super::{Error, Table};

/// A table's schema, as a stream of a schema alone.
///
/// # Errors
/// [`Error::Arrow`] where the schema cannot be written.
pub fn encode_schema(schema: &Schema) -> Result<Bytes, Error> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
    writer.finish()?;
    Ok(writer.into_inner()?.into())
}

/// A record, as a stream of its schema and itself.
///
/// # Errors
/// [`Error::Arrow`] where it cannot be written.
pub fn encode_record(record: &RecordBatch) -> Result<Bytes, Error> {
    let mut writer = StreamWriter::try_new(Vec::new(), &record.schema())?;
    writer.write(record)?;
    writer.finish()?;
    Ok(writer.into_inner()?.into())
}

/// The schema of a stream.
///
/// # Errors
/// [`Error::Arrow`] or [`Error::Malformed`] where the bytes are none.
pub fn decode_schema(bytes: &[u8]) -> Result<SchemaRef, Error> {
    check_messages(bytes)?;
    guarded(|| Ok(StreamReader::try_new(Cursor::new(bytes), None)?.schema()))
}

/// The table that a stream of a schema alone describes.
///
/// # Errors
/// As [`decode_schema`], and [`Error::NoTableName`].
pub fn decode_table(bytes: &[u8]) -> Result<Table, Error> {
    let schema = decode_schema(bytes)?;
    Table::from_schema(&schema)
}

/// The batches of a stream, each with its schema; mostly one.
///
/// # Errors
/// As [`decode_schema`].
pub fn decode_records(bytes: &[u8]) -> Result<(SchemaRef, Vec<RecordBatch>), Error> {
    check_messages(bytes)?;
    guarded(|| {
        let reader = StreamReader::try_new(Cursor::new(bytes), None)?;
        let schema = reader.schema();
        let batches = reader.collect::<Result<Vec<_>, _>>()?;
        Ok((Arc::clone(&schema), batches))
    })
}

/// The same of bytes that nobody else needs: the batches are views of them where their alignment allows it.
///
/// # Errors
/// As [`decode_schema`].
pub fn decode_owned(bytes: Bytes) -> Result<(SchemaRef, Vec<RecordBatch>), Error> {
    let end = check_messages(&bytes)?;
    guarded(|| {
        let (mut decoder, mut batches) = (StreamDecoder::new(), Vec::new());
        // With the end mark, which a sender may leave out, a last message without a body is taken, too.
        for mut part in [Buffer::from(bytes.slice(..end)), Buffer::from(&END_MARK)] {
            while let Some(batch) = decoder.decode(&mut part)? {
                batches.push(batch);
            }
        }
        decoder.finish()?;
        let schema = decoder.schema().ok_or_else(|| Error::Malformed("it has no schema".to_owned()))?;
        Ok((schema, batches))
    })
}

/// Fields of one schema, those within others too. SQLite takes 2,000 columns; CloudQuery's widest test table has some
/// thousand fields.
const FIELDS_MAX: usize = 1 << 16;

/// Arrays in all batches of one stream. Each takes some hundred bytes here, whatever is in it; a sender needs fewer to say
/// that there is one.
const ARRAYS_MAX: usize = 1 << 19;

/// The word before a message's length.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// The end of a stream: a message of no length.
const END_MARK: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Where the last whole message of a stream ends. Whatever follows the end mark is nobody's.
///
/// Refuses, before anything is made of it, a stream that is cut within a message, and whatever would take far more memory
/// than its bytes do: see [`check_schema`] and [`check_batch`].
fn check_messages(bytes: &[u8]) -> Result<usize, Error> {
    let cut = || Error::Malformed("its Arrow stream is cut, or none".to_owned());
    let (mut rest, mut arrays) = (bytes, 0);
    loop {
        let end = bytes.len() - rest.len();
        let framed = rest.strip_prefix(&CONTINUATION).unwrap_or(rest);
        let Some((length, framed)) = framed.split_first_chunk::<4>() else {
            return if rest.is_empty() { Ok(end) } else { Err(cut()) };
        };
        let length = usize::try_from(i32::from_le_bytes(*length)).map_err(|_| cut())?;
        if length == 0 {
            return Ok(end);
        }
        let (head, framed) = framed.split_at_checked(length).ok_or_else(cut)?;
        let message = arrow::ipc::root_as_message(head).map_err(|_| cut())?;
        let dictionary = message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
        let batch = message.header_as_record_batch().or(dictionary);
        let body = usize::try_from(message.bodyLength()).map_err(|_| cut())?;
        if let Some(schema) = message.header_as_schema() {
            check_schema(&schema, bytes.len())?;
        }
        if let Some(batch) = batch {
            check_batch(&batch, body, bytes.len())?;
            arrays += batch.nodes().map_or(0, |nodes| nodes.len());
            if arrays > ARRAYS_MAX {
                return Err(Error::Malformed("its batches are too many; send fewer, or larger ones".to_owned()));
            }
        }
        rest = framed.get(body..).ok_or_else(cut)?;
    }
}

/// Refuses a schema of more fields than any table has, or which says more than its stream has bytes: what stands there
/// once may be pointed at from many places, and would be copied for each.
fn check_schema(schema: &arrow::ipc::Schema<'_>, bytes: usize) -> Result<(), Error> {
    let (mut fields, mut text) = (0_usize, 0_usize);
    let said = |pair: arrow::ipc::KeyValue<'_>| pair.key().map_or(0, str::len) + pair.value().map_or(0, str::len);
    text += schema.custom_metadata().into_iter().flatten().map(said).sum::<usize>();
    let mut open: Vec<arrow::ipc::Field<'_>> = schema.fields().into_iter().flatten().collect();
    while let Some(field) = open.pop() {
        fields += 1;
        text += field.name().map_or(0, str::len);
        text += field.custom_metadata().into_iter().flatten().map(said).sum::<usize>();
        if fields > FIELDS_MAX || text > bytes {
            return Err(Error::Malformed("its schema is larger than any table's".to_owned()));
        }
        open.extend(field.children().into_iter().flatten());
    }
    Ok(())
}

/// Refuses a batch that is compressed: a few bytes say themselves how many they become, and nobody in this protocol
/// compresses. And one whose buffers are not in its body, or share parts of it, for each may be copied; or which says that
/// it has more rows than its stream has bits.
fn check_batch(batch: &arrow::ipc::RecordBatch<'_>, body: usize, bytes: usize) -> Result<(), Error> {
    let refused = |why: &str| Err(Error::Malformed(why.to_owned()));
    if batch.compression().is_some() {
        return refused("its batches are compressed; send them as they are");
    }
    let mut left = body;
    for buffer in batch.buffers().into_iter().flatten() {
        let range = usize::try_from(buffer.offset()).ok().zip(usize::try_from(buffer.length()).ok());
        let is_inside = |(offset, length): &(usize, usize)| offset.checked_add(*length).is_some_and(|end| end <= body);
        let Some((_, length)) = range.filter(is_inside) else {
            return refused("its batch has a buffer outside of its body");
        };
        let Some(rest) = left.checked_sub(length) else { return refused("its batch has buffers that overlap") };
        left = rest;
    }
    match usize::try_from(batch.length()) {
        Ok(rows) if rows / 8 <= bytes => Ok(()),
        _ => refused("its batch says that it has more rows than bits"),
    }
}

/// Arrow's reader panics on some bytes that no writer makes; here they are an error like the others.
fn guarded<T>(read: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let read = std::panic::AssertUnwindSafe(read);
    std::panic::catch_unwind(read).unwrap_or_else(|_| Err(Error::Malformed("not an Arrow stream".to_owned())))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn record() -> RecordBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("")]));
        RecordBatch::try_from_iter([("id", ids), ("name", names)]).expect("two columns")
    }

    /// At every alignment, for in a message a record begins anywhere.
    #[test]
    fn bytes_that_are_ours_decode_as_any_others() {
        let encoded = encode_record(&record()).expect("encoded");
        for shift in 0..9 {
            let shifted = Bytes::from([vec![0; shift], encoded.to_vec()].concat()).slice(shift..);
            let (schema, batches) = decode_owned(shifted).expect("decoded");
            assert_eq!((schema, batches), decode_records(&encoded).expect("decoded"), "{shift}");
        }
    }

    #[test]
    fn a_stream_may_lack_its_end_mark_and_what_follows_it_is_nobody_s() {
        let encoded = encode_record(&record()).expect("encoded");
        let unmarked = encoded.slice(..encoded.len() - END_MARK.len());
        let followed = Bytes::from([&encoded[..], b"and more"].concat());
        for bytes in [unmarked, followed] {
            assert_eq!(decode_records(&bytes).expect("decoded").1, [record()]);
            assert_eq!(decode_owned(bytes).expect("decoded").1, [record()]);
        }
        let schema = encode_schema(record().schema_ref()).expect("encoded");
        for bytes in [schema.slice(..schema.len() - END_MARK.len()), schema] {
            assert!(decode_owned(bytes).expect("decoded").1.is_empty());
        }
    }

    #[test]
    fn a_cut_stream_is_refused_wherever_it_is_cut() {
        let encoded = encode_record(&record()).expect("encoded");
        let whole =
            [0, encoded.len() - END_MARK.len(), encode_schema(record().schema_ref()).expect("encoded").len() - 8];
        for end in (0..encoded.len() - END_MARK.len()).filter(|end| !whole.contains(end)) {
            let cut = encoded.slice(..end);
            assert!(decode_records(&cut).is_err() && decode_owned(cut).is_err(), "cut at {end}");
        }
        assert!(decode_owned(Bytes::new()).is_err() && decode_records(&[]).is_err());
    }

    /// A column of nulls takes no bytes, so any number of rows could be said of it.
    #[test]
    fn rows_without_bytes_are_refused() {
        let rows = |count: usize| {
            let nulls: ArrayRef = Arc::new(arrow::array::NullArray::new(count));
            encode_record(&RecordBatch::try_from_iter([("nothing", nulls)]).expect("a column")).expect("encoded")
        };
        assert_eq!(decode_owned(rows(1000)).expect("decoded").1[0].num_rows(), 1000);
        assert!(decode_owned(rows(1 << 40)).expect_err("refused").to_string().contains("rows than bits"));
    }

    fn malformed(bytes: Vec<u8>) -> String {
        let by_records = decode_records(&bytes).expect_err("refused").to_string();
        assert_eq!(decode_owned(bytes.into()).expect_err("refused").to_string(), by_records);
        by_records
    }

    /// Each buffer may be copied, so a body that a thousand columns share would be there a thousand times.
    #[test]
    fn buffers_that_share_their_bytes_are_refused() {
        let column = || -> ArrayRef { Arc::new(Int64Array::from(vec![1, 2, 3])) };
        let batch = RecordBatch::try_from_iter([("a", column()), ("b", column())]).expect("two columns");
        let encoded = encode_record(&batch).expect("encoded").to_vec();
        let place = |offset: i64, length: i64| [offset.to_le_bytes(), length.to_le_bytes()].concat();
        // The second column's values are behind the first's, which take 64 bytes.
        let at = encoded.windows(16).position(|bytes| bytes == place(64, 24)).expect("its values' place");
        for (offset, length, why) in
            [(0, 128, "overlap"), (64, 65, "outside"), (i64::MAX, 8, "outside"), (-8, 8, "outside")]
        {
            let mut bytes = encoded.clone();
            bytes[at..at + 16].copy_from_slice(&place(offset, length));
            let said = malformed(bytes);
            assert!(said.contains(why), "{offset} {length}: {said}");
        }
    }

    /// What stands in a schema once may be pointed at from everywhere in it.
    #[test]
    fn a_schema_that_says_more_than_its_bytes_is_refused() {
        use arrow::datatypes::{DataType, Field, Metadata};
        let note = Metadata::from([("note", "x".repeat(10_000).as_str())]);
        let field = |name: String| Field::new(name, DataType::Int64, true);
        let mut fields: Vec<Field> = (0..100).map(|number| field(number.to_string())).collect();
        fields[0] = field("0".to_owned()).with_metadata(note);
        let mut bytes = encode_schema(&Schema::new(fields)).expect("encoded").to_vec();
        decode_schema(&bytes).expect("as it is");
        let places = {
            let message = arrow::ipc::root_as_message(&bytes[8..]).expect("a message");
            let offsets = message.header_as_schema().and_then(|schema| schema.fields()).expect("fields");
            let start = offsets.bytes().as_ptr() as usize - bytes.as_ptr() as usize;
            start..start + offsets.bytes().len()
        };
        let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        let first = word(&bytes, places.start);
        for (number, at) in places.step_by(4).enumerate() {
            let offset = first - 4 * u32::try_from(number).expect("small");
            bytes[at..at + 4].copy_from_slice(&offset.to_le_bytes());
        }
        let why = decode_schema(&bytes).expect_err("refused").to_string();
        assert!(why.contains("larger than any table's"), "{why}");
        assert_eq!(malformed(bytes), why);
        let many: Vec<Field> = (0..=FIELDS_MAX).map(|_| field(String::new())).collect();
        let many = encode_schema(&Schema::new(many)).expect("encoded");
        assert_eq!(decode_schema(&many).expect_err("refused").to_string(), why);
    }

    #[test]
    fn batches_without_end_are_refused() {
        let nothing = || -> ArrayRef { Arc::new(arrow::array::NullArray::new(1)) };
        let columns = (0..1000).map(|number| (number.to_string(), nothing()));
        let batch = RecordBatch::try_from_iter(columns).expect("columns");
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).expect("a writer");
        for _ in 0..=ARRAYS_MAX / 1000 {
            writer.write(&batch).expect("written");
        }
        let bytes = writer.into_inner().expect("bytes");
        assert!(malformed(bytes).contains("too many"));
    }

    #[test]
    fn a_compressed_batch_is_refused_by_name() {
        use arrow::ipc::{CompressionType, writer::IpcWriteOptions};
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![0; 10_000]));
        let batch = RecordBatch::try_from_iter([("id", ids)]).expect("a column");
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).expect("set");
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).expect("a writer");
        writer.write(&batch).and_then(|()| writer.finish()).expect("written");
        let bytes = Bytes::from(writer.into_inner().expect("bytes"));
        for error in [decode_records(&bytes).expect_err("refused"), decode_owned(bytes).expect_err("refused")] {
            assert!(error.to_string().contains("compressed"), "{error}");
        }
    }
}
