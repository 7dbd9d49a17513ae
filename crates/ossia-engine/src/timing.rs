//! How long steps take, and what follows from it for the next: how much of a prompt is computed beside those who decode,
//! and how long an idle engine waits for others who are just coming. What is computed for a request does not depend on
//! either, only when.

use std::time::Duration;

/// A step in which somebody decodes takes no longer than this, as far as it can be had by cutting prompts.
const LONGEST: Duration = Duration::from_millis(1500);
/// Tokens of prompts that such a step takes at least: with fewer, weights are read for next to nothing.
const LEAST: usize = 32;
/// How much of a step's time may be spent on waiting for others who come at the same moment.
const WAITED: f64 = 0.01;
/// Nobody waits longer for others.
const LONGEST_WAIT: Duration = Duration::from_millis(25);
/// What a new measurement counts.
const NEW: f64 = 0.3;

/// What was measured.
pub struct Timing {
    /// Prompt tokens beside those who decode, and whether that was measured or is a guess.
    part: f64,
    measured: bool,
    most: usize,
    /// Seconds of a token in steps in which nobody decoded; 0 where there was none.
    token_s: f64,
}

impl Timing {
    /// Nothing was measured: steps take up to `most` tokens of prompts while somebody decodes.
    pub fn new(most: usize) -> Self {
        Self { part: most as f64, measured: false, most, token_s: 0.0 }
    }

    /// How many tokens of prompts a step takes in which somebody decodes.
    pub fn part(&self) -> usize {
        self.part as usize
    }

    /// A step took so long in which `decoding` tokens were those of sequences that decode, and `prompts` those of others.
    pub fn step(&mut self, decoding: usize, prompts: usize, time: Duration) {
        let seconds = time.as_secs_f64();
        if decoding == 0 && prompts > 0 {
            let token_s = seconds / prompts as f64;
            self.token_s += if self.token_s > 0.0 { NEW * (token_s - self.token_s) } else { token_s };
            if !self.measured {
                self.set_part(LONGEST.as_secs_f64() / self.token_s.max(1e-9));
            }
        }
        // A step that had less to do than it could says nothing, unless that was too much already.
        let full = 2 * prompts >= self.part();
        if decoding > 0 && prompts > 0 && (full || time > LONGEST) {
            self.measured = true;
            self.set_part(prompts as f64 * (LONGEST.as_secs_f64() / seconds.max(1e-6)).clamp(0.5, 1.5));
        }
    }

    fn set_part(&mut self, fits: f64) {
        self.part = fits.clamp(LEAST.min(self.most) as f64, self.most as f64);
    }

    /// How long to wait for others before `tokens` tokens are begun.
    pub fn wait(&self, tokens: usize) -> Duration {
        Duration::from_secs_f64(self.token_s * tokens as f64 * WAITED).min(LONGEST_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LEAST, LONGEST, LONGEST_WAIT, Timing};

    /// Steps of a machine that needs so many milliseconds for a step and for each of its tokens.
    fn run(timing: &mut Timing, base: f64, each: f64) -> f64 {
        let mut last = 0.0;
        for _ in 0..40 {
            let prompts = timing.part();
            last = base + each * (prompts + 4) as f64;
            timing.step(4, prompts, Duration::from_secs_f64(last / 1e3));
        }
        last
    }

    #[test]
    fn a_part_is_as_large_as_its_time_allows() {
        let longest = LONGEST.as_secs_f64() * 1e3;
        let mut timing = Timing::new(128);
        assert_eq!(timing.part(), 128);
        assert!((run(&mut timing, 400.0, 15.0) / longest - 1.0).abs() < 0.02, "{}", timing.part());
        run(&mut timing, 1e4, 100.0);
        assert_eq!(timing.part(), LEAST, "never so small that weights are read for nothing");
        run(&mut timing, 3.0, 0.1);
        assert_eq!(timing.part(), 128, "soon large again where steps are short");
        let mut small = Timing::new(8);
        run(&mut small, 1e4, 100.0);
        assert_eq!(small.part(), 8);
    }

    #[test]
    fn the_first_part_is_guessed_from_prompts_alone() {
        let mut timing = Timing::new(128);
        timing.step(0, 64, Duration::from_millis(1500));
        assert_eq!(timing.part(), 64);
        timing.step(3, 64, Duration::from_millis(3000));
        timing.step(0, 64, Duration::from_millis(1500));
        assert_eq!(timing.part(), 32, "what was measured counts more");
    }

    #[test]
    fn only_full_steps_beside_decoding_count() {
        let mut timing = Timing::new(128);
        run(&mut timing, 400.0, 15.0);
        let part = timing.part();
        timing.step(0, 512, Duration::from_secs(9));
        timing.step(4, 0, Duration::from_millis(300));
        timing.step(4, 2, Duration::from_millis(500));
        assert_eq!(timing.part(), part);
        timing.step(4, 20, Duration::from_secs(3));
        assert!(timing.part() < part, "a few tokens that take too long are too many");
    }

    #[test]
    fn others_are_waited_for_a_hundredth_of_the_time() {
        let mut timing = Timing::new(128);
        assert_eq!(timing.wait(512), Duration::ZERO, "nothing is known");
        timing.step(0, 100, Duration::from_millis(100));
        timing.step(3, 100, Duration::from_secs(9));
        assert!(timing.wait(512).abs_diff(Duration::from_micros(5120)) < Duration::from_micros(1));
        timing.step(0, 1, Duration::from_secs(9));
        assert_eq!(timing.wait(512), LONGEST_WAIT);
    }
}
