//! An application on SQLite 3.24, the oldest that capture promises: it gets the same answers with and without capture, and
//! what it writes is captured.
//!
//! The amalgamation is the one that an old release of the crate libsqlite3-sys carries, built here with the machine's C
//! compiler; where either cannot be had, the test says that it was skipped.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::OnceLock,
};

use crate::support::{
    Place, env_number, open,
    oracle::{Oracle, assert_equal},
    process::{replicate_once, setup},
    random::Random,
    schema::Schema,
    skipped,
    statements::Generator,
    table::Table,
};

const NAME: &str = "an_application_on_sqlite_3_24_notices_nothing_and_is_captured";
/// The release of the crate whose SQLite is 3.24.0.
const CRATE: &str = "libsqlite3-sys = \"=0.9.3\"";
const CASES: u64 = 12;
const STATEMENTS: usize = 200;

/// The program that runs statements on SQLite 3.24, built once; or why it cannot be.
fn program() -> &'static Result<PathBuf, String> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PROGRAM.get_or_init(build)
}

fn build() -> Result<PathBuf, String> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("sqlite-3.24");
    let program = folder.join("run");
    if program.exists() {
        return Ok(program);
    }
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let sources = sources(&folder)?;
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/old_sqlite.c");
    let built = folder.join(format!("run-{}", std::process::id()));
    let output = Command::new("cc")
        .args(["-O1", "-w", "-DSQLITE_THREADSAFE=0", "-DSQLITE_OMIT_LOAD_EXTENSION", "-I"])
        .arg(&sources)
        .arg(driver)
        .arg(sources.join("sqlite3.c"))
        .arg("-o")
        .arg(&built)
        .output()
        .map_err(|error| format!("no C compiler ({error}); install gcc"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    std::fs::rename(&built, &program).map_err(|error| error.to_string())?;
    Ok(program)
}

/// Where the amalgamation is, fetched by cargo as any crate is.
fn sources(folder: &Path) -> Result<PathBuf, String> {
    let text = |error: std::io::Error| error.to_string();
    let package = "[package]\nname = \"old\"\nversion = \"0.0.0\"\n[lib]\npath = \"lib.rs\"\n[workspace]\n";
    std::fs::write(folder.join("Cargo.toml"), format!("{package}[dependencies]\n{CRATE}\n")).map_err(text)?;
    std::fs::write(folder.join("lib.rs"), "").map_err(text)?;
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--manifest-path"])
        .arg(folder.join("Cargo.toml"))
        .output()
        .map_err(text)?;
    if !output.status.success() {
        return Err(format!("cargo cannot fetch {CRATE}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no packages")?;
    let found = packages.iter().find(|package| package["name"] == "libsqlite3-sys");
    let manifest = found.and_then(|package| package["manifest_path"].as_str()).ok_or("the crate is not there")?;
    Ok(Path::new(manifest).with_file_name("sqlite3"))
}

/// An application on the old SQLite.
struct Application {
    child: Child,
    statements: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Application {
    fn start(program: &Path, database: &Path) -> Self {
        let mut child =
            Command::new(program).arg(database).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let statements = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut application = Self { child, statements, answers };
        assert_eq!(application.answer(), "3.24.0");
        application
    }

    fn answer(&mut self) -> String {
        let mut line = Vec::new();
        self.answers.read_until(b'\n', &mut line).unwrap();
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    /// Runs a statement; what the application is told.
    fn run(&mut self, sql: &str) -> String {
        let statements = self.statements.as_mut().unwrap();
        statements.write_all(sql.replace('\0', "").as_bytes()).unwrap();
        statements.write_all(&[0]).unwrap();
        self.answer()
    }

    fn end(mut self) {
        self.run("ROLLBACK");
        drop(self.statements.take());
        assert!(self.child.wait().unwrap().success());
    }
}

/// A rowid counts after an INSERT that worked; see `transparency.rs`. How many rows a DELETE without WHERE took from a
/// WITHOUT ROWID table, 3.24 says only where a trigger, anybody's, makes it delete them one by one.
fn told(sql: &str, answer: &str) -> String {
    if sql.starts_with("DELETE") && !sql.contains("WHERE") {
        return answer.split_once("; changes ").map_or(answer, |(before, _)| before).to_owned();
    }
    let worked = sql.starts_with("INSERT") && !sql.contains(" ON CONFLICT") && answer.contains("; error 0 ;");
    match answer.split_once("; rowid ") {
        Some((before, after)) if !worked || before.ends_with("changes 0") => {
            format!("{before}{}", after.split_once(';').map_or("", |(_, rest)| rest))
        }
        _ => answer.to_owned(),
    }
}

#[test]
fn an_application_on_sqlite_3_24_notices_nothing_and_is_captured() {
    let program = match program() {
        Ok(program) => program,
        Err(why) => return skipped(NAME, why),
    };
    let only = env_number("TWINLITE_SEED", 0);
    let seeds = if only > 0 { only..=only } else { 1..=env_number("TWINLITE_CASES", CASES) };
    let mut ran = 0;
    for seed in seeds {
        let (place, mut random) = (Place::new(), Random::new(seed + 7_000_000));
        let schema = Schema::random(&mut random);
        let plain = place.file("plain.db");
        let databases = [place.source(), plain.clone()];
        for database in &databases {
            let mut application = Application::start(program, database);
            application.run("PRAGMA journal_mode = wal");
            // What 3.24 does not know yet, it refuses in both.
            schema.ddl.iter().chain(&schema.triggers).for_each(|sql| drop(application.run(sql)));
            application.end();
        }
        let tables = Table::read_all(&open(&plain));
        if tables.is_empty() {
            continue;
        }
        ran += 1;
        setup(&place.source(), if seed % 2 == 0 { "full" } else { "key" });
        let mut pair = databases.each_ref().map(|database| Application::start(program, database));
        let recursive = format!("PRAGMA recursive_triggers = {}", random.chance(50));
        pair.iter_mut().for_each(|application| drop(application.run(&recursive)));
        for _ in 0..STATEMENTS {
            let statement = Generator::new(&mut random, &tables).next();
            if statement.shaky {
                continue;
            }
            let [with, without] = pair.each_mut().map(|application| application.run(&statement.sql));
            let (with, without) = (told(&statement.sql, &with), told(&statement.sql, &without));
            assert_eq!(with, without, "seed {seed}: with capture (left) and without: {}", statement.sql);
        }
        pair.into_iter().for_each(Application::end);
        let differences = Oracle::default().differences(&place.source(), &plain);
        assert!(differences.is_empty(), "seed {seed}: {}", differences.join("\n"));
        replicate_once(&place.source(), &place.replica());
        assert_equal(&place.source(), &place.replica());
    }
    assert!(ran * 2 > CASES || only > 0, "only {ran} schemas were of use");
}
