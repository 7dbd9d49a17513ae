//! Integer activations with AMX: the sums of the other versions, sixteen rows with sixteen tokens at a time.
//!
//! A tile register holds sixteen rows of up to 64 bytes, and one instruction adds to C [16 tokens, 16 rows] the products
//! of A [16 tokens, 32 bytes] and B [8 quads, 16 rows, 4 bytes]: a whole group in sixteen cycles. Each group's sums are
//! taken out and scaled as everywhere, while the next group's are made.
//!
//! Rust has no names for these instructions yet, so they are written out.

use std::arch::asm;
use std::arch::x86_64::*;

use super::few_avx512::Groups;
use super::halves_avx512::{Bytes, Codes};
use super::quantize::Int8Rows;
use super::span::{Span, with_whole_tile};
use super::{Panel, TILE};
use crate::matrix::Matrix;
use crate::mxfp4::{DOUBLED, GROUP};

/// Tokens of a tile register.
pub const TOKENS: usize = 16;

/// From this many tokens on, filling a tile register is worth it. Q8 has less to unpack: eight tokens straight from the weights
/// wait for memory alone.
pub const fn least_tokens(q8: bool) -> usize {
    if q8 { 9 } else { 8 }
}

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

/// Rows of a tile register that so many tokens get: fewer rows take less time, and less of the first cache.
const fn lanes(tokens: usize) -> usize {
    match tokens {
        0..=8 => 8,
        9..=12 => 12,
        _ => TOKENS,
    }
}

/// Bytes and numbers of scales of sixteen tokens of `cols`.
pub fn sizes(cols: usize) -> (usize, usize) {
    (TOKENS * cols, TOKENS * cols / GROUP)
}

/// Lays up to sixteen tokens side by side: values [groups, lanes, 32], and scales [groups, lanes].
///
/// # Safety
/// AVX-512 (F, BW, VL) is present.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub unsafe fn pack(x: &Int8Rows, tokens: &[u32], planes: &mut [u8], scales: &mut [f32]) {
    let lanes = lanes(tokens.len());
    for (lane, &token) in tokens.iter().enumerate() {
        let (values, scale) = (x.values(token as usize).as_chunks::<GROUP>().0, x.scales(token as usize));
        for (g, (values, d)) in values.iter().zip(scale).enumerate() {
            let plane = &mut planes[(g * lanes + lane) * GROUP..][..GROUP];
            plane.iter_mut().zip(values).for_each(|(out, v)| *out = *v as u8);
            scales[g * lanes + lane] = *d;
        }
    }
}

/// out[i] = the sixteen rows from `row` on times token i, for MXFP4 and the planes and scales of tokens that
/// [`pack`] has laid out.
///
/// # Safety
/// AMX, AVX-512 (F, BW, DQ, VL, VNNI), AVX2, FMA and F16C are present.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub unsafe fn codes(m: &Matrix, row: usize, tokens: (&[u8], &[f32]), panel: &mut Panel, out: &mut [[f32; TILE]]) {
    with_whole_tile(m, row, out, |row, out| {
        let (rows, groups) = (Span::new(m, row), m.groups());
        // SAFETY: a Matrix holds all its groups; the panel is unpacked before it is used.
        unsafe {
            let table = _mm512_loadu_si512(CODES.as_ptr().cast());
            if rows.scales_between() {
                at_once(&mut Codes::<true, true>::new(&rows, groups, table), groups, tokens, panel, out);
            } else {
                at_once(&mut Codes::<false, true>::new(&rows, groups, table), groups, tokens, panel, out);
            }
        }
    });
}

/// The same for Q8.
///
/// # Safety
/// As for [`codes`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub unsafe fn bytes(m: &Matrix, row: usize, tokens: (&[u8], &[f32]), panel: &mut Panel, out: &mut [[f32; TILE]]) {
    with_whole_tile(m, row, out, |row, out| {
        let (rows, groups) = (Span::new(m, row), m.groups());
        // SAFETY: a Matrix holds all its groups; the panel is unpacked before it is used.
        unsafe {
            at_once(&mut Bytes::<true, false>::new(&rows, groups), groups, tokens, panel, out);
        }
    });
}

