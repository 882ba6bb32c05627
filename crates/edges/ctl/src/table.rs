//! Tables of text: a line of names, then lines of cells, columns aligned.

/// Lines of cells; the first cell of each is what the line is about.
#[derive(Debug, Default)]
pub(crate) struct Table {
    lines: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn line(&mut self, name: &str, cells: impl IntoIterator<Item = String>) {
        let mut line = vec![name.to_owned()];
        line.extend(cells);
        self.lines.push(line);
    }

    /// Two blanks between columns, none at the ends of lines.
    pub(crate) fn text(&self) -> String {
        let columns = self.lines.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for line in &self.lines {
            let padded = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}  "));
            text.push_str(padded.collect::<String>().trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::default();
        table.line("", ["a".to_owned(), "b".to_owned()]);
        table.line("role", ["master".to_owned(), "standby".to_owned()]);
        table.line("größe", ["1".to_owned(), "-".to_owned()]);
        assert_eq!(table.text(), "       a       b\nrole   master  standby\ngröße  1       -\n");
    }
}
