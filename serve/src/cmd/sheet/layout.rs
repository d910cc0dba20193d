//! The sheet as SVG: the images of a prompt beside each other, with what each one cost and kept.

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hydit::image::{Image, encode_png};
use image::RgbImage;
use image::imageops::thumbnail;

use super::Report;
use super::figures::{count, decibels};
use super::font;
use super::svg::{Anchor, Number, Svg, TextStyle, escape};

/// The width of an image on the sheet. Its pixels may be more.
pub const CELL: f32 = 160.0;
/// Images with more pixels in a row than this are made smaller.
const MOST_PIXELS: usize = 512;
const GAP: f32 = 18.0;
/// The width of prompts that stand beside their images.
const SIDE: f32 = 168.0;
/// How much of a width is filled at most, since a reader's font may be wider than ours.
const FILL: f32 = 0.93;

const TITLE: TextStyle = TextStyle { size: 26.0, class: "" };
const ABOUT: TextStyle = TextStyle { size: 13.0, class: "soft" };
const PROMPT: TextStyle = TextStyle { size: 15.0, class: "" };
const HEAD: TextStyle = TextStyle { size: 15.0, class: "" };
const NAME: TextStyle = TextStyle { size: 12.5, class: "" };
const FIGURES: TextStyle = TextStyle { size: 11.5, class: "soft" };

/// What stands under an image or in the head of a column.
struct Caption {
    name: String,
    /// Below the name, on the left.
    cost: String,
    /// Below the name, on the right.
    quality: String,
    /// Below the quality.
    worst: String,
}

/// Where things go when the images of a prompt come `per_line` in a line.
struct Layout {
    per_line: usize,
    /// Whether prompts stand left of their images, which all fit into one line, under heads.
    beside: bool,
    margin: f32,
    /// The height of an image.
    height: f32,
}

/// Lays the sheet out: with `per_line` images of a prompt in a line, or with all of them, the
/// prompt beside them and the means of each column above. Every layout has the same images, which
/// only the one without `per_line` holds: others can be shown in a page that holds that one too.
///
/// # Errors
/// When an image cannot be encoded.
pub fn layout(report: &Report, per_line: Option<usize>) -> Result<Svg> {
    let first = &report.shown[0].uncached;
    let layout = Layout {
        per_line: per_line.unwrap_or(1 + report.contenders.len()),
        beside: per_line.is_none(),
        margin: if per_line == Some(2) { 16.0 } else { 36.0 },
        height: CELL * first.height as f32 / first.width as f32,
    };
    let mut svg = Svg::new(layout.width(), title(report));
    if layout.beside {
        svg.push(&images(report, layout.height)?);
    }
    let mut y = layout.header(&mut svg, report);
    for row in 0..report.shown.len() {
        y = layout.row(&mut svg, report, row, y);
    }
    svg.height = y + layout.margin / 2.0;
    Ok(svg)
}

impl Layout {
    fn width(&self) -> f32 {
        self.left(self.per_line) - GAP + self.margin
    }

    fn inside(&self) -> f32 {
        self.width() - 2.0 * self.margin
    }

    /// The left end of a column of images.
    fn left(&self, column: usize) -> f32 {
        let side = if self.beside { SIDE + GAP } else { 0.0 };
        self.margin + side + column as f32 * (CELL + GAP)
    }

    /// The title, what is shown, and the heads of columns; gives where the rows begin.
    fn header(&self, svg: &mut Svg, report: &Report) -> f32 {
        let fill = FILL * self.inside();
        let title = font::wrap(&title(report), TITLE.size, fill, 2);
        let y = svg.lines(&title, self.margin, self.margin, TITLE) + 2.0;
        let about = font::wrap(&about(report, self.beside), ABOUT.size, fill.min(900.0), 9);
        let y = svg.lines(&about, self.margin, y, ABOUT) + GAP;
        if !self.beside {
            return y;
        }
        let mut below = y;
        for (column, head) in heads(report).iter().enumerate() {
            below = head.draw(svg, self.left(column), y, HEAD, 2);
        }
        below + 12.0
    }

    /// One prompt with its images; gives where the next one begins.
    fn row(&self, svg: &mut Svg, report: &Report, row: usize, y: f32) -> f32 {
        svg.line("rule", (self.margin, y), (self.margin + self.inside(), y));
        let y = y + GAP;
        let prompt = &report.prompts[report.shown[row].prompt];
        let most = (self.height / PROMPT.line()).max(1.0) as usize;
        let (width, most) = if self.beside { (SIDE, most) } else { (self.inside(), 4) };
        let lines = font::wrap(prompt, PROMPT.size, FILL * width, most);
        let below = svg.lines(&lines, self.margin, y, PROMPT);
        let top = if self.beside { y } else { below + 10.0 };
        let captions = captions(report, row);
        let mut y = top;
        for (i, caption) in captions.iter().enumerate() {
            let x = self.left(i % self.per_line);
            self.image(svg, (row, i), x, y, &format!("{prompt}: {}", caption.text()));
            let below = caption.draw(svg, x, y + self.height + 7.0, NAME, 1);
            if (i + 1) % self.per_line == 0 || i + 1 == captions.len() {
                y = below + GAP;
            }
        }
        y
    }

