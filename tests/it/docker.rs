//! The two containers of `docker-compose.yml`: built, brought up, written to, killed, cut off, healed, and taken down.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use crate::support::{
    open, oracle::assert_equal, process::quiesce_with, random::Random, shop::Writer, skipped, wait::until,
};

const NAME: &str = "the_two_containers_replicate_through_kills_and_cuts";

/// A compose project of its own, taken down with its volumes when dropped.
struct Project {
    compose: Vec<String>,
    name: String,
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
        Ok(Self { compose, name })
    }

    fn try_compose(&self, args: &[&str]) -> Output {
        Command::new(&self.compose[0])
            .args(&self.compose[1..])
            .args(["-p", &self.name])
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
    fn wait_until_healthy(&self) {
        for service in ["source", "replica"] {
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
    project.wait_until_healthy();

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
    project.wait_until_healthy();

    let status =
        project.compose(&["exec", "-T", "replica", "twinlite", "status", "--config", "/etc/twinlite/node.yaml"]);
    assert!(status.contains("live"), "{status}");
    let user = project.compose(&["exec", "-T", "replica", "id", "-u"]);
    assert_eq!(user, "10001");
}
