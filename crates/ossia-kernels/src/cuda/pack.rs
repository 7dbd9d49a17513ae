//! Weights in the order in which kernels read them: sixteen rows a tile, and of a tile what one lane multiplies with next, 16
//! bytes at a time (`products.cuh`). Rows go over as the file has them, and are put in order there (`pack.cuh`).
//!
//! Lane 4 g + t of a warp holds of a tile [16, 16] the elements of rows g and g + 8 in columns 2t, 2t + 1, 2t + 8, 2t + 9: four
//! pairs, (row g, 2t), (row g + 8, 2t), (row g, 2t + 8), (row g + 8, 2t + 8). Rows that are missing are zeros.
//!
//! bf16: [tile, step of 16 columns, 32 lanes, 16 bytes]. MXFP4: codes [tile, block of 64 columns, 32 lanes, 16 bytes], a word
//! for each step of 16, in which a pair's codes lie 16 bits apart and the four bits of each where they are had by one shift and
//! one mask; scales [tile, block, 8, 4 bytes], those of rows g and g + 8 for the first half of a block, then for the second.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::driver::staging::{STAGE, Staging};
use super::{Argument, Gpu, Memory, Shape, lock};
use crate::cpu::disjoint::Disjoint;
use crate::matrix::Kind;
use crate::pool::Pool;
use crate::{Error, Matrix, Result};

/// Rows of a tile.
pub(crate) const TILE: usize = 16;
/// Tokens of a tile.
pub(crate) const TOKENS: usize = 8;
/// Chains of a sum, each a warp's where tokens are few (`common.cuh`).
pub(crate) const PARTS: usize = 8;
/// Columns that a lane's 16 bytes of bf16 come from.
const STEP: usize = 16;
/// Columns that a lane's 16 bytes of MXFP4 come from: four steps.
pub(crate) const BLOCK: usize = 64;
/// Bytes of a block's codes and scales.
pub(crate) const CODES: usize = 512;
const SCALES: usize = 32;

/// The largest scale that kernels can multiply with: 2 times what a code says.
const MOST_SCALE: u8 = 128;

/// A matrix and one of its rows.
pub(crate) type Row<'a> = (&'a Matrix, usize);

/// Which row lies where, by its number among the rows of all tiles; none is a row of zeros.
pub(crate) type Source<'s, 'a> = &'s (dyn Fn(usize) -> Option<Row<'a>> + Sync);

/// Rows that go over in one turn at most; few in tests, so that small weights take several turns.
const ROWS: usize = if cfg!(test) { 3 * TILE } else { 4096 };
/// Bytes of what kernels know of a row (`Row` in `pack.cuh`).
const ENTRY: usize = 32;
/// Where rows begin in a buffer.
const ALIGN: usize = 16;

