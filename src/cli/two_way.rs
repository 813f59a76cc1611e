//! `twinlite replicate --two-way A B`: two nodes that both take writes, in one process, joined by the real link.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Outcome;
use super::args::{Replicate, SeedChoice};
use super::progress::Progress;
use super::replicate::{
    Watched, applied_seq, caught_up, ended_early, farewell, given_up, held_head, held_reader, reached,
    refused_at_first_contact, stuck, verified,
};
use super::run::start_again;
use super::signal::Stop;
use crate::config::{Directions, LinkConfig, NodeConfig, Retention, Seed};
use crate::node::{Node, Surroundings};
use crate::replicate::verify::{self, TRIES_MAX, TRY_WAIT, Verdict};

/// What the two nodes are called, to each other and in `status`.
const NAMES: [&str; 2] = ["a", "b"];

/// Runs until Ctrl-C, or with `--once` until each has what the other had when both were whole.
///
/// # Errors
/// Whatever stands in the way, said once.
pub(super) async fn run(args: &Replicate, socket: &str, stop: &mut Stop) -> Result<Outcome> {
    let mut replaced: Option<Instant> = None;
    loop {
        let start = async || Pair::start(args, socket).await;
        let Some(pair) = start_again(replaced.take(), start, stop.wait()).await? else { return Ok(Outcome::Done) };
        match pair.run(args, stop).await? {
            Watched::Outcome(outcome) => return Ok(outcome),
            Watched::Again(why) => tracing::warn!("{why}"),
        }
        replaced = Some(Instant::now());
    }
}

struct Pair {
    a: Node,
    b: Node,
}

impl Pair {
    async fn start(args: &Replicate, socket: &str) -> Result<Self> {
        let stop = Some(CancellationToken::new());
        let surroundings = Surroundings { peers_log_here: true, stop, ..Surroundings::default() };
        let a = Node::start(config(args, 0, socket)?, &surroundings).await.context("a")?;
        match Node::start(config(args, 1, socket)?, &surroundings).await.context("b") {
            Ok(b) => Ok(Self { a, b }),
            Err(error) => {
                a.stop().await;
                Err(error)
            }
        }
    }

    async fn run(self, args: &Replicate, stop: &mut Stop) -> Result<Watched> {
        let outcome = self.watch(args, stop).await;
        let captured = self.a.ended_because().is_none() && self.b.ended_because().is_none();
        let Self { a, b } = self;
        tokio::join!(a.stop(), b.stop());
        if captured && !matches!(outcome, Ok(Watched::Again(_))) {
            farewell(&args.source, &Retention::default());
            farewell(&args.replica, &Retention::default());
        }
        outcome
    }

    async fn watch(&self, args: &Replicate, stop: &mut Stop) -> Result<Watched> {
        let progress = Progress::start(self.b.board.clone());
        let (a, b) = (&self.a.board, &self.b.board);
        let outcome = tokio::select! {
            () = stop.wait() => None,
            ended = self.a.ended() => Some(Ok(ended_early(ended))),
            ended = self.b.ended() => Some(Ok(ended_early(ended))),
            trouble = refused_at_first_contact(a, args.once) => Some(Err(given_up(trouble, args))),
            trouble = refused_at_first_contact(b, args.once) => Some(Err(given_up(trouble, args))),
            trouble = stuck(a), if args.once => Some(Err(given_up(trouble, args))),
            trouble = stuck(b), if args.once => Some(Err(given_up(trouble, args))),
            ((), ()) = async { tokio::join!(caught_up(a), caught_up(b)) }, if args.once => Some(Ok(Watched::Outcome(Outcome::Done))),
        };
        progress.finish().await;
        let Some(outcome) = outcome else { return Ok(Watched::Outcome(Outcome::Done)) };
        verified(args, stop, outcome, self.verify(args)).await
    }

    /// Compares both at a moment when each has all of the other's log.
    async fn verify(&self, args: &Replicate) -> Result<Verdict> {
        let names = self.a.captured().await?;
        for _ in 0..TRIES_MAX {
            let (a, b, names) = (args.source.clone(), args.replica.clone(), names.clone());
            let compared = tokio::task::spawn_blocking(move || -> Result<Result<Verdict, (i64, i64)>> {
                let (a, b) = (held_reader(&a)?, held_reader(&b)?);
                let heads = (held_head(&a)?, held_head(&b)?);
                if (applied_seq(&b, NAMES[0])?, applied_seq(&a, NAMES[1])?) != heads {
                    return Ok(Err(heads));
                }
                Ok(Ok(verify::compare(&a, &b, &names)?))
            });
            match compared.await?? {
                Ok(verdict) => return Ok(verdict),
                Err((of_a, of_b)) => {
                    let both = async { tokio::join!(reached(&self.b.board, of_a), reached(&self.a.board, of_b)) };
                    // Whether it was in time, the next look tells.
                    let _ = timeout(TRY_WAIT, both).await;
                }
            }
        }
        bail!(
            "both are written so steadily that neither ever had all of the other in {TRIES_MAX} tries; verify again later"
        )
    }
}

fn config(args: &Replicate, number: usize, socket: &str) -> Result<NodeConfig> {
    let file: &Path = [&*args.source, &*args.replica][number];
    let mut config = NodeConfig::defaults(NAMES[number], file);
    config.tables.clone_from(&args.tables);
    config.skip_tables.clone_from(&args.skip_tables);
    let mut link = LinkConfig::defaults(NAMES[1 - number], Directions::Both);
    link.migrate_mode = args.migrate_mode.map(Into::into);
    link.seed = seed(args)?;
    match number {
        0 => config.listen = Some(socket.to_owned()),
        _ => link.peer = Some(socket.to_owned()),
    }
    config.links = vec![link];
    Ok(config)
}

/// What `--seed` and `--seed-prefer` say.
pub(super) fn seed(args: &Replicate) -> Result<Option<Seed>> {
    // What it may say are NAMES.
    let preferred = args.seed_prefer.clone();
    if args.seed != Some(SeedChoice::Merge) {
        ensure!(preferred.is_none(), "--seed-prefer means something only with --seed merge");
    }
    let node = |number: usize| Some(Seed::Node(NAMES[number].to_owned()));
    Ok(match args.seed {
        None => None,
        Some(SeedChoice::A) => node(0),
        Some(SeedChoice::B) => node(1),
        Some(SeedChoice::Merge) => {
            let prefer = preferred
                .context("--seed merge needs --seed-prefer a or --seed-prefer b: whose rows win where both have one")?;
            Some(Seed::Merge { prefer })
        }
    })
}
