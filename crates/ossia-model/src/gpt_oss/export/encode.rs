//! From the source's numbers to the bytes of a target's format, and the count of what that changed.
//!
//! Where source and target have one format the bytes are copied, for MXFP4 with its nibbles in the target's order: a
//! packed expert is never quantized again. All else goes through its exact f32 values.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use half::{bf16, f16};
use ossia_kernels::matrix::Kind;
use ossia_kernels::mxfp4::{self, GROUP, NAN_SCALE};
use ossia_kernels::pool::Pool;
use ossia_kernels::quantize_mxfp4::{
    PACKED, pack_halves, pack_pairs, quantize_group, scale_byte, unpack_halves, unpack_pairs,
};
use ossia_kernels::{DType, Matrix};

use super::merge::Delta;
use super::source::{Rows, not_finite};
use crate::checkpoint::Result;

/// Values that are handed on at once, about.
const CHUNK: usize = 1 << 19;
/// Groups of columns that are turned at once: their lines stay in the nearest cache.
const GROUPS: usize = 4;

/// What a tensor's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    F32,
    /// F32, each matrix [N, K] as [K, N].
    F32Columns,
    Bf16,
    /// BF16, each matrix [N, K] as [K, N].
    Bf16Columns,
    /// GGUF's Q8_0.
    Q8,
    /// Codes of MXFP4 in pairs.
    Blocks,
    /// Scales of MXFP4.
    Scales,
    /// GGUF's MXFP4.
    Mxfp4,
}

impl Coding {
    /// The type under which it is stored.
    pub fn dtype(self) -> DType {
        match self {
            Coding::F32 | Coding::F32Columns => DType::F32,
            Coding::Bf16 | Coding::Bf16Columns => DType::BF16,
            Coding::Q8 => DType::Q8_0,
            Coding::Blocks | Coding::Scales => DType::U8,
            Coding::Mxfp4 => DType::Mxfp4,
        }
    }

    /// The format whose rounding it has; none where nothing is rounded, or where another tensor tells of it.
    pub fn rounds_to(self) -> Option<DType> {
        match self {
            Coding::F32 | Coding::F32Columns | Coding::Scales => None,
            Coding::Bf16 | Coding::Bf16Columns => Some(DType::BF16),
            Coding::Q8 => Some(DType::Q8_0),
            Coding::Blocks | Coding::Mxfp4 => Some(DType::Mxfp4),
        }
    }

    /// Whether a matrix is written column by column.
    fn is_turned(self) -> bool {
        matches!(self, Coding::F32Columns | Coding::Bf16Columns)
    }
}

/// How far written values are from the source's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub values: u64,
    pub inexact: u64,
    /// The largest error, over the value itself or the largest of its group.
    pub worst: f64,
    /// Sums of squares: of the errors, of the values that were not copied as bytes.
    pub error: f64,
    pub total: f64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.values += other.values;
        self.inexact += other.inexact;
        self.worst = self.worst.max(other.worst);
        self.error += other.error;
        self.total += other.total;
    }

    /// Compares; false where a kept value is not finite. `shared`: errors count against the group's largest value.
    fn compare(&mut self, values: &[f32], kept: &[f32], shared: bool) -> bool {
        self.values += values.len() as u64;
        self.total += values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        if values == kept {
            return true;
        }
        let largest = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        for (v, k) in values.iter().zip(kept).filter(|(v, k)| v != k) {
            let away = (f64::from(*v) - f64::from(*k)).abs();
            self.inexact += 1;
            self.error += away * away;
            self.worst = self.worst.max(away / f64::from(if shared { largest } else { v.abs() }));
        }
        kept.iter().all(|k| k.is_finite())
    }
}

/// Takes bytes as they are made.
pub(super) type Sink<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;

