//! Opens a node's database for what its links do, and turns their config into settings.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::apply::{Applier, How, LinkRules, MergeRules, Policies, Policy, Recapture, SourceError};
use crate::capture::reader::LogReader;
use crate::capture::wake::Wake;
use crate::capture::{self, CaptureOptions, Installed, Maintainer};
use crate::config::{self, LinkConfig, NodeConfig};
use crate::migrate;
use crate::model::{Clock, Fault, NodeId, Selection};
use crate::replicate::backoff::Backoff;
use crate::replicate::copies::RangeBounds;
use crate::replicate::feed::{Feed, Shelf};
use crate::replicate::meeting::Seed;
use crate::replicate::sender::WindowShape;
use crate::replicate::session::LinkSettings;
use crate::sqlite::trigger_writes::{TriggerWrite, forbidden};
use crate::sqlite::{self, Db, Role};
use crate::telemetry::Board;

use super::Surroundings;

/// Bytes of a range of a copy at most: what is read in one go of some ten milliseconds.
pub(super) const RANGE_BYTES_MAX: usize = 4 << 20;

/// How long installing is tried beside an application that holds the write lock: a person waits at the terminal.
const INSTALL_TRIES_FOR: Duration = Duration::from_secs(15);

/// A node's database, opened.
pub struct Opened {
    /// The node's id.
    pub id: NodeId,
    /// The reader, where a link sends.
    pub feed: Option<Arc<Feed<LogReader>>>,
    /// The applier, where a link receives.
    pub applier: Option<Db<Applier>>,
    /// What setup did, where a link sends.
    pub installed: Option<Installed>,
    /// What tells of commits, where a link sends, and where to say so.
    pub wake: Option<(Wake, watch::Sender<u64>)>,
}

/// Opens the database. Installs the capture where a link sends; makes the file where a link only receives.
pub async fn open(config: &Arc<NodeConfig>, board: &Board, surroundings: &Surroundings) -> Result<Opened> {
    refuse_user_triggers(config)?;
    let receives = config.links.iter().any(|link| link.directions.receives());
    let applier = if receives {
        let path = config.database.clone();
        Some(Db::spawn("applier", move || Applier::open(&path, true))?)
    } else {
        None
    };
    if let Some(applier) = applier.as_ref().filter(|_| config.merges()) {
        forget_gone(config, applier, board).await?;
    }
    let mut opened = Opened { id: NodeId(0), feed: None, applier, installed: None, wake: None };
    if config.captures() {
        open_capture(config, board, surroundings, &mut opened).await?;
    }
    if let Some(applier) = &opened.applier {
        let merges = config.merges();
        let recapture = InThisDatabase { options: capture_options(config), clock: Arc::clone(&surroundings.clock) };
        let node = applier.call(move |applier| {
            if merges {
                applier.set_recapture(Box::new(recapture));
            }
            applier.conflicts().map(|conflicts| (applier.node(), conflicts))
        });
        let (id, conflicts) = node.await??;
        opened.id = id;
        board.set_conflicts(conflicts);
    }
    board.set_node(opened.id);
    Ok(opened)
}

/// Refuses a link that fires triggers which write what is captured, where what comes goes on to somebody: both ends would
/// write it, each again for what the other one sent. Looked at when the node starts; the applier notices one that is made
/// later, and halts the link.
fn refuse_user_triggers(config: &NodeConfig) -> Result<()> {
    let fires = |link: &&LinkConfig| link.user_triggers && link.directions.receives() && config.merges();
    if !config.database.exists() {
        return Ok(());
    }
    for link in config.links.iter().filter(fires) {
        refuse_triggers_of(config, link)?;
    }
    Ok(())
}

fn refuse_triggers_of(config: &NodeConfig, link: &LinkConfig) -> Result<()> {
    let mut connection = sqlite::open(&config.database, Role::Application, false)?;
    let captured = config.selection();
    let found = forbidden(&mut connection, &link.selection(), &|table| captured.has(table))?;
    let Some(TriggerWrite { trigger, writes }) = found else { return Ok(()) };
    let link = &link.name;
    anyhow::bail!(
        "link \"{link}\": user_triggers: on, but trigger \"{trigger}\" writes into table \"{writes}\", \
         which is captured: both ends would write it, once by the trigger and once by the link; leave user_triggers off, \
         drop the trigger, or leave \"{writes}\" out by skip_tables"
    )
}

