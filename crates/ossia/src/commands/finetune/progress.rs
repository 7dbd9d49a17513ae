//! What a fine-tuning run shows while it goes on: its head, one line that changes, and a line that stays for each
//! measurement.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use ossia_train::finetune::Watcher;
use ossia_train::finetune::data;
use ossia_train::finetune::finder::Tried;
use ossia_train::finetune::plan::Header;
use ossia_train::metrics::Record;
use serde_json::json;

use super::head;
use crate::output;

/// Steps between lines where stderr is no terminal.
const LINE_EVERY: u64 = 50;
/// Steps after which the time that is left is said where stderr is no terminal.
const SAYS_TIME: u64 = 3;

/// The bar.
pub struct Progress<'a> {
    bar: ProgressBar,
    quiet: bool,
    terminal: bool,
    model: &'a str,
    epochs: f64,
    available: Option<u64>,
    stop: &'a AtomicBool,
    /// When the steps began, after how many, of how many.
    began: (Instant, u64, u64),
}

impl<'a> Progress<'a> {
    /// Shows nothing where `quiet`, but tells programs by JSON that the run begins.
    pub fn new(quiet: bool, model: &'a str, epochs: f64, available: Option<u64>, stop: &'a AtomicBool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if quiet || !terminal { ProgressBar::hidden() } else { ProgressBar::new(1) };
        Self { bar, quiet, terminal, model, epochs, available, stop, began: (Instant::now(), 0, 0) }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn style(&self, template: &str) {
        self.bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    }

    fn line(&self, line: &str) {
        match (self.quiet, self.terminal) {
            (true, _) => {}
            (false, true) => self.bar.println(line),
            (false, false) => eprintln!("{line}"),
        }
    }

    /// How long the rest takes at the speed so far.
    fn left(&self, step: u64) -> Duration {
        let (start, first, steps) = self.began;
        let done = step.saturating_sub(first).max(1);
        start.elapsed().mul_f64(steps.saturating_sub(step) as f64 / done as f64)
    }
}

impl Watcher for Progress<'_> {
    fn preparing(&mut self, now: &data::Progress) {
        self.style("reading {msg} {wide_bar} {bytes}/{total_bytes}");
        self.bar.set_message(now.file.display().to_string());
        self.bar.set_length(now.all_bytes);
        self.bar.set_position(now.bytes);
    }

    fn begins(&mut self, header: &Header) {
        if self.quiet {
            let (data, t) = (&header.data, &header.training);
            let event = json!({
                "event": "begins", "step": header.step, "steps": t.steps, "epochs": self.epochs,
                "batch_tokens": t.batch_tokens, "lr": t.lr, "examples": data.kept, "held_out": header.held_out,
                "skipped": data.num_skipped,
            });
            // Nobody listens any more: the run is worth finishing all the same.
            let _ = output::line(event);
        }
        head::lines(header, self.model, self.available).iter().for_each(|line| self.line(line));
        self.style("{pos}/{len} {wide_bar} {msg} {eta}");
        self.bar.set_length(header.training.steps);
        self.bar.set_position(header.step);
        self.bar.reset_eta();
        self.began = (Instant::now(), header.step, header.training.steps);
    }

    fn stepped(&mut self, r: &Record) {
        self.bar.set_position(r.step);
        let what = format!("loss {:.3}  {:.0} tok/s  {:.0} % of peak", r.loss, r.tok_s, 100.0 * r.flops_share);
        self.bar.set_message(if self.stop.load(Ordering::Relaxed) { "saving".into() } else { what.clone() });
        if let Some(measured) = measured(r) {
            let loss = if r.step == 0 { "before training".into() } else { format!("loss {:.4}", r.loss) };
            self.line(&format!("step {}  {loss}  held out {measured}{}", r.step, extras(r)));
        } else if !self.terminal && r.step.is_multiple_of(LINE_EVERY) {
            self.line(&format!("step {}  {what}{}", r.step, extras(r)));
        }
        if !self.terminal && r.step == self.began.1 + SAYS_TIME {
            self.line(&format!("about {} left", HumanDuration(self.left(r.step))));
        }
    }

    fn saved(&mut self, folder: &Path) {
        self.bar.set_message(format!("saved {}", folder.display()));
    }

    fn tried(&mut self, tried: Tried) {
        self.bar.inc(1);
        self.bar.set_message(format!("learning rate {:.1e}  loss {:.3}", tried.lr, tried.loss));
    }
}

/// What was measured on held-out data.
fn measured(r: &Record) -> Option<String> {
    let preference = r.valid_preference.map_or(String::new(), |p| {
        format!("  margin {:.3}  better answer preferred {:.1} %", p.margin, 100.0 * p.accuracy)
    });
    let reward = r.valid_reward.map(|reward| format!("reward {reward:.3}"));
    r.valid_loss.map(|loss| format!("{loss:.4}{preference}")).or(reward)
}

/// What pairs or answers of the step itself say.
fn extras(r: &Record) -> String {
    let preference = r.preference.map(|p| format!("  margin {:.3}  accuracy {:.2}", p.margin, p.accuracy));
    let policy = r.policy.map(|p| {
        format!(
            "  reward {:.3} (spread {:.2})  {:.0} tokens an answer  drawn and trained differ by {:.0e}",
            p.reward, p.spread, p.length, p.rollout_difference
        )
    });
    [preference, policy].into_iter().flatten().collect()
}
