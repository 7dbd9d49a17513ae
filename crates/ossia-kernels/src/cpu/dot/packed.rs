//! Tokens of lists side by side, as the kernels for many of them want them: AMX in tile registers, AVX2 in lanes.
//!
//! That is done once for an op, and every tile of weights profits.

use std::ops::Range;

use super::lanes_avx2::{Formats, Plan};
use super::lists::{MOST_TILES, Products};
use super::quantize::Weights;
use super::{Input, Panel, TILE, amx, lanes_avx2};
use crate::arena::{Arena, Slice};
use crate::cpu::disjoint::Disjoint;
use crate::cpu::isa::Isa;
use crate::matrix::Matrix;
use crate::{Result, Runtime};

/// How tokens lie.
#[derive(Clone, Copy)]
enum Form {
    /// For tile registers, and whether they meet Q8.
    Amx { q8: bool },
    /// For lanes.
    Lanes(Formats),
}

impl Form {
    /// For Q8 or MXFP4.
    fn of(isa: Isa, q8: bool) -> Option<Self> {
        match (isa, q8) {
            (Isa::Amx, q8) => Some(Form::Amx { q8 }),
            (Isa::Avx2, false) => Some(Form::Lanes(Formats::Codes)),
            (Isa::Avx2, true) => Some(Form::Lanes(Formats::Bytes)),
            (Isa::AvxVnni, false) => Some(Form::Lanes(Formats::VnniCodes)),
            (Isa::AvxVnni, true) => Some(Form::Lanes(Formats::VnniBytes)),
            (Isa::Scalar | Isa::Avx512, _) => None,
        }
    }

    /// How many of a list's tokens, its first ones, are laid down; the units that they take; and how many of those meet weights at
    /// once.
    const fn plan(self, tokens: usize) -> (usize, usize, usize) {
        match self {
            Form::Amx { q8 } if tokens < amx::least_tokens(q8) => (0, 0, 1),
            Form::Amx { .. } => (tokens, tokens.div_ceil(amx::TOKENS), 1),
            Form::Lanes(format) => {
                let plan = Plan::of(format, tokens);
                (plan.tokens, plan.vectors, plan.part)
            }
        }
    }

    /// Units that lists with so many tokens in all take, at most.
    fn most_units(self, lists: usize, tokens: usize) -> usize {
        match self {
            // Each list may leave all but one of its last unit's places empty.
            Form::Amx { q8 } => tokens.div_ceil(amx::TOKENS) + lists.min(tokens / amx::least_tokens(q8)),
            Form::Lanes(_) => Plan::most_vectors(lists, tokens),
        }
    }

    /// Bytes and scales of a unit.
    fn sizes(self, cols: usize) -> (usize, usize) {
        match self {
            Form::Amx { .. } => amx::sizes(cols),
            Form::Lanes(format) => (format.bytes(cols), 0),
        }
    }

    /// Bytes that are read past the end.
    const fn read_further(self) -> usize {
        match self {
            Form::Amx { .. } => amx::READ_FURTHER,
            Form::Lanes(_) => 0,
        }
    }

    fn scratch_bytes(self, lists: usize, tokens: usize, cols: usize) -> usize {
        let units = self.most_units(lists, tokens);
        let (planes, scales) = self.sizes(cols);
        Arena::size_of::<u8>(units * planes + self.read_further()) + Arena::size_of::<f32>(units * scales)
    }
}

/// The lists that are long enough, or their beginnings.
pub struct Packed {
    form: Form,
    /// Where each list's planes begin, in units; nothing for lists that are too short.
    starts: Vec<Option<usize>>,
    planes: Slice<u8>,
    scales: Slice<f32>,
    /// Bytes and scales of a unit.
    sizes: (usize, usize),
}

