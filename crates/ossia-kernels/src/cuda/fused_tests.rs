//! Holds kernels that do several ops at once to those that do one, bit by bit, and counts them. Without a GPU there is nothing
//! to run: see `tests`.

use std::sync::atomic::Ordering;

use super::Device;
use super::tests::{THETA, cpu, gpu, gpu_as, poison, some_experts, tensor, values};
use crate::kv::{KvLayer, KvType, PAGE, PageTable};
use crate::matrix::Kind;
use crate::ops::attention::{self, Shape};
use crate::ops::linear::{self, Linear, Part};
use crate::ops::rms_norm::Norm;
use crate::ops::rope::{self, Heads, Projection, Rope};
use crate::ops::{experts, router, sample};
use crate::testing::{Numbers, close, same_bits};
use crate::{Phase, Runtime, Sequence, Step, Tap, Tensor};

/// Where somebody watches, ops are computed one by one.
struct Watch(Vec<&'static str>);

impl Tap for Watch {
    fn see(&mut self, op: &'static str, _: &Tensor) {
        self.0.push(op);
    }
}

/// Pages for so many positions, in order.
fn pages(positions: usize) -> PageTable {
    PageTable { first: 0, pages: (0..positions.div_ceil(PAGE) as u32).collect() }
}

fn store(runtime: &Runtime, positions: usize, heads: Heads) -> [KvLayer; 1] {
    let pages = positions.div_ceil(PAGE);
    [match &runtime.device {
        Device::Cpu => KvLayer::new(KvType::F16, pages, heads.kv, heads.dim),
        Device::Cuda(gpu) => KvLayer::on_gpu(gpu, pages, heads.kv, heads.dim).unwrap(),
    }]
}

/// `rows` rows of one sequence from position `start` on, the step begun.
fn step<'a>(
    runtime: &'a Runtime,
    (kv, table): (&'a mut [KvLayer], &'a PageTable),
    (start, rows): (usize, usize),
    heads: Heads,
    tap: Option<&'a mut dyn Tap>,
) -> Step<'a> {
    let sequences = vec![Sequence { rows: 0..rows, start, full: table, sliding: table, adapter: None }];
    let step = Step { runtime, phase: Phase::Inference, sequences, kv, logits_rows: vec![], tap };
    if let Device::Cuda(gpu) = &runtime.device {
        gpu.begin(&step, &vec![0; rows], heads.query / heads.kv).unwrap();
    }
    step
}

fn linear(numbers: &mut Numbers, rows: usize, cols: usize) -> Linear {
    Linear::new(vec![Part { weight: numbers.matrix(Kind::BF16, rows, cols), bias: Some(numbers.vec(rows)) }])
}

/// Norm, product, rotation and pages in one, for few tokens and for many; a token has the same bits in each.
#[test]
fn a_projection_is_norm_product_and_rotation() {
    let cols = 96;
    for (heads, start, processors, hopper) in [
        (Heads { query: 4, kv: 2, dim: 16 }, 0, 1000, true),
        (Heads { query: 2, kv: 1, dim: 32 }, 100, 1000, true),
        (Heads { query: 3, kv: 3, dim: 64 }, 61, 1000, true),
        // Large blocks.
        (Heads { query: 3, kv: 3, dim: 64 }, 61, 1, false),
        (Heads { query: 4, kv: 2, dim: 16 }, 0, 1, false),
        (Heads { query: 3, kv: 3, dim: 64 }, 61, 1, true),
        (Heads { query: 4, kv: 2, dim: 16 }, 0, 1, true),
    ] {
        let Some(runtime) = gpu_as(processors, hopper) else { return };
        let mut numbers = Numbers(9);
        let (norm, rope) =
            (Norm { weight: numbers.vec(cols), eps: 1e-5 }, Rope::new(THETA, 4.0, (1.0, 6.0), heads.dim));
        let (linear, x, table) = (linear(&mut numbers, heads.row(), cols), numbers.vec(140 * cols), pages(start + 140));
        let projection = Projection { norm: &norm, linear: &linear, rope: &rope, heads, layer: 0, window: None };
        let of = |tokens: usize, watch: Option<&mut Watch>| {
            let mut kv = store(&runtime, start + 140, heads);
            poison(&runtime);
            let tap = watch.map(|watch| watch as &mut dyn Tap);
            let mut step = step(&runtime, (&mut kv, &table), (start, tokens), heads, tap);
            let qkv = rope::project(&mut step, &tensor(&runtime, cols, &x[..tokens * cols]), &projection).unwrap();
            let qkv = values(&qkv);
            (qkv, kv[0].device().0.download().unwrap(), kv[0].device().1.download().unwrap())
        };
        let whole = of(140, None).0;
        for tokens in [140, 70, 64, 33, 20, 9, 8, 3, 1] {
            let mut watch = Watch(Vec::new());
            let (alone, watched) = (of(tokens, None), of(tokens, Some(&mut watch)));
            assert_eq!(watch.0, ["rms_norm", "linear", "rope"]);
            same_bits(&alone.0, &watched.0, &format!("{heads:?}, {tokens} tokens"));
            assert!(alone.1 == watched.1 && alone.2 == watched.2, "{heads:?}, {tokens} tokens: pages");
            same_bits(&alone.0, &whole[..tokens * heads.row()], &format!("{heads:?}, {tokens} of 140 tokens"));
        }
    }
}

