//! Writes a picture as SVG: one `path` for each shape. Coordinates have two decimals, a hundredth of a pixel.

use super::scene::{Color, Ink, Scene, Segment, Shape};
use std::fmt::Write;

/// The picture as an SVG document.
pub fn write(scene: &Scene) -> String {
    let (width, height) = (scene.width, scene.height);
    let title = escape(&scene.title);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{title}</title>\n"
    );
    scene.shapes.iter().for_each(|shape| svg.push_str(&element(shape)));
    svg.push_str("</svg>\n");
    svg
}

fn element(shape: &Shape) -> String {
    let Color(red, green, blue) = shape.color;
    let color = format!("#{red:02x}{green:02x}{blue:02x}");
    let ink = match shape.ink {
        Ink::Fill => format!("fill=\"{color}\""),
        Ink::Stroke(width) => {
            format!(
                "fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\" stroke-linejoin=\"round\" stroke-linecap=\"round\""
            )
        }
    };
    let opacity = if shape.opacity < 1.0 { format!(" opacity=\"{}\"", shape.opacity) } else { String::new() };
    let label = shape.text.as_ref().map_or(String::new(), |text| format!(" aria-label=\"{}\"", escape(text)));
    format!("<path {ink}{opacity}{label} d=\"{}\"/>\n", moves(&shape.outline))
}

fn moves(outline: &[Segment]) -> String {
    let mut d = String::new();
    for segment in outline {
        match *segment {
            Segment::Move(x, y) => point(&mut d, 'M', x, y),
            Segment::Line(x, y) => point(&mut d, 'L', x, y),
            Segment::Curve([(x1, y1), (x2, y2), (x, y)]) => {
                point(&mut d, 'C', x1, y1);
                point(&mut d, ' ', x2, y2);
                point(&mut d, ' ', x, y);
            }
            Segment::Close => d.push('Z'),
        }
    }
    d
}

fn point(d: &mut String, command: char, x: f64, y: f64) {
    let hundredth = |value: f64| (value * 100.0).round() / 100.0;
    // Writing to a string cannot fail.
    let _ = write!(d, "{command}{} {}", hundredth(x), hundredth(y));
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_path_and_a_gap_lifts_the_pen() {
        let mut scene = Scene::new(20.0, 10.0, "a < b");
        scene.polyline(&[(0.0, 1.0), (2.125, 3.0), (f64::NAN, 1.0), (4.0, 5.0)], Color(0, 114, 178), 1.5, 0.5);
        let svg = write(&scene);
        assert!(svg.contains("viewBox=\"0 0 20 10\"") && svg.contains("<title>a &lt; b</title>"));
        assert!(svg.contains("stroke=\"#0072b2\" stroke-width=\"1.5\""));
        assert!(svg.contains("opacity=\"0.5\" d=\"M0 1L2.13 3M4 5L4.01 5\""), "{svg}");
    }
}
