//! From values to places on an axis, and ticks at round numbers.

/// How values are spread over an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Linear,
    Log,
}

/// The values that an axis shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    pub kind: Kind,
    pub min: f64,
    pub max: f64,
}

impl Scale {
    /// From `min` to `max` exactly; a little apart if they are equal.
    pub fn linear(min: f64, max: f64) -> Scale {
        let max = if max > min { max } else { min + 1.0 };
        Scale { kind: Kind::Linear, min, max }
    }

    /// Shows all finite `values`, and `floor` if one is given: on a log axis if they span more than tenfold, else on a
    /// linear one that begins at a tick.
    pub fn around(values: impl Iterator<Item = f64> + Clone, floor: Option<f64>) -> Scale {
        let finite = values.filter(|value| value.is_finite());
        let max = finite.clone().fold(f64::NEG_INFINITY, f64::max);
        let min = finite.fold(f64::INFINITY, f64::min);
        if min > 0.0 && max / min > 10.0 {
            return Scale { kind: Kind::Log, min: min / 1.12, max: max * 1.12 };
        }
        let (min, max) = if min <= max { (floor.unwrap_or(min).min(min), max) } else { (0.0, 1.0) };
        let spread = if max > min { max - min } else { max.abs().max(1.0) * 0.1 };
        let step = round_step(spread / 5.0);
        Scale::linear(((min / step) + 1e-9).floor() * step, if max > min { max + 0.06 * spread } else { max + spread })
    }

    /// Where on the axis a value lies, 0 to 1. Not finite if the value has no place.
    pub fn share(&self, value: f64) -> f64 {
        match self.kind {
            Kind::Linear => (value - self.min) / (self.max - self.min),
            Kind::Log if value > 0.0 => (value / self.min).ln() / (self.max / self.min).ln(),
            Kind::Log => f64::NAN,
        }
    }

    /// The same for counts, which have no halves.
    pub fn whole_ticks(&self, num_wanted: usize) -> Vec<(f64, String)> {
        self.ticks(num_wanted.min((self.max - self.min) as usize).max(1))
    }

    /// About `num_wanted` round values within the axis, with their text.
    pub fn ticks(&self, num_wanted: usize) -> Vec<(f64, String)> {
        match self.kind {
            Kind::Linear => linear_ticks(self.min, self.max, num_wanted),
            Kind::Log => log_ticks(self.min, self.max, num_wanted),
        }
    }
}

/// 1, 2 or 5 times a power of ten, not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= step * (1.0 - 1e-9)).unwrap_or(10.0);
    factor * power
}

fn linear_ticks(min: f64, max: f64, num_wanted: usize) -> Vec<(f64, String)> {
    let step = round_step((max - min) / num_wanted as f64);
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    let first = (min / step - 1e-6).ceil() as i64;
    let last = (max / step + 1e-6).floor() as i64;
    (first..=last).map(|index| index as f64 * step).map(|value| (value, number(value, decimals))).collect()
}

/// Powers of ten, with 2 and 5 times or 3 times them between as there is room.
fn log_ticks(min: f64, max: f64, num_wanted: usize) -> Vec<(f64, String)> {
    let powers = min.log10().floor() as i32..=max.log10().ceil() as i32;
    let choices: [&[f64]; 4] = [&[1.0, 2.0, 3.0, 4.0, 6.0, 8.0], &[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]];
    let ticks = |factors: &[f64]| -> Vec<f64> {
        let all = powers.clone().flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)));
        all.filter(|value| (min * (1.0 - 1e-9)..=max * (1.0 + 1e-9)).contains(value)).collect()
    };
    let chosen = choices.iter().map(|factors| ticks(factors)).find(|ticks| ticks.len() <= num_wanted.max(3) + 2);
    let mut values = chosen.unwrap_or_else(|| ticks(&[1.0]));
    // More than a dozen powers of ten: every second, third... of them.
    let stride = values.len().div_ceil(num_wanted + 4).max(1);
    values = values.into_iter().step_by(stride).collect();
    values.into_iter().map(|value| (value, power_number(value))).collect()
}

/// A round number in full, or as a power of ten where it would be long.
fn power_number(value: f64) -> String {
    let power = (value.log10() + 1e-9).floor() as i32;
    let factor = (value / 10f64.powi(power)).round();
    match (-3..5).contains(&power) {
        true => number(value, (-power).max(0) as usize),
        false if factor == 1.0 => format!("10{}", superscript(power)),
        false => format!("{factor}×10{}", superscript(power)),
    }
}

/// A small raised number.
pub fn superscript(power: i32) -> String {
    let raised = |letter| match letter {
        '-' => '⁻',
        digit => ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][digit as usize - '0' as usize],
    };
    power.to_string().chars().map(raised).collect()
}

/// A number with commas between thousands and a true minus sign.
pub fn number(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let is_zero = !text.contains(|digit: char| ('1'..='9').contains(&digit));
    let sign = if value < 0.0 && !is_zero { "−" } else { "" };
    format!("{sign}{grouped}{fraction}")
}

/// A measured value with three digits that count.
pub fn measured(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".to_owned() } else { value.to_string() };
    }
    let power = value.abs().log10().floor();
    if (-4.0..6.0).contains(&power) {
        number(value, (2.0 - power).max(0.0) as usize)
    } else {
        format!("{}×10{}", number(value / 10f64.powf(power), 2), superscript(power as i32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(scale: Scale, num_wanted: usize) -> String {
        scale.ticks(num_wanted).into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(texts(Scale::linear(0.0, 2400.0), 5), "0 500 1,000 1,500 2,000");
        assert_eq!(Scale::linear(0.0, 2.0).whole_ticks(5).len(), 3);
        assert_eq!(texts(Scale::linear(1.0, 1.5), 5), "1.0 1.1 1.2 1.3 1.4 1.5");
        assert_eq!(texts(Scale::linear(-0.4, 0.4), 4), "−0.4 −0.2 0.0 0.2 0.4");
        let log = |min, max| Scale { kind: Kind::Log, min, max };
        assert_eq!(texts(log(0.3, 7.0), 6), "0.5 1 2 5");
        assert_eq!(texts(log(1e-6, 90.0), 6), "10⁻⁶ 10⁻⁵ 10⁻⁴ 0.001 0.01 0.1 1 10");
    }

    #[test]
    fn a_wide_span_is_shown_on_a_log_axis() {
        let log = Scale::around([0.3, 6.0, f64::NAN].into_iter(), None);
        assert_eq!(log.kind, Kind::Log);
        assert!(log.share(0.3) > 0.0 && log.share(6.0) < 1.0 && log.share(0.0).is_nan());
        let linear = Scale::around([1.04, 1.31].into_iter(), Some(1.0));
        assert!(linear.kind == Kind::Linear && linear.min == 1.0 && (1.31..1.34).contains(&linear.max));
    }

    #[test]
    fn an_axis_of_one_value_or_none_still_has_an_extent() {
        for values in [vec![], vec![2.0], vec![0.0], vec![f64::NAN]] {
            let scale = Scale::around(values.into_iter(), None);
            assert!(scale.max > scale.min && scale.share(scale.min) == 0.0, "{scale:?}");
            assert!(scale.ticks(5).len() >= 2);
        }
    }

    #[test]
    fn measured_values_have_three_digits() {
        let values = [0.0, 0.412_34, 0.004, 12.345, 1234.5, 4e-6, 2.5e7];
        let texts = values.map(measured);
        assert_eq!(texts, ["0", "0.412", "0.00400", "12.3", "1,234", "4.00×10⁻⁶", "2.50×10⁷"]);
    }
}
