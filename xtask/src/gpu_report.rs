//! `cargo xtask gpu-report`: one command for a fresh machine with a GPU. Correctness first, then the figures that are worth
//! comparing, beside those that others have published, as a table and as CSV.
//!
//! The program and the two test programs are taken as they were built; no toolchain is needed there. Parts that the CSV file has
//! already are not measured again, so a run that was cut off goes on.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::json::Json;

const USAGE: &str = "usage: xtask gpu-report [NAME=VALUE …]
  program=target/release/ossia   what is measured
  kernels=FILE model=FILE        test programs of ossia-kernels and of ossia-model's `cuda`; without them nothing is checked
  out=gpu-report.csv             where figures are kept; those that are there are not measured again
  models=20b,120b,train          shapes, and a training step";

/// What a part of this model measures: tokens a second of the last step of a recipe.
const TRAINING: &str = "train";
/// The recipe.
const RECIPE: &str = "crates/ossia-train/recipes/gpu-report.toml";

/// One figure: what is measured, with which arguments of `ossia bench`, and what is known of others.
struct Part {
    name: &'static str,
    model: &'static str,
    arguments: &'static [&'static str],
    /// The field of bench's JSON.
    field: &'static str,
    wanted: f64,
    published: &'static str,
}

/// In the order of their worth: what is cut off is cut off at the end.
const PARTS: &[Part] = &[
    Part {
        name: "decode, batch 1 after 1k",
        model: "20b",
        arguments: &["-p", "1024", "-n", "256", "-r", "3"],
        field: "decode_tok_s",
        wanted: 700.0,
        published: "ONNX Runtime 382 (H200)",
    },
    Part {
        name: "prefill 2k",
        model: "20b",
        arguments: &["-p", "2048", "-n", "4", "-r", "3", "--chunk", "2048"],
        field: "prefill_tok_s",
        wanted: 40_000.0,
        published: "ONNX Runtime 29,400 (H200)",
    },
    Part {
        name: "decode, batch 256",
        model: "20b",
        arguments: &["-p", "64", "-n", "64", "-b", "256", "-r", "1"],
        field: "decode_tok_s",
        wanted: 20_000.0,
        published: "TensorRT-LLM 13,890 at its most (H200)",
    },
    Part {
        name: "decode, batch 1 after 1k",
        model: "120b",
        arguments: &["-p", "1024", "-n", "256", "-r", "3"],
        field: "decode_tok_s",
        wanted: 500.0,
        published: "8 x H100 SGLang 318",
    },
    Part {
        name: "decode, batch 64 after 1k",
        model: "120b",
        arguments: &["-p", "1024", "-n", "64", "-b", "64", "-r", "1", "--chunk", "2048"],
        field: "decode_tok_s",
        wanted: 3048.0,
        published: "TensorRT-LLM 22.5 ms a token, vLLM 23.6 (64 / 0.021 s = 3,048)",
    },
    Part {
        name: "decode, batch 256",
        model: "120b",
        arguments: &["-p", "64", "-n", "64", "-b", "256", "-r", "1"],
        field: "decode_tok_s",
        wanted: 7500.0,
        published: "TensorRT-LLM 6,868 at its most (H200)",
    },
    Part {
        name: "prefill 2k",
        model: "120b",
        arguments: &["-p", "2048", "-n", "4", "-r", "3", "--chunk", "2048"],
        field: "prefill_tok_s",
        wanted: 25_000.0,
        published: "",
    },
    Part {
        name: "AdamW, 2 layers of 8 experts",
        model: TRAINING,
        arguments: &[],
        field: "tok_s",
        wanted: 100_000.0,
        published: "a fifth of 790 TFLOP/s (H200)",
    },
];

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
    let models: Vec<&str> = settings.get("models").unwrap_or(&"20b,120b,train").split(',').collect();
    let mut known = read(&out);
    for part in PARTS.iter().filter(|part| models.contains(&part.model)) {
        let key = format!("{} {}", part.model, part.name);
        if !known.contains_key(&key) {
            let figure = if part.model == TRAINING { train(root, &program, part)? } else { measure(&program, part)? };
            append(&out, &key, figure)?;
            known.insert(key.clone(), figure);
        }
        let figure = known[&key];
        let verdict = if figure >= part.wanted { "holds" } else { "MISSES" };
        println!("{key:<32} {figure:>10.1} tok/s   wanted {:>8.0}   {verdict}   {}", part.wanted, part.published);
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

fn measure(program: &Path, part: &Part) -> Result<f64, String> {
    let mut command = Command::new(program);
    command.args(["bench", "--device", "cuda", "--json", "-m"]).arg(format!("synth:{}", part.model));
    let output = command.args(part.arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|e| format!("{}: {e}\n{USAGE}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let figure = match Json::read(text.trim().as_bytes()).as_ref().and_then(|json| json.get(part.field)) {
        Some(Json::Raw(digits)) => String::from_utf8_lossy(digits).parse().ok(),
        _ => None,
    };
    figure.ok_or_else(|| {
        format!("{} {}: bench ended with {} and no {}: {text}", part.model, part.name, output.status, part.field)
    })
}

/// Runs the recipe from its beginning; the first steps compile and load, the last one counts.
fn train(root: &Path, program: &Path, part: &Part) -> Result<f64, String> {
    let folder = root.join("target/gpu-report");
    let cleared = std::fs::remove_dir_all(&folder);
    cleared
        .or_else(|e| if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
        .map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut command = Command::new(program);
    command.arg("train").arg(root.join(RECIPE)).args(["--device", "cuda", "--json", "--out"]).arg(&folder);
    let status = command.args(part.arguments).stdin(Stdio::null()).stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(format!("{}: training ended with {status}", part.name)),
        Err(error) => return Err(format!("{}: {error}\n{USAGE}", program.display())),
    }
    let log = folder.join("metrics.jsonl");
    let text = std::fs::read_to_string(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let last = text.lines().last().unwrap_or_default();
    match Json::read(last.as_bytes()).as_ref().and_then(|json| json.get(part.field)) {
        Some(Json::Raw(digits)) => String::from_utf8_lossy(digits).parse().ok(),
        _ => None,
    }
    .ok_or_else(|| format!("{}: no {} in its last line", log.display(), part.field))
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
