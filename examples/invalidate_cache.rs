//! Keeps a cache right while somebody else writes the database: what changed is forgotten, and read again when it is wanted.
//!
//! `cargo run --example invalidate_cache -- app.db users` prints what it forgets, until Ctrl-C.
#![allow(clippy::print_stdout, reason = "it is what the example shows")]

use std::collections::HashMap;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use twinlite::events::{ChangesHandler, Engine, HandlerError};
use twinlite::model::{Changes, Operation, Value};

/// Rows by the first column of their table, as somebody else has put them here.
#[derive(Default)]
struct Cache(HashMap<String, String>);

impl ChangesHandler for Cache {
    fn handle_changes<'a>(&'a mut self, changes: &'a Changes) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(async move {
            for event in &changes.events {
                if event.operation == Operation::Resync {
                    // What is known of the table may be wrong.
                    self.0.clear();
                }
                // Both: an update may have changed the key. A batch may come twice, and forgetting twice does no harm.
                for key in event.before.iter().chain(&event.after).filter_map(|row| row.first()) {
                    self.0.remove(&shown(key));
                    println!("{}: forget {}", event.table.name, shown(key));
                }
            }
            Ok(())
        })
    }
}

fn shown(key: &Value) -> String {
    twinlite::model::Key(vec![key.clone()]).shown()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let database = args.next().ok_or("name a database, and tables of it")?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        stopping.cancel();
    });
    let engine = Engine::new(database).tables(args).consumer("cache").setup(true).cdc(true);
    engine.run(&mut Cache::default(), stop).await?;
    Ok(())
}
