//! A whole model on a GPU beside the processor in f32, in both directions, and the order of sums: a token's bits do not depend on
//! chunks or company.
//!
//! Without a GPU there is nothing to compare, and the tests say so. `cargo xtask cuda-emulate` runs them with the kernels
//! compiled for the processor; with OSSIA_CUDA_TESTS=required a missing GPU is a failure.

mod common;

use std::path::Path;

use common::{bits, data, options, prompt, run};
use ossia_kernels::arena::Arena;
use ossia_kernels::cpu::isa::Isa;
use ossia_kernels::cuda::{Device, Gpu, InMemory};
use ossia_kernels::kv::PageTable;
use ossia_kernels::ops::cross_entropy::Targets;
use ossia_kernels::ops::sample::argmax;
use ossia_kernels::ops::stored::{self, Form};
use ossia_kernels::pool::Pool;
use ossia_kernels::{Floats, Precision, Runtime};
use ossia_model::checkpoint::Checkpoint;
use ossia_model::gpt_oss::adapter::{self, AdapterConfig, AdapterParameters, ExpertSharing};
use ossia_model::gpt_oss::backward::Batch;
use ossia_model::gpt_oss::balance::Balancing;
use ossia_model::gpt_oss::config::Config;
use ossia_model::gpt_oss::forward::Transformer;
use ossia_model::gpt_oss::parameters::Parameters;
use ossia_model::gpt_oss::scratch::{LargestBatch, gpu_training_bytes, training_bytes};
use ossia_model::gpt_oss::synth;
use ossia_model::gpt_oss::tensors::{Dense, Reading};
use ossia_model::kv_cache::Held;
use ossia_model::{Logits, Model, Options, Paged, Work};

/// A device of its own for each model, or nothing where there is none.
fn device() -> Option<Device> {
    opened(Gpu::open(0, &InMemory))
}

