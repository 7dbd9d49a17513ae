//! Which experts are used at the end of a run: layers by experts, darker where an expert gets more tokens.

use super::curves::{mix, readable_on};
use super::font;
use super::panel::{self, SMALL, Words};
use super::scale::Scale;
use super::scene::{Anchor, Color, Rect, Scene, Style};
use crate::metrics::Record;

/// ColorBrewer's Blues: one hue whose lightness only falls, so it survives grey printing and colour blindness.
const BLUES: [Color; 9] = [
    Color(247, 251, 255),
    Color(222, 235, 247),
    Color(198, 219, 239),
    Color(158, 202, 225),
    Color(107, 174, 214),
    Color(66, 146, 198),
    Color(33, 113, 181),
    Color(8, 81, 156),
    Color(8, 48, 107),
];
const RIM: Color = Color(200, 204, 210);
/// Room for the bar of colours with its numbers and name, px.
const BAR_ROOM: f64 = 78.0;

/// Mean shares over the last twentieth of the records, `[layer][expert]`, as a map with a bar of colours.
pub fn expert_shares(scene: &mut Scene, outer: Rect, records: &[Record]) {
    let shares = late_shares(records);
    let num_experts = shares.iter().map(Vec::len).max().unwrap_or(0);
    if num_experts == 0 {
        return;
    }
    let relative = shares.iter().flat_map(|layer| layer.iter().map(|share| share * layer.len() as f64));
    let most = relative.filter(|load| load.is_finite()).fold(2.0, f64::max);
    let colors = Scale { max: most, ..Scale::linear(0.0, 1.0) };
    let area = panel::area(outer, BAR_ROOM);
    let words = Words { title: "Share of tokens per expert at the end (%)", x: "expert", y: "layer" };
    panel::title(scene, area, &words);
    let cell = (area.width / num_experts as f64, area.height / shares.len() as f64);
    for (row, layer) in shares.iter().enumerate() {
        for (column, share) in layer.iter().enumerate() {
            let at = (area.left + cell.0 * column as f64, area.top + cell.1 * row as f64);
            let rect = Rect { left: at.0, top: at.1, width: cell.0, height: cell.1 };
            cell_of(scene, rect, *share, mix(&BLUES, colors.share(share * layer.len() as f64)));
        }
    }
    scene.frame(area, RIM, 1.0);
    names(scene, area, cell, (shares.len(), num_experts));
    bar(scene, area, colors);
}

/// One cell, with its number where there is room.
fn cell_of(scene: &mut Scene, rect: Rect, share: f64, color: Color) {
    scene.rect(rect, color);
    let text = format!("{:.1}", 100.0 * share);
    let style = Style { color: readable_on(color), ..SMALL };
    if font::width(&text, style.weight, style.size) + 8.0 < rect.width && rect.height > 18.0 {
        let (x, y) = rect.center();
        scene.text(&text, (x, y + 4.0), Anchor::Middle, style);
    }
}

/// Numbers of experts below and of layers to the left, as many as have room.
fn names(scene: &mut Scene, area: Rect, cell: (f64, f64), (num_layers, num_experts): (usize, usize)) {
    let every = |room: f64, size: f64| [1, 2, 4, 8, 16, 32].into_iter().find(|n| size * *n as f64 > room).unwrap_or(64);
    for expert in (0..num_experts).step_by(every(24.0, cell.0)) {
        let x = area.left + cell.0 * (expert as f64 + 0.5);
        scene.text(&expert.to_string(), (x, area.bottom() + 17.0), Anchor::Middle, SMALL);
    }
    for layer in (0..num_layers).step_by(every(15.0, cell.1)) {
        let y = area.top + cell.1 * (layer as f64 + 0.5) + 4.0;
        scene.text(&layer.to_string(), (area.left - 8.0, y), Anchor::End, SMALL);
    }
}

/// What the colours mean.
fn bar(scene: &mut Scene, area: Rect, colors: Scale) {
    let (left, width) = (area.right() + 18.0, 12.0);
    let num_bands = 64;
    let height = area.height / f64::from(num_bands);
    for band in 0..num_bands {
        let top = area.bottom() - height * f64::from(band + 1);
        // Half a pixel of overlap, or the edges of neighbours let the white through.
        let rect = Rect { left, top, width, height: height + if band == 0 { 0.0 } else { 0.5 } };
        scene.rect(rect, mix(&BLUES, (f64::from(band) + 0.5) / f64::from(num_bands)));
    }
    scene.frame(Rect { left, width, ..area }, RIM, 1.0);
    for (value, text) in colors.ticks(4) {
        let y = area.bottom() - area.height * colors.share(value);
        scene.text(&text, (left + width + 5.0, y + 4.0), Anchor::Start, SMALL);
    }
    scene.text_upwards("share ÷ mean share", (left + width + 40.0, area.center().1), SMALL);
}

/// Mean over the last twentieth of the records that have the shape of the last one.
fn late_shares(records: &[Record]) -> Vec<Vec<f64>> {
    let Some(last) = records.iter().rev().find(|record| !record.expert_load.is_empty()) else { return Vec::new() };
    let shape = |record: &Record| record.expert_load.iter().map(Vec::len).collect::<Vec<_>>();
    let late: Vec<&Record> = records[records.len() - records.len().div_ceil(20)..]
        .iter()
        .filter(|record| shape(record) == shape(last))
        .collect();
    let mean = |layer: usize, expert: usize| {
        let sum: f64 = late.iter().map(|record| f64::from(record.expert_load[layer][expert])).sum();
        sum / late.len() as f64
    };
    let layers = last.expert_load.iter().enumerate();
    layers.map(|(layer, shares)| (0..shares.len()).map(|expert| mean(layer, expert)).collect()).collect()
}
