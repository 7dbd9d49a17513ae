//! How much f32 arithmetic this machine can do: the inner loop of `gemm` on numbers that stay in the caches.

use std::time::Instant;

use super::disjoint::Disjoint;
use super::gemm::{Product, Target, View, Weight, Write, apply};
use super::isa::Isa;
use crate::arena::Arena;
use crate::pool::Pool;
use crate::{Precision, Runtime};

/// Rounds, of which the fastest counts: the others were disturbed.
const ROUNDS: usize = 8;

/// Operations a second on `threads` threads; a product and a sum are two. Takes some hundredths of a second.
pub fn flops_per_second(threads: usize, isa: Isa) -> f64 {
    let (rows, outputs, depth) = (768 * threads, 128, 256);
    let pool = Pool::new(threads);
    let arena = Arena::new(super::gemm::scratch_bytes(threads));
    let runtime = Runtime::on_cpu(pool, arena, isa, Precision::F32);
    let (x, w, mut y) = (vec![1.0; rows * depth], vec![1.0; outputs * depth], vec![0.0; rows * outputs]);
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let out = Disjoint::new(&mut y);
        let product = Product {
            x: View::new(&x, depth),
            weight: Weight::PlainRows(View::new(&w, depth)),
            bias: None,
            y: Target { data: &out, stride: outputs, offset: 0 },
            write: Write::Set,
        };
        let start = Instant::now();
        let done = apply(&runtime, &[product]);
        if done.is_ok() {
            best = best.min(start.elapsed().as_secs_f64());
        }
    }
    2.0 * (rows * outputs * depth) as f64 / best
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_machine_does_something() {
        assert!(super::flops_per_second(1, crate::cpu::isa::Isa::detect()) > 1e6);
    }
}
