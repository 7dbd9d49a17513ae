//! What a step tells the device before its first kernel: tokens, positions, who owns which row, pages.

use std::sync::OnceLock;

use super::{Argument, Gpu, Size, Slice};
use crate::kv::{PAGE, PageTable};
use crate::{Result, Sequence, Step};

/// Columns (rows times query heads of a key/value head) of a block of the attention kernel.
pub(crate) const COLUMNS: usize = 64;
/// Blocks with at most so many columns share out pages, others columns: sixteen are what a warp takes at once.
pub(crate) const FEW_COLUMNS: usize = 16;
/// Positions of a span of the attention kernel.
pub(crate) const SPAN: usize = 4 * PAGE;
/// Widths of tables of steps that decode are multiples of this, so that steps look alike for a while.
const WIDTHS: usize = 16;

/// Tables of a step, in one run of numbers on the device.
pub(crate) struct Tables {
    memory: Slice,
    offsets: Offsets,
    full: Pages,
    sliding: Pages,
    turns: OnceLock<Slice>,
    /// Blocks of the attention kernel.
    pub tiles: usize,
    /// Whether there are blocks with few columns among them, and with many.
    pub few_and_many: (bool, bool),
    /// Spans of the attention kernel, at least as many as the longest sequence has.
    pub spans: usize,
}

/// Where tables begin, in numbers.
struct Offsets {
    positions: usize,
    sequences: usize,
    slots: usize,
    logits_rows: usize,
    logits_slots: usize,
    tiles: usize,
}

/// Pages of one kind: `width` for each sequence, from page `firsts` on.
#[derive(Clone, Copy)]
struct Pages {
    pages: usize,
    firsts: usize,
    width: usize,
}

/// Where the pages of a layer's kind are told.
#[derive(Clone, Copy)]
pub(crate) struct PagesAt {
    /// [S, width].
    pub pages: Argument,
    /// [S].
    pub firsts: Argument,
    pub width: usize,
}

impl Tables {
    /// Token ids [T].
    pub fn tokens(&self) -> Argument {
        self.at(0)
    }

    /// Positions [T].
    pub fn positions(&self) -> Argument {
        self.at(self.offsets.positions)
    }

    /// The sequence of each row [T].
    pub fn sequences(&self) -> Argument {
        self.at(self.offsets.sequences)
    }

    /// The slot of each row's adapter [T], all bits where it has none.
    pub fn slots(&self) -> Argument {
        self.at(self.offsets.slots)
    }

    /// Whether so many rows are all of the batch.
    pub fn is_batch(&self, rows: usize) -> bool {
        rows == self.offsets.positions
    }

    /// Those of `rows` rows: of the batch, or of those that want logits.
    pub fn slots_of(&self, rows: usize) -> Argument {
        if self.is_batch(rows) { self.slots() } else { self.at(self.offsets.logits_slots) }
    }

    /// Rows that want logits [R].
    pub fn logits_rows(&self) -> Argument {
        self.at(self.offsets.logits_rows)
    }

    /// The first row of each block of the attention kernel, and the end: at most 64 columns of one sequence each.
    pub fn starts(&self) -> Argument {
        self.at(self.offsets.tiles)
    }

    /// What the rotations of all layers share, made by `make` when the first asks for it.
    pub fn turns(&self, make: impl FnOnce() -> Result<Slice>) -> Result<Argument> {
        if let Some(turns) = self.turns.get() {
            return Ok(turns.into());
        }
        let turns = make()?;
        Ok(self.turns.get_or_init(|| turns).into())
    }

    /// The pages of layers with or without a window.
    pub fn pages(&self, window: Option<usize>) -> PagesAt {
        let Pages { pages, firsts, width } = if window.is_some() { self.sliding } else { self.full };
        PagesAt { pages: self.at(pages), firsts: self.at(firsts), width }
    }

    fn at(&self, number: usize) -> Argument {
        Argument::from(&self.memory).plus(4 * number)
    }
}

