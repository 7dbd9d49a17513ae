//! Prompt lookup: where the last tokens occurred before, what followed there is guessed to follow here, and a step checks
//! several guesses at once (Saxena, 2023). Guesses decide how many tokens a step takes, never which: a token's logits
//! have the same bits in any company, and every token is sampled from them as without guesses.

use std::collections::HashMap;

/// Guessed tokens of a step at most.
pub const MOST: usize = 8;

/// Tokens that must agree before more are guessed.
const KEY: usize = 3;

/// Steps without a guess after guessing did not pay.
const PAUSE: u32 = 24;

/// Weight of the newest figure in a running mean.
const NEWEST: f64 = 0.3;

/// The text so far, and what guessing has brought.
#[derive(Debug, Default)]
pub struct Lookup {
    tokens: Vec<u32>,
    /// Where each three tokens ended last, but for the end of the text.
    ends: HashMap<[u32; KEY], usize>,
    /// Seconds of a step without a guess.
    plain: Mean,
    /// Seconds of a step with guesses, for each token that it brought.
    guessed: Mean,
    /// Tokens that the last guesses brought.
    brought: Mean,
    /// Steps until guessing is tried again.
    pause: u32,
}

/// A running mean, once there is a figure.
#[derive(Debug, Default)]
struct Mean(Option<f64>);

impl Mean {
    fn add(&mut self, figure: f64) {
        self.0 = Some(self.0.map_or(figure, |mean| mean + NEWEST * (figure - mean)));
    }
}

impl Lookup {
    /// Counts a token that was read or made.
    pub fn push(&mut self, token: u32) {
        // The newest three are entered when there is a token after them.
        if let Some(key) = self.tokens.last_chunk::<KEY>() {
            self.ends.insert(*key, self.tokens.len());
        }
        self.tokens.push(token);
    }

    /// Up to `most` tokens that may come next; none while guessing does not pay.
    pub fn guess(&mut self, most: usize) -> Vec<u32> {
        if self.pause > 0 {
            self.pause -= 1;
            return Vec::new();
        }
        let found = self.tokens.last_chunk::<KEY>().and_then(|key| self.ends.get(key));
        let Some(&at) = found else { return Vec::new() };
        // Twice what was right lately, so that guesses grow while they hold.
        let wanted = self.brought.0.map_or(MOST / 2, |mean| (2.0 * mean).ceil() as usize);
        self.tokens[at..].iter().take(wanted.min(most).min(MOST)).copied().collect()
    }

    /// A step with `guesses` guesses took `seconds` and brought `tokens` tokens, one of which it would have brought anyway.
    pub fn learn(&mut self, guesses: usize, tokens: usize, seconds: f64) {
        if guesses == 0 {
            return self.plain.add(seconds);
        }
        self.brought.add(tokens as f64);
        self.guessed.add(seconds / tokens as f64);
        if let (Some(plain), Some(guessed)) = (self.plain.0, self.guessed.0)
            && guessed > plain
        {
            (self.pause, self.guessed, self.brought) = (PAUSE, Mean::default(), Mean::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(tokens: &[u32]) -> Lookup {
        let mut lookup = Lookup::default();
        tokens.iter().for_each(|&token| lookup.push(token));
        lookup
    }

    #[test]
    fn what_followed_last_time_is_guessed() {
        assert_eq!(lookup(&[1, 2, 3, 4, 5, 6, 1, 2, 3]).guess(8), [4, 5, 6, 1]);
        assert_eq!(lookup(&[1, 2, 3, 4, 5, 1, 2, 3, 9, 8, 1, 2, 3]).guess(2), [9, 8]);
        assert!(lookup(&[1, 2, 3, 4, 5, 6, 1, 2, 4]).guess(8).is_empty());
        assert!(lookup(&[1, 2, 3]).guess(8).is_empty());
        assert!(lookup(&[1, 2]).guess(8).is_empty());
        assert!(lookup(&[1, 2, 3, 4, 1, 2, 3]).guess(0).is_empty());
    }

    #[test]
    fn guesses_grow_while_they_hold_and_stop_where_they_do_not_pay() {
        let text: Vec<u32> = (0..40).chain(0..3).collect();
        let mut lookup = lookup(&text);
        lookup.learn(0, 1, 1.0);
        lookup.learn(4, 5, 2.0);
        assert_eq!(lookup.guess(8).len(), 8);
        lookup.learn(8, 1, 3.0);
        assert!((0..PAUSE).all(|_| lookup.guess(8).is_empty()));
        assert_eq!(lookup.guess(8).len(), 4);
    }
}
