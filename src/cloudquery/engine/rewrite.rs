//! What becomes of a source's tables and records on the way to a destination: columns that say when and from where a row
//! came, and keys as the destination's modes have them. Pure.
//!
//! A destination never hears of the modes: whether it replaces rows or adds them it sees by the keys in the schema.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, FieldRef, Metadata, Schema, SchemaRef, TimeUnit};

use super::{PkMode, WriteMode};
use crate::cloudquery::Error;
use crate::cloudquery::table::{columns, field_keys};

/// Rewrites for one destination, in one sync of one source.
#[derive(Clone, Debug)]
pub struct Rewriter {
    /// Whether keys are kept.
    pub write_mode: WriteMode,
    /// Which keys are kept.
    pub pk_mode: PkMode,
    /// `_cq_sync_time`: microseconds since 1970, UTC.
    pub sync_time_us: i64,
    /// `_cq_source_name`.
    pub source_name: String,
    /// `_cq_sync_group_id`, if there is to be one.
    pub sync_group_id: Option<String>,
    /// Whether `_cq_sync_time` and `_cq_source_name` are NOT NULL.
    pub columns_not_null: bool,
}

/// A column that is added.
struct Added<'a> {
    field: Field,
    value: Constant<'a>,
}

/// What it says in every row.
enum Constant<'a> {
    Time(i64),
    Text(&'a str),
}

impl Rewriter {
    /// A table's schema, or a record's.
    pub fn schema(&self, schema: &Schema) -> SchemaRef {
        let added = self.added(schema).into_iter().map(|added| Arc::new(added.field));
        let kept = schema.fields().iter().map(|field| self.field(field));
        Arc::new(Schema::new_with_metadata(added.chain(kept).collect::<Vec<_>>(), schema.metadata().clone()))
    }

    /// A record.
    ///
    /// # Errors
    /// [`Error::Arrow`] where its own schema and columns contradict each other.
    pub fn record(&self, record: &RecordBatch) -> Result<RecordBatch, Error> {
        let schema = self.schema(&record.schema());
        let rows = record.num_rows();
        let added = self.added(&record.schema()).into_iter().map(|added| added.value.column(rows));
        let columns = added.chain(record.columns().iter().cloned()).collect();
        Ok(RecordBatch::try_new(schema, columns)?)
    }

    fn added(&self, schema: &Schema) -> Vec<Added<'_>> {
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let nullable = !self.columns_not_null;
        let mut added = vec![
            Added {
                field: Field::new(columns::CQ_SYNC_TIME, time, nullable),
                value: Constant::Time(self.sync_time_us),
            },
            Added {
                field: Field::new(columns::CQ_SOURCE_NAME, DataType::Utf8, nullable),
                value: Constant::Text(&self.source_name),
            },
        ];
        if let Some(group) = &self.sync_group_id {
            let mut field = Field::new(columns::CQ_SYNC_GROUP_ID, DataType::Utf8, false);
            if self.keeps_keys() {
                field.set_metadata(Metadata::from([(field_keys::PRIMARY_KEY, "true")]));
            }
            added.push(Added { field, value: Constant::Text(group) });
        }
        added.retain(|added| schema.field_with_name(added.field.name()).is_err());
        added
    }

    fn keeps_keys(&self) -> bool {
        match self.write_mode {
            WriteMode::Append => false,
            WriteMode::Overwrite | WriteMode::OverwriteDeleteStale => self.pk_mode == PkMode::Default,
        }
    }

    fn field(&self, field: &FieldRef) -> FieldRef {
        if self.keeps_keys() {
            return Arc::clone(field);
        }
        let mut metadata = field.metadata().clone();
        metadata.remove(field_keys::PRIMARY_KEY);
        if self.write_mode == WriteMode::Append {
            metadata.remove(field_keys::UNIQUE);
        } else if field.name() == columns::CQ_ID {
            metadata.insert(field_keys::PRIMARY_KEY, "true");
        }
        Arc::new(field.as_ref().clone().with_metadata(metadata))
    }
}

