//! The sheet: a row for each prompt, a column for each way to draw it.

use hydit::image::Image;

use super::Report;
use super::canvas::{Canvas, Style};
use super::figures::{count, decibels};
use super::judge::{Sample, Shown};
use super::scale::{enlarge, shrink};

/// Pictures are brought near this width, in whole factors.
const WIDTH: usize = 256;
/// A picture wider than this is made smaller.
const WIDEST: usize = 512;

const BLACK: u8 = 30;
const GREY: u8 = 95;
const PALE: u8 = 130;
const RULE: u8 = 225;

/// Sizes in pixels, all in proportion to the pictures.
struct Layout {
    cell: (usize, usize),
    margin: usize,
    gap: usize,
    /// Of the prompts.
    side: usize,
    title: Style,
    text: Style,
    head: Style,
    figures: Style,
    prompt: Style,
    policy: Style,
}

/// Draws the sheet.
pub fn page(report: &Report) -> Image {
    let rows: Vec<Vec<Image>> = report.shown.iter().map(pictures).collect();
    let layout = Layout::new(&rows[0][0]);
    let width = layout.column(1 + report.contenders.len()) - layout.gap + layout.margin;
    let inside = width - 2 * layout.margin;
    let about = layout.text.wrap(&about(report), inside, 4);
    let heads = layout.margin + layout.title.line() + about.len() * layout.text.line() + layout.gap;
    let first = heads + layout.head.line() + 2 * layout.figures.line() + layout.gap / 2;
    let height = first + rows.len() * layout.row() + layout.margin / 2;

    let mut canvas = Canvas::new(width, height);
    let mut y = canvas.write(&title(report), layout.margin, layout.margin, layout.title);
    for line in about {
        y = canvas.write(&line, layout.margin, y, layout.text);
    }
    for (column, lines) in heads_of(report).iter().enumerate() {
        layout.below(&mut canvas, column, heads, layout.head, lines);
    }
    for (i, images) in rows.iter().enumerate() {
        let y = first + i * layout.row();
        canvas.rule(layout.margin, y, inside, 1 + layout.gap / 32, RULE);
        let y = y + layout.gap;
        layout.prompt(&mut canvas, y, &report.prompts[report.shown[i].prompt]);
        for (column, (image, lines)) in images.iter().zip(captions(report, i)).enumerate() {
            canvas.paste(image, layout.column(column), y);
            let y = y + layout.cell.1 + layout.gap / 4;
            layout.below(&mut canvas, column, y, layout.policy, &lines);
        }
    }
    canvas.image
}

impl Layout {
    fn new(picture: &Image) -> Layout {
        let unit = (picture.width as f32 / WIDTH as f32).clamp(0.8, 2.0);
        let pixels = |n: f32| (n * unit).round() as usize;
        let style = |size: f32, ink| Style { size: size * unit, ink };
        Layout {
            cell: (picture.width, picture.height),
            margin: pixels(52.0),
            gap: pixels(32.0),
            side: pixels(256.0),
            title: style(44.0, BLACK),
            text: style(21.0, GREY),
            head: style(26.0, BLACK),
            figures: style(19.5, GREY),
            prompt: style(26.0, BLACK),
            policy: style(19.5, PALE),
        }
    }

    fn column(&self, index: usize) -> usize {
        self.margin + self.side + index * (self.cell.0 + self.gap)
    }

    fn row(&self) -> usize {
        self.gap
            + self.cell.1
            + self.gap / 4
            + self.policy.line()
            + self.figures.line()
            + self.gap / 2
    }

    /// A name in its own style, figures below it.
    fn below(&self, canvas: &mut Canvas, column: usize, y: usize, name: Style, lines: &[String]) {
        let mut y = y;
        for (i, line) in lines.iter().enumerate() {
            let style = if i == 0 { name } else { self.figures };
            y = canvas.write(&style.cut(line, self.cell.0), self.column(column), y, style);
        }
    }

    fn prompt(&self, canvas: &mut Canvas, y: usize, text: &str) {
        let most = (self.cell.1 / self.prompt.line()).max(1);
        let mut y = y;
        for line in self.prompt.wrap(text, self.side - self.gap, most) {
            y = canvas.write(&line, self.margin, y, self.prompt);
        }
    }
}

/// Of a row, the uncached one first, in the size of the sheet.
fn pictures(row: &Shown) -> Vec<Image> {
    let drawn = row.drawn.iter().map(|(_, image)| image);
    std::iter::once(&row.uncached).chain(drawn).map(fitted).collect()
}

fn title(report: &Report) -> String {
    let request = &report.request;
    format!("{} · {} · {} steps", report.model, request.sampler, request.steps)
}

fn about(report: &Report) -> String {
    let request = &report.request;
    format!(
        "{}x{}, guidance {}, seed {}. Under each picture: speed-up by FLOPs, runs of the deep core, PSNR to the \
         uncached picture. In the column heads: means over {}.",
        request.height,
        request.width,
        request.guidance_scale,
        request.seed,
        report.extent()
    )
}

fn heads_of(report: &Report) -> Vec<Vec<String>> {
    let mut heads = vec![uncached(report)];
    for means in report.means() {
        let p10 = match means.p10.is_finite() {
            true => format!(", p10 {:.1}", means.p10),
            false => String::new(),
        };
        heads.push(vec![
            means.label,
            format!("{:.2}x  {} runs", means.speed_up, count(means.core_runs)),
            format!("{}{p10}", decibels(means.psnr)),
        ]);
    }
    heads
}

/// Two lines under each picture of a row.
fn captions(report: &Report, row: usize) -> Vec<Vec<String>> {
    let mut captions = vec![uncached(report)];
    for (sample, _) in &report.shown[row].drawn {
        let Sample { speed_up, core_runs, psnr, .. } = sample;
        captions.push(vec![
            report.contenders[sample.contender].to_string(),
            format!("{speed_up:.2}x  {core_runs} runs  {}", decibels(*psnr)),
        ]);
    }
    captions
}

fn uncached(report: &Report) -> Vec<String> {
    vec!["uncached".to_string(), format!("{} runs", report.request.steps)]
}

fn fitted(image: &Image) -> Image {
    match image.width {
        width if width > WIDEST => shrink(image, width.div_ceil(WIDEST)),
        width => enlarge(image, ((WIDTH as f32 / width as f32).round() as usize).max(1)),
    }
}
