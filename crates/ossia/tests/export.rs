//! `ossia export`, end to end: what it writes runs, what it says is true, and what it cannot do is one line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ossia_model::checkpoint::Checkpoint;
use ossia_model::gpt_oss::adapter::{AdapterConfig, AdapterParameters, ExpertSharing, Targets, peft};
use ossia_model::gpt_oss::config::Config;
use serde_json::Value;

fn ossia(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ossia"));
    command.args(args).env_remove("OSSIA_MODEL").output().expect("the program runs")
}

/// The run must succeed; what it printed.
#[track_caller]
fn stdout(args: &[&str]) -> String {
    let output = ossia(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("stdout is UTF-8")
}

/// The run must fail with `status` and one line on stderr that holds every part.
#[track_caller]
fn fails(args: &[&str], status: i32, parts: &[&str]) {
    let output = ossia(args);
    let line = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), line.lines().count()), (Some(status), 1), "{line}");
    parts.iter().for_each(|part| assert!(line.contains(part), "no {part:?} in: {line}"));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the tests' own paths are plain")
}

fn answer(model: &str) -> String {
    stdout(&["run", "-m", model, "--precision", "f32", "-n", "12", "--seed", "1", "hello"])
}

fn nano() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ossia-model/tests/data/nano")
}

#[test]
fn what_is_exported_answers_as_its_source() {
    let dir = tempfile::tempdir().unwrap();
    let want = answer("synth:tiny");
    let places = [("mxfp4", dir.path().join("packed")), ("bf16", dir.path().join("floats"))];
    let gguf = ("gguf", dir.path().join("model.gguf"));
    for (format, out) in places.iter().chain([&gguf]) {
        let line = stdout(&["export", "-m", "synth:tiny", "--format", format, "--out", text(out), "--json"]);
        let said: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&said["format"], &said["tokenizer"], &said["files"]), (&(*format).into(), &true.into(), &1.into()));
        assert_eq!(said["rounded"], serde_json::json!([]));
        assert_eq!(answer(text(out)), want, "{format}");
    }
    // And on from there, tokenizer and template included.
    let (packed, again) = (text(&places[0].1), dir.path().join("again.gguf"));
    let template = |folder: &Path| folder.join("chat_template.jinja");
    std::fs::write(template(&places[0].1), "{{ messages }}").unwrap();
    stdout(&["export", "-m", packed, "--format", "gguf", "--dense", "f32", "--out", text(&again), "--json"]);
    assert_eq!(answer(text(&again)), want);
    // And back from a file to a folder.
    let back = dir.path().join("back");
    let line = stdout(&["export", "-m", text(&again), "--format", "mxfp4", "--out", text(&back), "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["tokenizer"], true);
    assert_eq!(answer(text(&back)), want);
    assert_eq!(std::fs::read_to_string(template(&back)).unwrap(), "{{ messages }}");
}

/// Many programs know more ways of cutting words: the weights are exported, and what is missing is said.
#[test]
fn a_gguf_whose_tokenizer_is_not_known_is_exported_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("model.gguf"), dir.path().join("folder"));
    stdout(&["export", "-m", "synth:tiny", "--format", "gguf", "--out", text(&file), "--json"]);
    let mut bytes = std::fs::read(&file).unwrap();
    let pre = b"tokenizer.ggml.pre";
    let at = bytes.windows(pre.len()).position(|window| window == pre).unwrap() + pre.len() + 12;
    assert_eq!(&bytes[at..at + 6], b"gpt-4o");
    bytes[at..at + 6].copy_from_slice(b"gpt-5o");
    std::fs::write(&file, bytes).unwrap();
    let output = ossia(&["export", "-m", text(&file), "--format", "bf16", "--out", text(&out)]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("no tokenizer was written: "), "{said}");
    assert!(said.contains("model.gguf") && said.contains("tokenizer.ggml.pre is \"gpt-5o\""), "{said}");
    assert!(out.join("config.json").is_file() && !out.join("tokenizer.json").exists());
}

#[test]
fn the_report_says_what_was_rounded_and_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (nano, out) = (nano(), dir.path().join("x.gguf"));
    let args = ["export", "-m", text(&nano), "--format", "gguf", "--out", text(&out)];
    let report = |more: &[&str]| String::from_utf8(ossia(&[&args[..], more].concat()).stderr).unwrap();
    let exact = report(&[]);
    for part in ["x.gguf: 41 tensors", "1 file", "every value is exactly the source's", "no tokenizer was written"] {
        assert!(exact.contains(part), "{exact}");
    }
    let rounded = report(&["--dense", "q8_0"]);
    assert!(rounded.contains("Q8_0: ") && rounded.contains("values rounded"), "{rounded}");
}

