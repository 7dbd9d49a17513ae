//! Gradients on packed weights against the dequantised model, adapters that share a step, and what they cost.

use std::collections::HashMap;

use ossia_kernels::arena::Arena;
use ossia_kernels::cpu::isa::Isa;
use ossia_kernels::ops::cross_entropy::Targets as Wanted;
use ossia_kernels::pool::Pool;
use ossia_kernels::{Floats, Precision, Runtime};

use super::*;
use crate::checkpoint::Checkpoint;
use crate::gpt_oss::backward::Batch;
use crate::gpt_oss::balance::Balancing;
use crate::gpt_oss::forward::Transformer;
use crate::gpt_oss::parameters::Parameters;
use crate::gpt_oss::scratch::{LargestBatch, training_bytes};
use crate::gpt_oss::synth;
use crate::gpt_oss::synth::rng::Rng;
use crate::gpt_oss::tensors::{Dense, Reading};
use crate::kv_cache::Held;
use crate::{Logits, Model, Options, Work};

const LENGTHS: [usize; 3] = [37, 5, 22];

struct Case {
    config: Config,
    checkpoint: Checkpoint,
    tokens: Vec<u32>,
    rows: Vec<u32>,
    ids: Vec<u32>,
    weights: Vec<f32>,
}

impl Case {
    fn new(preset: &str) -> Self {
        let config = Config::preset(preset, None).unwrap();
        let checkpoint = synth::checkpoint(&config, 7).unwrap();
        let mut rng = Rng::new(5, 5);
        let mut below = |n: usize| rng.next() as usize % n;
        let total = LENGTHS.iter().sum::<usize>();
        let tokens: Vec<u32> = (0..total).map(|_| below(config.vocab_size) as u32).collect();
        let rows: Vec<u32> = (0..total as u32).filter(|row| !row.is_multiple_of(4)).collect();
        let ids = rows.iter().map(|_| below(config.vocab_size) as u32).collect();
        let weights = rows.iter().map(|row| 0.25 + (row % 3) as f32).collect();
        Self { config, checkpoint, tokens, rows, ids, weights }
    }

    fn runtime(&self, threads: usize, rank: usize) -> Runtime {
        let largest = LargestBatch { tokens: self.tokens.len(), threads, recompute: false, adapter_rank: rank };
        let arena = Arena::new(training_bytes(&self.config, largest));
        Runtime::on_cpu(Pool::new(threads), arena, Isa::detect(), Precision::F32)
    }

    fn packed(&self, runtime: &Runtime) -> Transformer {
        let progress = &mut |_, _| {};
        let reading = &mut Reading { dense: Dense::Kept, pool: &runtime.pool, isa: Isa::Scalar, progress };
        Transformer::read(&self.checkpoint, &self.config, reading).unwrap()
    }

    fn documents() -> Vec<std::ops::Range<usize>> {
        let mut end = 0;
        let next = |n: &usize| {
            end += n;
            end - n..end
        };
        LENGTHS.iter().map(next).collect()
    }

    fn batch<'a>(
        &'a self,
        documents: &'a [std::ops::Range<usize>],
        adapter: Option<usize>,
        recompute: bool,
    ) -> Batch<'a> {
        let targets = Wanted { ids: &self.ids, weights: &self.weights, z: 0.0 };
        Batch { tokens: &self.tokens, documents, rows: &self.rows, targets, recompute, adapter }
    }

    fn loss(&self, model: &Transformer, runtime: &Runtime, adapter: Option<usize>) -> f64 {
        let nll = model.evaluate(runtime, &self.batch(&Self::documents(), adapter, false)).unwrap();
        nll.iter().zip(&self.weights).map(|(n, w)| f64::from(*n) * f64::from(*w)).sum()
    }

    /// The gradients of the adapter's values on the packed model.
    fn gradients(&self, parameters: &AdapterParameters, values: &Floats, threads: usize, recompute: bool) -> Vec<f32> {
        let runtime = self.runtime(threads, parameters.config().rank);
        let mut model = self.packed(&runtime);
        let slot = parameters.attach(values, &mut model);
        let mut run = vec![0.0; parameters.len()];
        let documents = Self::documents();
        let batch = self.batch(&documents, Some(slot), recompute);
        model.backward(&runtime, &batch, &Balancing::default(), &mut parameters.gradients(&mut run)).unwrap();
        run
    }
}

