//! Tables for people: columns two spaces apart, no lines, nothing a `cut` would trip over.

use std::fmt;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, presets};

/// On a terminal that is narrower than its rows, a table wraps its cells; in a pipe it never does.
#[derive(Debug)]
pub(crate) struct Table {
    inner: comfy_table::Table,
}

/// A column: its heading, and to which side its cells lean.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column<'a> {
    Left(&'a str),
    Right(&'a str),
}

/// Names and values, one a line; what has no value is left out.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    lines: Vec<(String, String)>,
}

// === impl Table ===

impl Table {
    pub(crate) fn new(columns: &[Column<'_>]) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_preset(presets::NOTHING);
        inner.set_content_arrangement(ContentArrangement::Dynamic);
        inner.set_header(columns.iter().map(|column| column.heading()));
        for (index, column) in columns.iter().enumerate() {
            let Some(made) = inner.column_mut(index) else { continue };
            made.set_padding((0, 2));
            if let Column::Right(_) = column {
                made.set_cell_alignment(CellAlignment::Right);
                // Numbers are read as a whole; other columns give way.
                made.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        Self { inner }
    }

    pub(crate) fn row<I>(&mut self, cells: I)
    where
        I: IntoIterator,
        I::Item: ToString,
    {
        self.inner.add_row(cells.into_iter().map(|cell| printable(&cell.to_string())));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.trim_fmt())
    }
}

// === impl Column ===

impl Column<'_> {
    fn heading(&self) -> &str {
        match self {
            Self::Left(heading) | Self::Right(heading) => heading,
        }
    }
}

// === impl Facts ===

impl Facts {
    pub(crate) fn add(&mut self, name: &str, value: impl ToString) {
        let value = printable(&value.to_string());
        if !value.is_empty() {
            self.lines.push((printable(name), value));
        }
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (index, (name, value)) in self.lines.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{name:width$}  {value}")?;
        }
        Ok(())
    }
}

/// File names may hold anything, escape sequences for the terminal included.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_trailing_blanks() {
        let mut table =
            Table::new(&[Column::Right("RANK"), Column::Left("FILE"), Column::Left("ID")]);
        table.row(["1", "été.jpg", "3f2a"]);
        table.row(["10", "a-long-name.png", ""]);
        let expected = "\
RANK  FILE             ID
   1  été.jpg          3f2a
  10  a-long-name.png";
        assert_eq!(table.to_string(), expected, "as printed");
    }

    #[test]
    fn facts_line_up_and_leave_out_what_is_not_there() {
        let mut facts = Facts::default();
        facts.add("id", "a.jpg");
        facts.add("uri", "");
        facts.add("content hash", "3f2a");
        assert_eq!(facts.to_string(), "id            a.jpg\ncontent hash  3f2a", "two of three");
    }

    #[test]
    fn a_file_name_cannot_command_the_terminal() {
        let mut table = Table::new(&[Column::Left("FILE")]);
        table.row(["\u{1b}[2Jx\n"]);
        assert_eq!(table.to_string(), "FILE\n\u{fffd}[2Jx\u{fffd}", "escapes are shown, not sent");
    }
}
