//! How near images are to a reference.

use super::statistics::{mean, mean_psnr, percentile, relative_error};
use crate::image::{Image, ImageError};
use crate::pipeline::Generated;

/// An image beside its reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Peak signal to noise ratio in dB; infinite when the images are equal.
    pub psnr: f64,
    /// Structural similarity of the luma; 1 when the images are equal.
    pub ssim: f64,
    /// Root mean square of the difference of the clean latents over that of the reference's.
    pub latent_error: f64,
}

/// Figures of many comparisons.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Mean PSNR in dB over the images that differ from their reference; infinite when none does.
    pub psnr: f64,
    /// The PSNR in dB that nine of ten images reach.
    pub psnr_p10: f64,
    /// Mean SSIM.
    pub ssim: f64,
    /// Mean relative error of the latents.
    pub latent_error: f64,
}

/// Each image of `made` beside that of `reference` in its place.
///
/// # Errors
/// When they differ in size, or are too small for [`ssim`].
pub fn compare(reference: &Generated, made: &Generated) -> Result<Vec<Comparison>, ImageError> {
    let size = made.latents.len() / made.images.len();
    let latents = made.latents.chunks(size).zip(reference.latents.chunks(size));
    let images = made.images.iter().zip(&reference.images);
    let mut comparisons = Vec::with_capacity(made.images.len());
    for ((image, reference), (latents, clean)) in images.zip(latents) {
        comparisons.push(Comparison {
            psnr: psnr(reference, image)?,
            ssim: ssim(reference, image)?,
            latent_error: relative_error(latents, clean),
        });
    }
    Ok(comparisons)
}

impl Comparison {
    /// The worst of each figure.
    pub fn worst(all: &[Comparison]) -> Comparison {
        let equal = Comparison { psnr: f64::INFINITY, ssim: 1.0, latent_error: 0.0 };
        all.iter().fold(equal, |worst, one| Comparison {
            psnr: worst.psnr.min(one.psnr),
            ssim: worst.ssim.min(one.ssim),
            latent_error: worst.latent_error.max(one.latent_error),
        })
    }
}

impl Summary {
    /// The figures of `all`, which is not empty.
    pub fn of(all: &[Comparison]) -> Summary {
        let figures = |figure: fn(&Comparison) -> f64| all.iter().map(figure).collect::<Vec<f64>>();
        let psnr = figures(|one| one.psnr);
        Summary {
            psnr: mean_psnr(&psnr),
            psnr_p10: percentile(&psnr, 10),
            ssim: mean(&figures(|one| one.ssim)),
            latent_error: mean(&figures(|one| one.latent_error)),
        }
    }
}

/// Peak signal to noise ratio in decibels over all pixels and channels of two 8-bit images;
/// infinite when they are equal.
///
/// # Errors
/// [`ImageError::Sizes`] when the sizes differ.
pub fn psnr(a: &Image, b: &Image) -> Result<f64, ImageError> {
    same_size(a, b)?;
    let squares: u64 =
        a.rgb.iter().zip(&b.rgb).map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2)).sum();
    let mean = squares as f64 / a.rgb.len() as f64;
    Ok(10.0 * (255.0 * 255.0 / mean).log10())
}

/// Structural similarity of the luma of two images, 1 when they are equal: Wang, Bovik, Sheikh,
/// Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity" (2004).
///
/// As in the authors' `ssim_index.m`: an 11 x 11 Gaussian window of deviation 1.5, K1 = 0.01,
/// K2 = 0.03, L = 255, the mean over the windows that lie inside. Luma is 0.299 R + 0.587 G +
/// 0.114 B, not rounded.
///
/// # Errors
/// [`ImageError::Sizes`] when the sizes differ, [`ImageError::TooSmall`] when no window fits.
pub fn ssim(a: &Image, b: &Image) -> Result<f64, ImageError> {
    const C1: f64 = (0.01 * 255.0) * (0.01 * 255.0);
    const C2: f64 = (0.03 * 255.0) * (0.03 * 255.0);
    same_size(a, b)?;
    let (width, height) = (a.width, a.height);
    if width < WINDOW || height < WINDOW {
        return Err(ImageError::TooSmall { width, height });
    }
    let (x, y) = (luma(a), luma(b));
    let mean_of = |f: fn(f64, f64) -> f64| {
        let map: Vec<f64> = x.iter().zip(&y).map(|(x, y)| f(*x, *y)).collect();
        blur(&map, width, height)
    };
    let (mx, my) = (mean_of(|x, _| x), mean_of(|_, y| y));
    let (xx, yy, xy) = (mean_of(|x, _| x * x), mean_of(|_, y| y * y), mean_of(|x, y| x * y));
    let index = |i: usize| {
        let (vx, vy, cov) = (xx[i] - mx[i] * mx[i], yy[i] - my[i] * my[i], xy[i] - mx[i] * my[i]);
        let luminance = (2.0 * mx[i] * my[i] + C1) / (mx[i] * mx[i] + my[i] * my[i] + C1);
        luminance * (2.0 * cov + C2) / (vx + vy + C2)
    };
    Ok((0..mx.len()).map(index).sum::<f64>() / mx.len() as f64)
}

const WINDOW: usize = 11;

fn same_size(a: &Image, b: &Image) -> Result<(), ImageError> {
    if (a.width, a.height) == (b.width, b.height) { Ok(()) } else { Err(ImageError::sizes(a, b)) }
}

/// ITU-R BT.601.
fn luma(image: &Image) -> Vec<f64> {
    let pixel =
        |[r, g, b]: &[u8; 3]| 0.299 * f64::from(*r) + 0.587 * f64::from(*g) + 0.114 * f64::from(*b);
    image.rgb.as_chunks().0.iter().map(pixel).collect()
}

/// The Gaussian mean of every window inside the map: `[height - 10, width - 10]`. The window is a
/// product, so rows and columns are taken one after the other.
fn blur(map: &[f64], width: usize, height: usize) -> Vec<f64> {
    let mut weights: [f64; WINDOW] =
        std::array::from_fn(|i| (-(i as f64 - 5.0).powi(2) / 4.5).exp());
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= sum);

    let inner = width - (WINDOW - 1);
    let mut rows = Vec::with_capacity(inner * height);
    for row in map.chunks_exact(width) {
        let weigh = |window: &[f64]| window.iter().zip(&weights).map(|(x, w)| x * w).sum::<f64>();
        rows.extend(row.windows(WINDOW).map(weigh));
    }
    let mut out = vec![0.0; inner * (height - (WINDOW - 1))];
    for (i, out) in out.chunks_exact_mut(inner).enumerate() {
        for (row, w) in rows[i * inner..].chunks_exact(inner).zip(&weights) {
            out.iter_mut().zip(row).for_each(|(out, x)| *out += x * w);
        }
    }
    out
}
