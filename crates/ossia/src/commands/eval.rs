//! `ossia eval`: how many of the held-out tasks a model does, family by family, and how it says it; or how many of the
//! answers in a user's own file.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ossia_kernels::Floats;
use ossia_model::checkpoint::Checkpoint;
use ossia_model::gpt_oss::adapter::{AdapterParameters, peft};
use ossia_model::{Model, Plan};
use ossia_text::Harmony;
use ossia_text::harmony::Effort;
use ossia_train::eval::{self, Answer, Calls, Item, MAX_TOKENS, MAX_TOKENS_BEYOND, Progress, Report, Set, Tally};
use ossia_train::finetune::data::{Manner, OnBad, asked};
use ossia_train::generate::Expected;
use serde_json::{Map, Value, json};

use crate::error::Failure;
use crate::output;
use crate::source::{ModelArgs, Need, Source, plan_line};

/// Efforts and their names in reports.
const EFFORTS: [(Effort, &str); 3] = [(Effort::Low, "low"), (Effort::Medium, "medium"), (Effort::High, "high")];

/// Arguments of `eval`.
#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A family of tasks, or a set of longer ones; may be given more than once [default: all]
    #[arg(long = "family", value_name = "FAMILY", value_parser = parse_set)]
    families: Vec<Set>,
    /// A file of your own examples (chat JSONL) in place of the families: everything that the assistant says there is
    /// asked for
    #[arg(long, value_name = "FILE", conflicts_with_all = ["families", "n", "seed"])]
    data: Option<PathBuf>,
    /// Tokens of an answer to --data at most
    #[arg(long, value_name = "N", default_value_t = MAX_TOKENS_BEYOND, requires = "data")]
    max_tokens: usize,
    /// A fine-tuned adapter (a PEFT folder) through which the model answers
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// How long the model thinks; with --data, where an example does not say
    #[arg(long, value_enum, default_value_t = Efforts::Medium)]
    effort: Efforts,
    /// Tasks of each family
    #[arg(short, long = "num", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    n: u32,
    /// Which tasks are drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Tasks at a time; changes the speed, never an answer
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Where each question, what was wanted and what was answered go, one JSON object a line
    #[arg(long, value_name = "FILE")]
    answers: Option<PathBuf>,
}

/// The efforts of the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Efforts {
    /// Short.
    Low,
    /// Between.
    Medium,
    /// Long.
    High,
    /// Each task has its own, as in training.
    Mixed,
}

impl Efforts {
    /// The one effort of all tasks, if there is one.
    fn fixed(self) -> Option<Effort> {
        match self {
            Self::Low => Some(Effort::Low),
            Self::Medium => Some(Effort::Medium),
            Self::High => Some(Effort::High),
            Self::Mixed => None,
        }
    }
}

fn parse_set(name: &str) -> Result<Set, String> {
    let names = || Set::all().map(Set::name).collect::<Vec<_>>().join(", ");
    Set::from_name(name).ok_or_else(|| format!("wanted one of {}", names()))
}

/// Runs the command.
pub fn run(args: EvalArgs) -> Result<(), Failure> {
    let source = args.model.open()?;
    // Now, not after hours of work.
    let answers = args.answers.as_ref().map(File::create).transpose().map_err(|error| args.no_answers(&error))?;
    let harmony = Harmony::new(source.tokenizer()?)?;
    let items = args.items(&harmony)?;
    let adapter = args.adapter.as_ref().map(|folder| peft::load(folder, &source.config)).transpose()?;
    let bar = Bar::new(args.json);
    let (mut model, _files) = load(&args, source, &items, adapter.as_ref().map(|(parameters, _)| parameters), &bar)?;
    // They must live as long as the model uses them.
    let adapter = adapter.map(|(parameters, values)| (parameters, Floats::new(values)));
    let attached = adapter.as_ref().map(|(parameters, values)| model.attach(parameters, values)).transpose();
    let slot = attached.map_err(|error| Failure::Message(error.to_string()))?;
    let start = Instant::now();
    let batch = args.batch as usize;
    let report = eval::evaluate(&mut model, &harmony, &items, batch, slot, &mut |now| bar.evaluating(now));
    bar.clear();
    let seconds = start.elapsed().as_secs_f64();
    let outcome = Outcome { args: &args, report: report.map_err(failure)?, seconds };
    if let Some(mut file) = answers {
        let lines = items.iter().zip(&outcome.report.answers).map(|(item, answer)| answer_line(&harmony, item, answer));
        file.write_all(lines.collect::<String>().as_bytes()).map_err(|error| args.no_answers(&error))?;
    }
    if args.json { output::line(outcome.object()) } else { output::line(outcome.table()) }
}

fn failure(error: eval::Error) -> Failure {
    match error {
        eval::Error::Text(error) => error.into(),
        eval::Error::Model(error) => error.into(),
        other => Failure::Message(other.to_string()),
    }
}

