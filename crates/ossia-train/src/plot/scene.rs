//! A picture as a list of filled and stroked outlines, back to front, in pixels from the top left. Text is outlines too,
//! so the SVG and the PNG writer have nothing to decide and show the same picture on every machine.

use super::font::{self, Weight};

/// Red, green, blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color(pub u8, pub u8, pub u8);

/// One move of the pen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Segment {
    Move(f64, f64),
    Line(f64, f64),
    /// Two control points, then the end.
    Curve([(f64, f64); 3]),
    Close,
}

/// How an outline becomes visible.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ink {
    Fill,
    /// Line of this width, px, with round joins and ends.
    Stroke(f64),
}

/// One thing in the picture.
#[derive(Debug)]
pub struct Shape {
    pub outline: Vec<Segment>,
    pub ink: Ink,
    pub color: Color,
    /// 0 to 1.
    pub opacity: f64,
    /// What a text says, for screen readers and for searching.
    pub text: Option<String>,
}

/// A box, px.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rect {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
}

impl Rect {
    pub fn right(&self) -> f64 {
        self.left + self.width
    }

    pub fn bottom(&self) -> f64 {
        self.top + self.height
    }

    pub fn center(&self) -> (f64, f64) {
        (self.left + self.width / 2.0, self.top + self.height / 2.0)
    }
}

/// Which point of a text is put where it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text looks.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Size of the letter m-square, px.
    pub size: f64,
    pub weight: Weight,
    pub color: Color,
}

/// The picture.
#[derive(Debug)]
pub struct Scene {
    pub width: f64,
    pub height: f64,
    pub title: String,
    pub shapes: Vec<Shape>,
    /// Where texts stand, so that tests can see that none covers another.
    pub text_boxes: Vec<Rect>,
}

impl Scene {
    /// An empty picture on white; `title` is told to screen readers only.
    pub fn new(width: f64, height: f64, title: &str) -> Scene {
        let mut scene = Scene { width, height, title: title.to_owned(), shapes: Vec::new(), text_boxes: Vec::new() };
        scene.rect(Rect { left: 0.0, top: 0.0, width, height }, Color(255, 255, 255));
        scene
    }

    fn push(&mut self, outline: Vec<Segment>, ink: Ink, color: Color, opacity: f64) {
        if !outline.is_empty() {
            self.shapes.push(Shape { outline, ink, color, opacity, text: None });
        }
    }

    pub fn rect(&mut self, rect: Rect, color: Color) {
        self.push(corners(rect), Ink::Fill, color, 1.0);
    }

    pub fn frame(&mut self, rect: Rect, color: Color, width: f64) {
        self.push(corners(rect), Ink::Stroke(width), color, 1.0);
    }

    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), color: Color, width: f64) {
        self.push(vec![Segment::Move(from.0, from.1), Segment::Line(to.0, to.1)], Ink::Stroke(width), color, 1.0);
    }

    /// A line through `points`, which breaks where a coordinate is not finite. A point between breaks is a dot.
    pub fn polyline(&mut self, points: &[(f64, f64)], color: Color, width: f64, opacity: f64) {
        let finite = |point: &(f64, f64)| point.0.is_finite() && point.1.is_finite();
        let mut outline = Vec::with_capacity(points.len());
        for piece in points.chunk_by(|a, b| finite(a) && finite(b)).filter(|piece| finite(&piece[0])) {
            outline.push(Segment::Move(piece[0].0, piece[0].1));
            outline.extend(piece[1..].iter().map(|&(x, y)| Segment::Line(x, y)));
            if let [(x, y)] = *piece {
                outline.push(Segment::Line(x + 0.01, y));
            }
        }
        self.push(outline, Ink::Stroke(width), color, opacity);
    }

    /// A disc with a white rim, which stays visible over lines of its own colour.
    pub fn dot(&mut self, center: (f64, f64), radius: f64, color: Color) {
        self.push(circle(center, radius + 1.0), Ink::Fill, Color(255, 255, 255), 1.0);
        self.push(circle(center, radius), Ink::Fill, color, 1.0);
    }

    /// Text with its baseline at `at`.
    pub fn text(&mut self, text: &str, at: (f64, f64), anchor: Anchor, style: Style) {
        let width = font::width(text, style.weight, style.size);
        let left = at.0 - shift(anchor, width);
        self.text_boxes.push(Rect { left, top: at.1 - 0.73 * style.size, width, height: 0.73 * style.size });
        self.letters(text, font::outline(text, style.weight, style.size, |x, y| (left + x, at.1 - y)), style);
    }

    /// Text that runs upwards, centred on `at`, its baseline to the right.
    pub fn text_upwards(&mut self, text: &str, at: (f64, f64), style: Style) {
        let width = font::width(text, style.weight, style.size);
        let bottom = at.1 + width / 2.0;
        self.text_boxes.push(Rect {
            left: at.0 - 0.73 * style.size,
            top: bottom - width,
            width: 0.73 * style.size,
            height: width,
        });
        self.letters(text, font::outline(text, style.weight, style.size, |x, y| (at.0 - y, bottom - x)), style);
    }

    fn letters(&mut self, text: &str, outline: Vec<Segment>, style: Style) {
        let text = Some(text.to_owned());
        self.shapes.push(Shape { outline, ink: Ink::Fill, color: style.color, opacity: 1.0, text });
    }
}

fn shift(anchor: Anchor, width: f64) -> f64 {
    match anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => width / 2.0,
        Anchor::End => width,
    }
}

fn corners(rect: Rect) -> Vec<Segment> {
    vec![
        Segment::Move(rect.left, rect.top),
        Segment::Line(rect.right(), rect.top),
        Segment::Line(rect.right(), rect.bottom()),
        Segment::Line(rect.left, rect.bottom()),
        Segment::Close,
    ]
}

/// Four cubic curves, which leave a true circle by 0.03 % of the radius.
fn circle((x, y): (f64, f64), radius: f64) -> Vec<Segment> {
    let arm = 0.5523 * radius;
    let quarter = |(fx, fy): (f64, f64), (tx, ty): (f64, f64)| {
        Segment::Curve([
            (x + radius * fx + arm * tx, y + radius * fy + arm * ty),
            (x + radius * tx + arm * fx, y + radius * ty + arm * fy),
            (x + radius * tx, y + radius * ty),
        ])
    };
    let compass = [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0), (1.0, 0.0)];
    let mut outline = vec![Segment::Move(x + radius, y)];
    outline.extend(compass.windows(2).map(|pair| quarter(pair[0], pair[1])));
    outline.push(Segment::Close);
    outline
}
