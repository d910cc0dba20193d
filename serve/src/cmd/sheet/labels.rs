//! Names of points on a plot, placed where they cover least.

use super::svg::{Anchor, TextStyle};

/// The height of a label and the size of a mark, in units.
const MARK: f32 = 6.0;
/// How far from each other the places on a line are that labels avoid.
const GRAIN: f32 = 4.0;

#[derive(Clone, Copy)]
pub struct Rect {
    pub left: f32,
    pub top: f32,
    pub right: f32,
    pub bottom: f32,
}

/// What is on a plot already.
pub struct Labels {
    inside: Rect,
    /// Marks and labels.
    taken: Vec<Rect>,
    /// Places on lines.
    avoided: Vec<(f32, f32)>,
}

impl Rect {
    fn overlaps(self, other: Rect) -> bool {
        self.left < other.right
            && other.left < self.right
            && self.top < other.bottom
            && other.top < self.bottom
    }

    fn holds(self, (x, y): (f32, f32)) -> bool {
        (self.left..self.right).contains(&x) && (self.top..self.bottom).contains(&y)
    }

    fn is_inside(self, other: Rect) -> bool {
        self.left >= other.left
            && self.right <= other.right
            && self.top >= other.top
            && self.bottom <= other.bottom
    }
}

impl Labels {
    /// No labels yet; they shall stay `inside`.
    pub fn new(inside: Rect) -> Labels {
        Labels { inside, taken: Vec::new(), avoided: Vec::new() }
    }

    /// Tells of a mark, which no label shall cover.
    pub fn keep_clear_of(&mut self, (x, y): (f32, f32)) {
        self.taken.push(Rect { left: x - MARK, top: y - MARK, right: x + MARK, bottom: y + MARK });
    }

    /// Tells of a line, which labels cover only where they must.
    pub fn avoid(&mut self, (x1, y1): (f32, f32), (x2, y2): (f32, f32)) {
        let pieces = ((x2 - x1).hypot(y2 - y1) / GRAIN).ceil().max(1.0);
        let along = (0..=pieces as usize).map(|i| i as f32 / pieces);
        self.avoided.extend(along.map(|t| (x1 + t * (x2 - x1), y1 + t * (y2 - y1))));
    }

    /// Finds the place of a label beside a mark, above it by preference or `below`; gives the
    /// baseline, and which end of the text begins there.
    pub fn place(
        &mut self,
        (x, y): (f32, f32),
        style: TextStyle,
        text: &str,
        below: bool,
    ) -> (f32, f32, Anchor) {
        let (up, down) = (y - 8.0, y + 8.0 + 0.75 * style.size);
        let middle = y + 0.36 * style.size;
        let mut places = [
            (x + 6.0, up, Anchor::Start),
            (x + 11.0, middle, Anchor::Start),
            (x, up - 3.0, Anchor::Middle),
            (x - 6.0, up, Anchor::End),
            (x + 6.0, down, Anchor::Start),
            (x, down + 3.0, Anchor::Middle),
            (x - 11.0, middle, Anchor::End),
            (x - 6.0, down, Anchor::End),
        ];
        if below {
            places.reverse();
        }
        let width = 1.04 * style.width(text);
        let covered =
            |&(x, y, anchor): &(f32, f32, Anchor)| self.cost(bounds(x, y, anchor, width, style));
        let best = (0..places.len()).min_by_key(|&i| covered(&places[i]));
        let (x, y, anchor) = places[best.expect("there are places")];
        self.taken.push(bounds(x, y, anchor, width, style));
        (x, y, anchor)
    }

    /// How bad a label with these bounds would be.
    fn cost(&self, bounds: Rect) -> usize {
        let taken = self.taken.iter().filter(|taken| taken.overlaps(bounds)).count();
        let lines = self.avoided.iter().filter(|&&place| bounds.holds(place)).count();
        1000 * usize::from(!bounds.is_inside(self.inside)) + 100 * taken + lines
    }
}

fn bounds(x: f32, baseline: f32, anchor: Anchor, width: f32, style: TextStyle) -> Rect {
    let left = match anchor {
        Anchor::Start => x,
        Anchor::Middle => x - width / 2.0,
        Anchor::End => x - width,
    };
    let (top, bottom) = (baseline - 0.8 * style.size, baseline + 0.2 * style.size);
    Rect { left, top, right: left + width, bottom }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: TextStyle = TextStyle { size: 12.0, class: "" };

    #[test]
    fn labels_of_near_points_do_not_cover_each_other() {
        let mut labels = Labels::new(Rect { left: 0.0, top: 0.0, right: 300.0, bottom: 200.0 });
        let points = [(100.0, 100.0), (108.0, 98.0), (95.0, 106.0), (104.0, 112.0)];
        points.iter().for_each(|&point| labels.keep_clear_of(point));
        for point in points {
            labels.place(point, STYLE, "14 steps", false);
        }
        let placed = &labels.taken[points.len()..];
        for (i, one) in placed.iter().enumerate() {
            assert!(one.is_inside(labels.inside));
            assert!(placed[..i].iter().all(|other| !other.overlaps(*one)), "label {i}");
        }
    }

    #[test]
    fn a_label_at_the_edge_stays_inside() {
        let mut labels = Labels::new(Rect { left: 0.0, top: 0.0, right: 300.0, bottom: 200.0 });
        let (_, _, anchor) = labels.place((295.0, 100.0), STYLE, "N3", false);
        assert!(anchor == Anchor::End);
    }
}
