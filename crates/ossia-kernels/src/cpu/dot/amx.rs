//! Integer activations with AMX: the sums of the other versions, sixteen rows with sixteen tokens at a time.
//!
//! A tile register holds sixteen rows of up to 64 bytes, and one instruction adds to C [16 tokens, 16 rows] the products
//! of A [16 tokens, 32 bytes] and B [8 quads, 16 rows, 4 bytes]: a whole group in sixteen cycles. Each group's sums are
//! taken out and scaled as everywhere, while the next group's are made. 16-bit activations are two planes of bytes,
//! x = 256 high + low, so their sums are 256 C_high + C_low, exactly.
//!
//! Rust has no names for these instructions yet, so they are written out.

use std::arch::asm;
use std::arch::x86_64::*;

use super::quantize::{Int8Rows, Int16Rows};
use super::rows_avx512::{FEW, Span, each_group, with_whole_tile, words_of_sixteen};
use super::{Panel, TILE, int8_avx512, int16_avx512};
use crate::matrix::Matrix;
use crate::mxfp4::GROUP;

/// Tokens of a tile register.
pub const TOKENS: usize = 16;

/// From this many tokens on, filling a tile register is worth it.
pub const LEAST_TOKENS: usize = 5;

/// Tokens of half a tile register, which takes half of the time.
const HALF: usize = TOKENS / 2;

/// Bytes of a group in a tile register: of A, and of B.
const PLANE: usize = TOKENS * GROUP;

/// What the registers hold, as `ldtilecfg` reads it.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// 0 to 3 are C, 4 and 5 A, both with a row for each token, 6 and 7 B.
    const fn of(tokens: u8) -> Self {
        let t = tokens;
        Self {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [64, 64, 64, 64, 32, 32, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
            rows: [t, t, t, t, t, t, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0],
        }
    }
}

/// This thread's tile registers, until it is dropped.
struct Registers;

impl Registers {
    /// Registers for M tokens.
    ///
    /// # Safety
    /// The machine has AMX, and the process may use it.
    unsafe fn shape<const M: usize>() -> Self {
        let shapes = const { Shapes::of(M as u8) };
        // SAFETY: promised by the caller; 64 bytes are read.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &shapes, options(nostack, readonly)) };
        Self
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: there is one only where the machine has AMX.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Bytes that are read past the last group: four products are made at once.
pub const READ_FURTHER: usize = PRODUCTS * PLANE;

/// Bytes of planes and numbers of scales of sixteen tokens of `cols`, with 16 bits or 8.
pub fn sizes(sixteen_bits: bool, cols: usize) -> (usize, usize) {
    (if sixteen_bits { 2 } else { 1 } * TOKENS * cols, TOKENS * cols / GROUP)
}

/// Lays up to sixteen tokens side by side: planes [groups, 16 tokens, 32], and half of each scale (codes are doubled
/// values) [groups, 16].
///
/// # Safety
/// AVX-512 (F, BW, VL) is present.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub unsafe fn pack_int8(x: &Int8Rows, tokens: &[u32], planes: &mut [u8], scales: &mut [f32]) {
    for (lane, &token) in tokens.iter().enumerate() {
        let (values, scale) = (x.values(token as usize).as_chunks::<GROUP>().0, x.scales(token as usize));
        for (g, (values, d)) in values.iter().zip(scale).enumerate() {
            let plane = &mut planes[g * PLANE + lane * GROUP..][..GROUP];
            plane.iter_mut().zip(values).for_each(|(out, v)| *out = *v as u8);
            scales[g * TOKENS + lane] = 0.5 * d;
        }
    }
}

/// The same with two planes for each group, the low bytes and the high ones, and whole scales.
///
/// # Safety
/// AVX-512 (F, BW, VL) is present.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub unsafe fn pack_int16(x: &Int16Rows, tokens: &[u32], planes: &mut [u8], scales: &mut [f32]) {
    for (lane, &token) in tokens.iter().enumerate() {
        let (values, scale) = (x.values(token as usize).as_chunks::<GROUP>().0, x.scales(token as usize));
        for (g, (values, d)) in values.iter().zip(scale).enumerate() {
            let both = &mut planes[2 * g * PLANE..][..2 * PLANE];
            let (low, high) = both.split_at_mut(PLANE);
            let (low, high) = (&mut low[lane * GROUP..][..GROUP], &mut high[lane * GROUP..][..GROUP]);
            low.iter_mut().zip(values).for_each(|(out, v)| *out = *v as u8);
            high.iter_mut().zip(values).for_each(|(out, v)| *out = (*v >> 8) as u8);
            scales[g * TOKENS + lane] = *d;
        }
    }
}

