//! The budgets that Twinlite promises, measured: `cargo bench --bench budgets [-- WORD…]`.
//!
//! Every figure is a ratio of two things measured in the same run, because absolute times of a shared machine say
//! nothing. Words choose parts: `writer copy catchup lag both memory cloudquery events idle`; none means all but `idle`, which takes a minute.
//! `TWINLITE_BENCH_SIZE=1GB` sets the size of the database that is copied (default 200MB).

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]

mod both;
mod catchup;
mod cloudquery;
mod copy;
mod events;
mod lag;
mod process;
mod writer;

use std::path::PathBuf;

/// A folder for a part's files: in memory where the machine has such a place, so that the disk does not decide.
fn folder(in_memory: bool) -> tempfile::TempDir {
    let shm = PathBuf::from("/dev/shm");
    if in_memory && shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap()
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |part: &str| words.iter().any(|word| word == part) || (words.is_empty() && part != "idle");
    if wanted("writer") {
        writer::run();
    }
    if wanted("copy") || wanted("memory") {
        copy::run();
    }
    if wanted("catchup") {
        catchup::run();
    }
    if wanted("cloudquery") {
        cloudquery::run();
    }
    if wanted("events") {
        events::run();
    }
    if wanted("lag") {
        lag::run();
    }
    if wanted("both") {
        both::run();
    }
    if wanted("idle") {
        lag::idle();
    }
}
