//! What came of many requests, in words and percentiles, and whose CPU time it was.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::http::Outcome;
use super::server::{Server, machine_cpu, own_cpu};

impl fmt::Display for Watch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {}\n  {}", self.shares(), self.work())
    }
}

/// The value below which `share` of all values lie; not a number where there are none.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = ((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// Milliseconds to the first token of every answer that had one.
pub fn first_ms(outcomes: &[Outcome]) -> Vec<f64> {
    outcomes.iter().filter_map(|outcome| outcome.first).map(ms).collect()
}

/// The same as text: median, 99 %, most, and how many there were.
pub fn spread(mut values: Vec<f64>) -> String {
    let mut at = |share| percentile(&mut values, share);
    let (median, most, longest) = (at(0.5), at(0.99), at(1.0));
    format!("median {median:.1} ms, 99 % {most:.1} ms, most {longest:.1} ms ({} of them)", values.len())
}

/// A time in milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// How requests ended, with their number.
pub fn kinds(outcomes: &[Outcome]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for outcome in outcomes {
        let kind = match outcome {
            Outcome { error: Some(error), .. } => error.clone(),
            Outcome { dropped: true, .. } => "dropped".to_owned(),
            Outcome { status: 200, done: true, .. } => "answered".to_owned(),
            Outcome { status: 200, .. } => "cut off".to_owned(),
            Outcome { status, .. } => format!("status {status}"),
        };
        *kinds.entry(kind).or_insert(0) += 1;
    }
    kinds
}

/// Fails where something other than an answer, a refusal or our own going away came.
pub fn check(outcomes: &[Outcome]) -> Result<(), String> {
    let kinds = kinds(outcomes);
    let odd = |kind: &&String| !["answered", "dropped", "status 429"].contains(&kind.as_str());
    match kinds.keys().find(odd) {
        None => Ok(()),
        Some(_) => Err(format!("there were errors: {kinds:?}")),
    }
}

/// Looks at the CPU times of both sides from now on.
pub struct Watch<'a> {
    server: &'a Server,
    begun: Instant,
    theirs: BTreeMap<&'static str, f64>,
    ours: f64,
    all: f64,
    counts: BTreeMap<String, f64>,
}

impl<'a> Watch<'a> {
    /// From now on.
    pub fn new(server: &'a Server) -> Self {
        let counts = server.metrics().unwrap_or_default();
        Self { server, begun: Instant::now(), theirs: server.cpu(), ours: own_cpu(), all: machine_cpu(), counts }
    }

    /// Cores that each part kept busy since the beginning, and what had nothing to do with it.
    fn shares(&self) -> String {
        let cores = |seconds: f64| seconds / self.begun.elapsed().as_secs_f64();
        let ours = own_cpu() - self.ours;
        let theirs: Vec<(&str, f64)> = self
            .server
            .cpu()
            .into_iter()
            .map(|(kind, now)| (kind, now - self.theirs.get(kind).unwrap_or(&0.0)))
            .collect();
        let others = machine_cpu() - self.all - ours - theirs.iter().map(|(_, seconds)| seconds).sum::<f64>();
        let mut text = format!("cores: client {:.2}", cores(ours));
        for (kind, seconds) in theirs {
            text += &format!(", {kind} {:.2}", cores(seconds));
        }
        text + &format!("; other programs {:.2}", cores(others.max(0.0)))
    }

    /// What the engine has done since the beginning.
    fn work(&self) -> String {
        let now = self.server.metrics().unwrap_or_default();
        let since = |name: &str| {
            let value = |counts: &BTreeMap<String, f64>| counts.get(name).copied().unwrap_or(f64::NAN);
            value(&now) - value(&self.counts)
        };
        let (steps, seconds) = (since("ossia_steps_total"), self.begun.elapsed().as_secs_f64());
        format!(
            "steps: {:.0} a second of {:.2} ms, {:.1} tokens each; {:.0} tokens generated a second, prompts cached {:.0} %, preempted {:.1} a second",
            steps / seconds,
            1e3 * since("ossia_step_seconds_total") / steps,
            since("ossia_computed_tokens_total") / steps,
            since("ossia_generated_tokens_total") / seconds,
            100.0 * since("ossia_cached_tokens_total") / since("ossia_prompt_tokens_total"),
            since("ossia_preemptions_total") / seconds,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{check, kinds, percentile};
    use crate::load::http::Outcome;

    #[test]
    fn percentiles() {
        let mut values: Vec<f64> = (0..100).map(|i| f64::from((i * 37) % 100)).collect();
        assert_eq!(percentile(&mut values, 0.5), 50.0);
        assert_eq!(percentile(&mut values, 0.99), 99.0);
        assert_eq!(percentile(&mut values, 1.0), 99.0);
        assert!(percentile(&mut [], 0.5).is_nan());
    }

    #[test]
    fn what_is_odd_is_an_error() {
        let fine = Outcome { status: 200, done: true, ..Outcome::default() };
        let refused = Outcome { status: 429, done: true, ..Outcome::default() };
        let cut = Outcome { status: 200, ..Outcome::default() };
        assert_eq!(check(&[fine.clone(), refused.clone()]), Ok(()));
        assert!(check(&[fine.clone(), cut.clone()]).is_err());
        let count = |kind: &str| kinds(&[fine.clone(), fine.clone(), cut.clone()]).get(kind).copied();
        assert_eq!((count("answered"), count("cut off")), (Some(2), Some(1)));
    }
}
