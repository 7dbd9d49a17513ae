//! Holds the kernels to the ops' references over ragged shapes, and their tilings to each other, bit by bit.
//!
//! Without a GPU there is nothing to run, and each test says so. `cargo xtask cuda-emulate` runs them with the kernels compiled
//! for the processor; with OSSIA_CUDA_TESTS=required a missing GPU is a failure.

use std::sync::Arc;

use half::{bf16, f16};

use super::{Device, Gpu, InMemory};
use crate::arena::Arena;
use crate::cpu::isa::Isa;
use crate::kv::{KvLayer, PAGE, PageTable};
use crate::matrix::Kind;
use crate::ops::attention::{self, Shape};
use crate::ops::experts::{self, Expert, Experts};
use crate::ops::linear::{self, Linear, Part};
use crate::ops::rms_norm::{self, Norm};
use crate::ops::rope::{self, Heads, Rope};
use crate::ops::{embed, router, rows};
use crate::pool::Pool;
use crate::testing::{Numbers, close, same_bits};
use crate::{Matrix, Phase, Precision, Runtime, Sequence, Step, Tensor};

/// A device for one set of weights: copies are found by address, and what is dropped leaves its own to the next.
pub(super) fn gpu() -> Option<Runtime> {
    runtime_of(Gpu::open(0, &InMemory))
}

/// A runtime on a device that was opened, or nothing where there is none.
pub(super) fn runtime_of(gpu: crate::Result<Arc<Gpu>>) -> Option<Runtime> {
    let gpu = match gpu {
        Ok(gpu) => gpu,
        Err(error) if std::env::var("OSSIA_CUDA_TESTS").is_ok_and(|v| v == "required") => panic!("{error}"),
        Err(error) => {
            println!("skipped: {error}");
            return None;
        }
    };
    gpu.reserve_scratch(64 << 20).unwrap();
    let (pool, arena) = (Pool::new(2), Arena::new(1 << 20));
    Some(Runtime { pool, arena, isa: Isa::detect(), precision: Precision::F32, device: Device::Cuda(gpu) })
}

/// The same, which takes itself to have so many processors: what decides how large blocks are.
pub(super) fn gpu_of(processors: usize) -> Option<Runtime> {
    let mut runtime = gpu()?;
    let Device::Cuda(gpu) = &mut runtime.device else { unreachable!() };
    std::sync::Arc::get_mut(gpu).expect("nobody else has it").about.processors = processors;
    Some(runtime)
}

/// The same, on Hopper with or without the kernels that are for it alone.
pub(super) fn gpu_as(processors: usize, hopper: bool) -> Option<Runtime> {
    let mut runtime = gpu_of(processors)?;
    let Device::Cuda(gpu) = &mut runtime.device else { unreachable!() };
    if !hopper {
        std::sync::Arc::get_mut(gpu).expect("nobody else has it").about.capability = (8, 0);
    }
    Some(runtime)
}

/// What scratch is lent next is not a number anywhere, so that what a kernel leaves out is seen.
pub(super) fn poison(runtime: &Runtime) {
    let Device::Cuda(gpu) = &runtime.device else { unreachable!() };
    let len = 4 << 20;
    gpu.take(len).unwrap().upload(&vec![0xff; 4 * len]).unwrap();
}

pub(super) fn cpu() -> Runtime {
    Runtime::on_cpu(Pool::new(1), Arena::new(16 << 20), Isa::detect(), Precision::F32)
}

/// Values on the device, or on the host where `runtime` is there.
pub(super) fn tensor(runtime: &Runtime, cols: usize, values: &[f32]) -> Tensor {
    let rows = values.len() / cols;
    match &runtime.device {
        Device::Cpu => crate::testing::tensor(runtime, rows, cols, values),
        Device::Cuda(gpu) => Tensor::from_host(gpu, rows, cols, values).unwrap(),
    }
}

/// One sequence from position 0 of `tokens`, with no pages.
fn step<'a>(runtime: &'a Runtime, none: &'a PageTable, tokens: usize) -> Step<'a> {
    let sequence = Sequence { rows: 0..tokens, start: 0, full: none, sliding: none, adapter: None };
    let sequences = vec![sequence];
    Step { runtime, phase: Phase::Inference, sequences, kv: &mut [], logits_rows: vec![], tap: None }
}

