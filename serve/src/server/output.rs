//! How images are encoded for clients.

use std::time::Instant;

use hydit::Request;
use hydit::artifacts::Artifacts;
use hydit::image::{Format, Image, Texts, encode};
use hydit::timing::Stage;
use serde::{Deserialize, Serialize};

use super::metrics;

/// How images are encoded. Part of a stored job, so its field names stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Format of the files.
    pub format: Format,
    /// Quality of a JPEG, 0 to 100; 100 for the other formats.
    pub quality: u8,
    /// Whether a PNG carries the parameters that it was made with.
    pub metadata: bool,
}

impl Output {
    /// The files of `images`, which the model of `artifacts` has drawn for `request`, reading
    /// only the beginning of the fields `truncated`.
    ///
    /// # Errors
    /// When an image cannot be encoded.
    pub fn encode(
        self,
        images: &[Image],
        artifacts: &Artifacts,
        request: &Request,
        truncated: &[&'static str],
    ) -> hydit::Result<Vec<Vec<u8>>> {
        let began = Instant::now();
        let mut files = Vec::with_capacity(images.len());
        for (index, image) in images.iter().enumerate() {
            let texts = if self.metadata {
                texts(artifacts, request, index, truncated)
            } else {
                Texts::new()
            };
            files.push(encode(image, self.format, self.quality, &texts)?);
        }
        metrics::stage(Stage::Png, began.elapsed());
        Ok(files)
    }

    /// The file of an image on the way to the requested one, which carries no parameters.
    ///
    /// # Errors
    /// When the image cannot be encoded.
    pub fn encode_partial(self, image: &Image) -> hydit::Result<Vec<u8>> {
        Ok(encode(image, self.format, self.quality, &[])?)
    }
}

/// The parameters of the image `index` of `request`, as a PNG has them: without the folders of the
/// server's own files.
pub fn texts(
    artifacts: &Artifacts,
    request: &Request,
    index: usize,
    truncated: &[&'static str],
) -> Texts {
    let mut parameters = request.parameters(artifacts, index, truncated);
    parameters.request.cache_policy = request.cache_policy.without_folder();
    parameters.to_texts()
}
