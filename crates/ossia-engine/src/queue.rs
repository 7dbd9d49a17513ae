//! Who may still join the queue: by how many wait, and by how long one more would have to. Numbers in, numbers out.
//!
//! What waits is weighed in tokens as the scheduler charges them: a prompt, and an answer as long as most are at most.
//! That is a guess from above (prefixes are cached, answers end early), so what ended requests were charged is held
//! against what they were taken for. Service is fair between clients: before a request begins, its own client's earlier
//! ones do, and of every other client no more than that.

use std::collections::HashMap;
use std::time::Duration;

use crate::request::Request;
use crate::scheduler::{OUTPUT_WEIGHT, PROMPT_WEIGHT};

/// Tokens of an answer, where more may be asked for.
const TYPICAL_ANSWER: usize = 256;
/// Steps as old as this count for 1/e.
const MEMORY_S: f64 = 20.0;
/// So many ended requests ago, too.
const MEMORY_REQUESTS: f64 = 64.0;

/// What a request is taken for, in charged tokens.
pub fn weight(request: &Request) -> u64 {
    let answer = request.limit.min(TYPICAL_ANSWER) as u64;
    request.prompt.len() as u64 * PROMPT_WEIGHT + answer * OUTPUT_WEIGHT
}

/// Requests that wait and never ran, by client.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    lines: HashMap<u64, Line>,
    all: Line,
}

/// Some requests: how many, and what they weigh together.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    requests: usize,
    weight: u64,
}

impl Queue {
    /// One more waits.
    pub fn add(&mut self, client: u64, weight: u64) {
        for line in [self.lines.entry(client).or_default(), &mut self.all] {
            line.requests += 1;
            line.weight += weight;
        }
    }

    /// How many wait.
    pub fn requests(&self) -> usize {
        self.all.requests
    }

    /// What they weigh together.
    pub fn weight(&self) -> u64 {
        self.all.weight
    }

    /// How many of one client wait.
    pub fn requests_of(&self, client: u64) -> usize {
        self.lines.get(&client).map_or(0, |line| line.requests)
    }

    /// What one of them weighs on average; 0 where nobody waits.
    pub fn typical(&self) -> u64 {
        self.all.weight / self.all.requests.max(1) as u64
    }

    /// What is served before the end of a new request of `client` that weighs so much, without itself.
    pub fn ahead(&self, client: u64, weight: u64) -> u64 {
        let own = self.lines.get(&client).map_or(0, |line| line.weight);
        let others = self.lines.iter().filter(|(other, _)| **other != client);
        own + others.map(|(_, line)| line.weight.min(own + weight)).sum::<u64>()
    }
}

/// How fast the queue moves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Tokens that were charged in steps while somebody waited, and the time of these steps; older ones fade.
    tokens: f64,
    seconds: f64,
    /// What ended requests were charged, and what they had been taken for.
    charged: f64,
    weight: f64,
}

impl Pace {
    /// A step in which somebody waited.
    pub fn step(&mut self, tokens: u64, time: Duration) {
        let time = time.as_secs_f64();
        let fade = (-time / MEMORY_S).exp();
        self.tokens = self.tokens * fade + tokens as f64;
        self.seconds = self.seconds * fade + time;
    }

    /// A request that ran has ended.
    pub fn ended(&mut self, weight: u64, charged: u64) {
        let fade = 1.0 - 1.0 / MEMORY_REQUESTS;
        self.charged = self.charged * fade + charged as f64;
        self.weight = self.weight * fade + weight as f64;
    }

    /// How long it takes until so much of what waits has begun; nothing where nobody has waited yet.
    pub fn wait(&self, weight: u64) -> Option<Duration> {
        if self.tokens <= 0.0 {
            return None;
        }
        let true_share = if self.weight > 0.0 { self.charged / self.weight } else { 1.0 };
        let seconds = weight as f64 * true_share * self.seconds / self.tokens;
        Some(Duration::from_secs_f64(seconds.clamp(0.0, 1e6)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Pace, Queue};

    #[test]
    fn before_a_request_only_what_is_fair() {
        let mut queue = Queue::default();
        assert_eq!((queue.ahead(1, 100), queue.typical()), (0, 0));
        (0..50).for_each(|_| queue.add(1, 300));
        assert_eq!((queue.requests(), queue.requests_of(1), queue.requests_of(2)), (50, 50, 0));
        assert_eq!(queue.typical(), 300);
        assert_eq!(queue.ahead(1, 300), 15_000, "its own wait their turn");
        assert_eq!(queue.ahead(2, 200), 200, "another's first has only as much before it");
        (0..2).for_each(|_| queue.add(2, 200));
        assert_eq!(queue.ahead(2, 200), 400 + 600);
        assert_eq!(queue.ahead(1, 300), 15_000 + 400);
        (3..1003).for_each(|client| queue.add(client, 10));
        assert_eq!(queue.ahead(2000, 10), 1002 * 10, "many with one each are many");
    }

    #[test]
    fn the_pace_is_that_of_steps_in_which_somebody_waits() {
        let mut pace = Pace::default();
        assert_eq!(pace.wait(1000), None);
        let seconds = |pace: &Pace, weight| pace.wait(weight).unwrap().as_secs_f64();
        (0..1000).for_each(|_| pace.step(20, Duration::from_millis(10)));
        assert!((seconds(&pace, 2000) - 1.0).abs() < 1e-9);
        // They are half of what they are taken for.
        (0..1000).for_each(|_| pace.ended(600, 300));
        assert!((seconds(&pace, 2000) - 0.5).abs() < 1e-6);
        // Ten times as slow from now on: soon known.
        (0..1000).for_each(|_| pace.step(20, Duration::from_millis(100)));
        let slow = seconds(&pace, 2000);
        assert!((4.5..5.01).contains(&slow), "{slow}");
        // A step in which nothing is charged, since it is computed again, takes time all the same.
        pace.step(0, Duration::from_secs(1000));
        assert!(seconds(&pace, 2000) > 10.0 * slow);
    }
}
