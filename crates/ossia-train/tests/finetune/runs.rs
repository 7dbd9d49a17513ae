//! Supervised runs: the loss before training, resumes, threads, early ends, whole models, and what is refused.

use std::path::Path;

use ossia_kernels::Precision;
use ossia_model::checkpoint::Checkpoint;
use ossia_model::gpt_oss::adapter::peft;
use ossia_model::kv_cache::Held;
use ossia_model::{Logits, Model as Engine, Options, Work};
use ossia_train::dataset::Document;
use ossia_train::finetune::Config;
use ossia_train::finetune::data::{self, DataSettings, Manner, OnBad, Validation};
use ossia_train::finetune::finder::Found;
use ossia_train::finetune::run::{Why, find};
use ossia_train::run::flops_per_token;
use serde_json::Value;

use super::{Model, PEAK_FLOPS, Place, Watching, chat, word, write_lines};

const SMALL: &str = r#"
[finetune]
steps = 6
[finetune.adapter]
rank = 4
targets = ["attention", "experts", "router", "unembedding"]
[finetune.data]
max_len = 384
[finetune.training]
micro_tokens = 768
batch_tokens = 1600
[finetune.validation]
share = 0.2
every = 3
[finetune.checkpoints]
every = 2
"#;

fn examples(file: &Path, count: usize) {
    write_lines(file, count, |index| chat(&format!("Where is {}?", word(index)), &format!("By {}.", word(index * 5))));
}

/// The documents that a run with these settings measures.
fn held_out(model: &Model, data: &Path, folder: &Path) -> Vec<Document> {
    let settings = DataSettings {
        format: data::Format::Auto,
        on_bad: OnBad::Fail,
        max_len: 384,
        validation: Validation::Share(0.2),
        validation_most: 500,
        seed: 1,
        manner: Manner::default(),
    };
    let files = [data.to_owned()];
    let prepared =
        data::prepare(&files, &settings, &model.harmony, folder, &mut |_| std::ops::ControlFlow::Continue(()));
    prepared.unwrap().expect("nobody breaks off").validation
}

/// Mean cross entropy of the learned tokens, from the inference engine's logits.
fn engine_loss(model: &Model, documents: &[Document], adapter: Option<&Path>) -> f64 {
    let options = Options {
        precision: Precision::F32,
        threads: 2,
        context: 512,
        logits_rows: 512,
        adapter_rank: 16,
        adapter_bytes: 1 << 26,
        ..Options::default()
    };
    let mut engine = Engine::load(&model.checkpoint, options, None, &mut |_, _| {}).unwrap();
    let slot = adapter.map(|folder| {
        let (parameters, values) = peft::load(folder, &model.config).unwrap();
        engine.attach(&parameters, &ossia_kernels::Floats::new(values)).unwrap()
    });
    let mut losses = Vec::new();
    for document in documents {
        let mut held = Held { adapter: slot, ..Held::default() };
        let tokens = &document.tokens[..document.tokens.len() - 1];
        let logits = engine.step(&mut [Work { held: &mut held, tokens, logits: Logits::All }]).unwrap();
        losses.extend(crate::learned_losses(document, &logits));
        engine.release(&mut held);
    }
    crate::mean(&losses)
}

