//! Training: the reference's gradients against finite differences, then every version against the reference, and the
//! bits over threads and company.

use std::time::Instant;

use super::super::reference::Documents;
use super::super::{Shape, backward, forward_saving, train_scratch_bytes};
use crate::arena::Arena;
use crate::cpu::isa::Isa;
use crate::kv::PageTable;
use crate::ops::rope::Heads;
use crate::pool::Pool;
use crate::testing::{Numbers, close, same_bits, tensor};
use crate::{Phase, Precision, Runtime, Sequence, Step, Tensor};

const fn heads(query: usize, kv: usize, dim: usize) -> Heads {
    Heads { query, kv, dim }
}

/// Documents with their numbers, and the gradient of o.
#[derive(Clone)]
struct Case {
    heads: Heads,
    window: Option<usize>,
    lengths: Vec<usize>,
    qkv: Vec<f32>,
    sinks: Vec<f32>,
    d_o: Vec<f32>,
}

/// What a run gives.
struct Results {
    o: Vec<f32>,
    lse: Vec<f32>,
    d_qkv: Vec<f32>,
    d_sinks: Vec<f32>,
}

fn f64s(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

impl Case {
    fn new(seed: u64, heads: Heads, window: Option<usize>, lengths: &[usize]) -> Self {
        let mut numbers = Numbers(seed);
        let tokens: usize = lengths.iter().sum();
        Self {
            heads,
            window,
            lengths: lengths.to_vec(),
            qkv: numbers.vec(tokens * heads.row()).iter().map(|v| v * 2.0).collect(),
            sinks: numbers.vec(heads.query),
            d_o: numbers.vec(tokens * heads.query * heads.dim),
        }
    }

    /// One of the documents.
    fn alone(&self, document: usize) -> Self {
        let first: usize = self.lengths[..document].iter().sum();
        let rows = first..first + self.lengths[document];
        let cut = |all: &[f32], width: usize| all[rows.start * width..rows.end * width].to_vec();
        Self {
            lengths: vec![self.lengths[document]],
            qkv: cut(&self.qkv, self.heads.row()),
            d_o: cut(&self.d_o, self.heads.query * self.heads.dim),
            ..self.clone()
        }
    }

    fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// A machine with exactly the scratch that the plan counts.
    fn runtime(&self, isa: Isa, threads: usize) -> Runtime {
        let (tokens, heads) = (self.tokens(), self.heads);
        let tensors = [heads.row(), heads.row(), heads.query * heads.dim, heads.query * heads.dim, heads.query];
        let bytes = tensors.map(|cols| Arena::size_of::<f32>(tokens * cols)).iter().sum::<usize>();
        let arena = Arena::new(bytes + train_scratch_bytes(threads, heads));
        Runtime::on_cpu(Pool::new(threads), arena, isa, Precision::F32)
    }

    /// Both directions, on scratch full of not-a-number; the sinks' gradients start at zero.
    fn run(&self, isa: Isa, threads: usize) -> Results {
        let runtime = self.runtime(isa, threads);
        runtime.arena.take::<f32>(runtime.arena.capacity() / 4).unwrap().fill(f32::NAN);
        let pages = PageTable { first: 0, pages: vec![] };
        let mut step = step(&runtime, &self.lengths, &pages);
        let shape = Shape { heads: self.heads, window: self.window, layer: 0 };
        let qkv = tensor(&runtime, self.tokens(), self.heads.row(), &self.qkv);
        let d_o = tensor(&runtime, self.tokens(), self.heads.query * self.heads.dim, &self.d_o);
        let (o, lse) = forward_saving(&mut step, &qkv, &self.sinks, &shape).unwrap();
        let mut d_qkv = Tensor::scratch(&runtime.arena, self.tokens(), self.heads.row()).unwrap();
        let mut d_sinks = vec![0.0; self.heads.query];
        backward(&step, &qkv, &self.sinks, &shape, &o, &lse, &d_o, &mut d_qkv, Some(&mut d_sinks)).unwrap();
        let copy = |t: &Tensor| t.host().to_vec();
        Results { o: copy(&o), lse: copy(&lse), d_qkv: copy(&d_qkv), d_sinks }
    }
}

fn step<'a>(runtime: &'a Runtime, lengths: &[usize], pages: &'a PageTable) -> Step<'a> {
    let mut end = 0;
    let sequence = |&length: &usize| {
        end += length;
        Sequence { rows: end - length..end, start: 0, full: pages, sliding: pages, adapter: None }
    };
    let sequences = lengths.iter().map(sequence).collect();
    Step { runtime, phase: Phase::Training, sequences, kv: &mut [], logits_rows: vec![], tap: None }
}

/// The columns of q, k and v.
fn parts(heads: Heads) -> [std::ops::Range<usize>; 3] {
    let Heads { query, kv, dim } = heads;
    [0..query * dim, query * dim..(query + kv) * dim, (query + kv) * dim..heads.row()]
}

fn columns<T: Copy>(rows: &[T], width: usize, columns: &std::ops::Range<usize>) -> Vec<T> {
    rows.chunks_exact(width).flat_map(|row| row[columns.clone()].to_vec()).collect()
}

/// d(sum of o * d_o) / d(input `at`), by a central difference.
fn difference(case: &Case, input: &mut [f64], at: usize, loss: impl Fn(&[f64]) -> f64) -> f64 {
    const H: f64 = 1e-5;
    let value = input[at];
    let mut loss_at = |x: f64| {
        input[at] = x;
        loss(input)
    };
    let slope = (loss_at(value + H) - loss_at(value - H)) / (2.0 * H);
    input[at] = value;
    assert!(slope.is_finite(), "{:?}", case.heads);
    slope
}

#[test]
fn the_reference_equals_finite_differences() {
    let mut numbers = Numbers(30);
    for heads in [heads(3, 3, 4), heads(4, 2, 4), heads(8, 1, 6)] {
        for window in [1, 2, 5, 100, usize::MAX] {
            let case = Case::new(31, heads, None, &[1, 2, 5, 70, 13]);
            let (mut qkv, mut sinks, d_o) = (f64s(&case.qkv), f64s(&case.sinks), f64s(&case.d_o));
            let loss = |qkv: &[f64], sinks: &[f64]| -> f64 {
                let documents = Documents { qkv, sinks, lengths: &case.lengths, window, heads };
                documents.forward().0.iter().zip(&d_o).map(|(o, d)| o * d).sum()
            };
            let (d_qkv, d_sinks) =
                Documents { qkv: &qkv, sinks: &sinks, lengths: &case.lengths, window, heads }.backward(&d_o);
            let check = |got: f64, want: f64, all: &[f64], what: &str| {
                let largest = all.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                let error = (got - want).abs() / want.abs().max(1e-2 * largest);
                assert!(
                    error <= 1e-6 || largest == 0.0,
                    "{what} {heads:?} {window}: {got}, wanted {want}, {error:.1e}"
                );
            };
            for (part, what) in parts(heads).iter().zip(["q", "k", "v"]) {
                let all = columns(&d_qkv, heads.row(), part);
                for _ in 0..12 {
                    let (row, column) = (numbers.below(case.tokens()), part.start + numbers.below(part.len()));
                    let at = row * heads.row() + column;
                    let want = difference(&case, &mut qkv, at, |qkv| loss(qkv, &sinks));
                    check(d_qkv[at], want, &all, what);
                }
            }
            for head in 0..heads.query {
                let want = difference(&case, &mut sinks, head, |sinks| loss(&qkv, sinks));
                check(d_sinks[head], want, &d_sinks, "sinks");
            }
        }
    }
}

#[test]
fn equals_the_reference() {
    let ragged = [1, 2, 70, 16, 33, 129, 1];
    let cases = [
        (heads(4, 2, 32), None, &ragged[..]),
        (heads(4, 2, 32), Some(64), &[200, 7]),
        (heads(4, 2, 16), Some(1), &ragged),
        (heads(8, 1, 64), Some(5), &ragged),
        (heads(8, 1, 64), None, &[90, 3]),
        (heads(16, 2, 16), Some(2), &[66, 1]),
        (heads(2, 2, 64), Some(1000), &[131]),
        (heads(3, 1, 40), Some(20), &[77, 4]),
        (heads(40, 1, 4), Some(9), &[11, 30]),
        (heads(2, 1, 6), None, &[9]),
    ];
    for (heads, window, lengths) in cases {
        let case = Case::new(32, heads, window, lengths);
        let (qkv, sinks) = (f64s(&case.qkv), f64s(&case.sinks));
        let window_or_all = window.unwrap_or(usize::MAX);
        let documents = Documents { qkv: &qkv, sinks: &sinks, lengths, window: window_or_all, heads };
        let (o, lse) = documents.forward();
        let (d_qkv, d_sinks) = documents.backward(&f64s(&case.d_o));
        for isa in Isa::all() {
            for threads in [1, 3] {
                let got = case.run(isa, threads);
                let what = |part: &str| format!("{part} {} {threads} threads, {heads:?} {window:?}", isa.name());
                close(&got.o, &o, 2e-6, &what("o"));
                close(&got.lse, &lse, 2e-6, &what("lse"));
                for (part, name) in parts(heads).iter().zip(["dq", "dk", "dv"]) {
                    let (got, want) = (columns(&got.d_qkv, heads.row(), part), columns(&d_qkv, heads.row(), part));
                    close(&got, &want, 1e-5, &what(name));
                }
                close(&got.d_sinks, &d_sinks, 1e-5, &what("sinks"));
            }
        }
    }
}

#[test]
fn instruction_sets_with_fma_give_the_same_bits() {
    for (heads, window) in [(heads(4, 2, 32), None), (heads(8, 1, 64), Some(20)), (heads(3, 1, 24), Some(7))] {
        let case = Case::new(37, heads, window, &[70, 1, 150]);
        let all = Isa::all();
        let runs: Vec<Results> = all[1..].iter().map(|&isa| case.run(isa, 1)).collect();
        for pair in runs.windows(2) {
            same_bits(&pair[0].o, &pair[1].o, "o");
            same_bits(&pair[0].lse, &pair[1].lse, "lse");
            same_bits(&pair[0].d_qkv, &pair[1].d_qkv, "qkv");
            same_bits(&pair[0].d_sinks, &pair[1].d_sinks, "sinks");
        }
    }
}

#[test]
fn threads_and_company_do_not_change_a_bit() {
    for (heads, window) in [(heads(4, 2, 32), None), (heads(8, 1, 64), Some(20)), (heads(4, 4, 16), Some(64))] {
        let case = Case::new(33, heads, window, &[70, 1, 150, 16, 3]);
        for isa in Isa::all() {
            let together = case.run(isa, 1);
            let threaded = case.run(isa, 3);
            let (mut alone, mut d_sinks) = (Vec::new(), vec![0.0f32; heads.query]);
            for document in 0..case.lengths.len() {
                let one = case.alone(document).run(isa, 3);
                d_sinks.iter_mut().zip(&one.d_sinks).for_each(|(d, s)| *d += s);
                alone.push(one);
            }
            let joined = |get: fn(&Results) -> &Vec<f32>| alone.iter().flat_map(|r| get(r).clone()).collect::<Vec<_>>();
            let parts: [fn(&Results) -> &Vec<f32>; 3] = [|r| &r.o, |r| &r.lse, |r| &r.d_qkv];
            for get in parts {
                same_bits(get(&threaded), get(&together), "threads");
                same_bits(&joined(get), get(&together), "company");
            }
            same_bits(&threaded.d_sinks, &together.d_sinks, "threads, sinks");
            same_bits(&d_sinks, &together.d_sinks, "company, sinks");
        }
    }
}

#[test]
fn more_documents_than_shares_are_held() {
    let lengths: Vec<usize> = (0..super::DOCUMENTS + 9).map(|i| 1 + i % 3).collect();
    let case = Case::new(34, heads(2, 1, 8), None, &lengths);
    let (qkv, sinks) = (f64s(&case.qkv), f64s(&case.sinks));
    let documents = Documents { qkv: &qkv, sinks: &sinks, lengths: &lengths, window: usize::MAX, heads: case.heads };
    let (d_qkv, d_sinks) = documents.backward(&f64s(&case.d_o));
    let got = case.run(Isa::detect(), 3);
    close(&got.d_qkv, &d_qkv, 1e-5, "qkv");
    close(&got.d_sinks, &d_sinks, 1e-5, "sinks");
}

#[test]
fn not_a_number_stays_visible() {
    for isa in Isa::all() {
        let mut case = Case::new(35, heads(2, 1, 16), Some(8), &[20, 20]);
        case.qkv[25 * case.heads.row()] = f32::NAN;
        let got = case.run(isa, 1);
        assert!(got.o[25 * 32].is_nan() && got.d_qkv[25 * case.heads.row()].is_nan(), "{}", isa.name());
        assert!(got.o[..20 * 32].iter().all(|v| v.is_finite()), "{}: the other document", isa.name());
    }
}

/// Prints GFLOP/s of one thread, 4 d FLOP for each visible pair and head forward, 10 d backward.
#[test]
#[ignore = "a measurement: cargo test --release -p ossia-kernels attention_speed -- --ignored --nocapture"]
fn attention_speed() {
    for (heads, lengths) in [(heads(4, 2, 32), [256; 16]), (heads(8, 1, 64), [256; 16]), (heads(4, 2, 32), [64; 16])] {
        for window in [None, Some(64)] {
            let case = Case::new(36, heads, window, &lengths);
            let pairs: usize =
                lengths.iter().map(|&n| (1..=n).map(|i| i.min(window.unwrap_or(n))).sum::<usize>()).sum();
            for isa in Isa::all() {
                let [forward, backward] = seconds(&case, isa);
                let speed = |flop: usize, seconds: f64| (flop * heads.dim * heads.query * pairs) as f64 / seconds / 1e9;
                println!(
                    "{:7} {heads:?} 16 x {:3} window {window:?}: forward {:5.1}, backward {:5.1} GFLOP/s",
                    isa.name(),
                    lengths[0],
                    speed(4, forward),
                    speed(10, backward)
                );
            }
        }
    }
}

/// The best times of both directions.
fn seconds(case: &Case, isa: Isa) -> [f64; 2] {
    let runtime = Runtime { arena: Arena::new(64 << 20), ..case.runtime(isa, 1) };
    let pages = PageTable { first: 0, pages: vec![] };
    let mut step = step(&runtime, &case.lengths, &pages);
    let shape = Shape { heads: case.heads, window: case.window, layer: 0 };
    let qkv = tensor(&runtime, case.tokens(), case.heads.row(), &case.qkv);
    let d_o = tensor(&runtime, case.tokens(), case.heads.query * case.heads.dim, &case.d_o);
    let mut d_qkv = Tensor::scratch(&runtime.arena, case.tokens(), case.heads.row()).unwrap();
    let mut d_sinks = vec![0.0; case.heads.query];
    let mut best = [f64::MAX; 2];
    for _ in 0..30 {
        let start = Instant::now();
        let (o, lse) = forward_saving(&mut step, &qkv, &case.sinks, &shape).unwrap();
        best[0] = best[0].min(start.elapsed().as_secs_f64());
        let start = Instant::now();
        backward(&step, &qkv, &case.sinks, &shape, &o, &lse, &d_o, &mut d_qkv, Some(&mut d_sinks)).unwrap();
        best[1] = best[1].min(start.elapsed().as_secs_f64());
    }
    best
}
