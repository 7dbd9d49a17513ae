//! The diagrams over steps: loss, loss by class, learning rate, gradient norm, balance of the experts.

use super::panel::{Direct, INK, Panel, Words};
use super::scale::{Kind, Scale, measured, number, superscript};
use super::scene::{Color, Rect, Scene};
use super::series::Series;
use crate::metrics::Record;

/// The palette of Okabe and Ito, whose colours remain apart for colour-blind readers.
pub const BLUE: Color = Color(0, 114, 178);
pub const VERMILLION: Color = Color(213, 94, 0);
const GREEN: Color = Color(0, 130, 96);
const PURPLE: Color = Color(170, 68, 128);
const CLASS_COLORS: [Color; 4] = [BLUE, PURPLE, VERMILLION, GREEN];
/// Layers with a label each; of more only the first, the last and the least even have one.
const MOST_LABELLED_LAYERS: usize = 10;

/// From step 0 to the last one.
pub fn steps(records: &[Record]) -> Scale {
    Scale::linear(0.0, records.last().map_or(1.0, |record| record.step as f64))
}

fn unit(name: &str, y: Scale) -> String {
    if y.kind == Kind::Log { format!("{name}, log scale") } else { name.to_owned() }
}

/// Training loss, raw and smoothed, with validation loss as points.
pub fn loss(scene: &mut Scene, outer: Rect, records: &[Record]) {
    let train = Series::updates(records, |record| record.loss);
    let valid = Series::some(records, |record| record.valid_loss);
    let smooth = train.smooth();
    let y = Scale::around(train.values().chain(valid.values()), None);
    let mut labels = vec![direct("train", BLUE, &smooth)];
    if !valid.points.is_empty() {
        labels.push(direct("valid", VERMILLION, &valid));
    }
    let words = Words { title: "Loss", x: "step", y: &unit("cross entropy (nats per token)", y) };
    let mut panel = Panel::new(scene, outer, &words, steps(records), y, &labels);
    panel.raw(&train, BLUE, 0.3);
    panel.curve(&smooth, BLUE);
    panel.dots(&valid, VERMILLION);
    panel.labels(&labels);
    remark_gaps(&mut panel, &train);
}

/// Smoothed training loss of each class of tokens.
pub fn loss_per_class(scene: &mut Scene, outer: Rect, records: &[Record]) {
    let all = Record::default().loss_per_class.named().map(|(name, _)| name).into_iter().enumerate();
    let classes: Vec<(&str, Color, Series, Series)> = all
        .map(|(class, name)| {
            let raw = Series::some(records, |record| record.loss_per_class.named()[class].1);
            (name, CLASS_COLORS[class], raw.smooth(), raw)
        })
        .filter(|(_, _, _, raw)| !raw.points.is_empty())
        .collect();
    let y = Scale::around(classes.iter().flat_map(|class| class.2.values()), None);
    let labels: Vec<Direct> = classes.iter().map(|class| direct(class.0, class.1, &class.2)).collect();
    let words = Words { title: "Loss by class of token", x: "step", y: &unit("cross entropy (nats per token)", y) };
    let mut panel = Panel::new(scene, outer, &words, steps(records), y, &labels);
    classes.iter().for_each(|(_, color, smooth, _)| panel.curve(smooth, *color));
    panel.labels(&labels);
}

/// Learning rate, in units of the power of ten below its peak.
pub fn learning_rate(scene: &mut Scene, outer: Rect, records: &[Record]) {
    let (rate, unit) = scaled_rate(records);
    let y = Scale::around(rate.values().map(|value| value.max(0.0)).chain([0.0]), Some(0.0));
    let words = Words { title: "Learning rate", x: "step", y: &format!("learning rate{unit}") };
    let mut panel = Panel::new(scene, outer, &words, steps(records), y, &[]);
    panel.curve(&rate, GREEN);
}

/// Learning rates with a peak from 1 to 10, and the unit that makes it so, as it is written behind the name.
pub fn scaled_rate(records: &[Record]) -> (Series, String) {
    let rate = Series::updates(records, |record| record.lr);
    let peak = rate.values().filter(|value| value.is_finite()).fold(0.0, f64::max);
    // Not every power of ten is exact: a peak of 0.001 must not become 10 times 0.0001.
    let power = if peak > 0.0 { (peak.log10() + 1e-9).floor() as i32 } else { 0 };
    let points = rate.points.iter().map(|(step, rate)| (*step, rate / 10f64.powi(power))).collect();
    let unit = if power == 0 { String::new() } else { format!(" (×10{})", superscript(power)) };
    (Series { points }, unit)
}

