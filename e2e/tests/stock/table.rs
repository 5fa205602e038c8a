//! What came of each cell, as text.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Cells in the order in which they were tried: column, row, and why it is not good.
#[derive(Debug, Default)]
pub(crate) struct Table {
    cells: Vec<(String, String, Result<(), String>)>,
}

impl Table {
    pub(crate) fn record(&mut self, column: &str, row: &str, outcome: Result<(), String>) {
        self.cells
            .push((column.to_owned(), row.to_owned(), outcome));
    }

    /// Whether something was tried and all of it came out well.
    pub(crate) fn is_good(&self) -> bool {
        !self.cells.is_empty() && self.cells.iter().all(|(.., outcome)| outcome.is_ok())
    }

    fn in_order(
        &self,
        name: impl Fn(&(String, String, Result<(), String>)) -> String,
    ) -> Vec<String> {
        let mut names = Vec::new();
        for cell in &self.cells {
            let name = name(cell);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.in_order(|(column, ..)| column.clone());
        let rows = self.in_order(|(_, row, _)| row.clone());
        let width = rows.iter().map(String::len).max().unwrap_or_default();
        write!(f, "\n| {:width$} |", "outbound -> inbound")?;
        for column in &columns {
            write!(f, " {column} |")?;
        }
        write!(f, "\n|-{:-<width$}-|", "")?;
        for column in &columns {
            write!(f, "-{:-<width$}-|", "", width = column.len())?;
        }
        for row in &rows {
            write!(f, "\n| {row:width$} |")?;
            for column in &columns {
                let found = self.cells.iter().find(|(c, r, _)| c == column && r == row);
                let word = match found {
                    Some((.., Ok(()))) => "ok",
                    Some((.., Err(_))) => "FAILED",
                    None => "-",
                };
                write!(f, " {word:width$} |", width = column.len())?;
            }
        }
        writeln!(f)?;
        for (column, row, outcome) in &self.cells {
            if let Err(reason) = outcome {
                writeln!(f, "\nFAILED {column}: {row}: {reason}")?;
            }
        }
        Ok(())
    }
}

/// What `work` comes to; a panic's message if it does not end well.
pub(crate) fn outcome<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "it panicked".to_owned())
    })
}