/// -0 + 0 is 0: where a gradient of zero was added it shows.
#[test]
fn a_batch_that_teaches_nothing_is_not_run_backward() {
    let case = Case::new("tiny");
    let (runtime, documents) = (case.runtime(2, 4), Case::documents());
    let parameters = AdapterParameters::of(&case.config, &everything(ExpertSharing::Each));
    let values = Floats::new(probe(&parameters, 3));
    let mut model = case.packed(&runtime);
    let slot = parameters.attach(&values, &mut model);
    let run = |weights: &[f32], balancing: &Balancing, gradients: &mut Vec<f32>| {
        let batch = case.batch(&documents, Some(slot), true);
        let batch = Batch { targets: Wanted { weights, ..batch.targets }, ..batch };
        model.backward(&runtime, &batch, balancing, &mut parameters.gradients(gradients)).unwrap()
    };
    let (zero, balanced) = (vec![0.0; case.rows.len()], Balancing { aux: 0.1, ..Balancing::default() });
    let mut untouched = vec![-0.0f32; parameters.len()];
    let nothing = run(&zero, &Balancing::default(), &mut untouched);
    assert!(untouched.iter().all(|g| g.to_bits() == (-0.0f32).to_bits()));
    // What it costs and how it was routed is told all the same, and gradients that were there already stay.
    let mut learned = vec![0.0; parameters.len()];
    let something = run(&case.weights, &Balancing::default(), &mut learned);
    assert_eq!((&nothing.nll, nothing.loads.layers().len()), (&something.nll, case.config.num_layers));
    assert_eq!(format!("{:?}", nothing.loads), format!("{:?}", something.loads));
    let before = learned.clone();
    run(&zero, &Balancing::default(), &mut learned);
    assert!(learned.iter().zip(&before).all(|(a, b)| a.to_bits() == b.to_bits()));
    // The router still learns where it is asked to.
    let mut routed = vec![0.0; parameters.len()];
    run(&zero, &balanced, &mut routed);
    assert!(routed.iter().any(|&g| g != 0.0));
    let empty = Batch {
        rows: &[],
        targets: Wanted { ids: &[], weights: &[], z: 0.0 },
        ..case.batch(&documents, Some(slot), true)
    };
    let losses =
        model.backward(&runtime, &empty, &Balancing::default(), &mut parameters.gradients(&mut untouched)).unwrap();
    assert!(losses.nll.is_empty() && untouched[0].is_sign_negative());
}

fn everything(experts: ExpertSharing) -> AdapterConfig {
    let targets = Targets { attention: true, router: true, unembedding: true, experts: Some(experts) };
    AdapterConfig { rank: 4, alpha: 8.0, targets }
}

/// Values whose B are not zero.
fn probe(parameters: &AdapterParameters, seed: u64) -> Vec<f32> {
    let mut values = parameters.init(seed);
    for tensor in parameters.tensors().iter().filter(|t| t.name.ends_with("lora_B.weight")) {
        let mut rng = Rng::new(seed, tensor.range.start as u64);
        values[tensor.range.clone()].iter_mut().for_each(|v| *v = (rng.next() >> 40) as f32 / 1e9 - 0.008);
    }
    values
}

/// A matrix of the model with the factors that adapt it: where A, B and W begin, and r, inputs, outputs.
struct Adapted {
    a: usize,
    b: usize,
    w: usize,
    inputs: usize,
    outputs: usize,
}

