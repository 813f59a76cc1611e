//! CloudQuery's Python SDK, and specifications, for tests.

use std::{
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use super::{process::free_port, wait::until};

/// What is installed.
const PACKAGES: [&str; 4] = ["cloudquery-plugin-pb", "cloudquery-plugin-sdk", "pyarrow", "grpcio>=1.78"];

/// A Python with CloudQuery's SDK, in `target/cq`; made where it is not there, nothing where that cannot be.
pub fn python() -> Option<PathBuf> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    PYTHON.get_or_init(make).clone()
}

fn make() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("TWINLITE_CQ_PYTHON") {
        return Some(named.into());
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?.join("cq");
    let python = folder.join("bin/python");
    let works = || {
        let mut import = Command::new(&python);
        import.args(["-c", "import cloudquery.sdk, pyarrow, grpc"]).stderr(Stdio::null());
        import.status().is_ok_and(|status| status.success())
    };
    let ran = |command: &mut Command| command.status().is_ok_and(|status| status.success());
    let made = works()
        || (ran(Command::new("python3").args(["-m", "venv"]).arg(&folder))
            && ran(Command::new(folder.join("bin/pip")).args(["install", "--quiet"]).args(PACKAGES))
            && works());
    made.then_some(python)
}

/// One of the plugins in `tests/it/cloudquery` as a program, as `registry: local` wants it.
pub fn program(folder: &Path, python: &Path, script: &str) -> PathBuf {
    let path = folder.join(format!("{script}.sh"));
    let text = format!("#!/bin/sh\nexec '{}' '{}' \"$@\"\n", python.display(), script_path(script).display());
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn script_path(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cloudquery").join(script)
}

/// One of the plugins in `tests/it/cloudquery`, serving on TCP until it is dropped.
pub struct Served {
    child: Child,
    pub address: String,
}

impl Served {
    pub fn start(python: &Path, script: &str) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(python);
        command.arg(script_path(script)).args(["serve", "--address", &address]).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let served = Self { child, address };
        until("the plugin to listen", || TcpStream::connect(&served.address).map_err(|error| error.to_string()));
        served
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
