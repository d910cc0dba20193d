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

/// Colours are those of the drawings.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2024;--soft:#60646c;--paper:#fff;--rule:#e3e5e9}
@media(prefers-color-scheme:dark){
:root{--ink:#eceef1;--soft:#a5abb5;--paper:#14161a;--rule:#2c3037}
}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 -apple-system,'Segoe UI',Roboto,\
'Noto Sans','Liberation Sans',Arial,'PingFang SC','Microsoft YaHei','Noto Sans CJK SC',hydit-sheet,sans-serif}
h1{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
svg{display:block;width:100%;height:auto;margin:0 auto}
svg .paper{fill:none}
.figures,footer{max-width:960px;margin:0 auto 36px;padding:0 32px}
table{width:100%;border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding-bottom:10px}
th,td{padding:8px 0 8px 18px;text-align:right;border-bottom:1px solid var(--rule)}
thead th{color:var(--soft);font-weight:400;vertical-align:bottom}
th:first-child{text-align:left;padding-left:0;overflow-wrap:anywhere}
tbody th{font-weight:600}
footer{color:var(--soft);font-size:13px}
@media(max-width:640px){
.figures,footer{padding:0 16px}
table,tbody,tr,caption{display:block}
thead{display:none}
tbody tr{display:grid;grid-template-columns:repeat(3,1fr);gap:4px 12px;padding:12px 0;border-bottom:1px solid var(--rule)}
tbody th,td{display:block;padding:0;border:0;text-align:left}
tbody th{grid-column:1/-1}
td::before{content:attr(data-label);display:block;color:var(--soft);font-size:12px}
}
";

/// Writes the page. The sheet with all images in a line is in it as `document` has it, the SVG file;
/// narrow windows show the same images in more lines.
///
/// # Errors
/// When an image cannot be encoded.
pub fn page(report: &Report, document: &Svg) -> Result<String> {
    let columns = 1 + report.contenders.len();
    let mut per_line = PER_LINE.map(|most| columns.div_ceil(columns.div_ceil(most))).to_vec();
    per_line.dedup();
    per_line.retain(|&n| n == 2 || n < columns);
    let narrow = per_line.into_iter().map(|n| layout(report, Some(n)));
    let narrow = narrow.collect::<Result<Vec<Svg>>>()?;
    let sheets: Vec<&Svg> = narrow.iter().chain([document]).collect();
    let plots = [plot::SMALL, plot::SIZE].map(|size| plot(report, size));
    let plots: Vec<&Svg> = plots.iter().collect();
    let title = escape(&layout::title(report));
    let (figures, footer) = (figures(report), footer(report));
    let lacks_font = !document.has_font() && (needs_font(&figures) || needs_font(&footer));
    let face = if lacks_font { font::face() } else { String::new() };
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; \
         font-src data:; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}{face}{}{}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n<section aria-label=\"images\">\n{}</section>\n\
         <section aria-label=\"plot\">\n{}</section>\n<section class=\"figures\">\n{figures}</section>\n\
         </main>\n<footer>{footer}</footer>\n</body>\n</html>\n",
        choose("sheet", &sheets, 1.3),
        choose("plot", &plots, 1.1),
        views("sheet", &sheets, |svg| {
            if std::ptr::eq(svg, document) { svg.document() } else { svg.fragment() }
        }),
        views("plot", &plots, Svg::fragment),
    ))
}

/// The drawings, each in an element of its own.
fn views(name: &str, drawings: &[&Svg], write: impl Fn(&Svg) -> String) -> String {
    let view =
        |(i, svg): (usize, &&Svg)| format!("<div class=\"{name}-{i}\">\n{}</div>\n", write(svg));
    drawings.iter().enumerate().map(view).collect()
}

/// The rules that show the widest of `drawings` that a window has room for, `stretched` at most.
fn choose(name: &str, drawings: &[&Svg], stretched: f32) -> String {
    let mut rules = String::new();
    for (i, svg) in drawings.iter().enumerate() {
        rules += &format!(".{name}-{i} svg{{max-width:{}px}}\n", Number(stretched * svg.width));
        if let Some(next) = drawings.get(i + 1) {
            let width = Number(SHRINK * next.width);
            rules += &format!("@media(width>={width}px){{.{name}-{i}{{display:none}}}}\n");
            rules += &format!("@media(width<{width}px){{.{name}-{}{{display:none}}}}\n", i + 1);
        }
    }
    rules
}

fn figures(report: &Report) -> String {
    let header: String =
        table::HEADER.iter().map(|name| format!("<th scope=\"col\">{name}</th>")).collect();
    let mut body = String::new();
    for row in table::rows(report) {
        let [policy, figures @ ..] = &row;
        body += &format!(
            "<tr role=\"row\"><th scope=\"row\" role=\"rowheader\"{}>{}</th>",
            lang(policy),
            escape(policy)
        );
        for (name, figure) in table::HEADER[1..].iter().zip(figures) {
            body += &format!("<td role=\"cell\" data-label=\"{name}\">{figure}</td>");
        }
        body += "</tr>\n";
    }
    format!(
        "<table role=\"table\">\n<caption>Means over {}, {} images a line, beside the uncached ones; \
         p10: nine images in ten have this or more</caption>\n\
         <thead><tr>{header}</tr></thead>\n<tbody role=\"rowgroup\">\n{body}</tbody>\n</table>\n",
        report.extent(),
        report.pictures()
    )
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
