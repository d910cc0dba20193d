//! One HTML page with the sheet, the plot and the figures; it loads nothing and runs nothing.

use anyhow::Result;

use super::Report;
use super::font;
use super::layout::{self, layout};
use super::plot::{self, plot};
use super::svg::{Number, Svg, escape, language, needs_font};
use super::table;

/// Images in a line at most, in the arrangements for windows too narrow for all of them.
const PER_LINE: [usize; 3] = [2, 4, 7];
/// A drawing is shown when the window has at least this share of its width, and shrunk to fit.
const SHRINK: f32 = 0.9;

const STYLE: &str = include_str!("page.css");

/// One of several drawings of the same, for windows of some width.
struct View {
    width: f32,
    svg: String,
}

/// Writes the page. It holds `sheet`, which has all images in a line, as the SVG file has it;
/// narrow windows show the same images in more lines.
///
/// # Errors
/// When an image cannot be encoded.
pub fn page(report: &Report, sheet: &Svg) -> Result<String> {
    let columns = 1 + report.contenders.len();
    let mut per_line = PER_LINE.map(|most| columns.div_ceil(columns.div_ceil(most))).to_vec();
    per_line.dedup();
    per_line.retain(|&n| n == 2 || n < columns);
    let narrow = per_line.into_iter().map(|n| Ok(View::of(&layout(report, Some(n))?)));
    let mut sheets = narrow.collect::<Result<Vec<View>>>()?;
    sheets.push(View { width: sheet.width, svg: sheet.document() });
    let sizes = plot::SMALLER.into_iter().chain([plot::SIZE]);
    let plots: Vec<View> = sizes.map(|size| View::of(&plot(report, size))).collect();
    let (sheet_rules, sheets) = alternatives("sheet", &sheets, 1.3);
    let (plot_rules, plots) = alternatives("plot", &plots, 1.1);
    let title = escape(&layout::title(report));
    let caption = format!(
        "Means over {}, {} images a line, beside the uncached ones; \
         p10: nine images in ten have this or more",
        report.extent(),
        report.images()
    );
    let header = table::HEADER.map(|name| format!("<th scope=\"col\">{name}</th>")).concat();
    let rows: String = table::rows(report).iter().map(row).collect();
    let footer = footer(report);
    let lacks_font = !sheet.has_font() && (needs_font(&rows) || needs_font(&footer));
    let face = if lacks_font { font::face() } else { String::new() };
    Ok(format!(
        include_str!("page.html"),
        title = title,
        style = STYLE,
        face = face,
        sheet_rules = sheet_rules,
        plot_rules = plot_rules,
        sheets = sheets,
        plots = plots,
        caption = caption,
        header = header,
        rows = rows,
        footer = footer,
    ))
}

impl View {
    fn of(svg: &Svg) -> View {
        View { width: svg.width, svg: svg.fragment() }
    }
}

/// The rules that show the widest of `views` that a window has room for, `stretched` at most; and
/// the views, each in an element of its own.
fn alternatives(name: &str, views: &[View], stretched: f32) -> (String, String) {
    let (mut rules, mut elements) = (String::new(), String::new());
    for (i, View { width, svg }) in views.iter().enumerate() {
        elements += &format!("<div class=\"{name}-{i}\">\n{svg}</div>\n");
        rules += &format!(".{name}-{i} svg {{ max-width: {}px }}\n", Number(stretched * width));
        if let Some(next) = views.get(i + 1) {
            let from = Number(SHRINK * next.width);
            rules += &format!("@media (width >= {from}px) {{ .{name}-{i} {{ display: none }} }}\n");
            rules +=
                &format!("@media (width < {from}px) {{ .{name}-{} {{ display: none }} }}\n", i + 1);
        }
    }
    (rules, elements)
}

/// The figures of one contender.
fn row([policy, figures @ ..]: &[String; 7]) -> String {
    let mut row = format!(
        "<tr role=\"row\"><th scope=\"row\" role=\"rowheader\"{}>{}</th>",
        lang(policy),
        escape(policy)
    );
    for (name, figure) in table::HEADER[1..].iter().zip(figures) {
        row += &format!("<td role=\"cell\" data-label=\"{name}\">{figure}</td>");
    }
    row + "</tr>\n"
}

fn lang(text: &str) -> String {
    language(text).map_or(String::new(), |code| format!(" lang=\"{code}\""))
}

fn footer(report: &Report) -> String {
    let request = &report.request;
    let negative = if request.negative_prompt.is_empty() {
        String::new()
    } else {
        format!(
            ", without <q{}>{}</q>",
            lang(&request.negative_prompt),
            escape(&request.negative_prompt)
        )
    };
    format!(
        "{}, {}×{}, {}, {} spacing, {} steps, guidance {}, seed {}{negative}. hydit-serve {}",
        escape(&report.model),
        request.height,
        request.width,
        request.sampler,
        request.spacing,
        request.steps,
        request.guidance_scale,
        request.seed,
        env!("CARGO_PKG_VERSION")
    )
}
