//! The few equations of a lightly damaged block.
//!
//! Repair symbol `y` is the sum over all source symbols `x` of `source[x] / (x + y)`, in the field of the code: a
//! Cauchy matrix, whose inverse is a product formula. So e lost symbols cost e² multiplications of a
//! symbol instead of the transforms of the whole block.

/// Logarithms modulo the order of the field's multiplicative group.
const ORDER: u32 = 65_535;

/// Logarithms of the inverse of the matrix `1 / (row + column)`, for distinct rows and columns that have nothing in
/// common: `[column][row]`, one after the other. `log` gives the logarithm of a field element other than zero.
pub(super) fn inverse_logs(rows: &[u16], columns: &[u16], log: impl Fn(u16) -> u16) -> Vec<u16> {
    let log = |a: u16, b: u16| u32::from(log(a ^ b));
    let product = |of: u16, over: &[u16]| over.iter().map(|&other| log(of, other)).sum::<u32>();
    let others = |of: u16, over: &[u16]| {
        let others = over.iter().filter(|&&other| other != of);
        others.map(|&other| log(of, other)).sum::<u32>()
    };
    // Sums of at most some hundred logarithms: far from overflowing.
    let by_row = rows
        .iter()
        .map(|&row| (product(row, columns), others(row, rows)));
    let by_row: Vec<(u32, u32)> = by_row.collect();
    let mut inverse = Vec::with_capacity(rows.len() * columns.len());
    for &column in columns {
        let above = product(column, rows);
        let below = others(column, columns);
        for (&row, &(row_above, row_below)) in rows.iter().zip(&by_row) {
            let above = (above + row_above) % ORDER;
            let below = (below + row_below + log(row, column)) % ORDER;
            inverse.push(((above + ORDER - below) % ORDER) as u16);
        }
    }
    inverse
}
