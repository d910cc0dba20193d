//! The files that `generate` writes: named, and checked, before anything is drawn.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hydit::Request;
use hydit::image::{Format, Image, Texts, encode};
use hydit_terminal::note;

use crate::cmd::files::Output;

/// The flag that names them.
const FLAG: &str = "--output";
/// The quality of JPEG files.
const QUALITY: u8 = 100;

/// A file for each image, and one to compare them.
pub struct Pictures {
    format: Format,
    /// One for each image.
    pub images: Vec<Output>,
    /// Both images of each seed side by side, with `--compare`.
    pub compared: Option<Output>,
}

impl Pictures {
    /// The files at `path` and beside it that the images of `request` are written to, and their
    /// comparison if they are `compared`.
    ///
    /// # Errors
    /// When the ending of `path` is not known, or one of them cannot be written.
    pub fn new(path: &Path, request: &Request, compared: bool) -> Result<Pictures> {
        let format = Format::of(path).with_context(|| {
            format!("{FLAG}: {} must end in {}", path.display(), Format::ENDINGS)
        })?;
        let count = request.num_images;
        let first = Output::new(FLAG, path)?.refuse_terminal()?;
        if !first.is_file() && (count > 1 || compared) {
            bail!("{FLAG}: {first} takes one image, and more are drawn; name a file");
        }
        let (columns, rows) = if compared { (2, count) } else { (1, 1) };
        let longest = (columns * request.width).max(rows * request.height);
        if longest > format.max_side() {
            bail!(
                "{FLAG}: images of more than {} pixels, as {longest} in the comparison, are no \
                 {format}; write .png",
                format.max_side()
            );
        }
        let named = |suffix: String| Output::new(FLAG, &with_suffix(path, &suffix));
        let images = match count {
            1 => vec![first],
            _ => (0..count).map(|i| named(format!("-{i}"))).collect::<Result<_>>()?,
        };
        let compared = compared.then(|| named("-compare".to_string())).transpose()?;
        Ok(Pictures { format, images, compared })
    }

    /// Says if files of this format leave the parameters out.
    pub fn note_missing_parameters(&self) {
        if self.format != Format::Png {
            note(format_args!(
                "note: a file in {} does not keep its parameters, as info and --from need them; \
                 write .png for that",
                self.format
            ));
        }
    }

    /// Writes `image` to `output`; a PNG with `texts`.
    pub fn write(&self, output: &Output, image: &Image, texts: &Texts) -> Result<()> {
        output.write(&encode(image, self.format, QUALITY, texts)?)
    }
}

/// Puts `suffix` before the ending: `cat.png` becomes `cat-0.png`.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_os_string();
    name.push(suffix);
    if let Some(ending) = path.extension() {
        name.push(".");
        name.push(ending);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_suffix_stands_before_the_ending() {
        for (path, expected) in [
            (&b"a/cat.png"[..], &b"a/cat-0.png"[..]),
            (b"cat", b"cat-0"),
            (b"c.a.t.JPG", b"c.a.t-0.JPG"),
            (b"\xff\xfe.webp", b"\xff\xfe-0.webp"),
        ] {
            let path = Path::new(OsStr::from_bytes(path));
            assert_eq!(with_suffix(path, "-0").as_os_str(), OsStr::from_bytes(expected));
        }
    }
}
