//! `ossia pull MODEL`: fetches a model into the Hugging Face cache, with a bar on a terminal and lines elsewhere.
//! The result, the path to give as MODEL, goes to stdout; everything else to stderr.

use crate::error::Failure;
use crate::hub::{Progress, PullOptions, Settings, Silent, pull};
use crate::output;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use std::io::IsTerminal;

/// Fetch a model: resumes what was interrupted, verifies every hash.
#[derive(Debug, clap::Args)]
pub struct PullArgs {
    /// A name such as gpt-oss-20b or openai/gpt-oss-20b.
    #[arg(value_name = "MODEL")]
    model: String,
    /// Fetch OpenAI's original/ layout in place of the Hugging Face one.
    #[arg(long)]
    original: bool,
    /// Fetch this one file, for repositories with several .gguf files.
    #[arg(long, value_name = "NAME", conflicts_with = "original")]
    file: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: PullArgs) -> Result<(), Failure> {
    let settings = Settings::from_env()?;
    let options = PullOptions { original: args.original, file: args.file };
    let mut progress: Box<dyn Progress> = match (args.json, std::io::stderr().is_terminal()) {
        (true, _) => Box::new(Silent),
        (false, true) => Box::new(Bar(ProgressBar::hidden())),
        (false, false) => Box::new(Lines),
    };
    let pulled = pull(&args.model, &options, &settings, progress.as_mut())?;
    drop(progress);
    if args.json {
        return output::line(serde_json::json!(pulled));
    }
    let (all, new) = (HumanBytes(pulled.bytes), HumanBytes(pulled.received_bytes));
    let files = if pulled.num_files == 1 { "file" } else { "files" };
    eprintln!("{}: {} {files}, {all} verified, {new} fetched", pulled.repo, pulled.num_files);
    output::line(pulled.path.display())
}

/// One bar over all files.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn plan(&mut self, total: u64, present: u64) {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
        self.0 = ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.0.set_position(present);
        self.0.reset_eta();
    }

    fn file(&mut self, name: &str, _: u64) {
        self.0.set_message(name.to_owned());
    }

    fn add(&mut self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn take_back(&mut self, bytes: u64) {
        self.0.dec(bytes);
    }

    fn retry(&mut self, reason: &str) {
        self.0.println(format!("trying again: {reason}"));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A line per file, for logs.
struct Lines;

impl Progress for Lines {
    fn plan(&mut self, total: u64, present: u64) {
        eprintln!("{} in all, {} already here", HumanBytes(total), HumanBytes(present));
    }

    fn file(&mut self, name: &str, bytes: u64) {
        eprintln!("{name} ({})", HumanBytes(bytes));
    }

    fn add(&mut self, _: u64) {}

    fn take_back(&mut self, _: u64) {}

    fn retry(&mut self, reason: &str) {
        eprintln!("trying again: {reason}");
    }
}
