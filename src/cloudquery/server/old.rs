//! What the destination services of versions 0 and 1 have in common.
//!
//! Their clients send the destination's whole spec, and leave to the plugin what newer ones do themselves: which write
//! mode it is, and which columns are the key. Here that is done to each table and record on the way, so that behind
//! this module nobody knows of it.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use prost_types::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Calls;
use super::served::Absent;
use super::status::{Failure, said};
use crate::cloudquery::table::columns::CQ_ID;
use crate::cloudquery::{Column, Table};

/// What a destination's spec says beside what is for the plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Modes {
    /// Whether tables may be made anew.
    pub(super) forced: bool,
    /// Whether rows are only ever added.
    append: bool,
    /// Whether `_cq_id` alone is the key.
    cq_id_only: bool,
}

/// The keys that count; there are others, such as `name` and `path`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Outer {
    write_mode: Option<String>,
    migrate_mode: Option<String>,
    pk_mode: Option<String>,
    batch_size: Option<Value>,
    batch_size_bytes: Option<Value>,
    spec: Option<Map<String, Value>>,
}

/// Takes a destination's spec apart, into what is done here and the plugin's own spec.
fn parse(config: &[u8]) -> Result<(Modes, Vec<u8>), String> {
    let outer: Option<Outer> = serde_json::from_slice(config).map_err(|error| format!("spec: {error}"))?;
    let outer = outer.unwrap_or_default();
    let one_of = |key: &str, value: Option<String>, known: &[&str]| {
        let value = value.filter(|value| !value.is_empty()).unwrap_or_else(|| known[0].to_owned());
        let is_known = known.contains(&value.as_str());
        if is_known { Ok(value) } else { Err(format!("spec: {key}: want one of {}, not {value:?}", known.join(", "))) }
    };
    let write = one_of("write_mode", outer.write_mode, &["overwrite-delete-stale", "overwrite", "append"])?;
    let migrate = one_of("migrate_mode", outer.migrate_mode, &["safe", "forced"])?;
    let keys = one_of("pk_mode", outer.pk_mode, &["default", "cq-id-only"])?;
    let modes = Modes { forced: migrate == "forced", append: write == "append", cq_id_only: keys == "cq-id-only" };
    let mut spec = outer.spec.unwrap_or_default();
    for (key, value) in [("batch_size", outer.batch_size), ("batch_size_bytes", outer.batch_size_bytes)] {
        if let Some(value) = value.filter(|value| value.as_f64().is_some_and(|number| number > 0.0)) {
            spec.insert(key.to_owned(), value);
        }
    }
    Ok((modes, Value::Object(spec).to_string().into_bytes()))
}

impl Modes {
    /// A table with the keys that these modes want.
    pub(super) fn table(self, mut table: Table) -> Table {
        let keyed = |column: Column| match (self.append, self.cq_id_only) {
            (true, _) => column.with_primary_key(false).with_unique(false),
            (false, true) => {
                let is_id = column.name() == CQ_ID;
                column.with_primary_key(is_id)
            }
            (false, false) => column,
        };
        table.columns = table.columns.into_iter().map(keyed).collect();
        table
    }

    /// The same for a record.
    pub(super) fn record(self, record: RecordBatch) -> Result<RecordBatch, Failure> {
        let failed = |error: &(dyn std::error::Error + 'static)| Failure::Record(said(error));
        let table = Table::from_schema(record.schema_ref()).map_err(|error| failed(&error))?;
        let schema = Arc::new(self.table(table).to_schema());
        RecordBatch::try_new(schema, record.columns().to_vec()).map_err(|error| failed(&error))
    }
}

/// What both services are: calls, and the modes of the last Configure.
pub(super) struct Old {
    pub(super) calls: Calls,
    modes: Mutex<Modes>,
}

impl Old {
    pub(super) fn new(calls: Calls) -> Self {
        Self { calls, modes: Mutex::default() }
    }

    pub(super) fn modes(&self) -> Modes {
        *self.modes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Configure: these versions' Init.
    pub(super) async fn configure(&self, config: &[u8]) -> Result<(), Failure> {
        let (modes, spec) = parse(config).map_err(Failure::Argument)?;
        self.calls.plugin.init(&spec, false, "").await?;
        *self.modes.lock().unwrap_or_else(PoisonError::into_inner) = modes;
        Ok(())
    }

    /// Makes the tables what they are said to be.
    pub(super) async fn migrate(&self, tables: Vec<Table>) -> Result<(), Failure> {
        let modes = self.modes();
        let mut writer = self.session()?.destination.writer();
        for table in tables {
            let done = writer.migrate(modes.table(table), modes.forced).await;
            done.map_err(|error| Failure::WriteEnd(said(&error)))?;
        }
        Ok(())
    }

    /// Deletes the rows of the tables that a source did not write again.
    pub(super) async fn delete_stale(
        &self,
        tables: Vec<Table>,
        source: &str,
        before: Option<Timestamp>,
    ) -> Result<(), Failure> {
        let mut writer = self.session()?.destination.writer();
        for table in tables {
            let done = writer.delete_stale(&table.name, source, before).await;
            done.map_err(|error| Failure::WriteEnd(said(&error)))?;
        }
        Ok(())
    }

    fn session(&self) -> Result<Arc<super::served::Session>, Failure> {
        self.calls.plugin.session().map_err(|absent: Absent| absent.or(Failure::WriteNothingBeforeInit))
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;

    #[test]
    fn the_plugin_s_spec_gets_the_batch_sizes_of_the_one_around_it() {
        let config = br#"{"name": "x", "path": "y", "write_mode": "append", "migrate_mode": "forced", "batch_size": 7,
            "batch_size_bytes": 0, "pk_mode": "", "spec": {"connection_string": "a.db"}}"#;
        let (modes, spec) = parse(config).expect("a spec");
        assert_eq!(modes, Modes { forced: true, append: true, cq_id_only: false });
        let spec: Value = serde_json::from_slice(&spec).expect("JSON");
        assert_eq!(spec, serde_json::json!({"connection_string": "a.db", "batch_size": 7}));
        assert_eq!(parse(b"null").expect("nothing").0, Modes::default());
        for (wrong, key) in [(&b"{\"pk_mode\": \"none\"}"[..], "pk_mode"), (b"[", "spec"), (b"{\"spec\": 1}", "spec")] {
            assert!(parse(wrong).expect_err("wrong").contains(key));
        }
    }

    #[test]
    fn modes_choose_the_key() {
        let column = |name: &str| Column::new(name, DataType::Int64);
        let table = Table::new("t", vec![column(CQ_ID).with_unique(true), column("id").with_primary_key(true)]);
        let key = |modes: Modes| modes.table(table.clone()).primary_key().join(" ");
        let modes = Modes::default();
        assert_eq!(key(modes), "id");
        assert_eq!(key(Modes { cq_id_only: true, ..modes }), CQ_ID);
        assert_eq!(key(Modes { append: true, ..modes }), "");
        let appended = Modes { append: true, ..modes }.table(table);
        assert!(!appended.columns[0].unique());
    }
}
