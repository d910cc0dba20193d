//! A white page to put pictures and text on, with a font of its own: no font of the machine is read.

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, ScaleFont, point};
use hydit::image::Image;

/// Latin, kana and the Chinese characters of GB 2312 and Big5's first level.
const FONT: &[u8] = include_bytes!("font/wqy-microhei-subset.ttf");

static PARSED: LazyLock<FontRef<'static>> =
    LazyLock::new(|| FontRef::try_from_slice(FONT).expect("the embedded font is one"));

/// How text looks.
#[derive(Clone, Copy)]
pub struct Style {
    /// Pixels of an em.
    pub size: f32,
    /// Grey from 0, black, to 255.
    pub ink: u8,
}

pub struct Canvas {
    pub image: Image,
}

impl Style {
    fn font(self) -> impl ScaleFont<&'static FontRef<'static>> {
        let em = PARSED.units_per_em().unwrap_or(1000.0);
        PARSED.as_scaled(self.size * PARSED.height_unscaled() / em)
    }

    /// From one line to the next.
    pub fn line(self) -> usize {
        (1.35 * self.size).round() as usize
    }

    /// Pixels that `text` takes.
    pub fn width(self, text: &str) -> usize {
        let font = self.font();
        text.chars().map(|c| font.h_advance(font.glyph_id(c))).sum::<f32>().ceil() as usize
    }

    /// Every pixel of `text` that begins at the origin, which lies on the baseline, and its share of ink.
    pub fn pixels(self, text: &str, mut each: impl FnMut(i32, i32, f32)) {
        let font = self.font();
        let mut x = 0.0;
        for c in text.chars() {
            let glyph = font.glyph_id(c).with_scale_and_position(font.scale(), point(x, 0.0));
            x += font.h_advance(glyph.id);
            if let Some(outline) = font.outline_glyph(glyph) {
                let corner = outline.px_bounds().min;
                outline.draw(|x, y, share| {
                    each(corner.x as i32 + x as i32, corner.y as i32 + y as i32, share);
                });
            }
        }
    }

    /// `text`, or as much of it as fits into `width`.
    pub fn cut(self, text: &str, width: usize) -> String {
        let mut cut = text.to_string();
        while self.width(&cut) > width && cut.pop().is_some() {
            cut = cut.trim_end_matches('…').to_string();
            cut.pop();
            cut.push('…');
        }
        cut
    }

    /// Lines no wider than `width`, broken at spaces and between Chinese characters; at most `most` of them.
    pub fn wrap(self, text: &str, width: usize, most: usize) -> Vec<String> {
        let mut lines = vec![String::new()];
        for word in words(text) {
            let last = lines.last_mut().expect("there is one from the start");
            if last.is_empty() || self.width(&format!("{last}{}", word.trim_end())) <= width {
                last.push_str(word);
            } else {
                lines.push(word.to_string());
            }
        }
        if lines.len() > most {
            let rest = lines.split_off(most - 1).concat();
            lines.push(rest);
        }
        lines.iter().map(|line| self.cut(line.trim_end(), width)).collect()
    }
}

/// What must not be broken: a word with the spaces after it, or a wide character with its punctuation.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut before = rest.chars().next()?;
        let breaks = |&(_, c): &(usize, char)| {
            let wide = (wide(before) || wide(c)) && !"，。、；：！？）》」』”’".contains(c);
            let end = c != ' ' && (before == ' ' || wide);
            before = c;
            end
        };
        let at = rest.char_indices().skip(1).find(breaks).map_or(rest.len(), |(at, _)| at);
        let (word, after) = rest.split_at(at);
        rest = after;
        Some(word)
    })
}

fn wide(c: char) -> bool {
    c >= '\u{2e80}'
}

impl Canvas {
    /// A white one.
    pub fn new(width: usize, height: usize) -> Canvas {
        Canvas { image: Image { width, height, rgb: vec![255; 3 * width * height] } }
    }

    /// Lays a picture with its upper left corner at `x`, `y`; it must fit.
    pub fn paste(&mut self, picture: &Image, x: usize, y: usize) {
        for (row, pixels) in picture.rgb.chunks_exact(3 * picture.width).enumerate() {
            let at = 3 * ((y + row) * self.image.width + x);
            self.image.rgb[at..][..pixels.len()].copy_from_slice(pixels);
        }
    }

    /// A horizontal line.
    pub fn rule(&mut self, x: usize, y: usize, width: usize, thick: usize, ink: u8) {
        let rgb = vec![ink; 3 * width * thick];
        self.paste(&Image { width, height: thick, rgb }, x, y);
    }

    /// Writes a line with its upper left corner at `x`, `y`; gives where the next one goes.
    pub fn write(&mut self, text: &str, x: usize, y: usize, style: Style) -> usize {
        let font = style.font();
        let middle = (style.line() as f32 + font.ascent() + font.descent()) / 2.0;
        let (left, baseline) = (x as i32, y as i32 + middle.round() as i32);
        style.pixels(text, |x, y, share| {
            self.blend(left + x, baseline + y, [style.ink; 3], share);
        });
        y + style.line()
    }

    /// Mixes `share` of a colour into a pixel, if there is one.
    pub fn blend(&mut self, x: i32, y: i32, rgb: [u8; 3], share: f32) {
        let inside = |v: i32, end: usize| usize::try_from(v).ok().filter(|v| *v < end);
        let (Some(x), Some(y)) = (inside(x, self.image.width), inside(y, self.image.height)) else {
            return;
        };
        let pixel = &mut self.image.rgb[3 * (y * self.image.width + x)..][..3];
        for (value, ink) in pixel.iter_mut().zip(rgb.map(f32::from)) {
            let before = f32::from(*value);
            *value = (before + share.min(1.0) * (ink - before)).round() as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: Style = Style { size: 20.0, ink: 0 };

    #[test]
    fn lines_break_at_spaces_and_between_chinese_characters() {
        let two = STYLE.width("蓝色");
        assert_eq!(STYLE.wrap("蓝色背景，猫", two, 9), ["蓝色", "背", "景，", "猫"]);
        let word = STYLE.width("on a mat");
        assert_eq!(STYLE.wrap("a red cat on a mat", word, 9), ["a red cat", "on a mat"]);
        let lines = STYLE.wrap("a red cat on a mat", word, 1);
        assert!(
            lines.len() == 1 && lines[0].starts_with("a red") && lines[0].ends_with('…'),
            "{lines:?}"
        );
    }

    #[test]
    fn chinese_and_latin_have_glyphs_and_are_drawn() {
        for c in "猫貓的A~é…·".chars() {
            assert_ne!(PARSED.glyph_id(c).0, 0, "{c}");
        }
        let mut canvas = Canvas::new(40, 30);
        assert_eq!(canvas.write("猫", 4, 2, STYLE), 2 + STYLE.line());
        assert!(canvas.image.rgb.iter().filter(|&&v| v < 64).count() > 90);
        canvas.write("over the edge", 30, 20, STYLE); // and no panic
    }
}
