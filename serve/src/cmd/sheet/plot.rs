//! Fidelity over speed: a curve for each family of policies, and one for fewer steps.

use std::ops::Range;

use super::Report;
use super::figures::Means;
use super::font;
use super::labels::{Labels, Rect};
use super::svg::{Anchor, Number, Svg, TextStyle, escape};

/// The size of a plot of its own.
pub const SIZE: (f32, f32) = (960.0, 620.0);
/// The sizes of plots for windows that are narrower.
pub const SMALLER: [(f32, f32); 2] = [(360.0, 400.0), (640.0, 500.0)];
/// Pixels of a PNG for each of an SVG.
pub const SCALE: f32 = 2.0;

/// The classes of series of policies; the control has its own.
const SERIES: [&str; 6] = ["s0", "s1", "s2", "s3", "s4", "s5"];

const TITLE: TextStyle = TextStyle { size: 22.0, class: "" };
const ABOUT: TextStyle = TextStyle { size: 13.0, class: "soft" };
const TEXT: TextStyle = TextStyle { size: 13.0, class: "" };
const TICK: TextStyle = TextStyle { size: 12.5, class: "soft" };
const LABEL: TextStyle = TextStyle { size: 12.5, class: "halo" };

/// The means of one family, by speed-up.
struct Curve<'a> {
    family: &'a str,
    class: &'static str,
    /// Which of the marks it has.
    mark: usize,
    points: Vec<&'a Means>,
}

/// Where the means lie on the plot.
struct Frame {
    left: f32,
    right: f32,
    top: f32,
    bottom: f32,
    xs: Range<f64>,
    ys: Range<f64>,
}

/// Plots the PSNR of each contender over its speed-up.
pub fn plot(report: &Report, (width, height): (f32, f32)) -> Svg {
    let means = report.means();
    let curves = curves(&means);
    let mut svg = Svg::new(width, format!("{}: PSNR over speed-up", title(report)));
    svg.height = height;
    let margin = if width < 600.0 { 14.0 } else { 32.0 };
    let inside = 0.95 * (width - 2.0 * margin);
    let lines = font::wrap(&title(report), TITLE.size, inside, 2);
    let y = svg.lines(&lines, margin, margin, TITLE);
    let y = svg.lines(&font::wrap(&subtitle(report), ABOUT.size, inside, 3), margin, y, ABOUT);
    let y = legend(&mut svg, &curves, margin, y + 12.0, width - margin);
    let (xs, ys) = ranges(&means);
    let frame = Frame {
        left: margin + 44.0,
        right: width - margin,
        top: y + 12.0,
        bottom: height - margin - 34.0,
        xs,
        ys,
    };
    frame.axes(&mut svg);
    let mut labels = frame.labels(&curves);
    for curve in &curves {
        frame.curve(&mut svg, curve);
    }
    for curve in &curves {
        for point in &curve.points {
            // Fewer steps lie below most policies: so do their names.
            let (name, below) = (short(point), point.is_control());
            let (x, y, anchor) = labels.place(frame.at(point, point.psnr), LABEL, &name, below);
            svg.text(&name, x, y, LABEL, anchor);
        }
    }
    svg
}

fn title(report: &Report) -> String {
    format!("{}, {}, {} steps", report.model, report.request.sampler, report.request.steps)
}

fn subtitle(report: &Report) -> String {
    let images = report.images();
    format!(
        "points: the mean over {images} images ({}); lines down: nine in ten are above the end",
        report.extent()
    )
}

/// The names of the curves beside their marks; gives where it ends.
fn legend(svg: &mut Svg, curves: &[Curve], left: f32, top: f32, right: f32) -> f32 {
    let (mut x, mut y) = (left, top);
    for curve in curves {
        let width = 34.0 + TEXT.width(curve.family) * 1.05;
        if x > left && x + width > right {
            (x, y) = (left, y + 1.5 * TEXT.size);
        }
        let middle = y + 0.62 * TEXT.size;
        svg.push(&format!("<g class=\"{}\">", curve.class));
        svg.line("line", (x, middle), (x + 26.0, middle));
        svg.push(&mark(curve.mark, (x + 13.0, middle)));
        svg.push("</g>");
        svg.text(curve.family, x + 34.0, y + TEXT.size, TEXT, Anchor::Start);
        x += width + 22.0;
    }
    y + 1.5 * TEXT.size
}

impl Frame {
    /// Where a decibel value of `means` lies.
    fn at(&self, means: &Means, decibels: f64) -> (f32, f32) {
        (self.x(means.speed_up), self.y(decibels))
    }

    fn x(&self, speed_up: f64) -> f32 {
        self.left + share(&self.xs, speed_up) * (self.right - self.left)
    }

    fn y(&self, decibels: f64) -> f32 {
        self.bottom - share(&self.ys, decibels) * (self.bottom - self.top)
    }

    fn axes(&self, svg: &mut Svg) {
        let (across, up) = (self.right - self.left, self.bottom - self.top);
        for value in ticks(&self.ys, up / 56.0) {
            let y = self.y(value);
            svg.line("rule", (self.left, y), (self.right, y));
            svg.text(&format!("{value}"), self.left - 8.0, y + 4.5, TICK, Anchor::End);
        }
        for value in ticks(&self.xs, across / 72.0) {
            let x = self.x(value);
            svg.line("rule", (x, self.top), (x, self.bottom));
            let label = format!("{}×", Number(value as f32));
            svg.text(&label, x, self.bottom + 19.0, TICK, Anchor::Middle);
        }
        svg.line("axis", (self.left, self.bottom), (self.right, self.bottom));
        let label = "speed-up of the denoising loop by FLOPs";
        svg.text(label, self.left + across / 2.0, self.bottom + 42.0, TEXT, Anchor::Middle);
        let (x, y) = (Number(self.left - 36.0), Number(self.top + up / 2.0));
        svg.push(&format!("<g transform=\"translate({x} {y})rotate(-90)\">"));
        svg.text("PSNR to the uncached image, dB", 0.0, 0.0, TEXT, Anchor::Middle);
        svg.push("</g>");
    }

