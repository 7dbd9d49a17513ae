//! One diagram: title, axes with units, light grid, curves, and labels that stand beside the curves' ends instead of in
//! a legend.

use super::font::{self, Weight};
use super::scale::Scale;
use super::scene::{Anchor, Color, Rect, Scene, Style};
use super::series::Series;

pub const INK: Color = Color(32, 33, 36);
const QUIET: Color = Color(95, 99, 104);
const AXIS: Color = Color(128, 132, 138);
const GRID: Color = Color(229, 231, 235);

pub const TITLE: Style = Style { size: 15.0, weight: Weight::SemiBold, color: INK };
pub const SMALL: Style = Style { size: 11.5, weight: Weight::Regular, color: QUIET };
const LABEL: Style = Style { size: 12.0, weight: Weight::Regular, color: INK };
const DIRECT: Style = Style { size: 12.0, weight: Weight::SemiBold, color: INK };

/// Room around the diagram for title, axes and their labels, px.
const LEFT: f64 = 66.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 46.0;
const RIGHT: f64 = 16.0;
/// From a curve's end to its label, and from one label's baseline to the next, px.
const LABEL_GAP: f64 = 14.0;
const LABEL_HEIGHT: f64 = 16.0;

/// A label beside the end of a curve.
pub struct Direct {
    pub text: String,
    pub color: Color,
    /// The curve's end, beside which it wants to stand: step and value.
    pub end: (f64, f64),
}

/// What is written around a diagram.
pub struct Words<'a> {
    pub title: &'a str,
    pub x: &'a str,
    pub y: &'a str,
}

/// A diagram on a scene.
pub struct Panel<'a> {
    pub scene: &'a mut Scene,
    /// The area of the curves.
    pub area: Rect,
    x: Scale,
    y: Scale,
}

