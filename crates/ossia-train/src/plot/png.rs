//! Paints a picture's outlines into a PNG.

use super::scene::{Color, Ink, Scene, Segment, Shape};
use tiny_skia::{FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Stroke, Transform};

/// Pixels of the PNG for each pixel of the picture: 2 is sharp on dense screens and 250 dpi in a column 3 inches wide.
const PIXELS: f32 = 2.0;

/// The picture as the bytes of a PNG file; none if it has no pixels or more than can be held.
pub fn write(scene: &Scene) -> Option<Vec<u8>> {
    let size = |length: f64| (length * f64::from(PIXELS)).ceil() as u32;
    let mut pixmap = Pixmap::new(size(scene.width), size(scene.height))?;
    scene.shapes.iter().for_each(|shape| paint(&mut pixmap, shape));
    pixmap.encode_png().ok()
}

fn paint(pixmap: &mut Pixmap, shape: &Shape) {
    // An outline without extent, such as a line of one point, shows nothing.
    let Some(path) = path(&shape.outline) else { return };
    let Color(red, green, blue) = shape.color;
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color_rgba8(red, green, blue, (shape.opacity * 255.0).round() as u8);
    let transform = Transform::from_scale(PIXELS, PIXELS);
    match shape.ink {
        Ink::Fill => pixmap.fill_path(&path, &paint, FillRule::Winding, transform, None),
        Ink::Stroke(width) => {
            let (line_cap, line_join) = (LineCap::Round, LineJoin::Round);
            let stroke = Stroke { width: width as f32, line_cap, line_join, ..Stroke::default() };
            pixmap.stroke_path(&path, &paint, &stroke, transform, None);
        }
    }
}

fn path(outline: &[Segment]) -> Option<Path> {
    let mut path = PathBuilder::new();
    for segment in outline {
        match *segment {
            Segment::Move(x, y) => path.move_to(x as f32, y as f32),
            Segment::Line(x, y) => path.line_to(x as f32, y as f32),
            Segment::Curve([(x1, y1), (x2, y2), (x, y)]) => {
                path.cubic_to(x1 as f32, y1 as f32, x2 as f32, y2 as f32, x as f32, y as f32);
            }
            Segment::Close => path.close(),
        }
    }
    path.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::scene::Rect;

    #[test]
    fn the_pixels_have_the_shapes_colours() {
        let mut scene = Scene::new(8.0, 6.0, "");
        scene.rect(Rect { left: 0.0, top: 0.0, width: 4.0, height: 6.0 }, Color(0, 114, 178));
        let image = Pixmap::decode_png(&write(&scene).unwrap()).unwrap();
        assert_eq!((image.width(), image.height()), (16, 12));
        let pixel = |x, y| image.pixel(x, y).map(|p| (p.red(), p.green(), p.blue(), p.alpha()));
        assert_eq!(pixel(2, 2), Some((0, 114, 178, 255)));
        assert_eq!(pixel(12, 2), Some((255, 255, 255, 255)));
    }
}
