//! The launchers; the kernels are in `kernel.cu`. What is attached to a weight goes over at first use, all of it, and again
//! once an adapter was attached or taken away.

use crate::cuda::{Argument, Gpu, Memory, Shape, Slice};
use crate::{FloatPart, Result, Tensor};

/// Two factors of some outputs, for each expert or for all.
pub(crate) struct Factors<'a> {
    /// A [r, K], a list of one or of one for each expert.
    pub a: &'a [FloatPart],
    /// B [N, r], the same.
    pub b: &'a [FloatPart],
    pub rank: usize,
    pub scale: f32,
    /// The first output, and N.
    pub outputs: std::ops::Range<usize>,
}

/// Bytes of what kernels know of two factors (`Factor` in `low_rank.cuh`).
const ENTRY: usize = 40;

/// All adapters of a weight on the device.
#[derive(Debug)]
pub(crate) struct Attached {
    /// A table [slots, parts], and behind it numbers.
    memory: Memory,
    /// How many slots it has; those of the model that come after them have nothing here.
    slots: usize,
    /// The most pairs of factors of a slot, the largest rank and the most outputs of a pair.
    parts: usize,
    width: usize,
    outputs: usize,
}

impl Attached {
    /// Copies the factors of every slot; none is a slot that is empty.
    pub(super) fn new(gpu: &Gpu, slots: &[Vec<Factors>]) -> Result<Self> {
        let parts = slots.iter().map(Vec::len).max().unwrap_or(0);
        let table_len = slots.len() * parts * ENTRY;
        let len = |factors: &Factors| factors.a.iter().chain(factors.b).map(|part| 4 * part.len()).sum::<usize>();
        let numbers_len: usize = slots.iter().flatten().map(len).sum();
        let mut memory = gpu.room(table_len + numbers_len)?;
        let mut bytes = vec![0; table_len];
        for (slot, all) in slots.iter().enumerate() {
            for (part, factors) in all.iter().enumerate() {
                let mut put = |list: &[FloatPart]| {
                    let at = memory.at() + bytes.len() as u64;
                    bytes.extend(list.iter().flat_map(|part| part.iter()).flat_map(|v| v.to_le_bytes()));
                    (at, if list.len() == 1 { 0 } else { list[0].len() as u32 })
                };
                let ((a, a_stride), (b, b_stride)) = (put(factors.a), put(factors.b));
                let words = [a_stride, b_stride, factors.rank as u32, factors.outputs.start as u32];
                let last = [factors.outputs.len() as u32, factors.scale.to_bits()];
                let entry = [a, b].into_iter().flat_map(u64::to_le_bytes);
                let entry = entry.chain(words.into_iter().chain(last).flat_map(u32::to_le_bytes));
                let at = (slot * parts + part) * ENTRY;
                bytes.splice(at..at + ENTRY, entry);
            }
        }
        memory.put(0, &bytes)?;
        let width = slots.iter().flatten().map(|factors| factors.rank).max().unwrap_or(0);
        let outputs = slots.iter().flatten().map(|factors| factors.outputs.len()).max().unwrap_or(0);
        Ok(Self { memory, slots: slots.len(), parts, width, outputs })
    }

    /// The arguments of kernels that add to the pairs of `tokens` tokens with `k` experts each, with what `inner` made for `part`.
    pub(crate) fn arguments(&self, gpu: &Gpu, u: &Slice, part: usize, (tokens, k): (usize, usize)) -> [Argument; 7] {
        [
            (&self.memory).into(),
            self.slots.into(),
            gpu.tables().slots_of(tokens),
            u.into(),
            part.into(),
            self.width.into(),
            k.into(),
        ]
    }

    /// The same where nothing is attached.
    pub(crate) fn none() -> [Argument; 7] {
        [Argument::NULL; 7]
    }

    /// u [pairs, width] = s A x of `part` for the pairs of tokens with `k` experts each, whose rows of x [.., cols] are
    /// `per_row` pairs'.
    pub(crate) fn inner(
        &self,
        gpu: &Gpu,
        (chosen, pairs, k): (&Slice, usize, usize),
        (x, cols, per_row): (&Slice, usize, usize),
        part: usize,
    ) -> Result<Slice> {
        let u = gpu.take(pairs * self.width)?;
        let rows = rows_of(gpu, pairs / k);
        let which = Which { rows, chosen: chosen.into(), items: pairs, k, per_row };
        self.start_inner(gpu, which, (x.into(), cols), (part, 1), &u)?;
        Ok(u)
    }

    fn start_inner(
        &self,
        gpu: &Gpu,
        which: Which,
        (x, cols): (Argument, usize),
        (first, parts): (usize, usize),
        u: &Slice,
    ) -> Result<()> {
        let arguments = [
            (&self.memory).into(),
            self.slots.into(),
            self.parts.into(),
            first.into(),
            gpu.tables().slots(),
            which.rows,
            which.chosen,
            x,
            u.into(),
            cols.into(),
            which.k.into(),
            which.per_row.into(),
            parts.into(),
            self.width.into(),
        ];
        let shape = Shape { grid: (which.items, (parts * self.width).div_ceil(8), 1), threads: 256, shared: 0 };
        // SAFETY: (factors, count, all, first, slots, rows, chosen, x, u, cols, k, per_row, parts, width).
        unsafe { gpu.launch("low_rank", "low_rank_inner", shape, &arguments) }
    }
}

/// Which rows go through adapters.
struct Which {
    rows: Argument,
    chosen: Argument,
    items: usize,
    k: usize,
    per_row: usize,
}

/// The batch rows of `rows` rows: all of them, or those that want logits.
fn rows_of(gpu: &Gpu, rows: usize) -> Argument {
    if gpu.tables().is_batch(rows) { Argument::NULL } else { gpu.tables().logits_rows() }
}

/// y += s B (A x) for each row that goes through an adapter.
pub(crate) fn add(gpu: &Gpu, attached: &Attached, x: &Tensor, y: &Tensor) -> Result<()> {
    let (tokens, parts) = (x.rows(), attached.parts);
    let rows = rows_of(gpu, tokens);
    let u = gpu.take(tokens * parts * attached.width)?;
    let which = Which { rows, chosen: Argument::NULL, items: tokens, k: 1, per_row: 1 };
    attached.start_inner(gpu, which, (x.device().into(), x.cols()), (0, parts), &u)?;
    let arguments = [
        (&attached.memory).into(),
        attached.slots.into(),
        gpu.tables().slots(),
        rows,
        (&u).into(),
        y.device().into(),
        y.cols().into(),
        attached.width.into(),
    ];
    // Rows first: only the first side of a grid may be longer than 65,535.
    let shape = Shape { grid: (tokens, attached.outputs.div_ceil(256), parts), threads: 256, shared: 0 };
    // SAFETY: (factors, count, slots, rows, u, y, stride, width); outputs lie inside y, as was checked when they were attached.
    unsafe { gpu.launch("low_rank", "low_rank_add", shape, &arguments) }
}