#[test]
fn the_first_line_is_the_engines_loss_and_the_last_that_of_the_adapter() {
    for model in [Model::nano(), Model::random()] {
        let dir = tempfile::tempdir().unwrap();
        let (data, folder) = (dir.path().join("train.jsonl"), dir.path().join("run"));
        examples(&data, 80);
        let place = Place { model: &model, data: &data, folder: &folder, threads: 2, stopping: false };
        let (ended, header) = place.run(SMALL);
        let documents = held_out(&model, &data, &folder.join("data"));
        assert_eq!((ended.why, header.held_out), (Why::Complete, documents.len()));
        let log = place.log();
        assert_eq!((log[0].step, log[0].lr, log.len()), (0, 0.0, 7));
        let adapter = ended.finished.unwrap();
        for (record, adapter) in [(&log[0], None), (&log[6], Some(adapter.as_path()))] {
            let (got, want) = (record.valid_loss.unwrap(), engine_loss(&model, &documents, adapter));
            println!("step {}: {got} in training, {want} by the engine, {:.1e}", record.step, (got - want).abs());
            assert!((got - want).abs() <= 1e-5, "step {}: {got} {want}", record.step);
        }
        assert!(log[6].valid_loss < log[0].valid_loss, "{:?} {:?}", log[6].valid_loss, log[0].valid_loss);
        let numbers: u64 = header.trained.iter().map(|kind| kind.numbers).sum();
        let (parameters, values) = peft::load(&adapter, &model.config).unwrap();
        assert_eq!(
            (numbers, header.trained.iter().map(|k| k.tensors).sum()),
            (values.len() as u64, parameters.tensors().len())
        );
        // Every tensor has learned something.
        for p in parameters.tensors() {
            assert!(values[p.range.clone()].iter().any(|&v| v != 0.0), "{} is still zero", p.name);
        }
    }
}

/// What a run leaves, without what the clock says.
#[derive(PartialEq)]
struct Left {
    weights: Vec<u8>,
    moments: Vec<u8>,
    adapter: Vec<u8>,
    log: Vec<Value>,
}

impl Left {
    fn by(folder: &Path, steps: u64) -> Self {
        let last = folder.join(format!("checkpoints/step-{steps:08}"));
        let log = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
        let record = |line: &str| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            for key in ["tok_s", "flops_share", "elapsed_s", "peak_rss_bytes"] {
                assert!(record.as_object_mut().unwrap().remove(key).is_some(), "{key}");
            }
            record
        };
        Self {
            weights: std::fs::read(last.join("adapter_model.safetensors")).unwrap(),
            moments: std::fs::read(last.join("optimizer.safetensors")).unwrap(),
            adapter: std::fs::read(folder.join("adapter/adapter_model.safetensors")).unwrap(),
            log: log.lines().map(record).collect(),
        }
    }
}

/// Runs `toml` unbroken, and stopped after every step on changing numbers of threads: both leave the same bits.
pub(super) fn assert_resumes(model: &Model, data: &Path, toml: &str, steps: u64) {
    let dir = tempfile::tempdir().unwrap();
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    let place = |folder, threads, stopping| Place { model, data, folder, threads, stopping };
    place(&whole, 2, false).run(toml);
    let mut starts = 0;
    loop {
        let (ended, header) = place(&broken, [1, 2, 3][starts as usize % 3], true).run(toml);
        assert_eq!(header.step, starts);
        starts += 1;
        assert_eq!(ended.step, starts);
        if ended.finished.is_some() {
            break;
        }
    }
    assert_eq!(starts, steps);
    let (got, want) = (Left::by(&broken, steps), Left::by(&whole, steps));
    assert_eq!(got.log, want.log);
    assert!(got == want, "adapter or moments differ");
    // A finished run is left as it is.
    let (ended, _) = place(&whole, 1, false).run(toml);
    assert!(ended.finished.is_some() && ended.step == steps && Left::by(&whole, steps) == want);
}

#[test]
fn stops_and_threads_change_no_bit() {
    let (model, dir) = (Model::random(), tempfile::tempdir().unwrap());
    let data = dir.path().join("train.jsonl");
    examples(&data, 60);
    assert_resumes(&model, &data, SMALL, 6);
}

/// The share of the machine counts documents as long as they are, not as long as they may be.
#[test]
fn arithmetic_is_counted_of_documents_as_they_are() {
    let (model, dir) = (Model::random(), tempfile::tempdir().unwrap());
    let (data, folder) = (dir.path().join("train.jsonl"), dir.path().join("run"));
    examples(&data, 60);
    let place = Place { model: &model, data: &data, folder: &folder, threads: 2, stopping: false };
    place.run(SMALL);
    let longest = held_out(&model, &data, &folder.join("data")).iter().map(|d| d.tokens.len() + 8).max().unwrap();
    let frozen = 2.0 * model.config.param_counts().active as f64;
    let of = |length: usize| flops_per_token(&model.config, length) - frozen;
    assert!(longest < 384 && of(longest) < of(384), "{longest}");
    for record in &place.log()[1..] {
        let found = record.flops_share * PEAK_FLOPS / record.tok_s;
        assert!(found > of(1) && found < of(longest), "{found}: {} to {}", of(1), of(longest));
    }
}

