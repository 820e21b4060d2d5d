//! Tables on standard output: columns as wide as they must be, no lines, no colours.

/// Rows under headings; numbers stand to the right.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new<const N: usize>(headings: [&str; N]) -> Table {
        Table {
            rows: vec![headings.map(str::to_owned).to_vec()],
        }
    }

    /// Add a row; text from machines is shown without control characters.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(
            cells
                .iter()
                .map(|cell| netflash_pxe::plain(cell, 200))
                .collect(),
        );
    }

    /// The table as text.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |at: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let space = " ".repeat(width - cell.chars().count());
                line += &format!("{cell}{space}  ");
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// A number of bytes with a decimal unit, as disks and networks are sold.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{} kB", count / 1_000),
        1_000_000..1_000_000_000 => format!("{} MB", count / 1_000_000),
        _ => format!("{:.1} GB", count as f64 / 1e9),
    }
}

/// The time since `then`, both in seconds since 1970.
pub(crate) fn ago(then: u64, now: u64) -> String {
    match now.saturating_sub(then) {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7_200 => format!("{} min ago", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h ago", seconds / 3_600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::{Table, ago, bytes};

    #[test]
    fn columns_are_aligned_and_harmless() {
        let mut table = Table::new(["NAME", "STATE"]);
        table.row(["lab1".to_owned(), "done".to_owned()]);
        table.row(["a-long-name".to_owned(), "x\x1b[2J".to_owned()]);
        assert_eq!(
            table.render(),
            "NAME         STATE\nlab1         done\na-long-name  x [2J\n"
        );
    }

    #[test]
    fn amounts_are_short() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_500_000_000), "1.5 GB");
        assert_eq!(ago(100, 90), "0 s ago");
        assert_eq!(ago(0, 600), "10 min ago");
    }
}
