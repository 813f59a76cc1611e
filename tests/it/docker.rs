//! The two containers of `docker-compose.yml`: built, brought up, written to, killed, cut off, healed, and taken down.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::support::{
    open, open_reader, oracle::assert_equal, process::quiesce_with, random::Random, shop::Writer, skipped, wait::until,
};

const NAME: &str = "the_two_containers_replicate_through_kills_and_cuts";

/// A compose project of its own, taken down with its volumes when dropped.
struct Project {
    compose: Vec<String>,
    name: String,
    file: &'static str,
}

impl Project {
    /// The words that run compose here: v2's plugin, or the older program.
    fn find() -> Result<Self, String> {
        if !run("docker", &["info"]).is_ok_and(|output| output.status.success()) {
            return Err("no Docker engine that answers; install docker.io and start it".to_owned());
        }
        for image in ["rust:1-bookworm", "debian:bookworm-slim"] {
            let here = run("docker", &["image", "inspect", image]).is_ok_and(|output| output.status.success());
            let pulled = || run("docker", &["pull", "-q", image]).is_ok_and(|output| output.status.success());
            if !here && !pulled() {
                return Err(format!("no image {image}, and it cannot be pulled"));
            }
        }
        let works = |program: &str, args: &[&str]| run(program, args).is_ok_and(|output| output.status.success());
        let compose = if works("docker", &["compose", "version"]) {
            vec!["docker".to_owned(), "compose".to_owned()]
        } else if works("docker-compose", &["--version"]) {
            vec!["docker-compose".to_owned()]
        } else {
            return Err("no compose; install docker-compose".to_owned());
        };
        let name = format!("twinlite-it-{}", std::process::id());
        Ok(Self { compose, name, file: "docker-compose.yml" })
    }

    /// Another project, with the same program, of two nodes that both write.
    fn two_way(&self) -> Self {
        Self { compose: self.compose.clone(), name: format!("{}-both", self.name), file: "docker-compose.two-way.yml" }
    }

    fn try_compose(&self, args: &[&str]) -> Output {
        Command::new(&self.compose[0])
            .args(&self.compose[1..])
            .args(["-p", &self.name, "-f", self.file])
            .args(args)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            // An unoptimised build is the same program, in a third of the time.
            .env("PROFILE", std::env::var("PROFILE").unwrap_or_else(|_| "quick".to_owned()))
            .output()
            .unwrap()
    }

    #[track_caller]
    fn compose(&self, args: &[&str]) -> String {
        let output = self.try_compose(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "compose {args:?}\n--- stdout\n{out}\n--- stderr\n{err}\n{}", self.logs());
        out.trim().to_owned()
    }

