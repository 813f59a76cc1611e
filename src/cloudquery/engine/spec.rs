//! A specification, as it is meant: read by [`super::parse`], with every default in its place.

use std::num::NonZeroU32;

use serde_json::Value;

use crate::cloudquery::client::Address;

/// Everything that one file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// In the file's order; at least one.
    pub sources: Vec<SourceSpec>,
    /// In the file's order; at least one.
    pub destinations: Vec<DestinationSpec>,
}

/// Where a plugin comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registry {
    /// It runs already, there.
    Grpc(Address),
    /// A program, to be started.
    Local(std::path::PathBuf),
    /// Twinlite itself.
    Embedded,
}

/// What sources and destinations have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginSpec {
    /// Its name, unique among its kind.
    pub name: String,
    /// Where it comes from.
    pub registry: Registry,
    /// `path` as it was written; empty for an embedded one.
    pub path: String,
    /// `version` as it was written; it decides nothing here.
    pub version: String,
    /// Its own part, `null` where there is none.
    pub spec: Value,
}

/// Where a source keeps how far it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The table of the state.
    pub table_name: String,
    /// Where, mostly `@@plugins.NAME.connection`.
    pub connection: String,
}

/// `kind: source`.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceSpec {
    /// What all plugins have.
    pub plugin: PluginSpec,
    /// Globs of the tables wanted.
    pub tables: Vec<String>,
    /// Globs of the tables not wanted.
    pub skip_tables: Vec<String>,
    /// Whether only what `tables` names is synced, and not the tables below them.
    pub skip_dependent_tables: bool,
    /// The destinations' names.
    pub destinations: Vec<String>,
    /// Where its state is kept, if anywhere.
    pub backend: Option<Backend>,
    /// Whether `_cq_id` is made of the primary key.
    pub deterministic_cq_id: bool,
}

/// `kind: destination`.
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationSpec {
    /// What all plugins have.
    pub plugin: PluginSpec,
    /// How rows are written.
    pub write_mode: WriteMode,
    /// How tables are changed.
    pub migrate_mode: MigrateMode,
    /// What the primary key is.
    pub pk_mode: PkMode,
    /// The template of `_cq_sync_group_id`; empty for none.
    pub sync_group_id: String,
    /// Whether it gets a row about each sync.
    pub send_sync_summary: bool,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// Replace rows of the same key; afterwards delete what this sync did not write.
    OverwriteDeleteStale,
    /// Replace rows of the same key.
    Overwrite,
    /// Only add.
    Append,
}

/// How tables are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrateMode {
    /// Refuse what would lose something.
    Safe,
    /// Drop and create where nothing else helps.
    Forced,
}

/// What the primary key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PkMode {
    /// What the source says.
    Default,
    /// `_cq_id` alone.
    CqIdOnly,
}

/// One of several parts of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    number: NonZeroU32,
    total: NonZeroU32,
}

impl Shard {
    /// Part `number`, from 1, of `total`; nothing where there is no such part.
    pub fn new(number: u32, total: u32) -> Option<Self> {
        let in_range = number <= total && i32::try_from(total).is_ok();
        in_range.then_some(Self { number: NonZeroU32::new(number)?, total: NonZeroU32::new(total)? })
    }

    /// Which one, from 1.
    pub fn number(self) -> i32 {
        i32::try_from(self.number.get()).expect("`new` saw to it")
    }

    /// Of how many.
    pub fn total(self) -> i32 {
        i32::try_from(self.total.get()).expect("`new` saw to it")
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(number, total)| Some((number.parse().ok()?, total.parse().ok()?)));
        let shard = parts.and_then(|(number, total)| Self::new(number, total));
        shard.ok_or_else(|| "want NUMBER/TOTAL, the number from 1 to the total, as in 1/4".to_owned())
    }
}

impl Spec {
    /// A destination by its name.
    pub fn destination(&self, name: &str) -> Option<&DestinationSpec> {
        self.destinations.iter().find(|destination| destination.plugin.name == name)
    }
}

impl SourceSpec {
    /// What `_cq_source_name` says in rows of this source, or of a part of it.
    pub fn rows_say(&self, shard: Option<Shard>) -> String {
        let name = &self.plugin.name;
        shard.map_or_else(|| name.clone(), |shard| format!("{name}_{}_{}", shard.number, shard.total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_one_of_its_total() {
        for (text, wanted) in [("1/4", Some((1, 4))), ("4/4", Some((4, 4)))] {
            assert_eq!(text.parse().ok().map(|shard: Shard| (shard.number(), shard.total())), wanted, "{text}");
        }
        for text in ["0/4", "5/4", "1", "a/b", "1/0", "-1/2", "1/4294967295"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
