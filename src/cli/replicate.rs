//! `twinlite replicate SRC DST`: both halves in one process, joined by the real link over a private socket.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::args::Replicate;
use super::progress::Progress;
use super::run::start_again;
use super::signal::Stop;
use super::target::check_globs;
use super::{Outcome, Usage};
use crate::admin::Owner;
use crate::config::{Directions, LinkConfig, NodeConfig, Retention};
use crate::model::Trouble;
use crate::node::{Ended, Node, Surroundings};
use crate::replicate::HALTED;
use crate::replicate::verify::{self, TRIES_MAX, TRY_WAIT, Verdict};
use crate::sqlite::{self, Role};
use crate::telemetry::{Board, Direction, LinkReport, LinkState, StatusReport};

/// How long `--once` waits for a failure to pass (a full disk, a lock that is held): it is for scripts, which rather know.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// How often it looks in that time.
const STUCK_LOOKS: u32 = 12;

/// What the two nodes are called, to each other and in `status`.
const SOURCE: &str = "source";
const REPLICA: &str = "replica";

/// Runs until Ctrl-C, or with `--once` until the replica is where the source was when the copy was finished.
///
/// # Errors
/// Whatever stands in the way, said once.
pub async fn run(args: &Replicate) -> Result<Outcome> {
    let mut stop = Stop::listen()?;
    super::args::selection(&args.tables, &args.skip_tables)?;
    check_files(args)?;
    super::two_way::seed(args).map_err(|error| Usage(error.to_string()))?;
    let folder = tempfile::tempdir().context("make a private folder for the link's socket")?;
    let socket = format!("unix:{}", folder.path().join("link.sock").display());
    if args.two_way {
        return super::two_way::run(args, &socket, &mut stop).await;
    }
    let mut replaced = None;
    loop {
        let start = async || Pair::start(args, &socket).await;
        let Some(pair) = start_again(replaced.take(), start, stop.wait()).await? else { return Ok(Outcome::Done) };
        match pair.run(args, &mut stop).await? {
            Watched::Outcome(outcome) => return Ok(outcome),
            Watched::Again(why) => tracing::warn!("{why}"),
        }
        replaced = Some(Instant::now());
    }
}

/// How watching a pair ended.
pub(super) enum Watched {
    Outcome(Outcome),
    /// Both are to be opened anew, and this is why.
    Again(&'static str),
}

struct Pair {
    source: Node,
    replica: Node,
}

impl Pair {
    async fn start(args: &Replicate, socket: &str) -> Result<Self> {
        // One token for both: of two that are cancelled one after the other, the first to end its half would look to the
        // other like a peer that is lost.
        let stop = Some(CancellationToken::new());
        let surroundings = Surroundings { peers_log_here: true, stop, ..Surroundings::default() };
        let source = Node::start(source_config(args, socket), &surroundings).await.context("source")?;
        match Node::start(replica_config(args, socket), &surroundings).await.context("replica") {
            Ok(replica) => Ok(Self { source, replica }),
            Err(error) => {
                source.stop().await;
                Err(error)
            }
        }
    }

    /// Runs until it ends by itself or is stopped, and then stops both.
    async fn run(self, args: &Replicate, stop: &mut Stop) -> Result<Watched> {
        let outcome = self.watch(args, stop).await;
        let captured = self.source.ended_because().is_none();
        let Self { source, replica } = self;
        tokio::join!(replica.stop(), source.stop());
        if captured && !matches!(outcome, Ok(Watched::Again(_))) {
            farewell(&args.source, &Retention::default());
        }
        outcome
    }

    async fn watch(&self, args: &Replicate, stop: &mut Stop) -> Result<Watched> {
        let progress = Progress::start(self.replica.board.clone());
        let outcome = tokio::select! {
            () = stop.wait() => None,
            ended = self.source.ended() => Some(Ok(ended_early(ended))),
            ended = self.replica.ended() => Some(Ok(ended_early(ended))),
            trouble = refused_at_first_contact(&self.replica.board, args.once) => Some(Err(given_up(trouble, args))),
            trouble = stuck(&self.replica.board), if args.once => Some(Err(given_up(trouble, args))),
            () = caught_up(&self.replica.board), if args.once => Some(Ok(Watched::Outcome(Outcome::Done))),
        };
        progress.finish().await;
        let Some(outcome) = outcome else { return Ok(Watched::Outcome(Outcome::Done)) };
        verified(args, stop, outcome, self.verify(args)).await
    }

