//! Some and many tokens, AVX2 with or without AVX-VNNI: a word of weights meets the same word of up to eight vectors of
//! activations, which come straight from memory (see `words_avx2` and `words_vnni`).
//!
//! With many tokens those lie in the lanes, so with AVX2 two and an eighth instructions make 32 products, and rows are taken one by
//! one (with AVX-VNNI half as many instructions, and two rows at once). With a few, eight rows lie in the lanes, and a token's words are laid down eight times. Columns are taken in blocks that
//! stay in the first cache with their tokens, and a block of some tiles is unpacked once for all tokens. Sums go on from block
//! to block, group by group, as everywhere.

use std::arch::x86_64::*;
use std::ops::Range;

use super::lists::{MOST_TILES, MOST_TOKENS, Products};
use super::quantize::Int8Rows;
use super::span::{Ahead, Span, from_row};
use super::words_avx2::{BLOCK, Bytes, Codes, Format, LANES, SCALES, Side, unit};
use super::words_vnni::{VnniBytes, VnniCodes};
use super::{Panel, TILE, few_avx2, few_vnni};
use crate::matrix::Matrix;
use crate::mxfp4::GROUP;

/// The weights, and how they are multiplied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Formats {
    /// MXFP4, with sums of 16 bits.
    Codes,
    /// Q8, widened to 16 bits.
    Bytes,
    /// MXFP4 with AVX-VNNI.
    VnniCodes,
    /// Q8 with AVX-VNNI.
    VnniBytes,
}

impl Formats {
    /// With fewer tokens rows are read straight from memory.
    const fn least(self) -> usize {
        match self {
            Formats::Codes => 1 + few_avx2::most(false),
            Formats::Bytes => 1 + few_avx2::most(true),
            Formats::VnniCodes | Formats::VnniBytes => 1 + few_vnni::MOST,
        }
    }

    /// Vectors that meet a word of weights at once, at most.
    const fn most_vectors(self) -> usize {
        match self {
            Formats::Codes => Codes::MOST_VECTORS,
            Formats::Bytes => Bytes::MOST_VECTORS,
            Formats::VnniCodes => VnniCodes::MOST_VECTORS,
            Formats::VnniBytes => VnniBytes::MOST_VECTORS,
        }
    }

    /// Bytes of a vector of tokens of `cols`.
    pub const fn bytes(self, cols: usize) -> usize {
        cols / GROUP
            * match self {
                Formats::Codes => Codes::GROUP_BYTES,
                Formats::Bytes => Bytes::GROUP_BYTES,
                Formats::VnniCodes => VnniCodes::GROUP_BYTES,
                Formats::VnniBytes => VnniBytes::GROUP_BYTES,
            }
    }
}

/// With more tokens they lie in the lanes.
const MOST_IN_ROWS: usize = 16;

/// How a list of tokens is laid down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// What lies in the lanes.
    pub side: Side,
    /// How many of the tokens, the first ones. Up to two that would have a vector of their own are faster straight from memory.
    pub tokens: usize,
    /// Vectors that they take.
    pub vectors: usize,
    /// Vectors that meet a word at once: as many parts as must be, of even size.
    pub part: usize,
}

impl Plan {
    /// For a list of so many tokens.
    pub const fn of(format: Formats, tokens: usize) -> Self {
        let (side, tokens, vectors) = match (tokens, tokens % LANES) {
            _ if tokens < format.least() => (Side::Rows, 0, 0),
            (..=MOST_IN_ROWS, _) => (Side::Rows, tokens, tokens),
            (_, ..=2) => (Side::Tokens, tokens / LANES * LANES, tokens / LANES),
            _ => (Side::Tokens, tokens, tokens.div_ceil(LANES)),
        };
        let parts = vectors.div_ceil(format.most_vectors());
        Self { side, tokens, vectors, part: if parts == 0 { 1 } else { vectors.div_ceil(parts) } }
    }

    /// Vectors that lists with so many tokens in all take, at most.
    pub fn most_vectors(lists: usize, tokens: usize) -> usize {
        tokens.min(lists * MOST_IN_ROWS) + tokens.div_ceil(LANES) + lists.min(tokens / MOST_IN_ROWS)
    }

    /// The first token of a vector.
    fn token(&self, vector: usize) -> usize {
        self.tokens.min(if self.side == Side::Rows { vector } else { vector * LANES })
    }
}

