//! The launcher; the kernel is in `train.cu`. A range is cut into shares, whose sums are added in order.

use std::ops::Range;

use crate::Result;
use crate::cuda::{Gpu, Shape};

/// The most numbers of a share.
const SHARE: usize = 1 << 16;

fn shares(range: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = range.end;
    range.clone().step_by(SHARE).map(move |first| first..(first + SHARE).min(end))
}

/// Numbers of four bytes of scratch for ranges.
pub fn scratch_len(ranges: &[Range<usize>]) -> usize {
    6 * ranges.iter().map(|range| range.len().div_ceil(SHARE)).sum::<usize>()
}

pub(super) fn forward(gpu: &Gpu, x: &[f32], ranges: &[Range<usize>]) -> Result<Vec<f64>> {
    let all: Vec<Range<usize>> = ranges.iter().flat_map(shares).collect();
    let table = all.iter().flat_map(|share| [share.start as u64, share.len() as u64]);
    let (mut places, sums) = (gpu.take(4 * all.len())?, gpu.take(2 * all.len())?);
    places.upload(&table.flat_map(u64::to_le_bytes).collect::<Vec<_>>())?;
    let arguments = [gpu.part(x), (&places).into(), (&sums).into()];
    // SAFETY: (x, shares, out); shares lie inside x.
    unsafe {
        gpu.launch("squares.train", "squares", Shape { grid: (all.len(), 1, 1), threads: 256, shared: 0 }, &arguments)?;
    }
    let words = sums.download()?;
    let sums = words
        .as_chunks()
        .0
        .iter()
        .map(|[low, high]| f64::from_bits(u64::from(low.to_bits()) | u64::from(high.to_bits()) << 32));
    let mut sums = sums.collect::<Vec<_>>().into_iter();
    Ok(ranges.iter().map(|range| sums.by_ref().take(range.len().div_ceil(SHARE)).sum()).collect())
}