fn rounded(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(bf16::from_f32(v).to_f32())).collect()
}

pub(super) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.values().unwrap().into_owned()
}

#[test]
fn rms_norm_is_the_processors() {
    let (none, processor, mut numbers) = (PageTable::default(), cpu(), Numbers(1));
    for (tokens, cols) in [(1, 32), (3, 288), (5, 1056)] {
        let Some(runtime) = gpu() else { return };
        let (x, weight) = (numbers.vec(tokens * cols), numbers.vec(cols));
        let norm = Norm { weight, eps: 1e-5 };
        let of = |runtime| rms_norm::forward(&mut step(runtime, &none, tokens), &tensor(runtime, cols, &x), &norm);
        let want: Vec<f64> = values(&of(&processor).unwrap()).into_iter().map(f64::from).collect();
        close(&values(&of(&runtime).unwrap()), &want, 1e-6, &format!("{tokens} x {cols}"));
    }
}

#[test]
fn what_is_not_finite_is_found() {
    let Some(runtime) = gpu() else { return };
    for (at, bad) in [(0, f32::NAN), (2999, f32::INFINITY), (1500, f32::NEG_INFINITY)] {
        let mut x = Numbers(2).vec(3000);
        assert!(tensor(&runtime, 3000, &x).is_finite(&runtime.device).unwrap());
        x[at] = bad;
        assert!(!tensor(&runtime, 3000, &x).is_finite(&runtime.device).unwrap(), "{bad} at {at}");
    }
}

/// Embeddings as bf16 has them, and the rows that want logits.
#[test]
fn embeddings_and_rows_are_found() {
    let (none, mut numbers) = (PageTable::default(), Numbers(3));
    for kind in [Kind::BF16, Kind::F32, Kind::Q8] {
        let Some(runtime) = gpu() else { return };
        let table = numbers.matrix(kind, 19, 64);
        let tokens = [18, 0, 7, 7];
        let mut step = step(&runtime, &none, tokens.len());
        step.logits_rows = vec![1, 3];
        let Device::Cuda(gpu) = &runtime.device else { unreachable!() };
        gpu.begin(&step, &tokens, 1).unwrap();
        let x = embed::forward(&mut step, &tokens, &table).unwrap();
        let mut row = vec![0.0; 64];
        let want = tokens.iter().flat_map(|&token| {
            table.row_into(token as usize, &mut row);
            rounded(&row)
        });
        close(&values(&x), &want.collect::<Vec<_>>(), 0.0, &format!("{kind:?}"));
        let norm = Norm { weight: vec![1.0; 64], eps: 1e-5 };
        let all = values(&rms_norm::forward(&mut step, &x, &norm).unwrap());
        let chosen = values(&rms_norm::forward_logits_rows(&mut step, &x, &norm).unwrap());
        same_bits(&chosen, &[&all[64..128], &all[192..]].concat(), "rows 1 and 3");
        let all = values(&x);
        let wanted = values(&rows::wanted(&mut step, x).unwrap());
        same_bits(&wanted, &[&all[64..128], &all[192..]].concat(), "rows 1 and 3");
    }
}

