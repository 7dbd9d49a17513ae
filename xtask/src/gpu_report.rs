//! `cargo xtask gpu-report`: one command for a fresh machine with a GPU. Correctness first, then the figures that are worth
//! comparing, beside those that others have published, as a table and as CSV.
//!
//! The program and the two test programs are taken as they were built; no toolchain is needed there. Parts that the CSV file has
//! already are not measured again, so a run that was cut off goes on.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::json::Json;

const USAGE: &str = "usage: xtask gpu-report [NAME=VALUE …]
  program=target/release/ossia   what is measured
  kernels=FILE model=FILE        test programs of ossia-kernels and of ossia-model's `cuda`; without them nothing is checked
  out=gpu-report.csv             where figures are kept; those that are there are not measured again
  models=start,20b,120b,train    how it starts, shapes, and a training step";

/// What a part of this model measures: tokens a second of the last step of a recipe.
const TRAINING: &str = "train";
/// What a part of this model measures: how a program starts.
const START: &str = "start";
/// The recipe.
const RECIPE: &str = "crates/ossia-train/recipes/gpu-report.toml";
/// What is made for parts, and kernels that are compiled anew.
const FOLDER: &str = "target/gpu-report";

/// One figure: what is measured, and what is known of others.
struct Part {
    name: &'static str,
    model: &'static str,
    /// Tokens before the clock, of the prompt, decoded; sequences.
    lengths: [usize; 4],
    /// The field of bench's JSON.
    field: &'static str,
    wanted: Wanted,
    published: &'static str,
}

/// What a figure is held to.
#[derive(Clone, Copy)]
enum Wanted {
    AtLeast(f64),
    AtMost(f64),
    /// Told beside others.
    Nothing,
}

const DECODE: &str = "decode_tok_s";
const PREFILL: &str = "prefill_tok_s";

/// In the order of their worth: what is cut off is cut off at the end.
#[rustfmt::skip]
const PARTS: &[Part] = &[
    part("s, kernels compiled", START, [0, 8, 4, 1], "first", Wanted::AtMost(10.0), ""),
    part("s, kernels kept", START, [0, 8, 4, 1], "again", Wanted::AtMost(0.5), ""),
    part("GB/s, weights", START, [0, 8, 4, 1], "load", Wanted::AtLeast(2.0), ""),
    part("decode after 1k", "20b", [1024, 1, 256, 1], DECODE, Wanted::AtLeast(700.0), "ONNX Runtime 382 (H200)"),
    part("share of copying", "20b", [1024, 1, 256, 1], "bandwidth_share", Wanted::Nothing, ""),
    part("prefill 2k", "20b", [0, 2048, 4, 1], PREFILL, Wanted::AtLeast(40_000.0), "ONNX Runtime 29,400 (H200)"),
    part("decode, 256", "20b", [0, 64, 64, 256], DECODE, Wanted::AtLeast(20_000.0), "TensorRT-LLM 13,890 (H200)"),
    part("decode after 1k", "120b", [1024, 1, 256, 1], DECODE, Wanted::AtLeast(500.0), "8 x H100 SGLang 318"),
    part("share of copying", "120b", [1024, 1, 256, 1], "bandwidth_share", Wanted::Nothing, ""),
    // The middle of 1k + 1k; 64 / 0.021 s.
    part("decode after 1.5k, 64", "120b", [1536, 1, 64, 64], DECODE, Wanted::AtLeast(3048.0), "TensorRT-LLM 22.5 ms, vLLM 23.6"),
    part("decode, 256", "120b", [0, 64, 64, 256], DECODE, Wanted::AtLeast(7500.0), "TensorRT-LLM 6,868 (H200)"),
    part("prefill 2k", "120b", [0, 2048, 4, 1], PREFILL, Wanted::AtLeast(25_000.0), ""),
    part("AdamW, 2 layers of 8", TRAINING, [0; 4], "tok_s", Wanted::AtLeast(100_000.0), "a fifth of 790 TFLOP/s (H200)"),
];

const fn part(
    name: &'static str,
    model: &'static str,
    lengths: [usize; 4],
    field: &'static str,
    wanted: Wanted,
    published: &'static str,
) -> Part {
    Part { name, model, lengths, field, wanted, published }
}

impl Part {
    fn key(&self) -> String {
        format!("{} {}", self.model, self.name)
    }
}

/// Checks, measures, prints.
pub fn run(root: &Path, args: &[&str]) -> Result<(), String> {
    let mut settings: HashMap<&str, &str> = HashMap::new();
    for arg in args {
        let (name, value) = arg.split_once('=').ok_or(USAGE)?;
        settings.insert(name, value);
    }
    let path = |name: &str, or: &str| root.join(settings.get(name).copied().unwrap_or(or));
    for (name, filter) in [("kernels", Some("cuda::")), ("model", None)] {
        if let Some(test) = settings.get(name) {
            check(&root.join(test), filter)?;
        }
    }
    let (program, out) = (path("program", "target/release/ossia"), path("out", "gpu-report.csv"));
    for model in settings.get("models").unwrap_or(&"start,20b,120b,train").split(',') {
        let known = read(&out);
        let parts = PARTS.iter().filter(|part| part.model == model);
        let missing: Vec<&Part> = parts.clone().filter(|part| !known.contains_key(&part.key())).collect();
        let found = &mut |part: &Part, figure| append(&out, &part.key(), figure);
        match model {
            _ if missing.is_empty() => {}
            TRAINING => found(missing[0], train(root, &program)?)?,
            START => starts(root, &program, found)?,
            _ => measure(&program, model, &missing, found)?,
        }
        let known = read(&out);
        for part in parts {
            let figure = known.get(&part.key()).copied().unwrap_or(f64::NAN);
            let (wanted, holds) = match part.wanted {
                Wanted::AtLeast(bar) => (format!(">= {bar:>8.1}"), figure >= bar),
                Wanted::AtMost(bar) => (format!("<= {bar:>8.1}"), figure <= bar),
                Wanted::Nothing => {
                    println!("{:<28} {figure:>10.2}", part.key());
                    continue;
                }
            };
            let verdict = if holds { "holds" } else { "MISSES" };
            println!("{:<28} {figure:>10.2}   {wanted}   {verdict}   {}", part.key(), part.published);
        }
    }
    Ok(())
}

