//! What can be typed.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::Usage;
use super::cdc::Cdc;
use super::consumers::Consumers;
use crate::admin::SetupRequest;
use crate::cloudquery::engine::Shard;
use crate::config::{Config, MigrateMode, NodeConfig};
use crate::model::Selection;

/// Live replication of SQLite databases, one way or both ways.
#[derive(Debug, Parser)]
#[command(name = "twinlite", version, max_term_width = 110, propagate_version = true)]
#[command(after_help = "Exit codes: 0 done; 1 failed; 2 usage or configuration; 3 ran and found something.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How results are printed (to stdout).
    // Text, because `cdc` has an argument of this name that is something else.
    #[arg(short, long, global = true, value_parser = ["table", "json"], default_value = "table", value_name = "FORM")]
    pub output: String,
    /// What is logged (to stderr): error, warn, info, debug, trace, or a filter; goes before the configuration's.
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

impl Cli {
    /// How results are printed.
    pub fn form(&self) -> Output {
        if self.output == "json" { Output::Json } else { Output::Table }
    }
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copy a database into another one and keep it equal, in one process.
    Replicate(Replicate),
    /// Run the node (or nodes) of a configuration.
    Run(Run),
    /// Print every object and statement that `setup` would make; change nothing.
    Plan(Setup),
    /// Install capture in a database.
    Setup(Setup),
    /// Remove everything of Twinlite's from a database.
    Teardown(Teardown),
    /// Run a schema change without a gap in what is captured.
    Ddl(Ddl),
    /// Copy tables again, by digest: only what differs travels.
    Resync(Resync),
    /// Look at what lost where both ends had changed a row, and settle it.
    Conflicts(Conflicts),
    /// Make a sample database: a shop.
    Sample(Sample),
    /// Serve CloudQuery's plugin protocol: a destination, and a source, for SQLite databases.
    Serve(Serve),
    /// Say how a node is doing; exit code 3 if it is unhealthy.
    Status(Status),
    /// Find what is wrong, or risky, about databases, and change nothing; exit code 3 if replication cannot work.
    Doctor(Doctor),
    /// Sync CloudQuery sources into CloudQuery destinations, once.
    Sync(Sync),
    /// Say every change of a database as an event: to stdout, or to a URL.
    Cdc(Cdc),
    /// See who reads a database's change log, and drop who does not come back.
    Consumers(Consumers),
}

/// `twinlite replicate`.
#[derive(Clone, Debug, Args)]
pub struct Replicate {
    /// The database to copy from.
    #[arg(value_name = "SRC.db")]
    pub source: PathBuf,
    /// The database to keep equal to it; made if it is not there.
    #[arg(value_name = "DST.db")]
    pub replica: PathBuf,
    /// Only tables that match (may be repeated).
    #[arg(long, value_name = "GLOB")]
    pub tables: Vec<String>,
    /// No tables that match (may be repeated).
    #[arg(long, value_name = "GLOB")]
    pub skip_tables: Vec<String>,
    /// End when the replica has what the source had when the copy was complete.
    #[arg(long)]
    pub once: bool,
    /// Compare both afterwards, by digest.
    #[arg(long, requires = "once")]
    pub verify: bool,
    /// What to do with schema changes that could lose something: forced, and with --two-way safe, unless said.
    #[arg(long, value_enum, value_name = "MODE")]
    pub migrate_mode: Option<Mode>,
    /// Both take writes: changes of each go to the other, conflicts are settled and kept.
    #[arg(long)]
    pub two_way: bool,
    /// Whose rows win at the first contact of two databases that both hold some; `merge` keeps what only one has.
    #[arg(long, value_enum, requires = "two_way", value_name = "WHO")]
    pub seed: Option<SeedChoice>,
    /// With `--seed merge`: whose rows win where both have one.
    #[arg(long, value_parser = ["a", "b"], requires = "two_way", value_name = "WHO")]
    pub seed_prefer: Option<String>,
}

/// One of the two databases of `replicate --two-way`, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SeedChoice {
    /// The first.
    A,
    /// The second.
    B,
    /// What either has stays.
    Merge,
}

/// What to do with schema changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Refuse what could lose something, and halt.
    Safe,
    /// Follow the source.
    Forced,
}

impl From<Mode> for MigrateMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Safe => Self::Safe,
            Mode::Forced => Self::Forced,
        }
    }
}

/// `twinlite run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// The database that a command is for.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Target {
    /// The database itself.
    #[arg(long, value_name = "FILE")]
    pub db: Option<PathBuf>,
    /// A configuration that names it (or several).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Target {
    /// The nodes that are meant: those of the configuration, or one with every default for the file.
    ///
    /// # Errors
    /// The configuration's faults.
    pub fn nodes(&self) -> anyhow::Result<Vec<NodeConfig>> {
        match (&self.db, &self.config) {
            (Some(database), _) => Ok(vec![NodeConfig::defaults(name_of(database), database)]),
            (None, Some(path)) => Ok(self::config(path)?.nodes),
            (None, None) => Err(Usage("name the database: --db FILE or --config FILE".to_owned()).into()),
        }
    }
}