    fn logs(&self) -> String {
        let output = self.try_compose(&["logs", "--no-color", "--tail", "60"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn container(&self, service: &str) -> String {
        self.compose(&["ps", "-q", service])
    }

    fn volume(&self, name: &str) -> PathBuf {
        docker(&["volume", "inspect", "-f", "{{.Mountpoint}}", &format!("{}_{name}", self.name)]).into()
    }

    #[track_caller]
    fn wait_until_healthy(&self, services: [&str; 2]) {
        for service in services {
            let container = self.container(service);
            until(&format!("{service} to be healthy"), || {
                match docker(&["inspect", "-f", "{{.State.Health.Status}}", &container]).as_str() {
                    "healthy" => Ok(()),
                    other => Err(format!("it is {other}\n{}", self.logs())),
                }
            });
        }
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        self.try_compose(&["down", "-v", "--remove-orphans", "-t", "5"]);
    }
}

fn run(program: &str, args: &[&str]) -> std::io::Result<Output> {
    Command::new(program).args(args).output()
}

#[track_caller]
fn docker(args: &[&str]) -> String {
    let output = run("docker", args).unwrap();
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn the_two_containers_replicate_through_kills_and_cuts() {
    let project = match Project::find() {
        Ok(project) => project,
        Err(why) => return skipped(NAME, &why),
    };
    project.compose(&["build"]);
    project.compose(&["run", "--rm", "--no-deps", "source", "sample", "/data/app.db", "--size", "1MB"]);
    let source = project.volume("source-data").join("app.db");
    if std::fs::metadata(&source).is_err() {
        // Same kernel and same file system, or SQLite's locks do not hold: so not from outside a virtual machine.
        return skipped(NAME, "the volume's files cannot be reached from here; run it as root beside the engine");
    }
    project.compose(&["up", "-d"]);
    let replica = project.volume("replica-data").join("replica.db");
    let caught_up = || {
        quiesce_with(&source, &replica, &mut || {});
        assert_equal(&source, &replica);
    };
    caught_up();
    project.wait_until_healthy(["source", "replica"]);

    let conn = open(&source);
    let mut writer = Writer::new(&conn, 21);
    writer.write(&conn, 200);
    caught_up();

    for service in ["source", "replica"] {
        let container = project.container(service);
        docker(&["kill", "--signal", "KILL", &container]);
        writer.write(&conn, 60);
        // Killed by hand, a container stays down, whatever its restart policy.
        docker(&["start", &container]);
        caught_up();
        project.compose(&["restart", service]);
        writer.write(&conn, 60);
        caught_up();
    }

    let network = format!("{}_default", project.name);
    for service in ["replica", "source"] {
        let container = project.container(service);
        docker(&["network", "disconnect", &network, &container]);
        writer.write(&conn, 100);
        docker(&["network", "connect", "--alias", service, &network, &container]);
        caught_up();
    }
    writer.rebuild(&conn);
    writer.write(&conn, Random::new(1).below(50));
    caught_up();
    project.wait_until_healthy(["source", "replica"]);

    let status =
        project.compose(&["exec", "-T", "replica", "twinlite", "status", "--config", "/etc/twinlite/node.yaml"]);
    assert!(status.contains("live"), "{status}");
    let user = project.compose(&["exec", "-T", "replica", "id", "-u"]);
    assert_eq!(user, "10001");
    both_write(&project.two_way());
}

/// The same image with the other file: each side writes, is killed, and has in the end what the other has.
fn both_write(project: &Project) {
    project.compose(&["run", "--rm", "--no-deps", "node-a", "sample", "/data/app.db", "--size", "1MB"]);
    project.compose(&["up", "-d"]);
    let [a, b] = ["a-data", "b-data"].map(|volume| project.volume(volume).join("app.db"));
    let equal = || {
        until("both to be equal", || {
            quiesce_with(&a, &b, &mut || {});
            quiesce_with(&b, &a, &mut || {});
            let (at_a, at_b) = (content(&a), content(&b));
            if at_a == at_b { Ok(()) } else { Err(format!("{} and {} bytes of rows", at_a.len(), at_b.len())) }
        });
    };
    equal();
    for (number, (file, service)) in [(&a, "node-a"), (&b, "node-b")].into_iter().enumerate() {
        let conn = open(file);
        let insert = format!(
            "INSERT INTO customers(id, email, name, joined_at) VALUES ({0}, 'both{0}', 'x', 0)",
            9_000_000 + number
        );
        conn.execute_batch(&insert).unwrap();
        docker(&["kill", "--signal", "KILL", &project.container(service)]);
        conn.execute_batch("UPDATE customers SET name = 'changed' WHERE id < 10").unwrap();
        docker(&["start", &project.container(service)]);
        equal();
    }
    project.wait_until_healthy(["node-a", "node-b"]);
}

/// What the shop's tables hold, by name. Triggers do not travel between two that both write, so the schemas differ.
fn content(file: &Path) -> String {
    let conn = open_reader(file);
    let row = "SELECT group_concat(id || email || name, ';') FROM (SELECT * FROM customers ORDER BY id)";
    let customers: Option<String> = conn.query_row(row, [], |row| row.get(0)).unwrap_or_default();
    let counts = ["products", "orders", "lines", "visits"].map(|table| {
        conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap_or(-1)
    });
    format!("{customers:?} {counts:?}")
}
