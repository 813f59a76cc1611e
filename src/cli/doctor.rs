//! `twinlite doctor`: what is wrong, or risky, about databases, found without changing anything.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::args::{self, Doctor, Output};
use super::{Outcome, Usage, output};
use crate::config::NodeConfig;
use crate::doctor::facts::Subject;
use crate::doctor::{self, FORMAT, Report, Severity};
use crate::node::capture_options;

/// Runs the command.
///
/// # Errors
/// [`Usage`], where a database is not there; a wrong configuration.
pub fn run(args: &Doctor, form: Output) -> anyhow::Result<Outcome> {
    let subjects = subjects(args)?;
    let reports = doctor::examine(&subjects, args.deep);
    let is_error = |report: &Report| report.findings.iter().any(|finding| finding.severity == Severity::Error);
    let found = reports.iter().any(is_error);
    match form {
        Output::Json => output::json(&Answer { format: FORMAT, healthy: !found, databases: &reports })?,
        Output::Table => output::print(&reports.iter().map(person).collect::<Vec<_>>().join("\n"))?,
    }
    Ok(if found { Outcome::Found } else { Outcome::Done })
}

/// What programs get; docs/doctor.md has it as a contract.
#[derive(Serialize)]
struct Answer<'a> {
    format: u32,
    healthy: bool,
    databases: &'a [Report],
}

/// Every database that is named, once: those of the configuration first, with what it says of them.
fn subjects(args: &Doctor) -> anyhow::Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    if let Some(config) = &args.config {
        subjects.extend(args::config(config)?.nodes.iter().map(|node| of_node(node, args.two_way)));
    }
    for database in &args.db {
        let known = subjects.iter().any(|subject: &Subject| is_same(&subject.database, database));
        if !known {
            subjects.push(Subject {
                database: database.clone(),
                options: None,
                only_receives: false,
                two_way: args.two_way,
                user_triggers: false,
            });
        }
    }
    for subject in &subjects {
        let database = subject.database.display();
        if !subject.database.exists() {
            return Err(Usage(format!("{database}: no such database; check the path")).into());
        }
        if subject.database.is_dir() {
            return Err(Usage(format!("{database}: a folder, not a database; name the file")).into());
        }
    }
    Ok(subjects)
}

fn of_node(node: &NodeConfig, two_way: bool) -> Subject {
    let only_receives = !node.links.is_empty() && !node.captures();
    Subject {
        database: node.database.clone(),
        options: (!only_receives).then(|| capture_options(node)),
        only_receives,
        two_way: two_way || node.merges(),
        user_triggers: node.links.iter().any(|link| link.user_triggers),
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

/// A report as a person reads it.
fn person(report: &Report) -> String {
    let mut text = format!("{}\n", report.database);
    for finding in &report.findings {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {} {}: {}", finding.severity.word(), finding.check, finding.found);
        let _ = writeln!(text, "    why: {}", finding.why);
        let _ = writeln!(text, "    fix: {}", finding.fix);
    }
    let count = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    let counts = [Severity::Error, Severity::Warning, Severity::Info].map(|severity| (severity, count(severity)));
    let some = counts.iter().filter(|(_, count)| *count > 0);
    let plural = |severity: Severity, count| if count > 1 && severity != Severity::Info { "s" } else { "" };
    let said =
        |(severity, count): &(Severity, usize)| format!("{count} {}{}", severity.word(), plural(*severity, *count));
    let some: Vec<String> = some.map(said).collect();
    let _ = match some.as_slice() {
        [] => writeln!(text, "  nothing found"),
        some => writeln!(text, "  found: {}", some.join(", ")),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Finding;

    #[test]
    fn a_person_reads_what_why_and_what_to_do() {
        let finding = |check, severity| Finding {
            check,
            severity,
            found: "t is so".to_owned(),
            objects: vec!["t".to_owned()],
            why: "It matters.",
            fix: "Do this.",
        };
        let findings =
            vec![finding("one", Severity::Error), finding("two", Severity::Info), finding("x", Severity::Info)];
        let mut report = Report { database: "a.db".to_owned(), node_id: None, findings };
        let wanted = "a.db\n  error one: t is so\n    why: It matters.\n    fix: Do this.\n  info two: t is so\n    \
                      why: It matters.\n    fix: Do this.\n  info x: t is so\n    why: It matters.\n    fix: Do this.\n  \
                      found: 1 error, 2 info\n";
        assert_eq!(person(&report), wanted);
        report.findings.clear();
        assert_eq!(person(&report), "a.db\n  nothing found\n");
    }
}