    fn curve(&self, svg: &mut Svg, curve: &Curve) {
        let points: Vec<(f32, f32)> =
            curve.points.iter().map(|means| self.at(means, means.psnr)).collect();
        svg.push(&format!("<g class=\"{}\">", curve.class));
        for (means, point) in curve.points.iter().zip(&points) {
            if means.p10.is_finite() {
                svg.line("tail", *point, self.at(means, means.p10));
            }
        }
        let path: Vec<String> =
            points.iter().map(|&(x, y)| format!("{} {}", Number(x), Number(y))).collect();
        if path.len() > 1 {
            svg.push(&format!("<path class=\"line\" d=\"M{}\"/>", path.join("L")));
        }
        for (means, point) in curve.points.iter().zip(&points) {
            let figures = format!("{}: {:.2}×, {:.1} dB", means.label, means.speed_up, means.psnr);
            let title = escape(&figures);
            svg.push(&format!("<g><title>{title}</title>{}</g>", mark(curve.mark, *point)));
        }
        svg.push("</g>");
    }

    /// Labels that keep clear of points and curves.
    fn labels(&self, curves: &[Curve]) -> Labels {
        let mut labels = Labels::new(Rect {
            left: self.left,
            top: self.top,
            right: self.right + 8.0,
            bottom: self.bottom,
        });
        for curve in curves {
            let points: Vec<(f32, f32)> =
                curve.points.iter().map(|means| self.at(means, means.psnr)).collect();
            points.iter().for_each(|&point| labels.keep_clear_of(point));
            points.windows(2).for_each(|ends| labels.avoid(ends[0], ends[1]));
            for (means, &point) in curve.points.iter().zip(&points) {
                if means.p10.is_finite() {
                    labels.avoid(point, self.at(means, means.p10));
                }
            }
        }
        labels
    }
}

/// A shape around a point. Families differ in it as in colour.
fn mark(index: usize, (x, y): (f32, f32)) -> String {
    let path = |corners: &[(f32, f32)]| {
        let corners: Vec<String> = corners
            .iter()
            .map(|(dx, dy)| format!("{} {}", Number(x + dx), Number(y + dy)))
            .collect();
        format!("<path d=\"M{}Z\"/>", corners.join("L"))
    };
    match index % 6 {
        0 => format!("<circle cx=\"{}\" cy=\"{}\" r=\"4.5\"/>", Number(x), Number(y)),
        1 => path(&[(-4.2, -4.2), (4.2, -4.2), (4.2, 4.2), (-4.2, 4.2)]),
        2 => path(&[(0.0, -5.6), (5.2, 3.8), (-5.2, 3.8)]),
        3 => path(&[(0.0, -6.0), (6.0, 0.0), (0.0, 6.0), (-6.0, 0.0)]),
        4 => path(&[(0.0, 5.6), (5.2, -3.8), (-5.2, -3.8)]),
        _ => path(&[(-5.5, 0.0), (-2.7, -4.8), (2.7, -4.8), (5.5, 0.0), (2.7, 4.8), (-2.7, 4.8)]),
    }
}

/// Families in the order of their first policy, each with its class and its points by speed-up.
fn curves(means: &[Means]) -> Vec<Curve<'_>> {
    let mut curves: Vec<Curve> = Vec::new();
    for means in means {
        let index = curves.iter().position(|curve| curve.family == means.family);
        let index = index.unwrap_or_else(|| {
            let policies = curves.iter().filter(|curve| curve.class != "control").count();
            let (class, mark) = if means.is_control() {
                ("control", 0)
            } else {
                (SERIES[policies % SERIES.len()], policies)
            };
            curves.push(Curve { family: &means.family, class, mark, points: Vec::new() });
            curves.len() - 1
        });
        if means.psnr.is_finite() {
            curves[index].points.push(means); // equal images have no place on the axis
        }
    }
    for curve in &mut curves {
        curve.points.sort_by(|a, b| a.speed_up.total_cmp(&b.speed_up));
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

/// The speed-ups and decibels that the axes span, with room around the points.
fn ranges(means: &[Means]) -> (Range<f64>, Range<f64>) {
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

/// How far into `range` a value lies, from 0 to 1.
fn share(range: &Range<f64>, value: f64) -> f32 {
    ((value - range.start) / (range.end - range.start)) as f32
}

/// Round values in `range`, about `count` of them.
fn ticks(range: &Range<f64>, count: f32) -> Vec<f64> {
    let apart = (range.end - range.start) / f64::from(count.max(1.0));
    let magnitude = 10f64.powf(apart.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let factor = steps.into_iter().find(|factor| factor * magnitude >= apart).unwrap_or(10.0);
    let step = factor * magnitude;
    let (first, last) = ((range.start / step).ceil() as i64, (range.end / step).floor() as i64);
    (first..=last).map(|n| n as f64 * step).collect()
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

    #[test]
    fn ticks_are_round_values_inside_the_range() {
        assert_eq!(ticks(&(13.2..48.0), 7.0), [15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0]);
        assert_eq!(
            ticks(&(1.0..1.54), 6.0),
            [1.0, 1.1, 1.2000000000000002, 1.3, 1.4000000000000001, 1.5]
        );
    }
}
