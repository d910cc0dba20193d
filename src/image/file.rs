//! PNG with text, written whole or not at all, read with bounds.

use std::io::Cursor;
use std::path::Path;

use hydit_input::file;
use png::{BitDepth, ColorType, Decoder, Encoder, Limits, Transformations};

use super::{Image, ImageError};
use crate::files::write_whole;

/// Keys and texts of a PNG, in order.
pub type Texts = Vec<(String, String)>;

/// Pictures up to 8192 x 8192 are read: 192 MiB of pixels.
const MAX_PIXELS: usize = 1 << 26;
/// Files up to this size are read: more than an incompressible picture of that many pixels.
const MAX_FILE: u64 = 1 << 28;
/// What the decoder may set aside for chunks, texts included.
const MAX_CHUNKS: usize = 1 << 26;

/// The bytes of a PNG with `texts`: Latin-1 (`tEXt`) where that can hold them, else UTF-8 (`iTXt`).
///
/// # Errors
/// When a text holds a zero character, or the picture has no pixels.
pub fn encode_png(image: &Image, texts: &[(String, String)]) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, image.width as u32, image.height as u32);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    for (key, text) in texts {
        if text.contains('\0') {
            return Err(ImageError::Zero(key.clone()));
        }
        if text.chars().all(is_latin1) {
            encoder.add_text_chunk(key.clone(), text.clone())?;
        } else {
            encoder.add_itxt_chunk(key.clone(), text.clone())?;
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&image.rgb)?;
    writer.finish()?;
    Ok(bytes)
}

/// What the PNG specification lets a `tEXt` hold: printable Latin-1 and line feeds.
fn is_latin1(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{ff}')
}

/// Writes a PNG beside `path` and renames it, so that `path` never holds half a picture.
///
/// # Errors
/// As [`encode_png`], or when the folder cannot be written; with the path.
pub fn write_png(path: &Path, image: &Image, texts: &[(String, String)]) -> Result<(), ImageError> {
    let write = || Ok(write_whole(path, &encode_png(image, texts)?)?);
    write().map_err(|e: ImageError| at(path, e))
}

/// Reads a PNG's pixels and texts. Grey is spread to three channels, 16 bits are cut to 8.
///
/// # Errors
/// When it is not a PNG, has transparency, or is too large.
pub fn decode_png(bytes: &[u8]) -> Result<(Image, Texts), ImageError> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: MAX_CHUNKS });
    decoder.set_transformations(Transformations::normalize_to_color8());
    let header = decoder.read_header_info()?;
    let (width, height) = (header.width, header.height);
    if width as usize * height as usize > MAX_PIXELS {
        return Err(ImageError::TooLarge { width, height, max: MAX_PIXELS });
    }
    let mut reader = decoder.read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().expect("bounded above")];
    let output = reader.next_frame(&mut pixels)?;
    let rgb = match output.color_type {
        ColorType::Rgb => pixels,
        ColorType::Grayscale => pixels.iter().flat_map(|&grey| [grey; 3]).collect(),
        _ => return Err(ImageError::Alpha),
    };
    reader.finish()?; // texts may come after the pixels
    let info = reader.info();
    let mut texts = Texts::new();
    for chunk in &info.uncompressed_latin1_text {
        texts.push((chunk.keyword.clone(), chunk.text.clone()));
    }
    for chunk in &info.compressed_latin1_text {
        texts.push((chunk.keyword.clone(), chunk.get_text()?));
    }
    for chunk in &info.utf8_text {
        texts.push((chunk.keyword.clone(), chunk.get_text()?));
    }
    Ok((Image { width: width as usize, height: height as usize, rgb }, texts))
}

/// As [`decode_png`], from a file.
///
/// # Errors
/// Also when the file cannot be read; with the path.
pub fn read_png(path: &Path) -> Result<(Image, Texts), ImageError> {
    let read = || decode_png(&file::read(path, MAX_FILE)?);
    read().map_err(|e| at(path, e))
}

fn at(path: &Path, source: ImageError) -> ImageError {
    ImageError::File { path: path.to_owned(), source: Box::new(source) }
}
