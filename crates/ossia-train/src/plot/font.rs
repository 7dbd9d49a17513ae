//! The letters: two weights of Inter, cut down to the characters that plots use (11 KB each; licence in `assets/OFL.txt`).
//! Carrying the font makes widths known, so no text runs into another, and pictures equal on machines without any font.

use super::scene::Segment;
use ttf_parser::{Face, GlyphId, OutlineBuilder};

const REGULAR: &[u8] = include_bytes!("assets/Inter-Regular.otf");
const SEMI_BOLD: &[u8] = include_bytes!("assets/Inter-SemiBold.otf");

/// Thickness of the letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    Regular,
    SemiBold,
}

fn face(weight: Weight) -> Face<'static> {
    let bytes = match weight {
        Weight::Regular => REGULAR,
        Weight::SemiBold => SEMI_BOLD,
    };
    Face::parse(bytes, 0).expect("the font inside the binary is whole")
}

/// Each letter's glyph with its left edge, and the whole width, in units of the font.
fn set(face: &Face, text: &str) -> (Vec<(GlyphId, f64)>, f64) {
    let mut pen = 0.0;
    let mut glyphs = Vec::with_capacity(text.len());
    for letter in text.chars() {
        let glyph = face.glyph_index(letter).unwrap_or_default();
        glyphs.push((glyph, pen));
        pen += f64::from(face.glyph_hor_advance(glyph).unwrap_or(0));
    }
    (glyphs, pen)
}

/// Width of a line of text, px.
pub fn width(text: &str, weight: Weight, size: f64) -> f64 {
    let face = face(weight);
    set(&face, text).1 * size / f64::from(face.units_per_em())
}

/// Outline of a line of text. `place` takes a point, px right of the start and above the baseline, to the picture.
pub fn outline(text: &str, weight: Weight, size: f64, place: impl Fn(f64, f64) -> (f64, f64)) -> Vec<Segment> {
    let face = face(weight);
    let scale = size / f64::from(face.units_per_em());
    let mut pen = Pen { segments: Vec::new(), last: (0.0, 0.0), left: 0.0, scale, place };
    for (glyph, left) in set(&face, text).0 {
        pen.left = left;
        // A blank has no outline, and that is all that the answer says.
        face.outline_glyph(glyph, &mut pen);
    }
    pen.segments
}

/// Turns the font's moves into ours.
struct Pen<F> {
    segments: Vec<Segment>,
    last: (f64, f64),
    left: f64,
    scale: f64,
    place: F,
}

impl<F: Fn(f64, f64) -> (f64, f64)> Pen<F> {
    fn at(&self, x: f32, y: f32) -> (f64, f64) {
        (self.place)((self.left + f64::from(x)) * self.scale, f64::from(y) * self.scale)
    }
}

impl<F: Fn(f64, f64) -> (f64, f64)> OutlineBuilder for Pen<F> {
    fn move_to(&mut self, x: f32, y: f32) {
        self.last = self.at(x, y);
        self.segments.push(Segment::Move(self.last.0, self.last.1));
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.last = self.at(x, y);
        self.segments.push(Segment::Line(self.last.0, self.last.1));
    }

    /// A quadratic curve is a cubic one whose arms are two thirds of the way to its control point.
    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let (control, end) = (self.at(x1, y1), self.at(x, y));
        let toward = |from: (f64, f64)| (from.0 + (control.0 - from.0) / 1.5, from.1 + (control.1 - from.1) / 1.5);
        self.segments.push(Segment::Curve([toward(self.last), toward(end), end]));
        self.last = end;
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        self.last = self.at(x, y);
        self.segments.push(Segment::Curve([self.at(x1, y1), self.at(x2, y2), self.last]));
    }

    fn close(&mut self) {
        self.segments.push(Segment::Close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_of_the_plots_is_there() {
        for weight in [Weight::Regular, Weight::SemiBold] {
            for letter in (' '..='~').chain("·×÷−–⁰¹²³⁴⁵⁶⁷⁸⁹⁻".chars()) {
                assert!(face(weight).glyph_index(letter).is_some(), "{letter} in {weight:?}");
            }
        }
    }

    #[test]
    fn widths_add_up_and_grow_with_the_size() {
        let width = |text| width(text, Weight::Regular, 10.0);
        assert!((width("loss") - width("lo") - width("ss")).abs() < 1e-9);
        assert!((super::width("loss", Weight::Regular, 20.0) - 2.0 * width("loss")).abs() < 1e-9);
    }
}