fn adapted(parameters: &AdapterParameters, model: &Parameters) -> Vec<Adapted> {
    let starts: HashMap<&str, usize> = model.tensors().iter().map(|t| (t.name.as_str(), t.range.start)).collect();
    let mut all = Vec::new();
    for pair in parameters.tensors().chunks_exact(2) {
        let [a, b] = [&pair[0], &pair[1]];
        let (inputs, outputs) = (a.shape[a.shape.len() - 1], b.shape[b.shape.len() - 2]);
        let stem = a.name.strip_suffix(".lora_A.weight").unwrap();
        let experts = if stem.contains("mlp.experts.") { parameters.model().num_experts } else { 1 };
        for e in 0..experts {
            let name = if experts == 1 { format!("{stem}.weight") } else { format!("{stem}s.{e}.weight") };
            let start = |p: &crate::gpt_oss::parameters::Parameter, len: usize| {
                p.range.start + if p.range.len() == len { 0 } else { e * len }
            };
            let r = parameters.config().rank;
            let (a, b) = (start(a, r * inputs), start(b, r * outputs));
            all.push(Adapted { a, b, w: starts[name.as_str()], inputs, outputs });
        }
    }
    all
}

/// The model's values with s B A in them.
fn merged(parameters: &AdapterParameters, values: &[f32], model: &Parameters, base: &[f32]) -> Vec<f32> {
    let (mut out, r, s) = (base.to_vec(), parameters.config().rank, parameters.config().scale());
    for m in adapted(parameters, model) {
        for row in 0..m.outputs {
            for col in 0..m.inputs {
                let term =
                    |j: usize| f64::from(values[m.b + row * r + j]) * f64::from(values[m.a + j * m.inputs + col]);
                let sum: f64 = (0..r).map(term).sum();
                let w = &mut out[m.w + row * m.inputs + col];
                *w = (f64::from(*w) + f64::from(s) * sum) as f32;
            }
        }
    }
    out
}

/// dA = s Bᵀ dW, dB = s dW Aᵀ, added up where experts share a factor.
fn projected(parameters: &AdapterParameters, values: &[f32], model: &Parameters, dw: &[f32]) -> Vec<f64> {
    let (r, s) = (parameters.config().rank, f64::from(parameters.config().scale()));
    let mut out = vec![0.0; parameters.len()];
    for m in adapted(parameters, model) {
        for row in 0..m.outputs {
            for col in 0..m.inputs {
                let d = s * f64::from(dw[m.w + row * m.inputs + col]);
                for j in 0..r {
                    let (a, b) = (m.a + j * m.inputs + col, m.b + row * r + j);
                    out[a] += d * f64::from(values[b]);
                    out[b] += d * f64::from(values[a]);
                }
            }
        }
    }
    out
}