/// E2M1 codes, doubled, for bytes whose two highest bits say nothing: sixteen values four times over.
static CODES: [i8; 64] = {
    let mut table = [0; 64];
    let mut i = 0;
    while i < 64 {
        table[i] = DOUBLED[i % 16];
        i += 1;
    }
    table
};

/// All tokens, a tile register's at a time. Groups are unpacked on the way for the first; with no others to come they stay
/// in the first cache, else they fill the panel.
///
/// # Safety
/// AMX and AVX-512 are present, `from` has `groups` groups, tokens are packed.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn at_once(
    from: &mut impl Groups,
    groups: usize,
    (planes, token_scales): (&[u8], &[f32]),
    panel: &mut Panel,
    out: &mut [[f32; TILE]],
) {
    let (plane_bytes, num_scales) = (PLANE * groups, TOKENS * groups);
    let tiles = out.len().div_ceil(TOKENS);
    assert!(planes.len() >= tiles * plane_bytes + READ_FURTHER && token_scales.len() >= tiles * num_scales);
    // Later tokens need all that was unpacked.
    let (room, mask) = if tiles > 1 { (groups, usize::MAX) } else { (groups.min(RING), RING - 1) };
    assert!(panel.codes.len() >= room * PLANE + READ_FURTHER && panel.scales.len() >= room * TILE);
    let mut tokens = out.chunks_mut(TOKENS).zip(planes.chunks(plane_bytes)).zip(token_scales.chunks(num_scales));
    let Some(((first, planes), scales)) = tokens.next() else { return };
    let panel = Unpacked { codes: panel.codes.as_mut_ptr(), scales: panel.scales.as_mut_ptr(), mask };
    // SAFETY: promised by the caller; the panel has room for what is kept.
    unsafe {
        from.begin();
        let unpack = |g: usize| unpack(from, g, &panel);
        some_tokens(groups, &panel, planes, scales, first, unpack);
        for ((out, planes), scales) in tokens {
            some_tokens(groups, &panel, planes, scales, out, |_| {});
        }
    }
}

/// Where unpacked groups are: group g at g & mask.
struct Unpacked {
    codes: *mut u8,
    scales: *mut f32,
    mask: usize,
}

/// Group g, which follows the one before, to its place.
///
/// # Safety
/// As for [`at_once`]; there is room.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn unpack(from: &mut impl Groups, g: usize, panel: &Unpacked) {
    let at = g & panel.mask;
    // SAFETY: promised by the caller.
    unsafe {
        let (codes, scales) = from.next(g);
        for (quad, codes) in codes.into_iter().enumerate() {
            _mm512_storeu_si512(panel.codes.add(at * PLANE + 64 * quad).cast(), codes);
        }
        _mm512_storeu_ps(panel.scales.add(at * TILE), scales);
    }
}

/// [`pipeline`] for as many tokens as there are.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn some_tokens(
    groups: usize,
    panel: &Unpacked,
    planes: &[u8],
    scales: &[f32],
    out: &mut [[f32; TILE]],
    unpack: impl FnMut(usize),
) {
    let (planes, scales) = (planes.as_ptr(), scales.as_ptr());
    // SAFETY: promised by the caller.
    unsafe {
        match lanes(out.len()) {
            8 => pipeline::<8>(groups, panel, planes, scales, out, unpack),
            12 => pipeline::<12>(groups, panel, planes, scales, out, unpack),
            _ => pipeline::<16>(groups, panel, planes, scales, out, unpack),
        }
    }
}

/// Groups of the panel that are used in turn.
const RING: usize = 16;