/// Every tiling, ragged rows, half blocks; and a token has the same bits in each.
#[test]
fn linear_is_the_product_of_bf16() {
    let (none, mut numbers) = (PageTable::default(), Numbers(4));
    for (kind, rows, cols, processors, hopper) in [
        (Kind::BF16, 40, 96, 1000, true),
        (Kind::Q8, 16, 32, 1000, true),
        (Kind::F32, 201, 288, 1000, true),
        // One processor has always enough to do, so blocks are large.
        (Kind::BF16, 40, 96, 1, false),
        (Kind::Q8, 16, 32, 1, false),
        (Kind::BF16, 201, 800, 1, false),
        (Kind::BF16, 40, 96, 1, true),
        (Kind::Q8, 16, 32, 1, true),
        (Kind::BF16, 201, 800, 1, true),
    ] {
        let Some(runtime) = gpu_as(processors, hopper) else { return };
        let parts = [rows / 2, rows - rows / 2]
            .map(|rows| Part { weight: numbers.matrix(kind, rows, cols), bias: Some(numbers.vec(rows)) });
        let x = numbers.vec(260 * cols);
        let want = products(&parts, &x);
        let linear = Linear::new(parts.into());
        let mut first = None;
        for tokens in [260, 130, 128, 90, 65, 64, 33, 32, 17, 16, 9, 8, 3, 1] {
            let mut step = step(&runtime, &none, tokens);
            poison(&runtime);
            let x = tensor(&runtime, cols, &x[..tokens * cols]);
            let y = values(&linear::forward(&mut step, &x, &linear).unwrap());
            close(&y, &want[..tokens * rows], 2e-6, &format!("{kind:?} {rows} x {cols}, {tokens} tokens"));
            let first = first.get_or_insert_with(|| y.clone());
            same_bits(&y, &first[..tokens * rows], &format!("{kind:?} {rows} x {cols}, {tokens} tokens"));
            let before = numbers.vec(tokens * rows);
            let mut sum = tensor(&runtime, rows, &before);
            linear::add_forward(&mut step, &x, &linear, &mut sum).unwrap();
            let added: Vec<f32> = before.iter().zip(&y).map(|(a, b)| a + b).collect();
            same_bits(&values(&sum), &added, "added");
        }
    }
}

/// W x + b in f64, both rounded to bf16 first.
fn products(parts: &[Part], x: &[f32]) -> Vec<f64> {
    let cols = parts[0].weight.cols();
    let mut row = vec![0.0; cols];
    let mut rows = Vec::new();
    for part in parts {
        for at in 0..part.weight.rows() {
            part.weight.row_into(at, &mut row);
            rows.push((rounded(&row), f64::from(part.bias.as_ref().unwrap()[at])));
        }
    }
    let one = |x: &[f64], (w, b): &(Vec<f64>, f64)| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + b;
    rounded(x).chunks_exact(cols).flat_map(|x| rows.iter().map(|row| one(x, row)).collect::<Vec<_>>()).collect()
}

#[test]
fn the_router_chooses_as_the_processor_does() {
    let (none, mut numbers) = (PageTable::default(), Numbers(5));
    for (count, k, cols) in [(4, 2, 64), (8, 8, 32), (32, 4, 288), (128, 4, 96)] {
        let Some(runtime) = gpu() else { return };
        let weight = numbers.matrix(Kind::BF16, count, cols);
        let linear = Linear::new(vec![Part { weight, bias: Some(numbers.vec(count)) }]);
        let t = numbers.vec(9 * cols);
        let cpu = cpu();
        let want = router::forward(&mut step(&cpu, &none, 9), &tensor(&cpu, cols, &t), &linear, k).unwrap();
        let routes = router::forward(&mut step(&runtime, &none, 9), &tensor(&runtime, cols, &t), &linear, k).unwrap();
        let device = routes.device.unwrap();
        let chosen: Vec<u32> = device.experts.download().unwrap().iter().map(|v| v.to_bits()).collect();
        assert_eq!(chosen, *want.experts, "{count} experts");
        let want: Vec<f64> = want.weights.iter().map(|&w| f64::from(w)).collect();
        close(&device.weights.download().unwrap(), &want, 1e-5, &format!("{count} experts"));
    }
}

pub(super) fn some_experts(numbers: &mut Numbers, kind: Kind, (count, units, cols): (usize, usize, usize)) -> Experts {
    let expert = |_| {
        // Interleaved rows, seen as two views.
        let both = numbers.matrix(kind, 2 * units, cols);
        let mut biases = |n: usize, by: f32| numbers.vec(n).iter().map(|v| by * v).collect::<Vec<f32>>();
        let (gate_bias, up_bias, down_bias) = (biases(units, 9.0), biases(units, 9.0), biases(cols, 1.0));
        let down = numbers.matrix(kind, cols, units);
        Expert { gate: both.every_other(0), up: both.every_other(1), down, gate_bias, up_bias, down_bias }
    };
    Experts::new((0..count).map(expert).collect(), 7.0, 1.702)
}

