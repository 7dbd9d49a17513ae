//! Batches: documents in shuffled order, laid end to end. No padding; each document has its own positions from 0, and
//! attention never leaves it.

use std::ops::Range;

use super::document::{Document, NUM_CLASSES};
use super::order::{Cursor, Order};
use super::packed::Window;
use super::packing::pack;
use super::shard::DocumentRef;
use super::stored::Documents;
use super::{DatasetError, VocabularyId};

/// Rows that predict the next token. T rows: a document of n tokens has n - 1 of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// `[T]` what the model is given.
    pub tokens: Vec<u32>,
    /// `[T]` what follows in the document.
    pub targets: Vec<u32>,
    /// `[T]` how much the loss of predicting `targets[i]` counts: the weight of the target's class; 0 is not learned.
    pub weights: Vec<f32>,
    /// [T] the class of `targets[i]`, see [`class`](super::class).
    pub classes: Vec<u8>,
    /// The rows of each document, one after the other, together all rows.
    pub documents: Vec<Range<usize>>,
}

/// How documents become batches.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchSettings {
    /// Of the order of documents.
    pub seed: u64,
    /// The most rows of a document: one of more than `max_len + 1` tokens is cut after that many, and the rest of it is
    /// never seen.
    pub max_len: usize,
    /// The weight of each class's tokens ([`class`](super::class)), finite and not negative. Context may have a small
    /// one, which teaches copying early in training.
    pub class_weights: [f32; NUM_CLASSES],
}

/// Draws batches from shards without end. The same shards in the same order, settings, cursor and budgets give the same
/// batches, bit by bit.
#[derive(Debug)]
pub struct Batches {
    shards: Vec<Documents>,
    /// The number of documents before each shard.
    starts: Vec<u64>,
    num_documents: u64,
    /// Documents that are drawn together: 1, or 2 for pairs.
    group: u64,
    pub(super) settings: BatchSettings,
    pub(super) order: Order,
    pub(super) cursor: Cursor,
    /// Micro batches that wait to be drawn; made again from the cursor where it is missing.
    pub(super) window: Option<Window>,
}

impl Batches {
    /// Begins at epoch 0. Fails where there are no documents, where shards have different vocabularies, and where
    /// settings are out of range.
    pub fn new(shards: Vec<impl Into<Documents>>, settings: BatchSettings) -> Result<Self, DatasetError> {
        let shards: Vec<Documents> = shards.into_iter().map(Into::into).collect();
        check(&shards, &settings)?;
        let mut num_documents = 0;
        let starts = shards.iter().map(|shard| {
            let start = num_documents;
            num_documents += shard.num_documents() as u64;
            start
        });
        let starts = starts.collect();
        let order = Order::new(num_documents, settings.seed);
        let cursor = order.start();
        Ok(Self { shards, starts, num_documents, group: 1, settings, order, cursor, window: None })
    }

    /// From now on `group` documents that stand one after the other are drawn together, as the two answers of a pair;
    /// begins anew. Fails where a shard does not hold whole groups.
    pub fn in_groups(mut self, group: usize) -> Result<Self, DatasetError> {
        let is_broken = |shard: &&Documents| group == 0 || !shard.num_documents().is_multiple_of(group);
        if let Some(shard) = self.shards.iter().find(is_broken) {
            let (wanted, found) = (format!("whole groups of {group} documents"), shard.num_documents().to_string());
            return Err(DatasetError::setting("the shards", wanted, found, "use shards that were made in groups"));
        }
        self.group = group as u64;
        self.order = Order::new(self.num_documents / self.group, self.settings.seed);
        self.cursor = self.order.start();
        self.window = None;
        Ok(self)
    }

    /// The vocabulary of the shards.
    pub fn vocabulary(&self) -> Option<VocabularyId> {
        self.shards.first().map(Documents::vocabulary)
    }

    /// Where the next batch begins.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Goes on at `cursor`, from which the same batches follow as when it was taken. Fails where it belongs to other
    /// data.
    pub fn restore(&mut self, cursor: Cursor) -> Result<(), DatasetError> {
        self.order.check(&cursor)?;
        self.cursor = cursor;
        self.window = None;
        Ok(())
    }

    /// The next documents in shuffled order, as many as have at most `token_budget` rows together, at least one group: a
    /// document that is longer than the whole budget is cut to it as it is to `max_len`. After an epoch's last document
    /// comes the next epoch's first. Fails where a shard cannot be read any more.
    pub fn next_batch(&mut self, token_budget: usize) -> Result<Batch, DatasetError> {
        let most = self.settings.max_len.min(token_budget).max(1);
        let mut batch = Batch::default();
        loop {
            let group = self.group_at(&self.cursor)?;
            let num_rows: usize = group.iter().map(|document| rows_of(document, most)).sum();
            if group.is_empty() || !batch.documents.is_empty() && batch.tokens.len() + num_rows > token_budget {
                return Ok(batch);
            }
            group.iter().for_each(|document| batch.add(document, most, &self.settings.class_weights));
            self.cursor = self.order.next(self.cursor);
        }
    }