impl Gpu {
    /// Begins a step: everything that later kernels look up is copied, at once. `group` is how many query heads share a
    /// key/value head. Returns the size of a step that decodes one token of each sequence, all of which want logits.
    pub fn begin(&self, step: &Step, tokens: &[u32], group: usize) -> Result<Option<Size>> {
        let decodes = step.logits_rows.len() == tokens.len() && step.sequences.len() == tokens.len();
        let mut numbers = tokens.to_vec();
        let positions = numbers.len();
        numbers.extend(step.sequences.iter().flat_map(|s| (s.start..).take(s.rows.len())).map(|p| p as u32));
        let sequences = numbers.len();
        let owners = step.sequences.iter().enumerate();
        numbers.extend(owners.flat_map(|(i, s)| std::iter::repeat_n(i as u32, s.rows.len())));
        let slots = numbers.len();
        let slot = |s: &Sequence| s.adapter.map_or(u32::MAX, |slot| slot as u32);
        numbers.extend(step.sequences.iter().flat_map(|s| std::iter::repeat_n(slot(s), s.rows.len())));
        let logits_rows = numbers.len();
        numbers.extend_from_slice(&step.logits_rows);
        let logits_slots = numbers.len();
        numbers.extend(step.logits_rows.iter().map(|&row| numbers[slots + row as usize]).collect::<Vec<_>>());
        let firsts = step.sequences.iter().flat_map(|s| s.rows.clone().step_by(COLUMNS / group));
        let starts: Vec<u32> = firsts.chain([step.tokens()]).map(|row| row as u32).collect();
        let offsets = Offsets { positions, sequences, slots, logits_rows, logits_slots, tiles: numbers.len() };
        numbers.extend_from_slice(&starts);
        let is_few = |tile: &[u32]| (tile[1] - tile[0]) as usize * group <= FEW_COLUMNS;
        let few_and_many = (starts.windows(2).any(is_few), !starts.windows(2).all(is_few));
        let rounding = if decodes { WIDTHS } else { 1 };
        let full = put_pages(&mut numbers, &step.sequences, rounding, |s| s.full);
        let sliding = put_pages(&mut numbers, &step.sequences, rounding, |s| s.sliding);
        let longest = step.sequences.iter().map(|s| s.start + s.rows.len()).max().unwrap_or(1);
        let spans = longest.div_ceil(SPAN);
        let spans = if decodes { spans.next_power_of_two() } else { spans };
        // The last step's are given back first, so that equal steps find theirs at equal addresses.
        self.set_tables(None);
        let memory = self.told(&numbers)?;
        self.set_tables(Some(Tables {
            memory,
            offsets,
            full,
            sliding,
            turns: OnceLock::new(),
            tiles: starts.len() - 1,
            few_and_many,
            spans,
        }));
        let size = Size { tokens: tokens.len(), widths: (full.width, sliding.width), spans };
        Ok(decodes.then_some(size))
    }

    /// Numbers of scratch that [`Gpu::begin`] takes for a largest step.
    pub fn tables_len(tokens: usize, logits_rows: usize, sequences: usize, context: usize) -> usize {
        5 * tokens + 1 + 2 * logits_rows + 2 * sequences * (context.div_ceil(PAGE) + 1 + WIDTHS)
    }
}

fn put_pages<'a>(
    numbers: &mut Vec<u32>,
    sequences: &'a [Sequence],
    rounding: usize,
    table: impl Fn(&'a Sequence) -> &'a PageTable,
) -> Pages {
    let widest = sequences.iter().map(|s| table(s).pages.len()).max().unwrap_or(0);
    let width = widest.next_multiple_of(rounding);
    let firsts = numbers.len();
    numbers.extend(sequences.iter().map(|s| table(s).first as u32));
    let pages = numbers.len();
    for sequence in sequences {
        let table = table(sequence);
        numbers.extend_from_slice(&table.pages);
        numbers.extend(std::iter::repeat_n(0, width - table.pages.len()));
    }
    Pages { pages, firsts, width }
}
