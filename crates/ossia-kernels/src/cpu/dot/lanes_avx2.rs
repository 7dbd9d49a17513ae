//! Many tokens, AVX2: tokens lie side by side in vectors, a token in each lane of 32 bits, and rows are taken one by one.
//!
//! So an element of weights is read into all lanes at once and meets the same element of up to 64 tokens, which come straight
//! from memory: two and an eighth instructions for 32 products of bytes. Columns are taken in blocks that stay in the first
//! cache with their tokens, and a block of some tiles is unpacked once for all tokens. Sums go on from block to block, group by
//! group, as everywhere; they stay in memory, since eight vectors' integers and products take all the registers.

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

use super::few_avx2::{both_halves, code_table, powers_of_two, wide};
use super::lists::{MOST_TILES, MOST_TOKENS, Products};
use super::quantize::{Int8Rows, Int16Rows};
use super::span::{Ahead, Span, from_row};
use super::{Panel, TILE};
use crate::matrix::Matrix;
use crate::mxfp4::GROUP;

/// Tokens of a vector.
pub const TOKENS: usize = 8;

/// Vectors that meet an element of weights at once, at most.
const MOST_VECTORS: usize = 8;

/// Of so many vectors the sums stay in registers while a block's groups are added.
const IN_REGISTERS: usize = 6;

/// Tiles at once, at most: what a block's tokens cost to bring near is shared by their rows.
pub const TILES: usize = MOST_TILES;

/// Groups of a block.
const BLOCK: usize = 6;

/// Places for a block's scales of a row: eight are written at once.
const SCALES: usize = BLOCK.next_multiple_of(8);

/// Tokens of a list of so many that meet an element of weights at once: as many parts as must be, of even size.
pub const fn part(tokens: usize) -> usize {
    let vectors = tokens.div_ceil(TOKENS);
    let parts = vectors.div_ceil(MOST_VECTORS);
    if parts == 0 { TOKENS } else { vectors.div_ceil(parts) * TOKENS }
}

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

    /// A group of a row times V vectors of tokens.
    ///
    /// # Safety
    /// AVX2 is present; the group's words lie at `words`, its tokens at `tokens`.
    unsafe fn sums<const V: usize>(words: *const u8, tokens: *const u8) -> [__m256i; V];
}

/// A word of weights times the same word of some vectors of tokens, added to the vectors' sums. The first word's products
/// begin the sums, and where there are offsets, those are added to it.
///
/// These are instructions since the compiler would keep more products at once than there are registers: half as fast.
macro_rules! word {
    (first $mul:literal, $words:ident, $tokens:ident, $sums:ident, $($acc:ident $v:literal)+) => {
        asm!(
            "vpbroadcastd {word}, dword ptr [{words}]",
            $(concat!($mul, " {", stringify!($acc), "}, {word}, ymmword ptr [{tokens} + 32 * ", $v, "]"),)+
            words = in(reg) $words,
            tokens = in(reg) $tokens,
            $($acc = out(ymm_reg) $sums[$v],)+
            word = out(ymm_reg) _,
            options(readonly, nostack, preserves_flags)
        )
    };
    ($word:literal $mul:literal $add:literal, $words:ident, $tokens:ident, $sums:ident, $($acc:ident $v:literal)+) => {
        asm!(
            "vpbroadcastd {word}, dword ptr [{words} + {word_at}]",
            $(
                concat!($mul, " {product}, {word}, ymmword ptr [{tokens} + {tokens_at} + 32 * ", $v, "]"),
                concat!($add, " {", stringify!($acc), "}, {", stringify!($acc), "}, {product}"),
            )+
            words = in(reg) $words,
            tokens = in(reg) $tokens,
            word_at = const 4 * $word,
            tokens_at = const VECTOR * $word * [$($v),+].len(),
            $($acc = inout(ymm_reg) $sums[$v],)+
            word = out(ymm_reg) _,
            product = out(ymm_reg) _,
            options(readonly, nostack, preserves_flags)
        )
    };
}