/// A vector as F32 or BF16; `None` where BF16 cannot hold a value.
pub(super) fn vector(values: &[f32], coding: Coding, tally: &mut Tally) -> Option<Vec<u8>> {
    if coding == Coding::F32 {
        return Some(values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }
    let kept: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
    let read: Vec<f32> = kept.iter().map(|k| k.to_f32()).collect();
    tally.compare(values, &read, false).then(|| kept.iter().flat_map(|k| k.to_le_bytes()).collect())
}

/// A part of a matrix, and what is done with it.
struct Cut<'a> {
    rows: &'a Rows<'a>,
    delta: Option<Delta<'a>>,
    coding: Coding,
    of_rows: Range<usize>,
    of_groups: Range<usize>,
}

/// A matrix with what an adapter adds to it, in parts that `pool` shares out: runs of rows, or of columns where columns
/// are what is written. The parts depend on the shape alone, and are handed on in order.
pub(super) fn matrix(
    pool: &Pool,
    rows: &Rows,
    delta: Option<Delta>,
    coding: Coding,
    tally: &mut Tally,
    sink: &mut Sink,
) -> Result<()> {
    let (all_rows, all_groups) = (0..rows.rows(), 0..rows.groups());
    let is_turned = coding.is_turned();
    let (count, grain) = match is_turned {
        true => (rows.groups(), GROUPS),
        false => (rows.rows(), (CHUNK / (rows.groups() * GROUP)).max(1)),
    };
    let part = |number: usize| {
        let own = number * grain..((number + 1) * grain).min(count);
        let (of_rows, of_groups) = if is_turned { (all_rows.clone(), own) } else { (own, all_groups.clone()) };
        Cut { rows, delta, coding, of_rows, of_groups }
    };
    let (parts, at_once) = (count.div_ceil(grain), 2 * pool.threads());
    for first in (0..parts).step_by(at_once) {
        let made: Vec<_> =
            (first..parts.min(first + at_once)).map(|_| Mutex::new(Ok((Vec::new(), Tally::default())))).collect();
        pool.run(made.len(), &|number, _| {
            *made[number].lock().unwrap_or_else(PoisonError::into_inner) = part(first + number).bytes();
        });
        for made in made {
            let (bytes, counted) = made.into_inner().unwrap_or_else(PoisonError::into_inner)?;
            tally.add(&counted);
            sink(&bytes)?;
        }
    }
    Ok(())
}

impl Cut<'_> {
    /// The part's bytes, and what they have changed.
    fn bytes(&self) -> Result<(Vec<u8>, Tally)> {
        let (mut out, mut tally) = (Vec::new(), Tally::default());
        if !self.coding.is_turned() {
            for row in self.of_rows.clone() {
                self.of_groups.clone().try_for_each(|group| self.put(row, group, &mut out, &mut tally))?;
            }
            return Ok((out, tally));
        }
        let (size, height) = (self.coding.dtype().block().1, self.of_rows.len());
        let mut turned = vec![0; self.of_groups.len() * GROUP * height * size];
        for row in self.of_rows.clone() {
            for (which, group) in self.of_groups.clone().enumerate() {
                out.clear();
                self.put(row, group, &mut out, &mut tally)?;
                for (col, value) in out.chunks_exact(size).enumerate() {
                    let to = ((which * GROUP + col) * height + row) * size;
                    turned[to..to + size].copy_from_slice(value);
                }
            }
        }
        Ok((turned, tally))
    }

    /// Appends a group's bytes.
    fn put(&self, row: usize, group: usize, out: &mut Vec<u8>, tally: &mut Tally) -> Result<()> {
        let (matrix, at, tensor) = self.rows.at(row);
        let is_finite = match self.delta.filter(|delta| !delta.is_zero(row)) {
            Some(delta) => {
                let mut values = matrix.group(at, group);
                delta.add(row, group, &mut values);
                put_values(self.coding, &values, out, tally)
            }
            None => put_group(self.coding, matrix, at, group, out, tally),
        };
        if is_finite {
            return Ok(());
        }
        Err(not_finite(tensor, &format!("in row {at} of a matrix, columns {} on", group * GROUP)))
    }
}