/// What one expert says to t in f64, where the kernels round to bf16.
fn said(expert: &Expert, t: &[f32], limit: f64) -> Vec<f64> {
    said_with(expert, t, limit, &vec![0.0; 2 * expert.gate.rows()], &|_| vec![0.0; expert.down.rows()])
}

/// The same where an adapter adds to gates and ups, which alternate, and to the output, by what the units say.
pub(super) fn said_with(
    expert: &Expert,
    t: &[f32],
    limit: f64,
    gate_up: &[f64],
    down: &dyn Fn(&[f32]) -> Vec<f64>,
) -> Vec<f64> {
    let product = |m: &Matrix, bias: &[f32], x: &[f64]| -> Vec<f64> {
        let mut row = vec![0.0; m.cols()];
        let mut one = |at: usize| {
            m.row_into(at, &mut row);
            row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum::<f64>() + f64::from(bias[at])
        };
        (0..m.rows()).map(&mut one).collect()
    };
    let t = rounded(t);
    let (gate, up) = (product(&expert.gate, &expert.gate_bias, &t), product(&expert.up, &expert.up_bias, &t));
    let act = gate.iter().zip(&up).zip(gate_up.as_chunks::<2>().0).map(|((gate, up), added)| {
        let (gate, up) = ((gate + added[0]).min(limit), (up + added[1]).clamp(-limit, limit));
        (gate / (1.0 + (-1.702 * gate).exp()) * (up + 1.0)) as f32
    });
    let act: Vec<f32> = act.collect();
    let said = product(&expert.down, &expert.down_bias, &rounded(&act));
    said.iter().zip(down(&act)).map(|(said, added)| said + added).collect()
}

/// Every tiling: one token, experts with many tokens and with none, half blocks; and a token has the same bits in each.
#[test]
fn experts_say_what_mxfp4_says() {
    let (none, mut numbers) = (PageTable::default(), Numbers(6));
    let shapes = [(Kind::Mxfp4Pairs, 32, 64), (Kind::Mxfp4Halves, 96, 160), (Kind::Mxfp4Pairs, 160, 800)];
    for (hopper, (kind, units, cols)) in
        [true, false].into_iter().flat_map(|hopper| shapes.map(|shape| (hopper, shape)))
    {
        let Some(runtime) = gpu_as(1000, hopper) else { return };
        let Device::Cuda(gpu) = &runtime.device else { unreachable!() };
        let experts = some_experts(&mut numbers, kind, (4, units, cols));
        let (t, x) = (numbers.vec(150 * cols), numbers.vec(150 * cols));
        let ids: Vec<u32> = (0..150).flat_map(|_| if numbers.below(3) == 0 { [1, 0] } else { [1, 3] }).collect();
        let weights: Vec<f32> = (0..300).map(|i| 0.9 - 0.3 * (i % 2) as f32).collect();
        let token = |token: usize| -> Vec<f64> {
            let mut sum: Vec<f64> = x[token * cols..][..cols].iter().map(|&v| f64::from(v)).collect();
            for pair in 2 * token..2 * token + 2 {
                let said = said(&experts.experts[ids[pair] as usize], &t[token * cols..][..cols], 7.0);
                sum.iter_mut().zip(said).for_each(|(sum, said)| *sum += f64::from(weights[pair]) * said);
            }
            sum
        };
        let want: Vec<f64> = (0..150).flat_map(token).collect();
        let mut first = None;
        for tokens in [150, 110, 80, 60, 33, 20, 9, 5, 1] {
            poison(&runtime);
            let mut chosen = gpu.take(2 * tokens).unwrap();
            chosen.upload(&ids[..2 * tokens].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>()).unwrap();
            let mut shares = gpu.take(2 * tokens).unwrap();
            shares.upload(&weights[..2 * tokens].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>()).unwrap();
            let empty = || (runtime.arena.take(0).unwrap(), runtime.arena.take(0).unwrap());
            let (no_experts, no_weights) = empty();
            let routes = router::Routes {
                per_token: 2,
                experts: no_experts,
                weights: no_weights,
                device: Some(router::cuda::Routes { experts: chosen, weights: shares }),
            };
            let mut y = tensor(&runtime, cols, &x[..tokens * cols]);
            let t = tensor(&runtime, cols, &t[..tokens * cols]);
            experts::add_forward(&mut step(&runtime, &none, tokens), &t, &routes, &experts, &mut y).unwrap();
            let what = format!("{kind:?} {units} units, {tokens} tokens, hopper: {hopper}");
            // An activation on the border of two bf16 numbers may go the other way.
            close(&values(&y), &want[..tokens * cols], 1e-3, &what);
            let y = values(&y);
            same_bits(&y, &first.get_or_insert_with(|| y.clone())[..tokens * cols], &what);
        }
    }
}