/// Forgets peers from which no link receives any more, amid their copies: those would never end.
async fn forget_gone(config: &NodeConfig, applier: &Db<Applier>, board: &Board) -> Result<()> {
    let receiving = config.links.iter().filter(|link| link.directions.receives());
    let names: Vec<String> = receiving.map(|link| link.name.clone()).collect();
    for peer in applier.call(move |applier| applier.forget_all_but(&names)).await?? {
        let note = format!(
            "no link receives from \"{peer}\" any more, and a copy of its tables into this database had not ended: how far \
             it went is forgotten, what came of it stays; if the link returns, all its tables are copied again, or it asks for \
             `seed` first"
        );
        tracing::warn!("{note}");
        board.note(note);
    }
    Ok(())
}

async fn open_capture(
    config: &Arc<NodeConfig>,
    board: &Board,
    surroundings: &Surroundings,
    opened: &mut Opened,
) -> Result<()> {
    let (path, options, clock) = (config.database.clone(), capture_options(config), Arc::clone(&surroundings.clock));
    let maintainer = Db::spawn("maintainer", move || Maintainer::open(&path, options, clock))?;
    let installed = install(&maintainer).await?;
    for line in &installed.did {
        tracing::info!("{line}");
    }
    for table in &installed.skipped {
        tracing::warn!(table = table.name, reason = table.reason, "table is not replicated");
    }
    opened.id = installed.node;
    opened.installed = Some(installed);
    let reads = Arc::new(AtomicU64::new(0));
    let (path, spool_dir, counted) = (config.database.clone(), config.spool_folder(), Arc::clone(&reads));
    let shelf =
        Db::spawn("reader", move || LogReader::open(&path).map(|reader| Shelf::new(reader, spool_dir, counted)))?;
    let wake = Wake::new(&config.database).context("watch the database's folder")?;
    let (changed, ticks) = watch::channel(0);
    opened.wake = Some((wake, changed));
    let feed = Feed::new((shelf, maintainer), ticks, reads, board.clone());
    feed.show_captured().await?;
    opened.feed = Some(Arc::new(feed));
    Ok(())
}

/// Installs the capture. An application that writes without a pause may keep the lock from us for a while.
async fn install(maintainer: &Db<Maintainer>) -> Result<Installed> {
    let mut backoff = Backoff::default();
    let begun = Instant::now();
    loop {
        match maintainer.call(Maintainer::install).await? {
            Err(error) if error.fault() == Fault::Retry && begun.elapsed() < INSTALL_TRIES_FOR => {
                tracing::debug!(error = &error as &dyn std::error::Error, "install the capture: try again");
                sleep(backoff.next_wait()).await;
            }
            installed => return Ok(installed?),
        }
    }
}

/// What the config says of capture.
pub fn capture_options(config: &NodeConfig) -> CaptureOptions {
    let retention = config.capture.retention;
    CaptureOptions {
        selection: config.selection(),
        images: match config.capture.images {
            config::Images::Key => capture::Images::Key,
            config::Images::Full => capture::Images::Full,
        },
        change_images: false,
        images_if_new: config.capture.images_if_new,
        log_table: config.capture.log_table.clone(),
        two_way: config.merges(),
        keep_all: config.merges() && config.links.iter().any(|link| !link.directions.sends()),
        retention: capture::Retention { age: retention.age, rows: retention.rows, size_bytes: retention.size_bytes },
    }
}

