//! What the server counts about requests, in Prometheus' text format. The engine counts the rest.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ossia_engine::{PageStats, Stats};

use crate::turn::Usage;

/// Upper ends of the times that are told apart, in seconds.
const BUCKETS_S: [f64; 12] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0];

/// Counts since the start.
#[derive(Default)]
pub struct Counters {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By method, route and status.
    requests: BTreeMap<(String, String, u16), u64>,
    /// By route: how many took at most so long, and all seconds.
    times: BTreeMap<String, ([u64; BUCKETS_S.len() + 1], f64)>,
    /// By how they ended.
    generations: BTreeMap<&'static str, u64>,
    reasoning_tokens: u64,
}

impl Counters {
    /// A response's head was sent. `path` is a route of the table, so that there are few of them.
    pub fn request(&self, method: &str, path: &str, status: u16, took: Duration) {
        let method = if ["GET", "POST", "DELETE", "OPTIONS"].contains(&method) { method } else { "other" };
        let mut inner = self.lock();
        *inner.requests.entry((method.to_owned(), path.to_owned(), status)).or_default() += 1;
        let (counts, sum) = inner.times.entry(path.to_owned()).or_default();
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS_S.iter().position(|&end| seconds <= end).unwrap_or(BUCKETS_S.len());
        counts[bucket] += 1;
        *sum += seconds;
    }

    /// A generation has ended.
    pub fn generation(&self, ended: &'static str, usage: &Usage) {
        let mut inner = self.lock();
        *inner.generations.entry(ended).or_default() += 1;
        inner.reasoning_tokens += usage.reasoning_tokens as u64;
    }

    /// Everything, with the engine's counts and the bytes of kept grammars.
    pub fn text(&self, engine: &Stats, grammar_bytes: usize) -> String {
        let mut text = String::new();
        self.lock().write(&mut text);
        head(&mut text, "ossia_grammar_cache_bytes", "gauge", "Memory that kept grammars hold, roughly.");
        line(&mut text, "ossia_grammar_cache_bytes", "", grammar_bytes as f64);
        write_engine(&mut text, engine);
        text
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn write(&self, out: &mut String) {
        head(out, "ossia_http_requests_total", "counter", "Requests by method, route and status.");
        for ((method, path, status), count) in &self.requests {
            let labels = format!("method=\"{method}\",route=\"{path}\",status=\"{status}\"");
            line(out, "ossia_http_requests_total", &labels, *count as f64);
        }
        head(out, "ossia_http_response_seconds", "histogram", "Seconds until a response's head, by route.");
        for (path, (counts, sum)) in &self.times {
            let ends = BUCKETS_S.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
            let mut total = 0;
            for (end, count) in ends.zip(counts) {
                total += count;
                let labels = format!("route=\"{path}\",le=\"{end}\"");
                line(out, "ossia_http_response_seconds_bucket", &labels, total as f64);
            }
            let labels = format!("route=\"{path}\"");
            line(out, "ossia_http_response_seconds_sum", &labels, *sum);
            line(out, "ossia_http_response_seconds_count", &labels, total as f64);
        }
        head(out, "ossia_generations_total", "counter", "Generations by how they ended.");
        for (ended, count) in &self.generations {
            line(out, "ossia_generations_total", &format!("ended=\"{ended}\""), *count as f64);
        }
        head(out, "ossia_reasoning_tokens_total", "counter", "Tokens generated as chain of thought.");
        line(out, "ossia_reasoning_tokens_total", "", self.reasoning_tokens as f64);
    }
}

fn write_engine(out: &mut String, stats: &Stats) {
    let gauges = [
        ("ossia_requests_waiting", "Requests that wait.", stats.waiting as f64),
        ("ossia_requests_running", "Requests that run.", stats.running as f64),
        ("ossia_prefix_cache_points", "Points of the prefix cache.", stats.cache_points as f64),
        ("ossia_last_step_seconds", "Seconds that the last step took.", stats.last_step_s),
    ];
    for (name, help, value) in gauges {
        head(out, name, "gauge", help);
        line(out, name, "", value);
    }
    let counters = [
        ("ossia_requests_total", "Requests that the engine took.", stats.requests as f64),
        ("ossia_requests_refused_total", "Requests refused because the queue was full.", stats.refused as f64),
        ("ossia_prompt_tokens_total", "Tokens of prompts.", stats.prompt_tokens as f64),
        ("ossia_cached_tokens_total", "Tokens of prompts from the prefix cache.", stats.cached_tokens as f64),
        ("ossia_computed_tokens_total", "Tokens that were computed.", stats.computed_tokens as f64),
        ("ossia_generated_tokens_total", "Tokens that were generated.", stats.generated_tokens as f64),
        ("ossia_preemptions_total", "Times that a sequence gave up its pages.", stats.preemptions as f64),
        ("ossia_cache_evictions_total", "Points that the prefix cache gave up.", stats.evictions as f64),
        ("ossia_steps_total", "Steps of the model.", stats.steps as f64),
        ("ossia_step_seconds_total", "Seconds that steps took.", stats.step_s),
    ];
    for (name, help, value) in counters {
        head(out, name, "counter", help);
        line(out, name, "", value);
    }
    head(out, "ossia_kv_pages", "gauge", "Pages of keys and values by layer group and holder.");
    for (group, pages) in [("full", stats.full_pages), ("sliding", stats.sliding_pages)] {
        let PageStats { free, used, cached } = pages;
        for (state, count) in [("free", free), ("used", used), ("cached", cached)] {
            line(out, "ossia_kv_pages", &format!("group=\"{group}\",state=\"{state}\""), count as f64);
        }
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: f64) {
    let _ = match labels.is_empty() {
        true => writeln!(out, "{name} {value}"),
        false => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ossia_engine::Stats;

    use super::Counters;
    use crate::turn::Usage;

    #[test]
    fn text_for_prometheus() {
        let counters = Counters::default();
        counters.request("GET", "/health", 200, Duration::from_millis(3));
        counters.request("GET", "/health", 200, Duration::from_secs(500));
        counters.request("BREW", "none", 404, Duration::ZERO);
        counters.generation("stop", &Usage { reasoning_tokens: 7, ..Usage::default() });
        let text = counters.text(&Stats { running: 2, ..Stats::default() }, 4096);
        for wanted in [
            "ossia_http_requests_total{method=\"GET\",route=\"/health\",status=\"200\"} 2\n",
            "ossia_http_requests_total{method=\"other\",route=\"none\",status=\"404\"} 1\n",
            "ossia_http_response_seconds_bucket{route=\"/health\",le=\"0.005\"} 1\n",
            "ossia_http_response_seconds_bucket{route=\"/health\",le=\"+Inf\"} 2\n",
            "ossia_http_response_seconds_count{route=\"/health\"} 2\n",
            "ossia_generations_total{ended=\"stop\"} 1\n",
            "ossia_reasoning_tokens_total 7\n",
            "ossia_requests_running 2\n",
            "ossia_grammar_cache_bytes 4096\n",
            "ossia_kv_pages{group=\"full\",state=\"free\"} 0\n",
        ] {
            assert!(text.contains(wanted), "{wanted} in\n{text}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(), "{line}");
        }
    }
}
