//! What a step of training tells the device besides a step's tables: tiles of its documents, and who named which token.

use super::{Argument, Gpu, Slice, lock};
use crate::{Result, Step};

/// Rows of a tile, the same as in `attention/train.cu`.
const SIDE: usize = 64;

/// Tables of a step of training.
pub(crate) struct Documents {
    memory: Slice,
    /// Tiles of at most 64 rows of one document.
    pub tiles: usize,
    /// Different tokens.
    pub tokens: usize,
    order: usize,
    starts: usize,
    ids: usize,
}

impl Documents {
    /// First and last row of each tile, and of its document [tiles, 4].
    pub fn tiles_at(&self) -> Argument {
        (&self.memory).into()
    }

    /// The different tokens, where each one's rows start in `order`, and rows in the order of their tokens.
    pub fn tokens_at(&self) -> [Argument; 3] {
        [self.ids, self.starts, self.order].map(|at| Argument::from(&self.memory).plus(4 * at))
    }
}

impl Gpu {
    /// Begins a step of training.
    pub(crate) fn begin_training(&self, step: &Step, tokens: &[u32]) -> Result<()> {
        *lock(&self.documents) = None;
        self.begin(step, tokens, 1)?;
        let mut numbers = Vec::new();
        for document in &step.sequences {
            let (start, end) = (document.rows.start, document.rows.end);
            let tile = |first: usize| [first, (first + SIDE).min(end), start, end];
            numbers.extend((start..end).step_by(SIDE).flat_map(tile).map(|row| row as u32));
        }
        let (tiles, order) = (numbers.len() / 4, numbers.len());
        let mut rows: Vec<u32> = (0..tokens.len() as u32).collect();
        // Rows of one token stay in their order.
        rows.sort_by_key(|&row| tokens[row as usize]);
        numbers.extend_from_slice(&rows);
        let token = |at: usize| tokens[rows[at] as usize];
        let firsts: Vec<usize> = (0..rows.len()).filter(|&at| at == 0 || token(at - 1) != token(at)).collect();
        let starts = numbers.len();
        numbers.extend(firsts.iter().chain([&rows.len()]).map(|&at| at as u32));
        let ids = numbers.len();
        numbers.extend(firsts.iter().map(|&at| token(at)));
        let mut memory = self.take(numbers.len())?;
        memory.upload(&numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>())?;
        let documents = Documents { memory, tiles, tokens: firsts.len(), order, starts, ids };
        *lock(&self.documents) = Some(documents.into());
        Ok(())
    }

    /// Numbers of scratch that [`Step::begin`] takes for at most so many tokens.
    pub fn training_tables_len(tokens: usize) -> usize {
        // Each document has a sequence's tables, and each may have a tile of its own.
        Self::tables_len(tokens, tokens, tokens, 0) + 4 * tokens + 3 * tokens + 1
    }

    /// What the step of training that runs now has told.
    ///
    /// # Panics
    /// Before [`Step::begin`].
    pub(crate) fn documents(&self) -> std::sync::Arc<Documents> {
        lock(&self.documents).clone().expect("cuda: a step of training is begun before its first op")
    }
}