fn opened(gpu: ossia_kernels::Result<std::sync::Arc<Gpu>>) -> Option<Device> {
    match gpu {
        Ok(gpu) => Some(Device::Cuda(gpu)),
        Err(error) if std::env::var("OSSIA_CUDA_TESTS").is_ok_and(|v| v == "required") => panic!("{error}"),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

fn load(checkpoint: &Checkpoint, device: Device, context: usize) -> Model {
    let options = Options {
        device,
        sequences: 80,
        chunk: context,
        logits_rows: context,
        context,
        kv_tokens: Some(64 * 80),
        ..options(Precision::F32, 2)
    };
    Model::load(checkpoint, options, None, &mut |_, _| {}).unwrap()
}

/// Root mean square of the difference, as a share of the values'.
fn rms(got: &[f32], want: &[f32]) -> f64 {
    let square = |v: f64| v * v;
    let difference: f64 = got.iter().zip(want).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    let all: f64 = want.iter().map(|&v| square(f64::from(v))).sum();
    (difference / all).sqrt()
}

/// Median over tokens of the difference to the processor's logits: one token that goes to another expert moves by a lot.
fn median(got: &[f32], want: &[f32], vocab: usize) -> f64 {
    let mut each: Vec<f64> = got.chunks_exact(vocab).zip(want.chunks_exact(vocab)).map(|(a, b)| rms(a, b)).collect();
    each.sort_by(f64::total_cmp);
    each[each.len() / 2]
}

#[test]
fn logits_are_those_of_the_processor() {
    let mini = synth::checkpoint(&Config::preset("mini", None).unwrap(), 3).unwrap();
    let nano = Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano")).unwrap();
    let gguf = Checkpoint::open(&data("tiny/model.gguf")).unwrap();
    for (name, checkpoint, len) in [("nano", nano, 90), ("tiny gguf", gguf, 90), ("mini", mini, 300)] {
        let Some(device) = device() else { return };
        let prompt = [prompt(1, len)];
        let want = run(&mut load(&checkpoint, Device::Cpu, len), &prompt, len);
        let mut model = load(&checkpoint, device, len);
        let got = run(&mut model, &prompt, len);
        let (all, median) = (rms(&got[0], &want[0]), median(&got[0], &want[0], model.config().vocab_size));
        println!("{name}: rms of the difference {all:.2e}, median over tokens {median:.2e}");
        assert!(median <= 1e-2, "{name}: median over tokens {median:.2e}");
    }
}

/// The best tokens are known before any logits are copied, and are those of the logits, at prompts and in replayed steps.
#[test]
fn best_tokens_are_those_of_the_logits() {
    let nano = Checkpoint::open(&data("nano")).unwrap();
    let Some(device) = device() else { return };
    let mut model = load(&nano, device, 64);
    let tokens = prompt(3, 20);
    let table = PageTable { first: 0, pages: vec![0] };
    for (start, count) in [(0, 8), (8, 1), (9, 1), (10, 1), (11, 9)] {
        let paged = Paged {
            full: &table,
            sliding: &table,
            adapter: None,
            start,
            tokens: &tokens[start..start + count],
            logits: Logits::All,
        };
        let logits = model.step_paged(&[paged]).unwrap();
        let best: Vec<_> = (0..count).map(|row| logits.best(row)).collect();
        let rows: Vec<Vec<f32>> = (0..count).map(|row| logits.row(row).unwrap().to_vec()).collect();
        assert!(best.iter().all(Option::is_some));
        assert_eq!(best, rows.iter().map(|row| argmax(row)).collect::<Vec<_>>(), "from {start} on");
        assert_eq!(logits.into_host().unwrap().host(), rows.concat(), "from {start} on");
    }
}

#[test]
fn chunks_and_batches_do_not_change_a_bit() {
    let mini = synth::checkpoint(&Config::preset("mini", None).unwrap(), 3).unwrap();
    for (name, checkpoint, len) in [("nano", Checkpoint::open(&data("nano")).unwrap(), 90), ("mini", mini, 300)] {
        let Some(device) = device() else { return };
        let mut model = load(&checkpoint, device, 640);
        let sequences: Vec<Vec<u32>> = (0..2).map(|s| prompt(s, len - 17 * s)).collect();
        let alone: Vec<Vec<f32>> =
            sequences.iter().map(|s| run(&mut model, std::slice::from_ref(s), len).remove(0)).collect();
        for chunk in [1, 7, 20, 40, 64, 100] {
            for (got, want) in run(&mut model, &sequences, chunk).iter().zip(&alone) {
                assert!(bits(got) == bits(want), "{name}: two together, chunks of {chunk}");
            }
        }
        let many: Vec<Vec<u32>> = (0..64).map(|s| prompt(s, 8)).collect();
        let first: Vec<Vec<f32>> =
            many.iter().take(3).map(|s| run(&mut model, std::slice::from_ref(s), 3).remove(0)).collect();
        for (got, want) in run(&mut model, &many, 1).iter().zip(&first) {
            assert!(bits(got) == bits(want), "{name}: sixty-four together");
        }
    }
}

/// Logits of all positions of sequences with their adapters, fed side by side in chunks.
fn adapted(model: &mut Model, sequences: &[(Vec<u32>, Option<usize>)], chunk: usize) -> Vec<Vec<f32>> {
    let mut helds: Vec<Held> =
        sequences.iter().map(|(_, adapter)| Held { adapter: *adapter, ..Held::default() }).collect();
    let mut all = vec![Vec::new(); sequences.len()];
    let len = sequences[0].0.len();
    for start in (0..len).step_by(chunk) {
        let mut work: Vec<Work> = helds
            .iter_mut()
            .zip(sequences)
            .map(|(held, (tokens, _))| Work {
                held,
                tokens: &tokens[start..(start + chunk).min(len)],
                logits: Logits::All,
            })
            .collect();
        let logits = model.step(&mut work).unwrap();
        let mut rows = logits.host();
        for all in &mut all {
            let (own, rest) = rows.split_at(chunk.min(len - start) * logits.cols());
            all.extend_from_slice(own);
            rows = rest;
        }
    }
    helds.iter_mut().for_each(|held| model.release(held));
    all
}

/// Adapters on every kind of weight, two in one step beside the base: as on the processor; alone, in company, in prompts and
/// in replayed steps the same bits, and gone once they are taken away.
#[test]
fn adapters_share_a_step() {
    let nano = Checkpoint::open(&data("nano")).unwrap();
    let Some(device) = device() else { return };
    let config = Config::from_checkpoint(&nano).unwrap();
    let of = |rank, experts| {
        let targets = adapter::Targets { attention: true, router: true, unembedding: true, experts: Some(experts) };
        let parameters = AdapterParameters::of(&config, &AdapterConfig { rank, alpha: 8.0, targets });
        let mut values = parameters.init(rank as u64);
        for tensor in parameters.tensors().iter().filter(|t| t.name.ends_with("lora_B.weight")) {
            let own = values[tensor.range.clone()].iter_mut().enumerate();
            own.for_each(|(i, v)| *v = ((i * 37 + 11 * rank) % 101) as f32 / 1e3 - 0.05);
        }
        (parameters, Floats::new(values))
    };
    let adapters = [of(4, ExpertSharing::SharedOuter), of(7, ExpertSharing::Each)];
    let room = adapters.iter().map(|(parameters, _)| parameters.bytes()).sum();
    let load = |device| {
        let planned =
            Options { device, sequences: 8, context: 128, chunk: 512, logits_rows: 512, ..options(Precision::F32, 2) };
        let planned = Options { adapter_rank: 7, adapter_bytes: room, ..planned };
        Model::load(&nano, planned, None, &mut |_, _| {}).unwrap()
    };
    let (mut processor, mut model) = (load(Device::Cpu), load(device));
    let plain = [(prompt(1, 70), None), (prompt(2, 70), None)];
    let base = adapted(&mut model, &plain, 70);
    assert!(adapted(&mut model, &plain, 1) == base, "the base, replayed");
    let slots = adapters.each_ref().map(|(parameters, values)| {
        let slot = model.attach(parameters, values).unwrap();
        assert_eq!(processor.attach(parameters, values), Ok(slot));
        slot
    });
    let mixed = [
        (prompt(1, 70), Some(slots[1])),
        (prompt(1, 70), None),
        (prompt(2, 70), Some(slots[0])),
        (prompt(1, 70), Some(slots[0])),
    ];
    let (got, want) = (adapted(&mut model, &mixed, 70), adapted(&mut processor, &mixed, 70));
    assert!(got[1] == base[0], "the base in company");
    let moved = [(0, 1), (3, 1), (0, 3)].map(|(a, b)| median(&want[a], &want[b], config.vocab_size));
    assert!(moved.iter().all(|&moved| moved > 5e-2), "adapters do more than roundings: {moved:?}");
    for (row, (got, want)) in got.iter().zip(&want).enumerate() {
        let median = median(got, want, config.vocab_size);
        println!("adapters, sequence {row}: median over tokens {median:.2e}");
        assert!(median <= 1e-2, "sequence {row}: median over tokens {median:.2e}");
    }
    for chunk in [1, 9, 40] {
        assert!(adapted(&mut model, &mixed, chunk) == got, "chunks of {chunk}");
    }
    for (sequence, got) in mixed.iter().zip(&got) {
        assert!(adapted(&mut model, std::slice::from_ref(sequence), 1)[0] == *got, "alone");
    }
    slots.iter().for_each(|&slot| model.detach(slot));
    assert!(adapted(&mut model, &plain, 1) == base, "taken away");
}

/// Loss of each token and all gradients of a model with `values`, of documents of these lengths in which every token predicts.
fn gradients(
    parameters: &Parameters,
    values: &[f32],
    lengths: &[usize],
    device: Device,
    recompute: bool,
) -> (Vec<f32>, Vec<f32>) {
    let config = parameters.config();
    let count = lengths.iter().sum::<usize>();
    let (tokens, ids) = (prompt(5, count), prompt(6, count));
    let arena = match &device {
        Device::Cpu => {
            Arena::new(training_bytes(config, LargestBatch { tokens: count, threads: 2, recompute, adapter_rank: 0 }))
        }
        Device::Cuda(gpu) => {
            gpu.reserve_scratch(gpu_training_bytes(config, count, recompute)).unwrap();
            Arena::new(1 << 16)
        }
    };
    let (pool, isa, precision) = (Pool::new(2), Isa::detect(), Precision::F32);
    let runtime = Runtime { pool, arena, isa, precision, device };
    let (weights, mut run, mut seen) = (values.to_vec(), vec![0.0; values.len()], Floats::new(values.to_vec()));
    runtime.hold(&weights).unwrap();
    runtime.send(&weights).unwrap();
    runtime.hold(&run).unwrap();
    stored::hold(&runtime, &seen, &parameters.stored()).unwrap();
    stored::look(&runtime, &weights, seen.change(), &parameters.stored(), &|_| Form::Whole).unwrap();
    let model = parameters.transformer(&seen, &runtime.pool).unwrap();
    parameters.name(&model, &seen, &runtime);
    let mut end = 0;
    let document = |length: &usize| {
        end += length;
        end - length..end
    };
    let documents: Vec<_> = lengths.iter().map(document).collect();
    let (rows, weights): (Vec<u32>, _) = ((0..count as u32).collect(), vec![1.0 / count as f32; count]);
    let targets = Targets { ids: &ids, weights: &weights, z: 1e-4 };
    let batch = Batch { tokens: &tokens, documents: &documents, rows: &rows, targets, recompute, adapter: None };
    let balancing = Balancing { aux: 0.01, pooled: false, z: 1e-4 };
    let losses = model.backward(&runtime, &batch, &balancing, &mut parameters.gradients(&mut run)).unwrap();
    let alone = model.evaluate(&runtime, &batch).unwrap();
    assert!(bits(&alone) == bits(&losses.nll), "without gradients");
    runtime.fetch(&mut run).unwrap();
    if let Device::Cuda(gpu) = &runtime.device {
        let (peak, planned) = (gpu.scratch_peak(), gpu_training_bytes(config, count, recompute));
        println!("scratch: {peak} of {planned}");
        // Room for gaps is not what the plan counts on.
        assert!(peak + (1 << 20) <= planned, "scratch: {peak} of {planned}");
    }
    (losses.nll, run)
}

/// 1 - the cosine.
fn turned(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Of nano as it was trained; and of random weights, where single tokens go to another expert, and its gradient with them.
#[test]
fn gradients_point_where_the_processors_do() {
    let nano = Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano")).unwrap();
    let tiny = synth::checkpoint(&Config::preset("tiny", None).unwrap(), 4).unwrap();
    for (name, checkpoint, lengths, most) in [("nano", nano, [100, 1, 67], 1e-3), ("tiny", tiny, [70, 3, 40], 1e-2)] {
        let config = Config::from_checkpoint(&checkpoint).unwrap();
        let parameters = Parameters::of(&config);
        let pool = Pool::new(2);
        let reading = &mut Reading { dense: Dense::Kept, pool: &pool, isa: Isa::detect(), progress: &mut |_, _| {} };
        let values = parameters.read(&Transformer::read(&checkpoint, &config, reading).unwrap());
        let (want_nll, want) = gradients(&parameters, &values, &lengths, Device::Cpu, false);
        let mut first: Option<(Vec<f32>, Vec<f32>)> = None;
        for recompute in [false, true] {
            let Some(device) = opened(Gpu::open_for_training(0, &InMemory)) else { return };
            let (nll, got) = gradients(&parameters, &values, &lengths, device, recompute);
            let whole = turned(&got, &want);
            let of = |range: &std::ops::Range<usize>| turned(&got[range.clone()], &want[range.clone()]);
            let worst = parameters.tensors().iter().filter(|p| want[p.range.clone()].iter().any(|&v| v != 0.0));
            let worst = worst.map(|p| (of(&p.range), &p.name)).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
            println!(
                "{name}: 1 - cos {whole:.1e}, worst {:.1e} of {}, losses {:.1e}",
                worst.0,
                worst.1,
                rms(&nll, &want_nll)
            );
            assert!(whole <= most, "{name}: 1 - cos {whole:.2e}");
            assert!(rms(&nll, &want_nll) <= 10.0 * most, "{name}: losses");
            let (first_nll, first) = first.get_or_insert_with(|| (nll.clone(), got.clone()));
            assert!(
                bits(&nll) == bits(first_nll) && bits(&got) == bits(first),
                "{name}: computed again, the same bits"
            );
        }
    }
}
