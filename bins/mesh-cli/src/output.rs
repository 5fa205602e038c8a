//! How answers look: aligned tables, a live line, and colour only where a person reads it.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

/// Standard output.
#[derive(Debug)]
pub(crate) struct Output {
    terminal: bool,
    colour: bool,
    /// Whether the cursor stands at the end of a live line.
    live: bool,
}

/// What a word means, which is what its colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As any text.
    Plain,
    /// A heading.
    Bold,
    /// Of less weight.
    Faint,
    /// All well.
    Good,
    /// Not as it should be.
    Bad,
}

impl Output {
    /// Looks at what standard output is, and at `NO_COLOR` (<https://no-color.org>).
    pub(crate) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            terminal,
            colour,
            live: false,
        }
    }

    /// Whether a person is looking.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Prints a line of its own.
    pub(crate) fn line(&mut self, text: &str) {
        let clear = if std::mem::take(&mut self.live) {
            "\r\x1b[2K"
        } else {
            ""
        };
        // Nothing can be done about a closed pipe; what runs is not ended by it.
        let _ = writeln!(std::io::stdout().lock(), "{clear}{text}");
    }

    /// Replaces the live line. Only on a terminal.
    pub(crate) fn live(&mut self, text: &str) {
        if self.terminal {
            self.live = true;
            let mut out = std::io::stdout().lock();
            // Without wrapping, as only one line can be taken back.
            let _ = write!(out, "\r\x1b[2K\x1b[?7l{text}\x1b[?7h");
            let _ = out.flush();
        }
    }

    /// `text`, coloured if colours are wanted.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            _ if !self.colour => return text.to_owned(),
            Tone::Plain => return text.to_owned(),
            Tone::Bold => "1",
            Tone::Faint => "2",
            Tone::Good => "32",
            Tone::Bad => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Prints a table with its heading.
    pub(crate) fn table(&mut self, table: &Table) {
        for (number, row) in table.lines().iter().enumerate() {
            let row = if number == 0 {
                self.paint(Tone::Bold, row)
            } else {
                row.clone()
            };
            self.line(&row);
        }
    }
}

/// Rows under headings, each column as wide as its widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// No rows yet.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![headings.iter().map(ToString::to_string).collect()],
        }
    }

    /// Adds a row of as many cells as there are headings.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether there is nothing below the headings.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The headings and the rows, aligned, without blanks at the end.
    pub(crate) fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut lines = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:<width$}   ");
            }
            lines.push(line.trim_end().to_owned());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["SERVICE", "ZONE", "CALL"]);
        table.row(["web:80".into(), "eu-1a".into(), "curl x".into()]);
        table.row(["a-long-service:80".into(), String::new(), "é".into()]);
        assert_eq!(
            table.lines(),
            [
                "SERVICE             ZONE    CALL",
                "web:80              eu-1a   curl x",
                "a-long-service:80           é"
            ]
        );
    }

    #[test]
    fn colour_only_where_it_is_wanted() {
        let mut output = Output {
            terminal: true,
            colour: true,
            live: false,
        };
        assert_eq!(output.paint(Tone::Bad, "no"), "\x1b[31mno\x1b[0m");
        output.colour = false;
        assert_eq!(output.paint(Tone::Bad, "no"), "no");
    }
}
