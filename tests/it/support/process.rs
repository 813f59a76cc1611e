//! The built program, run as people run it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{
    open_reader,
    rest::{self, LogEnd},
    wait::{patience, until},
};

/// The program with arguments, for what ends by itself.
pub fn twinlite<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_twinlite")).args(args).stdin(Stdio::null()).output().unwrap()
}

/// Runs the program and panics with its output unless it ends with `code`; returns what it wrote to stdout.
#[track_caller]
pub fn expect_code<S: AsRef<std::ffi::OsStr> + std::fmt::Debug>(code: i32, args: &[S]) -> String {
    let output = twinlite(args);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "twinlite {args:?}\n--- stdout\n{out}\n--- stderr\n{err}");
    out
}

/// Captures a database in that image mode, which whoever replicates it then keeps.
pub fn setup(database: &Path, images: &str) {
    expect_code(0, &["setup".as_ref(), "--db".as_ref(), database.as_os_str(), "--images".as_ref(), images.as_ref()]);
}

/// Like [`expect_code`], and returns what it wrote to stderr.
#[track_caller]
pub fn expect_failure<S: AsRef<std::ffi::OsStr> + std::fmt::Debug>(code: i32, args: &[S]) -> String {
    let output = twinlite(args);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "twinlite {args:?}\n--- stderr\n{err}");
    err
}

/// `replicate SRC DST --once --verify`, and the oracle's word that the result is equal.
#[track_caller]
pub fn replicate_once(source: &Path, replica: &Path) {
    let args = ["replicate".as_ref(), source.as_os_str(), replica.as_os_str(), "--once".as_ref(), "--verify".as_ref()];
    expect_code(0, &args);
}

/// A program that runs until it is told not to, or is killed. Killed when dropped.
pub struct Process {
    name: String,
    pid: Pid,
    exited: mpsc::Receiver<ExitStatus>,
    status: Option<ExitStatus>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts the program with arguments and environment.
    pub fn start<S: AsRef<std::ffi::OsStr>>(name: &str, args: &[S], env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twinlite"));
        command.args(args).envs(env.iter().copied()).stdout(Stdio::null());
        Self::spawn(name, &mut command)
    }

    /// Starts a command that is the program.
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (writer, stderr) = (lines.clone(), child.stderr.take().unwrap());
        let (done, exited) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                writer.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
            }
            let _ = done.send(child.wait().unwrap());
        });
        Self { name: name.to_owned(), pid, exited, status: None, lines }
    }

    /// `twinlite replicate SRC DST`, until it is stopped.
    pub fn replicate(source: &Path, replica: &Path, env: &[(&str, &str)]) -> Self {
        Self::start("replicate", &["replicate".as_ref(), source.as_os_str(), replica.as_os_str()], env)
    }

    /// The same with flags, and its stdout in a file.
    pub fn replicate_into(stdout: &Path, source: &Path, replica: &Path, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twinlite"));
        command.arg("replicate").args([source, replica]).args(flags).stdout(std::fs::File::create(stdout).unwrap());
        Self::spawn("replicate", &mut command)
    }

    /// `twinlite run --config FILE`.
    pub fn run(config: &Path, env: &[(&str, &str)]) -> Self {
        let name = config.file_stem().unwrap().to_string_lossy().into_owned();
        Self::start(&name, &["run".as_ref(), "--config".as_ref(), config.as_os_str()], env)
    }

    /// The same, with its stdout there.
    pub fn run_into(stdout: impl Into<Stdio>, config: &Path) -> Self {
        Self::start_into(stdout, &["run".as_ref(), "--config".as_ref(), config.as_os_str()])
    }

    /// Starts the program with its stdout there.
    pub fn start_into<S: AsRef<std::ffi::OsStr>>(stdout: impl Into<Stdio>, args: &[S]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twinlite"));
        command.args(args).stdout(stdout);
        Self::spawn("twinlite", &mut command)
    }

    /// `twinlite cdc` on that database, with its stdout at the end of that file.
    pub fn cdc(database: &Path, stdout: &Path, flags: &[&str], env: &[(&str, &str)]) -> Self {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(stdout).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_twinlite"));
        command.args(["cdc".as_ref(), "--db".as_ref(), database.as_os_str()]).args(flags);
        Self::spawn("cdc", command.envs(env.iter().copied()).stdout(file))
    }

    /// Sends it a signal; nothing if it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.exited.try_recv().ok();
        }
        self.status
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        if self.status.is_none() {
            self.status = self.exited.recv_timeout(patience()).ok();
        }
        self.status.unwrap_or_else(|| panic!("{} did not end; it said:\n{}", self.name, self.said()))
    }

    /// Asks it to stop, as Ctrl-C does, and panics unless it ends well and soon.
    #[track_caller]
    pub fn stop(mut self) {
        // Before it has said anything it may not have got to taking signals yet.
        until(&format!("{} to say something", self.name), || match self.said().is_empty() && self.ended().is_none() {
            true => Err("nothing yet".to_owned()),
            false => Ok(()),
        });
        self.signal(Signal::INT);
        let status = self.wait();
        assert!(status.success(), "{} ended with {status}; it said:\n{}", self.name, self.said());
    }

    /// Kills it with no chance to clean up, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// Everything it wrote to stderr.
    pub fn said(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Panics with what it said if it has ended by itself.
    #[track_caller]
    pub fn assert_running(&mut self) {
        let ended = self.ended();
        assert!(ended.is_none(), "{} ended with {ended:?}; it said:\n{}", self.name, self.said());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = kill_process(self.pid, Signal::KILL);
            let _ = self.exited.recv_timeout(Duration::from_secs(10));
        }
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}", self.name, self.said());
        }
    }
}