/// The model with room for `--batch` of the longest item, and its files, which stay open while it is used.
fn load(
    args: &EvalArgs,
    source: Source,
    items: &[Item],
    adapter: Option<&AdapterParameters>,
    bar: &Bar,
) -> Result<(Model, Checkpoint), Failure> {
    let batch = args.batch as usize;
    let need = Need { context: eval::context(items), logits_rows: batch, sequences: batch, quiet: args.json };
    let options = args.model.options(&source, need)?;
    let options = adapter.map_or(options.clone(), |adapter| options.with_adapter(adapter));
    eval::check_context(items, options.context).map_err(failure)?;
    let Source { checkpoint, config, available, .. } = source;
    if !args.json {
        eprintln!("{}", plan_line(&Plan::new(&checkpoint, &config, &options), available));
    }
    let model = Model::load(&checkpoint, options, available, &mut |done, all| {
        bar.show("loading", done, all);
    })?;
    Ok((model, checkpoint))
}

/// An item and its answer as text, special tokens and all.
fn answer_line(harmony: &Harmony, item: &Item, answer: &Answer) -> String {
    let text = |ids: &[u32]| String::from_utf8_lossy(&harmony.tokenizer().decode(ids)).into_owned();
    let wanted = match item.expected() {
        Expected::Final(text) => json!(text),
        Expected::Call { name, arguments } => json!({ "name": name, "arguments": arguments }),
    };
    let effort = EFFORTS.into_iter().find_map(|(effort, name)| (effort == answer.effort).then_some(name));
    let line = json!({
        "set": answer.set.name(), "effort": effort, "correct": answer.grade.correct, "valid": answer.grade.valid,
        "prompt": text(item.prompt()), "wanted": wanted, "said": answer.grade.said, "answer": text(&answer.tokens),
    });
    format!("{line}\n")
}

impl EvalArgs {
    fn no_answers(&self, error: &io::Error) -> Failure {
        let path = self.answers.as_deref().unwrap_or(Path::new("")).display();
        Failure::Message(format!("the answers cannot be written to {path}: {error}"))
    }

    /// What is asked.
    fn items(&self, harmony: &Harmony) -> Result<Vec<Item>, Failure> {
        let effort = self.effort.fixed();
        let Some(file) = &self.data else {
            return eval::items(harmony, &self.sets(), effort, self.seed, self.n as usize).map_err(failure);
        };
        let manner = Manner { effort: effort.unwrap_or_default(), ..Manner::default() };
        let (all, _) = asked(file, OnBad::Fail, &manner, harmony).map_err(ossia_train::Error::from)?;
        Ok(all.into_iter().map(|asked| Item::own(asked, self.max_tokens)).collect())
    }

    /// What is asked for, each set once.
    fn sets(&self) -> Vec<Set> {
        Set::all().filter(|set| self.families.is_empty() || self.families.contains(set)).collect()
    }

    /// The efforts of the items.
    fn efforts(&self) -> impl Iterator<Item = (Effort, &'static str)> {
        let fixed = self.effort.fixed();
        EFFORTS.into_iter().filter(move |(effort, _)| fixed.is_none_or(|fixed| fixed == *effort))
    }
}

/// A bar that appears when a second has passed.
struct Bar {
    bar: ProgressBar,
    start: Instant,
    wanted: bool,
}

