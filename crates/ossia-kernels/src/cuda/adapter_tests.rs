//! Holds what adapters add on a GPU to the formulas in f64: several adapters and the base in one step, a row's bits the same
//! alone and in company. Without a GPU there is nothing to run: see `tests`.

use super::tests::{cpu, gpu, poison, said_with, some_experts, tensor, values};
use super::{Device, Gpu};
use crate::kv::PageTable;
use crate::matrix::Kind;
use crate::ops::experts::{self, Experts, ExpertsAdapter, Pair};
use crate::ops::linear::{self, Linear, Part};
use crate::ops::low_rank::LowRank;
use crate::ops::rms_norm::Norm;
use crate::ops::router;
use crate::testing::{Numbers, close, same_bits};
use crate::{FloatPart, Floats, Phase, Runtime, Sequence, Step, Tensor};

fn part(numbers: &mut Numbers, len: usize) -> FloatPart {
    Floats::new(numbers.vec(len)).part(0..len).unwrap()
}

/// Sequences of so many rows with their adapters, and which rows want logits; the step is begun.
fn step<'a>(
    runtime: &'a Runtime,
    none: &'a PageTable,
    lengths: &[(usize, Option<usize>)],
    logits_rows: Vec<u32>,
) -> Step<'a> {
    let mut end = 0;
    let sequences = lengths.iter().map(|&(rows, adapter)| {
        end += rows;
        Sequence { rows: end - rows..end, start: 0, full: none, sliding: none, adapter }
    });
    let (sequences, phase) = (sequences.collect(), Phase::Inference);
    let step = Step { runtime, phase, sequences, kv: &mut [], logits_rows, tap: None };
    if let Device::Cuda(gpu) = &runtime.device {
        gpu.begin(&step, &vec![0; end], 1).unwrap();
    }
    step
}

/// The slot of each row.
fn slots(lengths: &[(usize, Option<usize>)]) -> Vec<Option<usize>> {
    lengths.iter().flat_map(|&(rows, slot)| std::iter::repeat_n(slot, rows)).collect()
}

/// s B (A x) for one row in f64.
fn low_rank(a: &[f32], b: &[f32], rank: usize, scale: f32, x: &[f32]) -> Vec<f64> {
    let dot = |a: &[f32], x: &[f64]| a.iter().zip(x).map(|(&a, x)| f64::from(a) * x).sum::<f64>();
    let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
    let u: Vec<f64> = a.chunks_exact(x.len()).map(|a| f64::from(scale) * dot(a, &x)).collect();
    b.chunks_exact(rank).map(|b| dot(b, &u)).collect()
}

const TOGETHER: [(usize, Option<usize>); 6] =
    [(3, Some(2)), (70, None), (1, Some(0)), (2, Some(2)), (1, Some(0)), (1, Some(ABOVE))];

/// A slot of the model behind all that these weights have: its adapter is of other weights.
const ABOVE: usize = 5;

/// A linear layer with two ranges of outputs in one adapter and one in another, a slot between them empty; all rows, and
/// those that want logits.
#[test]
fn linear_adds_what_each_rows_adapter_says() {
    let (none, mut numbers) = (PageTable::default(), Numbers(31));
    for (rows, cols) in [(40, 96), (300, 64)] {
        let Some(runtime) = gpu() else { return };
        let weight = numbers.matrix(Kind::BF16, rows, cols);
        let mut linear = Linear::new(vec![Part { weight, bias: Some(numbers.vec(rows)) }]);
        let all = slots(&TOGETHER);
        let x = numbers.vec(all.len() * cols);
        let of = |linear: &Linear, lengths: &[(usize, Option<usize>)], x: &[f32], logits: Vec<u32>| {
            let mut step = step(&runtime, &none, lengths, logits);
            poison(&runtime);
            values(&linear::forward(&mut step, &tensor(&runtime, cols, x), linear).unwrap())
        };
        let base = of(&linear, &TOGETHER, &x, vec![]);
        // (slot, rank, scale, outputs).
        let parts = [(2, 3, 0.5, 0..17), (2, 3, 0.5, 20..rows), (0, 16, -1.5, 5..33)];
        let factors: Vec<_> = parts
            .iter()
            .map(|(_, rank, _, out)| (part(&mut numbers, rank * cols), part(&mut numbers, out.len() * rank)))
            .collect();
        let made = |slot: usize| -> Vec<LowRank> {
            let own = parts.iter().zip(&factors).filter(|(part, _)| part.0 == slot);
            own.map(|((_, rank, scale, out), (a, b))| LowRank::new(a.clone(), b.clone(), *rank, *scale, out.start))
                .collect()
        };
        linear.attach(2, made(2));
        linear.attach(0, made(0));
        let mut want: Vec<f64> = base.iter().map(|&v| f64::from(v)).collect();
        for (row, slot) in all.iter().enumerate() {
            for ((_, rank, scale, out), (a, b)) in parts.iter().zip(&factors).filter(|(part, _)| Some(part.0) == *slot)
            {
                let added = low_rank(a, b, *rank, *scale, &x[row * cols..][..cols]);
                want[row * rows..][out.clone()].iter_mut().zip(added).for_each(|(y, v)| *y += v);
            }
        }
        let got = of(&linear, &TOGETHER, &x, vec![]);
        close(&got, &want, 1e-6, &format!("{rows} x {cols}"));
        for (row, slot) in all.iter().enumerate() {
            let own = row * rows..(row + 1) * rows;
            if slot.is_none_or(|slot| slot == ABOVE) {
                same_bits(&got[own.clone()], &base[own.clone()], "the base");
            }
            same_bits(
                &of(&linear, &[(1, *slot)], &x[row * cols..][..cols], vec![]),
                &got[own],
                &format!("row {row} alone"),
            );
        }
        let chosen = [1usize, 30, 73, 77];
        let rows_of = |width: usize, values: &[f32]| chosen.map(|row| values[row * width..][..width].to_vec()).concat();
        let logits = of(&linear, &TOGETHER, &rows_of(cols, &x), chosen.map(|row| row as u32).to_vec());
        same_bits(&logits, &rows_of(rows, &got), "rows that want logits");
        linear.detach(2);
        linear.detach(0);
        same_bits(&of(&linear, &TOGETHER, &x, vec![]), &base, "taken away");
    }
}

