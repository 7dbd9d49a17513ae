//! Tasks longer than any that is trained on: whether a working learned on short ones carries further. They are measured
//! apart from the families.

use std::collections::HashSet;

use ossia_text::harmony::Effort;

use super::rng::Rng;
use super::task::Task;
use super::{Family, Sample, arithmetic, draw_effort, frame, order};

/// Sets these streams apart from those of the families, whose second part is a split.
const STREAM: u64 = 0x6265_796f_6e64;

/// A family's task at a length that training has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Beyond {
    /// Sums of two numbers of five digits.
    Addition5,
    /// Sums of two numbers of six digits.
    Addition6,
    /// Six numbers, up or down.
    Sorting6,
    /// Seven numbers.
    Sorting7,
}

impl Beyond {
    /// Every set.
    pub const ALL: [Self; 4] = [Self::Addition5, Self::Addition6, Self::Sorting6, Self::Sorting7];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Addition5 => "addition_5_digits",
            Self::Addition6 => "addition_6_digits",
            Self::Sorting6 => "sorting_6_numbers",
            Self::Sorting7 => "sorting_7_numbers",
        }
    }

    /// The set of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.name() == name)
    }

    /// The family whose tasks these are, made longer.
    pub fn family(self) -> Family {
        match self {
            Self::Addition5 | Self::Addition6 => Family::Addition,
            Self::Sorting6 | Self::Sorting7 => Family::Sorting,
        }
    }

    /// The first `count` samples whose keys all differ. Where no effort is given it is drawn, as in training.
    pub fn samples(self, effort: Option<Effort>, seed: u64, count: usize) -> Vec<Sample> {
        let mut seen = HashSet::new();
        let draws = (0..20 * count as u64).map(|index| self.sample(effort, &[seed, index]));
        draws.filter(|sample| seen.insert(sample.key.clone())).take(count).collect()
    }

    fn sample(self, effort: Option<Effort>, place: &[u64]) -> Sample {
        let mut rng = Rng::new(&[place, &[self as u64, STREAM]].concat());
        let drawn = draw_effort(&mut rng);
        let task = self.task(&mut rng);
        frame::frame(self.family(), task, effort.unwrap_or(drawn), &mut rng)
    }

    fn task(self, rng: &mut Rng) -> Task {
        match self {
            Self::Addition5 => sum(rng, 5),
            Self::Addition6 => sum(rng, 6),
            Self::Sorting6 => sorting(rng, 6),
            Self::Sorting7 => sorting(rng, 7),
        }
    }
}

fn sum(rng: &mut Rng, digits: u32) -> Task {
    let (a, b) = (rng.with_digits(digits), rng.with_digits(digits));
    arithmetic::asked_sum(rng, a, b)
}

fn sorting(rng: &mut Rng, count: usize) -> Task {
    // Of as many digits as in training: only the count is new.
    let numbers = order::numbers(rng, count, 3);
    order::sort(rng, &numbers)
}

#[cfg(test)]
mod tests {
    use super::{Beyond, Effort};
    use crate::generate::Expected;

    #[test]
    fn tasks_are_longer_than_those_of_training() {
        for set in Beyond::ALL {
            assert_eq!(Beyond::from_name(set.name()), Some(set));
            let samples = set.samples(None, 3, 40);
            assert_eq!(samples.len(), 40, "{}", set.name());
            assert_eq!(samples, set.samples(None, 3, 40));
            for sample in samples {
                let Expected::Final(text) = &sample.expected else { panic!("{sample:?}") };
                let parts = text.split(", ").count();
                let fits = match set {
                    Beyond::Addition5 => (5..=6).contains(&text.len()),
                    Beyond::Addition6 => (6..=7).contains(&text.len()),
                    Beyond::Sorting6 => parts == 6,
                    Beyond::Sorting7 => parts == 7,
                };
                assert!(fits, "{}: {text}", set.name());
            }
        }
        let fixed = Beyond::Sorting6.samples(Some(Effort::High), 3, 5);
        assert!(fixed.iter().all(|sample| sample.effort == Effort::High));
    }
}
