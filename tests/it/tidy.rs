//! What no compiler holds: the direction of imports, the size of things, and that each module of these tests is listed.
//!
//! Adding an edge between modules is a one-line diff in [`ALLOWED`] that a reader of the change sees.

use std::{
    fs,
    path::{Path, PathBuf},
};

const FILE_LINES_MAX: usize = 500;
const MOD_LINES_MAX: usize = 120;
const FUNCTION_LINES_MAX: usize = 70;

/// What stages and everything above them may use.
const TOOLS: &[&str] = &["model", "config", "telemetry", "sqlite", "codec", "migrate"];

/// Stages, which never meet.
const STAGES: &[&str] = &["capture", "cloudquery", "link", "apply", "admin"];

/// Each module with the modules of ours that it may import. Layers from the bottom up.
const ALLOWED: &[(&str, &[&[&str]])] = &[
    ("model", &[]),
    ("config", &[&["model"]]),
    ("telemetry", &[&["model"]]),
    ("sqlite", &[&["model"]]),
    ("codec", &[&["model"]]),
    ("migrate", &[&["model", "sqlite", "codec"]]),
    ("capture", &[TOOLS]),
    ("cloudquery", &[TOOLS]),
    ("link", &[TOOLS]),
    ("apply", &[TOOLS]),
    ("admin", &[TOOLS]),
    ("doctor", &[TOOLS, &["capture", "admin"]]),
    ("events", &[TOOLS, &["capture", "admin"]]),
    ("replicate", &[TOOLS, STAGES]),
    ("node", &[TOOLS, STAGES, &["events", "replicate"]]),
    ("cli", &[TOOLS, STAGES, &["doctor", "events", "replicate", "node"]]),
    ("main", &[&["cli"]]),
];

/// A source file: its module, its place, and its text.
struct Source {
    module: String,
    path: PathBuf,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    assert!(files.len() > 20, "found only {} source files below {}", files.len(), root.display());
    files
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(&root).unwrap();
            let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
            Source {
                module: first.trim_end_matches(".rs").to_owned(),
                text: fs::read_to_string(&path).unwrap(),
                path: inside.to_owned(),
            }
        })
        .collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The modules of ours that a text names: `crate::x`, `twinlite::x`, and each of `crate::{x, y}`. Comments do not count,
/// for documentation may point upwards; nor do strings, for a log filter may name anything.
fn imports(text: &str) -> Vec<String> {
    let code: String = text.lines().map(without_strings).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for root in ["crate::", "twinlite::"] {
        for (at, _) in code.match_indices(root) {
            if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$') {
                continue;
            }
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(group_heads(group)),
                None => found.extend(identifier(rest)),
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// A line of code without its strings and its comment.
fn without_strings(line: &str) -> String {
    let code = line.split("//").next().unwrap_or_default();
    code.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

/// The first name of each item of a `{…}` import, whose opening brace is already taken.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut start) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if c.is_whitespace() => {}
            _ if start && depth == 0 => {
                heads.extend(identifier(&group[at..]));
                start = false;
            }
            _ => {}
        }
    }
    heads
}

fn identifier(text: &str) -> Option<String> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

#[test]
fn imports_point_downwards() {
    let known: Vec<&str> = ALLOWED.iter().map(|(module, _)| *module).collect();
    let mut faults = Vec::new();
    for source in sources() {
        if source.module == "lib" {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(module, _)| *module == source.module) else {
            faults.push(format!("src/{}: module {} has no layer", source.path.display(), source.module));
            continue;
        };
        for import in imports(&source.text) {
            let ours = known.contains(&import.as_str());
            if ours && import != source.module && !allowed.iter().any(|group| group.contains(&import.as_str())) {
                faults.push(format!("src/{}: {} may not import {import}", source.path.display(), source.module));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn import_finder_sees_every_form() {
    let text = "use crate::{a, b::{c, d}, e as f};\nuse crate::g::h;\nlet x = crate::i::j(); // crate::no\nmycrate::k(\"crate::no\");";
    assert_eq!(imports(text), ["a", "b", "e", "g", "i"]);
}

#[test]
fn files_stay_small() {
    let mut faults = Vec::new();
    for source in sources() {
        // A module of tests alone is no table of contents.
        let is_mod = source.path.ends_with("mod.rs") && !source.path.ends_with("tests/mod.rs");
        let max = if is_mod { MOD_LINES_MAX } else { FILE_LINES_MAX };
        let lines = source.text.lines().count();
        if lines > max {
            faults.push(format!("src/{}: {lines} lines, at most {max}", source.path.display()));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn functions_stay_small() {
    let faults: Vec<String> = sources()
        .iter()
        .flat_map(|source| long_functions(&source.text, FUNCTION_LINES_MAX).into_iter().map(move |what| (source, what)))
        .map(|(source, what)| format!("src/{}: {what}, at most {FUNCTION_LINES_MAX}", source.path.display()))
        .collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Every function longer than `max` lines, from the line of its `fn` to the brace that closes it at the same indent
/// (rustfmt puts it there). Modules of tests, which end each file, do not count.
fn long_functions(text: &str, max: usize) -> Vec<String> {
    let lines: Vec<&str> = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let Some(name) = function_name(code) else { continue };
        let close = format!("{indent}}}");
        let Some(length) = lines[at..].iter().position(|line| *line == close) else { continue };
        let bodiless = lines[at..at + length].iter().find(|line| line.ends_with(';') || line.ends_with('{'));
        if bodiless.is_some_and(|line| line.ends_with(';')) {
            continue;
        }
        if length + 1 > max {
            found.push(format!("fn {name} has {} lines", length + 1));
        }
    }
    found
}

fn function_name(code: &str) -> Option<String> {
    let mut words = code.split(' ');
    let mut word = words.next()?;
    while word.starts_with("pub") || ["const", "async", "unsafe", "extern", "\"C\"", "super)"].contains(&word) {
        word = words.next()?;
    }
    if word == "fn" { identifier(words.next()?) } else { None }
}

#[test]
fn a_long_function_is_found_and_a_signature_is_not() {
    let body = "    let x = 1;\n".repeat(5);
    let text = format!(
        "trait T {{\n    fn sign(&self);\n{body}}}\nimpl A {{\n    pub(crate) async fn long() {{\n{body}    }}\n}}\n"
    );
    assert_eq!(long_functions(&text, 6), ["fn long has 7 lines"]);
    assert!(long_functions(&text, 7).is_empty());
}

#[test]
fn every_file_says_what_it_is() {
    let faults: Vec<String> = sources()
        .iter()
        .filter(|source| !source.text.starts_with("//!"))
        .map(|source| format!("src/{}: does not begin with `//!`", source.path.display()))
        .collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_module_of_these_tests_is_in_the_table_of_the_architecture() {
    let table = include_str!("../../ARCHITECTURE.md").split("## Tests").nth(1).unwrap();
    let rows: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect();
    let modules = include_str!("main.rs").lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    for module in modules.filter(|module| *module != "support") {
        assert!(rows.iter().any(|row| row.contains(&format!("`{module}`"))), "ARCHITECTURE.md: no row for {module}");
    }
}