/// What the config says of a link.
pub fn link_settings(config: &NodeConfig, link: &LinkConfig, our_id: NodeId) -> LinkSettings {
    let kinds = link.schema_kinds();
    let compression = match link.compression {
        config::Compression::Auto => None,
        config::Compression::None => Some(crate::codec::Compression::None),
        config::Compression::Lz4 => Some(crate::codec::Compression::Lz4),
        config::Compression::Zstd => Some(crate::codec::Compression::Zstd),
    };
    let both = link.directions.sends() && link.directions.receives();
    LinkSettings {
        our_name: config.name.clone(),
        our_id,
        database: config.database.display().to_string(),
        peer_name: link.name.clone(),
        shape: WindowShape {
            selection: Arc::new(link.selection()),
            kinds,
            window_rows: (!both).then_some(config.window_rows),
            batch_rows: config.batch_size,
            batch_bytes: config.batch_size_bytes,
            compression: crate::codec::Compression::None,
            bounds: RangeBounds { rows_max: config.snapshot_rows, bytes_max: RANGE_BYTES_MAX },
        },
        compression,
        rules: Arc::new(LinkRules {
            mode: match link.migrate_mode() {
                config::MigrateMode::Safe => migrate::Mode::Safe,
                config::MigrateMode::Forced => migrate::Mode::Forced,
            },
            kinds,
            selection: link.selection(),
            protect: link.protect,
            user_triggers: link.user_triggers,
            adopt: config.merges(),
            merge: config.merges().then(|| merge_rules(config, link)),
        }),
        policies: policy_words(link),
        seed: link.seed.as_ref().map(seed),
        resnapshot_on_divergence: link.on_divergence == config::OnDivergence::Resnapshot,
        spool_dir: config.spool_folder(),
        peers_log_here: false,
    }
}

/// Where changes are merged: who wins, and whether they go on to others.
fn merge_rules(config: &NodeConfig, link: &LinkConfig) -> MergeRules {
    let policy = |found: &config::Policy| match found {
        config::Policy::LastWriteWins => Policy::LastWriteWins,
        config::Policy::Prefer(name) => Policy::Prefer { name: name.clone(), ours: *name == config.name },
    };
    let of_tables = |(glob, found): (&String, &config::Policy)| {
        let tables = Selection::new(std::slice::from_ref(glob), &[]).expect("globs were validated");
        (tables, policy(found))
    };
    MergeRules {
        our_name: config.name.clone(),
        forwards: config.links.len() > 1,
        one_way: !link.directions.sends(),
        policies: Policies {
            default: policy(&link.policy),
            tables: link.policy_tables.iter().map(of_tables).collect(),
        },
        clock_skew_max_ms: i64::try_from(link.max_clock_skew.as_millis()).unwrap_or(i64::MAX),
    }
}

/// The policies of a link in words that are the same at both ends.
fn policy_words(link: &LinkConfig) -> String {
    let word = |found: &config::Policy| match found {
        config::Policy::LastWriteWins => "last_write_wins".to_owned(),
        config::Policy::Prefer(name) => format!("prefer {name}"),
    };
    let tables = link.policy_tables.iter().map(|(glob, found)| format!("; {glob}: {}", word(found)));
    format!("{}{}", word(&link.policy), tables.collect::<String>())
}

fn seed(found: &config::Seed) -> Seed {
    match found {
        config::Seed::Node(winner) => Seed { winner: winner.clone(), how: How::Replace },
        config::Seed::Merge { prefer } => Seed { winner: prefer.clone(), how: How::Union },
    }
}

/// Puts the capture of a node's database right inside its applier's transactions.
struct InThisDatabase {
    options: CaptureOptions,
    clock: Arc<dyn Clock>,
}

impl Recapture for InThisDatabase {
    fn recapture(&mut self, conn: &rusqlite::Connection, ours: bool) -> Result<(), SourceError> {
        tell(&capture::recapture(conn, &self.options, &*self.clock, ours)?);
        Ok(())
    }

    fn recapture_ahead(&mut self, conn: &mut rusqlite::Connection) -> Result<(), SourceError> {
        tell(&capture::reconcile(conn, &self.options, &*self.clock)?);
        Ok(())
    }
}

fn tell(reconciled: &capture::Reconciled) {
    for note in &reconciled.notes {
        tracing::info!("{note}");
    }
}