#[test]
fn recomputing_and_smaller_micro_batches_keep_their_promises() {
    let (model, dir) = (Model::random(), tempfile::tempdir().unwrap());
    let data = dir.path().join("train.jsonl");
    examples(&data, 60);
    let run = |name: &str, toml: &str| {
        let folder = dir.path().join(name);
        Place { model: &model, data: &data, folder: &folder, threads: 2, stopping: false }.run(toml);
        Left::by(&folder, 6)
    };
    let twice = run("twice", SMALL);
    let kept = run("kept", &SMALL.replace("[finetune.training]", "[finetune.training]\nrecompute = false"));
    assert!(twice == kept, "computing blocks twice changes no bit");
}

#[test]
fn a_run_that_gets_no_better_ends_with_its_best_adapter() {
    let (model, dir) = (Model::random(), tempfile::tempdir().unwrap());
    let (data, folder) = (dir.path().join("train.jsonl"), dir.path().join("run"));
    examples(&data, 60);
    let toml = SMALL.replace("steps = 6", "steps = 60\nlr = 0.3").replace("every = 3", "every = 1\npatience = 2");
    let place = Place { model: &model, data: &data, folder: &folder, threads: 2, stopping: false };
    let (ended, _) = place.run(&toml);
    let valid: Vec<f64> = place.log().iter().map(|r| r.valid_loss.unwrap()).collect();
    assert!(ended.why == Why::Patience && ended.step < 60, "{:?} {valid:?}", ended.why);
    let best = (0..valid.len()).min_by(|&a, &b| valid[a].total_cmp(&valid[b])).unwrap();
    assert_eq!((ended.chosen, ended.step), (best as u64, best as u64 + 2), "{valid:?}");
    let documents = held_out(&model, &data, &folder.join("data"));
    let got = engine_loss(&model, &documents, ended.finished.as_deref());
    assert!((got - valid[best]).abs() <= 1e-5, "{got} {}", valid[best]);
    // It has ended for good.
    let (again, _) = place.run(&toml);
    assert_eq!((again.why, again.step, again.chosen), (Why::Patience, ended.step, ended.chosen));
}

#[test]
fn a_whole_model_learns_and_is_a_model() {
    let (model, dir) = (Model::random(), tempfile::tempdir().unwrap());
    let (data, folder) = (dir.path().join("train.jsonl"), dir.path().join("run"));
    examples(&data, 60);
    let toml = SMALL.replace("[finetune]", "[finetune]\nmethod = \"full\"\nlr = 0.002");
    let place = Place { model: &model, data: &data, folder: &folder, threads: 2, stopping: false };
    let (ended, header) = place.run(&toml);
    let numbers: u64 = header.trained.iter().map(|kind| kind.numbers).sum();
    assert_eq!(u128::from(numbers), model.config.param_counts().total);
    let (log, documents) = (place.log(), held_out(&model, &data, &folder.join("data")));
    let (first, last) = (log[0].valid_loss.unwrap(), log[6].valid_loss.unwrap());
    assert!(last < first - 0.5, "{first} {last}");
    assert!((first - engine_loss(&model, &documents, None)).abs() <= 1e-5);
    let trained = Model { checkpoint: Checkpoint::open(&ended.finished.unwrap()).unwrap(), ..Model::random() };
    let got = engine_loss(&trained, &documents, None);
    assert!((got - last).abs() <= 1e-5, "{got} {last}");
}

