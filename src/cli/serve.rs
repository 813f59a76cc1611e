//! `twinlite serve`: CloudQuery's plugin, until Ctrl-C or SIGTERM.
//!
//! The one command whose log goes to stdout, in whichever form: the CLI that starts a plugin reads it there.

use std::sync::Arc;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::args::{LogForm, Network, Serve};
use super::signal::Stop;
use super::{Outcome, Usage};
use crate::cloudquery::destination::Options;
use crate::cloudquery::server::{self, NAME, Served, TEAM, VERSION};
use crate::replicate::cq_source::Sources;
use crate::telemetry::{logging, plugin_log};

/// What log lines say they come from.
const MODULE: &str = "sqlite-dest";

/// Starts logging.
///
/// # Errors
/// The level is none.
pub fn log(args: &Serve, level: Option<&str>) -> Result<()> {
    let format = match args.log_format {
        LogForm::Text => logging::Format::Text,
        LogForm::Json => logging::Format::Json,
    };
    Ok(plugin_log::init(level.unwrap_or("info"), format, MODULE)?)
}

/// Serves. A signal ends it well: the CLI sends one when it is done.
///
/// # Errors
/// It cannot listen there, or the socket fails.
pub async fn run(args: &Serve) -> Result<Outcome> {
    let mut signal = Stop::listen()?;
    if let Some(root) = args.root.as_ref().filter(|root| !root.is_dir()) {
        return Err(Usage(format!("--root {}: no such folder; create it, or name another", root.display())).into());
    }
    let network = match args.network {
        Network::Tcp => server::Network::Tcp,
        Network::Tcp4 => server::Network::Tcp4,
        Network::Tcp6 => server::Network::Tcp6,
        Network::Unix => server::Network::Unix,
        Network::Unixpacket => {
            let why = "--network unixpacket: HTTP/2 needs a stream, which these sockets are not; use unix";
            return Err(Usage(why.to_owned()).into());
        }
    };
    let listener = server::bind(network, &args.address).await?;
    let plugin = format!("{TEAM}/destination/{NAME}@{VERSION}");
    tracing::info!(address = listener.address(), plugin, "Plugin server listening");
    if listener.is_beyond_loopback() {
        tracing::warn!(
            address = listener.address(),
            "other machines can connect, and write to every database that may be named; the protocol has no login"
        );
    }
    let options = Options { root: args.root.clone(), ..Options::default() };
    let served = Served { options: options.clone(), sources: Some(Arc::new(Sources::new(options))) };
    let stop = CancellationToken::new();
    let mut serving = Box::pin(server::serve(listener, served, stop.clone()));
    tokio::select! {
        ended = &mut serving => ended?,
        () = signal.wait() => {
            stop.cancel();
            serving.await?;
        }
    }
    Ok(Outcome::Done)
}