#[test]
fn what_cannot_be_is_said_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let (nano, file) = (nano(), dir.path().join("file"));
    std::fs::write(&file, "mine").unwrap();
    let export = |format, out| ["export", "-m", text(&nano), "--format", format, "--out", out];
    fails(&export("mxfp4", text(&file)), 1, &["file", "cannot create"]);
    fails(&export("gguf", text(&file)), 1, &["file of another kind"]);
    fails(&export("mxfp4", text(&nano)), 1, &["another place than the model's own"]);
    let dense = [&export("bf16", text(&file))[..], &["--dense", "f32"]].concat();
    fails(&dense, 2, &["--dense goes with --format gguf"]);
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    assert_eq!(ossia(&export("q4_k_m", text(&file))).status.code(), Some(2));
}

#[test]
fn the_carried_model_answers_the_same_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, gguf) = (dir.path().join("folder"), dir.path().join("nano.gguf"));
    let ask = |model: &str| stdout(&["run", "-m", model, "--precision", "f32", "-n", "200", "What is 48 + 274?"]);
    let want = ask("nano");
    for (format, out) in [("mxfp4", &folder), ("gguf", &gguf)] {
        stdout(&["export", "-m", "nano", "--format", format, "--out", text(out), "--json"]);
        if format == "mxfp4" {
            assert_eq!(ask(text(out)), want, "sampled as little as the carried one");
        }
        let greedy = ["run", "--greedy", "-m", text(out), "--precision", "f32", "-n", "200", "What is 48 + 274?"];
        assert_eq!(stdout(&greedy), want, "{format}");
    }
}

#[test]
fn a_model_is_replaced_only_by_force() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model");
    let synth = ["synth", "--preset", "nano", "--json", "--out", text(&out)];
    let export = ["export", "-m", "nano", "--format", "bf16", "--json", "--out", text(&out)];
    stdout(&synth);
    for args in [&synth[..], &export] {
        fails(args, 1, &["holds a model already", "config.json", "--force"]);
    }
    stdout(&[&synth[..], &["--force"]].concat());
    stdout(&[&export[..], &["--force"]].concat());
}

/// An adapter of the carried model whose B are at most `size`.
fn adapter(folder: &Path, size: f32) {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano");
    let config = Config::from_checkpoint(&Checkpoint::open(&model).unwrap()).unwrap();
    let targets =
        Targets { attention: true, router: true, unembedding: true, experts: Some(ExpertSharing::SharedOuter) };
    let parameters = AdapterParameters::of(&config, &AdapterConfig { rank: 4, alpha: 8.0, targets });
    let mut values = parameters.init(1);
    for tensor in parameters.tensors().iter().filter(|t| t.name.ends_with("lora_B.weight")) {
        let noise = |i: usize| ((i * 2_654_435_761) % 1_000_003) as f32 / 500_001.5 - 1.0;
        tensor.range.clone().for_each(|i| values[i] = size * noise(i));
    }
    peft::save(folder, &parameters, &values, "nano").unwrap();
}

#[test]
fn an_adapter_is_merged_measured_and_refused_where_too_much_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (folder, floats, file, exact) = (path("adapter"), path("floats"), path("packed.gguf"), path("exact"));
    adapter(&folder, 0.06);
    let merge = |format, out: &Path, more: &[&str]| {
        let args =
            ["export", "-m", "nano", "--adapter", text(&folder), "--format", format, "--out", text(out), "--json"];
        ossia(&[&args[..], more].concat())
    };
    for (format, out, most) in [("bf16", &floats, 1e-2), ("gguf", &file, 0.1), ("f32", &exact, 1e-6)] {
        let output = merge(format, out, &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let kl = said["merge"]["mean_kl"].as_f64().unwrap();
        assert!(kl.abs() > 0.0 && kl < most, "{said}");
        // A merged model answers as base and adapter do only where nothing is rounded, and says so elsewhere.
        let relative = said["merge"]["relative_delta"].as_f64().unwrap();
        assert_eq!(relative <= 1e-3, format == "f32", "{said}");
        assert_eq!(said["rounded"] == serde_json::json!([]), format == "f32", "{said}");
        assert!(said["merge"]["base"]["mean_kl"].as_f64().unwrap() > kl, "{said}");
        assert!(said["merge"]["tokens"].as_u64().unwrap() > 100, "{said}");
        answer(text(out));
    }
    for (format, name) in [("mxfp4", "packed"), ("gguf", "refused.gguf")] {
        let out = path(name);
        let output = merge(format, &out, &["--max-kl", "1e-9"]);
        let line = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), line.lines().count()), (Some(1), 1), "{line}");
        assert!(line.contains("nothing was kept") && line.contains("--max-kl"), "{line}");
        assert!(!out.is_file() && Checkpoint::open(&out).is_err());
    }
    let missing = path("none");
    let args = ["export", "-m", "nano", "--adapter", text(&missing), "--format", "bf16", "--out", text(&missing)];
    fails(&args, 1, &["adapter_config.json", "none"]);
    fails(
        &["export", "-m", "synth:tiny", "--adapter", text(&folder), "--format", "bf16", "--out", text(&missing)],
        1,
        &["shape"],
    );
}