    /// Shows one of [`images`].
    fn image(&self, svg: &mut Svg, (row, column): (usize, usize), x: f32, y: f32, title: &str) {
        let (left, top, height) = (Number(x), Number(y), Number(self.height));
        svg.push(&format!(
            "<use href=\"#image-{row}-{column}\" x=\"{left}\" y=\"{top}\" role=\"img\">\
             <title>{}</title></use>",
            escape(title)
        ));
        svg.push(&format!(
            "<rect class=\"edge\" x=\"{left}\" y=\"{top}\" width=\"{CELL}\" height=\"{height}\"/>"
        ));
    }
}

impl Caption {
    fn uncached(report: &Report) -> Caption {
        let cost = format!("{} runs", report.request.steps);
        Caption { name: "uncached".into(), cost, quality: String::new(), worst: String::new() }
    }

    /// Writes it with its upper left corner at `x`, `y`, with `figures` lines below the name; gives
    /// where it ends.
    fn draw(&self, svg: &mut Svg, x: f32, y: f32, name: TextStyle, figures: usize) -> f32 {
        let text = font::cut(&self.name, name.size, FILL * CELL);
        let y = svg.lines(&[text], x, y, name) + 1.0;
        svg.text(&self.cost, x, y + FIGURES.size, FIGURES, Anchor::Start);
        let right = [&self.quality, &self.worst];
        for (i, text) in right.into_iter().enumerate().filter(|(_, text)| !text.is_empty()) {
            let baseline = y + i as f32 * FIGURES.line() + FIGURES.size;
            svg.text(text, x + CELL, baseline, FIGURES, Anchor::End);
        }
        y + figures as f32 * FIGURES.line()
    }

    /// Writes the caption as one line.
    fn text(&self) -> String {
        let parts = [&self.name, &self.cost, &self.quality, &self.worst];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        parts.map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// Writes the definitions of all images, named by row and column.
fn images(report: &Report, height: f32) -> Result<String> {
    let mut out = String::from("<defs>\n");
    for (row, shown) in report.shown.iter().enumerate() {
        let drawn = shown.drawn.iter().map(|(_, image)| image);
        for (column, image) in std::iter::once(&shown.uncached).chain(drawn).enumerate() {
            let data = STANDARD.encode(encode_png(&fitted(image), &[])?);
            out += &format!(
                "<image id=\"image-{row}-{column}\" width=\"{CELL}\" height=\"{}\" \
                 href=\"data:image/png;base64,{data}\"/>\n",
                Number(height)
            );
        }
    }
    Ok(out + "</defs>")
}

/// Shrinks an image to at most [`MOST_PIXELS`] in a row.
fn fitted(image: &Image) -> Image {
    if image.width <= MOST_PIXELS {
        return image.clone();
    }
    let (width, height) = (MOST_PIXELS, (image.height * MOST_PIXELS / image.width).max(1));
    let pixels = RgbImage::from_raw(image.width as u32, image.height as u32, image.rgb.clone())
        .expect("an image has three bytes for each pixel");
    Image { width, height, rgb: thumbnail(&pixels, width as u32, height as u32).into_raw() }
}

pub fn title(report: &Report) -> String {
    let request = &report.request;
    format!("{} · {} · {} steps", report.model, request.sampler, request.steps)
}

/// Says what is shown, and what captions and `heads` mean.
pub fn about(report: &Report, heads: bool) -> String {
    let request = &report.request;
    let mut about = format!(
        "{}×{}, guidance {}, seed {}. Under each image: speed-up by FLOPs, runs of the deep core, \
         PSNR to the uncached image.",
        request.height, request.width, request.guidance_scale, request.seed
    );
    if heads {
        about += &format!(
            " Above the columns: means over {}; p10: nine images in ten have this or more.",
            report.extent()
        );
    }
    about
}

fn heads(report: &Report) -> Vec<Caption> {
    let mut heads = vec![Caption::uncached(report)];
    for means in report.means() {
        let finite = means.p10.is_finite();
        heads.push(Caption {
            name: means.label,
            cost: format!("{:.2}× · {} runs", means.speed_up, count(means.refreshes)),
            quality: decibels(means.psnr),
            worst: if finite { format!("p10 {}", decibels(means.p10)) } else { String::new() },
        });
    }
    heads
}

fn captions(report: &Report, row: usize) -> Vec<Caption> {
    let mut captions = vec![Caption::uncached(report)];
    for (sample, _) in &report.shown[row].drawn {
        captions.push(Caption {
            name: report.contenders[sample.contender].to_string(),
            cost: format!("{:.2}× · {} runs", sample.speed_up, sample.refreshes),
            quality: decibels(sample.to_uncached.psnr),
            worst: String::new(),
        });
    }
    captions
}
