//! Draws a run: pictures for papers and pages (SVG, and PNG with the same outlines), and curves in a terminal.
//!
//! `scene` is a picture as outlines, `svg` and `png` write it; `panel` is one diagram with its axes; `curves` and `heat`
//! are the diagrams; this file puts them together.

mod curves;
pub mod finder;
mod font;
mod heat;
mod panel;
mod png;
mod scale;
mod scene;
mod series;
mod svg;
pub mod terminal;
#[cfg(test)]
mod tests;

use crate::metrics::Record;
use panel::{INK, SMALL};
use scale::number;
use scene::{Anchor, Rect, Scene, Style};
use std::path::{Path, PathBuf};

/// Size of a diagram in a picture of its own, and of the head above the diagrams, px.
const WIDTH: f64 = 620.0;
const HEIGHT: f64 = 400.0;
const HEAD: f64 = 60.0;
const MARGIN: f64 = 12.0;

/// Why a run could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to draw.
    #[error("there is nothing to draw: the log has no records yet")]
    Empty,
    /// A picture cannot be kept.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The picture, or its folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

type Diagram = fn(&mut Scene, Rect, &[Record]);

/// Draws `loss`, `learning_rate`, `gradient_norm`, `expert_load` and, all of them together, `run`, each as `.svg` and
/// `.png`, into `out_dir`, which is made if it is not there. Records without expert loads give no `expert_load`.
/// Returns the paths written.
///
/// # Errors
/// If there is no record, or a file cannot be written.
pub fn draw(records: &[Record], out_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    if records.is_empty() {
        return Err(Error::Empty);
    }
    std::fs::create_dir_all(out_dir).map_err(|source| Error::Io { path: out_dir.to_owned(), source })?;
    let mut paths = Vec::new();
    for (name, title, diagrams) in pictures(records) {
        paths.extend(write(&picture(records, title, &diagrams), name, out_dir)?);
    }
    Ok(paths)
}

/// A picture as `name`.svg and `name`.png.
fn write(scene: &Scene, name: &str, out_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let image = png::write(scene).ok_or_else(|| std::io::Error::other("the picture is too large to paint"));
    let mut paths = Vec::new();
    for (extension, bytes) in [("svg", Ok(svg::write(scene).into_bytes())), ("png", image)] {
        let path = out_dir.join(format!("{name}.{extension}"));
        let written = bytes.and_then(|bytes| std::fs::write(&path, bytes));
        written.map_err(|source| Error::Io { path: path.clone(), source })?;
        paths.push(path);
    }
    Ok(paths)
}

/// Name, title and diagrams of each picture that the records have something for.
fn pictures(records: &[Record]) -> Vec<(&'static str, &'static str, Vec<Diagram>)> {
    let has_classes =
        records.iter().any(|record| record.loss_per_class.named().into_iter().any(|(_, loss)| loss.is_some()));
    let has_experts = records.iter().any(|record| !record.expert_load.is_empty());
    let mut loss: Vec<Diagram> = vec![curves::loss];
    if has_classes {
        loss.push(curves::loss_per_class);
    }
    let rate: Vec<Diagram> = vec![curves::learning_rate];
    let norm: Vec<Diagram> = vec![curves::gradient_norm];
    let experts: Vec<Diagram> = if has_experts { vec![curves::balance, heat::expert_shares] } else { Vec::new() };
    let run = [&loss[..], &rate, &norm, &experts].concat();
    let mut pictures = vec![
        ("loss", "Training loss", loss),
        ("learning_rate", "Learning rate", rate),
        ("gradient_norm", "Gradient norm", norm),
        ("expert_load", "Expert load", experts),
        ("run", "Training run", run),
    ];
    pictures.retain(|picture| !picture.2.is_empty());
    pictures
}

/// Diagrams in two columns. A lone diagram has its own title, more have one in common with what the run has done so far.
fn picture(records: &[Record], title: &str, diagrams: &[Diagram]) -> Scene {
    let num_columns = diagrams.len().min(2);
    let head = if diagrams.len() > 1 { HEAD } else { MARGIN };
    let num_rows = diagrams.len().div_ceil(2);
    let (width, height) = (WIDTH * num_columns as f64 + 2.0 * MARGIN, head + HEIGHT * num_rows as f64 + MARGIN);
    let mut scene = Scene::new(width, height, &format!("{title}: {}", summary(records)));
    if diagrams.len() > 1 {
        let left = MARGIN + 16.0 - 0.73 * 12.0;
        scene.text(title, (left, 32.0), Anchor::Start, Style { size: 20.0, color: INK, ..panel::TITLE });
        scene.text(&summary(records), (left, 52.0), Anchor::Start, Style { size: 12.5, ..SMALL });
    }
    for (index, diagram) in diagrams.iter().enumerate() {
        let (left, top) = (MARGIN + WIDTH * (index % 2) as f64, head + HEIGHT * (index / 2) as f64);
        diagram(&mut scene, Rect { left, top, width: WIDTH, height: HEIGHT }, records);
    }
    scene
}

/// How far the run is: steps, tokens, time and speed.
fn summary(records: &[Record]) -> String {
    let Some(last) = records.last() else { return String::new() };
    let speed = if last.elapsed_s > 0.0 { last.tokens as f64 / last.elapsed_s } else { last.tok_s };
    format!(
        "{} {} · {} tokens · {} · {} tokens/s",
        number(last.step as f64, 0),
        if last.step == 1 { "step" } else { "steps" },
        amount(last.tokens as f64),
        duration(last.elapsed_s),
        number(speed, 0)
    )
}

/// A large count in thousands, millions or billions.
fn amount(count: f64) -> String {
    let units = [(1e12, "trillion"), (1e9, "billion"), (1e6, "million")];
    match units.into_iter().find(|unit| count >= unit.0) {
        Some((size, name)) => format!("{} {name}", number(count / size, 1)),
        None => number(count, 0),
    }
}

/// A time in its two largest units.
fn duration(time_s: f64) -> String {
    let (minutes, hours) = ((time_s / 60.0) as u64, (time_s / 3600.0) as u64);
    match hours {
        _ if time_s < 60.0 => format!("{} s", number(time_s, 0)),
        0 => format!("{minutes} min"),
        1..48 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} d {} h", hours / 24, hours % 24),
    }
}
