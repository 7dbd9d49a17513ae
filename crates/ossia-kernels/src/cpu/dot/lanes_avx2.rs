//! Many tokens, AVX2: tokens lie side by side in vectors, a token in each lane of 32 bits, and rows are taken one by one.
//!
//! So an element of weights is read into all lanes at once and meets the same element of eight, sixteen, up to 32 tokens,
//! which come straight from memory: two and a quarter instructions for 32 products of bytes. Columns are taken in blocks
//! that stay in the first cache with their tokens, and a block of sixteen rows is unpacked once for all tokens. Sums go on
//! from block to block, group by group, as everywhere.

use std::arch::x86_64::*;

use super::few_avx2::{both_halves, code_table, powers_of_two, wide};
use super::lists::MOST_TOKENS;
use super::quantize::{Int8Rows, Int16Rows};
use super::span::{Span, with_whole_tile};
use super::{Panel, TILE};
use crate::matrix::Matrix;
use crate::mxfp4::GROUP;

/// Tokens of a vector.
pub const TOKENS: usize = 8;

/// Tokens that meet an element of weights at once, at most.
pub const MOST: usize = 4 * TOKENS;

/// How many of a list's tokens lie side by side. Fewer than thirteen are faster straight from the weights, and so are up to
/// two that would have a vector of their own.
pub const fn side_by_side(tokens: usize) -> usize {
    match (tokens, tokens % TOKENS) {
        (..13, _) => 0,
        (16.., ..=2) => tokens / TOKENS * TOKENS,
        _ => tokens,
    }
}

/// Bytes of a vector.
const VECTOR: usize = 32;

/// Bytes of eight tokens of `cols`, with 16 bits or 8.
pub fn bytes(sixteen_bits: bool, cols: usize) -> usize {
    cols / GROUP * if sixteen_bits { Bytes::GROUP_BYTES } else { Codes::GROUP_BYTES }
}

/// Weights and activations that meet.
trait Format {
    /// Words of 32 bits of a group of weights, unpacked.
    const WORDS: usize;
    /// Whether a group of tokens has its offsets behind its values.
    const OFFSETS: bool;
    /// Groups of a block.
    const BLOCK: usize;
    /// Bytes of a group of eight tokens: values, offsets, scales.
    const GROUP_BYTES: usize = VECTOR * (Self::WORDS + Self::OFFSETS as usize + 1);

    /// Writes some groups of a row as words, and the bits of their scales.
    ///
    /// # Safety
    /// AVX2 is present; the groups lie at `elements` and `scales`, at the distances of `rows`; there is room for a block.
    unsafe fn unpack(rows: &Span, elements: *const u8, scales: *const u8, num: usize, words: *mut u8, bits: *mut u16);

    /// Eight scales.
    ///
    /// # Safety
    /// AVX2 and F16C are present.
    unsafe fn scales(bits: __m128i) -> __m256;

    /// The products of a word of weights with one of each token.
    ///
    /// # Safety
    /// AVX2 is present.
    unsafe fn products(weights: __m256i, tokens: __m256i) -> __m256i;

    /// Adds products.
    ///
    /// # Safety
    /// AVX2 is present.
    unsafe fn add(a: __m256i, b: __m256i) -> __m256i;

    /// A group's sums in 32 bits.
    ///
    /// # Safety
    /// AVX2 is present.
    unsafe fn sums(products: __m256i) -> __m256i;
}

/// MXFP4 with 8-bit activations: codes are value + 12, sums of sixteen products wrap around in 16 bits.
struct Codes;

impl Format for Codes {
    const WORDS: usize = 8;
    const OFFSETS: bool = true;
    const BLOCK: usize = 10;

    #[inline(always)]
    unsafe fn unpack(rows: &Span, elements: *const u8, scales: *const u8, num: usize, words: *mut u8, bits: *mut u16) {
        // SAFETY: promised by the caller.
        unsafe {
            let (table, mask) = (code_table(), _mm256_set1_epi8(15));
            let shifts = _mm256_setr_epi64x(0, 0, 4, 4);
            for g in 0..num {
                let nibbles = _mm256_srlv_epi64(both_halves(elements.add(g * rows.group)), shifts);
                let codes = _mm256_shuffle_epi8(table, _mm256_and_si256(nibbles, mask));
                _mm256_storeu_si256(words.add(g * GROUP).cast(), codes);
                bits.add(g).write(u16::from(*scales.add(g * rows.scale_group())));
            }
        }
    }

