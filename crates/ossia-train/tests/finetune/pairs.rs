//! Preferences: the gradient is that of the loss, the margin grows, the reference stays the base.

use std::path::Path;

use ossia_kernels::arena::Arena;
use ossia_kernels::cpu::isa::Isa;
use ossia_kernels::pool::Pool;
use ossia_kernels::{Precision, Runtime};
use ossia_model::gpt_oss::config::Config as ModelConfig;
use ossia_model::gpt_oss::forward::Transformer;
use ossia_model::gpt_oss::scratch::{self, LargestBatch};
use ossia_model::gpt_oss::tensors::{Dense, Reading};
use ossia_train::dataset::{BatchSettings, Batches, Document, Shard, VocabularyId, class};
use ossia_train::finetune::Config;
use ossia_train::finetune::dpo::Dpo;
use ossia_train::finetune::outcome::Method;
use ossia_train::finetune::subject::{self, Subject};
use ossia_train::finetune::tuner::Tuner;
use ossia_train::optimizer::Moments;
use serde_json::{Value, json};

use super::runs::assert_resumes;
use super::{Model, Place, word, write_lines};

const WEIGHTS: [f32; 5] = [0.0, 1.0, 1.0, 1.0, 1.0];

fn pair(index: usize) -> Value {
    let text = |text: String| json!([{ "role": "assistant", "content": text }]);
    json!({
        "input": { "messages": [{ "role": "user", "content": format!("Where is {}?", word(index)) }] },
        "preferred_output": text(format!("By {}.", word(index * 3))),
        "non_preferred_output": text(format!("No idea about {}.", word(index * 5))),
    })
}

/// Four pairs of documents of random tokens.
fn documents(vocab: usize) -> Vec<Document> {
    let mut state = 7u64;
    let mut next = |most: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % most
    };
    let mut documents = Vec::new();
    for _ in 0..4 {
        let prompt: Vec<u32> = (0..6 + next(9)).map(|_| next(vocab) as u32).collect();
        for _ in 0..2 {
            let answer: Vec<u32> = (0..3 + next(12)).map(|_| next(vocab) as u32).collect();
            let classes = [vec![class::CONTEXT; prompt.len()], vec![class::FINAL; answer.len()]].concat();
            documents.push(Document { tokens: [&prompt[..], &answer].concat(), classes });
        }
    }
    documents
}

fn tuner(model: &Model, toml: &str) -> Tuner {
    let config = Config::parse(toml, Path::new("f.toml")).unwrap();
    let pool = Pool::new(2);
    let reading = &mut Reading { dense: Dense::Kept, pool: &pool, isa: Isa::detect(), progress: &mut |_, _| {} };
    let base = Transformer::read(&model.checkpoint, &model.config, reading).unwrap();
    let base = subject::Base::Weights(Box::new(base));
    let subject = Subject::adapter(base, &model.config, &config.adapter_config(), 3);
    let training = config.training(&model.config, 1);
    let largest = LargestBatch { tokens: training.micro_tokens, threads: 2, recompute: true, adapter_rank: 4 };
    let arena = Arena::new(scratch::training_bytes(&model.config, largest));
    Tuner::new(training, subject, Runtime::on_cpu(pool, arena, Isa::detect(), Precision::F32))
}