impl<'a> Panel<'a> {
    /// Draws the axes within `outer`, leaving room on the right for `labels`.
    pub fn new(scene: &'a mut Scene, outer: Rect, words: &Words, x: Scale, y: Scale, labels: &[Direct]) -> Panel<'a> {
        let area = area(outer, label_room(labels));
        let mut panel = Panel { scene, area, x, y };
        panel.title(words);
        panel.horizontal_ticks();
        panel.vertical_ticks();
        let corner = (area.left, area.bottom());
        panel.scene.line(corner, (area.right(), area.bottom()), AXIS, 1.0);
        panel
    }

    fn title(&mut self, words: &Words) {
        let area = self.area;
        title(self.scene, area, words);
    }

    fn horizontal_ticks(&mut self) {
        let widest = font::width("00,000", SMALL.weight, SMALL.size);
        let num_wanted = (self.area.width / (1.8 * widest)).clamp(2.0, 8.0);
        for (value, text) in self.x.whole_ticks(num_wanted as usize) {
            let x = self.place(value, 0.0).0;
            let bottom = self.area.bottom();
            self.scene.line((x, self.area.top), (x, bottom), GRID, 1.0);
            self.scene.line((x, bottom), (x, bottom + 4.0), AXIS, 1.0);
            self.scene.text(&text, (x, bottom + 17.0), Anchor::Middle, SMALL);
        }
    }

    fn vertical_ticks(&mut self) {
        let num_wanted = (self.area.height / 45.0).clamp(3.0, 8.0) as usize;
        for (value, text) in self.y.ticks(num_wanted) {
            let y = self.place(0.0, value).1;
            self.scene.line((self.area.left, y), (self.area.right(), y), GRID, 1.0);
            self.scene.text(&text, (self.area.left - 8.0, y + 4.0), Anchor::End, SMALL);
        }
    }

    /// Where a step and a value lie in the picture.
    pub fn place(&self, step: f64, value: f64) -> (f64, f64) {
        let Rect { left, width, height, .. } = self.area;
        (left + width * self.x.share(step), self.area.bottom() - height * self.y.share(value))
    }

    fn places(&self, series: &Series) -> Vec<(f64, f64)> {
        let columns = self.area.width as usize;
        series.thin(columns).points.iter().map(|&(step, value)| self.place(step, value)).collect()
    }

    /// What was measured, faint.
    pub fn raw(&mut self, series: &Series, color: Color, opacity: f64) {
        let places = self.places(series);
        self.scene.polyline(&places, color, 1.0, opacity);
    }

    /// What is to be read.
    pub fn curve(&mut self, series: &Series, color: Color) {
        let places = self.places(series);
        self.scene.polyline(&places, color, 2.0, 1.0);
    }

    /// Single measurements, joined by a faint line.
    pub fn dots(&mut self, series: &Series, color: Color) {
        let places = self.places(series);
        self.scene.polyline(&places, color, 1.0, 0.5);
        let finite = places.into_iter().filter(|place| place.0.is_finite() && place.1.is_finite());
        finite.for_each(|place| self.scene.dot(place, 3.0, color));
    }

    /// A remark in the upper right corner of the area.
    pub fn remark(&mut self, text: &str, color: Color) {
        let at = (self.area.right() - 4.0, self.area.top + 12.0);
        self.scene.text(text, at, Anchor::End, Style { color, ..SMALL });
    }

    /// The labels, as near to their values as they may stand without touching, tied to them where they had to move.
    pub fn labels(&mut self, labels: &[Direct]) {
        let mut ordered: Vec<&Direct> = labels.iter().filter(|label| label.end.1.is_finite()).collect();
        ordered.sort_by(|a, b| b.end.1.total_cmp(&a.end.1));
        let ends: Vec<(f64, f64)> = ordered.iter().map(|label| self.place(label.end.0, label.end.1)).collect();
        let wanted: Vec<f64> = ends.iter().map(|end| end.1).collect();
        let right = self.area.right();
        let places = spread(&wanted, LABEL_HEIGHT, self.area.bottom());
        for ((label, end), y) in ordered.iter().zip(ends).zip(places) {
            if (end.1 - y).abs() > 3.0 || right - end.0 > 3.0 {
                let tie = [(end.0 + 2.0, end.1), (right.max(end.0 + 2.0), end.1), (right + LABEL_GAP - 3.0, y)];
                self.scene.polyline(&tie, label.color, 1.0, 0.6);
            }
            let style = Style { color: label.color, ..DIRECT };
            self.scene.text(&label.text, (right + LABEL_GAP, y + 4.0), Anchor::Start, style);
        }
    }
}

/// The area within `outer` that the axes leave, with `right` px for what stands beside it.
pub fn area(outer: Rect, right: f64) -> Rect {
    let width = (outer.width - LEFT - right).max(10.0);
    Rect { left: outer.left + LEFT, top: outer.top + TOP, width, height: outer.height - TOP - BOTTOM }
}

/// Title above, names of the axes below and to the left of `area`.
pub fn title(scene: &mut Scene, area: Rect, words: &Words) {
    scene.text(words.title, (area.left, area.top - 16.0), Anchor::Start, TITLE);
    let (x, y) = area.center();
    scene.text(words.x, (x, area.bottom() + 36.0), Anchor::Middle, LABEL);
    scene.text_upwards(words.y, (area.left - LEFT + 16.0, y), LABEL);
}

fn label_room(labels: &[Direct]) -> f64 {
    let width = |label: &Direct| font::width(&label.text, DIRECT.weight, DIRECT.size);
    labels.iter().map(|label| width(label) + LABEL_GAP).fold(0.0, f64::max) + RIGHT
}

/// Moves ascending places apart to at least `gap`, none beyond `end` while there is room, each group as near to where
/// its members wanted to be as it can.
fn spread(wanted: &[f64], gap: f64, end: f64) -> Vec<f64> {
    // Without the gaps a group is one place: the mean of what its members want.
    let mut groups: Vec<(f64, usize)> = Vec::new();
    for (index, place) in wanted.iter().enumerate() {
        let mut group = (place - gap * index as f64, 1);
        while let Some(before) = groups.pop_if(|before| before.0 > group.0) {
            let len = before.1 + group.1;
            group = ((before.0 * before.1 as f64 + group.0 * group.1 as f64) / len as f64, len);
        }
        groups.push(group);
    }
    let starts = groups.into_iter().flat_map(|(start, len)| std::iter::repeat_n(start, len));
    let last = end - gap * wanted.len().saturating_sub(1) as f64;
    starts.enumerate().map(|(index, start)| start.min(last) + gap * index as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_move_apart_around_where_they_want_to_be() {
        assert_eq!(spread(&[10.0, 50.0], 16.0, 100.0), [10.0, 50.0]);
        assert_eq!(spread(&[40.0, 40.0], 16.0, 100.0), [32.0, 48.0]);
        assert_eq!(spread(&[40.0, 41.0, 90.0], 16.0, 100.0), [32.5, 48.5, 90.0]);
        assert_eq!(spread(&[95.0, 99.0], 16.0, 100.0), [84.0, 100.0]);
        assert!(spread(&[], 16.0, 100.0).is_empty());
    }
}