/// `twinlite status -o json` of a database.
pub fn status(database: &Path) -> Value {
    let args = ["status".as_ref(), "--db".as_ref(), database.as_os_str(), "-o".as_ref(), "json".as_ref()];
    let output = twinlite(&args);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("status is no JSON ({error}): {}", String::from_utf8_lossy(&output.stderr));
    })
}

/// GET over plain HTTP: status code and body.
pub fn http_get(address: &str, path: &str) -> Result<(u16, String), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).map_err(text)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(text)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").map_err(text)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(text)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("no status line")?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((code, body))
}

/// A port that was free a moment ago, and that no other test was given.
pub fn free_port() -> u16 {
    static GIVEN: std::sync::Mutex<std::collections::BTreeSet<u16>> =
        std::sync::Mutex::new(std::collections::BTreeSet::new());
    loop {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

/// Waits until the replica holds everything that the source has committed when this is called: its schema is accounted
/// for, the replica's checkpoint is at the end of the log, and no table's copy is unfinished. It looks into both files,
/// so that what the program says of itself is not what is tested.
#[track_caller]
pub fn quiesce(source: &Path, replica: &Path) {
    quiesce_with(source, replica, &mut || ());
}

/// Like [`quiesce`]; `watch` runs at each look, and may panic.
#[track_caller]
pub fn quiesce_with(source: &Path, replica: &Path, watch: &mut dyn FnMut()) {
    until("the replica to hold what the source does", || {
        watch();
        let (epoch, head) = rest::log_end(&rest::look(source)?).map_err(|what| format!("source: {what}"))?;
        let (at_epoch, seq) = checkpoint(replica).map_err(|what| format!("replica: {what}"))?;
        if (at_epoch, seq) != (epoch, head) {
            return Err(format!("source at {epoch}:{head}, replica at {at_epoch}:{seq}"));
        }
        Ok(())
    });
}

/// Up to where the one log that is applied to a replica is, which need not be captured itself.
fn checkpoint(replica: &Path) -> Result<LogEnd, String> {
    let conn = rest::look(replica)?;
    rest::check_copies(&conn)?;
    conn.query_row("SELECT coalesce(epoch, 0), coalesce(seq, 0) FROM __cdc_checkpoints", [], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
    .map_err(|error| error.to_string())
}

/// How many windows the replica has applied.
pub fn windows_applied(replica: &Path) -> i64 {
    if !replica.exists() {
        return 0;
    }
    let count = open_reader(replica).query_row("SELECT sum(windows) FROM __cdc_checkpoints", [], |row| row.get(0));
    count.unwrap_or(0)
}
