//! Which learning rate suits a model and its data: one short run in which it rises from step to step.
//!
//! The rate begins too small to move anything and is multiplied by the same factor each step, until the smoothed loss has
//! risen well above its best. Best is the rate at which the loss falls fastest, against the logarithm of the rate; a
//! constant rate of that size still leaves room below the rates that break. What the run has learned is thrown away.

use std::ops::ControlFlow;

use super::outcome::Method;
use super::tuner::Tuner;
use crate::error::{Error, Result};

/// First and last learning rate, as shares of the usual one.
const FROM: f64 = 1e-2;
const TO: f64 = 1e2;
/// How much of the smoothed loss stays from step to step.
const SMOOTHING: f64 = 0.8;
/// A smoothed loss so far above the best, as a share of what was gained, ends the run.
const RISEN: f64 = 1.0;

/// One step of the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tried {
    /// Learning rate.
    pub lr: f64,
    /// Smoothed loss, nats.
    pub loss: f64,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Step by step.
    pub tried: Vec<Tried>,
    /// The rate at which the loss fell fastest; none where it never fell.
    pub best: Option<f64>,
}

/// Runs at most `steps` steps around the learning rate `usual`. `tried` is told of each and may break off.
pub fn find(
    tuner: &mut Tuner,
    method: &mut dyn Method,
    usual: f64,
    steps: usize,
    told: &mut dyn FnMut(Tried) -> ControlFlow<()>,
) -> Result<Found> {
    let steps = steps.max(2);
    let (mut tried, mut mean, mut least): (Vec<Tried>, f64, f64) = (Vec::new(), 0.0, f64::INFINITY);
    for step in 0..steps {
        let lr = usual * FROM * (TO / FROM).powf(step as f64 / (steps - 1) as f64);
        let outcome = match method.step(tuner, lr as f32) {
            // A rate that breaks the numbers is what the run is looking for.
            Err(Error::NotFinite { .. }) => break,
            other => other?,
        };
        mean = SMOOTHING * mean + (1.0 - SMOOTHING) * outcome.loss;
        let loss = mean / (1.0 - SMOOTHING.powi(step as i32 + 1));
        least = least.min(loss);
        tried.push(Tried { lr, loss });
        let first = tried[0].loss;
        let risen = loss - least > RISEN * (first - least).max(0.1 * first.abs());
        if told(Tried { lr, loss }).is_break() || (step > steps / 4 && risen) {
            break;
        }
    }
    let best = steepest(&tried);
    Ok(Found { tried, best })
}

/// The rate in the middle of the fall that is steepest over a fifth of the curve, before its lowest point.
fn steepest(tried: &[Tried]) -> Option<f64> {
    let width = (tried.len() / 5).max(2);
    let lowest = tried.iter().enumerate().min_by(|a, b| a.1.loss.total_cmp(&b.1.loss))?.0;
    let windows = tried[..=lowest].windows(width);
    let slope = |window: &[Tried]| window[width - 1].loss - window[0].loss;
    let steepest = windows.min_by(|a, b| slope(a).total_cmp(&slope(b))).filter(|window| slope(window) < 0.0)?;
    Some((steepest[0].lr * steepest[width - 1].lr).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steepest_fall_is_found() {
        let curve: Vec<Tried> = (0..50)
            .map(|at| {
                let x = f64::from(at) / 10.0 - 2.5;
                let loss = if x < 1.5 { 2.0 - 1.0 / (1.0 + (-4.0 * x).exp()) } else { 1.0 + (x - 1.5) * 3.0 };
                Tried { lr: 10f64.powf(x), loss }
            })
            .collect();
        let best = steepest(&curve).unwrap();
        assert!((0.5..2.0).contains(&best), "{best}");
        let rising: Vec<Tried> = (0..9).map(|at| Tried { lr: f64::from(at), loss: f64::from(at) }).collect();
        assert_eq!((steepest(&rising), steepest(&[])), (None, None));
    }
}