#[test]
fn gradients_on_packed_weights_are_those_of_the_dequantised_model() {
    for (preset, experts) in [("nano", ExpertSharing::SharedOuter), ("tiny", ExpertSharing::Each)] {
        let case = Case::new(preset);
        let parameters = AdapterParameters::of(&case.config, &everything(experts));
        let values = probe(&parameters, 3);
        let got = case.gradients(&parameters, &Floats::new(values.clone()), 2, false);
        let model = Parameters::of(&case.config);
        let runtime = case.runtime(2, 0);
        let base = model.read(&case.packed(&runtime));
        let dense = Floats::new(merged(&parameters, &values, &model, &base));
        let transformer = model.transformer(&dense, &runtime.pool).unwrap();
        let mut dw = vec![0.0; model.len()];
        let documents = Case::documents();
        let batch = case.batch(&documents, None, false);
        transformer.backward(&runtime, &batch, &Balancing::default(), &mut model.gradients(&mut dw)).unwrap();
        let want = projected(&parameters, &values, &model, &dw);
        let mut worst = 0.0f64;
        for tensor in parameters.tensors() {
            let (mut dot, mut own, mut other) = (0.0, 0.0, 0.0);
            for i in tensor.range.clone() {
                let g = f64::from(got[i]);
                (dot, own, other) = (dot + g * want[i], own + g * g, other + want[i] * want[i]);
            }
            let cosine = dot / (own * other).sqrt();
            worst = worst.max(1.0 - cosine);
            assert!(own > 0.0 && cosine > 0.99999, "{preset} {}: cosine {cosine}", tensor.name);
            assert!(((own / other).sqrt() - 1.0).abs() < 1e-4, "{preset} {}: length", tensor.name);
        }
        println!("{preset}: {} tensors, the largest 1 - cosine is {worst:.1e}", parameters.tensors().len());
        // Nothing depends on threads or on what was kept.
        let values = Floats::new(values);
        assert_eq!(case.gradients(&parameters, &values, 1, false), got);
        assert_eq!(case.gradients(&parameters, &values, 2, true), got);
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    let case = Case::new("nano");
    let parameters = AdapterParameters::of(&case.config, &everything(ExpertSharing::SharedOuter));
    let values = probe(&parameters, 9);
    let gradient = case.gradients(&parameters, &Floats::new(values.clone()), 2, false);
    let runtime = case.runtime(2, 4);
    let mut model = case.packed(&runtime);
    for tensor in parameters.tensors() {
        let steepest = tensor.range.clone().max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs())).unwrap();
        let mut loss = |by: f32| {
            let mut moved = values.clone();
            moved[steepest] += by;
            let slot = parameters.attach(&Floats::new(moved), &mut model);
            let loss = case.loss(&model, &runtime, Some(slot));
            model.detach(slot);
            loss
        };
        const H: f32 = 4e-3;
        let slope = (8.0 * (loss(H) - loss(-H)) - (loss(2.0 * H) - loss(-2.0 * H))) / (12.0 * f64::from(H));
        let got = f64::from(gradient[steepest]);
        assert!((got - slope).abs() <= 0.02 * slope.abs() + 1e-3, "{}: {got}, the slope is {slope}", tensor.name);
    }
}

#[test]
fn a_new_adapter_is_the_base() {
    let case = Case::new("nano");
    let parameters = AdapterParameters::of(&case.config, &everything(ExpertSharing::Each));
    let values = parameters.init(1);
    let bound =
        |name: &str| values[parameters.get(name).unwrap().range.clone()].iter().fold(0f32, |m, v| m.max(v.abs()));
    let largest = bound("model.layers.1.self_attn.k_proj.lora_A.weight");
    let inputs = case.config.hidden_size as f32;
    assert!(largest <= 1.0 / inputs.sqrt() && largest > 0.8 / inputs.sqrt());
    assert!(bound("lm_head.lora_B.weight") == 0.0 && values != parameters.init(2));
    // q, k, v, o, the router and two of each expert in every block, and the unembedding.
    assert_eq!(parameters.num_matrices(), 2 * (5 + 2 * 4) + 1);
    let runtime = case.runtime(2, 4);
    let mut model = case.packed(&runtime);
    let before = case.loss(&model, &runtime, None);
    let slot = parameters.attach(&Floats::new(values), &mut model);
    assert_eq!(case.loss(&model, &runtime, Some(slot)), before);
    model.detach(slot);
    assert!(model.adapters.is_empty());
}

/// Logits of prompts that share one step, each through its own slot.
fn together(model: &mut Model, prompts: &[(Vec<u32>, Option<usize>)]) -> Vec<Vec<u32>> {
    let mut held: Vec<Held> =
        prompts.iter().map(|(_, adapter)| Held { adapter: *adapter, ..Held::default() }).collect();
    let mut work: Vec<Work> =
        held.iter_mut().zip(prompts).map(|(held, (tokens, _))| Work { held, tokens, logits: Logits::Last }).collect();
    let logits = model.step(&mut work).unwrap();
    let rows: Vec<Vec<u32>> =
        (0..prompts.len()).map(|row| logits.row(row).iter().map(|v| v.to_bits()).collect()).collect();
    drop(logits);
    held.iter_mut().for_each(|held| model.release(held));
    rows
}

