//! Curves from records: smoothing that does not lag, and thinning that loses no spike.

use crate::metrics::Record;

/// Values over steps; a value that is not finite is a gap.
#[derive(Debug, Clone)]
pub struct Series {
    pub points: Vec<(f64, f64)>,
}

impl Series {
    /// One point an update: step 0, where there is one, only measures.
    pub fn updates(records: &[Record], value: impl Fn(&Record) -> f64) -> Series {
        Series::some(records, |record| (record.step > 0).then(|| value(record)))
    }

    /// One point for each record that has the value.
    pub fn some(records: &[Record], value: impl Fn(&Record) -> Option<f64>) -> Series {
        let points = records.iter().filter_map(|record| Some((record.step as f64, value(record)?))).collect();
        Series { points }
    }

    pub fn values(&self) -> impl Iterator<Item = f64> + Clone + '_ {
        self.points.iter().map(|point| point.1)
    }

    /// The last finite point.
    pub fn end(&self) -> Option<(f64, f64)> {
        self.points.iter().rev().copied().find(|point| point.1.is_finite())
    }

    /// The last finite value.
    pub fn last(&self) -> Option<f64> {
        self.end().map(|point| point.1)
    }

    /// The mean around each point: a triangular window over about a twenty-fifth of the curve.
    pub fn smooth(&self) -> Series {
        let half = self.points.len() / 100;
        let values: Vec<f64> = self.values().collect();
        let smooth = box_mean(&box_mean(&values, half), half);
        Series { points: self.points.iter().map(|point| point.0).zip(smooth).collect() }
    }

    /// At most two points, the lowest and the highest, for each of `num_columns` columns.
    pub fn thin(&self, num_columns: usize) -> Series {
        if self.points.len() <= 2 * num_columns {
            return self.clone();
        }
        let column = |index: usize| index * self.points.len() / num_columns;
        let columns = (0..num_columns).map(|index| &self.points[column(index)..column(index + 1)]);
        Series { points: columns.flat_map(extremes).collect() }
    }
}

/// The lowest and highest point, in the order of their steps; a gap if no value is finite.
fn extremes(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let finite = || points.iter().copied().filter(|point| point.1.is_finite());
    let low = finite().min_by(|a, b| a.1.total_cmp(&b.1));
    let high = finite().max_by(|a, b| a.1.total_cmp(&b.1));
    match (low, high) {
        (Some(low), Some(high)) if low.0 < high.0 => vec![low, high],
        (Some(low), Some(high)) if low.0 > high.0 => vec![high, low],
        (Some(low), _) => vec![low],
        _ => points.first().map(|point| (point.0, f64::NAN)).into_iter().collect(),
    }
}

/// The mean of the finite values within `half` places. Before the curve's start there is nothing, so the window shrinks
/// on both sides there: a steep first descent is not flattened. At its end it shrinks on one side only, so that the last
/// value is a mean too.
fn box_mean(values: &[f64], half: usize) -> Vec<f64> {
    let mut sums = vec![(0.0, 0usize)];
    for &value in values {
        let (sum, count) = sums[sums.len() - 1];
        sums.push(if value.is_finite() { (sum + value, count + 1) } else { (sum, count) });
    }
    let mean = |index: usize| {
        let half = half.min(index);
        let (low, high) = (sums[index - half], sums[(index + half + 1).min(values.len())]);
        // A gap stays a gap.
        if values[index].is_finite() { (high.0 - low.0) / (high.1 - low.1) as f64 } else { f64::NAN }
    };
    (0..values.len()).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: impl IntoIterator<Item = f64>) -> Series {
        Series { points: values.into_iter().enumerate().map(|(step, value)| (step as f64, value)).collect() }
    }

    #[test]
    fn smoothing_keeps_straight_lines_and_gaps() {
        let line = series((0..1000).map(|step| if step == 500 { f64::NAN } else { f64::from(step) }));
        let smooth = line.smooth();
        for index in (0..970).filter(|index| !(475..525).contains(index)) {
            assert!((smooth.points[index].1 - line.points[index].1).abs() < 1e-6, "{index}");
        }
        assert!(smooth.points[500].1.is_nan() && smooth.points[501].1.is_finite());
    }

    #[test]
    fn smoothing_takes_noise_away_at_the_end_too() {
        let noise = series((0..1000).map(|step| if step % 2 == 0 { 1.0 } else { 3.0 }));
        assert!((noise.smooth().last().unwrap() - 2.0).abs() < 0.1);
    }

    #[test]
    fn thinning_keeps_every_spike() {
        let spiky = series((0..100_000).map(|step| if step == 77_777 { 9.0 } else { 1.0 }));
        let thin = spiky.thin(300);
        assert!(thin.points.len() <= 600);
        assert!(thin.points.contains(&(77_777.0, 9.0)));
        assert!(thin.points.is_sorted_by(|a, b| a.0 < b.0));
    }
}
