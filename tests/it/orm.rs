//! Migrations of Django and Alembic, run by them against a live source: the replica is equal after each, and nobody
//! touched anything.

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::support::{
    Place,
    both::{Both, Side},
    open,
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

/// A run of migrations that waits for a line before each step.
struct Run {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Run {
    fn start(python: &Path, script: &str, database: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/orm").join(script);
        let mut command = Command::new(python);
        let mut child = command
            .env("DJANGO_IMMEDIATE", "1")
            .arg(script)
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, stdin, lines: BufReader::new(stdout).lines() }
    }

    /// Lets it make one step; none where it is done.
    fn step(&mut self) -> Option<String> {
        // After its last step nobody reads it any more.
        let _ = writeln!(self.stdin);
        let line = self.lines.next().unwrap().unwrap();
        (line != "done").then_some(line)
    }
}

/// Migrates at these ends of a two-way link, while both write into a table of their own.
fn migrate_both(test: &str, (module, script): (&str, &str), at: &[Side]) {
    let Some(python) = python(module) else {
        return skipped(test, &format!("no Python with {module}; name one in TWINLITE_PYTHON"));
    };
    let mut both = Both::start("CREATE TABLE journal(id TEXT PRIMARY KEY, v)", "    migrate_mode: forced\n");
    let mut runs: Vec<Run> = at.iter().map(|side| Run::start(&python, script, &both.database(*side))).collect();
    let mut steps = 0;
    loop {
        for side in Side::ALL {
            both.sql(side, &format!("INSERT INTO journal VALUES ('{side:?} {steps}', {steps})"));
        }
        if at.len() > 1 {
            both.cut();
        }
        let said: Vec<Option<String>> = runs.iter_mut().map(Run::step).collect();
        both.proxy.heal();
        let Some(Some(line)) = said.first() else { break };
        eprintln!("{module}: {line}");
        // Alembic takes constraints from a set, so two runs of one migration order them differently.
        both.equal_in_any_order();
        steps += 1;
    }
    for mut run in runs {
        assert!(run.child.wait().unwrap().success(), "{module} failed after {steps} steps");
    }
    assert!(steps > 10, "only {steps} steps");
    let conflicts = both.all_conflicts();
    let of_journal: Vec<&String> = conflicts.iter().filter(|conflict| conflict.contains("journal")).collect();
    assert!(of_journal.is_empty(), "conflicts that were none: {of_journal:?}");
    if at.len() == 1 {
        assert!(conflicts.is_empty(), "conflicts though one end alone wrote: {conflicts:?}");
    }
}

#[test]
fn both_ends_are_equal_after_each_migration_of_django_at_one() {
    let test = "both_ends_are_equal_after_each_migration_of_django_at_one";
    migrate_both(test, ("django", "django_migrations.py"), &[Side::B]);
}

#[test]
fn both_ends_are_equal_after_each_operation_of_alembic_at_one() {
    let test = "both_ends_are_equal_after_each_operation_of_alembic_at_one";
    migrate_both(test, ("alembic", "alembic_migrations.py"), &[Side::B]);
}

#[test]
fn both_ends_are_equal_after_each_migration_of_django_at_both() {
    let test = "both_ends_are_equal_after_each_migration_of_django_at_both";
    migrate_both(test, ("django", "django_migrations.py"), &Side::ALL);
}

#[test]
fn both_ends_are_equal_after_each_operation_of_alembic_at_both() {
    let test = "both_ends_are_equal_after_each_operation_of_alembic_at_both";
    migrate_both(test, ("alembic", "alembic_migrations.py"), &Side::ALL);
}
