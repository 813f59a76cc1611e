//! `sync_group_id`: a template whose `{{WORDS}}` stand for when and in which run a row was synced.

use chrono::{DateTime, Datelike as _, Timelike as _};

const WORDS: [&str; 6] = ["YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SYNC_ID"];

/// Whether every word of a template is known.
///
/// # Errors
/// A sentence about the first that is not.
pub(super) fn check(template: &str) -> Result<(), String> {
    let mut rest = template;
    while let Some((_, from)) = rest.split_once("{{") {
        let word = from.split_once("}}").map(|(word, _)| word);
        match word.filter(|word| WORDS.contains(word)) {
            Some(word) => rest = &from[word.len() + 2..],
            None => {
                let known = WORDS.map(|word| format!("{{{{{word}}}}}")).join(", ");
                return Err(format!("has a placeholder that is unknown; known are {known}"));
            }
        }
    }
    Ok(())
}

/// The template with every word replaced; times are UTC.
pub(super) fn render(template: &str, now_ms: i64, sync_id: &str) -> String {
    let now = DateTime::from_timestamp_millis(now_ms).unwrap_or_default();
    template
        .replace("{{YEAR}}", &format!("{:04}", now.year()))
        .replace("{{MONTH}}", &format!("{:02}", now.month()))
        .replace("{{DAY}}", &format!("{:02}", now.day()))
        .replace("{{HOUR}}", &format!("{:02}", now.hour()))
        .replace("{{MINUTE}}", &format!("{:02}", now.minute()))
        .replace("{{SYNC_ID}}", sync_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_replaced() {
        let template = "{{YEAR}}-{{MONTH}}-{{DAY}}T{{HOUR}}:{{MINUTE}} {{SYNC_ID}} {{SYNC_ID}} {";
        assert_eq!(check(template), Ok(()));
        assert_eq!(render(template, 1_700_000_000_000, "run"), "2023-11-14T22:13 run run {");
        for wrong in ["{{year}}", "{{SECOND}}", "{{YEAR}", "{{"] {
            assert!(check(wrong).expect_err(wrong).contains("{{SYNC_ID}}"));
        }
    }
}
