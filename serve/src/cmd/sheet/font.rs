//! The font of sheets, a part of the program: Chinese is legible on a machine without any font.
//!
//! It costs 0.8 MB of the program. A page or SVG with Chinese text embeds it too, as base64, for
//! readers whose machine has no Chinese font; other pages use the fonts of their reader.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use skrifa::instance::{LocationRef, Size};
use skrifa::{FontRef, MetadataProvider};

/// Latin, kana and the Chinese characters of GB 2312 and of Big5's first level (scripts/make-font).
const WOFF: &[u8] = include_bytes!("font/wqy-microhei-subset.woff");

/// The family name of the font in style sheets.
pub const FAMILY: &str = "hydit-sheet";

static TRUETYPE: LazyLock<Vec<u8>> =
    LazyLock::new(|| wuff::decompress_woff1(WOFF).expect("the embedded font is a WOFF file"));

static FONT: LazyLock<FontRef<'static>> =
    LazyLock::new(|| FontRef::new(&TRUETYPE).expect("the embedded font is a TrueType font"));

/// The font as an uncompressed TrueType file.
pub fn truetype() -> Vec<u8> {
    TRUETYPE.clone()
}

/// A style sheet's declaration of the font, with the font in it.
pub fn face() -> String {
    let data = STANDARD.encode(WOFF);
    format!(
        "@font-face{{font-family:{FAMILY};src:url(data:font/woff;base64,{data}) format(\"woff\")}}\n"
    )
}

/// Whether the font has a glyph for `c`.
pub fn covers(c: char) -> bool {
    FONT.charmap().map(c).is_some()
}

/// The width of `text` in a font of `size` units an em, in these units.
pub fn width(text: &str, size: f32) -> f32 {
    let metrics = FONT.glyph_metrics(Size::new(size), LocationRef::default());
    let charmap = FONT.charmap();
    let advance = |c| charmap.map(c).and_then(|glyph| metrics.advance_width(glyph));
    text.chars().map(|c| advance(c).unwrap_or(size)).sum()
}

/// `text`, or as much of it as fits into `most` units, with an ellipsis for the rest.
pub fn cut(text: &str, size: f32, most: f32) -> String {
    let mut cut = text.to_string();
    while width(&cut, size) > most && cut.pop().is_some() {
        cut = cut.trim_end_matches('…').to_string();
        cut.pop();
        cut.push('…');
    }
    cut
}

/// Splits `text` at spaces and between Chinese characters into lines no wider than `most_width`,
/// at most `most_lines` of them.
pub fn wrap(text: &str, size: f32, most_width: f32, most_lines: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words(text) {
        let last = lines.last_mut().expect("there is one from the start");
        let fits = width(&format!("{last}{}", word.trim_end()), size) <= most_width;
        if last.is_empty() || fits {
            last.push_str(word);
        } else {
            lines.push(word.to_string());
        }
    }
    if lines.len() > most_lines {
        let rest = lines.split_off(most_lines - 1).concat();
        lines.push(rest);
    }
    lines.iter().map(|line| cut(line.trim_end(), size, most_width)).collect()
}

/// The parts of `text` that no line break may split: a word with the spaces after it, or a wide
/// character with its punctuation.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut before = rest.chars().next()?;
        let breaks = |&(_, c): &(usize, char)| {
            let wide = (is_wide(before) || is_wide(c)) && !"，。、；：！？）》」』”’".contains(c);
            let end = c != ' ' && (before == ' ' || wide);
            before = c;
            end
        };
        let end = rest.char_indices().skip(1).find(breaks).map_or(rest.len(), |(at, _)| at);
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(word)
    })
}

fn is_wide(c: char) -> bool {
    c >= '\u{2e80}'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces_and_between_chinese_characters() {
        let two = width("蓝色", 20.0);
        assert_eq!(wrap("蓝色背景，猫", 20.0, two, 9), ["蓝色", "背", "景，", "猫"]);
        let words = width("on a mat", 20.0);
        assert_eq!(wrap("a red cat on a mat", 20.0, words, 9), ["a red cat", "on a mat"]);
        let lines = wrap("a red cat on a mat", 20.0, words, 1);
        assert!(
            lines.len() == 1 && lines[0].starts_with("a red") && lines[0].ends_with('…'),
            "{lines:?}"
        );
    }

    #[test]
    fn the_font_has_chinese_and_latin_characters() {
        for c in "猫貓的A~é…·×".chars() {
            assert!(covers(c), "{c}");
        }
        for c in ['😀', '한', '\u{fffd}'] {
            assert!(!covers(c), "{c}");
        }
        assert_eq!(width("猫猫", 20.0), 40.0);
    }
}