/// Some words one after the other, for V vectors.
macro_rules! words {
    ($mul:literal $add:literal, $words:ident, $tokens:ident, $sums:ident, $numbers:tt) => {
        match V {
            1 => words!(of $mul $add, $words, $tokens, $sums, $numbers, (a 0)),
            2 => words!(of $mul $add, $words, $tokens, $sums, $numbers, (a 0 b 1)),
            3 => words!(of $mul $add, $words, $tokens, $sums, $numbers, (a 0 b 1 c 2)),
            4 => words!(of $mul $add, $words, $tokens, $sums, $numbers, (a 0 b 1 c 2 d 3)),
            5 => words!(of $mul $add, $words, $tokens, $sums, $numbers, (a 0 b 1 c 2 d 3 e 4)),
            6 => words!(of $mul $add, $words, $tokens, $sums, $numbers, (a 0 b 1 c 2 d 3 e 4 f 5)),
            7 => words!(of $mul $add, $words, $tokens, $sums, $numbers, (a 0 b 1 c 2 d 3 e 4 f 5 g 6)),
            _ => words!(of $mul $add, $words, $tokens, $sums, $numbers, (a 0 b 1 c 2 d 3 e 4 f 5 g 6 h 7)),
        }
    };
    (of $mul:literal $add:literal, $words:ident, $tokens:ident, $sums:ident, ($($word:literal)+), $vectors:tt) => {{
        words!(one first $mul, $words, $tokens, $sums, $vectors);
        $(words!(one $word $mul $add, $words, $tokens, $sums, $vectors);)+
    }};
    (one first $mul:literal, $words:ident, $tokens:ident, $sums:ident, ($($vectors:tt)+)) => {
        word!(first $mul, $words, $tokens, $sums, $($vectors)+)
    };
    (one $word:literal $mul:literal $add:literal, $words:ident, $tokens:ident, $sums:ident, ($($vectors:tt)+)) => {
        word!($word $mul $add, $words, $tokens, $sums, $($vectors)+)
    };
}

/// MXFP4 with 8-bit activations: codes are value + 12, sums of sixteen products stay in 16 bits.
struct Codes;

impl Format for Codes {
    const WORDS: usize = 8;
    const OFFSETS: bool = true;

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

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn sums<const V: usize>(words: *const u8, tokens: *const u8) -> [__m256i; V] {
        // SAFETY: promised by the caller. The first word begins at the offsets.
        unsafe {
            let mut sums: [__m256i; V] = [_mm256_setzero_si256(); V];
            words!("vpmaddubsw" "vpaddw", words, tokens, sums, (1 2 3 4 5 6 7));
            let offset = |v: usize| _mm256_loadu_si256(tokens.add((Self::WORDS * V + v) * VECTOR).cast());
            let ones = _mm256_set1_epi16(1);
            std::array::from_fn(|v| _mm256_madd_epi16(_mm256_add_epi16(sums[v], offset(v)), ones))
        }
    }
}

/// Q8 with 16-bit activations.
struct Bytes;

impl Format for Bytes {
    const WORDS: usize = 16;
    const OFFSETS: bool = false;

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

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn sums<const V: usize>(words: *const u8, tokens: *const u8) -> [__m256i; V] {
        // SAFETY: promised by the caller.
        unsafe {
            let mut sums: [__m256i; V] = [_mm256_setzero_si256(); V];
            words!("vpmaddwd" "vpaddd", words, tokens, sums, (1 2 3 4 5 6 7 8 9 10 11 12 13 14 15));
            sums
        }
    }
}

/// Lays up to eight vectors of tokens side by side: for each group its words [8, lanes, 4 bytes], offsets [lanes] and half of the
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

/// out[tile][i] = the sixteen rows of each of `tiles`, up to [`TILES`], times token i, for MXFP4 and what [`pack_int8`] made of
/// each [`part`] of the tokens, one after the other; with the number of tokens.
///
/// # Safety
/// AVX2, FMA and F16C are present.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn tiles_int8(
    m: &Matrix,
    tiles: Range<usize>,
    tokens: (&[u8], usize),
    panel: &mut Panel,
    out: &mut [Products],
) {
    // SAFETY: passed on.
    unsafe { tiles_of::<Codes>(m, tiles, tokens, panel, out) }
}

