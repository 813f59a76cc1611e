//! `twinlite conflicts`: what lost where both ends had changed a row, looked at and settled.
//!
//! Looking reads the database itself. Settling is asked of the process that owns it, or done here without one.

use anyhow::{Context as _, Result};
use serde_json::json;

use super::args::{self, Conflicts, ConflictsCommand, Output};
use super::{Outcome, Usage, output};
use crate::admin::{self, Request, Settlement};
use crate::apply::conflicts::{self, Loser, Record, Summary};
use crate::config::NodeConfig;
use crate::model::Value;
use crate::node::settle;
use crate::sqlite::{self, Role};

/// Characters of a value that a person is shown; `-o json` has all of it.
const SHOWN_MAX: usize = 120;

/// Runs the command.
///
/// # Errors
/// No such conflict, a database that cannot be read, or why a loser cannot win.
pub async fn run(args: &Conflicts, form: Output) -> Result<Outcome> {
    match &args.what {
        ConflictsCommand::List(args) => list(&database(&args.target)?, form)?,
        ConflictsCommand::Show(args) => show(&database(&args.target)?, args.id, form)?,
        ConflictsCommand::Apply(args) => {
            change(&database(&args.target)?, Settlement::Apply { id: args.id }, form).await?;
        }
        ConflictsCommand::Drop(args) => {
            let settlement = if args.all { Settlement::DropAll } else { Settlement::Drop { ids: args.ids.clone() } };
            change(&database(&args.target)?, settlement, form).await?;
        }
    }
    Ok(Outcome::Done)
}

/// The database that is meant: an id says nothing where there are several.
fn database(target: &args::Target) -> Result<NodeConfig> {
    let mut nodes = target.nodes()?;
    if nodes.len() > 1 {
        let files: Vec<String> = nodes.iter().map(|node| node.database.display().to_string()).collect();
        return Err(Usage(format!(
            "the configuration has several databases; say --db with one of {}",
            files.join(", ")
        ))
        .into());
    }
    nodes.pop().ok_or_else(|| Usage("the configuration has no database".to_owned()).into())
}

/// Prints all of them a page at a time: there may be very many, and some of them large.
fn list(node: &NodeConfig, form: Output) -> Result<()> {
    let reader = sqlite::open(&node.database, Role::Reader, false)?;
    let (mut after, mut listed) = (None, Listed::new(form));
    loop {
        let page = conflicts::page(&reader, after).with_context(|| node.database.display().to_string())?;
        let Some(last) = page.last() else { return output::print(listed.end()) };
        after = Some(last.summary.id);
        if !output::part(&listed.page(&page)?)? {
            return Ok(());
        }
    }
}

/// What a list looks like, page by page.
struct Listed {
    form: Output,
    columns: output::Columns,
    is_first: bool,
}

impl Listed {
    fn new(form: Output) -> Self {
        Self { form, columns: output::Columns::default(), is_first: true }
    }

    fn page(&mut self, page: &[Record]) -> Result<String> {
        let is_first = std::mem::replace(&mut self.is_first, false);
        let head = ["id", "when (UTC)", "table", "key", "won", "lost", "why", "policy", "versions", "peer"];
        match self.form {
            Output::Table => {
                let head = is_first.then(|| head.map(str::to_owned).to_vec());
                let rows: Vec<_> = head.into_iter().chain(page.iter().map(|found| line(&found.summary))).collect();
                Ok(self.columns.lines(&rows))
            }
            Output::Json => {
                let mut text = String::new();
                for (place, found) in page.iter().enumerate() {
                    text.push_str(if is_first && place == 0 { "[\n  " } else { ",\n  " });
                    // A line break within a string is escaped, so each of these is between two values.
                    text.push_str(&serde_json::to_string_pretty(&whole(found))?.replace('\n', "\n  "));
                }
                Ok(text)
            }
        }
    }

    /// What comes after the last page.
    fn end(&self) -> &'static str {
        match (self.form, self.is_first) {
            (Output::Json, true) => "[]",
            (Output::Json, false) => "\n]",
            (Output::Table, true) => "no conflicts are recorded",
            (Output::Table, false) => "",
        }
    }
}

fn line(found: &Summary) -> Vec<String> {
    let time = |at: &str| at.replace('T', " ").split('.').next().unwrap_or_default().to_owned();
    vec![
        found.id.to_string(),
        time(&found.at),
        found.table.clone(),
        found.key.shown(),
        winner(found),
        lost(found).to_owned(),
        why(found),
        policy(found),
        versions(found),
        peer(found),
    ]
}

