//! Weights of a forecast by least squares.

use crate::cache::{Forecast, KEPT};

/// How much the weights are drawn to those of the latest output alone: a share of the mean square
/// of the differences they multiply.
const RIDGE: f64 = 0.02;

/// Sums over pictures from which the weights of one step follow.
#[derive(Clone, Debug, Default)]
pub struct Fit {
    /// Products of the errors that single kept outputs make, the latest first.
    products: [[f64; KEPT]; KEPT],
    kept: usize,
}

impl Fit {
    /// Counts a picture in: `errors` are the guided predictions made with each kept output, less the
    /// one aimed at.
    pub fn add(&mut self, errors: &[Vec<f32>]) {
        self.kept = errors.len();
        for (row, a) in self.products.iter_mut().zip(errors) {
            for (product, b) in row.iter_mut().zip(errors) {
                *product +=
                    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            }
        }
    }

    /// The forecast whose error is least where the decoder is linear in its input.
    ///
    /// With e the error of the latest output and d_k that of an older one less e, it is
    /// `|e + sum c_k d_k|^2 + RIDGE * mean |d|^2 * |c|^2` that is least.
    pub fn forecast(&self) -> Forecast {
        let p = &self.products;
        let d = |k: usize, l: usize| p[k][l] - p[k][0] - p[0][l] + p[0][0];
        let e = |k: usize| p[k][0] - p[0][0];
        let older = self.kept.saturating_sub(1);
        let ridge = RIDGE * (1..=older).map(|k| d(k, k)).sum::<f64>() / older.max(1) as f64;
        let weights = match older {
            1 => [-e(1) / (d(1, 1) + ridge), 0.0],
            2 => {
                let (a, b, c) = (d(1, 1) + ridge, d(1, 2), d(2, 2) + ridge);
                let determinant = a * c - b * b;
                [(b * e(2) - c * e(1)) / determinant, (b * e(1) - a * e(2)) / determinant]
            }
            _ => [0.0; 2],
        };
        let short = weights.map(|w| (w * 1e4).round() / 1e4); // as the file keeps them
        let latest = 1.0 - short.iter().sum::<f64>();
        let all = [latest, short[0], short[1]].map(|w| w as f32);
        Forecast::new(&all).unwrap_or(Forecast::LAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_on_a_line_are_forecast_to_nothing() {
        let (e, slope) = ([1.0f32, -2.0, 0.5], [1.0f32, -2.0, 0.5]);
        let at = |x: f32| -> Vec<f32> { e.iter().zip(slope).map(|(e, s)| e + s * x).collect() };
        let mut fit = Fit::default();
        fit.add(&[at(0.0), at(1.0)]);
        let weights = fit.forecast();
        let [latest, older] = weights.weights() else { panic!("two weights") };
        let exact = 1.0 / (1.0 + RIDGE as f32);
        assert!((older + exact).abs() < 1e-3, "{older} is -1 less the ridge");
        assert!((latest + older - 1.0).abs() < 1e-6);
    }

    #[test]
    fn older_outputs_of_no_use_get_no_weight() {
        let mut fit = Fit::default();
        fit.add(&[vec![1.0, 0.0, 0.0], vec![1.0, 3.0, 0.0], vec![1.0, 0.0, 5.0]]);
        assert_eq!(fit.forecast(), Forecast::LAST);
        let mut one = Fit::default();
        one.add(&[vec![2.0]]);
        assert_eq!(one.forecast(), Forecast::LAST);
    }

    #[test]
    fn three_outputs_are_fitted_as_by_trying_weights() {
        let errors =
            [vec![1.0, 0.4, -0.3, 0.2], vec![1.9, 1.1, -0.2, 0.1], vec![3.2, 1.4, -0.9, 0.8]];
        let mut fit = Fit::default();
        fit.add(&errors);
        let found = fit.forecast();
        let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        let minus = |k: usize| -> Vec<f32> {
            errors[k].iter().zip(&errors[0]).map(|(a, b)| a - b).collect()
        };
        let mean = (norm(&minus(1)) + norm(&minus(2))) / 2.0;
        let loss = |one: f32, two: f32| {
            let w = [1.0 - one - two, one, two];
            let sum: Vec<f32> = (0..4).map(|i| (0..3).map(|k| w[k] * errors[k][i]).sum()).collect();
            norm(&sum) + RIDGE * mean * f64::from(one * one + two * two)
        };
        let &[_, one, two] = found.weights() else { panic!("three weights") };
        let near = [(0.01, 0.0), (-0.01, 0.0), (0.0, 0.01), (0.0, -0.01)];
        for (a, b) in near {
            assert!(loss(one + a, two + b) > loss(one, two), "{one} {two}");
        }
    }
}