/// Norm and routes in one kernel, tokens alone and by four.
#[test]
fn routes_are_those_of_normalised_tokens() {
    let (cols, none) = (160, PageTable::default());
    for (count, k) in [(4, 2), (32, 4), (100, 4)] {
        let Some(runtime) = gpu() else { return };
        let mut numbers = Numbers(10);
        let norm = Norm { weight: numbers.vec(cols), eps: 1e-5 };
        let (linear, x) = (linear(&mut numbers, count, cols), numbers.vec(70 * cols));
        let of = |tokens: usize, watch: Option<&mut Watch>| {
            let sequences = vec![Sequence { rows: 0..tokens, start: 0, full: &none, sliding: &none, adapter: None }];
            let tap = watch.map(|watch| watch as &mut dyn Tap);
            let (runtime, phase) = (&runtime, Phase::Inference);
            let mut step = Step { runtime, phase, sequences, kv: &mut [], logits_rows: vec![], tap };
            let x = tensor(runtime, cols, &x[..tokens * cols]);
            let (t, routes) = router::norm_forward(&mut step, &x, &norm, &linear, k).unwrap();
            let device = routes.device.unwrap();
            (values(&t), device.experts.download().unwrap(), device.weights.download().unwrap())
        };
        let whole = of(70, None);
        for tokens in [70, 67, 64, 5, 1] {
            let mut watch = Watch(Vec::new());
            let (alone, watched) = (of(tokens, None), of(tokens, Some(&mut watch)));
            assert_eq!(watch.0, ["rms_norm", "router"]);
            for (alone, other) in [(&alone.0, &watched.0), (&alone.1, &watched.1), (&alone.2, &watched.2)] {
                same_bits(alone, other, &format!("{count} experts, {tokens} tokens"));
            }
            for (alone, whole) in [(&alone.0, &whole.0), (&alone.1, &whole.1), (&alone.2, &whole.2)] {
                same_bits(alone, &whole[..alone.len()], &format!("{count} experts, {tokens} of 70 tokens"));
            }
        }
    }
}

/// As the processor finds it: the lowest id of the largest logit, zeros equal, nothing where one is not finite.
#[test]
fn the_best_tokens_are_the_processors() {
    let Some(runtime) = gpu() else { return };
    let mut numbers = Numbers(13);
    for (rows, vocab) in [(1, 1), (3, 50), (5, 300), (2, 20_011)] {
        // Few different values, so that the largest is there more than once.
        let mut logits: Vec<f32> = numbers.vec(rows * vocab).iter().map(|v| (v * 8.0).round() - 9.0).collect();
        let best = |logits: &[f32]| {
            sample::best(&tensor(&runtime, vocab, logits), &runtime.device).unwrap().expect("logits on a device")
        };
        let want = |logits: &[f32]| logits.chunks_exact(vocab).map(sample::argmax).collect::<Vec<_>>();
        assert_eq!(best(&logits), want(&logits), "{rows} x {vocab}");
        let last = logits.len() - 1;
        for (at, value) in [(0, f32::MAX), (last, f32::MAX), (last / 2, f32::NAN), (last, f32::INFINITY)] {
            logits[at] = value;
            assert_eq!(best(&logits), want(&logits), "{rows} x {vocab}, {value} at {at}");
        }
        logits.fill(-1.0);
        (logits[last], logits[last - vocab / 2]) = (0.0, -0.0);
        assert_eq!(best(&logits), want(&logits), "{rows} x {vocab}, zeros");
        // A model's logits are finite: minus infinity, which a sampler passes over, is a fault of a step.
        logits[0] = f32::NEG_INFINITY;
        assert_eq!(best(&logits)[0], None);
    }
}