/// Lays the vectors of a plan's part down, from `vector` on. The last token stands in for those that miss.
pub fn pack(format: Formats, x: &Int8Rows, tokens: &[u32], plan: Plan, vector: usize, out: &mut [u8]) {
    match format {
        Formats::Codes => pack_bytes::<Codes>(x, tokens, plan, vector, out),
        Formats::Bytes => pack_widened(x, tokens, plan, vector, out),
        Formats::VnniCodes => pack_bytes::<VnniCodes>(x, tokens, plan, vector, out),
        Formats::VnniBytes => pack_bytes::<VnniBytes>(x, tokens, plan, vector, out),
    }
}

/// For each group its words [8, vectors, 8 lanes, 4 bytes], offsets [vectors, 8] and scales [vectors, 8].
fn pack_bytes<F: Format>(x: &Int8Rows, tokens: &[u32], plan: Plan, vector: usize, out: &mut [u8]) {
    let row = |t: u32| (x.values(t as usize), x.offsets(t as usize), x.scales(t as usize));
    pack_words::<F, _>(tokens, row, plan, vector, out, |(values, offsets, scales), g, word| match word {
        0..8 => <[i8; 4]>::try_from(&values[g * GROUP + 4 * word..][..4]).expect("four").map(i8::cast_unsigned),
        8 => offsets[g].to_ne_bytes(),
        _ => scales[g].to_ne_bytes(),
    });
}

/// The same with words of two 16-bit numbers [16, vectors, 8, 4 bytes], without offsets. Two numbers lie
/// side by side, or with rows in the lanes every other one, as they are unpacked.
fn pack_widened(x: &Int8Rows, tokens: &[u32], plan: Plan, vector: usize, out: &mut [u8]) {
    let row = |t: u32| (x.values(t as usize), x.scales(t as usize));
    pack_words::<Bytes, _>(tokens, row, plan, vector, out, |(values, scales), g, word| {
        if word == Bytes::WORDS {
            return scales[g].to_ne_bytes();
        }
        let places = match plan.side {
            Side::Tokens => [2 * word, 2 * word + 1],
            Side::Rows => [word / 2 * 4 + word % 2, word / 2 * 4 + word % 2 + 2],
        };
        let [a, b] = places.map(|i| i16::from(values[g * GROUP + i]).to_ne_bytes());
        [a[0], a[1], b[0], b[1]]
    });
}

fn pack_words<F: Format, T: Copy>(
    tokens: &[u32],
    row: impl Fn(u32) -> T,
    plan: Plan,
    vector: usize,
    out: &mut [u8],
    word_of: impl Fn(T, usize, usize) -> [u8; 4],
) {
    let vectors = plan.part.min(plan.vectors - vector);
    let tokens: Vec<_> = tokens[plan.token(vector)..plan.token(vector + vectors)].iter().map(|&t| row(t)).collect();
    for (g, group) in out.chunks_exact_mut(F::GROUP_BYTES * vectors).enumerate() {
        for (word, words) in group.as_chunks_mut::<4>().0.chunks_exact_mut(vectors * LANES).enumerate() {
            match plan.side {
                Side::Tokens => {
                    for (lane, out) in words.iter_mut().enumerate() {
                        *out = word_of(tokens[lane.min(tokens.len() - 1)], g, word);
                    }
                }
                Side::Rows => {
                    for (&token, out) in tokens.iter().zip(words.as_chunks_mut::<LANES>().0) {
                        *out = [word_of(token, g, word); LANES];
                    }
                }
            }
        }
    }
}

/// out[tile][i] = the sixteen rows of each of `tiles`, up to [`MOST_TILES`], times token i, for what [`pack`] made of each
/// part of the plan, one after the other.
///
/// # Safety
/// AVX2, FMA and F16C are present, and what the format needs.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn tiles(
    format: Formats,
    m: &Matrix,
    range: Range<usize>,
    tokens: (&[u8], Plan),
    panel: &mut Panel,
    out: &mut [Products],
) {
    // SAFETY: passed on.
    unsafe {
        match format {
            Formats::Codes => tiles_by::<Codes>(m, range, tokens, panel, out),
            Formats::Bytes => tiles_by::<Bytes>(m, range, tokens, panel, out),
            Formats::VnniCodes => tiles_by::<VnniCodes>(m, range, tokens, panel, out),
            Formats::VnniBytes => tiles_by::<VnniBytes>(m, range, tokens, panel, out),
        }
    }
}

/// # Safety
/// As for [`tiles`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tiles_by<F: Format>(
    m: &Matrix,
    tiles: Range<usize>,
    tokens: (&[u8], Plan),
    panel: &mut Panel,
    out: &mut [Products],
) {
    // SAFETY: passed on.
    unsafe {
        match tokens.1.side {
            Side::Tokens => tiles_of::<F, false>(m, tiles, tokens, panel, out),
            Side::Rows => tiles_of::<F, true>(m, tiles, tokens, panel, out),
        }
    }
}