/// The same for Q8 and what [`pack_int16`] made.
///
/// # Safety
/// As for `tiles_int8`.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn tiles_int16(
    m: &Matrix,
    tiles: Range<usize>,
    tokens: (&[u8], usize),
    panel: &mut Panel,
    out: &mut [Products],
) {
    // SAFETY: passed on.
    unsafe { tiles_of::<Bytes>(m, tiles, tokens, panel, out) }
}

/// # Safety
/// As for `tiles_int8`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tiles_of<F: Format>(
    m: &Matrix,
    tiles: Range<usize>,
    tokens: (&[u8], usize),
    panel: &mut Panel,
    out: &mut [Products],
) {
    assert!((1..=TILES).contains(&tiles.len()) && tiles.len() == out.len());
    if tiles.end * TILE <= m.rows() {
        // SAFETY: passed on.
        return unsafe { rows_of::<F>(m, tiles.start * TILE, tokens, panel, out) };
    }
    for (tile, out) in tiles.zip(out) {
        let (row, last) = (tile * TILE, m.rows() - TILE);
        // SAFETY: passed on.
        unsafe { rows_of::<F>(m, row.min(last), tokens, panel, std::slice::from_mut(out)) };
        from_row(row.saturating_sub(last), &mut out[..tokens.1]);
    }
}

/// Sums of rows, a lane for each token.
type Sums = [[f32; MOST_TOKENS]; TILES * TILE];

