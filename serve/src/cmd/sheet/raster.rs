//! An SVG document as pixels.

use std::collections::BTreeSet;
use std::sync::{Arc, Once};

use anyhow::{Context, Result};
use hydit::image::Image;
use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg::fontdb::{Database, ID, Style, Weight};
use resvg::usvg::{FontResolver, Group, Node, Options, Tree};
use skrifa::{FontRef, MetadataProvider};

use super::font;

/// What [`render`] made of a document.
pub struct Rendered {
    pub image: Image,
    /// Characters that neither the embedded font nor a font of this machine has: they are boxes.
    pub boxes: BTreeSet<char>,
}

/// Draws `document`, `scale` pixels for each of its units. Its text is set in the embedded font,
/// whatever it names; the fonts of this machine are read for characters that this one lacks.
///
/// # Errors
/// When the image would be too large.
///
/// # Panics
/// When the document is not valid SVG.
pub fn render(document: &str, scale: f32) -> Result<Rendered> {
    let mut fonts = Database::new();
    fonts.load_font_data(font::truetype());
    let embedded = fonts.faces().next().expect("the embedded font is a font").id;
    let options = Options {
        fontdb: Arc::new(fonts),
        font_resolver: resolver(embedded),
        ..Options::default()
    };
    let tree = Tree::from_str(document, &options).expect("what was laid out is valid SVG");
    let mut boxes = BTreeSet::new();
    find_boxes(tree.root(), &mut boxes);

    let (width, height) = (scale * tree.size().width(), scale * tree.size().height());
    let mut pixels = Pixmap::new(width.round() as u32, height.round() as u32)
        .with_context(|| format!("{width:.0}x{height:.0} pixels are too many; show fewer"))?;
    pixels.fill(Color::WHITE); // the last row and column may be covered in part
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixels.as_mut());
    let rgb = pixels.data().chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]);
    let (width, height) = (pixels.width() as usize, pixels.height() as usize);
    Ok(Rendered { image: Image { width, height, rgb: rgb.collect() }, boxes })
}

/// Takes the `embedded` font first, then an upright font of this machine that has the character.
fn resolver(embedded: ID) -> FontResolver<'static> {
    let machine = Once::new();
    FontResolver {
        select_font: Box::new(move |_, _| Some(embedded)),
        select_fallback: Box::new(move |c, used, fonts| {
            machine.call_once(|| Arc::make_mut(fonts).load_system_fonts());
            let mut upright = fonts.faces().filter(|face| {
                face.weight == Weight::NORMAL
                    && face.style == Style::Normal
                    && !used.contains(&face.id)
            });
            upright.find(|face| has(fonts, face.id, c)).map(|face| face.id)
        }),
    }
}

fn has(fonts: &Database, face: ID, c: char) -> bool {
    let glyph = |data: &[u8], index| FontRef::from_index(data, index).ok()?.charmap().map(c);
    fonts.with_face_data(face, glyph).flatten().is_some()
}

/// Adds the characters in `group` that no font had.
fn find_boxes(group: &Group, boxes: &mut BTreeSet<char>) {
    for node in group.children() {
        match node {
            Node::Group(group) => find_boxes(group, boxes),
            Node::Text(text) => {
                let glyphs = text.layouted().iter().flat_map(|span| &span.positioned_glyphs);
                let missing = glyphs.filter(|glyph| glyph.id.0 == 0);
                let characters = missing.flat_map(|glyph| glyph.text.chars());
                boxes.extend(characters.filter(|c| !c.is_whitespace()));
            }
            Node::Path(_) | Node::Image(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::sheet::svg::{Anchor, Svg, TextStyle};

    fn rendered(text: &str) -> Rendered {
        let mut svg = Svg::new(40.0, String::new());
        svg.height = 40.0;
        svg.text(text, 4.0, 32.0, TextStyle { size: 30.0, class: "" }, Anchor::Start);
        render(&svg.document(), 1.0).expect("it is small")
    }

    #[test]
    fn chinese_characters_are_not_boxes() {
        let [cat, traditional, unassigned] = ["猫", "貓", "\u{0378}"].map(rendered);
        assert!(cat.image.rgb.iter().filter(|&&v| v < 64).count() > 90, "nothing is drawn");
        assert_ne!(cat.image, traditional.image);
        assert_ne!(cat.image, unassigned.image);
        assert_ne!(traditional.image, unassigned.image);
        assert!(cat.boxes.is_empty() && traditional.boxes.is_empty());
    }

    #[test]
    fn what_no_font_has_is_told() {
        let unassigned = rendered("\u{0378}");
        assert_eq!(unassigned.boxes, ['\u{0378}'].into());
        assert!(unassigned.image.rgb.iter().any(|&v| v < 64), "a box is drawn");
    }

    #[test]
    fn an_image_too_large_is_refused() {
        let mut svg = Svg::new(1e9, String::new());
        svg.height = 1e9;
        let error = render(&svg.document(), 4.0).err().expect("it is too large").to_string();
        assert!(error.contains("show fewer"), "{error}");
    }
}