    /// The documents of the group at `cursor`.
    pub(super) fn group_at(&self, cursor: &Cursor) -> Result<Vec<Document>, DatasetError> {
        let first = self.order.document_at(cursor) * self.group;
        (first..first + self.group).filter_map(|place| self.document(place).transpose()).collect()
    }

    fn document(&self, place: u64) -> Result<Option<Document>, DatasetError> {
        let shard = self.starts.partition_point(|&start| start <= place).checked_sub(1);
        let found = shard.and_then(|shard| Some((self.shards.get(shard)?, place - self.starts.get(shard)?)));
        let Some((shard, index)) = found else { return Ok(None) };
        usize::try_from(index).map_or(Ok(None), |index| shard.document(index))
    }
}

/// The rows of a document that is cut after `most`.
pub(super) fn rows_of(document: &Document, most: usize) -> usize {
    document.tokens.len().saturating_sub(1).min(most)
}

fn check(shards: &[Documents], settings: &BatchSettings) -> Result<(), DatasetError> {
    let BatchSettings { max_len, class_weights, .. } = settings;
    let (first, second) = match shards {
        [] => return Err(DatasetError::setting("the data", "at least one shard", "none", "name a shard")),
        [first, rest @ ..] => (first, rest.iter().find(|shard| shard.vocabulary() != first.vocabulary())),
    };
    if shards.iter().all(|shard| shard.num_documents() == 0) {
        return Err(DatasetError::setting("the data", "at least one document", "none", "make the shards again"));
    }
    if let Some(other) = second {
        let (wanted, found) = (first.vocabulary().to_string(), other.vocabulary().to_string());
        return Err(DatasetError::setting("the shards", wanted, found, "use shards of one tokenizer"));
    }
    if *max_len == 0 {
        return Err(DatasetError::setting("max_len", "at least 1", "0", "give the longest sequence to train on"));
    }
    let is_bad = |weight: &f32| !weight.is_finite() || *weight < 0.0;
    if class_weights.iter().any(is_bad) || class_weights.iter().all(|&weight| weight == 0.0) {
        let (wanted, found) = ("finite weights from 0 on, not all 0", format!("{class_weights:?}"));
        return Err(DatasetError::setting("class_weights", wanted, found, "1 for what is learned is usual"));
    }
    Ok(())
}

impl Batch {
    /// The number of rows T.
    pub fn num_rows(&self) -> usize {
        self.tokens.len()
    }

    fn push(&mut self, document: DocumentRef, num_rows: usize, class_weights: &[f32; NUM_CLASSES]) {
        let start = self.tokens.len();
        let weight = |&class: &u8| class_weights.get(usize::from(class)).copied().unwrap_or(0.0);
        self.tokens.extend(document.tokens.iter().take(num_rows));
        self.targets.extend(document.tokens.iter().skip(1).take(num_rows));
        let classes = document.classes.iter().skip(1).take(num_rows);
        self.weights.extend(classes.clone().map(weight));
        self.classes.extend(classes);
        self.documents.push(start..self.tokens.len());
    }

    /// Documents laid end to end, cut after `max_len` rows, with these weights for classes.
    pub fn of(documents: &[Document], max_len: usize, class_weights: &[f32; NUM_CLASSES]) -> Self {
        let mut batch = Self::default();
        documents.iter().for_each(|document| batch.add(document, max_len, class_weights));
        batch
    }

    /// Adds a document, cut after `most` rows.
    pub(super) fn add(&mut self, document: &Document, most: usize, class_weights: &[f32; NUM_CLASSES]) {
        let Document { tokens, classes } = document;
        self.push(DocumentRef { tokens, classes }, rows_of(document, most), class_weights);
    }

    /// Splits the batch into micro batches of at most `max_tokens` rows, by whole documents, filled as well as they
    /// can be one after the other. Together they are the batch, in another order. Fails where a document alone has more rows.
    pub fn split(&self, max_tokens: usize) -> Result<Vec<Batch>, DatasetError> {
        self.split_groups(max_tokens, 1)
    }