pub(super) const THETA: f64 = 10_000.0;

/// Rotations, pages, windows and sinks beside the processor with f16 pages; blocks of few columns and of many, spans split
/// and whole, chunks: the same bits.
#[test]
fn attention_is_the_processors() {
    let small = Heads { query: 4, kv: 2, dim: 16 };
    for (heads, window, lengths) in [
        (small, None, &[1, 70][..]),
        (small, Some(20), &[300]),
        (Heads { query: 8, kv: 1, dim: 64 }, Some(128), &[200, 3]),
        (Heads { query: 16, kv: 2, dim: 32 }, None, &[600, 9]),
        // So many blocks that spans are not split, and more heads over one than a block of few has columns.
        (Heads { query: 64, kv: 8, dim: 16 }, None, &[300]),
        (Heads { query: 24, kv: 1, dim: 16 }, Some(300), &[330, 1]),
    ] {
        let Some(runtime) = gpu() else { return };
        let mut numbers = Numbers(7);
        let rows: Vec<Vec<f32>> =
            lengths.iter().map(|n| numbers.vec(n * heads.row()).iter().map(|v| 2.0 * v).collect()).collect();
        let sinks = numbers.vec(heads.query);
        // Keys are not turned: the last bit of a cosine would put one beyond the border of two f16, a hundred times what attention
        // may be off.
        let rope = Rope { inv_freq: vec![0.0; heads.dim / 2], ..Rope::new(THETA, 4.0, (1.0, 6.0), heads.dim) };
        let of = |runtime: &Runtime, chunk| attend(runtime, (heads, &rope, window), &rows, &sinks, chunk);
        let (want, whole) = (of(&cpu(), 1000), of(&runtime, 1000));
        for (got, want) in whole.iter().zip(&want) {
            let want: Vec<f64> = want.iter().map(|&v| f64::from(v)).collect();
            close(got, &want, 1e-5, &format!("{heads:?} {window:?}"));
        }
        for chunk in [1, 13, 64] {
            for (got, whole) in of(&runtime, chunk).iter().zip(&whole) {
                same_bits(got, whole, &format!("{heads:?} {window:?}, chunks of {chunk}"));
            }
        }
    }
}

/// What is not a number in one head of one query is in that head's output, and nowhere else.
#[test]
fn a_fault_in_a_query_stays_visible_and_alone() {
    let heads = Heads { query: 4, kv: 2, dim: 16 };
    let mut numbers = Numbers(8);
    let (sinks, rope) = (numbers.vec(heads.query), Rope::new(THETA, 4.0, (1.0, 6.0), heads.dim));
    let rows = numbers.vec(70 * heads.row());
    for (chunk, row) in [(70, 66), (1, 66), (70, 3)] {
        let Some(runtime) = gpu() else { return };
        let (at, len) = (row * heads.row() + 2 * heads.dim, heads.dim);
        let mut bad = rows.clone();
        bad[at..at + len].fill(f32::NAN);
        let of = |rows: &[f32]| attend(&runtime, (heads, &rope, None), &[rows.to_vec()], &sinks, chunk).remove(0);
        let (good, bad) = (of(&rows), of(&bad));
        let faulty = (row * heads.query + 2) * heads.dim..(row * heads.query + 3) * heads.dim;
        assert!(bad[faulty.clone()].iter().all(|v| v.is_nan()), "row {row}, chunks of {chunk}");
        same_bits(&bad[..faulty.start], &good[..faulty.start], "before");
        same_bits(&bad[faulty.end..], &good[faulty.end..], "after");
    }
}

