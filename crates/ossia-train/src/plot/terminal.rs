//! Curves as plain text for a terminal: no colours, no cursor, so they survive logs, mails and pipes. Curves are braille
//! dots, two by four in a character; experts are blocks.

use super::curves;
use super::scale::{Kind, Scale, measured};
use super::series::Series;
use crate::metrics::Record;

/// Text narrower than this has no room for a curve beside its numbers.
const MIN_WIDTH: usize = 40;
/// Rows of the two curves.
const LOSS_ROWS: usize = 10;
const RATE_ROWS: usize = 5;
/// Columns left of a curve: a number, a blank, the axis.
const MARGIN: usize = 9;
/// With more layers only the least even ones are shown.
const MOST_LAYERS: usize = 12;
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Loss, learning rate and the experts' load at the end, in lines of at most `width` characters (40 if less is given).
/// Empty if there are no records.
pub fn draw(records: &[Record], width: usize) -> String {
    let Some(last) = records.last() else { return String::new() };
    let width = width.max(MIN_WIDTH);
    let mut lines = loss(records, width);
    lines.push(String::new());
    lines.extend(learning_rate(records, width));
    if !last.expert_load.is_empty() {
        lines.push(String::new());
        lines.extend(experts(last, width));
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn loss(records: &[Record], width: usize) -> Vec<String> {
    let train = Series::updates(records, |record| record.loss).smooth();
    let valid = Series::some(records, |record| record.valid_loss);
    let y = Scale::around(train.values().chain(valid.values()), None);
    let mut chart = Chart::new(records, width, LOSS_ROWS, y);
    chart.curve(&train);
    chart.marks(&valid, 'o');
    let now = |name: &str, series: &Series| series.last().map(|value| format!("{name} {}", measured(value)));
    let ends = [now("train", &train), now("valid (o)", &valid)].into_iter().flatten().collect::<Vec<_>>().join("  ");
    let unit = if y.kind == Kind::Log { "nats per token, log" } else { "nats per token" };
    chart.lines(&format!("loss ({unit})"), &ends)
}

fn learning_rate(records: &[Record], width: usize) -> Vec<String> {
    let (rate, unit) = curves::scaled_rate(records);
    let y = Scale::around(rate.values().map(|value| value.max(0.0)).chain([0.0]), Some(0.0));
    let mut chart = Chart::new(records, width, RATE_ROWS, y);
    chart.curve(&rate);
    let peak = rate.values().filter(|value| value.is_finite()).fold(0.0, f64::max);
    let ends = rate.last().map_or(String::new(), |now| format!("peak {}  now {}", measured(peak), measured(now)));
    chart.lines(&format!("learning rate{unit}"), &ends)
}

/// A field of dots with axes.
struct Chart {
    x: Scale,
    y: Scale,
    /// Columns and rows, characters.
    size: (usize, usize),
    /// Braille patterns, `[row][column]`.
    dots: Vec<Vec<u8>>,
    /// Characters that stand in front of the dots.
    marks: Vec<Vec<Option<char>>>,
}

impl Chart {
    fn new(records: &[Record], width: usize, num_rows: usize, y: Scale) -> Chart {
        let size = (width - MARGIN, num_rows);
        Chart {
            x: curves::steps(records),
            y,
            size,
            dots: vec![vec![0; size.0]; size.1],
            marks: vec![vec![None; size.0]; size.1],
        }
    }

    /// Column and row of a value's dot; none if it has no place.
    fn place(&self, step: f64, value: f64) -> Option<(usize, usize)> {
        let (columns, rows) = (2 * self.size.0 - 1, 4 * self.size.1 - 1);
        let (across, down) = (self.x.share(step), 1.0 - self.y.share(value));
        let index = |share: f64, last: usize| (share.clamp(0.0, 1.0) * last as f64).round() as usize;
        (across.is_finite() && down.is_finite()).then(|| (index(across, columns), index(down, rows)))
    }

    /// A line through all points, broken at gaps.
    fn curve(&mut self, series: &Series) {
        let mut before: Option<(usize, usize)> = None;
        for &(step, value) in &series.points {
            let place = self.place(step, value);
            if let Some(to) = place {
                self.segment(before.unwrap_or(to), to);
            }
            before = place;
        }
    }

    fn segment(&mut self, from: (usize, usize), to: (usize, usize)) {
        let num_moves = from.0.abs_diff(to.0).max(from.1.abs_diff(to.1)).max(1);
        let between = |a: usize, b: usize, at: usize| (a * (num_moves - at) + b * at + num_moves / 2) / num_moves;
        for at in 0..=num_moves {
            self.dot(between(from.0, to.0, at), between(from.1, to.1, at));
        }
    }

    fn dot(&mut self, column: usize, row: usize) {
        /// Bits of a braille character's dots, `[row][column]`.
        const BITS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
        self.dots[row / 4][column / 2] |= BITS[row % 4][column % 2];
    }

    fn marks(&mut self, series: &Series, mark: char) {
        for &(step, value) in &series.points {
            if let Some((column, row)) = self.place(step, value) {
                self.marks[row / 4][column / 2] = Some(mark);
            }
        }
    }

    /// Title, rows with their numbers, and the axis of steps. `ends` stands at the right of the title.
    fn lines(&self, title: &str, ends: &str) -> Vec<String> {
        let gap = (MARGIN + self.size.0).saturating_sub(title.chars().count() + ends.chars().count());
        let mut lines = vec![if gap >= 2 { format!("{title}{}{ends}", " ".repeat(gap)) } else { title.to_owned() }];
        if gap < 2 {
            lines.push(ends.to_owned());
        }
        let mut texts = vec![String::new(); self.size.1];
        for (value, text) in self.y.ticks((self.size.1 / 2).max(4)) {
            if let Some((_, row)) = self.place(self.x.min, value) {
                texts[row / 4] = text;
            }
        }
        lines.extend((0..self.size.1).map(|row| {
            let axis = if texts[row].is_empty() { '│' } else { '┤' };
            format!("{:>7} {axis}{}", texts[row], self.row(row))
        }));
        lines.extend(self.step_axis());
        lines
    }

    fn row(&self, row: usize) -> String {
        let cell = |column: usize| match (self.marks[row][column], self.dots[row][column]) {
            (Some(mark), _) => mark,
            (None, 0) => ' ',
            (None, bits) => char::from_u32(0x2800 + u32::from(bits)).unwrap_or('?'),
        };
        (0..self.size.0).map(cell).collect()
    }

    /// The line below the curve and the numbers below that, each starting below its tick.
    fn step_axis(&self) -> [String; 2] {
        let mut axis = vec!['─'; self.size.0];
        let mut numbers = String::new();
        for (value, text) in self.x.whole_ticks((self.size.0 / 10).clamp(2, 8)) {
            let column = (self.x.share(value) * (self.size.0 - 1) as f64).round() as usize;
            let used = numbers.chars().count();
            if column + text.chars().count() <= self.size.0 && (used == 0 || column > used) {
                axis[column] = '┬';
                numbers = format!("{numbers:column$}{text}");
            }
        }
        if numbers.chars().count() + 5 <= self.size.0 {
            numbers.push_str(" step");
        }
        let indent = " ".repeat(MARGIN - 1);
        [format!("{indent}└{}", axis.into_iter().collect::<String>()), format!("{indent} {numbers}")]
    }
}

/// A row of blocks for each layer, half high for an expert with its fair share; `·` is an expert that got nothing.
fn experts(record: &Record, width: usize) -> Vec<String> {
    let loads = record.max_over_mean();
    let mut layers: Vec<usize> = (0..loads.len()).collect();
    if layers.len() > MOST_LAYERS {
        layers.sort_by(|a, b| loads[*b].total_cmp(&loads[*a]));
        layers.truncate(MOST_LAYERS);
        layers.sort_unstable();
    }
    let shown =
        if layers.len() < loads.len() { format!("; {} least even layers", layers.len()) } else { String::new() };
    let mut lines = vec![format!("experts (▄ = mean{shown})")];
    lines.extend(layers.into_iter().map(|layer| {
        let blocks = blocks(&record.expert_load[layer], width - 25);
        format!("{:>8} {blocks}  busiest {}", format!("layer {layer}"), measured(loads[layer]))
    }));
    lines
}

/// At most `room` blocks: where experts share a block it shows the one with the most tokens.
fn blocks(shares: &[f32], room: usize) -> String {
    let mean = shares.iter().sum::<f32>() / shares.len().max(1) as f32;
    let block = |experts: &[f32]| {
        let most = experts.iter().fold(0.0, |a: f32, b| a.max(*b));
        let level = (most / mean * 4.0).round().clamp(1.0, 8.0) as usize;
        if most > 0.0 && level > 0 { BLOCKS[level - 1] } else { '·' }
    };
    shares.chunks(shares.len().div_ceil(room).max(1)).map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::tests::synthetic;

    #[test]
    fn a_run_in_eighty_columns() {
        assert_eq!(draw(&synthetic(2400, 6, 8), 80), include_str!("terminal.txt"));
    }

    #[test]
    fn lines_keep_to_the_width() {
        for width in [0, 40, 57, 80, 200] {
            let text = draw(&synthetic(300, 36, 128), width);
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= width.max(MIN_WIDTH), "{widest} in {width}:\n{text}");
        }
    }

    #[test]
    fn dead_experts_and_lost_runs_are_seen() {
        assert_eq!(blocks(&[0.5, 0.0, 0.25, 0.25], 40), "█·▄▄");
        assert_eq!(blocks(&[0.0, 0.0], 40), "··");
        assert_eq!(blocks(&[0.125; 8], 4), "▄▄▄▄");
        assert_eq!(draw(&[], 80), "");
        let lost = Record { step: 1, loss: f64::NAN, lr: f64::NAN, ..Record::default() };
        assert!(draw(&[lost], 80).contains("loss (nats per token)"));
    }
}