    /// The same by groups of `group` documents, which stay together, in their order.
    pub fn split_groups(&self, max_tokens: usize, group: usize) -> Result<Vec<Batch>, DatasetError> {
        let groups: Vec<&[Range<usize>]> = self.documents.chunks(group.max(1)).collect();
        let lengths: Vec<usize> = groups.iter().map(|group| group.iter().map(ExactSizeIterator::len).sum()).collect();
        if let Some(longest) = lengths.iter().max().filter(|&&longest| longest > max_tokens) {
            let (wanted, found) = (format!("at least {longest} tokens, the longest document"), max_tokens.to_string());
            let advice = "make micro batches larger or max_len smaller";
            return Err(DatasetError::setting("the size of micro batches", wanted, found, advice));
        }
        let whole = |places: Vec<usize>| -> Vec<Range<usize>> {
            places.into_iter().filter_map(|place| groups.get(place)).flat_map(|group| group.iter().cloned()).collect()
        };
        Ok(pack(&lengths, max_tokens).into_iter().map(|places| self.select(&whole(places))).collect())
    }

    /// The documents of these rows, in this order.
    fn select(&self, documents: &[Range<usize>]) -> Batch {
        let mut part = Batch::default();
        for range in documents {
            let start = part.tokens.len();
            part.tokens.extend_from_slice(&self.tokens[range.clone()]);
            part.targets.extend_from_slice(&self.targets[range.clone()]);
            part.weights.extend_from_slice(&self.weights[range.clone()]);
            part.classes.extend_from_slice(&self.classes[range.clone()]);
            part.documents.push(start..part.tokens.len());
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use super::super::Shard;
    use super::super::testing::{Rng, shard, vocabulary};
    use super::*;

    fn settings() -> BatchSettings {
        BatchSettings { seed: 5, max_len: 64, class_weights: [0.1, 1.0, 1.0, 2.0, 1.5] }
    }

    fn batches(seed: u64) -> Batches {
        let mut rng = Rng(seed);
        let shards = vec![shard(&mut rng, 40, 90), Shard::new(vocabulary()), shard(&mut rng, 7, 30)];
        Batches::new(shards, settings()).unwrap()
    }

    fn one_document(tokens: &[u32], classes: &[u8]) -> Batches {
        let mut shard = Shard::new(vocabulary());
        shard.push(&Document { tokens: tokens.into(), classes: classes.into() }).unwrap();
        Batches::new(vec![shard], BatchSettings { max_len: 4, ..settings() }).unwrap()
    }

    #[test]
    fn rows_predict_the_next_token_with_the_weight_of_its_class() {
        let batch = one_document(&[10, 11, 12, 13], &[0, 0, 1, 3]).next_batch(7).unwrap();
        assert_eq!(batch.tokens, [10, 11, 12, 10, 11, 12], "two epochs of one document");
        assert_eq!(batch.targets, [11, 12, 13, 11, 12, 13]);
        assert_eq!(batch.weights, [0.1, 1.0, 2.0, 0.1, 1.0, 2.0]);
        assert_eq!(batch.documents, [0..3, 3..6]);
    }

    #[test]
    fn long_documents_are_cut() {
        let mut long = one_document(&[1, 2, 3, 4, 5, 6, 7], &[0, 1, 1, 1, 1, 1, 1]);
        let batch = long.next_batch(4).unwrap();
        assert_eq!((batch.tokens, batch.targets), (vec![1, 2, 3, 4], vec![2, 3, 4, 5]));
        assert_eq!(long.next_batch(2).unwrap().targets, [2, 3], "to the budget");
        assert_eq!(long.next_batch(0).unwrap().targets, [2], "to a row at least");
    }

    #[test]
    fn an_epoch_holds_every_document_once_and_batches_keep_the_budget() {
        let mut batches = batches(1);
        let mut wanted: Vec<Vec<u32>> = Vec::new();
        for shard in &batches.shards {
            let documents = (0..shard.num_documents()).map(|index| shard.document(index).unwrap().unwrap().tokens);
            wanted.extend(documents.map(|tokens| tokens[..tokens.len().min(65) - 1].to_vec()));
        }
        let mut found: Vec<Vec<u32>> = Vec::new();
        while batches.cursor().epoch == 0 {
            let batch = batches.next_batch(300).unwrap();
            assert!(batch.num_rows() <= 300 && !batch.documents.is_empty());
            let num_rows = batch.num_rows();
            assert!(batch.targets.len() == num_rows && batch.weights.len() == num_rows);
            found.extend(batch.documents.iter().map(|rows| batch.tokens[rows.clone()].to_vec()));
        }
        found.truncate(wanted.len());
        assert_ne!(found, wanted, "shuffled");
        found.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_batch_is_full_but_for_the_next_document() {
        let mut batches = batches(2);
        for _ in 0..50 {
            let batch = batches.next_batch(200).unwrap();
            let next = batches.group_at(&batches.cursor()).unwrap()[0].tokens.len() - 1;
            assert!(batch.num_rows() + next.min(64) > 200);
        }
    }

    #[test]
    fn restored_batches_are_equal() {
        let mut first = batches(3);
        let budgets = [100, 333, 64, 1000, 7];
        budgets.iter().for_each(|&budget| _ = first.next_batch(budget).unwrap());
        let saved = serde_json::to_string(&first.cursor()).unwrap();
        let mut second = batches(3);
        second.restore(serde_json::from_str(&saved).unwrap()).unwrap();
        for budget in budgets.iter().cycle().take(60) {
            let (a, b) = (first.next_batch(*budget).unwrap(), second.next_batch(*budget).unwrap());
            assert_eq!(a, b);
            assert!(a.weights.iter().zip(&b.weights).all(|(a, b)| a.to_bits() == b.to_bits()));
            assert_eq!(first.cursor(), second.cursor());
        }
        assert!(first.cursor().epoch > 2);
        let mut other = Batches::new(vec![shard(&mut Rng(3), 40, 90)], settings()).unwrap();
        assert!(other.restore(first.cursor()).is_err());
    }

    #[test]
    fn micro_batches_hold_every_document_whole() {
        let mut batches = batches(4);
        for round in 0..40 {
            let batch = batches.next_batch(1500).unwrap();
            let most = 64 + 10 * round;
            let parts = batch.split(most).unwrap();
            let rows = |batch: &Batch| -> Vec<(Vec<u32>, Vec<u32>, Vec<u32>)> {
                let bits = |rows: &Range<usize>| batch.weights[rows.clone()].iter().map(|w| w.to_bits()).collect();
                let row =
                    |r: &Range<usize>| (batch.tokens[r.clone()].to_vec(), batch.targets[r.clone()].to_vec(), bits(r));
                batch.documents.iter().map(row).collect()
            };
            let mut found: Vec<_> = parts.iter().flat_map(rows).collect();
            let mut wanted = rows(&batch);
            found.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(found, wanted);
            assert!(parts.iter().all(|part| part.num_rows() <= most && !part.documents.is_empty()));
            assert_eq!(parts, batch.split(most).unwrap());
        }
        let error = batches.next_batch(1500).unwrap().split(3).unwrap_err().to_string();
        assert!(error.starts_with("the size of micro batches: wanted at least"), "{error}");
    }

    #[test]
    fn groups_stay_together() {
        let pairs = |shards: Vec<Shard>| Batches::new(shards, settings()).unwrap().in_groups(2);
        let mut rng = Rng(7);
        let shards = vec![shard(&mut rng, 10, 30), shard(&mut rng, 4, 30)];
        let all: Vec<Vec<u32>> = shards
            .iter()
            .flat_map(|s| (0..s.num_documents()).map(|index| s.document(index).unwrap().tokens.to_vec()))
            .map(|tokens| tokens[..tokens.len() - 1].to_vec())
            .collect();
        let mut batches = pairs(shards).unwrap();
        let mut found = Vec::new();
        while batches.cursor().epoch == 0 {
            let batch = batches.next_batch(100).unwrap();
            assert_eq!(batch.documents.len() % 2, 0);
            for part in batch.split_groups(64, 2).unwrap() {
                found.extend(part.documents.iter().map(|rows| part.tokens[rows.clone()].to_vec()));
            }
        }
        for pair in found.chunks(2) {
            let first = all.iter().position(|tokens| *tokens == pair[0]).unwrap();
            assert_eq!((first % 2, &all[first + 1]), (0, &pair[1]));
        }
        assert!(found.len() >= 14);
        assert!(pairs(vec![shard(&mut rng, 3, 9)]).unwrap_err().to_string().contains("whole groups of 2 documents"));
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let fail =
            |shards: Vec<Shard>, settings: BatchSettings| Batches::new(shards, settings).unwrap_err().to_string();
        let some = || vec![shard(&mut Rng(6), 2, 9)];
        assert!(fail(vec![], settings()).starts_with("the data: wanted at least one shard"));
        assert!(fail(vec![Shard::new(vocabulary())], settings()).contains("at least one document"));
        assert!(fail(some(), BatchSettings { max_len: 0, ..settings() }).starts_with("max_len"));
        for class_weights in [[0.0; 5], [f32::NAN; 5], [1.0, -1.0, 0.0, 0.0, 0.0], [f32::INFINITY; 5]] {
            assert!(fail(some(), BatchSettings { class_weights, ..settings() }).starts_with("class_weights"));
        }
        let other = Shard::new(VocabularyId { num_ids: 301, ..vocabulary() });
        assert!(
            fail([some(), vec![other]].concat(), settings()).contains("of 301 tokens: use shards of one tokenizer")
        );
    }
}
