//! What a configuration says, once it is read: plain structs with their units and defaults.
//!
//! A value here was validated by [`super::load()`]; nothing half-valid travels on. Built by hand, the same promises are the
//! builder's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::events::EventsConfig;
use crate::model::{SchemaKinds, Selection};

/// The name of the change log where none is configured.
pub const LOG_TABLE: &str = "__cdc_log";

/// A configuration file, read: one node or several in one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The nodes; at least one.
    pub nodes: Vec<NodeConfig>,
    /// What is logged, and how.
    pub log: LogConfig,
}

/// Log lines, always to stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,twinlite::link=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the file")]
pub enum LogFormat {
    Text,
    Json,
}

/// One node: what owns replication for one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its name; its peers know it by this name.
    pub name: String,
    /// The database's file, from `spec.connection_string`.
    pub database: PathBuf,
    /// Where peers may dial: `host:port` or `unix:/path`. `None`: this node only dials.
    pub listen: Option<String>,
    /// Globs of the tables that are captured.
    pub tables: Vec<String>,
    /// Globs of the tables that are not, whatever `tables` says.
    pub skip_tables: Vec<String>,
    /// How changes are captured.
    pub capture: CaptureConfig,
    /// Rows in an Arrow batch at most.
    pub batch_size: usize,
    /// Bytes in an Arrow batch at most; a larger row has a batch of its own.
    pub batch_size_bytes: usize,
    /// Changes in a window at most, on one-way links; a larger transaction is split.
    pub window_rows: usize,
    /// Rows in a range of a copy at most.
    pub snapshot_rows: usize,
    /// How long a shutdown waits for the transaction at hand.
    pub grace: Duration,
    /// The links to its peers.
    pub links: Vec<LinkConfig>,
    /// The outputs of events.
    pub events: Vec<EventsConfig>,
    /// Where `/status.json`, `/live` and `/ready` are served: `host:port`. `None`: nowhere.
    pub admin_listen: Option<String>,
    /// Where CloudQuery's plugin protocol is served. `None`: nowhere.
    pub cloudquery_listen: Option<String>,
    /// Where windows that do not fit into memory wait. `None`: beside the database.
    pub spool_dir: Option<PathBuf>,
    /// Whether the operator said that listening beyond loopback in plain text is meant.
    pub insecure: bool,
}

impl NodeConfig {
    /// A node with every default and no links.
    pub fn defaults(name: impl Into<String>, database: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            database: database.into(),
            listen: None,
            tables: vec!["*".to_owned()],
            skip_tables: Vec::new(),
            capture: CaptureConfig::default(),
            batch_size: 10_000,
            batch_size_bytes: 10 << 20,
            window_rows: 100_000,
            snapshot_rows: 10_000,
            grace: Duration::from_secs(10),
            links: Vec::new(),
            events: Vec::new(),
            admin_listen: None,
            cloudquery_listen: None,
            spool_dir: None,
            insecure: false,
        }
    }

    /// The tables that are captured.
    ///
    /// # Panics
    /// If a glob was put here that [`super::load()`] would have refused.
    pub fn selection(&self) -> Selection {
        Selection::new(&self.tables, &self.skip_tables).expect("globs were validated")
    }

    /// Whether any link sends or any output wants events, so that the database has to be captured.
    pub fn captures(&self) -> bool {
        !self.events.is_empty() || self.sends()
    }

    /// Whether any link sends.
    pub fn sends(&self) -> bool {
        self.links.iter().any(|link| link.directions.sends())
    }

    /// Whether changes of peers are merged here: they come, and what is here goes to somebody too.
    pub fn merges(&self) -> bool {
        self.sends() && self.links.iter().any(|link| link.directions.receives())
    }

    /// Where windows that do not fit into memory wait.
    pub fn spool_folder(&self) -> PathBuf {
        let beside = || self.database.parent().filter(|folder| !folder.as_os_str().is_empty());
        self.spool_dir.clone().or_else(|| beside().map(PathBuf::from)).unwrap_or_else(|| PathBuf::from("."))
    }
}

/// How changes are captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureConfig {
    /// What a log entry carries besides the key.
    pub images: Images,
    /// Whether that was left out, so that it is for a new log alone.
    pub images_if_new: bool,
    /// What bounds the log while a consumer is away.
    pub retention: Retention,
    /// The log's name; it begins with `__cdc_`.
    pub log_table: String,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        let (images, log_table) = (Images::Key, LOG_TABLE.to_owned());
        Self { images, images_if_new: true, retention: Retention::default(), log_table }
    }
}

/// What a log entry carries besides the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Images {
    /// Nothing: links read the row as it is.
    Key,
    /// The row before and after, for events.
    Full,
}

/// What bounds the log while a consumer is away. Whatever comes first; that consumer is then copied again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The age of its oldest entry.
    pub age: Duration,
    /// Its entries.
    pub rows: u64,
    /// Its bytes.
    pub size_bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(7 * 86_400), rows: 10_000_000, size_bytes: 1 << 30 }
    }
}

/// Which way changes go on a link, seen from the node whose file says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the file")]
pub enum Directions {
    Send,
    Receive,
    Both,
}

