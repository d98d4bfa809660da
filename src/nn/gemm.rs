//! Products of plain matrices, by the `gemm` crate, behind checked sizes.

use std::ops::Range;

use gemm::Parallelism;

/// A matrix in row-major order, seen as it is or transposed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_step: usize,
    column_step: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// `rows` x `columns` numbers, row by row.
    ///
    /// # Panics
    /// When `data` does not hold as many.
    pub(crate) fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "{rows} x {columns}");
        Self { data, rows, columns, row_step: columns, column_step: 1 }
    }

    /// Its transpose, without moving a number.
    pub(crate) fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_step: self.column_step,
            column_step: self.row_step,
            ..self
        }
    }

    /// A block of its rows and columns.
    ///
    /// # Panics
    /// When it has no such rows or columns.
    pub(crate) fn block(self, rows: Range<usize>, columns: Range<usize>) -> Self {
        assert!(rows.start < rows.end && rows.end <= self.rows, "{rows:?} of {}", self.rows);
        assert!(
            columns.start < columns.end && columns.end <= self.columns,
            "{columns:?} of {}",
            self.columns
        );
        let start = rows.start * self.row_step + columns.start * self.column_step;
        Self { data: &self.data[start..], rows: rows.len(), columns: columns.len(), ..self }
    }
}

/// Numbers that `gemm` multiplies.
pub(crate) trait Number: Copy + PartialOrd + Into<f64> + Send + Sync + 'static {
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;

    /// The nearest number.
    fn from_f64(x: f64) -> Self;
}

impl Number for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    fn from_f64(x: f64) -> Self {
        x as f32
    }
}

impl Number for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    fn from_f64(x: f64) -> Self {
        x
    }
}

/// `to = a b`, or `to += a b` with `add`; `to` is row-major.
///
/// # Panics
/// When the sizes do not fit each other.
pub(crate) fn multiply<T: Number>(
    to: &mut [T],
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    add: bool,
    threads: usize,
) {
    assert_eq!(a.columns, b.rows);
    assert_eq!(to.len(), a.rows * b.columns);
    if to.is_empty() {
        return;
    }
    let parallelism = if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None };
    // SAFETY: every matrix holds rows x columns numbers at the steps given (`Matrix::new`,
    // `Matrix::block`), and `to` is not aliased.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            to.as_mut_ptr(),
            1,
            b.columns as isize,
            add,
            a.data.as_ptr(),
            a.column_step as isize,
            a.row_step as isize,
            b.data.as_ptr(),
            b.column_step as isize,
            b.row_step as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_matrices_and_their_transposes() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // 2 x 3
        let b = [1.0, 0.0, -1.0, 2.0, 0.5, 1.0]; // 3 x 2
        let mut to = [0.0f64; 4];
        multiply(&mut to, Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 2), false, 1);
        assert_eq!(to, [0.5, 7.0, 2.0, 16.0]);
        multiply(&mut to, Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 2), true, 2);
        assert_eq!(to, [1.0, 14.0, 4.0, 32.0]);
        let mut to = [0.0f64; 9];
        multiply(&mut to, Matrix::new(&a, 2, 3).t(), Matrix::new(&b, 3, 2).t(), false, 1);
        assert_eq!(to, [1.0, 7.0, 4.5, 2.0, 8.0, 6.0, 3.0, 9.0, 7.5]);
        let mut to = [0.0f32; 2];
        let a = a.map(|x| x as f32);
        let (row, columns) = (Matrix::new(&[2.0f32, 1.0], 1, 2), Matrix::new(&a, 2, 3).block(0..2, 1..3));
        multiply(&mut to, row, columns, false, 1);
        assert_eq!(to, [9.0, 12.0]);
        multiply(&mut to, row, Matrix::new(&a, 2, 3).t().block(1..3, 0..2), false, 1);
        assert_eq!(to, [7.0, 16.0]);
    }
}