fn winner(found: &Summary) -> String {
    match found.winner.as_str() {
        "local" => "here".to_owned(),
        "incoming" => peer(found),
        _ => "-".to_owned(),
    }
}

fn lost(found: &Summary) -> &'static str {
    match (found.is_row, found.is_foreign_key()) {
        (true, _) => "row",
        (false, true) => "-",
        (false, false) => "deletion",
    }
}

fn why(found: &Summary) -> String {
    let refers_to = found.refers_to.as_ref().map(|table| format!(": refers to {table}"));
    format!("{}{}", found.why, refers_to.unwrap_or_default())
}

fn policy(found: &Summary) -> String {
    found.policy.clone().unwrap_or_else(|| "-".to_owned())
}

fn versions(found: &Summary) -> String {
    let said = |version: &Option<String>| version.clone().unwrap_or_else(|| "-".to_owned());
    match (&found.local_version, &found.incoming_version) {
        (None, None) => "-".to_owned(),
        (local, incoming) => format!("here {}, peer {}", said(local), said(incoming)),
    }
}

fn peer(found: &Summary) -> String {
    let id = || found.peer.map_or_else(|| "-".to_owned(), |peer| peer.to_string());
    found.peer_name.clone().unwrap_or_else(id)
}

fn show(node: &NodeConfig, id: i64, form: Output) -> Result<()> {
    let record = conflicts::get(&sqlite::open(&node.database, Role::Reader, false)?, id)
        .with_context(|| node.database.display().to_string())?;
    match form {
        Output::Json => output::json(&whole(&record)),
        Output::Table => output::print(&person(&record)),
    }
}

/// A conflict as a person reads it.
fn person(record: &Record) -> String {
    let found = &record.summary;
    let mut text = format!("conflict {}: table \"{}\", key {}\n", found.id, found.table, found.key.shown());
    let said = [
        ("when", found.at.replace('T', " ")),
        ("won", winner(found)),
        ("why", why(found)),
        ("policy", policy(found)),
        ("versions", versions(found)),
        ("peer", peer(found)),
    ];
    let said: Vec<Vec<String>> = said.into_iter().map(|(name, value)| vec![format!("  {name}"), value]).collect();
    text.push_str(&output::columns(&said));
    match &record.loser {
        Loser::Deletion(_) => text.push_str("what lost: the row was deleted\n"),
        Loser::Nothing(columns) => {
            let (columns, table) = (columns.join(", "), found.refers_to.as_deref().unwrap_or_default());
            text.push_str(&format!("nothing lost: ({columns}) refers to a row of \"{table}\" that is not there\n"));
        }
        Loser::Row(row) => {
            text.push_str("what lost:\n");
            let rows: Vec<Vec<String>> =
                row.iter().map(|(name, value)| vec![format!("  {name}"), cut(value)]).collect();
            text.push_str(&output::columns(&rows));
        }
    }
    text
}

/// A value as SQL, on one line, cut where it is long.
fn cut(value: &Value) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (open, text) = match value {
        Value::Null => return "NULL".to_owned(),
        Value::Integer(integer) => return integer.to_string(),
        Value::Real(real) => return format!("{real:?}"),
        Value::Text(text) => ("'", String::from_utf8_lossy(text).escape_debug().to_string()),
        Value::Blob(blob) => ("x'", hex(&blob[..blob.len().min(SHOWN_MAX)])),
    };
    let head: String = text.chars().take(SHOWN_MAX).collect();
    let long = head.len() < text.len() || matches!(value, Value::Blob(blob) if blob.len() * 2 > SHOWN_MAX);
    let rest = if long { format!("… ({} bytes)", value.size_bytes() - 4) } else { String::new() };
    format!("{open}{head}'{rest}")
}

fn summary(found: &Summary) -> serde_json::Value {
    json!({
        "id": found.id,
        "at": found.at,
        "table": found.table,
        "key": found.key.0.iter().map(value).collect::<Vec<_>>(),
        "winner": Some(&found.winner).filter(|winner| !winner.is_empty()),
        "lost": if found.is_foreign_key() { None } else { Some(lost(found)) },
        "why": found.why,
        "policy": found.policy,
        "refers_to": found.refers_to,
        "local_version": found.local_version,
        "incoming_version": found.incoming_version,
        "peer": { "id": found.peer.map(|peer| peer.to_string()), "name": found.peer_name },
    })
}

