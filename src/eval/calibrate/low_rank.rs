//! Matrices of low rank by least squares.

use std::ops::Add;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2};

use crate::cache::{Correction, RANK};

/// How much a matrix is drawn to nothing: a share of the mean square of what it multiplies.
const RIDGE: f64 = 0.1;

/// Rounds of the search for the [`RANK`] directions that matter most.
const ROUNDS: usize = 12;

/// Sums over samples from which the matrix `a` follows for which `x · a` is nearest to `y`.
#[derive(Clone, Debug)]
pub struct Moments {
    /// `x^T · x` and `x^T · y`, `[hidden, hidden]`.
    xx: Array2<f32>,
    xy: Array2<f32>,
}

impl Moments {
    /// Of nothing.
    pub fn new(hidden: usize) -> Moments {
        let none = Array2::zeros((hidden, hidden));
        Moments { xx: none.clone(), xy: none }
    }

    /// Counts samples in: `x` and `y` are `[n, hidden]`, row by row.
    pub fn include(&mut self, x: &[f32], y: &[f32]) {
        let hidden = self.xx.nrows();
        let matrix = |numbers| {
            ArrayView2::from_shape((x.len() / hidden, hidden), numbers).expect("whole rows")
        };
        let (x, y) = (matrix(x), matrix(y));
        general_mat_mul(1.0, &x.t(), &x, 1.0, &mut self.xx);
        general_mat_mul(1.0, &x.t(), &y, 1.0, &mut self.xy);
    }

    /// `strength` times the matrix of rank [`RANK`] that is nearest, or `None` where none is finite.
    ///
    /// With `p = x^T x + ridge`, the nearest of full rank is `a = p^-1 x^T y`, and of those of low
    /// rank `a · v · v^T`, where `v` are the first eigenvectors of `(x^T y)^T · a` (reduced-rank
    /// regression).
    pub fn fit(&self, strength: f64) -> Option<Correction> {
        let hidden = self.xx.nrows();
        if hidden < RANK {
            return None;
        }
        let xy = self.xy.mapv(f64::from);
        let mut p = self.xx.mapv(f64::from);
        let ridge = RIDGE * p.diag().sum() / hidden as f64;
        p.diag_mut().iter_mut().for_each(|entry| *entry += ridge);
        let a = solve(p, xy.clone())?;
        let up = leading(&xy.t().dot(&a), RANK);
        let down = a.dot(&up) * strength;
        let row_by_row = |matrix: ArrayView2<'_, f64>| -> Vec<f32> {
            matrix.iter().map(|&entry| entry as f32).collect()
        };
        Correction::new(&row_by_row(down.view()), &row_by_row(up.t()))
    }
}

impl Add<&Moments> for Moments {
    type Output = Moments;

    fn add(self, other: &Moments) -> Moments {
        Moments { xx: self.xx + &other.xx, xy: self.xy + &other.xy }
    }
}

/// `p^-1 · b` of a symmetric `p` whose eigenvalues are positive, by Cholesky's factors.
fn solve(mut p: Array2<f64>, mut b: Array2<f64>) -> Option<Array2<f64>> {
    let n = p.nrows();
    for j in 0..n {
        for i in j..n {
            let sum = p.row(i).slice(ndarray::s![..j]).dot(&p.row(j).slice(ndarray::s![..j]));
            let left = p[[i, j]] - sum;
            p[[i, j]] = if i == j { left.sqrt() } else { left / p[[j, j]] };
        }
        if !p[[j, j]].is_normal() {
            return None;
        }
    }
    let eliminate = |b: &mut Array2<f64>, from: usize, into: usize, factor: f64| {
        let (from, mut into) = b.multi_slice_mut((ndarray::s![from, ..], ndarray::s![into, ..]));
        into.scaled_add(-factor, &from);
    };
    for i in 0..n {
        (0..i).for_each(|k| eliminate(&mut b, k, i, p[[i, k]]));
        b.row_mut(i).mapv_inplace(|entry| entry / p[[i, i]]);
    }
    for i in (0..n).rev() {
        (i + 1..n).for_each(|k| eliminate(&mut b, k, i, p[[k, i]]));
        b.row_mut(i).mapv_inplace(|entry| entry / p[[i, i]]);
    }
    Some(b)
}

/// The `count` eigenvectors of the symmetric `matrix` with the largest eigenvalues, as columns, by
/// orthogonal iteration.
fn leading(matrix: &Array2<f64>, count: usize) -> Array2<f64> {
    let n = matrix.nrows();
    // Any start will do that is orthogonal to none of them.
    let mut vectors = Array2::from_shape_fn((n, count), |(i, j)| ((i * count + j) as f64).sin());
    for _ in 0..ROUNDS {
        vectors = matrix.dot(&vectors);
        orthonormalize(&mut vectors);
    }
    vectors
}

/// Gram and Schmidt's, twice for the last digits; a column of nothing stays nothing.
fn orthonormalize(vectors: &mut Array2<f64>) {
    for j in (0..vectors.ncols()).flat_map(|j| [j, j]) {
        for k in 0..j {
            let (before, mut column) =
                vectors.multi_slice_mut((ndarray::s![.., k], ndarray::s![.., j]));
            let along = before.dot(&column);
            column.scaled_add(-along, &before);
        }
        let mut column = vectors.column_mut(j);
        let norm = column.dot(&column).sqrt();
        column.mapv_inplace(|entry| if norm > 0.0 { entry / norm } else { 0.0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers between -1 and 1 that look like chance.
    fn noise(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    fn matrix(rows: usize, columns: usize, numbers: Vec<f32>) -> Array2<f32> {
        Array2::from_shape_vec((rows, columns), numbers).expect("as many numbers")
    }

    /// What a correction of `x` gives, `[n, hidden]`.
    fn apply(x: &Array2<f32>, correction: &Correction) -> Array2<f32> {
        let hidden = x.ncols();
        let down = matrix(hidden, RANK, correction.down().to_vec());
        let up = matrix(RANK, hidden, correction.up().to_vec());
        x.dot(&down).dot(&up)
    }

    fn norm(x: &Array2<f32>) -> f32 {
        x.iter().map(|x| x * x).sum::<f32>().sqrt()
    }

    #[test]
    fn a_relation_of_low_rank_is_found_in_noise() {
        let (n, hidden) = (400, 40);
        let x = matrix(n, hidden, noise(n * hidden, 1));
        let inner = matrix(hidden, 5, noise(hidden * 5, 2));
        let relation = inner.dot(&matrix(5, hidden, noise(5 * hidden, 3)));
        let (truth, noise) = (x.dot(&relation), matrix(n, hidden, noise(n * hidden, 4)));
        let y = &truth + &noise;
        let mut moments = Moments::new(hidden);
        let half = n * hidden / 2;
        let numbers = |matrix: &Array2<f32>| matrix.iter().copied().collect::<Vec<f32>>();
        let (xs, ys) = (numbers(&x), numbers(&y));
        moments.include(&xs[..half], &ys[..half]);
        moments.include(&xs[half..], &ys[half..]);
        let found = apply(&x, &moments.fit(1.0).expect("finite"));
        let off = norm(&(&found - &truth)) / norm(&truth);
        assert!(off < 0.15, "{off}");
        let weaker = apply(&x, &moments.fit(0.5).expect("finite"));
        assert!(norm(&(&weaker * 2.0 - &found)) / norm(&found) < 1e-3);
        assert!(Moments::new(hidden).fit(1.0).is_none(), "nothing follows from nothing");
    }
}