/// # Safety
/// As for [`tiles`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tiles_of<F: Format, const ROWS: bool>(
    m: &Matrix,
    tiles: Range<usize>,
    tokens: (&[u8], Plan),
    panel: &mut Panel,
    out: &mut [Products],
) {
    assert!((1..=MOST_TILES).contains(&tiles.len()) && tiles.len() == out.len());
    if tiles.end * TILE <= m.rows() {
        // SAFETY: passed on.
        return unsafe { rows_of::<F, ROWS>(m, tiles.start * TILE, tokens, panel, out) };
    }
    for (tile, out) in tiles.zip(out) {
        let (row, last) = (tile * TILE, m.rows() - TILE);
        // SAFETY: passed on.
        unsafe { rows_of::<F, ROWS>(m, row.min(last), tokens, panel, std::slice::from_mut(out)) };
        from_row(row.saturating_sub(last), &mut out[..tokens.1.tokens]);
    }
}

/// Sixteen rows for each of `out`, from `row` on.
///
/// # Safety
/// As for [`tiles`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows_of<F: Format, const ROWS: bool>(
    m: &Matrix,
    row: usize,
    (tokens, plan): (&[u8], Plan),
    panel: &mut Panel,
    out: &mut [Products],
) {
    const { assert!((TILE / unit(ROWS)).is_multiple_of(F::AT_ONCE)) };
    let groups = m.groups();
    assert!(plan.tokens <= MOST_TOKENS && tokens.len() >= plan.vectors * groups * F::GROUP_BYTES);
    let (rows, num_rows) = (Span::of_tiles(m, row, out.len()), TILE * out.len());
    let Panel { codes, scales, sums } = panel;
    assert!(codes.len() >= num_rows * BLOCK * 4 * F::WORDS && scales.len() >= num_rows * SCALES);
    // For each row, or eight of them, its vectors.
    let (size, sums) = (plan.vectors * LANES, &mut sums[..num_rows / unit(ROWS) * plan.vectors * LANES]);
    sums.fill(0.0);
    let mut ahead = rows.ahead(num_rows / unit(ROWS) * groups.div_ceil(BLOCK));
    for first in (0..groups).step_by(BLOCK) {
        let num = BLOCK.min(groups - first);
        // SAFETY: groups of every row; the panel has room for a block, and the tokens were packed.
        unsafe {
            unpack::<F, ROWS>(&rows, num_rows, first, num, codes, scales);
            for vector in (0..plan.vectors).step_by(plan.part) {
                let part = plan.part.min(plan.vectors - vector);
                let at = (vector * groups + first * part) * F::GROUP_BYTES;
                let tokens = &tokens[at..][..num * part * F::GROUP_BYTES];
                let ahead = if vector == 0 { Some(&mut ahead) } else { None };
                match part {
                    1 => all_rows::<F, 1, ROWS>((codes, scales), num, tokens, (&mut *sums, size), vector, ahead),
                    2 => all_rows::<F, 2, ROWS>((codes, scales), num, tokens, (&mut *sums, size), vector, ahead),
                    3 => all_rows::<F, 3, ROWS>((codes, scales), num, tokens, (&mut *sums, size), vector, ahead),
                    4 => all_rows::<F, 4, ROWS>((codes, scales), num, tokens, (&mut *sums, size), vector, ahead),
                    5 => all_rows::<F, 5, ROWS>((codes, scales), num, tokens, (&mut *sums, size), vector, ahead),
                    6 => all_rows::<F, 6, ROWS>((codes, scales), num, tokens, (&mut *sums, size), vector, ahead),
                    7 => all_rows::<F, 7, ROWS>((codes, scales), num, tokens, (&mut *sums, size), vector, ahead),
                    _ => all_rows::<F, 8, ROWS>((codes, scales), num, tokens, (&mut *sums, size), vector, ahead),
                }
            }
        }
    }
    for (sums, out) in sums.chunks_exact(TILE / unit(ROWS) * size).zip(out) {
        let out = &mut out[..plan.tokens];
        for (half, sums) in sums.chunks_exact(LANES / unit(ROWS) * size).enumerate() {
            if ROWS {
                for (sums, out) in sums.as_chunks::<LANES>().0.iter().zip(&mut *out) {
                    out.as_chunks_mut::<LANES>().0[half] = *sums;
                }
            } else {
                // SAFETY: AVX2 is present.
                unsafe { turn(sums, size, half, out) };
            }
        }
    }
}

