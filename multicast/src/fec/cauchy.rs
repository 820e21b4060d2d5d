//! The few equations of a lightly damaged block.
//!
//! Repair symbol `y` is the sum over all source symbols `x` of `source[x] / (x + y)`, in the field of the code: a
//! Cauchy matrix, whose inverse is a product formula. So e lost symbols cost e² multiplications of a
//! symbol instead of the transforms of the whole block.
//!
//! The inverse is `by_column * by_row / (column + row)`. Multiplied in this order, by far the most factors are
//! reciprocals of small numbers: the tables of a few hundred factors stay in the cache, those of all 65535 do not.

/// Logarithms modulo the order of the field's multiplicative group.
pub(super) const ORDER: u16 = 65_535;

/// What stands before the reciprocals in the inverse of the matrix `1 / (row + column)`.
pub(super) struct Inverse {
    /// Logarithm of the factor of each row.
    pub(super) row_logs: Vec<u16>,
    /// Logarithm of the factor of each column.
    pub(super) column_logs: Vec<u16>,
}

impl Inverse {
    /// For distinct rows and columns that have nothing in common, at most some thousands. `log` gives the logarithm
    /// of a field element other than zero.
    pub(super) fn new(rows: &[u16], columns: &[u16], log: impl Fn(u16) -> u16) -> Inverse {
        let order = u32::from(ORDER);
        // Sums of some thousand logarithms: far from overflowing.
        let product = |of: u16, over: &[u16]| {
            let others = over.iter().filter(|&&other| other != of);
            others.map(|&other| u32::from(log(of ^ other))).sum::<u32>() % order
        };
        let logs = |of: &[u16], over: &[u16]| {
            let factor = |&one: &u16| (product(one, over) + order - product(one, of)) % order;
            of.iter().map(|one| factor(one) as u16).collect()
        };
        Inverse {
            row_logs: logs(rows, columns),
            column_logs: logs(columns, rows),
        }
    }
}