impl Gpu {
    /// bf16 weights in tiles: rows `source(0)` to `source(rows - 1)`, rounded to the nearest even where they are finer.
    pub(crate) fn bf16_tiles(
        &self,
        (key, form): (*const (), &'static str),
        pool: &Pool,
        (rows, cols): (usize, usize),
        source: Source,
    ) -> Result<Arc<Memory>> {
        let (tiles, steps) = (rows.div_ceil(TILE), cols / STEP);
        self.held(key, form, || {
            let out = self.room(tiles * steps * CODES)?;
            let at = Argument::from(&out);
            let rows_at = |row: usize| if row < rows { source(row) } else { None };
            self.send_rows(pool, tiles * TILE, &rows_at, &|first, count, table| {
                let tile = first / TILE;
                let arguments = [table, at.plus(tile * steps * CODES), steps.into()];
                let shape = Shape { grid: (steps.div_ceil(8), count / TILE, 1), threads: 256, shared: 0 };
                // SAFETY: (rows, tiles, steps); `out` has all tiles.
                unsafe { self.launch("linear", "linear_tiles", shape, &arguments) }
            })?;
            Ok(out)
        })
    }

    /// A matrix as rows of bf16.
    pub(crate) fn bf16_rows(&self, key: *const (), pool: &Pool, matrix: &Matrix) -> Result<Arc<Memory>> {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        self.held(key, "bf16 rows", || {
            let out = self.room(rows * cols * 2)?;
            let at = Argument::from(&out);
            self.send_rows(pool, rows, &|row| Some((matrix, row)), &|first, count, table| {
                let shape = Shape { grid: (count, 1, 1), threads: 256, shared: 0 };
                let arguments = [table, at.plus(first * cols * 2), cols.into()];
                // SAFETY: (rows, table, cols); `out` has all rows.
                unsafe { self.launch("embed", "embed_rows", shape, &arguments) }
            })?;
            Ok(out)
        })
    }

    /// MXFP4 weights in tiles: codes of all, and behind them, from [`codes_len`] on, scales.
    pub(crate) fn mxfp4_tiles(
        &self,
        (key, form): (*const (), &'static str),
        pool: &Pool,
        (tiles, cols): (usize, usize),
        source: Source,
    ) -> Result<Arc<Memory>> {
        let blocks = cols.div_ceil(BLOCK);
        self.held(key, form, || {
            let out = self.room(tiles * blocks * (CODES + SCALES))?;
            let (codes, scales) = (Argument::from(&out), Argument::from(&out).plus(codes_len(tiles, cols)));
            self.send_rows(pool, tiles * TILE, source, &|first, count, table| {
                let before = first / TILE * blocks;
                let (codes, scales) = (codes.plus(before * CODES), scales.plus(before * SCALES));
                let arguments = [table, codes, scales, blocks.into(), (cols / 32).into()];
                let shape = Shape { grid: (blocks.div_ceil(8), count / TILE, 1), threads: 256, shared: 0 };
                // SAFETY: (rows, codes, scales, blocks, groups); `out` has all tiles.
                unsafe { self.launch("experts", "experts_tiles", shape, &arguments) }
            })?;
            Ok(out)
        })
    }

    /// Sends rows in turns of whole tiles: `launch` gets the first row of a turn, how many, and what kernels know of them.
    fn send_rows(
        &self,
        pool: &Pool,
        rows: usize,
        source: Source,
        launch: &dyn Fn(usize, usize, Argument) -> Result<()>,
    ) -> Result<()> {
        let mut staging = lock(&self.staging);
        if staging.is_none() {
            *staging = Some(Staging::new(&self.context)?);
        }
        let staging = staging.as_mut().expect("made above");
        let mut first = 0;
        while first < rows {
            let (buffer, at) = staging.next()?;
            let turn = Turn::plan(rows, first, source, at)?;
            let len = turn.fill(pool, buffer)?;
            staging.send(len)?;
            launch(first, turn.rows, Argument::long(at as usize))?;
            first += turn.rows;
        }
        Ok(())
    }

    /// Gives back what weights have come through.
    pub fn end_loading(&self) {
        *lock(&self.staging) = None;
    }

    /// Bytes that are taken while weights are loaded.
    pub const LOADING: usize = 2 * STAGE;
}

/// Bytes of the codes of so many tiles.
pub(crate) fn codes_len(tiles: usize, cols: usize) -> usize {
    tiles * cols.div_ceil(BLOCK) * CODES
}

/// What goes over at once: a table of rows, and behind it their bytes.
struct Turn<'a> {
    rows: usize,
    table: Vec<u8>,
    /// Bytes of the file, and where in the buffer they go.
    spans: Vec<(usize, &'a [u8])>,
    /// Bytes that begin with a scale of MXFP4, and how far the next ones lie.
    scaled: Vec<(&'a [u8], usize)>,
    len: usize,
}

impl<'a> Turn<'a> {
    /// As many whole tiles from row `first` on as a buffer takes that lies at `device`.
    fn plan(rows: usize, first: usize, source: Source<'_, 'a>, device: u64) -> Result<Self> {
        let mut turn = Self { rows: 0, table: Vec::new(), spans: Vec::new(), scaled: Vec::new(), len: ROWS * ENTRY };
        while first + turn.rows < rows && turn.rows < ROWS {
            let tile = first + turn.rows..rows.min(first + turn.rows + TILE);
            let sizes = tile
                .clone()
                .filter_map(source)
                .map(|(m, row)| spans(m, row).iter().map(|s| s.len() + ALIGN).sum::<usize>());
            if turn.len + sizes.sum::<usize>() > STAGE {
                break;
            }
            turn.rows += tile.len();
            tile.for_each(|row| turn.add(source(row), device));
        }
        if turn.rows == 0 {
            let reason = format!("sixteen rows are larger than {STAGE} bytes");
            return Err(Error::Cuda { what: "packing weights", reason });
        }
        Ok(turn)
    }

    fn add(&mut self, row: Option<Row<'a>>, device: u64) {
        let Some((matrix, row)) = row else { return self.table.extend([0; ENTRY]) };
        let (elements, scales) = (matrix.elements(), matrix.scales());
        let (mut places, own) = ([0u64; 2], spans(matrix, row));
        for (place, span) in places.iter_mut().zip(own) {
            if !span.is_empty() {
                *place = device + self.len as u64;
                self.spans.push((self.len, span));
                self.len = (self.len + span.len()).next_multiple_of(ALIGN);
            }
        }
        let lead = lead(matrix, row);
        if let Some(lead) = lead {
            places[1] = places[0];
            places[0] += lead as u64;
        }
        if matches!(matrix.kind(), Kind::Mxfp4Pairs | Kind::Mxfp4Halves) {
            self.scaled.push((own[usize::from(lead.is_none())], scales.group_stride()));
        }
        let kind = match matrix.kind() {
            Kind::F32 => 0,
            Kind::F16 => 1,
            Kind::BF16 => 2,
            Kind::Q8 => 3,
            Kind::Mxfp4Pairs => 4,
            Kind::Mxfp4Halves => 5,
        };
        self.table.extend(places.iter().flat_map(|place| place.to_le_bytes()));
        let words = [kind, elements.group_stride() as u32, scales.group_stride() as u32, 0];
        self.table.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }

    /// Copies everything to `buffer`, by all threads; returns how many bytes of it there are.
    fn fill(&self, pool: &Pool, buffer: &mut [u8]) -> Result<usize> {
        buffer[..self.table.len()].copy_from_slice(&self.table);
        let parts = Disjoint::new(buffer);
        pool.run_ranges(self.spans.len(), 64, |range, _| {
            for (at, span) in &self.spans[range] {
                // SAFETY: spans lie one behind the other, and each is one task's.
                unsafe { parts.part(*at..at + span.len()) }.copy_from_slice(span);
            }
        });
        let largest = AtomicU8::new(0);
        pool.run_ranges(self.scaled.len(), 64, |range, _| {
            // Scales that lie side by side are compared many at once.
            let most = |&(bytes, stride): &(&[u8], usize)| match stride {
                1 => bytes.iter().copied().fold(0, u8::max),
                _ => bytes.iter().step_by(stride).copied().fold(0, u8::max),
            };
            largest.fetch_max(self.scaled[range].iter().map(most).max().unwrap_or(0), Ordering::Relaxed);
        });
        let largest = largest.into_inner();
        if largest > MOST_SCALE {
            let reason = format!("an expert has a scale of 2^{}, wanted at most 2", i32::from(largest) - 127);
            return Err(Error::Cuda { what: "packing weights", reason });
        }
        Ok(self.len)
    }
}

/// How far behind its first scale a row's elements begin, where the two lie in one run of bytes.
fn lead(matrix: &Matrix, row: usize) -> Option<usize> {
    let (elements, scales) = (matrix.elements().at(row, 0).as_ptr().addr(), matrix.scales().at(row, 0).as_ptr().addr());
    let together = matrix.kind().is_quantized() && matrix.scales().group_stride() == matrix.elements().group_stride();
    (together && elements >= scales && elements - scales < matrix.scales().group_stride()).then(|| elements - scales)
}

/// The bytes of a row: elements with the scales between them, or elements and scales.
fn spans(matrix: &Matrix, row: usize) -> [&[u8]; 2] {
    let len = |stride: usize, last: usize| (matrix.groups() - 1) * stride + last;
    let elements = len(matrix.elements().group_stride(), matrix.kind().group_bytes());
    if let Some(lead) = lead(matrix, row) {
        return [&matrix.scales().at(row, 0)[..lead + elements], &[]];
    }
    let scales = if matrix.kind().is_quantized() {
        &matrix.scales().at(row, 0)[..len(matrix.scales().group_stride(), matrix.kind().scale_bytes())]
    } else {
        &[]
    };
    [&matrix.elements().at(row, 0)[..elements], scales]
}
