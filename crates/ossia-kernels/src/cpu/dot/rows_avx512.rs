//! What the AVX-512 integer kernels share: sixteen rows' words side by side, and tokens in parts.

use std::arch::x86_64::*;

use super::span::{Addresses, addresses};

/// Tokens that share the loads of a panel, at most.
pub const TOKENS: usize = 8;

/// Sixteen bytes each of sixteen rows: vector w holds the rows' words w, of four bytes, side by side.
///
/// # Safety
/// 16 bytes can be read at `p` and at up to fifteen times `row` bytes after it.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub unsafe fn words_of_sixteen(p: *const u8, row: usize) -> [__m512i; 4] {
    // SAFETY: promised by the caller.
    unsafe { words_of::<false>(&addresses(p, row), 0) }
}

/// The same of rows that lie anywhere, `offset` bytes on. HALVES: halves of vectors are filled first,
/// which costs less where a processor computes 512 bits in two of them.
///
/// # Safety
/// 16 bytes can be read at each of them.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub unsafe fn words_of<const HALVES: bool>(rows: &Addresses, offset: usize) -> [__m512i; 4] {
    // SAFETY: promised by the caller.
    let t = rows.map(|rows| unsafe {
        // Rows r, 4 + r, 8 + r and 12 + r, each in a 128-bit lane.
        let lane = |a: usize| _mm_loadu_si128(rows[a].wrapping_add(offset).cast());
        if HALVES {
            let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(lane(0)), lane(1));
            let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(lane(2)), lane(3));
            return _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
        }
        let bytes = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(lane(0)), lane(1));
        _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(bytes, lane(2)), lane(3))
    });
    // A row's four words become the row's lane in four vectors.
    let (low01, high01) = (_mm512_unpacklo_epi32(t[0], t[1]), _mm512_unpackhi_epi32(t[0], t[1]));
    let (low23, high23) = (_mm512_unpacklo_epi32(t[2], t[3]), _mm512_unpackhi_epi32(t[2], t[3]));
    [
        _mm512_unpacklo_epi64(low01, low23),
        _mm512_unpackhi_epi64(low01, low23),
        _mm512_unpacklo_epi64(high01, high23),
        _mm512_unpackhi_epi64(high01, high23),
    ]
}