/// Unpacks a block of some rows. Scales are made of their bits when all those are written: a vector of what was just written
/// number by number has to wait for it.
///
/// # Safety
/// AVX2 and F16C are present; there are `num` groups from `first` on, and the panel has room for a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn unpack<F: Format, const ROWS: bool>(
    rows: &Span,
    num_rows: usize,
    first: usize,
    num: usize,
    codes: &mut [u8],
    scales: &mut [f32],
) {
    let mut bits = [[0; LANES * SCALES]; MOST_TILES * TILE / LANES];
    for (eight, bits) in bits.iter_mut().enumerate().take(num_rows / LANES) {
        let row = eight * LANES;
        if !ROWS {
            (row..row + LANES).for_each(|row| rows.prefetch_groups(row, first + BLOCK, BLOCK));
        }
        // SAFETY: promised by the caller.
        unsafe {
            let words = codes.as_mut_ptr().add(row * BLOCK * 4 * F::WORDS);
            if ROWS {
                F::unpack_eight(rows, row, first, num, words, bits.as_mut_ptr());
            } else {
                for r in 0..LANES {
                    let (elements, scales) = (rows.element(row + r, first), rows.scale(row + r, first));
                    let words = words.add(r * BLOCK * 4 * F::WORDS);
                    F::unpack(rows, elements, scales, num, words, bits[r * SCALES..].as_mut_ptr());
                }
            }
        }
    }
    let bits = bits.as_flattened().as_chunks::<LANES>().0;
    for (bits, scales) in bits.iter().zip(scales.as_chunks_mut::<LANES>().0).take(num_rows) {
        // SAFETY: eight numbers.
        unsafe { _mm256_storeu_ps(scales.as_mut_ptr(), F::scales(_mm_loadu_si128(bits.as_ptr().cast()))) };
    }
}

/// A block of rows with V vectors of tokens from `vector` on. The next tiles are asked for, a little at a time.
///
/// # Safety
/// AVX2 and FMA are present; the panel holds `num` groups of each row; there are tokens for them. A row, or eight of them, has `size` sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn all_rows<F: Format, const V: usize, const ROWS: bool>(
    (codes, all_scales): (&[u8], &[f32]),
    num: usize,
    tokens: &[u8],
    (sums, size): (&mut [f32], usize),
    vector: usize,
    mut ahead: Option<&mut Ahead>,
) {
    for (i, sums) in sums.chunks_exact_mut(F::AT_ONCE * size).enumerate() {
        if let Some(ahead) = &mut ahead {
            (0..F::AT_ONCE).for_each(|_| ahead.step());
        }
        let row = i * F::AT_ONCE * unit(ROWS);
        // SAFETY: promised by the caller.
        unsafe {
            let words = codes.as_ptr().add(row * BLOCK * 4 * F::WORDS);
            let scales = all_scales.as_ptr().add(row * SCALES);
            let sums = sums.as_mut_ptr().add(vector * LANES);
            F::add_groups::<V, ROWS>(words, scales, num, tokens.as_ptr(), (sums, size));
        }
    }
}

/// Moves the sums of eight rows, `size` for each, to the tokens' halves.
///
/// # Safety
/// AVX2 is present.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn turn(sums: &[f32], size: usize, half: usize, out: &mut [[f32; TILE]]) {
    for lane in (0..out.len()).step_by(LANES) {
        // SAFETY: eight floats each.
        let rows = std::array::from_fn(|r| unsafe { _mm256_loadu_ps(sums[r * size + lane..].as_ptr()) });
        for (column, out) in transposed(rows).iter().zip(&mut out[lane..]) {
            // SAFETY: half of sixteen floats.
            unsafe { _mm256_storeu_ps(out.as_chunks_mut::<LANES>().0[half].as_mut_ptr(), *column) };
        }
    }
}

/// Columns of eight rows.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(rows: [__m256; 8]) -> [__m256; 8] {
    let pairs: [[__m256; 2]; 4] = std::array::from_fn(|i| {
        let (a, b) = (rows[2 * i], rows[2 * i + 1]);
        [_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)]
    });
    let fours: [[__m256; 4]; 2] = std::array::from_fn(|i| {
        let ([a, b], [c, d]) = (pairs[2 * i], pairs[2 * i + 1]);
        [
            _mm256_shuffle_ps::<0b01_00_01_00>(a, c),
            _mm256_shuffle_ps::<0b11_10_11_10>(a, c),
            _mm256_shuffle_ps::<0b01_00_01_00>(b, d),
            _mm256_shuffle_ps::<0b11_10_11_10>(b, d),
        ]
    });
    std::array::from_fn(|c| {
        let (low, high) = (fours[0][c % 4], fours[1][c % 4]);
        if c < 4 { _mm256_permute2f128_ps::<0x20>(low, high) } else { _mm256_permute2f128_ps::<0x31>(low, high) }
    })
}
