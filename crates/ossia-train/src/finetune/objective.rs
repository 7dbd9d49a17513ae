//! What a token of the model's own answer is worth, and how hard its probability is to be moved.
//!
//! ```text
//! r = π / π_old        loss = -min(r A, clip(r, 1 - ε, 1 + ε) A) + κ (e^(l_ref - l) - (l_ref - l) - 1)
//! -dloss / dl = r A [not clipped] + κ (e^(l_ref - l) - 1)        l = ln π of the token
//! ```
//!
//! A is the answer's advantage: its reward against those of its group (Group Relative Policy Optimization, Shao and
//! others 2024). The last term is never negative, and 0 where the model still says what the base says.

/// Coefficients.
#[derive(Clone, Copy, Debug)]
pub struct Objective {
    /// ε.
    pub clip: f64,
    /// κ.
    pub kl: f64,
}

/// One token.
#[derive(Clone, Copy, Debug)]
pub struct Token {
    /// ln of its probability now.
    pub now: f64,
    /// The same when the answer was made.
    pub old: f64,
    /// The same for the base; nothing where nobody asks for the distance.
    pub base: Option<f64>,
    /// Of its answer.
    pub advantage: f64,
}

/// What is made of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worth {
    /// Its loss.
    pub loss: f64,
    /// How hard its probability is pulled up: minus the loss' slope.
    pub pull: f64,
    /// Its share of the distance to the base, nats.
    pub kl: f64,
    /// r.
    pub ratio: f64,
    /// Whether the ratio is so far off that it moves nothing.
    pub clipped: bool,
}

impl Objective {
    /// What `token` is worth.
    pub fn of(&self, token: &Token) -> Worth {
        let Token { now, old, base, advantage } = *token;
        let ratio = (now - old).exp();
        let bounded = ratio.clamp(1.0 - self.clip, 1.0 + self.clip);
        let clipped = ratio * advantage > bounded * advantage;
        let gained = (ratio * advantage).min(bounded * advantage);
        let (kl, back) = base.map_or((0.0, 0.0), |base| {
            let odds = (base - now).exp();
            (odds - (base - now) - 1.0, odds - 1.0)
        });
        let pull = if clipped { 0.0 } else { ratio * advantage };
        Worth { loss: self.kl * kl - gained, pull: pull + self.kl * back, kl, ratio, clipped }
    }
}

/// The advantages of a group's answers: rewards less their mean, over their standard deviation; all 0 where they are
/// equal, from which nothing can be learned.
pub fn advantages(rewards: &[f64]) -> Vec<f64> {
    let (mean, spread) = mean_and_spread(rewards);
    let of = |reward: &f64| if spread > 0.0 { (reward - mean) / spread } else { 0.0 };
    rewards.iter().map(of).collect()
}

/// Mean and standard deviation; the latter is exactly 0 where all are equal.
pub fn mean_and_spread(rewards: &[f64]) -> (f64, f64) {
    let n = rewards.len().max(1) as f64;
    let mean = rewards.iter().sum::<f64>() / n;
    if rewards.iter().all(|reward| Some(reward) == rewards.first()) {
        return (mean, 0.0);
    }
    let square = rewards.iter().map(|reward| (reward - mean) * (reward - mean)).sum::<f64>() / n;
    (mean, square.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pull_is_minus_the_slope_of_the_loss() {
        let step = 1e-6;
        let mut clipped = 0;
        for kl in [0.0, 0.3] {
            for advantage in [-1.5, -0.1, 0.0, 0.7, 2.0] {
                for off in [-0.9, -0.25, -0.1, 0.0, 0.05, 0.15, 0.3, 0.8] {
                    let objective = Objective { clip: 0.2, kl };
                    let token = Token { now: -1.0 + off, old: -1.0, base: Some(-1.3), advantage };
                    let at = |now: f64| objective.of(&Token { now, ..token }).loss;
                    let slope = (at(token.now + step) - at(token.now - step)) / (2.0 * step);
                    let worth = objective.of(&token);
                    assert!((slope + worth.pull).abs() < 1e-6, "{token:?}: {slope} {worth:?}");
                    assert!(worth.kl >= 0.0);
                    clipped += usize::from(worth.clipped);
                }
            }
        }
        assert!(clipped > 10, "{clipped}");
    }

    #[test]
    fn on_policy_the_ratio_is_one_and_the_advantage_pulls() {
        let objective = Objective { clip: 0.2, kl: 0.1 };
        let worth = objective.of(&Token { now: -2.5, old: -2.5, base: Some(-2.5), advantage: 0.4 });
        assert_eq!(worth, Worth { loss: -0.4, pull: 0.4, kl: 0.0, ratio: 1.0, clipped: false });
    }

    #[test]
    fn a_group_without_a_difference_teaches_nothing() {
        assert_eq!(advantages(&[0.1; 7]), [0.0; 7]);
        assert!(advantages(&[]).is_empty());
        let some = advantages(&[0.0, 1.0, 1.0, 0.0]);
        assert_eq!(some, [-1.0, 1.0, 1.0, -1.0]);
    }
}