    #[inline(always)]
    unsafe fn scales(bits: __m128i) -> __m256 {
        // SAFETY: promised by the caller.
        unsafe { powers_of_two(_mm256_cvtepu16_epi32(bits)) }
    }

    #[inline(always)]
    unsafe fn products(weights: __m256i, tokens: __m256i) -> __m256i {
        // SAFETY: promised by the caller.
        unsafe { _mm256_maddubs_epi16(weights, tokens) }
    }

    #[inline(always)]
    unsafe fn add(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: promised by the caller.
        unsafe { _mm256_add_epi16(a, b) }
    }

    #[inline(always)]
    unsafe fn sums(products: __m256i) -> __m256i {
        // SAFETY: promised by the caller.
        unsafe { _mm256_madd_epi16(products, _mm256_set1_epi16(1)) }
    }
}

/// Q8 with 16-bit activations.
struct Bytes;

impl Format for Bytes {
    const WORDS: usize = 16;
    const OFFSETS: bool = false;
    const BLOCK: usize = 6;

    #[inline(always)]
    unsafe fn unpack(rows: &Span, elements: *const u8, scales: *const u8, num: usize, words: *mut u8, bits: *mut u16) {
        // SAFETY: promised by the caller.
        unsafe {
            for g in 0..num {
                let p = elements.add(g * rows.group);
                _mm256_storeu_si256(words.add(2 * g * GROUP).cast(), wide(p));
                _mm256_storeu_si256(words.add((2 * g + 1) * GROUP).cast(), wide(p.add(16)));
                bits.add(g).write(scales.add(g * rows.scale_group()).cast::<u16>().read_unaligned());
            }
        }
    }

    #[inline(always)]
    unsafe fn scales(bits: __m128i) -> __m256 {
        // SAFETY: promised by the caller.
        unsafe { _mm256_cvtph_ps(bits) }
    }

    #[inline(always)]
    unsafe fn products(weights: __m256i, tokens: __m256i) -> __m256i {
        // SAFETY: promised by the caller.
        unsafe { _mm256_madd_epi16(weights, tokens) }
    }

    #[inline(always)]
    unsafe fn add(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: promised by the caller.
        unsafe { _mm256_add_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn sums(products: __m256i) -> __m256i {
        products
    }
}

/// Lays up to [`MOST`] tokens side by side: for each group its words [8, lanes, 4 bytes], offsets [lanes] and half of the
/// scales [lanes], lanes being the tokens' number up to a multiple of eight; the last token stands in for those that miss.
pub fn pack_int8(x: &Int8Rows, tokens: &[u32], out: &mut [u8]) {
    let rows = tokens.iter().map(|&t| (x.values(t as usize), x.offsets(t as usize), x.scales(t as usize)));
    pack::<Codes, _>(&rows.collect::<Vec<_>>(), out, |(values, offsets, scales), g, word| match word {
        0..8 => <[i8; 4]>::try_from(&values[g * GROUP + 4 * word..][..4]).expect("four").map(i8::cast_unsigned),
        8 => offsets[g].to_ne_bytes(),
        _ => scales[g].to_ne_bytes(),
    });
}

/// The same with words of two 16-bit numbers [16, lanes, 4 bytes], without offsets, and with whole scales.
pub fn pack_int16(x: &Int16Rows, tokens: &[u32], out: &mut [u8]) {
    let rows = tokens.iter().map(|&t| (x.values(t as usize), x.scales(t as usize)));
    pack::<Bytes, _>(&rows.collect::<Vec<_>>(), out, |(values, scales), g, word| {
        if word == Bytes::WORDS {
            return scales[g].to_ne_bytes();
        }
        let [a, b] = [0, 1].map(|i| values[g * GROUP + 2 * word + i].to_ne_bytes());
        [a[0], a[1], b[0], b[1]]
    });
}

fn pack<F: Format, T: Copy>(rows: &[T], out: &mut [u8], word_of: impl Fn(T, usize, usize) -> [u8; 4]) {
    let lanes = rows.len().next_multiple_of(TOKENS);
    let group_bytes = F::GROUP_BYTES * lanes / TOKENS;
    for (g, group) in out.chunks_exact_mut(group_bytes).enumerate() {
        for (word, lanes) in group.as_chunks_mut::<4>().0.chunks_exact_mut(lanes).enumerate() {
            for (lane, out) in lanes.iter_mut().enumerate() {
                *out = word_of(rows[lane.min(rows.len() - 1)], g, word);
            }
        }
    }
}

/// out[i] = the sixteen rows from `row` on times token i, for MXFP4 and what [`pack_int8`] made of each [`MOST`] tokens,
/// one after the other.
///
/// # Safety
/// AVX2, FMA and F16C are present.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn tile_int8(m: &Matrix, row: usize, tokens: &[u8], panel: &mut Panel, out: &mut [[f32; TILE]]) {
    // SAFETY: passed on.
    unsafe { tile::<Codes>(m, row, tokens, panel, out) }
}

/// The same for Q8 and what [`pack_int16`] made.
///
/// # Safety
/// As for `tile_int8`.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn tile_int16(m: &Matrix, row: usize, tokens: &[u8], panel: &mut Panel, out: &mut [[f32; TILE]]) {
    // SAFETY: passed on.
    unsafe { tile::<Bytes>(m, row, tokens, panel, out) }
}

