//! Figures of samples.

/// The middle sample; of an even number the mean of the two in the middle.
pub fn median(samples: &[f64]) -> f64 {
    let sorted = sorted(samples);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    } else {
        sorted[middle]
    }
}

/// The smallest sample that `percent` of all, 1 to 100, do not exceed.
pub fn percentile(samples: &[f64], percent: usize) -> f64 {
    let sorted = sorted(samples);
    sorted[(percent * sorted.len()).div_ceil(100) - 1]
}

/// The mean; not a number without samples.
pub fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len() as f64
}

/// The mean PSNR in dB over the images that differ from their reference; infinite when none does.
pub fn mean_psnr(all: &[f64]) -> f64 {
    let differing: Vec<f64> = all.iter().copied().filter(|psnr| psnr.is_finite()).collect();
    if differing.is_empty() { f64::INFINITY } else { mean(&differing) }
}

/// The relative distance of two vectors: `|a - b| / |b|`.
pub fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    let difference: f64 =
        a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    let size: f64 = b.iter().map(|&b| f64::from(b).powi(2)).sum();
    (difference / size.max(f64::MIN_POSITIVE)).sqrt()
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middle_ones() {
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[9.0, 1.0, 4.0, 2.0]), 3.0);
    }

    #[test]
    fn one_sample_in_twenty_may_exceed_the_95th_percentile() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&hundred, 95), 95.0);
        assert_eq!(percentile(&hundred[80..], 95), 19.0, "of 1 to 20");
        assert_eq!(percentile(&hundred[81..], 95), 19.0, "of 1 to 19: the largest");
        assert_eq!(percentile(&[7.0], 95), 7.0);
    }

    #[test]
    fn nine_in_ten_are_at_the_10th_percentile_or_above() {
        let twenty: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!(percentile(&twenty, 10), 2.0);
        assert_eq!(percentile(&twenty[15..], 10), 1.0, "of 1 to 5: the smallest");
        assert_eq!(percentile(&[f64::INFINITY, 30.0], 10), 30.0);
        assert_eq!(percentile(&[f64::INFINITY], 10), f64::INFINITY);
    }

    #[test]
    fn equal_pictures_do_not_make_the_mean_infinite() {
        assert_eq!(mean_psnr(&[30.0, f64::INFINITY, 40.0]), 35.0);
        assert_eq!(mean_psnr(&[f64::INFINITY; 2]), f64::INFINITY);
    }
}