/// Sixteen rows for each of `out`, from `row` on.
///
/// # Safety
/// As for `tiles_int8`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows_of<F: Format>(m: &Matrix, row: usize, tokens: (&[u8], usize), panel: &mut Panel, out: &mut [Products]) {
    let (groups, (tokens, num)) = (m.groups(), tokens);
    let (vectors, step) = (num.div_ceil(TOKENS), part(num) / TOKENS);
    assert!(num <= MOST_TOKENS && tokens.len() >= vectors * groups * F::GROUP_BYTES);
    assert!(panel.codes.len() >= TILES * TILE * BLOCK * 4 * F::WORDS && panel.scales.len() >= TILES * TILE * SCALES);
    let rows = Span::of_tiles(m, row, out.len());
    let mut sums: Sums = [[0.0; MOST_TOKENS]; TILES * TILE];
    let num_rows = TILE * out.len();
    let sums_of_rows = &mut sums[..num_rows];
    let mut ahead = rows.ahead(num_rows * groups.div_ceil(BLOCK));
    for first in (0..groups).step_by(BLOCK) {
        let num = BLOCK.min(groups - first);
        // SAFETY: groups of every row; the panel has room for a block, and the tokens were packed.
        unsafe {
            unpack::<F>(&rows, num_rows, first, num, panel);
            for vector in (0..vectors).step_by(step) {
                let step = step.min(vectors - vector);
                let at = (vector * groups + first * step) * F::GROUP_BYTES;
                let tokens = &tokens[at..][..num * step * F::GROUP_BYTES];
                let ahead = if vector == 0 { Some(&mut ahead) } else { None };
                let lane = vector * TOKENS;
                match step {
                    1 => all_rows::<F, 1>(panel, num, tokens, sums_of_rows, lane, ahead),
                    2 => all_rows::<F, 2>(panel, num, tokens, sums_of_rows, lane, ahead),
                    3 => all_rows::<F, 3>(panel, num, tokens, sums_of_rows, lane, ahead),
                    4 => all_rows::<F, 4>(panel, num, tokens, sums_of_rows, lane, ahead),
                    5 => all_rows::<F, 5>(panel, num, tokens, sums_of_rows, lane, ahead),
                    6 => all_rows::<F, 6>(panel, num, tokens, sums_of_rows, lane, ahead),
                    7 => all_rows::<F, 7>(panel, num, tokens, sums_of_rows, lane, ahead),
                    _ => all_rows::<F, 8>(panel, num, tokens, sums_of_rows, lane, ahead),
                }
            }
        }
    }
    for (sums, out) in sums.chunks_exact(TILE).zip(out) {
        for lane in (0..num).step_by(TOKENS) {
            for (r, sums) in sums.chunks_exact(TOKENS).enumerate() {
                // SAFETY: AVX2 is present.
                let columns = unsafe { transposed(std::array::from_fn(|r| _mm256_loadu_ps(sums[r][lane..].as_ptr()))) };
                for (column, out) in columns.iter().zip(&mut out[lane..num]) {
                    // SAFETY: half of sixteen floats.
                    unsafe { _mm256_storeu_ps(out[TOKENS * r..].as_mut_ptr(), *column) };
                }
            }
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

/// Unpacks a block of some rows. Scales are made of their bits when all those are written: a vector of what was just written
/// number by number has to wait for it.
///
/// # Safety
/// AVX2 and F16C are present; there are `num` groups from `first` on, and the panel has room for a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn unpack<F: Format>(rows: &Span, num_rows: usize, first: usize, num: usize, panel: &mut Panel) {
    let mut bits = [[0; SCALES]; TILES * TILE];
    // SAFETY: promised by the caller.
    unsafe {
        for (r, bits) in bits.iter_mut().enumerate().take(num_rows) {
            let words = panel.codes.as_mut_ptr().add(r * BLOCK * 4 * F::WORDS);
            F::unpack(rows, rows.element(r, first), rows.scale(r, first), num, words, bits.as_mut_ptr());
        }
        for (r, bits) in bits.iter().enumerate().take(num_rows) {
            let scales = panel.scales.as_mut_ptr().add(r * SCALES);
            _mm256_storeu_ps(scales, F::scales(_mm_loadu_si128(bits.as_ptr().cast())));
        }
    }
}

/// A block of rows with V vectors of tokens, whose sums are those from `lane` on. Between rows the next tiles are asked
/// for, once in a block.
///
/// # Safety
/// AVX2 and FMA are present; the panel holds `num` groups of each row; there are tokens for them.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn all_rows<F: Format, const V: usize>(
    panel: &Panel,
    num: usize,
    tokens: &[u8],
    sums: &mut [[f32; MOST_TOKENS]],
    lane: usize,
    mut ahead: Option<&mut Ahead>,
) {
    for (r, sums) in sums.iter_mut().enumerate() {
        if let Some(ahead) = &mut ahead {
            ahead.step();
        }
        // SAFETY: promised by the caller.
        unsafe {
            let words = panel.codes.as_ptr().add(r * BLOCK * 4 * F::WORDS);
            let scales = panel.scales.as_ptr().add(r * SCALES);
            one_row::<F, V>(words, scales, num, tokens.as_ptr(), sums.as_mut_ptr().add(lane));
        }
    }
}

/// # Safety
/// AVX2 and FMA are present; there are `num` groups of a row and of V vectors of tokens, and their sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn one_row<F: Format, const V: usize>(
    words: *const u8,
    scales: *const f32,
    num: usize,
    tokens: *const u8,
    sums: *mut f32,
) {
    // SAFETY: promised by the caller.
    unsafe {
        let place = |v: usize| sums.add(v * TOKENS);
        let load = || std::array::from_fn(|v| _mm256_loadu_ps(place(v)));
        let store = |acc: [__m256; V]| (0..V).for_each(|v| _mm256_storeu_ps(place(v), acc[v]));
        let mut acc: [__m256; V] = load();
        for g in 0..num {
            let tokens = tokens.add(g * V * F::GROUP_BYTES);
            let products = F::sums::<V>(words.add(g * 4 * F::WORDS), tokens);
            let scale = _mm256_set1_ps(*scales.add(g));
            let token_scales = tokens.add((F::GROUP_BYTES / VECTOR - 1) * V * VECTOR).cast::<f32>();
            if V > IN_REGISTERS {
                acc = load();
            }
            for v in 0..V {
                let scale = _mm256_mul_ps(scale, _mm256_loadu_ps(token_scales.add(v * TOKENS)));
                acc[v] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products[v]), scale, acc[v]);
            }
            if V > IN_REGISTERS {
                store(acc);
            }
        }
        store(acc);
    }
}
