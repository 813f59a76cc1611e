//! CloudQuery's own Python SDK as a client of `twinlite serve`, over TCP and over a unix socket.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::cq::Serve;
use crate::support::{Place, open_reader, skipped};

/// A Python that has the SDK: the one that `TWINLITE_CQ_PYTHON` names, that of the environment that CI makes, or the
/// machine's.
pub fn python() -> Option<PathBuf> {
    let named = std::env::var_os("TWINLITE_CQ_PYTHON").map(PathBuf::from);
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cq/bin/python");
    named.into_iter().chain([made, "python3".into()]).find(|python| {
        let import = "import cloudquery.sdk, cloudquery.plugin_v3, grpc, pyarrow";
        let import = Command::new(python).args(["-c", import]).stderr(Stdio::null()).status();
        import.is_ok_and(|status| status.success())
    })
}

fn drive(test: &str, serve: impl Fn(&Place) -> (Serve, String)) {
    let Some(python) = python() else {
        let packages = "cloudquery-plugin-pb cloudquery-plugin-sdk pyarrow grpcio";
        return skipped(
            test,
            &format!(
                "no Python with CloudQuery's SDK; pip install {packages}, and name that python in TWINLITE_CQ_PYTHON"
            ),
        );
    };
    let place = Place::new();
    let (server, target) = serve(&place);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cloudquery/destination_client.py");
    let output = Command::new(python).arg(script).arg(target).arg(place.source()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.trim_end().ends_with("done"), "--- stdout\n{out}\n--- stderr\n{err}");
    assert!(server.log().iter().any(|line| line["invocation_id"] == "python"));
    server.stop(Signal::INT);
    let ids: String = open_reader(&place.source())
        .query_row("SELECT group_concat(id, ' ' ORDER BY id) FROM users", [], |row| row.get(0))
        .unwrap();
    assert_eq!(ids, "3 4 5");
}

#[test]
fn the_python_sdk_writes_and_reads_over_tcp() {
    drive("the_python_sdk_writes_and_reads_over_tcp", |_| {
        let server = Serve::tcp();
        let target = server.address.clone();
        (server, target)
    });
}

/// grpcio sends the socket's path as `:authority`, as the CLI does.
#[test]
fn the_python_sdk_writes_and_reads_over_a_unix_socket() {
    drive("the_python_sdk_writes_and_reads_over_a_unix_socket", |place| {
        let path = place.file("cq.sock");
        (Serve::unix(&path), format!("unix:{}", path.display()))
    });
}