/// out[i] = the sixteen rows from `row` on times token i, for MXFP4 and the planes and scales of tokens that
/// [`pack_int8`] has laid out.
///
/// # Safety
/// AMX, AVX-512 (F, BW, DQ, VL, VNNI), AVX2, FMA and F16C are present.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub unsafe fn tile_int8(m: &Matrix, row: usize, tokens: (&[u8], &[f32]), panel: &mut Panel, out: &mut [[f32; TILE]]) {
    with_whole_tile(m, row, out, |row, out| {
        let (rows, groups) = (Span::new(m, row), m.groups());
        // SAFETY: a Matrix holds all its groups; the panel is unpacked before it is used.
        unsafe {
            int8_avx512::unpack::<0>(&rows, groups, out.len() <= FEW, panel);
            all_tokens::<1>(&rows, groups, tokens, panel, out);
        }
    });
}

/// The same for Q8 and tokens laid out by [`pack_int16`].
///
/// # Safety
/// As for `tile_int8`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub unsafe fn tile_int16(m: &Matrix, row: usize, tokens: (&[u8], &[f32]), panel: &mut Panel, out: &mut [[f32; TILE]]) {
    with_whole_tile(m, row, out, |row, out| {
        let (rows, groups) = (Span::new(m, row), m.groups());
        // SAFETY: a Matrix holds all its groups; the panel is unpacked before it is used.
        unsafe {
            unpack_bytes(&rows, groups, out.len() <= FEW, panel);
            all_tokens::<2>(&rows, groups, tokens, panel, out);
        }
    });
}

/// Scales of Q8 to f32, and its bytes side by side, four elements of each row.
///
/// # Safety
/// `groups` groups lie at every row.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn unpack_bytes(rows: &Span, groups: usize, few: bool, panel: &mut Panel) {
    assert!(panel.codes.len() >= PLANE * groups && panel.scales.len() >= TILE * groups);
    let unpack_one = |g: usize, halves: &[[u8; 2]; TILE]| {
        // SAFETY: group g of every row; the panel holds 512 bytes and sixteen scales for each group.
        unsafe {
            _mm512_storeu_ps(panel.scales.as_mut_ptr().add(g * TILE), int16_avx512::widened(halves));
            for part in 0..2 {
                let words = words_of_sixteen(rows.elements.add(g * rows.group + 16 * part), rows.row);
                let out = panel.codes.as_mut_ptr().add(g * PLANE + part * PLANE / 2);
                for (quad, word) in words.into_iter().enumerate() {
                    _mm512_storeu_si512(out.add(64 * quad).cast(), word);
                }
            }
        }
    };
    // SAFETY: promised by the caller; two bytes are a scale.
    unsafe { each_group(rows, groups, few, unpack_one) };
}

/// All tokens, a tile register's at a time.
///
/// # Safety
/// AMX and AVX-512 are present, panel and tokens are unpacked and packed.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn all_tokens<const PLANES: usize>(
    rows: &Span,
    groups: usize,
    (planes, token_scales): (&[u8], &[f32]),
    panel: &Panel,
    out: &mut [[f32; TILE]],
) {
    let per_tile = (PLANES * PLANE * groups, TOKENS * groups);
    let tiles = out.len().div_ceil(TOKENS);
    assert!(planes.len() >= tiles * per_tile.0 + READ_FURTHER && token_scales.len() >= tiles * per_tile.1);
    assert!(panel.codes.len() >= PLANE * groups + READ_FURTHER && panel.scales.len() >= TILE * groups);
    let few = out.len() <= FEW;
    for (tile, out) in out.chunks_mut(TOKENS).enumerate() {
        let (planes, scales) = (&planes[tile * per_tile.0..], &token_scales[tile * per_tile.1..]);
        // The first tokens ask for the next tile of rows, which then comes while they are computed.
        let ahead = (tile == 0).then_some((rows, !few));
        let (planes, scales) = (planes.as_ptr(), scales.as_ptr());
        // SAFETY: both hold `groups` groups.
        unsafe {
            if out.len() <= HALF {
                one_tile::<PLANES, HALF>(groups, panel, ahead, planes, scales, out);
            } else {
                one_tile::<PLANES, TOKENS>(groups, panel, ahead, planes, scales, out);
            }
        }
    }
}

/// C of four products.
#[repr(align(64))]
struct Sums([[[i32; TILE]; TOKENS]; PRODUCTS]);

/// Products are made in fours: each takes far longer than it keeps the unit busy.
const PRODUCTS: usize = 4;

