//! What a run shows while it goes on: one line that changes, and a line that stays for each measured loss.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use ossia_model::gpt_oss::config::Config;
use ossia_train::metrics::Record;
use ossia_train::run::Watcher;

/// Steps between lines where stderr is no terminal.
const LINE_EVERY: u64 = 50;

/// The bar.
pub struct Progress<'a> {
    bar: ProgressBar,
    quiet: bool,
    terminal: bool,
    stop: &'a AtomicBool,
}

impl<'a> Progress<'a> {
    /// Shows nothing where `quiet`.
    pub fn new(quiet: bool, stop: &'a AtomicBool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if quiet || !terminal { ProgressBar::hidden() } else { ProgressBar::new(1) };
        Self { bar, quiet, terminal, stop }
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
}

impl Watcher for Progress<'_> {
    fn preparing(&mut self, what: &str, done: u64, all: u64) {
        self.style("{msg} {wide_bar} {pos}/{len}");
        self.bar.set_message(what.to_owned());
        self.bar.set_length(all);
        self.bar.set_position(done);
    }

    fn begins(&mut self, step: u64, steps: u64, config: &Config) {
        let counts = config.param_counts();
        let from = if step == 0 { "from nothing".to_owned() } else { format!("going on after step {step}") };
        self.line(&format!(
            "{:.2} million parameters, {:.2} active; {steps} steps, {from}",
            counts.total as f64 / 1e6,
            counts.active as f64 / 1e6
        ));
        self.style("{pos}/{len} {wide_bar} {msg} {eta}");
        self.bar.set_length(steps);
        self.bar.set_position(step);
        self.bar.reset_eta();
    }

    fn stepped(&mut self, r: &Record) {
        self.bar.set_position(r.step);
        let what = format!("loss {:.3}  {:.0} tok/s  {:.0} % of peak", r.loss, r.tok_s, 100.0 * r.flops_share);
        self.bar.set_message(if self.stop.load(Ordering::Relaxed) { "saving".into() } else { what.clone() });
        if let Some(valid) = r.valid_loss {
            self.line(&format!("step {}  loss {:.4}  held out {valid:.4}", r.step, r.loss));
        } else if !self.terminal && r.step.is_multiple_of(LINE_EVERY) {
            self.line(&format!("step {}  {what}", r.step));
        }
    }

    fn saved(&mut self, folder: &Path) {
        self.bar.set_message(format!("saved {}", folder.display()));
    }
}
