//! What can go wrong with pictures and their files.

use std::path::PathBuf;

use hydit_input::guard::Panicked;

use super::Image;

/// Why a picture cannot be made, written, read or compared.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The decoder's output holds infinities or NaN.
    #[error(
        "{count} of {total} decoded values are not finite, the first in channel {channel}, row {row}, column \
         {column}: the model or the decoder overflowed; run it in a wider type (fp32)"
    )]
    NotFinite {
        /// How many values.
        count: usize,
        /// Of how many.
        total: usize,
        /// The first one's channel: 0 red, 1 green, 2 blue.
        channel: usize,
        /// The first one's row, from the top.
        row: usize,
        /// The first one's column.
        column: usize,
    },
    /// Two pictures that must have the same size do not.
    #[error("the pictures differ in size: {} x {} and {} x {}", .a.0, .a.1, .b.0, .b.1)]
    Sizes {
        /// Width and height of one.
        a: (usize, usize),
        /// Width and height of the other.
        b: (usize, usize),
    },
    /// SSIM needs a window of 11 by 11 pixels.
    #[error("the pictures are {width} x {height}: SSIM needs 11 x 11 or more")]
    TooSmall {
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// A picture larger than what is read.
    #[error("the image is {width} x {height}: more than {max} pixels are not read")]
    TooLarge {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// The bound on their product.
        max: usize,
    },
    /// A PNG with transparency.
    #[error("the PNG has an alpha channel: save it without transparency")]
    Alpha,
    /// Not a PNG, or a broken one.
    #[error("not a readable PNG")]
    Decode(#[from] png::DecodingError),
    /// A file that is no image, or of a kind that is not read.
    #[error("not a PNG, JPEG or WebP image")]
    Kind,
    /// An image of several frames.
    #[error("the image is animated: save the frame that is meant as an image of its own")]
    Animated,
    /// A JPEG without its end.
    #[error("the JPEG is cut off: fetch or save it again")]
    Cut,
    /// An image that is cut off or damaged.
    #[error("the image is cut off or damaged")]
    Broken(#[source] ::image::ImageError),
    /// An image that its decoder does not survive.
    #[error("the image is damaged")]
    Panicked(#[from] Panicked),
    /// A text of a PNG cannot be unpacked.
    #[error("the text {key:?} of the PNG cannot be unpacked to {max} bytes or less")]
    Text {
        /// The text's keyword.
        key: String,
        /// What all texts together may have.
        max: usize,
        /// What is wrong.
        source: png::DecodingError,
    },
    /// A PNG could not be made, for example of a picture without pixels.
    #[error("cannot encode the PNG")]
    Encode(#[from] png::EncodingError),
    /// A JPEG or WebP could not be made.
    #[error("cannot encode the picture")]
    Codec(#[from] ::image::ImageError),
    /// A text for a PNG holds a zero character, which PNG cannot store.
    #[error("the text {0:?} for the PNG holds a zero character")]
    Zero(String),
    /// The picture does not say how it was made.
    #[error(
        "the PNG has no text \"hydit\": it was not made by hydit, or its metadata was stripped"
    )]
    NoParameters,
    /// The picture says how it was made in a way this version does not understand.
    #[error("the PNG's text \"hydit\" is not understood")]
    Parameters(#[from] serde_json::Error),
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Something is wrong with this file.
    #[error("{}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<ImageError>,
    },
}

impl ImageError {
    pub(crate) fn sizes(a: &Image, b: &Image) -> Self {
        Self::Sizes { a: (a.width, a.height), b: (b.width, b.height) }
    }
}