#[test]
fn numbers_that_break_are_named_and_never_saved() {
    let (model, dir) = (Model::random(), tempfile::tempdir().unwrap());
    let (data, folder) = (dir.path().join("train.jsonl"), dir.path().join("run"));
    examples(&data, 60);
    let place = Place { model: &model, data: &data, folder: &folder, threads: 2, stopping: false };
    let error = place.try_run(&SMALL.replace("steps = 6", "steps = 6\nlr = 1e38")).unwrap_err().to_string();
    assert!(error.contains("is not finite") && error.contains("lora_"), "{error}");
    let saved = std::fs::read_dir(folder.join("checkpoints")).unwrap().flatten();
    for folder in saved.map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let (_, values) = peft::load(&folder, &model.config).unwrap();
        assert!(values.iter().all(|v| v.is_finite()), "{}", folder.display());
    }
}

#[test]
fn another_base_or_configuration_does_not_go_on() {
    let (model, dir) = (Model::random(), tempfile::tempdir().unwrap());
    let (data, folder) = (dir.path().join("train.jsonl"), dir.path().join("run"));
    examples(&data, 60);
    Place { model: &model, data: &data, folder: &folder, threads: 2, stopping: true }.run(SMALL);
    let other =
        Model { checkpoint: ossia_model::gpt_oss::synth::checkpoint(&model.config, 2).unwrap(), ..Model::random() };
    let place = |model, data| Place { model, data, folder: &folder, threads: 2, stopping: false };
    let error = place(&other, &data).try_run(SMALL).unwrap_err().to_string();
    assert!(error.contains("base was"), "{error}");
    let error = place(&model, &data).try_run(&SMALL.replace("rank = 4", "rank = 8")).unwrap_err().to_string();
    assert!(error.contains("finetune.adapter.rank was 4, f.toml has 8"), "{error}");
    let others = dir.path().join("others.jsonl");
    examples(&others, 61);
    assert!(place(&model, &others).try_run(SMALL).is_err(), "other data");
    assert_eq!(place(&model, &data).run(SMALL).0.step, 6);
}

#[test]
fn lengths_that_do_not_fit_are_refused_by_name() {
    let (model, dir) = (Model::random(), tempfile::tempdir().unwrap());
    let (data, folder) = (dir.path().join("train.jsonl"), dir.path().join("run"));
    examples(&data, 10);
    let place = Place { model: &model, data: &data, folder: &folder, threads: 2, stopping: false };
    let fail = |toml: &str| place.try_run(toml).unwrap_err().to_string();
    let long = format!("[finetune.data]\nmax_len = {}", model.config.max_context + 1);
    assert!(fail(&long).contains("finetune.data.max_len: wanted at most the model's context"));
    let pairs = "[finetune]\nmethod = \"dpo\"\n[finetune.data]\nformat = \"chat\"";
    assert!(fail(pairs).contains("finetune.data.format: wanted a form of data for dpo, found chat"));
    assert!(fail("[finetune.adapter]\ntargets = [\"q_proj\"]").contains("adapter.targets: wanted some of"));
}

#[test]
fn a_learning_rate_is_found() {
    let (model, dir) = (Model::nano(), tempfile::tempdir().unwrap());
    let (data, folder) = (dir.path().join("train.jsonl"), dir.path().join("run"));
    examples(&data, 60);
    let place = Place { model: &model, data: &data, folder: &folder, threads: 2, stopping: false };
    let config = Config::parse("[finetune.data]\nmax_len = 384", Path::new("f.toml")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut watching = Watching { stop: &stop, always: false, header: None };
    let files = [data.clone()];
    let Found { tried, best } = find(&place.job(&config, &files, &stop), 24, &mut watching).unwrap().unwrap();
    let usual = f64::from(watching.header.unwrap().training.lr);
    let best = best.unwrap();
    println!("{best:.1e} where {usual:.1e} is usual, {} rates", tried.len());
    assert!(tried.len() > 8 && best > usual / 100.0 && best < usual * 100.0, "{best} {usual}");
    assert!(!folder.join("checkpoints").exists(), "nothing is kept");
}
