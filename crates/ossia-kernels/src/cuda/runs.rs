//! Runs of numbers that training changes: master weights, gradients, moments, and what the forward pass sees of weights.
//!
//! The host's run is a name: a part of it is found on the device by where the host has it, as weights are. Its pages are never
//! touched where only the device has the numbers. What a model has copied out of a run (norms, biases) is named besides.

use std::collections::HashMap;
use std::ops::Range;

use super::{Argument, Gpu, Memory, lock};
use crate::Result;

/// All runs of a device.
#[derive(Default)]
pub(super) struct Runs {
    held: Vec<Held>,
    seen: Option<Seen>,
    /// From where a model has a copy to where the run has the numbers.
    names: HashMap<usize, usize>,
}

/// A run of floats.
struct Held {
    host: Range<usize>,
    memory: Memory,
}

/// What the forward pass sees of a run: all of it in bf16, and some ranges exactly.
struct Seen {
    host: Range<usize>,
    halves: Memory,
    exact: Memory,
    /// Ranges of numbers, and where each begins in `exact`.
    places: Vec<(Range<usize>, usize)>,
}

/// Exact ranges that are apart begin at multiples of so many numbers.
const ALIGN: usize = 64;

/// Numbers of room for exact ranges, and where each begins. Neighbours stay neighbours.
fn places(ranges: &[Range<usize>]) -> (usize, Vec<(Range<usize>, usize)>) {
    let (mut at, mut end) = (0usize, None);
    let mut places = Vec::with_capacity(ranges.len());
    for range in ranges {
        if end != Some(range.start) {
            at = at.next_multiple_of(ALIGN);
        }
        places.push((range.clone(), at));
        (at, end) = (at + range.len(), Some(range.end));
    }
    (at, places)
}

fn addresses(values: &[f32]) -> Range<usize> {
    let start = values.as_ptr().addr();
    start..start + size_of_val(values)
}

impl Gpu {
    /// Gives a run of the host zeros on the device. The host's stays where it is as long as the device.
    pub(crate) fn hold(&self, run: &[f32]) -> Result<()> {
        let memory = self.zeros(size_of_val(run))?;
        lock(&self.runs).held.push(Held { host: addresses(run), memory });
        Ok(())
    }

    /// The same for what the forward pass sees: all in bf16, `exact` ranges, ascending, in f32 as well.
    pub(crate) fn hold_seen(&self, run: &[f32], exact: &[Range<usize>]) -> Result<()> {
        let (len, places) = places(exact);
        let (halves, exact) = (self.zeros(2 * run.len())?, self.zeros(4 * len)?);
        lock(&self.runs).seen = Some(Seen { host: addresses(run), halves, exact, places });
        Ok(())
    }

    /// Bytes that [`Gpu::hold_seen`] takes for so many numbers.
    pub fn seen_bytes(len: usize, exact: &[Range<usize>]) -> usize {
        2 * len + 4 * places(exact).0
    }

    /// Where the device has a part of a run.
    ///
    /// # Panics
    /// Where it is not a part of one that is held.
    pub(crate) fn part(&self, part: &[f32]) -> Argument {
        let (runs, part) = (lock(&self.runs), addresses(part));
        let inside = |held: &&Held| held.host.start <= part.start && part.end <= held.host.end;
        let held = runs.held.iter().find(inside).expect("cuda: what is trained is held by the device");
        Argument::from(&held.memory).plus(part.start - held.host.start)
    }

    /// Copies a whole run to the device.
    pub(crate) fn send(&self, run: &[f32]) -> Result<()> {
        let mut runs = lock(&self.runs);
        let held = runs.held.iter_mut().find(|held| held.host == addresses(run)).expect("cuda: a run that is held");
        // SAFETY: floats have no padding, and bytes need no alignment.
        held.memory.put(0, unsafe { std::slice::from_raw_parts(run.as_ptr().cast(), size_of_val(run)) })
    }

    /// Copies a whole run to the host.
    pub(crate) fn fetch(&self, run: &mut [f32]) -> Result<()> {
        let runs = lock(&self.runs);
        let held = runs.held.iter().find(|held| held.host == addresses(run)).expect("cuda: a run that is held");
        // SAFETY: four bytes a number, any of which is one.
        held.memory.get(unsafe { std::slice::from_raw_parts_mut(run.as_mut_ptr().cast(), size_of_val(run)) })
    }

    /// Zeros everywhere in a run.
    pub(crate) fn clear(&self, run: &[f32]) -> Result<()> {
        let mut runs = lock(&self.runs);
        runs.held.iter_mut().find(|held| held.host == addresses(run)).expect("cuda: a run that is held").memory.clear()
    }

    /// Names what a model has copied out of the run that is seen: pairs of a copy and its place there. Earlier names end.
    pub(crate) fn name(&self, names: &[(&[f32], &[f32])]) {
        let address = |values: &[f32]| values.as_ptr().addr();
        lock(&self.runs).names = names.iter().map(|(copy, place)| (address(copy), address(place))).collect();
    }

    /// The bf16 of numbers that are seen, from `at` on; nothing for what is no part of the run.
    pub(crate) fn seen_halves(&self, at: *const ()) -> Option<Argument> {
        let runs = lock(&self.runs);
        let seen = runs.seen.as_ref().filter(|seen| seen.host.contains(&at.addr()))?;
        Some(Argument::from(&seen.halves).plus((at.addr() - seen.host.start) / 2))
    }

    /// Bytes from anywhere on the device.
    #[cfg(test)]
    pub(crate) fn download_for_test(&self, from: Argument, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.context.download(from.0, &mut bytes).unwrap();
        bytes
    }

    /// The exact numbers that are seen, from `at` on; nothing for what is neither a part of the run nor named.
    pub(crate) fn seen_exact(&self, at: *const ()) -> Option<Argument> {
        let runs = lock(&self.runs);
        let at = runs.names.get(&at.addr()).copied().unwrap_or(at.addr());
        let seen = runs.seen.as_ref().filter(|seen| seen.host.contains(&at))?;
        let number = (at - seen.host.start) / 4;
        let index = seen.places.partition_point(|(range, _)| range.start <= number).checked_sub(1)?;
        let (range, place) = seen.places.get(index).filter(|(range, _)| range.contains(&number))?;
        Some(Argument::from(&seen.exact).plus(4 * (place + number - range.start)))
    }
}
