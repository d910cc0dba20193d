//! Fidelity over speed: a curve for each family of policies, and one for fewer steps.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use hydit::image::encode_png;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Report;
use super::bitmap::Bitmap;
use super::canvas::Canvas;
use super::figures::Means;
use super::scale::shrink;

/// Pixels of an SVG.
const SIZE: (u32, u32) = (960, 620);
/// Pixels of a PNG for each of an SVG, drawn with as many more for its edges to be smooth.
const FINE: usize = 2;
const FAMILY: &str = "sans-serif";

/// Told apart by the colour-blind too (Okabe and Ito).
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
const CONTROL: RGBColor = RGBColor(120, 120, 120);
const INK: RGBColor = RGBColor(70, 70, 70);

/// Fails if `path` ends in what is not written.
pub fn check_name(path: &Path) -> Result<()> {
    match is_svg(path) || path.extension().is_some_and(|end| end == "png") {
        true => Ok(()),
        false => bail!("--plot: {} must end in .svg or .png", path.display()),
    }
}

/// The bytes of the plot, for a file of this name.
pub fn plot(report: &Report, path: &Path) -> Result<Vec<u8>> {
    if is_svg(path) {
        let mut text = String::new();
        draw(report, SVGBackend::with_string(&mut text, SIZE).into_drawing_area(), 1)
            .map_err(|error| anyhow!("{error}"))?;
        return Ok(text.into_bytes());
    }
    let scale = FINE * FINE;
    let (width, height) = (scale * SIZE.0 as usize, scale * SIZE.1 as usize);
    let mut canvas = Canvas::new(width, height);
    draw(report, Bitmap(&mut canvas).into_drawing_area(), scale as u32)
        .map_err(|error| anyhow!("{error}"))?;
    Ok(encode_png(&shrink(&canvas.image, FINE), &[])?)
}

fn is_svg(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "svg")
}

