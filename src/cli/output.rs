//! Results on stdout.

use std::io::{ErrorKind, Write};

pub use crate::replicate::verify::grouped as thousands;

/// Prints a result. That the reader went away (`twinlite plan | head`) is no failure of ours.
///
/// # Errors
/// Any other failure to write.
pub fn print(text: &str) -> anyhow::Result<()> {
    let ending = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    part(&format!("{text}{ending}")).map(drop)
}

/// Prints a part of a result, as it is. Whether anybody reads on.
///
/// # Errors
/// As [`print()`].
pub fn part(text: &str) -> anyhow::Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        written => Ok(written.is_ok()),
    }
}

/// Prints something for programs, indented so that people can read it too.
///
/// # Errors
/// A failure to write.
pub fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

/// Rows as aligned columns, two spaces between, none at a line's end.
pub fn columns(rows: &[Vec<String>]) -> String {
    Columns::default().lines(rows)
}

/// Aligned columns of rows that come in parts: a part is at least as wide as those before it.
#[derive(Default)]
pub struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    /// The next rows, as lines.
    pub fn lines(&mut self, rows: &[Vec<String>]) -> String {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in rows {
            let cells: Vec<String> =
                row.iter().zip(&self.widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// A number of bytes in the unit that suits it: `12.4 MiB`.
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut shown = bytes as f64;
    let mut unit = 0;
    while shown >= 1024.0 && unit + 1 < UNITS.len() {
        shown /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{shown:.1} {}", UNITS[unit]) }
}

/// A span of time as a person says it: `0.4 s`, `12 s`, `3 min`, `2 h 5 min`, `4 days`.
pub fn span(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds, rounded, not negative")]
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..10 => format!("{:.1} s", seconds.max(0.0)),
        10..120 => format!("{whole} s"),
        120..7_200 => format!("{} min", whole / 60),
        7_200..172_800 => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{} days", whole / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1_000, 1_204_331].map(thousands), ["0", "999", "1,000", "1,204,331"]);
        assert_eq!([0, 1023, 1024, 13_002_342].map(bytes), ["0 B", "1023 B", "1.0 KiB", "12.4 MiB"]);
        let spans = [0.42, 12.4, 130.0, 7_500.0, 400_000.0].map(span);
        assert_eq!(spans, ["0.4 s", "12 s", "2 min", "2 h 5 min", "4 days"]);
    }

    #[test]
    fn columns_line_up_and_end_without_spaces() {
        let rows = [vec!["a".to_owned(), "bb".to_owned()], vec!["ccc".to_owned(), String::new()]];
        assert_eq!(columns(&rows), "a    bb\nccc\n");
        let mut parts = Columns::default();
        let said: String = rows.iter().map(|row| parts.lines(std::slice::from_ref(row))).collect();
        assert_eq!(said + &parts.lines(&rows[..1]), "a  bb\nccc\na    bb\n");
    }
}