/// Up to M tokens. While some groups are multiplied, those after them are unpacked and those before them scaled: memory,
/// arithmetic and tile registers are busy at the same time, and nothing waits for what was written just before.
///
/// # Safety
/// AMX and AVX-512 are present; planes and scales hold `groups` groups of M tokens, `unpack` puts a group into the panel, and
/// all can be read a little further.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn pipeline<const M: usize>(
    groups: usize,
    panel: &Unpacked,
    planes: *const u8,
    token_scales: *const f32,
    out: &mut [[f32; TILE]],
    mut unpack: impl FnMut(usize),
) {
    let &Unpacked { codes, scales: row_scales, mask } = panel;
    // SAFETY: promised by the caller.
    let _registers = unsafe { Registers::shape::<M>() };
    let mut unpack_block = |first: usize| (first..(first + PRODUCTS).min(groups)).for_each(&mut unpack);
    let mut sums = [const { std::mem::MaybeUninit::<Sums>::uninit() }; 2];
    let mut acc = [_mm512_setzero_ps(); M];
    // Two blocks ahead are unpacked, one ahead is multiplied, this one is taken out, the one before is scaled.
    unpack_block(0);
    unpack_block(PRODUCTS);
    // SAFETY: the first block is unpacked.
    unsafe { multiply::<M>(codes, planes) };
    let blocks = groups.div_ceil(PRODUCTS);
    for block in 0..=blocks {
        let first = block * PRODUCTS;
        unpack_block(first + 2 * PRODUCTS);
        // SAFETY: as above.
        unsafe {
            if block < blocks {
                take_out(sums[block % 2].as_mut_ptr());
            }
            if block + 1 < blocks {
                let next = first + PRODUCTS;
                multiply::<M>(codes.add((next & mask) * PLANE), planes.add(next * M * GROUP));
            }
            if block > 0 {
                let first = first - PRODUCTS;
                // Of each C only the rows of M tokens were written, so no reference to it may be made.
                let sums = (&raw const (*sums[(block - 1) % 2].as_ptr()).0).cast::<[[i32; TILE]; TOKENS]>();
                for (i, g) in (first..(first + PRODUCTS).min(groups)).enumerate() {
                    let row_scale = _mm512_loadu_ps(row_scales.add((g & mask) * TILE));
                    add_scaled::<M>(sums.add(i), row_scale, token_scales.add(g * M), &mut acc);
                }
            }
        }
    }
    for (out, acc) in out.iter_mut().zip(acc) {
        // SAFETY: sixteen floats.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), acc) };
    }
}

/// acc[n] += the sums of a group, scaled.
///
/// # Safety
/// Sums of M tokens lie at `sums`, at a multiple of 64 bytes, and M scales of tokens at `token_scales`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn add_scaled<const M: usize>(
    sums: *const [[i32; TILE]; TOKENS],
    row_scale: __m512,
    token_scales: *const f32,
    acc: &mut [__m512; M],
) {
    for n in 0..M {
        // SAFETY: sixteen numbers each; promised by the caller.
        unsafe {
            let sum = _mm512_load_si512(sums.cast::<[i32; TILE]>().add(n).cast());
            let scale = _mm512_mul_ps(row_scale, _mm512_set1_ps(*token_scales.add(n)));
            acc[n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, acc[n]);
        }
    }
}

/// C of four products.
#[repr(align(64))]
struct Sums([[[i32; TILE]; TOKENS]; PRODUCTS]);

/// Products are made in fours: each takes far longer than it keeps the unit busy.
const PRODUCTS: usize = 4;

/// Products of four groups into registers 0 to 3.
///
/// # Safety
/// The registers are shaped, and so many groups lie at `codes` and `planes`.
#[inline(always)]
unsafe fn multiply<const M: usize>(codes: *const u8, planes: *const u8) {
    // SAFETY: promised by the caller.
    unsafe {
        asm!(
            "tileloadd tmm6, [{b} + {s64}]",
            "tileloadd tmm4, [{a} + {s32}]",
            "tilezero tmm0",
            "tdpbssd tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {s64} + 512]",
            "tileloadd tmm5, [{a} + {s32} + 1 * {plane}]",
            "tilezero tmm1",
            "tdpbssd tmm1, tmm5, tmm7",
            "tileloadd tmm6, [{b} + {s64} + 1024]",
            "tileloadd tmm4, [{a} + {s32} + 2 * {plane}]",
            "tilezero tmm2",
            "tdpbssd tmm2, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {s64} + 1536]",
            "tileloadd tmm5, [{a} + {s32} + 3 * {plane}]",
            "tilezero tmm3",
            "tdpbssd tmm3, tmm5, tmm7",
            a = in(reg) planes, b = in(reg) codes, s32 = in(reg) 32usize, s64 = in(reg) 64usize,
            plane = const M * GROUP,
            options(nostack, readonly),
        );
    }
}

/// Registers 0 to 3 to memory.
///
/// # Safety
/// The registers are shaped.
#[inline(always)]
unsafe fn take_out(sums: *mut Sums) {
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
