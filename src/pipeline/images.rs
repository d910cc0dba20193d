//! What the image encoder makes of the images that a request brings along.

use super::first_latents::Moments;

/// The images of a request, encoded. None, for a request of words alone.
#[derive(Clone, Debug, Default)]
pub struct EncodedImages {
    /// The distribution of the latents of the image that the picture is made from.
    pub init: Option<Moments>,
    /// The latents that each of the request's ControlNets reads, `[channels, h, w]`, scaled.
    ///
    /// They are the means of what the encoder gives. diffusers draws from its distribution, by the
    /// process' global generator and anew for each row, so no seed of a request decides what its
    /// nets read; the mean is what all such draws lie around.
    pub controls: Vec<Vec<f32>>,
}
