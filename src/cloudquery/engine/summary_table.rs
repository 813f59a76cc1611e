//! A row about a sync: for the table `cloudquery_sync_summaries` of the destinations that want it (`send_sync_summary`),
//! and for the file of `--summary-location`, a line of JSON each.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field};
use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};

use super::{DestinationSpec, DestinationSummary, Error, Shard, SourceSpec, SourceSummary};
use crate::cloudquery::{Column, Error as ProtocolError, Extension, Table};

/// The table's name.
pub(super) const NAME: &str = "cloudquery_sync_summaries";

/// What a row is made of.
pub(super) struct About<'a> {
    pub source: &'a SourceSpec,
    pub destination: &'a DestinationSpec,
    pub summary: &'a SourceSummary,
    pub of_destination: &'a DestinationSummary,
    pub shard: Option<Shard>,
    pub sync_id: &'a str,
    pub sync_time_us: i64,
    pub sync_group_id: Option<&'a str>,
}

/// A column's value.
enum Cell {
    Text(String),
    Number(i64),
    Texts(Vec<String>),
    Json(Value),
}

impl About<'_> {
    /// The columns with their values, in the table's order.
    fn cells(&self) -> Vec<(&'static str, Cell)> {
        let (source, destination) = (&self.source.plugin, &self.destination.plugin);
        let text = |text: &str| Cell::Text(text.to_owned());
        let number = |number: u64| Cell::Number(i64::try_from(number).unwrap_or(i64::MAX));
        let shard = |part: fn(Shard) -> i32| Cell::Number(self.shard.map_or(0, |shard| part(shard).into()));
        vec![
            ("cli_version", text(concat!("twinlite ", env!("CARGO_PKG_VERSION")))),
            ("destination_errors", number(self.of_destination.errors)),
            ("destination_name", text(&destination.name)),
            ("destination_path", text(&destination.path)),
            ("destination_version", text(&destination.version)),
            ("destination_warnings", number(self.of_destination.warnings)),
            ("resources", number(self.summary.resources)),
            ("source_errors", number(self.summary.errors)),
            ("source_name", text(&source.name)),
            ("source_path", text(&source.path)),
            ("source_version", text(&source.version)),
            ("source_warnings", number(self.summary.warnings)),
            ("source_tables", Cell::Texts(self.source.tables.clone())),
            ("resources_per_table", Cell::Json(json!(self.summary.resources_per_table))),
            ("errors_per_table", Cell::Json(json!(self.summary.errors_per_table))),
            // Only sources know, and they tell it elsewhere.
            ("durations_per_table_ms", Cell::Json(json!({}))),
            ("sync_id", text(self.sync_id)),
            ("sync_duration_ms", number(self.summary.duration_ms)),
            ("shard_num", shard(Shard::number)),
            ("shard_total", shard(Shard::total)),
        ]
    }

    /// The row, without what every row of a sync gets.
    pub(super) fn record(&self) -> Result<RecordBatch, ProtocolError> {
        let (columns, arrays): (Vec<Column>, Vec<ArrayRef>) =
            self.cells().into_iter().map(|(name, cell)| cell.column(name)).unzip();
        let schema = Table::new(NAME, columns).to_schema();
        Ok(RecordBatch::try_new(Arc::new(schema), arrays)?)
    }

    /// The row as a line of JSON, with when the sync began.
    fn line(&self) -> String {
        let mut line: Map<String, Value> =
            self.cells().into_iter().map(|(name, cell)| (name.into(), cell.json())).collect();
        let time = DateTime::from_timestamp_micros(self.sync_time_us).unwrap_or_default();
        line.insert("sync_time".into(), time.to_rfc3339_opts(SecondsFormat::AutoSi, true).into());
        line.insert("sync_group_id".into(), self.sync_group_id.unwrap_or_default().into());
        Value::Object(line).to_string()
    }

    /// Appends the row to a file.
    pub(super) fn append_to(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::SummaryFile { path: path.to_owned(), source };
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).map_err(failed)?;
        writeln!(file, "{}", self.line()).map_err(failed)
    }
}

impl Cell {
    fn column(self, name: &str) -> (Column, ArrayRef) {
        match self {
            Self::Text(text) => (Column::new(name, DataType::Utf8), Arc::new(StringArray::from(vec![text]))),
            Self::Number(number) => (Column::new(name, DataType::Int64), Arc::new(Int64Array::from(vec![number]))),
            Self::Json(value) => {
                let text = value.to_string();
                (Column::extension(name, Extension::Json), Arc::new(BinaryArray::from(vec![text.as_bytes()])))
            }
            Self::Texts(texts) => {
                let mut list = ListBuilder::new(StringBuilder::new());
                list.append_value(texts.into_iter().map(Some));
                let item = Field::new_list_field(DataType::Utf8, true);
                (Column::new(name, DataType::List(Arc::new(item))), Arc::new(list.finish()))
            }
        }
    }

    fn json(self) -> Value {
        match self {
            Self::Text(text) => text.into(),
            Self::Number(number) => number.into(),
            Self::Texts(texts) => texts.into(),
            Self::Json(value) => value,
        }
    }
}