impl Constant<'_> {
    fn column(&self, rows: usize) -> ArrayRef {
        match self {
            Self::Time(us) => Arc::new(TimestampMicrosecondArray::from_value(*us, rows).with_timezone("UTC")),
            Self::Text(text) => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, rows))),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array as _, AsArray as _, FixedSizeBinaryArray};
    use arrow::datatypes::TimestampMicrosecondType;

    use super::*;
    use crate::cloudquery::ipc;

    fn fixture(name: &str) -> SchemaRef {
        let path = format!("{}/tests/fixtures/cloudquery/{name}.bin", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        ipc::decode_schema(&bytes).expect("a schema")
    }

    fn rewriter(write_mode: WriteMode, pk_mode: PkMode, group: Option<&str>) -> Rewriter {
        Rewriter {
            write_mode,
            pk_mode,
            sync_time_us: 1_700_000_000_000_001,
            source_name: "src".to_owned(),
            sync_group_id: group.map(str::to_owned),
            columns_not_null: false,
        }
    }

    /// The files were made by the CLI itself, from `schema_small`.
    #[test]
    fn every_mode_rewrites_as_the_cli_does() {
        let overwrite = rewriter(WriteMode::Overwrite, PkMode::Default, None);
        let cases = [
            ("cli_overwrite", overwrite.clone()),
            ("cli_overwrite", rewriter(WriteMode::OverwriteDeleteStale, PkMode::Default, None)),
            ("cli_append", rewriter(WriteMode::Append, PkMode::Default, None)),
            ("cli_append", rewriter(WriteMode::Append, PkMode::CqIdOnly, None)),
            ("cli_cqid", rewriter(WriteMode::Overwrite, PkMode::CqIdOnly, None)),
            ("cli_cqid", rewriter(WriteMode::OverwriteDeleteStale, PkMode::CqIdOnly, None)),
            ("cli_group", rewriter(WriteMode::Overwrite, PkMode::Default, Some("g"))),
            ("cli_groupappend", rewriter(WriteMode::Append, PkMode::Default, Some("g"))),
            ("cli_notnull", Rewriter { columns_not_null: true, ..overwrite }),
        ];
        for (name, rewriter) in cases {
            let encoded = ipc::encode_schema(&rewriter.schema(&fixture("schema_small"))).expect("encode");
            let decoded = ipc::decode_schema(&encoded).expect("decode");
            assert_eq!(decoded, fixture(name), "{name}");
        }
    }

    #[test]
    fn a_record_gets_its_columns_and_keeps_its_own() {
        let schema = fixture("schema_small");
        let ids = FixedSizeBinaryArray::try_from_iter([[1_u8; 16], [2; 16]].into_iter()).expect("ids");
        let names = StringArray::from(vec![Some("a"), None]);
        let record = RecordBatch::try_new(schema, vec![Arc::new(ids), Arc::new(names)]).expect("record");
        let rewritten = rewriter(WriteMode::Append, PkMode::Default, Some("g")).record(&record).expect("rewrite");
        assert_eq!(rewritten.schema(), fixture("cli_groupappend"));
        let times = rewritten.column(0).as_primitive::<TimestampMicrosecondType>();
        assert_eq!(times.values(), &[1_700_000_000_000_001; 2]);
        for (column, text) in [(1, "src"), (2, "g")] {
            let column = rewritten.column(column).as_string::<i32>();
            assert!(column.iter().all(|value| value == Some(text)) && column.len() == 2);
        }
        assert_eq!(rewritten.columns()[3..], record.columns()[..]);
    }

    #[test]
    fn columns_that_a_table_has_already_are_left_alone() {
        let fields = vec![
            Field::new(columns::CQ_SOURCE_NAME, DataType::LargeUtf8, true),
            Field::new("x", DataType::Int64, true),
        ];
        let rewritten = rewriter(WriteMode::Overwrite, PkMode::Default, None).schema(&Schema::new(fields));
        let names: Vec<&str> = rewritten.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, [columns::CQ_SYNC_TIME, columns::CQ_SOURCE_NAME, "x"]);
        assert_eq!(rewritten.field(1).data_type(), &DataType::LargeUtf8);
    }
}
