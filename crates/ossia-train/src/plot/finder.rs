//! The curve of a search for a learning rate, as a picture and in a terminal.

use super::curves::{BLUE, VERMILLION};
use super::panel::{Direct, Panel, Words};
use super::scale::{Kind, Scale, measured};
use super::scene::{Rect, Scene};
use super::series::Series;
use super::{Error, HEIGHT, MARGIN, WIDTH, write};
use std::path::{Path, PathBuf};

/// Draws losses over learning rates, both above 0, and marks the `best` rate, as `learning_rates.svg` and `.png` in
/// `out_dir`, which is made if it is not there. Returns the paths written.
///
/// # Errors
/// If there are no points, or a file cannot be written.
pub fn draw(points: &[(f64, f64)], best: Option<f64>, out_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Err(Error::Empty) };
    let series = Series { points: points.to_vec() };
    let x = Scale { kind: Kind::Log, min: first.0 / 1.12, max: last.0 * 1.12 };
    let y = Scale::around(series.values(), None);
    let mut scene = Scene::new(WIDTH + 2.0 * MARGIN, HEIGHT + 2.0 * MARGIN, "Loss over learning rates");
    let outer = Rect { left: MARGIN, top: MARGIN, width: WIDTH, height: HEIGHT };
    let mark = best.and_then(|best| {
        let nearest = points.iter().min_by(|a, b| (a.0 / best).ln().abs().total_cmp(&(b.0 / best).ln().abs()))?;
        Some(Direct { text: format!("steepest: {}", measured(best)), color: VERMILLION, end: *nearest })
    });
    let labels: Vec<Direct> = mark.into_iter().collect();
    let words = Words { title: "Loss while the learning rate rises", x: "learning rate", y: "smoothed loss (nats)" };
    let mut panel = Panel::new(&mut scene, outer, &words, x, y, &labels);
    panel.curve(&series, BLUE);
    panel.dots(&Series { points: labels.iter().map(|label| label.end).collect() }, VERMILLION);
    panel.labels(&labels);
    std::fs::create_dir_all(out_dir).map_err(|source| Error::Io { path: out_dir.to_owned(), source })?;
    write(&scene, "learning_rates", out_dir)
}

/// The same as rows of text: a rate, its loss, and a bar from the lowest loss on; the best is marked.
pub fn text(points: &[(f64, f64)], best: Option<f64>) -> String {
    const BAR: f64 = 40.0;
    let losses = || points.iter().map(|point| point.1).filter(|loss| loss.is_finite());
    let (low, high) = (losses().fold(f64::INFINITY, f64::min), losses().fold(f64::NEG_INFINITY, f64::max));
    let nearest = best.and_then(|best| {
        let far = |point: &(f64, f64)| (point.0 / best).ln().abs();
        points.iter().enumerate().min_by(|a, b| far(a.1).total_cmp(&far(b.1))).map(|(at, _)| at)
    });
    // Every row would be more than a screen.
    let stride = points.len().div_ceil(25).max(1);
    let rows = points.iter().enumerate().filter(|(at, _)| at % stride == 0 || Some(*at) == nearest);
    let row = |(at, (lr, loss)): (usize, &(f64, f64))| {
        let share = if high > low { (loss - low) / (high - low) } else { 0.0 };
        let bar = "█".repeat((share * BAR).round().max(0.0) as usize);
        let mark = if Some(at) == nearest { "  <- steepest" } else { "" };
        format!("{lr:>10.2e} {loss:>9.4} {bar}{mark}\n")
    };
    rows.map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_drawn_and_its_steepest_place_marked() {
        let points: Vec<(f64, f64)> = (0..60).map(|at| (1e-5 * 1.2f64.powi(at), 2.0 - f64::from(at) / 60.0)).collect();
        let dir = tempfile::tempdir().unwrap();
        let files = draw(&points, Some(1e-4), dir.path()).unwrap();
        assert_eq!(files.len(), 2);
        let svg = std::fs::read_to_string(&files[0]).unwrap();
        assert!(svg.contains("<svg") && svg.len() > 2000);
        let text = text(&points, Some(1e-4));
        assert_eq!(text.matches("<- steepest").count(), 1);
        assert!(text.lines().count() <= 31, "{text}");
        assert!(draw(&[], None, dir.path()).is_err());
    }
}
