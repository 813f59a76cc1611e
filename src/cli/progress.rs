//! What a person sees while a replica runs: a bar for each table during the copy, then one live line.
//!
//! Without a terminal nothing is drawn: the log says when a table is copied and when the link is live.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::output::thousands as grouped;
use crate::telemetry::{Board, LinkReport, LinkState, StatusReport, TableState};

/// How often the screen is drawn anew: smooth to the eye, and no load.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// Tables that have a bar of their own at one time; the others count in the first line.
const BARS_MAX: usize = 12;

/// A display that runs until it is finished.
pub struct Progress {
    task: Option<JoinHandle<()>>,
    done: CancellationToken,
}

impl Progress {
    /// Starts showing what the board says.
    pub fn start(board: Board) -> Self {
        let done = CancellationToken::new();
        let task = std::io::stderr().is_terminal().then(|| tokio::spawn(draw(board, done.clone())));
        Self { task, done }
    }

    /// Shows the last state and ends.
    pub async fn finish(self) {
        self.done.cancel();
        if let Some(task) = self.task {
            let _ = task.await;
        }
    }
}

async fn draw(board: Board, done: CancellationToken) {
    let mut screen = Screen::new();
    let mut every = interval(DRAW_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let last = tokio::select! {
            () = done.cancelled() => true,
            _ = every.tick() => false,
        };
        screen.show(&board.report());
        if last {
            return screen.end();
        }
    }
}

struct Screen {
    all: MultiProgress,
    line: ProgressBar,
    bars: BTreeMap<String, ProgressBar>,
    pace: Pace,
}

impl Screen {
    fn new() -> Self {
        let all = MultiProgress::new();
        let line = all.add(ProgressBar::new_spinner());
        line.set_style(style("{spinner} {msg}"));
        Self { all, line, bars: BTreeMap::new(), pace: Pace::default() }
    }

    fn show(&mut self, report: &StatusReport) {
        let copying = report.tables.iter().filter(|table| table.state == TableState::Snapshot);
        for table in copying {
            if !self.bars.contains_key(&table.name) && self.bars.len() < BARS_MAX {
                let bar = self.all.insert_before(&self.line, ProgressBar::new(0));
                bar.set_style(
                    style("{prefix:24!} {bar:30} {human_pos:>12}/{human_len} rows {per_second:>12} rows/s ETA {eta}")
                        .with_key("per_second", per_second),
                );
                bar.set_prefix(table.name.clone());
                self.bars.insert(table.name.clone(), bar);
            }
            if let Some(bar) = self.bars.get(&table.name) {
                bar.set_length(table.rows_total.unwrap_or(0).max(table.rows_copied));
                bar.set_position(table.rows_copied);
            }
        }
        let live = report.tables.iter().filter(|table| table.state == TableState::Live);
        for table in live {
            if let Some(bar) = self.bars.remove(&table.name) {
                bar.finish_and_clear();
            }
        }
        if let Some(link) = report.links.first() {
            self.line.set_message(line(report, link, &mut self.pace));
            self.line.tick();
        }
    }

    fn end(self) {
        for bar in self.bars.values() {
            bar.finish_and_clear();
        }
        self.line.finish();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is ours")
}

/// Whole rows a second: a bar's own key has thirteen decimals.
fn per_second(state: &ProgressState, text: &mut dyn std::fmt::Write) {
    let _ = write!(text, "{:.0}", state.per_sec());
}

/// Changes a second, over the last second or so.
#[derive(Default)]
struct Pace {
    since: Option<(Instant, i64)>,
    per_second: f64,
}

impl Pace {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    fn at(&mut self, seq: i64) -> f64 {
        let (since, from) = *self.since.get_or_insert((Instant::now(), seq));
        let passed = since.elapsed();
        if passed >= Duration::from_secs(1) {
            self.per_second = (seq - from) as f64 / passed.as_secs_f64();
            self.since = Some((Instant::now(), seq));
        }
        self.per_second
    }
}

fn line(report: &StatusReport, link: &LinkReport, pace: &mut Pace) -> String {
    let seq = link.position.as_ref().map_or(0, |position| position.seq);
    let rate = pace.at(seq);
    let tables = report.tables.iter().filter(|table| table.state != TableState::Skipped).count();
    let copied = report.tables.iter().filter(|table| table.state == TableState::Live).count();
    let behind = link.changes_behind.map_or_else(|| "?".to_owned(), grouped);
    let lag = link.seconds_behind.map_or_else(|| "?".to_owned(), |seconds| format!("{seconds:.1}"));
    match link.state {
        LinkState::Halted | LinkState::Waiting => {
            let error = link.last_error.as_ref().map_or("", |error| error.message.as_str());
            format!("{}: {error}", link.state.word())
        }
        LinkState::Snapshot => format!("copying: {copied} of {tables} tables done"),
        LinkState::Connecting | LinkState::Offline => format!("{}: as of {lag} s ago", link.state.word()),
        LinkState::Live | LinkState::BetweenTransactions => {
            format!("live: position {seq}, {rate:.0} changes/s, {behind} changes and {lag} s behind")
        }
    }
}