/// Attention of all sequences, fed side by side in chunks, over pages that are handed out backwards.
fn attend(
    runtime: &Runtime,
    (heads, rope, window): (Heads, &Rope, Option<usize>),
    sequences: &[Vec<f32>],
    sinks: &[f32],
    chunk: usize,
) -> Vec<Vec<f32>> {
    let (width, dim) = (heads.row(), heads.query * heads.dim);
    let lengths: Vec<usize> = sequences.iter().map(|s| s.len() / width).collect();
    let pages: usize = lengths.iter().map(|n| n.div_ceil(PAGE)).sum();
    let mut free = 0..pages as u32;
    let tables: Vec<PageTable> = lengths
        .iter()
        .map(|n| PageTable { first: 0, pages: free.by_ref().rev().take(n.div_ceil(PAGE)).collect() })
        .collect();
    let mut kv = [match &runtime.device {
        Device::Cpu => KvLayer::new(crate::kv::KvType::F16, pages, heads.kv, heads.dim),
        Device::Cuda(gpu) => KvLayer::on_gpu(gpu, pages, heads.kv, heads.dim).unwrap(),
    }];
    if let Device::Cuda(_) = &runtime.device {
        // Slots that nobody has written hold what others left there.
        kv[0].fill_for_test(&vec![0xff; 2 * pages * heads.kv * heads.dim * PAGE]);
    }
    let mut outputs = vec![Vec::new(); sequences.len()];
    for start in (0..*lengths.iter().max().unwrap()).step_by(chunk) {
        let (mut rows, mut members, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for (s, &length) in lengths.iter().enumerate().filter(|(_, length)| start < **length) {
            let (from, end) = (rows.len() / width, (start + chunk).min(length));
            rows.extend_from_slice(&sequences[s][start * width..end * width]);
            let (full, sliding) = (&tables[s], &tables[s]);
            members.push(Sequence { rows: from..from + end - start, start, full, sliding, adapter: None });
            owners.push((s, end - start));
        }
        let tokens = vec![0; rows.len() / width];
        let mut step =
            Step { runtime, phase: Phase::Inference, sequences: members, kv: &mut kv, logits_rows: vec![], tap: None };
        if let Device::Cuda(gpu) = &runtime.device {
            gpu.begin(&step, &tokens, heads.query / heads.kv).unwrap();
        }
        let mut qkv = tensor(runtime, width, &rows);
        rope::forward(&mut step, &mut qkv, rope, heads, 0, window).unwrap();
        let o = attention::forward(&mut step, &qkv, sinks, &Shape { heads, window, layer: 0 }).unwrap();
        let o = o.values().unwrap().into_owned();
        let mut rest = &o[..];
        for (s, count) in owners {
            let (own, next) = rest.split_at(count * dim);
            outputs[s].extend_from_slice(own);
            rest = next;
        }
    }
    outputs
}

/// A page is copied whole, and others stay as they are.
#[test]
fn pages_are_copied() {
    let Some(runtime) = gpu() else { return };
    let Device::Cuda(gpu) = &runtime.device else { unreachable!() };
    let mut layer = KvLayer::on_gpu(gpu, 3, 2, 16).unwrap();
    let len = 2 * 16 * PAGE;
    let numbers: Vec<u8> = (0..3 * len).flat_map(|i| f16::from_f32(i as f32).to_le_bytes()).collect();
    layer.fill_for_test(&numbers);
    layer.copy_page(0, 2);
    for store in [layer.device().0, layer.device().1] {
        let bytes = store.download().unwrap();
        assert!(bytes[..4 * len] == numbers[..4 * len] && bytes[4 * len..] == numbers[..2 * len]);
    }
}

/// More than the device has is an error with both numbers, and takes nothing.
#[test]
fn a_full_card_says_so() {
    let Some(runtime) = gpu() else { return };
    let Device::Cuda(gpu) = &runtime.device else { unreachable!() };
    let (free, _) = gpu.memory().unwrap();
    let error = gpu.zeros(free + (1 << 30)).err().unwrap().to_string();
    assert!(error.contains("bytes are needed"), "{error}");
    // Other tests may have taken some meanwhile.
    assert!(gpu.memory().unwrap().0 + (1 << 30) > free);
    assert_eq!(gpu.zeros(3).unwrap().download().unwrap(), [0; 3]);
}