#[test]
fn adapters_share_a_step_and_leave_the_base_alone() {
    let case = Case::new("tiny");
    let all = [everything(ExpertSharing::Each), AdapterConfig { rank: 9, ..everything(ExpertSharing::SharedOuter) }]
        .map(|adapter| AdapterParameters::of(&case.config, &adapter));
    for precision in [Precision::F32, Precision::Fast] {
        let options = Options {
            precision,
            sequences: 5,
            logits_rows: 5,
            context: 64,
            chunk: 128,
            adapter_rank: 9,
            adapter_bytes: all.iter().map(AdapterParameters::bytes).sum(),
            threads: 2,
            ..Options::default()
        };
        let mut model = Model::load(&case.checkpoint, options, None, &mut |_, _| {}).unwrap();
        let prompt = |at: usize, len: usize| case.tokens[at..at + len].to_vec();
        let plain = [(prompt(0, 20), None), (prompt(3, 7), None)];
        let base = together(&mut model, &plain);
        let slots: Vec<usize> = all
            .iter()
            .map(|parameters| model.attach(parameters, &Floats::new(probe(parameters, 4))).unwrap())
            .collect();
        assert_eq!(slots, [0, 1]);
        let error = model.attach(&all[0], &Floats::new(probe(&all[0], 4))).unwrap_err().to_string();
        assert!(error.contains("beside others of") && error.contains("room for"), "{error}");
        let mixed = [
            (prompt(0, 20), Some(1)),
            (prompt(0, 20), None),
            (prompt(3, 7), Some(0)),
            (prompt(0, 20), Some(0)),
            (prompt(3, 7), None),
        ];
        let got = together(&mut model, &mixed);
        assert!(got[1] == base[0] && got[4] == base[1], "{precision:?}: the base's bits");
        assert!(got[0] != got[1] && got[3] != got[1] && got[0] != got[3], "{precision:?}: adapters do something");
        for (prompt, row) in mixed.iter().zip(&got) {
            assert!(together(&mut model, std::slice::from_ref(prompt))[0] == *row, "{precision:?}: alone");
        }
        slots.iter().for_each(|&slot| model.detach(slot));
        assert!(together(&mut model, &plain) == base, "{precision:?}: detached");
        let large = AdapterConfig { rank: 10, ..everything(ExpertSharing::Each) };
        let large = AdapterParameters::of(&case.config, &large);
        let error = model.attach(&large, &Floats::new(large.init(1))).unwrap_err();
        assert_eq!(error, Error::Rank { rank: 10, foreseen: 9 });
    }
}

/// Inference through an adapter gives what training sees of it.
#[test]
fn both_phases_agree() {
    let case = Case::new("nano");
    let parameters = AdapterParameters::of(&case.config, &everything(ExpertSharing::SharedOuter));
    let values = Floats::new(probe(&parameters, 6));
    let options = Options { precision: Precision::F32, context: 64, logits_rows: 64, threads: 2, ..Options::default() }
        .with_adapter(&parameters);
    let mut model = Model::load(&case.checkpoint, options, None, &mut |_, _| {}).unwrap();
    let slot = model.attach(&parameters, &values).unwrap();
    let (runtime, document) = (case.runtime(2, 4), 0..LENGTHS[0]);
    let tokens = &case.tokens[document.clone()];
    let mut held = Held { adapter: Some(slot), ..Held::default() };
    let logits = model.step(&mut [Work { held: &mut held, tokens, logits: Logits::All }]).unwrap();
    let mut packed = case.packed(&runtime);
    let slot = parameters.attach(&values, &mut packed);
    let rows: Vec<u32> = (0..tokens.len() as u32 - 1).collect();
    let targets = Wanted { ids: &tokens[1..], weights: &[], z: 0.0 };
    let documents = [document];
    let batch = Batch { tokens, documents: &documents, rows: &rows, targets, recompute: true, adapter: Some(slot) };
    let nll = packed.evaluate(&runtime, &batch).unwrap();
    for (row, (nll, &target)) in nll.iter().zip(&tokens[1..]).enumerate() {
        let row = logits.row(row);
        let sum: f64 = row.iter().map(|v| f64::from(*v).exp()).sum();
        let want = sum.ln() - f64::from(row[target as usize]);
        assert!((f64::from(*nll) - want).abs() < 1e-5, "{nll}, wanted {want}");
    }
}
