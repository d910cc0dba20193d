//! The latents that a request begins with: noise, or those of an image with noise on them.
//!
//! Follows `prepare_latents` of diffusers' img2img pipelines, and that of the inpainting ones where
//! there is a mask: each picture's generator draws from the image's distribution first, then the
//! noise, then what its sampler wants.

use crate::request::Request;
use crate::sampler::{Sampler, TorchGenerator};

/// The distribution of an image's latents: what the image encoder makes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Means, then logarithms of variances, `[2 * channels, h, w]`.
    values: Vec<f32>,
    /// What latents are multiplied with before the transformer reads them.
    scaling_factor: f32,
    /// Whether each place is painted anew, `[h, w]`, where a mask says so.
    repaint: Option<Vec<bool>>,
}

/// What a request begins with.
#[derive(Clone, Debug)]
pub(crate) struct First {
    /// `[images, channels, h, w]`.
    pub latents: Vec<f32>,
    /// What stays as it is.
    pub outside: Option<Outside>,
}

/// What lies outside a mask, and stays as the image has it.
#[derive(Clone, Debug)]
pub(crate) struct Outside {
    /// The image's latents, `[images, channels, h, w]`.
    clean: Vec<f32>,
    /// The noise that the pictures began with, likewise.
    noise: Vec<f32>,
    /// Whether each place is painted anew, `[h, w]`.
    repaint: Vec<bool>,
}

impl Moments {
    /// Those of `values`, `[2 * channels, h, w]`.
    pub fn new(values: Vec<f32>, scaling_factor: f32, repaint: Option<Vec<bool>>) -> Moments {
        Moments { values, scaling_factor, repaint }
    }

    /// Latents that `noise` draws from the distribution, `[channels, h, w]`, scaled.
    fn sample(&self, noise: &mut TorchGenerator) -> Vec<f32> {
        let (means, logvars) = self.values.split_at(self.values.len() / 2);
        let drawn = noise.randn(means.len());
        let one = |((mean, logvar), z): ((&f32, &f32), f32)| {
            let deviation = f64::from(0.5 * logvar.clamp(-30.0, 20.0)).exp() as f32;
            (mean + deviation * z) * self.scaling_factor
        };
        means.iter().zip(logvars).zip(drawn).map(one).collect()
    }
}

impl First {
    /// What the generators `noise`, one for each picture, draw: noise alone without `moments`. An
    /// image has `size` latents.
    pub fn new(
        request: &Request,
        sampler: &Sampler,
        moments: Option<&Moments>,
        size: usize,
        noise: &mut [TorchGenerator],
    ) -> First {
        let Some(moments) = moments else {
            let drawn: Vec<f32> = noise.iter_mut().flat_map(|g| g.randn(size)).collect();
            return First { latents: alone(sampler, &drawn), outside: None };
        };
        let (mut clean, mut drawn) = (Vec::new(), Vec::new());
        for generator in noise {
            clean.extend(moments.sample(generator));
            drawn.extend(generator.randn(size));
        }
        let whole = request.init_image.as_ref().is_some_and(|image| image.strength == 1.0);
        let latents = match moments.repaint {
            Some(_) if whole => alone(sampler, &drawn), // nothing is left of the image inside
            _ => sampler.noised(0, &clean, &drawn),
        };
        let outside = moments.repaint.clone();
        let outside = outside.map(|repaint| Outside { clean, noise: drawn, repaint });
        First { latents, outside }
    }
}

/// Latents that are `noise` alone.
fn alone(sampler: &Sampler, noise: &[f32]) -> Vec<f32> {
    noise.iter().map(|z| z * sampler.init_noise_sigma()).collect()
}

impl Outside {
    /// Puts the image back into `latents` outside the mask, with the noise of the step `index` that
    /// comes next; without any after the last.
    pub fn put_back(&self, sampler: &Sampler, index: usize, latents: &mut [f32]) {
        let noised;
        let image = if index < sampler.timesteps().len() {
            noised = sampler.noised(index, &self.clean, &self.noise);
            &noised
        } else {
            &self.clean
        };
        let repaint = self.repaint.iter().cycle();
        for ((latent, image), repaint) in latents.iter_mut().zip(image).zip(repaint) {
            if !repaint {
                *latent = *image;
            }
        }
    }
}
