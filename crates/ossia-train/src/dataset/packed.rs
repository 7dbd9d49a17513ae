//! Full micro batches, drawn one at a time.
//!
//! Documents come in the order of the epoch. A window of them, as many as fill 64 micro batches, is packed at once; its
//! micro batches are drawn in an order of their own, since packing begins with the longest documents. A window never
//! reaches into the next epoch, so that every epoch draws every document once, and where a cursor stands in a window is
//! enough to make it again: what follows is the same, bit by bit.

use super::batch::rows_of;
use super::document::Document;
use super::order::{Cursor, Order};
use super::packing::pack;
use super::{Batch, Batches, DatasetError};

/// Micro batches of a window.
const NUM_MICRO: usize = 64;

/// What is being drawn.
#[derive(Debug)]
pub(super) struct Window {
    /// The cursor at its first document.
    start: Cursor,
    /// The cursor after its last one.
    end: Cursor,
    /// The size of micro batches that it was made for.
    max_tokens: usize,
    /// The documents, group by group.
    groups: Vec<Vec<Document>>,
    /// Which groups each micro batch holds, in the order of drawing.
    micro: Vec<Vec<usize>>,
}

impl Batches {
    /// The next micro batch: whole documents of at most `max_tokens` rows together. A longer document is cut as it is
    /// to `max_len`; a group of several documents that is longer is alone and whole. All are at least 98 % full where
    /// documents are not long against `max_tokens`, but for the last of an epoch.
    ///
    /// Fails where a shard cannot be read any more. Not to be mixed with [`Batches::next_batch`] within a window.
    pub fn next_micro(&mut self, max_tokens: usize) -> Result<Batch, DatasetError> {
        let start = Cursor { drawn: 0, ..self.cursor };
        let window = match self.window.take().filter(|window| (window.start, window.max_tokens) == (start, max_tokens))
        {
            Some(window) => window,
            None => self.window_at(start, max_tokens)?,
        };
        let most = self.settings.max_len.min(max_tokens).max(1);
        let mut batch = Batch::default();
        let drawn = usize::try_from(self.cursor.drawn).unwrap_or(usize::MAX);
        let Some(places) = window.micro.get(drawn) else {
            let wanted = format!("a place below {}, the micro batches that begin here", window.micro.len());
            let advice = "go on with the size of micro batches that the checkpoint was made with";
            return Err(DatasetError::setting("the data cursor", wanted, drawn.to_string(), advice));
        };
        for &place in places {
            let documents = window.groups.get(place).into_iter().flatten();
            documents.for_each(|document| batch.add(document, most, &self.settings.class_weights));
        }
        self.cursor.drawn += 1;
        if self.cursor.drawn >= window.micro.len() as u64 {
            self.cursor = window.end;
        } else {
            self.window = Some(window);
        }
        Ok(batch)
    }

    fn window_at(&self, start: Cursor, max_tokens: usize) -> Result<Window, DatasetError> {
        let most = self.settings.max_len.min(max_tokens).max(1);
        let (mut end, mut num_rows) = (start, 0);
        let (mut groups, mut lengths) = (Vec::new(), Vec::new());
        while end.epoch == start.epoch && num_rows < max_tokens.saturating_mul(NUM_MICRO) {
            let group = self.group_at(&end)?;
            let length: usize = group.iter().map(|document| rows_of(document, most)).sum();
            num_rows += length;
            lengths.push(length);
            groups.push(group);
            end = self.order.next(end);
        }
        let packed = pack(&lengths, max_tokens);
        let order = Order::new(packed.len() as u64, start.seed ^ start.position);
        let place = |position| order.document_at(&Cursor { epoch: start.epoch, position, ..order.start() });
        let micro = (0..packed.len() as u64).filter_map(|position| packed.get(place(position) as usize).cloned());
        let micro = micro.collect();
        Ok(Window { start, end, max_tokens, groups, micro })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Rng, document, shard, vocabulary};
    use super::super::{BatchSettings, Shard};
    use super::*;