/// `scale` is how many pixels stand for one of an SVG.
fn draw<B: DrawingBackend>(
    report: &Report,
    page: DrawingArea<B, Shift>,
    scale: u32,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let means = report.means();
    let (xs, ys) = ranges(&means);
    let at = |x: i32, y: i32| (scale as i32 * x, scale as i32 * y);
    let text = |size: u32, color: &RGBColor| (FAMILY, scale * size).into_font().color(color);
    page.fill(&WHITE)?;
    page.draw(&Text::new(title(report), at(32, 22), text(30, &INK)))?;
    page.draw(&Text::new(subtitle(report), at(32, 52), text(18, &CONTROL)))?;
    let mut chart = ChartBuilder::on(&page)
        .margin_top(scale * 86)
        .margin_left(scale * 20)
        .margin_right(scale * 32)
        .margin_bottom(scale * 16)
        .x_label_area_size(scale * 48)
        .y_label_area_size(scale * 58)
        .build_cartesian_2d(xs, ys)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(228, 228, 228).stroke_width(scale))
        .axis_style(RGBColor(180, 180, 180).stroke_width(scale))
        .label_style(text(18, &INK))
        .axis_desc_style(text(19, &INK))
        .x_label_formatter(&|x| format!("{x:.1}x"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .set_all_tick_mark_size(scale * 6)
        .x_desc("speed-up of the denoising loop by FLOPs")
        .y_desc("PSNR to the uncached picture, dB")
        .draw()?;
    for (family, color, points) in curves(&means) {
        let line = color.stroke_width(2 * scale);
        // Fewer steps lie below most policies: so do their names.
        let (anchor, corner) = match points.first().is_some_and(|point| point.is_control()) {
            true => (Pos::new(HPos::Right, VPos::Top), at(-6, 6)),
            false => (Pos::new(HPos::Left, VPos::Bottom), at(6, -6)),
        };
        let whisker = color.mix(0.35).stroke_width(2 * scale);
        let ends = |point: &Means| vec![(point.speed_up, point.psnr), (point.speed_up, point.p10)];
        let below = points.iter().filter(|point| point.p10.is_finite());
        chart.draw_series(below.map(|point| PathElement::new(ends(point), whisker)))?;
        let path: Vec<(f64, f64)> = points.iter().map(|p| (p.speed_up, p.psnr)).collect();
        let sample = move |(x, y)| {
            EmptyElement::at((x, y))
                + PathElement::new(vec![(0, 0), at(26, 0)], line)
                + Circle::new(at(13, 0), 4 * scale, color.filled())
        };
        chart.draw_series([PathElement::new(path, line)])?.label(family).legend(sample);
        chart.draw_series(points.iter().map(|point| {
            EmptyElement::at((point.speed_up, point.psnr))
                + Circle::new((0, 0), 5 * scale, color.filled())
                + Text::new(short(point), corner, text(16, &color).pos(anchor))
        }))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .margin(scale * 12)
        .legend_area_size(scale * 34)
        .label_font(text(18, &INK))
        .background_style(WHITE.mix(0.85))
        .draw()?;
    page.present()
}

fn title(report: &Report) -> String {
    format!("{}, {}, {} steps", report.model, report.request.sampler, report.request.steps)
}

fn subtitle(report: &Report) -> String {
    let pictures = report.pictures();
    format!(
        "points: the mean over {pictures} pictures ({}); lines down: nine in ten are above the end",
        report.extent()
    )
}

/// Families in the order of their first policy, each with its colour and its points by speed-up.
fn curves(means: &[Means]) -> Vec<(&str, RGBColor, Vec<&Means>)> {
    let mut curves: Vec<(&str, RGBColor, Vec<&Means>)> = Vec::new();
    let mut colors = COLORS.iter().cycle();
    for own in means {
        let curve = match curves.iter().position(|(family, ..)| *family == own.family) {
            Some(at) => at,
            None => {
                let color = if own.is_control() { Some(&CONTROL) } else { colors.next() };
                curves.push((&own.family, *color.unwrap_or(&INK), Vec::new()));
                curves.len() - 1
            }
        };
        if own.psnr.is_finite() {
            curves[curve].2.push(own); // equal pictures have no place on the axis
        }
    }
    for (.., points) in &mut curves {
        points.sort_by(|a, b| a.speed_up.total_cmp(&b.speed_up));
    }
    curves
}

/// What sets a point apart in its family: `N3`, `35dB`, `8 steps`.
fn short(means: &Means) -> String {
    let label = means.label.rsplit_once(", ").map_or(means.label.as_str(), |(_, steps)| steps);
    let short = match label.split_once(':') {
        Some((_, value)) => value.rsplit('/').next(),
        None => label.split(['-', '+']).next(),
    };
    short.unwrap_or(label).to_string()
}

/// Of both axes, with room around the points.
fn ranges(means: &[Means]) -> (std::ops::Range<f64>, std::ops::Range<f64>) {
    let shown = || means.iter().filter(|means| means.psnr.is_finite());
    let fastest = shown().map(|means| means.speed_up).fold(1.5, f64::max);
    let lowest = shown().map(|means| means.p10).fold(f64::INFINITY, f64::min);
    let highest = shown().map(|means| means.psnr).fold(f64::NEG_INFINITY, f64::max);
    let decibels = if lowest.is_finite() {
        (lowest - 2.0).floor()..(highest + 3.0).ceil()
    } else {
        20.0..60.0
    };
    (1.0..1.0 + 1.08 * (fastest - 1.0), decibels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_named_by_what_sets_them_apart() {
        let named = |label: &str| {
            let means = Means { label: label.to_string(), ..Means::default() };
            short(&means)
        };
        assert_eq!(named("N3-700-50+taylor1"), "N3");
        assert_eq!(named("off, 8 steps"), "8 steps");
        assert_eq!(named("auto:35dB"), "35dB");
        assert_eq!(named("schedule:a/fast.txt"), "fast.txt");
    }
}
