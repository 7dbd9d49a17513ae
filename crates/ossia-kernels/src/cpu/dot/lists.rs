//! Lists of tokens that meet the same weights: all of a dense layer's, those of one expert.
//!
//! AMX wants the tokens of a list side by side. That is done once for an op, and every tile of weights profits.

use super::{Input, Panel, TILE, tile};
use crate::Result;
use crate::Runtime;
#[cfg(target_arch = "x86_64")]
use crate::arena::{Arena, Slice};
use crate::cpu::isa::Isa;
use crate::matrix::Matrix;

/// Tokens of a list, at most.
pub const MOST_TOKENS: usize = 128;

/// Some lists of tokens of an input.
pub struct Lists<'a> {
    isa: Isa,
    x: &'a Input<'a>,
    lists: Vec<&'a [u32]>,
    #[cfg(target_arch = "x86_64")]
    packed: Option<Packed>,
}

impl<'a> Lists<'a> {
    /// Makes `lists` of tokens of `x`, rows of `cols`, ready. None is longer than [`MOST_TOKENS`].
    pub fn new(runtime: &Runtime, x: &'a Input<'a>, cols: usize, lists: Vec<&'a [u32]>) -> Result<Self> {
        assert!(lists.iter().all(|list| list.len() <= MOST_TOKENS));
        #[cfg(target_arch = "x86_64")]
        let packed = Packed::new(runtime, x, cols, &lists)?;
        let isa = runtime.isa;
        let _ = cols;
        Ok(Self {
            isa,
            x,
            lists,
            #[cfg(target_arch = "x86_64")]
            packed,
        })
    }

    /// Bytes of scratch for up to `lists` lists that have up to `tokens` tokens in all.
    pub fn scratch_bytes(lists: usize, tokens: usize, cols: usize) -> usize {
        #[cfg(target_arch = "x86_64")]
        if Isa::detect() == Isa::Amx {
            return Packed::scratch_bytes(lists, tokens, cols);
        }
        let _ = (lists, tokens, cols);
        0
    }

    /// The tokens of a list.
    pub fn tokens(&self, list: usize) -> &'a [u32] {
        self.lists[list]
    }

    /// out[i][r] = W[row + r] · x[tokens[i]] for a list and the sixteen rows from `row` on; rows past the last repeat it.
    pub fn tile(&self, list: usize, m: &Matrix, row: usize, panel: &mut Panel, out: &mut [[f32; TILE]]) {
        let tokens = self.lists[list];
        assert!(row < m.rows() && tokens.len() == out.len());
        // The widest kernels for integers take sixteen rows or none; the scalar ones give the same bits.
        let wide = matches!(self.isa, Isa::Avx512 | Isa::Amx) && !matches!(self.x, Input::Float(_));
        let isa = if wide && m.rows() < TILE && m.kind().is_quantized() { Isa::Scalar } else { self.isa };
        #[cfg(target_arch = "x86_64")]
        if let (Isa::Amx, Some(packed)) = (isa, &self.packed)
            && packed.tile(list, self.x, m, row, panel, out)
        {
            return;
        }
        tile(isa.without_amx(), m, row, self.x, tokens, panel, out);
    }
}

/// The lists as AMX wants them.
#[cfg(target_arch = "x86_64")]
struct Packed {
    /// Where each list's planes begin, in tiles of sixteen tokens; nothing for lists that are too short.
    starts: Vec<Option<usize>>,
    planes: Slice<u8>,
    scales: Slice<f32>,
    /// Bytes and scales of sixteen tokens.
    sizes: (usize, usize),
}

#[cfg(target_arch = "x86_64")]
impl Packed {
    /// Nothing, where there is no AMX or no list for it.
    fn new(runtime: &Runtime, x: &Input, cols: usize, lists: &[&[u32]]) -> Result<Option<Self>> {
        use super::amx;
        use crate::cpu::disjoint::Disjoint;

        let used = runtime.isa == Isa::Amx && !matches!(x, Input::Float(_));
        let sixteen_bits = matches!(x, Input::Int16(_));
        let mut tiles = 0;
        let place = |list: &&[u32]| {
            let start = tiles;
            (used && list.len() >= amx::least_tokens(sixteen_bits)).then(|| {
                tiles += list.len().div_ceil(amx::TOKENS);
                start
            })
        };
        let starts: Vec<_> = lists.iter().map(place).collect();
        let sizes = amx::sizes(sixteen_bits, cols);
        if tiles == 0 {
            return Ok(None);
        }
        let mut planes = runtime.arena.take(tiles * sizes.0 + amx::READ_FURTHER)?;
        let mut scales = runtime.arena.take(tiles * sizes.1)?;
        let parts: Vec<_> = starts
            .iter()
            .zip(lists)
            .filter_map(|(start, list)| start.map(|start| (start, list)))
            .flat_map(|(start, list)| list.chunks(amx::TOKENS).enumerate().map(move |(i, part)| (start + i, part)))
            .collect();
        let (planes_out, scales_out) = (Disjoint::new(&mut planes), Disjoint::new(&mut scales));
        runtime.pool.run_ranges(parts.len(), 1, |range, _| {
            for &(at, tokens) in &parts[range] {
                // SAFETY: a place for each part; AMX was detected where there are parts.
                unsafe {
                    let planes = planes_out.part(at * sizes.0..(at + 1) * sizes.0);
                    let scales = scales_out.part(at * sizes.1..(at + 1) * sizes.1);
                    match x {
                        Input::Int8(x) => amx::pack_int8(x, tokens, planes, scales),
                        Input::Int16(x) => amx::pack_int16(x, tokens, planes, scales),
                        Input::Float(_) => unreachable!("floats are not packed"),
                    }
                }
            }
        });
        Ok(Some(Self { starts, planes, scales, sizes }))
    }

    fn scratch_bytes(lists: usize, tokens: usize, cols: usize) -> usize {
        use super::amx;

        let least = amx::least_tokens(true);
        if tokens < least {
            return 0;
        }
        // Each list may leave all but one of its last tile's places empty.
        let tiles = tokens.div_ceil(amx::TOKENS) + lists.min(tokens / least);
        let (planes, scales) = amx::sizes(true, cols);
        Arena::size_of::<u8>(tiles * planes + amx::READ_FURTHER) + Arena::size_of::<f32>(tiles * scales)
    }

    /// Whether the list was packed, and so has been computed.
    fn tile(&self, list: usize, x: &Input, m: &Matrix, row: usize, panel: &mut Panel, out: &mut [[f32; TILE]]) -> bool {
        use super::amx;

        let Some(start) = self.starts[list] else { return false };
        let (planes, scales) = (&self.planes[start * self.sizes.0..], &self.scales[start * self.sizes.1..]);
        // SAFETY: AMX was detected where something is packed.
        unsafe {
            match x {
                Input::Int8(_) => amx::tile_int8(m, row, (planes, scales), panel, out),
                Input::Int16(_) => amx::tile_int16(m, row, (planes, scales), panel, out),
                Input::Float(_) => return false,
            }
        }
        true
    }
}