/// More spans than the last block of a tile joins, beside the processor; two rows together and alone.
#[test]
fn many_spans_are_joined_apart() {
    let (heads, prefix) = (Heads { query: 4, kv: 2, dim: 16 }, 8500);
    let mut numbers = Numbers(11);
    let (rows, sinks) = (numbers.vec((prefix + 2) * heads.row()), numbers.vec(heads.query));
    let rope = Rope::new(THETA, 4.0, (1.0, 6.0), heads.dim);
    let table = pages(prefix + 2);
    let of = |runtime: &Runtime, together: usize| {
        let mut kv = store(runtime, prefix + 2, heads);
        let mut all = Vec::new();
        let starts = (prefix..prefix + 2).step_by(together).map(|start| (start, together));
        for (start, count) in std::iter::once((0, prefix)).chain(starts) {
            let mut step = step(runtime, (&mut kv, &table), (start, count), heads, None);
            let mut qkv = tensor(runtime, heads.row(), &rows[start * heads.row()..(start + count) * heads.row()]);
            rope::forward(&mut step, &mut qkv, &rope, heads, 0, None).unwrap();
            if start >= prefix {
                let shape = Shape { heads, window: None, layer: 0 };
                all.extend(values(&attention::forward(&mut step, &qkv, &sinks, &shape).unwrap()));
            }
        }
        all
    };
    let Some(runtime) = gpu() else { return };
    let (want, got) = (of(&cpu(), 2), of(&runtime, 2));
    close(&got, &want.into_iter().map(f64::from).collect::<Vec<_>>(), 1e-5, "8,500 positions");
    same_bits(&of(&runtime, 1), &got, "one by one");
}

/// A decoded token takes six kernels a layer, whatever its attention sees.
#[test]
fn a_layer_takes_six_kernels() {
    let (heads, cols, units) = (Heads { query: 4, kv: 2, dim: 16 }, 64, 32);
    for (start, window) in [(10, None), (700, None), (700, Some(128))] {
        let Some(runtime) = gpu() else { return };
        let Device::Cuda(gpu) = &runtime.device else { unreachable!() };
        let mut numbers = Numbers(12);
        let norm = Norm { weight: numbers.vec(cols), eps: 1e-5 };
        let rope = Rope::new(THETA, 4.0, (1.0, 6.0), heads.dim);
        let (qkv, out) = (linear(&mut numbers, heads.row(), cols), linear(&mut numbers, cols, heads.query * heads.dim));
        let (routing, sinks) = (linear(&mut numbers, 4, cols), numbers.vec(heads.query));
        let experts = some_experts(&mut numbers, Kind::Mxfp4Halves, (4, units, cols));
        let (mut kv, table) = (store(&runtime, start + 1, heads), pages(start + 1));
        let row = numbers.vec(cols);
        let projection = Projection { norm: &norm, linear: &qkv, rope: &rope, heads, layer: 0, window };
        let mut two_layers = || {
            let mut step = step(&runtime, (&mut kv, &table), (start, 1), heads, None);
            let mut x = tensor(&runtime, cols, &row);
            [(); 2].map(|()| {
                let before = gpu.launches.load(Ordering::Relaxed);
                let qkv = rope::project(&mut step, &x, &projection).unwrap();
                let o = attention::forward(&mut step, &qkv, &sinks, &Shape { heads, window, layer: 0 }).unwrap();
                linear::add_forward(&mut step, &o, &out, &mut x).unwrap();
                let (t, routes) = router::norm_forward(&mut step, &x, &norm, &routing, 2).unwrap();
                experts::add_forward(&mut step, &t, &routes, &experts, &mut x).unwrap();
                gpu.launches.load(Ordering::Relaxed) - before
            })
        };
        // Weights go over in the first step; the first layer of each makes the angles of its positions.
        two_layers();
        assert_eq!(two_layers(), [7, 6], "{start} positions before, window {window:?}");
    }
}
