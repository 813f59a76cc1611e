//! What values refer to: `${VAR}` is a variable of the environment, `${file:PATH}` a file's content without its last line
//! break, `$${` a plain `${`.

use std::collections::BTreeMap;

/// Replaces every reference in a value.
///
/// # Errors
/// A sentence for the person who wrote the value.
pub(super) fn expand(value: &str, environment: &BTreeMap<String, String>) -> Result<String, String> {
    let mut expanded = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = &from[2..];
            continue;
        }
        expanded.push_str(before);
        let end = from.find('}').ok_or("`${` without its `}`; write `$${` for a plain `${`")?;
        expanded.push_str(&referred(&from[2..end], environment)?);
        rest = &from[end + 1..];
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn referred(reference: &str, environment: &BTreeMap<String, String>) -> Result<String, String> {
    if let Some(path) = reference.strip_prefix("file:") {
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|error| format!("${{file:{path}}} cannot be read ({error}); check path and mode"))?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        return Ok(line.strip_suffix('\r').unwrap_or(line).to_owned());
    }
    let unset = || format!("${{{reference}}} is not set in the environment; set it, or write `$${{` for a plain `${{`");
    environment.get(reference).cloned().ok_or_else(unset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_become_what_they_refer_to() {
        let environment = BTreeMap::from([("A".to_owned(), "one".to_owned()), ("B".to_owned(), "${A}".to_owned())]);
        let expand = |value: &str| expand(value, &environment);
        assert_eq!(expand("x${A}y${A}"), Ok("xoneyone".to_owned()));
        assert_eq!(expand("${B}"), Ok("${A}".to_owned()), "what comes in is not looked at again");
        assert_eq!(expand("$${A} costs $5"), Ok("${A} costs $5".to_owned()));
        assert!(expand("${C}").expect_err("unset").contains("${C} is not set"));
        assert!(expand("${A").is_err());
    }

    #[test]
    fn a_file_loses_its_last_line_break() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "s3cret\r\n").expect("write");
        let value = format!("<${{file:{}}}>", path.display());
        assert_eq!(expand(&value, &BTreeMap::new()), Ok("<s3cret>".to_owned()));
        assert!(expand("${file:/does/not/exist}", &BTreeMap::new()).expect_err("missing").contains("/does/not/exist"));
    }
}