/// Up to M tokens.
///
/// # Safety
/// AMX and AVX-512 are present; `planes`, `scales` and the panel hold `groups` groups and can be read a little further.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn one_tile<const PLANES: usize, const M: usize>(
    groups: usize,
    panel: &Panel,
    ahead: Option<(&Span, bool)>,
    planes: *const u8,
    scales: *const f32,
    out: &mut [[f32; TILE]],
) {
    // SAFETY: promised by the caller.
    let _registers = unsafe { Registers::shape::<M>() };
    let at_once = PRODUCTS / PLANES;
    let mut sums = const { Sums([[[0; TILE]; TOKENS]; PRODUCTS]) };
    let mut acc = [_mm512_setzero_ps(); M];
    // SAFETY: groups of the panel and of the tokens; what lies past the last group is multiplied but not added.
    unsafe {
        let start = |g: usize| {
            let (codes, planes) = (panel.codes.as_ptr().add(g * PLANE), planes.add(g * PLANES * PLANE));
            multiply::<PLANES>(codes, planes);
        };
        start(0);
        for first in (0..groups).step_by(at_once) {
            take_out(&mut sums);
            if first + at_once < groups {
                start(first + at_once);
            }
            for (g, sums) in (first..groups).zip(sums.0.chunks_exact(PLANES)) {
                if let Some((rows, all)) = ahead {
                    rows.prefetch_next(g, all);
                }
                let scale = _mm512_loadu_ps(panel.scales.as_ptr().add(g * TILE));
                for n in 0..M {
                    let mut sum = _mm512_load_si512(sums[0][n].as_ptr().cast());
                    if PLANES == 2 {
                        let high = _mm512_load_si512(sums[1][n].as_ptr().cast());
                        sum = _mm512_add_epi32(sum, _mm512_slli_epi32::<8>(high));
                    }
                    let scale = _mm512_mul_ps(scale, _mm512_set1_ps(*scales.add(g * TOKENS + n)));
                    acc[n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, acc[n]);
                }
            }
        }
    }
    for (out, acc) in out.iter_mut().zip(acc) {
        // SAFETY: sixteen floats.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), acc) };
    }
}

/// Four products into registers 0 to 3: of four groups, or of both planes of two.
///
/// # Safety
/// The registers are shaped, and so many groups lie at `codes` and `planes`.
#[inline(always)]
unsafe fn multiply<const PLANES: usize>(codes: *const u8, planes: *const u8) {
    // SAFETY: promised by the caller.
    unsafe {
        if PLANES == 1 {
            asm!(
                "tileloadd tmm6, [{b} + {s64}]",
                "tileloadd tmm4, [{a} + {s32}]",
                "tilezero tmm0",
                "tdpbssd tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {s64} + 512]",
                "tileloadd tmm5, [{a} + {s32} + 512]",
                "tilezero tmm1",
                "tdpbssd tmm1, tmm5, tmm7",
                "tileloadd tmm6, [{b} + {s64} + 1024]",
                "tileloadd tmm4, [{a} + {s32} + 1024]",
                "tilezero tmm2",
                "tdpbssd tmm2, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {s64} + 1536]",
                "tileloadd tmm5, [{a} + {s32} + 1536]",
                "tilezero tmm3",
                "tdpbssd tmm3, tmm5, tmm7",
                a = in(reg) planes, b = in(reg) codes, s32 = in(reg) 32usize, s64 = in(reg) 64usize,
                options(nostack, readonly),
            );
        } else {
            asm!(
                "tileloadd tmm6, [{b} + {s64}]",
                "tileloadd tmm4, [{a} + {s32}]",
                "tilezero tmm0",
                "tdpbusd tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a} + {s32} + 512]",
                "tilezero tmm1",
                "tdpbssd tmm1, tmm5, tmm6",
                "tileloadd tmm7, [{b} + {s64} + 512]",
                "tileloadd tmm4, [{a} + {s32} + 1024]",
                "tilezero tmm2",
                "tdpbusd tmm2, tmm4, tmm7",
                "tileloadd tmm5, [{a} + {s32} + 1536]",
                "tilezero tmm3",
                "tdpbssd tmm3, tmm5, tmm7",
                a = in(reg) planes, b = in(reg) codes, s32 = in(reg) 32usize, s64 = in(reg) 64usize,
                options(nostack, readonly),
            );
        }
    }
}

/// Registers 0 to 3 to memory.
///
/// # Safety
/// The registers are shaped.
#[inline(always)]
unsafe fn take_out(sums: &mut Sums) {
    // SAFETY: promised by the caller; a C is 1024 bytes.
    unsafe {
        asm!(
            "tilestored [{c} + {s64}], tmm0",
            "tilestored [{c} + {s64} + 1024], tmm1",
            "tilestored [{c} + {s64} + 2048], tmm2",
            "tilestored [{c} + {s64} + 3072], tmm3",
            c = in(reg) sums, s64 = in(reg) 64usize,
            options(nostack),
        );
    }
}