    /// Compares both at one position: the source is held in a read transaction until the replica has come to it.
    async fn verify(&self, args: &Replicate) -> Result<Verdict> {
        let names: Vec<String> = self.source.captured().await?;
        for _ in 0..TRIES_MAX {
            let path = args.source.clone();
            let held = tokio::task::spawn_blocking(move || held_reader(&path)).await??;
            let head = held_head(&held)?;
            if timeout(TRY_WAIT, reached(&self.replica.board, head)).await.is_err() {
                continue;
            }
            let (path, names) = (args.replica.clone(), names.clone());
            let compared = tokio::task::spawn_blocking(move || -> Result<Option<Verdict>> {
                let replica = held_reader(&path)?;
                if applied_seq(&replica, SOURCE)? != head {
                    return Ok(None);
                }
                Ok(Some(verify::compare(&held, &replica, &names)?))
            });
            if let Some(verdict) = compared.await?? {
                return Ok(verdict);
            }
        }
        bail!(
            "the source is written so steadily that both were never at one position in {TRIES_MAX} tries; \
             verify again when it is quieter"
        )
    }
}

/// With `--once --verify`, what the comparison says of a copy that ended well; otherwise how it ended.
pub(super) async fn verified(
    args: &Replicate,
    stop: &mut Stop,
    outcome: Result<Watched>,
    compared: impl Future<Output = Result<Verdict>>,
) -> Result<Watched> {
    if !(args.once && args.verify && matches!(outcome, Ok(Watched::Outcome(Outcome::Done)))) {
        return outcome;
    }
    let verdict = tokio::select! {
        () = stop.wait() => bail!("stopped before the two databases were compared"),
        verdict = compared => verdict?,
    };
    super::output::print(&verdict.to_string())?;
    let equal = verdict.differences.is_empty();
    Ok(Watched::Outcome(if equal { Outcome::Done } else { Outcome::Found }))
}

pub(super) fn held_reader(path: &Path) -> Result<rusqlite::Connection> {
    let connection = sqlite::open(path, Role::Reader, false)?;
    // A read of the schema, so that the transaction really begins here.
    connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")?;
    Ok(connection)
}

pub(super) fn held_head(source: &rusqlite::Connection) -> Result<i64> {
    Ok(crate::capture::log_state(source)?.head.position.seq)
}

/// How much of that peer's log a database has.
pub(super) fn applied_seq(conn: &rusqlite::Connection, peer: &str) -> Result<i64> {
    Ok(conn
        .query_row("SELECT coalesce(max(seq), 0) FROM __cdc_checkpoints WHERE name = ?1", [peer], |row| row.get(0))?)
}

/// The link that brings something here.
fn receiving(report: &StatusReport) -> Option<&LinkReport> {
    report.links.iter().find(|link| link.direction == Direction::Receive)
}

/// Ends when the link has halted and will not go on by itself: at the first contact, or at any time with `--once`.
pub(super) async fn refused_at_first_contact(board: &Board, once: bool) -> Trouble {
    let mut changed = board.subscribe();
    loop {
        let report = board.report();
        let halted = report.links.iter().find(|link| link.state == LinkState::Halted);
        if let Some(link) = halted
            && (once || link.position.is_none())
            && let Some(error) = &link.last_error
        {
            return error.clone();
        }
        if changed.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Ends when a failure that might have passed has not, for as long as [`STUCK_AFTER`]: nothing was applied since, in either
/// direction, and at half of the looks at least the link was down. Where both ends write, one direction may well come up
/// for a moment, each time, before the other fails.
pub(super) async fn stuck(board: &Board) -> Trouble {
    let mut looks = tokio::time::interval(STUCK_AFTER / STUCK_LOOKS);
    let (mut seen, mut idle, mut failing, mut last) = (None, 0, 0, None);
    loop {
        looks.tick().await;
        let report = board.report();
        let copied: u64 = report.tables.iter().map(|table| table.rows_copied).sum();
        let positions = report.links.iter().map(|link| link.position.as_ref().map(|position| position.seq));
        let now = Some((positions.collect::<Vec<_>>(), copied));
        if now != seen {
            (seen, idle, failing, last) = (now, 0, 0, None);
            continue;
        }
        idle += 1;
        let down = report.links.iter().filter(|link| [LinkState::Connecting, LinkState::Waiting].contains(&link.state));
        let error = down.filter_map(|link| link.last_error.clone()).next();
        failing += u32::from(error.is_some());
        last = error.or(last);
        if idle >= STUCK_LOOKS
            && failing * 2 >= idle
            && let Some(error) = last.take()
        {
            return error;
        }
    }
}

/// The trouble as the command's failure, with what to do here, where there is no configuration.
pub(super) fn given_up(trouble: Trouble, args: &Replicate) -> anyhow::Error {
    let Trouble { code, message, hint } = trouble;
    match code.as_str() {
        // Either of two that both write may hold what nobody else has: no advice to remove one.
        "divergence" if args.two_way => anyhow!(
            "{message}; remove neither: run this again with --seed a or --seed b, the one that was not restored, for only it \
             holds what the other lost; what is overwritten is kept as conflicts"
        ),
        "peer_changed" if args.two_way => anyhow!(
            "{message}; one of the two was joined with another database before, or torn down since: to join these two, keep \
             what `twinlite conflicts list` shows, run `twinlite teardown --db` on both, which leaves every row, and run \
             this again with --seed a, --seed b, or --seed merge --seed-prefer a|b"
        ),
        "both_restored" => anyhow!(
            "{message}; to join these two anew, keep what `twinlite conflicts list` shows, run `twinlite teardown --db` on both, \
             which leaves every row, and run this again with --seed merge --seed-prefer a|b"
        ),
        "seed_needed" => anyhow!(
            "{message}: say whose rows win, with --seed a, --seed b, or --seed merge --seed-prefer a|b to keep what only one \
             has; what is overwritten is kept as conflicts"
        ),
        "divergence" | "peer_changed" => {
            let replica = args.replica.display();
            anyhow!(
                "{message}; the source was restored, recreated or torn down since: remove {replica} ({replica}-wal and \
                 {replica}-shm too) and run this again, which copies everything anew"
            )
        }
        _ if hint.is_empty() || hint == HALTED => anyhow!(message),
        _ => anyhow!("{message}; {hint}"),
    }
}

/// Ends when the copy is finished and what the source had then is applied.
pub(super) async fn caught_up(board: &Board) {
    let mut changed = board.subscribe();
    let mut target = None;
    loop {
        let report = board.report();
        if let Some(link) = receiving(&report) {
            let seq = link.position.as_ref().map(|position| position.seq);
            if target.is_none() && link.state == LinkState::Live {
                target = link.head;
            }
            if target.is_some_and(|target| seq.is_some_and(|seq| seq >= target)) {
                return;
            }
        }
        if changed.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Ends when the replica has applied the source's log up to `seq`.
pub(super) async fn reached(board: &Board, seq: i64) {
    let mut changed = board.subscribe();
    loop {
        let applied = receiving(&board.report()).and_then(|link| Some(link.position.as_ref()?.seq));
        if applied.is_some_and(|applied| applied >= seq) || changed.changed().await.is_err() {
            return;
        }
    }
}

pub(super) fn ended_early(ended: Ended) -> Watched {
    match ended {
        Ended::TornDown => Watched::Outcome(Outcome::Done),
        Ended::ThreadEnded => Watched::Again("a thread of a database ended unexpectedly: open both anew"),
        Ended::LogFull => Watched::Again("the change log was full: begin a new one and copy by digest"),
        Ended::FileReplaced => Watched::Again("a database file was replaced by another: open both anew"),
    }
}

fn check_files(args: &Replicate) -> Result<()> {
    let (source, destination) = (&*args.source, &*args.replica);
    let same = match (source.canonicalize(), destination.canonicalize()) {
        (Ok(source), Ok(destination)) => source == destination || same_inode(&source, &destination),
        _ => source == destination,
    };
    anyhow::ensure!(!same, "{} and {} are the same file; name two", source.display(), destination.display());
    let folder = destination.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        anyhow::ensure!(folder.is_dir(), "{}: no such folder; make it first", folder.display());
    }
    // Whatever can be seen to be wrong with the destination is said before anything is put into the source.
    check_globs(source, &args.tables)?;
    if destination.exists() {
        drop(sqlite::open(destination, Role::Reader, false)?);
        drop(Owner::acquire(destination)?);
    } else if let Ok(target) = destination.read_link() {
        bail!(
            "{}: a symbolic link to {}, which is not there; name the file itself",
            destination.display(),
            target.display()
        );
    }
    Ok(())
}

fn same_inode(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let inode = |path: &Path| path.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
    inode(one).is_some_and(|one| Some(one) == inode(other))
}

fn source_config(args: &Replicate, socket: &str) -> NodeConfig {
    let mut config = NodeConfig::defaults(SOURCE, &args.source);
    config.tables.clone_from(&args.tables);
    config.skip_tables.clone_from(&args.skip_tables);
    config.listen = Some(socket.to_owned());
    config.links = vec![LinkConfig::defaults(REPLICA, Directions::Send)];
    config
}

fn replica_config(args: &Replicate, socket: &str) -> NodeConfig {
    let mut config = NodeConfig::defaults(REPLICA, &args.replica);
    let mut link = LinkConfig::defaults(SOURCE, Directions::Receive);
    link.peer = Some(socket.to_owned());
    link.migrate_mode = args.migrate_mode.map(Into::into);
    config.links = vec![link];
    config
}

pub(super) fn farewell(source: &Path, retention: &Retention) {
    let days = retention.age.as_secs() / Duration::from_secs(86_400).as_secs();
    let text = format!(
        "capture stays installed in {0}: the next run goes on where this one stopped\n\
         its change log is bounded by {days} days, {1} entries or {2} MiB, whether Twinlite runs or not; past that the \
         next run copies again\n\
         to remove everything of Twinlite from it: twinlite teardown --db {0}",
        source.display(),
        verify::grouped(retention.rows),
        retention.size_bytes >> 20,
    );
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::SystemClock;

    /// It advised to remove b.db, which alone held what the other had lost.
    #[test]
    fn nobody_is_told_to_remove_one_of_two_that_both_write() {
        use clap::Parser as _;
        let said = |words: &[&str], code: &str| {
            let line = [&["twinlite", "replicate", "a.db", "b.db"], words].concat();
            let super::super::args::Command::Replicate(args) = super::super::args::Cli::parse_from(line).command else {
                panic!("another command");
            };
            given_up(
                Trouble { code: code.to_owned(), message: "it was restored".to_owned(), hint: String::new() },
                &args,
            )
            .to_string()
        };
        for code in ["divergence", "peer_changed", "seed_needed", "both_restored"] {
            let both = said(&["--two-way"], code);
            assert!(both.contains("--seed ") && !both.contains("remove b.db"), "{both}");
        }
        assert!(
            said(&[], "divergence").contains("remove b.db"),
            "a replica holds nothing that its source does not have"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn once_gives_up_on_a_failure_that_does_not_pass() {
        let board = Board::new(REPLICA, "replica.db", Arc::new(SystemClock));
        let link = board.link(SOURCE, Direction::Receive, None);
        let full = Trouble { code: "disk_full".to_owned(), message: "full".to_owned(), hint: String::new() };
        link.goes_on(LinkState::Snapshot, true);
        assert!(timeout(STUCK_AFTER * 10, stuck(&board)).await.is_err(), "a copy that runs is not stuck");
        link.trouble(&full, LinkState::Waiting, None);
        assert!(timeout(STUCK_AFTER / 2, stuck(&board)).await.is_err(), "it may pass");
        assert_eq!(timeout(STUCK_AFTER * 2, stuck(&board)).await.expect("given up"), full);
    }

    /// It waited for ever, as nobody looked where both ends write.
    #[tokio::test(start_paused = true)]
    async fn once_gives_up_where_one_direction_comes_up_and_the_other_does_not() {
        let board = Board::new("b", "b.db", Arc::new(SystemClock));
        let [sends, receives] = [Direction::Send, Direction::Receive].map(|way| board.link("a", way, None));
        let full = Trouble { code: "disk_full".to_owned(), message: "full".to_owned(), hint: String::new() };
        let up_and_down = async {
            // Or a look and a change would come at one instant, and chance would decide which is first.
            tokio::time::sleep(Duration::from_millis(500)).await;
            loop {
                [&sends, &receives].iter().for_each(|link| link.goes_on(LinkState::Live, true));
                tokio::time::sleep(Duration::from_secs(1)).await;
                for link in [&sends, &receives] {
                    link.trouble(&full, LinkState::Connecting, None);
                }
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        };
        let looking = async {
            assert!(timeout(STUCK_AFTER / 2, stuck(&board)).await.is_err(), "it may pass");
            timeout(STUCK_AFTER * 3, stuck(&board)).await.expect("given up")
        };
        tokio::select! {
            () = up_and_down => {}
            trouble = looking => assert_eq!(trouble, full),
        }
    }
}