fn whole(record: &Record) -> serde_json::Value {
    let mut all = summary(&record.summary);
    all["row"] = match &record.loser {
        Loser::Row(row) => {
            let column = |(name, found): &(String, Value)| {
                let mut column = value(found);
                column["column"] = json!(name);
                column
            };
            row.iter().map(column).collect()
        }
        Loser::Deletion(_) | Loser::Nothing(_) => serde_json::Value::Null,
    };
    if let Loser::Nothing(columns) = &record.loser {
        all["columns"] = json!(columns);
    }
    all
}

/// A value with its storage class, so that nothing is guessed: what JSON has no form for stands there as hexadecimal.
fn value(found: &Value) -> serde_json::Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match found {
        Value::Null => json!({ "class": "null", "value": null }),
        Value::Integer(integer) => json!({ "class": "integer", "value": integer }),
        Value::Real(real) if real.is_finite() => json!({ "class": "real", "value": real }),
        Value::Real(real) => json!({ "class": "real", "hex": hex(&real.to_be_bytes()) }),
        Value::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => json!({ "class": "text", "value": text }),
            Err(_) => json!({ "class": "text", "hex": hex(text) }),
        },
        Value::Blob(blob) => json!({ "class": "blob", "hex": hex(blob) }),
    }
}

/// Has it settled by the owner, or here.
async fn change(node: &NodeConfig, settlement: Settlement, form: Output) -> Result<()> {
    let request = Request::Conflicts(settlement.clone());
    let lines = match admin::ask(&node.database, &request).await? {
        Some(response) => {
            let failure = || format!("{}: {}", node.database.display(), response.lines.join("; "));
            if response.usage {
                return Err(Usage(failure()).into());
            }
            anyhow::ensure!(response.ok, failure());
            response.lines
        }
        None => {
            let database = node.database.clone();
            let work = move || settle(&database, &settlement);
            let done = tokio::task::spawn_blocking(work).await.context("the command's thread ended")?;
            done.with_context(|| node.database.display().to_string())?.lines
        }
    };
    match form {
        Output::Json => output::json(&json!({ "done": lines })),
        Output::Table => output::print(&lines.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_for_people_and_whole_for_programs() {
        let (text, blob) = (Value::text(&"a\n".repeat(1_000)), Value::Blob(vec![255; 200]));
        assert!(cut(&text).ends_with("'… (2000 bytes)") && !cut(&text).contains('\n'), "{}", cut(&text));
        assert!(cut(&blob).starts_with("x'ffff") && cut(&blob).ends_with("'… (200 bytes)"));
        assert_eq!(cut(&Value::text("it")), "'it'");
        assert_eq!(value(&blob)["hex"].as_str().map(str::len), Some(400));
        assert_eq!(value(&Value::Text(vec![0xff]))["hex"], "ff");
        assert_eq!(value(&Value::Real(f64::INFINITY))["hex"], "7ff0000000000000");
    }

    #[test]
    fn a_list_in_pages_is_one_table_and_one_array() {
        let record = |id, key: &str| {
            let summary = Summary {
                id,
                at: "2026-07-28T14:03:07.123Z".to_owned(),
                peer: None,
                peer_name: Some("b".to_owned()),
                table: "t".to_owned(),
                key: crate::model::Key(vec![Value::text(key)]),
                winner: "local".to_owned(),
                policy: Some("last_write_wins".to_owned()),
                refers_to: None,
                why: "concurrent".to_owned(),
                local_version: None,
                incoming_version: None,
                is_row: true,
            };
            Record { summary, loser: Loser::Row(vec![("k".to_owned(), Value::text("a\nb"))]) }
        };
        let pages = [vec![record(1, "x"), record(2, "y")], vec![record(3, "a longer key")]];
        let said = |form, pages: &[Vec<Record>]| {
            let mut listed = Listed::new(form);
            let parts: Vec<String> = pages.iter().map(|page| listed.page(page).expect("a page")).collect();
            parts.concat() + listed.end()
        };
        let whole_list: Vec<serde_json::Value> = pages.iter().flatten().map(whole).collect();
        assert_eq!(said(Output::Json, &pages), serde_json::to_string_pretty(&whole_list).expect("JSON"));
        assert_eq!(said(Output::Json, &[]), "[]");
        let table = said(Output::Table, &pages);
        assert_eq!((table.lines().count(), table.matches("when (UTC)").count()), (4, 1), "{table}");
        assert_eq!(said(Output::Table, &[]), "no conflicts are recorded");
    }
}