/// A test program, all of whose tests must run on the device.
fn check(test: &Path, filter: Option<&str>) -> Result<(), String> {
    let status = Command::new(test).args(filter).env("OSSIA_CUDA_TESTS", "required").stdin(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            Err(format!("{}: {status}: what the device computes is wrong; nothing is measured", test.display()))
        }
        Err(error) => Err(format!("{}: {error}", test.display())),
    }
}

/// What is told of a figure as soon as it is there.
type Found<'a> = &'a mut dyn FnMut(&Part, f64) -> Result<(), String>;

/// All parts of a model, which is loaded once.
fn measure(program: &Path, model: &str, parts: &[&Part], found: Found) -> Result<(), String> {
    let list = |i: usize| parts.iter().map(|part| part.lengths[i].to_string()).collect::<Vec<_>>().join(",");
    let lists: Vec<String> =
        ["-d", "-p", "-n", "-b"].iter().enumerate().flat_map(|(i, o)| [(*o).into(), list(i)]).collect();
    let mut command = Command::new(program);
    command.args(["bench", "--device", "cuda", "--json", "--chunk", "2048", "-r", "2", "-m"]);
    command.arg(format!("synth:{model}")).args(lists).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("{}: {e}\n{USAGE}", program.display()))?;
    let lines = child.stdout.take().map(|out| BufReader::new(out).lines()).into_iter().flatten();
    for (part, line) in parts.iter().zip(lines) {
        let line = line.map_err(|e| format!("{}: {e}", program.display()))?;
        let figure = number(&line, part.field).ok_or_else(|| format!("{}: no {} in {line}", part.key(), part.field))?;
        found(part, figure)?;
    }
    let status = child.wait().map_err(|e| format!("{}: {e}", program.display()))?;
    if status.success() { Ok(()) } else { Err(format!("{model}: bench ended with {status}")) }
}

/// Seconds until a small model is ready, with kernels compiled and with those that were kept, and how fast weights come from
/// files that were just written.
fn starts(root: &Path, program: &Path, found: Found) -> Result<(), String> {
    let folder = root.join(FOLDER);
    remove(&folder)?;
    let weights = folder.join("weights");
    let shape = ["synth", "--preset", "20b", "--layers", "4", "--json", "--out"];
    let made = json_of(Command::new(program).args(shape).arg(&weights))?;
    let bytes = number(&made, "bytes").ok_or_else(|| format!("no bytes in {made}"))?;
    let load_s = |model: &Path| {
        let mut command = Command::new(program);
        command.args(["bench", "--device", "cuda", "--json", "-p", "8", "-n", "4", "-r", "1", "-m"]).arg(model);
        let line = json_of(command.env("XDG_CACHE_HOME", folder.join("cache")))?;
        number(&line, "load_s").ok_or_else(|| format!("no load_s in {line}"))
    };
    for part in PARTS.iter().filter(|part| part.model == START) {
        let model = if part.field == "load" { &weights } else { Path::new("nano") };
        let seconds = load_s(model)?;
        found(part, if part.field == "load" { bytes / 1e9 / seconds } else { seconds })?;
    }
    Ok(())
}

/// What a command prints.
fn json_of(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|e| format!("{:?}: {e}\n{USAGE}", command.get_program()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn number(line: &str, field: &str) -> Option<f64> {
    match Json::read(line.as_bytes())?.get(field)? {
        Json::Raw(digits) => String::from_utf8_lossy(digits).parse().ok(),
        _ => None,
    }
}

fn remove(folder: &Path) -> Result<(), String> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {e}", folder.display())),
        _ => Ok(()),
    }
}

/// Runs the recipe from its beginning; the first steps compile and load, the last one counts.
fn train(root: &Path, program: &Path) -> Result<f64, String> {
    let folder = root.join(FOLDER).join("run");
    remove(&folder)?;
    let mut command = Command::new(program);
    command.arg("train").arg(root.join(RECIPE)).args(["--device", "cuda", "--json", "--out"]).arg(&folder);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(format!("training ended with {status}")),
        Err(error) => return Err(format!("{}: {error}\n{USAGE}", program.display())),
    }
    let log = folder.join("metrics.jsonl");
    let text = std::fs::read_to_string(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let last = text.lines().last().unwrap_or_default();
    number(last, "tok_s").ok_or_else(|| format!("{}: no tok_s in its last line", log.display()))
}

fn read(out: &PathBuf) -> HashMap<String, f64> {
    let text = std::fs::read_to_string(out).unwrap_or_default();
    let pair = |line: &str| {
        let (key, figure) = line.rsplit_once(',')?;
        Some((key.trim_matches('"').to_owned(), figure.parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

fn append(out: &PathBuf, key: &str, figure: f64) -> Result<(), String> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(out);
    let written = file.and_then(|mut file| writeln!(file, "\"{key}\",{figure}"));
    written.map_err(|e| format!("{}: {e}", out.display()))
}