/// Which tables the globs of the command line mean.
///
/// # Errors
/// [`Usage`], where one is none.
pub fn selection(tables: &[String], skip_tables: &[String]) -> Result<Selection, Usage> {
    Selection::new(tables, skip_tables).map_err(|error| Usage(format!("--tables, --skip-tables: {error}")))
}

/// What a database is called whose node nobody named.
fn name_of(database: &Path) -> String {
    database.file_stem().map_or_else(|| "node".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Reads a configuration for a command.
///
/// # Errors
/// Its faults.
pub fn config(path: &Path) -> anyhow::Result<Config> {
    Ok(crate::config::load(path)?)
}

/// `twinlite plan` and `twinlite setup`.
#[derive(Clone, Debug, Args)]
pub struct Setup {
    /// The database.
    #[command(flatten)]
    pub target: Target,
    /// Only tables that match (may be repeated).
    #[arg(long, value_name = "GLOB")]
    pub tables: Vec<String>,
    /// No tables that match (may be repeated).
    #[arg(long, value_name = "GLOB")]
    pub skip_tables: Vec<String>,
    /// What a log entry carries besides the key.
    #[arg(long, value_name = "IMAGES", value_parser = ["key", "full"])]
    pub images: Option<String>,
    /// The change log's name; begins with __cdc_.
    #[arg(long, value_name = "NAME")]
    pub log_table: Option<String>,
    /// Take the place of sqlite-cdc, and keep what is in its log for the first event consumer.
    #[arg(long)]
    pub take_over: bool,
}

impl Setup {
    /// What is wanted otherwise than it is, as the owner is asked for it.
    pub fn request(&self) -> SetupRequest {
        let given = |globs: &Vec<String>| (!globs.is_empty()).then(|| globs.clone());
        SetupRequest {
            tables: given(&self.tables),
            skip_tables: given(&self.skip_tables),
            images: self.images.clone(),
            change_images: self.images.is_some(),
            log_table: self.log_table.clone(),
            take_over: self.take_over,
        }
    }
}

/// `twinlite teardown`.
#[derive(Clone, Debug, Args)]
pub struct Teardown {
    /// The database.
    #[command(flatten)]
    pub target: Target,
}

/// `twinlite ddl`.
#[derive(Clone, Debug, Args)]
pub struct Ddl {
    /// The database.
    #[command(flatten)]
    pub target: Target,
    /// The script; - reads stdin.
    #[arg(value_name = "FILE.sql")]
    pub script: PathBuf,
}

/// `twinlite resync`.
#[derive(Clone, Debug, Args)]
pub struct Resync {
    /// The database.
    #[command(flatten)]
    pub target: Target,
    /// The tables; all where none is named.
    #[arg(value_name = "TABLE")]
    pub tables: Vec<String>,
}

/// `twinlite conflicts`.
#[derive(Clone, Debug, Args)]
pub struct Conflicts {
    /// What to do.
    #[command(subcommand)]
    pub what: ConflictsCommand,
}

/// `twinlite conflicts …`.
#[derive(Clone, Debug, Subcommand)]
pub enum ConflictsCommand {
    /// Print all of them, the oldest first.
    List(ConflictsList),
    /// Print one, with the row that lost.
    Show(ConflictsOne),
    /// Let the loser win after all: an ordinary change, which replicates.
    Apply(ConflictsOne),
    /// Forget some, or all.
    Drop(ConflictsDrop),
}

/// `twinlite conflicts list`.
#[derive(Clone, Debug, Args)]
pub struct ConflictsList {
    /// The database.
    #[command(flatten)]
    pub target: Target,
}

/// `twinlite conflicts show` and `apply`.
#[derive(Clone, Debug, Args)]
pub struct ConflictsOne {
    /// The conflict's id, as `list` prints it.
    #[arg(value_name = "ID")]
    pub id: i64,
    /// The database.
    #[command(flatten)]
    pub target: Target,
}

/// `twinlite conflicts drop`.
#[derive(Clone, Debug, Args)]
pub struct ConflictsDrop {
    /// Their ids, as `list` prints them.
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    pub ids: Vec<i64>,
    /// All that are recorded.
    #[arg(long)]
    pub all: bool,
    /// The database.
    #[command(flatten)]
    pub target: Target,
}

/// `twinlite sample`.
#[derive(Clone, Debug, Args)]
pub struct Sample {
    /// The database to make.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How large, about: bytes, or as in 20MB, 1GiB.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub size: u64,
    /// The same seed makes the same rows.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// `twinlite serve`: the flags that CloudQuery's CLI passes to a plugin, and a few of ours.
#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// Where to listen: host:port, or the path of a unix socket.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7777")]
    pub address: String,
    /// What kind of address that is.
    #[arg(long, value_enum, default_value = "tcp", value_name = "NETWORK")]
    pub network: Network,
    /// How log lines look (on stdout).
    #[arg(long, value_enum, default_value = "text", value_name = "FORM")]
    pub log_format: LogForm,
    /// Clients may name only databases below this folder; relative paths begin there.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Accepted and ignored: no traces are exported.
    #[arg(long, value_name = "URL", hide = true)]
    pub otel_endpoint: Option<String>,
    /// Accepted and ignored.
    #[arg(long, hide = true)]
    pub otel_endpoint_insecure: bool,
    /// Accepted and ignored: nothing is ever reported to anybody.
    #[arg(long, hide = true)]
    pub no_sentry: bool,
    /// Accepted and ignored: there is nothing to license.
    #[arg(long, value_name = "FILE", hide = true)]
    pub license: Option<PathBuf>,
}

/// What kind of address `serve` listens at, as Go calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "Go's words")]
pub enum Network {
    Tcp,
    Tcp4,
    Tcp6,
    Unix,
    Unixpacket,
}

/// How `serve` writes its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    /// For people.
    Text,
    /// For CloudQuery's CLI.
    Json,
}

/// `twinlite status`.
#[derive(Clone, Debug, Args)]
pub struct Status {
    /// The database.
    #[command(flatten)]
    pub target: Target,
}

/// `twinlite doctor`.
#[derive(Clone, Debug, Args)]
pub struct Doctor {
    /// The databases; several are also compared with each other.
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "config")]
    pub db: Vec<PathBuf>,
    /// A configuration: its databases, with what it says of them.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Look for what is risky where both sides take writes, too.
    #[arg(long)]
    pub two_way: bool,
    /// Read all rows of large databases, and take the time that it takes.
    #[arg(long)]
    pub deep: bool,
}