    fn settings(max_len: usize) -> BatchSettings {
        BatchSettings { seed: 5, max_len, class_weights: [0.0, 1.0, 1.0, 1.0, 1.0] }
    }

    /// Lengths as chats have them: many short ones, a long tail.
    fn chats(rng: &mut Rng, num_documents: usize, median: f64, most: usize) -> Shard {
        let mut shard = Shard::new(vocabulary());
        let mut uniform = || (rng.next() >> 11) as f64 / (1u64 << 53) as f64;
        let lengths: Vec<usize> = (0..num_documents)
            .map(|_| {
                let normal = (-2.0 * (1.0 - uniform()).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
                ((median * (0.9 * normal).exp()) as usize).clamp(16, most)
            })
            .collect();
        for length in lengths {
            shard.push(&document(rng, length)).unwrap();
        }
        shard
    }

    #[test]
    fn micro_batches_of_chats_are_full() {
        for (median, max_len, max_tokens, num) in
            [(350.0, 2048, 4096, 4000), (350.0, 2048, 2048, 3000), (90.0, 512, 1024, 6000), (600.0, 4096, 8192, 3000)]
        {
            let shard = chats(&mut Rng(3), num, median, max_len);
            let wanted = shard.num_tokens() - shard.num_documents();
            let mut batches = Batches::new(vec![shard], settings(max_len)).unwrap();
            let (mut num_micro, mut num_rows) = (0, 0);
            while batches.cursor().epoch == 0 {
                let batch = batches.next_micro(max_tokens).unwrap();
                assert!(batch.num_rows() <= max_tokens && batch.num_rows() > 0);
                num_micro += 1;
                num_rows += batch.num_rows();
            }
            assert_eq!(num_rows, wanted, "every row once");
            let share = num_rows as f64 / (num_micro * max_tokens) as f64;
            assert!(share >= 0.98, "{share} of {num_micro} micro batches of {max_tokens}, the last one included");
        }
    }

    #[test]
    fn restored_micro_batches_are_equal() {
        let new = || Batches::new(vec![shard(&mut Rng(4), 300, 40)], settings(64)).unwrap();
        let mut first = new();
        let batches: Vec<(Cursor, Batch)> = (0..300).map(|_| (first.cursor(), first.next_micro(50).unwrap())).collect();
        assert!(first.cursor().epoch >= 1 && batches.iter().any(|(cursor, _)| cursor.drawn > 40));
        for start in [0, 1, 63, 64, 65, 130, 299] {
            let saved = serde_json::to_string(&batches[start].0).unwrap();
            let mut second = new();
            second.restore(serde_json::from_str(&saved).unwrap()).unwrap();
            for (cursor, batch) in batches[start..].iter().take(70) {
                assert_eq!((&second.cursor(), &second.next_micro(50).unwrap()), (cursor, batch));
            }
        }
    }

    #[test]
    fn pairs_stay_together_and_long_documents_are_cut() {
        let mut batches = Batches::new(vec![shard(&mut Rng(5), 40, 30)], settings(64)).unwrap().in_groups(2).unwrap();
        let mut num = 0;
        while batches.cursor().epoch == 0 {
            let batch = batches.next_micro(64).unwrap();
            assert_eq!(batch.documents.len() % 2, 0);
            num += batch.documents.len();
        }
        assert_eq!(num, 40);
        let mut long = Batches::new(vec![shard(&mut Rng(6), 1, 400)], settings(1000)).unwrap();
        assert!(long.next_micro(8).unwrap().num_rows() <= 8);
        let wild = Cursor { drawn: u64::MAX - 1, ..long.cursor() };
        long.restore(wild).unwrap();
        let error = long.next_micro(8).unwrap_err().to_string();
        assert!(error.starts_with("the data cursor: wanted a place below 1"), "{error}");
    }
}
