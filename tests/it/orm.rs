//! Migrations of Django and Alembic, run by them against a live source: the replica is equal after each, and nobody
//! touched anything.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::support::{
    Place, open,
    oracle::assert_equal,
    process::{Process, quiesce},
    skipped,
};

/// A Python that has the module: the one that `TWINLITE_PYTHON` names, or the machine's.
fn python(module: &str) -> Option<PathBuf> {
    let named = std::env::var_os("TWINLITE_PYTHON").map(PathBuf::from);
    named.into_iter().chain(["python3".into()]).find(|python| {
        let import = Command::new(python).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
        import.is_ok_and(|status| status.success())
    })
}

fn migrate(test: &str, module: &str, script: &str) {
    let Some(python) = python(module) else {
        let why = format!("no Python with {module}; pip install {module}, and name that python in TWINLITE_PYTHON");
        return skipped(test, &why);
    };
    let place = Place::new();
    drop(open(&place.source()));
    let mut process = Process::replicate(&place.source(), &place.replica(), &[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/orm").join(script);
    let mut child = Command::new(python)
        .arg(script)
        .arg(place.source())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut steps = 0;
    writeln!(stdin).unwrap();
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap) {
        eprintln!("{module}: {line}");
        process.assert_running();
        if line == "done" {
            break;
        }
        quiesce(&place.source(), &place.replica());
        assert_equal(&place.source(), &place.replica());
        steps += 1;
        // After its last step nobody reads it any more.
        let _ = writeln!(stdin);
    }
    assert!(child.wait().unwrap().success(), "{module} failed after {steps} steps");
    assert!(steps > 10, "only {steps} steps");
    process.stop();
}

#[test]
fn the_replica_is_equal_after_each_migration_of_django() {
    migrate("the_replica_is_equal_after_each_migration_of_django", "django", "django_migrations.py");
}

#[test]
fn the_replica_is_equal_after_each_operation_of_alembic() {
    migrate("the_replica_is_equal_after_each_operation_of_alembic", "alembic", "alembic_migrations.py");
}
