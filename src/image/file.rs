//! PNG with text, written whole or not at all, read with bounds.

use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use hydit_input::file;
use png::{BitDepth, ColorType, Decoder, DecodingError, Encoder, Info, Limits, Transformations};

use super::{Image, ImageError};
use crate::files::write_whole;

/// Keys and texts of a PNG, in order.
pub type Texts = Vec<(String, String)>;

/// Pictures up to 8192 x 8192 are read: 192 MiB of pixels.
pub(super) const MAX_PIXELS: usize = 1 << 26;
/// Files up to this size are read: more than an incompressible picture of that many pixels.
pub(super) const MAX_FILE: u64 = 1 << 28;
/// What the decoder may set aside for chunks, texts included.
pub(super) const MAX_CHUNKS: usize = 1 << 26;
/// What compressed texts may be unpacked to, all of them together.
const MAX_TEXTS: usize = 1 << 22;

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

/// A text that was unpacked, which takes of the `room` that there is for all.
fn taken(
    key: String,
    unpacked: Result<String, DecodingError>,
    room: &mut usize,
) -> Result<(String, String), ImageError> {
    match unpacked {
        Ok(text) => {
            *room = room.saturating_sub(text.len());
            Ok((key, text))
        }
        Err(source) => Err(ImageError::Text { key, max: MAX_TEXTS, source }),
    }
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
    let mut reader = decoder(Cursor::new(bytes))?.read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().expect("bounded above")];
    let output = reader.next_frame(&mut pixels)?;
    let rgb = match output.color_type {
        ColorType::Rgb => pixels,
        ColorType::Grayscale => pixels.iter().flat_map(|&grey| [grey; 3]).collect(),
        _ => return Err(ImageError::Alpha),
    };
    reader.finish()?; // texts may come after the pixels
    let info = reader.info();
    let (width, height) = (info.width as usize, info.height as usize);
    Ok((Image { width, height, rgb }, texts(info)?))
}

/// A decoder that has read the header of a picture that is not too large.
fn decoder<R: BufRead + Seek>(png: R) -> Result<Decoder<R>, ImageError> {
    let mut decoder = Decoder::new_with_limits(png, Limits { bytes: MAX_CHUNKS });
    decoder.set_transformations(Transformations::normalize_to_color8());
    decoder.set_ignore_iccp_chunk(true);
    let &Info { width, height, .. } = decoder.read_header_info()?;
    if width as usize * height as usize > MAX_PIXELS {
        return Err(ImageError::TooLarge { width, height, max: MAX_PIXELS });
    }
    Ok(decoder)
}

/// The texts of a PNG, unpacked as long as there is room.
fn texts(info: &Info<'_>) -> Result<Texts, ImageError> {
    let mut texts = Texts::new();
    for chunk in &info.uncompressed_latin1_text {
        texts.push((chunk.keyword.clone(), chunk.text.clone()));
    }
    let mut room = MAX_TEXTS;
    for mut chunk in info.compressed_latin1_text.iter().cloned() {
        let unpacked = chunk.decompress_text_with_limit(room).and_then(|()| chunk.get_text());
        texts.push(taken(chunk.keyword, unpacked, &mut room)?);
    }
    for mut chunk in info.utf8_text.iter().cloned() {
        let unpacked = chunk.decompress_text_with_limit(room).and_then(|()| chunk.get_text());
        texts.push(taken(chunk.keyword, unpacked, &mut room)?);
    }
    Ok(texts)
}

/// As [`decode_png`], from a file.
///
/// # Errors
/// Also when the file cannot be read; with the path.
pub fn read_png(path: &Path) -> Result<(Image, Texts), ImageError> {
    let read = || decode_png(&file::read(path, MAX_FILE)?);
    read().map_err(|e| at(path, e))
}

/// The texts of a PNG. Its pixels, however many and of whatever kind, need no memory.
///
/// # Errors
/// When it is not a PNG, or too large.
pub fn decode_texts(png: impl BufRead + Seek) -> Result<Texts, ImageError> {
    let mut reader = decoder(png)?.read_info()?;
    reader.finish()?; // texts may come after the pixels
    texts(reader.info())
}

/// As [`decode_texts`], from a file.
///
/// # Errors
/// Also when the file cannot be read; with the path.
pub fn read_texts(path: &Path) -> Result<Texts, ImageError> {
    let read = || decode_texts(BufReader::new(file::open(path)?));
    read().map_err(|e| at(path, e))
}

pub(super) fn at(path: &Path, source: ImageError) -> ImageError {
    ImageError::File { path: path.to_owned(), source: Box::new(source) }
}