impl Bar {
    fn new(quiet: bool) -> Self {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
        let bar = ProgressBar::hidden().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, start: Instant::now(), wanted: !quiet && std::io::stderr().is_terminal() }
    }

    fn show(&self, what: &str, done: usize, all: usize) {
        self.bar.set_message(what.to_owned());
        self.bar.set_length(all as u64);
        self.bar.set_position(done as u64);
        if self.wanted && self.bar.is_hidden() && self.start.elapsed() > Duration::from_secs(1) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    fn evaluating(&self, now: Progress) {
        self.show(&format!("evaluating, {} tokens", now.tokens), now.done, now.all);
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// What is printed.
struct Outcome<'a> {
    args: &'a EvalArgs,
    report: Report,
    seconds: f64,
}

impl Outcome<'_> {
    fn tokens_per_second(&self) -> f64 {
        self.report.num_tokens() as f64 / self.seconds.max(1e-9)
    }

    fn object(&self) -> Value {
        let report = &self.report;
        let sets = |families: bool| -> Map<String, Value> {
            let sets = report.sets().into_iter().filter(|set| set.is_family() == families);
            sets.map(|set| (set.name().to_owned(), self.set_object(set))).collect()
        };
        let by_effort = |number: &dyn Fn(Effort) -> Option<f64>| -> Map<String, Value> {
            self.args.efforts().map(|(effort, name)| (name.to_owned(), number(effort).into())).collect()
        };
        let calls = report.calls();
        json!({
            "model": self.args.model.model, "adapter": self.args.adapter, "data": self.args.data, "precision": self.args.model.precision.name(),
            "seed": self.args.seed, "batch": self.args.batch,
            "effort": self.args.efforts().map(|(_, name)| name).collect::<Vec<_>>(),
            "max_tokens": { "families": MAX_TOKENS, "beyond": MAX_TOKENS_BEYOND },
            "families": sets(true),
            "macro": report.macro_average(None),
            "macro_by_effort": by_effort(&|effort| report.macro_average(Some(effort))),
            "beyond": sets(false),
            "tool_calls": {
                "asked": calls.asked, "correct": calls.correct, "made": calls.made, "valid": calls.valid,
                "correct_share": calls.correct_share(), "valid_share": calls.valid_share(),
            },
            "stopped_share": report.stopped_share(),
            "thinking_tokens": by_effort(&|effort| report.mean_thinking_tokens(effort)),
            "prompt_tokens": report.prompt_tokens, "tokens": report.num_tokens(),
            "seconds": self.seconds, "tok_s": self.tokens_per_second(),
        })
    }

    fn set_object(&self, set: Set) -> Value {
        let tally = self.report.tally(set, None);
        let mut object = tally_object(&tally);
        object["valid"] = tally.valid.into();
        object["stopped"] = tally.stopped.into();
        let efforts = self.args.efforts();
        let efforts = efforts.map(|(e, name)| (name.to_owned(), tally_object(&self.report.tally(set, Some(e)))));
        object["efforts"] = Value::Object(efforts.collect());
        object
    }

    fn table(&self) -> String {
        let mut head = format!("{:<18}{:>6}{:>9}{:>9}{:>18}{:>9}", "", "tasks", "correct", "share", "95 %", "valid");
        let shows_efforts = self.args.effort == Efforts::Mixed;
        if shows_efforts {
            head += &format!("{:>10}{:>9}{:>9}", "low", "medium", "high");
        }
        let sets = self.report.sets();
        let (families, beyond): (Vec<Set>, Vec<Set>) = sets.into_iter().partition(|set| set.is_family());
        let mut lines = vec![head];
        if self.args.data.is_some() {
            lines.extend(beyond.iter().map(|&set| self.set_line(set, shows_efforts)));
            lines.push(String::new());
            lines.extend(self.notes(false));
            return lines.join("\n");
        }
        lines.extend(families.iter().map(|&set| self.set_line(set, shows_efforts)));
        if !families.is_empty() {
            lines.push(self.macro_line(shows_efforts));
        }
        if !beyond.is_empty() {
            lines.push("\nlonger than in training, not in the average:".into());
        }
        lines.extend(beyond.iter().map(|&set| self.set_line(set, shows_efforts)));
        lines.push(String::new());
        lines.extend(self.notes(!families.is_empty()));
        lines.join("\n")
    }

    fn set_line(&self, set: Set, shows_efforts: bool) -> String {
        let tally = self.report.tally(set, None);
        let Tally { num, correct, .. } = tally;
        let (low, high) = tally.interval().unwrap_or_default();
        let interval = format!("{:.1} to {:.1} %", 100.0 * low, 100.0 * high);
        let (share, valid) = (percent(tally.share()), percent(tally.valid_share()));
        let line = format!("{:<18}{num:>6}{correct:>9}{share:>9}{interval:>18}{valid:>9}", set.name());
        line + &self.effort_columns(shows_efforts, &|effort| self.report.tally(set, Some(effort)).share())
    }

    fn macro_line(&self, shows_efforts: bool) -> String {
        let line = format!("{:<33}{:>9}{:>27}", "mean of families", percent(self.report.macro_average(None)), "");
        line + &self.effort_columns(shows_efforts, &|effort| self.report.macro_average(Some(effort)))
    }

    fn effort_columns(&self, shown: bool, number: &dyn Fn(Effort) -> Option<f64>) -> String {
        if !shown {
            return String::new();
        }
        let [low, medium, high] = EFFORTS.map(|(effort, _)| percent(number(effort)));
        format!("{low:>10}{medium:>9}{high:>9}")
    }

    /// Lines below the table; the first three are about the families.
    fn notes(&self, has_families: bool) -> Vec<String> {
        let report = &self.report;
        let speed = format!(
            "speed             {:.0} tok/s ({} tokens made, {} read, in {:.1} s)",
            self.tokens_per_second(),
            report.num_tokens(),
            report.prompt_tokens,
            self.seconds
        );
        if !has_families {
            return vec![speed];
        }
        let stopped = format!("ended by itself   {}", percent(report.stopped_share()));
        let thought = self.args.efforts().map(|(effort, name)| {
            report.mean_thinking_tokens(effort).map_or(format!("{name} -"), |mean| format!("{name} {mean:.1}"))
        });
        let thought = format!("thinking tokens   {}", thought.collect::<Vec<_>>().join(", "));
        vec![calls_line(&report.calls()), stopped, thought, speed]
    }
}

fn calls_line(calls: &Calls) -> String {
    let (right, formed) = (percent(calls.correct_share()), percent(calls.valid_share()));
    let Calls { asked, correct, made, valid } = calls;
    format!(
        "tool calls        {correct} of {asked} right ({right}); {made} made, {valid} of them well-formed ({formed})"
    )
}

fn tally_object(tally: &Tally) -> Value {
    let (low, high) = tally.interval().unzip();
    json!({ "n": tally.num, "correct": tally.correct, "share": tally.share(), "low": low, "high": high })
}

fn percent(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.1} %", 100.0 * share))
}