impl Packed {
    /// Nothing, where there is no kernel for it or no list.
    pub fn new(runtime: &Runtime, x: &Input, cols: usize, lists: &[&[u32]]) -> Result<Option<Self>> {
        let Input::Int8(x) = x else { return Ok(None) };
        let Some(form) = Form::of(runtime.isa, x.weights() == Weights::Bytes) else { return Ok(None) };
        let mut units = 0;
        let place = |list: &&[u32]| {
            let (start, (tokens, own, _)) = (units, form.plan(list.len()));
            units += own;
            (tokens > 0).then_some(start)
        };
        let starts: Vec<_> = lists.iter().map(place).collect();
        if units == 0 {
            return Ok(None);
        }
        let sizes = form.sizes(cols);
        let mut planes = runtime.arena.take(units * sizes.0 + form.read_further())?;
        let mut scales = runtime.arena.take(units * sizes.1)?;
        let parts: Vec<_> = starts
            .iter()
            .zip(lists)
            .filter_map(|(start, list)| start.map(|start| (start, *list)))
            .flat_map(|(start, list)| {
                let (_, units, size) = form.plan(list.len());
                (0..units).step_by(size).map(move |unit| (start, unit..units.min(unit + size), list))
            })
            .collect();
        let (planes_out, scales_out) = (Disjoint::new(&mut planes), Disjoint::new(&mut scales));
        runtime.pool.run_ranges(parts.len(), 1, |range, _| {
            for (start, units, list) in parts[range].iter().cloned() {
                let (at, end) = (start + units.start, start + units.end);
                let of_amx = || &list[units.start * amx::TOKENS..list.len().min(units.end * amx::TOKENS)];
                // SAFETY: a place for each part; the form's features were detected.
                unsafe {
                    let planes = planes_out.part(at * sizes.0..end * sizes.0);
                    let scales = scales_out.part(at * sizes.1..end * sizes.1);
                    match form {
                        Form::Amx { .. } => amx::pack(x, of_amx(), planes, scales),
                        Form::Lanes(format) => {
                            lanes_avx2::pack(format, x, list, Plan::of(format, list.len()), units.start, planes);
                        }
                    }
                }
            }
        });
        Ok(Some(Self { form, starts, planes, scales, sizes }))
    }

    /// Bytes of scratch for up to `lists` lists that have up to `tokens` tokens in all.
    pub fn scratch_bytes(isa: Isa, lists: usize, tokens: usize, cols: usize) -> usize {
        let forms = [false, true].into_iter().filter_map(|q8| Form::of(isa, q8));
        forms.map(|form| form.scratch_bytes(lists, tokens, cols)).max().unwrap_or(0)
    }

    /// How many tiles of a list are best taken at once.
    pub fn tiles_at_once(&self, list: usize) -> usize {
        match (self.form, self.starts[list]) {
            (Form::Lanes(_), Some(_)) => MOST_TILES,
            _ => 1,
        }
    }

    /// Computes those of the list's `tokens` tokens that were packed, and says how many. There are [`Self::tiles_at_once`] tiles at most.
    pub fn tiles(
        &self,
        (list, tokens): (usize, usize),
        m: &Matrix,
        tiles: Range<usize>,
        panel: &mut Panel,
        out: &mut [Products],
    ) -> usize {
        let Some(start) = self.starts[list] else { return 0 };
        let (num, ..) = self.form.plan(tokens);
        let (planes, scales) = (&self.planes[start * self.sizes.0..], &self.scales[start * self.sizes.1..]);
        let (row, first) = (tiles.start * TILE, &mut out[0][..num]);
        // SAFETY: the form's features were detected where something is packed.
        unsafe {
            match self.form {
                Form::Amx { q8: false } => amx::codes(m, row, (planes, scales), panel, first),
                Form::Amx { q8: true } => amx::bytes(m, row, (planes, scales), panel, first),
                Form::Lanes(format) => {
                    lanes_avx2::tiles(format, m, tiles, (planes, Plan::of(format, tokens)), panel, out);
                }
            }
        }
        num
    }
}