/// `twinlite sync`.
#[derive(Clone, Debug, Args)]
pub struct Sync {
    /// The specification: YAML documents of `kind: source` and `kind: destination`.
    #[arg(value_name = "SPEC.yaml")]
    pub spec: PathBuf,
    /// Sync only part N of M of each source.
    #[arg(long, value_name = "N/M")]
    pub shard: Option<Shard>,
    /// Take the destinations' tables as they are.
    #[arg(long)]
    pub no_migrate: bool,
    /// Append a line of JSON about each source and destination.
    #[arg(long, value_name = "FILE")]
    pub summary_location: Option<PathBuf>,
    /// The run's id, for plugins' logs and {{SYNC_ID}}; a new one where none is given.
    #[arg(long, value_name = "ID")]
    pub invocation_id: Option<String>,
    /// Make _cq_sync_time and _cq_source_name NOT NULL.
    #[arg(long, hide = true)]
    pub cq_columns_not_null: bool,
}

fn size(text: &str) -> Result<u64, String> {
    crate::config::size(text).ok_or_else(|| "want bytes, or a size such as 20MB or 1GiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_holds_together() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_are_typed_as_documented() {
        for line in [
            "twinlite replicate a.db b.db --tables a* --tables b* --skip-tables c --once --verify --migrate-mode safe",
            "twinlite run --config x.yaml --log-level debug",
            "twinlite plan --db a.db --images full",
            "twinlite setup --config x.yaml --take-over",
            "twinlite ddl --db a.db change.sql",
            "twinlite resync --db a.db orders lines",
            "twinlite conflicts list --db a.db -o json",
            "twinlite conflicts show 3 --config x.yaml",
            "twinlite conflicts apply 3 --db a.db",
            "twinlite conflicts drop 3 4 --db a.db",
            "twinlite conflicts drop --all --db a.db",
            "twinlite sample shop.db --size 20MB",
            "twinlite status --db a.db -o json",
            "twinlite doctor --db a.db b.db --two-way --deep -o json",
            "twinlite doctor --config x.yaml --db a.db --db b.db",
            "twinlite sync spec.yaml --shard 1/4 --no-migrate --summary-location s.jsonl --invocation-id x -o json",
            "twinlite serve --log-level info --log-format json --network unix --address /tmp/cq-x.sock --no-sentry --license f --otel-endpoint e --otel-endpoint-insecure",
            "twinlite serve --network unixpacket --root /data",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).expect_err("an error"));
        }
    }

    #[test]
    fn what_is_missing_or_contradicts_is_a_usage_error() {
        for line in [
            "twinlite status",
            "twinlite doctor --two-way",
            "twinlite status --db a.db --config x.yaml",
            "twinlite replicate a.db",
            "twinlite replicate a.db b.db --verify",
            "twinlite replicate a.db b.db --two-way --seed merge --seed-prefer merge",
            "twinlite sample shop.db --size big",
            "twinlite conflicts drop --db a.db",
            "twinlite conflicts drop 3 --all --db a.db",
            "twinlite conflicts show --db a.db",
            "twinlite conflicts list",
            "twinlite sync",
            "twinlite sync spec.yaml --shard 5/4",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }
}