/// The loss of the pairs along the gradient that an update was made of, against the slope that the gradient says.
#[test]
fn the_gradient_is_that_of_the_loss() {
    // Every token goes to every expert: where routes change, a loss has steps.
    let tiny = ModelConfig::preset("tiny", None).unwrap();
    let model = Model::of(ModelConfig { num_experts: tiny.experts_per_token, ..tiny });
    let toml = "[finetune]\nmethod = \"dpo\"\n[finetune.adapter]\nrank = 4\n\
                targets = [\"attention\", \"experts\", \"router\", \"unembedding\"]\n\
                [finetune.data]\nmax_len = 64\n[finetune.training]\nclip = 1e9\nmicro_tokens = 1024\n";
    let mut tuner = tuner(&model, toml);
    let documents = documents(model.config.vocab_size);
    let mut shard = Shard::new(VocabularyId::of(model.harmony.tokenizer()));
    documents.iter().for_each(|document| shard.push(document).unwrap());
    let settings = BatchSettings { seed: 1, max_len: 64, class_weights: WEIGHTS };
    let batches = Batches::new(vec![shard], settings).unwrap().in_groups(2).unwrap();
    let mut dpo = Dpo::new(batches, &documents, 64, &WEIGHTS, 0.5);
    // B is not zero, or A would have no gradient.
    let begin: Vec<f32> = (0..tuner.subject().values().len())
        .map(|at| tuner.subject().values()[at] + 0.02 * ((at * 2_654_435_761) % 1000) as f32 / 1000.0 - 0.01)
        .collect();
    let len = begin.len();
    tuner.restore(0, begin.clone(), Moments::new(len));
    let outcome = dpo.step(&mut tuner, 1e-30).unwrap();
    // The first moment of a first update is (1 - beta1) times the gradient.
    let gradient: Vec<f64> = tuner.moments().first.iter().map(|m| f64::from(*m) / 0.1).collect();
    let square: f64 = gradient.iter().map(|g| g * g).sum();
    assert!((square.sqrt() / outcome.grad_norm - 1.0).abs() < 1e-4, "{} {}", square.sqrt(), outcome.grad_norm);
    let mut loss_at = |direction: &[f64], far: f64| {
        let moved = begin.iter().zip(direction).map(|(v, d)| (f64::from(*v) + far * d) as f32).collect();
        tuner.restore(1, moved, Moments::new(len));
        dpo.measure(&mut tuner).unwrap().unwrap().loss
    };
    let begun = loss_at(&gradient, 0.0);
    assert!((outcome.loss - begun).abs() < 1e-12, "the same pairs: {} {begun}", outcome.loss);
    let tensors: Vec<_> = model_tensors(&model, toml);
    let mut looked_at = 0;
    let everything = std::iter::once((String::from("all"), 0..len)).chain(tensors);
    for (name, range) in everything {
        let slope: f64 = gradient[range.clone()].iter().map(|g| g * g).sum::<f64>().sqrt();
        let direction: Vec<f64> =
            (0..len).map(|at| if range.contains(&at) { gradient[at] / slope } else { 0.0 }).collect();
        let step = 1e-3;
        let measured = (loss_at(&direction, step) - loss_at(&direction, -step)) / (2.0 * step);
        // Losses carry errors of some 1e-6, which the step makes 0.001 of.
        let bound = 0.005 * slope + 1e-3;
        println!("{name}: {measured:.5} along the gradient, {slope:.5} by it");
        assert!((measured - slope).abs() < bound, "{name}: {measured} along the gradient, {slope} by it");
        looked_at += usize::from(slope > 0.1);
    }
    assert!(looked_at > 25, "{looked_at} tensors with slopes that can be seen");
}

fn model_tensors(model: &Model, toml: &str) -> Vec<(String, std::ops::Range<usize>)> {
    let tuner = tuner(model, toml);
    tuner.subject().tensors().iter().map(|p| (p.name.clone(), p.range.clone())).collect()
}

const PAIRS: &str = r#"
[finetune]
method = "dpo"
steps = 8
lr = 0.002
[finetune.adapter]
rank = 4
[finetune.data]
max_len = 384
[finetune.validation]
share = 0.2
every = 4
"#;

#[test]
fn the_margin_grows_and_begins_at_nothing() {
    let (model, dir) = (Model::nano(), tempfile::tempdir().unwrap());
    let (data, folder) = (dir.path().join("pairs.jsonl"), dir.path().join("run"));
    write_lines(&data, 60, pair);
    let place = Place { model: &model, data: &data, folder: &folder, threads: 2, stopping: false };
    let (_, header) = place.run(PAIRS);
    let log = place.log();
    // Before the first update the adapter changes nothing: no margin, a loss of ln 2, to the bit.
    let (first, last) = (&log[0], &log[8]);
    assert_eq!(first.valid_preference.unwrap().margin, 0.0);
    assert_eq!(first.valid_loss.unwrap(), std::f64::consts::LN_2);
    assert_eq!(log[1].preference.unwrap().margin, 0.0);
    let held_out = last.valid_preference.unwrap();
    println!("held out: margin {}, accuracy {}, loss {:?}", held_out.margin, held_out.accuracy, last.valid_loss);
    assert!(held_out.margin > 0.5 && held_out.accuracy >= 0.9 && last.valid_loss < first.valid_loss);
    assert!(header.held_out >= 4 && last.preference.unwrap().margin > 0.5);
}

#[test]
fn stops_change_no_bit_of_pairs() {
    let (model, dir) = (Model::random(), tempfile::tempdir().unwrap());
    let data = dir.path().join("pairs.jsonl");
    write_lines(&data, 24, pair);
    assert_resumes(&model, &data, &PAIRS.replace("steps = 8", "steps = 3"), 3);
}
