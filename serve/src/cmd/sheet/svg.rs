//! A drawing as SVG: text, lines and boxes in classes, which one style sheet paints light or dark.

use super::font;

/// Colours and fonts of sheets and plots, for light and dark surroundings. The renderer of PNGs
/// knows no media queries and skips the second half. Chinese text has the embedded font first, not
/// as a fallback: Chromium does not lay out SVG text again when a fallback has arrived.
const STYLE: &str = include_str!("svg.css");

/// How a text looks.
#[derive(Clone, Copy)]
pub struct TextStyle {
    /// Units of an em.
    pub size: f32,
    /// Classes of the style sheet.
    pub class: &'static str,
}

/// Which end of a text its `x` is.
#[derive(Clone, Copy, PartialEq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing under way. Its units are pixels of a screen at usual distance.
pub struct Svg {
    pub width: f32,
    pub height: f32,
    /// What the drawing shows, for who cannot see it.
    title: String,
    body: String,
}

impl TextStyle {
    /// From one line to the next.
    pub fn line(self) -> f32 {
        1.35 * self.size
    }

    pub fn width(self, text: &str) -> f32 {
        font::width(text, self.size)
    }
}

impl Svg {
    /// An empty drawing. Its height may be set last.
    pub fn new(width: f32, title: String) -> Svg {
        Svg { width, height: 0.0, title, body: String::new() }
    }

    /// Adds elements; strangers' text in them must be escaped.
    pub fn push(&mut self, elements: &str) {
        self.body += elements;
        self.body.push('\n');
    }

    /// Writes a line of text with its baseline at `y`.
    pub fn text(&mut self, text: &str, x: f32, y: f32, style: TextStyle, anchor: Anchor) {
        let han = if needs_font(text) { " han" } else { "" };
        let class = match format!("{}{han}", style.class).trim_start() {
            "" => String::new(),
            class => format!(" class=\"{class}\""),
        };
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let language = language(text).map_or(String::new(), |code| format!(" xml:lang=\"{code}\""));
        self.push(&format!(
            "<text{class}{language} x=\"{}\" y=\"{}\" font-size=\"{}\"{anchor}>{}</text>",
            Number(x),
            Number(y),
            Number(style.size),
            escape(text)
        ));
    }

    /// Writes lines from the upper left corner `x`, `y`; gives where the next one would begin.
    pub fn lines(&mut self, lines: &[String], x: f32, y: f32, style: TextStyle) -> f32 {
        for (i, line) in lines.iter().enumerate() {
            let top = y + i as f32 * style.line();
            self.text(line, x, top + style.size, style, Anchor::Start);
        }
        y + lines.len() as f32 * style.line()
    }

    /// Draws a line of `class` between two points.
    pub fn line(&mut self, class: &str, (x1, y1): (f32, f32), (x2, y2): (f32, f32)) {
        self.push(&format!(
            "<path class=\"{class}\" d=\"M{} {}L{} {}\"/>",
            Number(x1),
            Number(y1),
            Number(x2),
            Number(y2)
        ));
    }

    /// A file of its own, with its paper, colours and, for Chinese text, its font.
    pub fn document(&self) -> String {
        let face = if self.has_font() { font::face() } else { String::new() };
        self.element(&format!(
            "<style>{face}{STYLE}</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n"
        ))
    }

    /// Whether the document holds the embedded font, which its text needs.
    pub fn has_font(&self) -> bool {
        needs_font(&self.body)
    }

    /// A part of a page that holds the document of another drawing, whose colours and font it uses.
    pub fn fragment(&self) -> String {
        self.element("")
    }

    fn element(&self, start: &str) -> String {
        let (width, height, title) = (Number(self.width), Number(self.height), escape(&self.title));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"group\" xml:lang=\"en\" aria-label=\"{title}\">\n\
             {start}{}</svg>\n",
            self.body
        )
    }
}

/// Whether a text has characters that a reader's machine may lack and the embedded font has.
pub fn needs_font(text: &str) -> bool {
    text.chars().any(|c| c >= '\u{2e80}' && font::covers(c))
}

/// The language of a text whose glyphs depend on it.
pub fn language(text: &str) -> Option<&'static str> {
    let any = |first: char, last: char| text.chars().any(|c| (first..=last).contains(&c));
    if any('\u{3040}', '\u{30ff}') {
        Some("ja")
    } else if any('\u{ac00}', '\u{d7a3}') {
        Some("ko")
    } else if any('\u{3400}', '\u{9fff}') {
        Some("zh")
    } else {
        None
    }
}

/// `text` for an element or an attribute in quotes. White space becomes spaces; characters that XML
/// forbids are left out.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\t' | '\n' | '\r' => out.push(' '),
            '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// A coordinate in at most two decimals.
pub struct Number(pub f32);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", (100.0 * self.0).round() / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_text_cannot_leave_its_place() {
        assert_eq!(escape("</text><script>"), "&lt;/text&gt;&lt;script&gt;");
        assert_eq!(escape("\" onload='a&b'"), "&quot; onload=&#39;a&amp;b&#39;");
        assert_eq!(escape("a\0b\u{1b}[0m\u{85}\u{ffff}\nc"), "ab[0m c");
    }

    #[test]
    fn texts_name_the_language_that_their_glyphs_need() {
        assert_eq!(language("蓝色背景上的猫"), Some("zh"));
        assert_eq!(language("青い猫"), Some("ja"));
        assert_eq!(language("고양이"), Some("ko"));
        assert_eq!(language("a cat, \"café\""), None);
    }

    #[test]
    fn only_chinese_text_costs_the_font() {
        let document = |text: &str| {
            let mut svg = Svg::new(100.0, String::new());
            svg.text(text, 0.0, 10.0, TextStyle { size: 10.0, class: "" }, Anchor::Start);
            svg.document()
        };
        assert!(!document("a café · 2×").contains("@font-face"));
        assert!(document("猫").contains("@font-face{font-family:hydit-sheet"));
    }
}