/// Gradient norm before clipping, raw and smoothed.
pub fn gradient_norm(scene: &mut Scene, outer: Rect, records: &[Record]) {
    let norm = Series::updates(records, |record| record.grad_norm);
    let smooth = norm.smooth();
    let y = Scale::around(norm.values(), Some(0.0));
    let labels = [direct("mean", PURPLE, &smooth)];
    let words = Words { title: "Gradient norm", x: "step", y: &unit("norm before clipping", y) };
    let mut panel = Panel::new(scene, outer, &words, steps(records), y, &labels);
    panel.raw(&norm, PURPLE, 0.3);
    panel.curve(&smooth, PURPLE);
    panel.labels(&labels);
    remark_gaps(&mut panel, &norm);
}

/// How uneven the routing of each layer is: smoothed share of the busiest expert over the mean share.
pub fn balance(scene: &mut Scene, outer: Rect, records: &[Record]) {
    let num_layers = records.iter().map(|record| record.expert_load.len()).max().unwrap_or(0);
    let load = |layer: usize| Series::some(records, |record| record.max_over_mean().get(layer).copied()).smooth();
    let layers: Vec<Series> = (0..num_layers).map(load).collect();
    let y = Scale::around(layers.iter().flat_map(Series::values), Some(1.0));
    let labels: Vec<Direct> = labelled(&layers)
        .into_iter()
        .map(|layer| direct(&format!("layer {layer}"), depth_color(layer, num_layers), &layers[layer]))
        .collect();
    let words =
        Words { title: "Load of the busiest expert", x: "step", y: &unit("share ÷ mean share (1 is even)", y) };
    let mut panel = Panel::new(scene, outer, &words, steps(records), y, &labels);
    for (layer, series) in layers.iter().enumerate() {
        panel.curve(series, depth_color(layer, num_layers));
    }
    panel.labels(&labels);
}

/// The layers that get a label.
fn labelled(layers: &[Series]) -> Vec<usize> {
    if layers.len() <= MOST_LABELLED_LAYERS {
        return (0..layers.len()).collect();
    }
    let end = |layer: &usize| layers[*layer].last().unwrap_or(0.0);
    let worst = (0..layers.len()).max_by(|a, b| end(a).total_cmp(&end(b))).unwrap_or(0);
    let mut chosen = vec![0, worst, layers.len() - 1];
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

/// From dark blue over green to orange as layers go deeper (viridis without its pale end, which paper would swallow).
fn depth_color(layer: usize, num_layers: usize) -> Color {
    const STOPS: [Color; 5] =
        [Color(68, 1, 84), Color(59, 82, 139), Color(33, 145, 140), Color(78, 178, 76), Color(214, 160, 10)];
    mix(&STOPS, layer as f64 / num_layers.saturating_sub(1).max(1) as f64)
}

/// The colour at `share` of the way through `stops`.
pub fn mix(stops: &[Color], share: f64) -> Color {
    let at = share.clamp(0.0, 1.0) * (stops.len() - 1) as f64;
    let low = (at as usize).min(stops.len() - 2);
    let (Color(r0, g0, b0), Color(r1, g1, b1)) = (stops[low], stops[low + 1]);
    let between = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * (at - low as f64)).round() as u8;
    Color(between(r0, r1), between(g0, g1), between(b0, b1))
}

fn direct(name: &str, color: Color, series: &Series) -> Direct {
    let end = series.end().unwrap_or((0.0, f64::NAN));
    Direct { text: format!("{name}: {}", measured(end.1)), color, end }
}

/// Says it when values could not be drawn: a curve that merely stops looks like a run that ended.
fn remark_gaps(panel: &mut Panel, series: &Series) {
    let gaps = || series.points.iter().filter(|point| !point.1.is_finite());
    if let Some(first) = gaps().next() {
        let text = match gaps().count() {
            1 => format!("not finite at step {}", number(first.0, 0)),
            count => format!("not finite at {} steps, first {}", number(count as f64, 0), number(first.0, 0)),
        };
        panel.remark(&text, VERMILLION);
    }
}

/// Colour of words on a cell of colour `under`.
pub fn readable_on(under: Color) -> Color {
    let Color(red, green, blue) = under;
    let luminance = 0.299 * f64::from(red) + 0.587 * f64::from(green) + 0.114 * f64::from(blue);
    if luminance > 140.0 { INK } else { Color(255, 255, 255) }
}