/// Sums of sixteen rows, a lane for each token.
type Sums = [[f32; MOST_TOKENS]; TILE];

/// # Safety
/// As for `tile_int8`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<F: Format>(m: &Matrix, row: usize, tokens: &[u8], panel: &mut Panel, out: &mut [[f32; TILE]]) {
    let (groups, vectors) = (m.groups(), out.len().div_ceil(TOKENS));
    assert!(out.len() <= MOST_TOKENS && tokens.len() >= vectors * groups * F::GROUP_BYTES);
    assert!(panel.codes.len() >= TILE * F::BLOCK * 4 * F::WORDS && panel.scales.len() >= TILE * scales_of_row::<F>());
    with_whole_tile(m, row, out, |row, out| {
        let rows = Span::new(m, row);
        let mut sums: Sums = [[0.0; MOST_TOKENS]; TILE];
        let blocks = groups.div_ceil(F::BLOCK);
        for block in 0..blocks {
            let first = block * F::BLOCK;
            let num = F::BLOCK.min(groups - first);
            // SAFETY: groups of every row; the panel has room for a block, and the tokens were packed.
            unsafe {
                unpack::<F>(&rows, first, num, panel);
                for first_vector in (0..vectors).step_by(MOST / TOKENS) {
                    let vectors = (MOST / TOKENS).min(vectors - first_vector);
                    let at = (first_vector * groups + first * vectors) * F::GROUP_BYTES;
                    let tokens = &tokens[at..][..num * vectors * F::GROUP_BYTES];
                    let ahead = (first_vector == 0).then_some((&rows, block, blocks));
                    let lane = first_vector * TOKENS;
                    match vectors {
                        1 => all_rows::<F, 1, 4>(panel, num, tokens, &mut sums, lane, ahead),
                        2 => all_rows::<F, 2, 2>(panel, num, tokens, &mut sums, lane, ahead),
                        3 => all_rows::<F, 3, 1>(panel, num, tokens, &mut sums, lane, ahead),
                        _ => all_rows::<F, 4, 1>(panel, num, tokens, &mut sums, lane, ahead),
                    }
                }
            }
        }
        for (i, out) in out.iter_mut().enumerate() {
            *out = std::array::from_fn(|r| sums[r][i]);
        }
    });
}