/// Appends a group's bytes; false where it holds a number that is not finite, before or after.
fn put_group(coding: Coding, m: &Matrix, row: usize, group: usize, out: &mut Vec<u8>, tally: &mut Tally) -> bool {
    if let Some(finite) = copy_group(coding, m, row, group, out) {
        tally.values += GROUP as u64;
        return finite;
    }
    put_values(coding, &m.group(row, group), out, tally)
}

/// Appends the bytes of 32 values; false where one is not finite, before or after.
fn put_values(coding: Coding, values: &[f32; GROUP], out: &mut Vec<u8>, tally: &mut Tally) -> bool {
    if !values.iter().all(|v| v.is_finite()) {
        return false;
    }
    match coding {
        Coding::F32 | Coding::F32Columns => out.extend(values.map(f32::to_le_bytes).as_flattened()),
        Coding::Bf16 | Coding::Bf16Columns => {
            let kept = values.map(bf16::from_f32);
            out.extend(kept.map(bf16::to_le_bytes).as_flattened());
            return tally.compare(values, &kept.map(bf16::to_f32), false);
        }
        Coding::Q8 => return put_q8(values, out, tally),
        Coding::Scales => out.push(scale_byte(values)),
        Coding::Blocks | Coding::Mxfp4 => {
            let (scale, codes) = quantize_group(values);
            match coding {
                Coding::Blocks => out.extend(pack_pairs(&codes)),
                _ => put_mxfp4(scale, &pack_halves(&codes), out),
            }
            return tally.compare(values, &codes.map(|code| mxfp4::value(code, scale)), true);
        }
    }
    true
}

fn put_mxfp4(scale: u8, halves: &[u8; PACKED], out: &mut Vec<u8>) {
    out.push(scale);
    out.extend(halves);
}

/// ggml's rule: the scale is max|x| / 127 as F16, the integers are x over the scale before it was rounded, halves away
/// from zero.
fn put_q8(values: &[f32; GROUP], out: &mut Vec<u8>, tally: &mut Tally) -> bool {
    let scale = values.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let kept = f16::from_f32(scale);
    // A scale so small that its inverse is infinite is 0 as F16: then the integers do not matter.
    let integers = values.map(|v| (v * inverse).round() as i8);
    out.extend(kept.to_le_bytes());
    out.extend(integers.map(|i| i as u8));
    tally.compare(values, &integers.map(|i| f32::from(i) * kept.to_f32()), true)
}

/// Copies a group where source and target have one format: whether it was finite, or nothing where they do not.
fn copy_group(coding: Coding, m: &Matrix, row: usize, group: usize, out: &mut Vec<u8>) -> Option<bool> {
    let (elements, scales) = (m.elements(), m.scales());
    if (m.kind(), coding) == (Kind::Q8, Coding::Q8) {
        out.extend(&scales.at(row, group)[..2]);
        out.extend(&elements.at(row, group)[..GROUP]);
        return Some(m.scale(row, group).is_finite());
    }
    let halves = match m.kind() {
        Kind::Mxfp4Pairs => false,
        Kind::Mxfp4Halves => true,
        _ => return None,
    };
    let scale = scales.at(row, group)[0];
    let packed = elements.at(row, group).first_chunk::<PACKED>()?;
    match coding {
        Coding::Scales => out.push(scale),
        Coding::Blocks if halves => out.extend(pack_pairs(&unpack_halves(packed))),
        Coding::Blocks => out.extend(packed),
        Coding::Mxfp4 if halves => put_mxfp4(scale, packed, out),
        Coding::Mxfp4 => put_mxfp4(scale, &pack_halves(&unpack_pairs(packed)), out),
        _ => return None,
    }
    Some(scale != NAN_SCALE)
}