/// A grid's second and third sides end at 65,535.
#[test]
fn a_step_may_have_more_rows_than_a_grids_second_side() {
    let Some(runtime) = gpu() else { return };
    let (none, mut numbers, (rows, cols)) = (PageTable::default(), Numbers(34), (16, 32));
    let mut linear = Linear::new(vec![Part { weight: numbers.matrix(Kind::BF16, rows, cols), bias: None }]);
    let (a, b) = (part(&mut numbers, cols), part(&mut numbers, rows));
    linear.attach(0, vec![LowRank::new(a.clone(), b.clone(), 1, 1.0, 0)]);
    let many = usize::from(u16::MAX) + 2;
    let x = tensor(&runtime, cols, &vec![1.0; many * cols]);
    let of = |lengths: &[(usize, Option<usize>)]| {
        let mut step = step(&runtime, &none, lengths, vec![]);
        values(&linear::forward(&mut step, &x, &linear).unwrap())
    };
    let (base, got) = (of(&[(many, None)]), of(&[(many - 1, None), (1, Some(0))]));
    let last = (many - 1) * rows;
    same_bits(&got[..last], &base[..last], "rows without an adapter");
    let added = low_rank(&a, &b, 1, 1.0, &vec![1.0; cols]);
    let want: Vec<f64> = base[last..].iter().zip(added).map(|(&base, added)| f64::from(base) + added).collect();
    close(&got[last..], &want, 1e-6, "the last row");
}

fn adapter(
    numbers: &mut Numbers,
    shared: bool,
    (count, units, cols): (usize, usize, usize),
    rank: usize,
) -> ExpertsAdapter {
    let mut list =
        |shared: bool, len: usize| (0..if shared { 1 } else { count }).map(|_| part(numbers, len)).collect::<Vec<_>>();
    let gate_up = Pair { a: list(shared, rank * cols), b: list(false, 2 * units * rank) };
    let down = Pair { a: list(false, rank * units), b: list(shared, cols * rank) };
    ExpertsAdapter { rank, scale: 0.2, gate_up, down }
}

/// x + the experts of each row with its adapter, by the kernels.
fn experts_of(
    (runtime, gpu): (&Runtime, &Gpu),
    experts: &Experts,
    lengths: &[(usize, Option<usize>)],
    (t, x, cols): (&[f32], &[f32], usize),
    (ids, weights): (&[u32], &[f32]),
) -> Vec<f32> {
    let none = PageTable::default();
    let mut step = step(runtime, &none, lengths, vec![]);
    poison(runtime);
    let bytes = |words: Vec<u32>| words.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let (mut chosen, mut shares) = (gpu.take(ids.len()).unwrap(), gpu.take(ids.len()).unwrap());
    chosen.upload(&bytes(ids.to_vec())).unwrap();
    shares.upload(&bytes(weights.iter().map(|v| v.to_bits()).collect())).unwrap();
    let routes = router::Routes {
        per_token: 2,
        experts: runtime.arena.take(0).unwrap(),
        weights: runtime.arena.take(0).unwrap(),
        device: Some(router::cuda::Routes { experts: chosen, weights: shares }),
    };
    let mut y = tensor(runtime, cols, x);
    experts::add_forward(&mut step, &tensor(runtime, cols, t), &routes, experts, &mut y).unwrap();
    values(&y)
}