/// Unpacks a block of sixteen rows. Scales are made of their bits when all those are written: a vector of what was just
/// written number by number has to wait for it.
///
/// # Safety
/// AVX2 and F16C are present; there are `num` groups from `first` on, and the panel has room for a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn unpack<F: Format>(rows: &Span, first: usize, num: usize, panel: &mut Panel) {
    let mut bits = [[0; 16]; TILE];
    // SAFETY: promised by the caller.
    unsafe {
        for (r, bits) in bits.iter_mut().enumerate() {
            let words = panel.codes.as_mut_ptr().add(r * F::BLOCK * 4 * F::WORDS);
            F::unpack(rows, rows.element(r, first), rows.scale(r, first), num, words, bits.as_mut_ptr());
        }
        for (r, bits) in bits.iter().enumerate() {
            for (i, bits) in bits.as_chunks::<8>().0.iter().enumerate().take(num.div_ceil(8)) {
                let scales = panel.scales.as_mut_ptr().add(r * scales_of_row::<F>() + 8 * i);
                _mm256_storeu_ps(scales, F::scales(_mm_loadu_si128(bits.as_ptr().cast())));
            }
        }
    }
}

/// Places for the scales of a block of a row: eight are written at once.
const fn scales_of_row<F: Format>() -> usize {
    F::BLOCK.next_multiple_of(8)
}

/// A block of sixteen rows, R at once, with V vectors of tokens, whose sums are those from `lane` on. Between rows the next
/// tile is asked for, where `ahead` is the rows, which block this is and of how many.
///
/// # Safety
/// AVX2 and FMA are present; the panel holds `num` groups of each row; there are tokens for them.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn all_rows<F: Format, const V: usize, const R: usize>(
    panel: &Panel,
    num: usize,
    tokens: &[u8],
    sums: &mut Sums,
    lane: usize,
    ahead: Option<(&Span, usize, usize)>,
) {
    for r in (0..TILE).step_by(R) {
        if let Some((rows, block, blocks)) = ahead {
            rows.prefetch_share((block * TILE + r) / R, blocks * TILE / R);
        }
        // SAFETY: promised by the caller.
        unsafe {
            let words = panel.codes.as_ptr().add(r * F::BLOCK * 4 * F::WORDS);
            let scales = panel.scales.as_ptr().add(r * scales_of_row::<F>());
            some_rows::<F, V, R>(words, scales, num, tokens.as_ptr(), sums.as_mut_ptr().add(r).cast::<f32>().add(lane));
        }
    }
}

/// # Safety
/// AVX2 and FMA are present; there are `num` groups of R rows and of V vectors of tokens, and R times [`MOST_TOKENS`] sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn some_rows<F: Format, const V: usize, const R: usize>(
    words: *const u8,
    scales: *const f32,
    num: usize,
    tokens: *const u8,
    sums: *mut f32,
) {
    // SAFETY: promised by the caller.
    unsafe {
        let place = |r: usize, v: usize| sums.add(r * MOST_TOKENS + v * TOKENS);
        let mut acc: [[__m256; V]; R] = std::array::from_fn(|r| std::array::from_fn(|v| _mm256_loadu_ps(place(r, v))));
        for g in 0..num {
            let tokens = tokens.add(g * V * F::GROUP_BYTES);
            let vector = |word: usize, v: usize| _mm256_loadu_si256(tokens.add((word * V + v) * VECTOR).cast());
            let mut group = [[_mm256_setzero_si256(); V]; R];
            for word in 0..F::WORDS {
                for r in 0..R {
                    let weights = words.add(((r * F::BLOCK + g) * F::WORDS + word) * 4).cast::<i32>();
                    let weights = _mm256_set1_epi32(weights.read_unaligned());
                    for v in 0..V {
                        let products = F::products(weights, vector(word, v));
                        group[r][v] = match (word, F::OFFSETS) {
                            (0, true) => F::add(products, vector(F::WORDS, v)),
                            (0, false) => products,
                            _ => F::add(group[r][v], products),
                        };
                    }
                }
            }
            for r in 0..R {
                let scale = _mm256_set1_ps(*scales.add(r * scales_of_row::<F>() + g));
                for v in 0..V {
                    let token = vector(F::WORDS + F::OFFSETS as usize, v);
                    let scale = _mm256_mul_ps(scale, _mm256_castsi256_ps(token));
                    acc[r][v] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(F::sums(group[r][v])), scale, acc[r][v]);
                }
            }
        }
        for r in 0..R {
            for v in 0..V {
                _mm256_storeu_ps(place(r, v), acc[r][v]);
            }
        }
    }
}
