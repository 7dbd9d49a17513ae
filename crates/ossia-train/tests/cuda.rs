//! A recipe on a GPU: its gradients and losses beside the processor's, and a run that is broken off goes on to the same bits.
//!
//! Without a GPU each test says that it was skipped; `cargo xtask cuda-emulate` runs them under a driver of our own.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ossia_kernels::cuda::{Device, Gpu, InMemory};
use ossia_model::gpt_oss::config::Config;
use ossia_train::metrics::Record;
use ossia_train::recipe::Recipe;
use ossia_train::run::{self, Ended, Settings, Watcher};

const TINY: &str = r#"
name = "tiny"
seed = 3

[model]
num_hidden_layers = 2
hidden_size = 64
intermediate_size = 32
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 16
num_local_experts = 4
num_experts_per_tok = 2
sliding_window = 16
max_position_embeddings = 256
rope_theta = 150000.0
rope_scaling = { rope_type = "yarn", factor = 4.0, original_max_position_embeddings = 64 }

[data]
source = "generated"
documents = 200
vocabulary = 300
max_len = 160
weights = { context = 0.05 }

[training]
steps = 8
batch_tokens = 700
micro_tokens = 320
optimizer = "muon"
lr = 0.02
schedule = "wsd"
warmup = 0.2
decay = 0.4
weight_decay = 0.05
aux_loss = [0.01, 0.001]
router_z_loss = 0.0001
z_loss = 0.0001

[quantize]
from = 0.5

[checkpoints]
every = 3

[validation]
every = 4
documents = 10
"#;

fn recipe(optimizer: &str, recompute: bool) -> Recipe {
    let text = TINY.replace("\"muon\"", &format!("\"{optimizer}\"\nrecompute = {recompute}"));
    // At Muon's rate AdamW's losses rise and fall, and any rounding is another run.
    let text = if optimizer == "adamw" { text.replace("lr = 0.02", "lr = 0.004") } else { text };
    Recipe::parse(&text, Path::new("tiny.toml")).unwrap()
}

/// A GPU of its own for each run.
fn device() -> Option<Device> {
    match Gpu::open_for_training(0, &InMemory) {
        Ok(gpu) => Some(Device::Cuda(gpu)),
        Err(error) if std::env::var("OSSIA_CUDA_TESTS").is_ok_and(|v| v == "required") => panic!("{error}"),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

/// Keeps what is logged; raises the flag after every so many steps, where it is told to.
struct Seen<'a> {
    stop: &'a AtomicBool,
    pause: Option<u64>,
    records: Vec<Record>,
}

impl Watcher for Seen<'_> {
    fn preparing(&mut self, _: &str, _: u64, _: u64) {}
    fn begins(&mut self, _: u64, _: u64, _: &Config) {}
    fn stepped(&mut self, record: &Record) {
        self.stop.store(self.pause.is_some_and(|every| record.step.is_multiple_of(every)), Ordering::Relaxed);
        self.records.push(record.clone());
    }
    fn saved(&mut self, _: &Path) {}
}

fn run(recipe: &Recipe, folder: &Path, device: &Device, pause: Option<u64>) -> (Ended, Vec<Record>) {
    let stop = AtomicBool::new(false);
    let settings = Settings { folder, device, threads: 2, peak_flops: 0.0, stop: &stop, memory: None, peak_rss: &|| 0 };
    let mut seen = Seen { stop: &stop, pause, records: Vec::new() };
    let ended = run::run(recipe, &settings, &mut seen).unwrap();
    (ended, seen.records)
}

/// The files of a checkpoint that hold numbers.
fn numbers(checkpoint: &Path) -> [Vec<u8>; 2] {
    ["model.safetensors", "optimizer.safetensors"].map(|file| std::fs::read(checkpoint.join(file)).unwrap())
}

fn losses(records: &[Record]) -> Vec<f64> {
    records.iter().map(|record| record.loss).collect()
}

/// Both phases, micro batches, validation: losses near the processor's, which fall; another run, and one in pieces, the same bits.
#[test]
fn runs_are_the_processors_and_repeat() {
    for (optimizer, recompute) in [("muon", false), ("adamw", true)] {
        let recipe = recipe(optimizer, recompute);
        let folder = || tempfile::tempdir().unwrap();
        let (on_cpu, whole, pieces) = (folder(), folder(), folder());
        let Some(gpu) = device() else { return };
        let (_, want) = run(&recipe, on_cpu.path(), &Device::Cpu, None);
        let (ended, got) = run(&recipe, whole.path(), &gpu, None);
        drop(gpu);
        let worst = losses(&want).iter().zip(losses(&got)).map(|(w, g)| (w - g).abs() / w).fold(0.0, f64::max);
        println!(
            "{optimizer}: {:.3?} on the processor, {:.3?} on the GPU, worst {worst:.1e}",
            losses(&want),
            losses(&got)
        );
        assert!(worst <= 1e-2, "{optimizer}: losses differ by {worst:.2e}");
        assert!(got.last().unwrap().loss < 0.95 * got[0].loss, "{optimizer}: the loss falls");
        let valid = |records: &[Record]| records.iter().filter_map(|r| r.valid_loss).collect::<Vec<f64>>();
        for (want, got) in valid(&want).iter().zip(valid(&got)) {
            assert!((want - got).abs() <= 1e-2 * want, "{optimizer}: held out {want} and {got}");
        }
        let mut last = None;
        let mut records = Vec::new();
        while last.as_ref().is_none_or(|ended: &Ended| !ended.complete) {
            let Some(gpu) = device() else { return };
            let (ended, some) = run(&recipe, pieces.path(), &gpu, Some(3));
            records.extend(some);
            last = Some(ended);
        }
        assert_eq!(losses(&records), losses(&got), "{optimizer}: in pieces");
        let norms = |records: &[Record]| records.iter().map(|r| r.grad_norm).collect::<Vec<f64>>();
        assert_eq!(norms(&records), norms(&got), "{optimizer}: in pieces");
        let pieces = numbers(&last.unwrap().checkpoint);
        assert!(pieces == numbers(&ended.checkpoint), "{optimizer}: in pieces, the same bits");
    }
}

/// The error of a run.
fn broken(recipe: &Recipe, device: &Device) -> String {
    let (folder, stop) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
    let folder = folder.path();
    let settings = Settings { folder, device, threads: 1, peak_flops: 0.0, stop: &stop, memory: None, peak_rss: &|| 0 };
    let mut seen = Seen { stop: &stop, pause: None, records: Vec::new() };
    run::run(recipe, &settings, &mut seen).err().unwrap().to_string()
}

/// What does not fit is said before anything is taken.
#[test]
fn what_does_not_fit_is_refused() {
    let Some(gpu) = device() else { return };
    let mut recipe = recipe("adamw", false);
    recipe.training.micro_tokens = 1 << 40;
    let error = broken(&recipe, &gpu);
    assert!(error.contains("GB of the GPU's memory") && error.contains("training.micro_tokens"), "{error}");
}

/// Numbers that break are named as on the processor, and nothing that was saved holds them.
#[test]
fn what_breaks_is_named() {
    for (optimizer, decay) in [("adamw", 0.05), ("muon", 1e38)] {
        let Some(gpu) = device() else { return };
        let mut recipe = recipe(optimizer, false);
        (recipe.training.lr, recipe.training.weight_decay) = (1e38, decay);
        let (want, got) = (broken(&recipe, &Device::Cpu), broken(&recipe, &gpu));
        assert_eq!(got, want);
        assert!(got.contains("is not finite"), "{got}");
    }
}