/// Experts with adapters whose outer factors are shared and with ones of each expert's own, in every tiling.
#[test]
fn experts_add_what_each_pairs_adapter_says() {
    let (count, units, cols) = (4, 96, 160);
    let Some(runtime) = gpu() else { return };
    let Device::Cuda(gpu) = &runtime.device else { unreachable!() };
    let mut numbers = Numbers(32);
    let mut experts = some_experts(&mut numbers, Kind::Mxfp4Pairs, (count, units, cols));
    let all = slots(&TOGETHER);
    let (t, x) = (numbers.vec(all.len() * cols), numbers.vec(all.len() * cols));
    let ids: Vec<u32> = (0..all.len()).flat_map(|_| if numbers.below(3) == 0 { [1, 0] } else { [1, 3] }).collect();
    let weights: Vec<f32> = (0..ids.len()).map(|i| 0.9 - 0.3 * (i % 2) as f32).collect();
    let of = |experts: &Experts, row: usize| {
        let (own, pairs) = (row * cols..(row + 1) * cols, 2 * row..2 * row + 2);
        let input = (&t[own.clone()], &x[own], cols);
        experts_of((&runtime, gpu), experts, &[(1, all[row])], input, (&ids[pairs.clone()], &weights[pairs]))
    };
    let together =
        |experts: &Experts| experts_of((&runtime, gpu), experts, &TOGETHER, (&t, &x, cols), (&ids, &weights));
    let base = together(&experts);
    let shape = (count, units, cols);
    let adapters = [adapter(&mut numbers, true, shape, 3), adapter(&mut numbers, false, shape, 16)];
    experts.attach(2, adapters[0].clone());
    experts.attach(0, adapters[1].clone());
    let got = together(&experts);
    for (row, slot) in all.iter().enumerate() {
        let own = row * cols..(row + 1) * cols;
        same_bits(&of(&experts, row), &got[own.clone()], &format!("row {row} alone"));
        let Some(slot) = slot.filter(|&slot| slot != ABOVE) else {
            same_bits(&got[own.clone()], &base[own], "the base");
            continue;
        };
        let adapter = &adapters[usize::from(slot == 0)];
        let mut want: Vec<f64> = x[own.clone()].iter().map(|&v| f64::from(v)).collect();
        for pair in 2 * row..2 * row + 2 {
            let expert = ids[pair] as usize;
            let of = |list: &'_ [FloatPart]| list[if list.len() == 1 { 0 } else { expert }].to_vec();
            let add = |pair: &Pair, x: &[f32]| low_rank(&of(&pair.a), &of(&pair.b), adapter.rank, adapter.scale, x);
            let gate_up = add(&adapter.gate_up, &t[own.clone()]);
            let said =
                said_with(&experts.experts[expert], &t[own.clone()], 7.0, &gate_up, &|act| add(&adapter.down, act));
            want.iter_mut().zip(said).for_each(|(sum, said)| *sum += f64::from(weights[pair]) * said);
        }
        close(&got[own], &want, 1e-3, &format!("row {row}"));
    }
}

/// Routes are the processor's, with adapters on the router too.
#[test]
fn the_router_listens_to_adapters() {
    let (none, cols) = (PageTable::default(), 96);
    for (count, k) in [(8, 2), (40, 4)] {
        let Some(runtime) = gpu() else { return };
        let mut numbers = Numbers(33);
        let weight = numbers.matrix(Kind::BF16, count, cols);
        let mut linear = Linear::new(vec![Part { weight, bias: Some(numbers.vec(count)) }]);
        let norm = Norm { weight: numbers.vec(cols), eps: 1e-5 };
        let x = numbers.vec(slots(&TOGETHER).len() * cols);
        for (slot, rank) in [(2, 3), (0, 8)] {
            let low_rank =
                LowRank::new(part(&mut numbers, rank * cols), part(&mut numbers, count * rank), rank, 0.3, 0);
            linear.attach(slot, vec![low_rank]);
        }
        let of = |runtime: &Runtime| -> (Tensor, router::Routes) {
            let mut step = step(runtime, &none, &TOGETHER, vec![]);
            router::norm_forward(&mut step, &tensor(runtime, cols, &x), &norm, &linear, k).unwrap()
        };
        let processor = cpu();
        let (want, got) = (of(&processor).1, of(&runtime).1.device.unwrap());
        let chosen: Vec<u32> = got.experts.download().unwrap().iter().map(|v| v.to_bits()).collect();
        assert_eq!(chosen, *want.experts, "{count} experts");
        let want: Vec<f64> = want.weights.iter().map(|&w| f64::from(w)).collect();
        close(&got.weights.download().unwrap(), &want, 1e-5, &format!("{count} experts"));
    }
}
