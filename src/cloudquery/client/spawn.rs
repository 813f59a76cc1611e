//! Plugins that are programs here (`registry: local`): started on a socket of their own, and stopped again, as the
//! `cloudquery` CLI does it.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::logs::{LogTally, follow};
use super::{Address, Error, PluginClient};

/// How long a program may take until it serves.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is started.
const STARTS_MAX: u32 = 3;
/// How long until it is started again.
const START_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often it is looked whether its socket is there: the file system tells nobody in a way that works everywhere.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long it may take to end when it is asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long its last lines may take: a process that it left behind may hold its stdout for ever.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest path of a socket that every system binds (macOS: 104 with the final NUL).
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// What is to be started.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// What errors and log lines call it.
    pub plugin: String,
    /// The program.
    pub path: PathBuf,
    /// What it is to log: trace, debug, info, warn or error.
    pub log_level: String,
}

/// A plugin that runs because we started it. Dropped, it is killed, with whatever it started.
#[derive(Debug)]
pub struct LocalPlugin {
    plugin: String,
    child: Child,
    /// The process group that the program leads.
    group: Option<Pid>,
    socket: Socket,
    logs: JoinHandle<()>,
    tally: Arc<LogTally>,
}

/// The file, which goes with this.
#[derive(Debug)]
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        // Mostly the plugin has removed it.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl LocalPlugin {
    /// Starts it, and connects.
    ///
    /// # Errors
    /// [`Error::NoProgram`], [`Error::Spawn`], [`Error::NotServing`], and what [`PluginClient::connect`] says of a program
    /// that serves something else.
    pub async fn start(options: &LocalOptions) -> Result<(Self, PluginClient), Error> {
        if !options.path.is_file() {
            return Err(Error::NoProgram { plugin: options.plugin.clone(), path: options.path.clone() });
        }
        let mut last = String::new();
        for start in 0..STARTS_MAX {
            if start > 0 {
                tracing::warn!(plugin = options.plugin, "{last}: start it again");
                sleep(START_AGAIN_AFTER).await;
            }
            let mut local = Self::spawn(options)?;
            let serving = timeout(START_TIMEOUT, local.serving()).await;
            match serving {
                Ok(Ok(client)) => return Ok((local, client)),
                Ok(Err(Early::Ended(status))) => {
                    last = format!("it ended at once ({status})");
                    local.kill().await;
                }
                Ok(Err(Early::Refused(error))) => {
                    local.stop().await;
                    return Err(error);
                }
                Err(_) => {
                    last = format!("it did not serve within {} s", START_TIMEOUT.as_secs());
                    local.kill().await;
                }
            }
        }
        let (plugin, path) = (options.plugin.clone(), options.path.clone());
        Err(Error::NotServing { plugin, path, what: last, tries: STARTS_MAX })
    }

    fn spawn(options: &LocalOptions) -> Result<Self, Error> {
        let failed = |source| Error::Spawn { plugin: options.plugin.clone(), path: options.path.clone(), source };
        // With a name alone, the system would look for it in PATH.
        let program = std::path::absolute(&options.path).map_err(failed)?;
        let socket = Socket(socket_path(&std::env::temp_dir()));
        let mut child = Command::new(program)
            .args([
                "serve",
                "--log-level",
                &options.log_level,
                "--log-format",
                "json",
                "--network",
                "unix",
                "--address",
            ])
            .arg(&socket.0)
            .arg("--no-sentry")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Of its own, so that Ctrl-C is for us, who then stop it in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let stdout = child.stdout.take().expect("stdout was piped");
        let tally = Arc::<LogTally>::default();
        let logs = tokio::spawn(follow(options.plugin.clone(), BufReader::new(stdout), Arc::clone(&tally)));
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { plugin: options.plugin.clone(), child, group, socket, logs, tally })
    }

    /// Waits until it serves.
    async fn serving(&mut self) -> Result<PluginClient, Early> {
        let address = Address::Unix(self.socket.0.clone());
        let socket = self.socket.0.clone();
        let connected = async {
            while UnixStream::connect(&socket).await.is_err() {
                sleep(LOOK_EVERY).await;
            }
            PluginClient::connect(&self.plugin, &address).await
        };
        tokio::select! {
            connected = Box::pin(connected) => connected.map_err(Early::Refused),
            ended = self.child.wait() => Err(ended.map_or_else(|error| Early::Refused(self.lost(error)), Early::Ended)),
        }
    }

    fn lost(&self, source: std::io::Error) -> Error {
        Error::Spawn { plugin: self.plugin.clone(), path: self.socket.0.clone(), source }
    }

    /// Where it listens.
    pub fn address(&self) -> Address {
        Address::Unix(self.socket.0.clone())
    }

    /// What it complained about so far.
    pub fn tally(&self) -> Arc<LogTally> {
        Arc::clone(&self.tally)
    }

    /// Waits until it has ended by itself.
    pub async fn wait(&mut self) -> Option<ExitStatus> {
        self.child.wait().await.ok()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends it: asked first, killed after a while. Whoever has a [`PluginClient`] of it drops that before.
    pub async fn stop(mut self) {
        if let Some(status) = self.ended() {
            tracing::warn!(plugin = self.plugin, %status, "the plugin had ended by itself");
        } else {
            if let Some(pid) = self.pid() {
                // It may have ended just now.
                let _ = kill_process(pid, Signal::INT);
            }
            match timeout(STOP_TIMEOUT, self.child.wait()).await {
                Ok(Ok(status)) if status.success() => {}
                Ok(Ok(status)) => tracing::warn!(plugin = self.plugin, %status, "the plugin did not end well"),
                Ok(Err(error)) => tracing::warn!(plugin = self.plugin, error = %error, "wait for the plugin"),
                Err(_) => tracing::warn!(plugin = self.plugin, "the plugin did not end when asked, and is killed"),
            }
        }
        self.kill().await;
    }

    /// Kills it with whatever it started, and hears its last lines.
    async fn kill(&mut self) {
        self.kill_group();
        let _ = self.child.wait().await;
        if timeout(LAST_LINES_TIMEOUT, &mut self.logs).await.is_err() {
            self.logs.abort();
        }
    }

    /// Kills what is left of its group, once. The number is nobody else's: as long as one of the group lives, no new process
    /// gets it, and this comes directly after the program's own end.
    fn kill_group(&mut self) {
        if let Some(group) = self.group.take() {
            // Mostly nobody is left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// Its process, while it is known to be there: later the number may be somebody else's.
    fn pid(&self) -> Option<Pid> {
        self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }
}

impl Drop for LocalPlugin {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// Why a program that was started does not serve.
enum Early {
    Ended(ExitStatus),
    Refused(Error),
}

/// A name that nobody else has, in the folder for such things, or in /tmp where that one's name is too long for a socket.
fn socket_path(folder: &Path) -> PathBuf {
    let mut random = rand::rng();
    let letters: String = (0..16).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect();
    let path = folder.join(format!("cq-{letters}.sock"));
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        path
    } else {
        Path::new("/tmp").join(format!("cq-{letters}.sock"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_sixteen_letters_and_a_path_that_can_be_bound() {
        let path = socket_path(Path::new("/var/tmp"));
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let letters = name.strip_prefix("cq-").and_then(|name| name.strip_suffix(".sock")).expect("as the CLI has it");
        assert!(letters.len() == 16 && letters.chars().all(|c| c.is_ascii_lowercase()), "{name}");
        assert_eq!(path.parent(), Some(Path::new("/var/tmp")));
        assert!(socket_path(Path::new(&"/long".repeat(30))).starts_with("/tmp"));
    }
}
