//! The program as a process of its own, and what the kernel says of it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs the program to its end. Returns how long it took and the largest memory that it was seen to hold, in MB.
pub fn run_to_end(arguments: &[&str]) -> (Duration, f64) {
    let started = Instant::now();
    let mut child = command(arguments).stderr(Stdio::piped()).spawn().unwrap();
    let mut peak = 0.0_f64;
    loop {
        peak = peak.max(peak_mb(child.id()));
        if let Some(status) = child.try_wait().unwrap() {
            let said = child.stderr.take().map(std::io::read_to_string);
            assert!(status.success(), "twinlite {arguments:?} failed: {said:?}");
            return (started.elapsed(), peak);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts the program, quietly.
pub fn spawn(arguments: &[&str]) -> Child {
    command(arguments).spawn().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twinlite"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The peak of resident memory so far, in MB (Linux; 0 where the kernel does not tell).
pub fn peak_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) / 1024.0
}

/// CPU time that its threads have used so far, in ms (Linux), by the scheduler's own count: ticks are as long as what is
/// measured.
pub fn cpu_ms(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1e6
}

/// Ends it as a person would, and waits.
pub fn stop(mut child: Child) {
    let _ = rustix::process::kill_process(
        rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap(),
        rustix::process::Signal::INT,
    );
    child.wait().unwrap();
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.display().to_string()
}
