//! How the learning rate and other numbers go over the steps of a run. Pure functions of the step.

use crate::recipe::{Shape, Training};

/// The learning rate of `step`, counted from 0.
pub fn learning_rate(training: &Training, step: u64) -> f32 {
    let steps = training.steps as f64;
    let warmup = (f64::from(training.warmup) * steps).round();
    let at = step as f64;
    let (highest, lowest) = (f64::from(training.lr), f64::from(training.min_lr) * f64::from(training.lr));
    if at + 1.0 <= warmup {
        return (highest * (at + 1.0) / warmup) as f32;
    }
    let fallen = match training.schedule {
        Shape::Wsd => {
            let decay = f64::from(training.decay) * steps;
            // The last step still moves something: the line would reach its end one step later.
            ((at - (steps - decay)) / decay.max(1.0)).clamp(0.0, 1.0)
        }
        Shape::Cosine => {
            let share = ((at - warmup) / (steps - warmup).max(1.0)).clamp(0.0, 1.0);
            0.5 * (1.0 - (std::f64::consts::PI * share).cos())
        }
    };
    (highest + (lowest - highest) * fallen) as f32
}

/// A coefficient that goes on a line from its first to its last value.
pub fn line((first, last): (f32, f32), step: u64, steps: u64) -> f32 {
    first + (last - first) * (step as f64 / steps.max(1) as f64) as f32
}

/// Whether the forward pass of `step` sees the weights as they will be stored.
pub fn quantized(from: f32, step: u64, steps: u64) -> bool {
    step as f64 >= f64::from(from) * steps as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;
    use std::path::Path;

    fn training(schedule: Shape) -> Training {
        let recipe = Recipe::parse(include_str!("../recipes/nano.toml"), Path::new("nano.toml")).unwrap();
        Training { steps: 100, lr: 1.0, warmup: 0.1, decay: 0.4, min_lr: 0.2, schedule, ..recipe.training }
    }

    #[test]
    fn warm_up_stable_decay() {
        let t = training(Shape::Wsd);
        let at = |step| learning_rate(&t, step);
        assert_eq!([at(0), at(4), at(9), at(10), at(59), at(60)], [0.1, 0.5, 1.0, 1.0, 1.0, 1.0]);
        assert!((at(80) - 0.6).abs() < 1e-6 && at(99) > 0.2 && at(99) < 0.23 && at(100) == 0.2);
    }

    #[test]
    fn a_cosine_falls_all_the_way() {
        let t = training(Shape::Cosine);
        assert_eq!(learning_rate(&t, 10), 1.0);
        assert!((learning_rate(&t, 55) - 0.6).abs() < 1e-6 && learning_rate(&t, 100) == 0.2);
        assert!((10..99).all(|step| learning_rate(&t, step) > learning_rate(&t, step + 1)));
    }

    #[test]
    fn lines_and_switches() {
        assert_eq!([line((1.0, 0.0), 0, 10), line((1.0, 0.0), 5, 10)], [1.0, 0.5]);
        assert!(!quantized(0.7, 69, 100) && quantized(0.7, 70, 100) && !quantized(1.0, 99, 100));
    }
}
