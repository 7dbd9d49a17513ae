//! `ossia train --dry-run`, `check` and `plot`.

use std::path::{Path, PathBuf};

use super::program::{Place, RECIPE, assert_failed, object, ossia, stdout, text};

#[test]
fn a_dry_run_says_what_it_would_take_and_writes_nothing() {
    let place = Place::new();
    let (recipe, out) = (place.recipe(), place.run());
    let args = ["train", text(&recipe), "--out", text(&out), "--threads", "2", "--dry-run"];
    let said = ossia(&args);
    let lines: Vec<&str> = stdout(&said).lines().collect();
    for (line, begin) in lines.iter().zip(["parameters", "tokens", "arithmetic", "memory", "time", "in one day"]) {
        assert!(line.starts_with(begin), "{line}");
    }
    assert!(lines.len() == 6 && lines[3].contains("fits into"), "{lines:?}");
    let plan = object(&ossia(&[&args[..], &["--json"]].concat()));
    assert_eq!(plan["tokens"], 1600.0);
    let (parameters, state) = (plan["parameters"].as_f64().unwrap(), plan["state_bytes"].as_f64().unwrap());
    assert_eq!(state, 20.0 * parameters);
    for key in ["flops_per_token", "flops", "scratch_bytes", "available_bytes", "peak_flops", "expected_seconds"] {
        assert!(plan[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {plan}");
    }
    assert_eq!(std::fs::read_dir(place.path("")).unwrap().count(), 1, "the recipe alone is there");
    // What is planned is what is then trained.
    place.works();
    let header = std::fs::read(place.checkpoint(4).join("model.safetensors")).unwrap();
    let data = header.len() as u64 - 8 - u64::from_le_bytes(*header.first_chunk().unwrap());
    assert_eq!(data as f64, 4.0 * parameters);
}

#[test]
fn a_dry_run_of_the_largest_numbers() {
    let place = Place::new();
    place.change_recipe("steps = 4\nbatch_tokens = 400", "steps = 99999999\nbatch_tokens = 4294967296");
    let recipe = place.recipe();
    let plan = object(&ossia(&["train", text(&recipe), "--dry-run", "--json"]));
    assert!(plan["tokens"].as_f64().unwrap() > 4e17);
    assert!(stdout(&ossia(&["train", text(&recipe), "--dry-run"])).contains("years"));
}

#[test]
fn the_published_shape_can_be_planned() {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ossia-train/recipes/gpt-oss-20b.toml");
    let plan = object(&ossia(&["train", text(&recipe), "--dry-run", "--json"]));
    assert_eq!(plan["parameters"], 20_914_757_184u64);
    assert!(plan["state_bytes"].as_f64().unwrap() > 4e11);
    let said = ossia(&["train", text(&recipe), "--dry-run"]);
    assert!(stdout(&said).contains("20.9 G"), "{}", stdout(&said));
}

#[test]
fn pictures_of_a_run() {
    let place = Place::with_run();
    let (run, elsewhere) = (place.run(), place.path("pictures"));
    let said = object(&ossia(&["train", "plot", text(&run), "--json"]));
    assert_eq!(said["records"], 4);
    let files: Vec<PathBuf> = said["files"].as_array().unwrap().iter().map(|f| f.as_str().unwrap().into()).collect();
    assert!(!files.is_empty());
    for file in &files {
        let bytes = std::fs::read(file).unwrap();
        assert!(file.starts_with(run.join("plots")), "{}", file.display());
        match file.extension().unwrap().to_str().unwrap() {
            "png" => assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n")),
            "svg" => assert!(String::from_utf8(bytes).unwrap().trim_end().ends_with("</svg>")),
            other => panic!("{other}"),
        }
    }
    let drawn = ossia(&["train", "plot", text(&run), "--out", text(&elsewhere)]);
    assert!(stdout(&drawn).lines().count() > 5, "a picture in the terminal");
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), files.len());
}

#[test]
fn pictures_of_no_run() {
    let place = Place::new();
    let run = place.run();
    let fails = |parts: &[&str]| assert_failed(&ossia(&["train", "plot", text(&run), "--json"]), 1, parts);
    fails(&["metrics.jsonl", "cannot read the log"]);
    std::fs::create_dir(&run).unwrap();
    std::fs::write(run.join("metrics.jsonl"), "[]\n{}\n").unwrap();
    fails(&["metrics.jsonl:1", "wanted one record"]);
    std::fs::write(run.join("metrics.jsonl"), "").unwrap();
    fails(&["no record"]);
    let made = Place::with_run();
    let (run, file) = (made.run(), made.recipe());
    let plot = ossia(&["train", "plot", text(&run), "--json", "--out", text(&file)]);
    assert_failed(&plot, 1, &["micro.toml"]);
    assert_eq!(std::fs::read(&file).unwrap(), RECIPE.as_bytes());
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ossia-model/tests/data").join(name)
}

#[test]
fn gradients_are_held_to_a_golden_file() {
    let (model, golden) = (data("nano"), data("nano.train.safetensors"));
    let args = ["train", "check", "-m", text(&model), "--golden", text(&golden)];
    let said = object(&ossia(&[&args[..], &["--json"]].concat()));
    assert_eq!(said["holds"], true);
    let compared = said["compared"].as_array().unwrap();
    assert!(compared.len() >= 40 && compared.iter().all(|c| c["error"].as_f64().unwrap() <= 1e-5), "{said}");
    assert!(stdout(&ossia(&args)).contains("quantities, the worst:"));
}

#[test]
fn golden_files_that_do_not_hold() {
    let place = Place::new();
    let (model, file) = (data("nano"), place.path("golden.safetensors"));
    let args = ["train", "check", "-m", text(&model), "--golden", text(&file)];
    let whole = std::fs::read(data("nano.train.safetensors")).unwrap();
    let fails = |parts: &[&str]| assert_failed(&ossia(&args), 1, &[parts, &["golden.safetensors"]].concat());
    fails(&["cannot open"]);
    for length in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).unwrap();
        fails(&["wanted", "found"]);
    }
    for name in ["input_ids", "attention_mask", "labels", "grad.lm_head.weight"] {
        let quoted = format!("\"{name}\"");
        let at = whole.windows(quoted.len()).position(|part| part == quoted.as_bytes()).unwrap();
        let mut bytes = whole.clone();
        bytes[at + 1] = b'x';
        std::fs::write(&file, bytes).unwrap();
        fails(&[name, "wanted", "found none"]);
    }
    // A gradient's first number is another.
    let mut other = whole.clone();
    let header_end = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&whole[8..header_end]).unwrap();
    let at = header_end + header["grad.model.norm.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    other[at..at + 4].copy_from_slice(&1e3f32.to_le_bytes());
    std::fs::write(&file, &other).unwrap();
    let output = ossia(&[&args[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["holds"], false);
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(line.lines().count() == 1 && line.contains("grad.model.norm.weight is off by"), "{line}");
}