impl Directions {
    /// Whether ours go to the peer.
    pub fn sends(self) -> bool {
        match self {
            Self::Send | Self::Both => true,
            Self::Receive => false,
        }
    }

    /// Whether the peer's come here.
    pub fn receives(self) -> bool {
        match self {
            Self::Receive | Self::Both => true,
            Self::Send => false,
        }
    }
}

/// How Arrow buffers are compressed on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the file")]
pub enum Compression {
    /// LZ4 to another host, none on this one.
    Auto,
    None,
    Lz4,
    Zstd,
}

/// What we do with the peer's schema changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrateMode {
    /// What could lose something is refused; the link halts and says why.
    Safe,
    /// The replica's tables become what the source's are.
    Forced,
}

/// What a link does when its checkpoint is not in the source's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDivergence {
    /// It halts and says so.
    Halt,
    /// It copies everything again, by digest.
    Resnapshot,
}

/// What becomes of a value that a CloudQuery column cannot hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum OnTypeMismatch {
    /// The link halts, or the sync fails, naming table, key and column.
    #[default]
    Error,
    /// It goes as text where the column takes text or bytes.
    Text,
    /// It goes as NULL.
    Null,
}

/// Who wins a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The higher version.
    LastWriteWins,
    /// That end of the link.
    Prefer(String),
}

/// What happens at the first contact of two full databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seed {
    /// That node's content wins.
    Node(String),
    /// Rows of both stay; where they differ, that node's win.
    Merge {
        /// `seed_prefer`.
        prefer: String,
    },
}

/// One link to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// The peer node's name.
    pub name: String,
    /// Where it is: `host:port` or `unix:/path`. `None`: it dials us.
    pub peer: Option<String>,
    /// A CloudQuery destination in place of a node.
    pub cloudquery: Option<String>,
    /// Its own spec, as JSON: what Init gives it. `None`: nothing.
    pub cloudquery_spec: Option<String>,
    /// For a CloudQuery destination.
    pub on_type_mismatch: OnTypeMismatch,
    /// Which way changes go.
    pub directions: Directions,
    /// Globs of this node's tables that go with it.
    pub tables: Vec<String>,
    /// How batches are compressed.
    pub compression: Compression,
    /// What we do with the peer's schema changes; see [`Self::migrate_mode`] for what holds where it is not said.
    pub migrate_mode: Option<MigrateMode>,
    /// Which schema objects travel besides tables; see [`Self::schema_kinds`] for what holds where it is not said.
    pub schema: Option<SchemaKinds>,
    /// What happens when our checkpoint is not in the source's log.
    pub on_divergence: OnDivergence,
    /// Whether applications' writes into what is received are refused.
    pub protect: bool,
    /// Whether user triggers fire on what is applied.
    pub user_triggers: bool,
    /// Who wins a conflict.
    pub policy: Policy,
    /// The same for some tables, by glob.
    pub policy_tables: BTreeMap<String, Policy>,
    /// How far ahead of our clock a peer's may be.
    pub max_clock_skew: Duration,
    /// What happens at the first contact of two full databases. `None`: the link halts and says so.
    pub seed: Option<Seed>,
}

impl LinkConfig {
    /// A link with every default.
    pub fn defaults(name: impl Into<String>, directions: Directions) -> Self {
        Self {
            name: name.into(),
            peer: None,
            cloudquery: None,
            cloudquery_spec: None,
            on_type_mismatch: OnTypeMismatch::Error,
            directions,
            tables: vec!["*".to_owned()],
            compression: Compression::Auto,
            migrate_mode: None,
            schema: None,
            on_divergence: OnDivergence::Halt,
            protect: false,
            user_triggers: false,
            policy: Policy::LastWriteWins,
            policy_tables: BTreeMap::new(),
            max_clock_skew: Duration::from_secs(60),
            seed: None,
        }
    }

    /// The tables that go with it.
    ///
    /// # Panics
    /// If a glob was put here that [`super::load()`] would have refused.
    pub fn selection(&self) -> Selection {
        Selection::new(&self.tables, &[]).expect("globs were validated")
    }

    /// What we do with the peer's schema changes: a mirror follows its source whatever it does, a node that holds
    /// something of its own refuses what could lose it.
    pub fn migrate_mode(&self) -> MigrateMode {
        let by_direction = match self.directions {
            // There the default is the protocol's.
            Directions::Send if self.cloudquery.is_some() => MigrateMode::Safe,
            Directions::Send | Directions::Receive => MigrateMode::Forced,
            Directions::Both => MigrateMode::Safe,
        };
        self.migrate_mode.unwrap_or(by_direction)
    }

    /// Which schema objects travel besides tables: all one way; both ways no triggers, for both ends would fire them.
    pub fn schema_kinds(&self) -> SchemaKinds {
        let by_direction = match self.directions {
            Directions::Send | Directions::Receive => SchemaKinds::ALL,
            Directions::Both => SchemaKinds { triggers: false, ..SchemaKinds::ALL },
        };
        self.schema.unwrap_or(by_direction)
    }
}
