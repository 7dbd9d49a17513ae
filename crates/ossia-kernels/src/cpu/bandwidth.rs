//! How fast this machine reads memory: the roof of decoding.

use std::time::Instant;

use crate::pool::Pool;

/// Bytes of a task.
const SHARE: usize = 1 << 20;

/// Bytes per second at which `pool` reads `runs`, the best of `rounds` passes after one that brings the pages in.
pub fn read_bytes_per_second(pool: &Pool, runs: &[&[u8]], rounds: usize) -> f64 {
    let shares: Vec<&[u8]> = runs.iter().flat_map(|run| run.chunks(SHARE)).collect();
    let bytes: usize = shares.iter().map(|s| s.len()).sum();
    let pass = || {
        let start = Instant::now();
        pool.run(shares.len(), &|task, _| {
            std::hint::black_box(sum(shares[task]));
        });
        start.elapsed().as_secs_f64()
    };
    pass();
    (0..rounds.max(1)).map(|_| bytes as f64 / pass()).fold(0.0, f64::max)
}

/// Touches every byte in wide words.
fn sum(run: &[u8]) -> u64 {
    let mut lanes = [0u64; 8];
    for words in run.as_chunks::<64>().0 {
        for (lane, word) in lanes.iter_mut().zip(words.as_chunks::<8>().0) {
            *lane = lane.wrapping_add(u64::from_ne_bytes(*word));
        }
    }
    lanes.iter().fold(0, |a, b| a.wrapping_add(*b))
}
