//! The order of documents: shuffled anew in every epoch, without a list of them.
//!
//! A document's place comes from a keyed bijection (a Feistel network over the next power of four, applied until the
//! value falls below the number of documents). So the order of billions of documents takes no memory, and to go on
//! after a restart two numbers are enough.

use serde::{Deserialize, Serialize};

use super::DatasetError;

/// With random round functions four rounds are known to be enough; these are cheap.
const NUM_ROUNDS: u64 = 8;

/// Where a run is in its data. In a checkpoint it stands as JSON,
/// `{"epoch":0,"position":1234,"num_documents":50000,"seed":7}`; the last two tell whether it belongs to the data at
/// hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// How often all documents were drawn.
    pub epoch: u64,
    /// How many documents of this epoch were drawn: below `num_documents`.
    pub position: u64,
    /// The number of documents of all shards.
    pub num_documents: u64,
    /// The seed of the order.
    pub seed: u64,
    /// How many of the full micro batches that begin at `position` were drawn; nothing is written where it is 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub drawn: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A shuffled order for each epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    num_documents: u64,
    seed: u64,
}

impl Order {
    /// The order of `num_documents` documents, at least one, that `seed` gives.
    pub fn new(num_documents: u64, seed: u64) -> Self {
        Self { num_documents: num_documents.max(1), seed }
    }

    /// The beginning.
    pub fn start(&self) -> Cursor {
        Cursor { epoch: 0, position: 0, num_documents: self.num_documents, seed: self.seed, drawn: 0 }
    }

    /// The document, below `num_documents`, that stands at the cursor.
    pub fn document_at(&self, cursor: &Cursor) -> u64 {
        let half_bits = (64 - (self.num_documents - 1).leading_zeros()).div_ceil(2).max(1);
        let key = mix(mix(self.seed) ^ cursor.epoch);
        // A bijection's cycles lead back, so that this ends: after four steps on average at most.
        let mut place = feistel(cursor.position % self.num_documents, half_bits, key);
        while place >= self.num_documents {
            place = feistel(place, half_bits, key);
        }
        place
    }

    /// The cursor of the document after.
    pub fn next(&self, cursor: Cursor) -> Cursor {
        match cursor.position + 1 {
            position if position < self.num_documents => Cursor { position, drawn: 0, ..cursor },
            _ => Cursor { epoch: cursor.epoch.wrapping_add(1), position: 0, drawn: 0, ..cursor },
        }
    }

    /// Fails where a cursor belongs to other data or another seed.
    pub fn check(&self, cursor: &Cursor) -> Result<(), DatasetError> {
        let Cursor { position, num_documents, seed, .. } = *cursor;
        if (num_documents, seed) == (self.num_documents, self.seed) && position < num_documents {
            return Ok(());
        }
        let wanted = format!("{} documents, a position below that, seed {}", self.num_documents, self.seed);
        let found = format!("{num_documents} documents, position {position}, seed {seed}");
        let advice = "go on with the shards and the seed that the checkpoint was made with";
        Err(DatasetError::setting("the data cursor", wanted, found, advice))
    }
}

/// A permutation of the numbers of 2 * `half_bits` bits.
fn feistel(value: u64, half_bits: u32, key: u64) -> u64 {
    let mask = (1u64 << half_bits) - 1;
    let (mut left, mut right) = (value >> half_bits, value & mask);
    for round in 0..NUM_ROUNDS {
        let scrambled = mix(key ^ mix(right ^ round << 56)) & mask;
        (left, right) = (right, left ^ scrambled);
    }
    left << half_bits | right
}

/// The finalizer of splitmix64: every bit of the input changes half of the output's.
fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(order: &Order, epoch: u64) -> Vec<u64> {
        let at = |position| order.document_at(&Cursor { epoch, position, ..order.start() });
        (0..order.num_documents).map(at).collect()
    }

    #[test]
    fn every_epoch_draws_every_document_once() {
        for num_documents in (1..300).chain([1023, 1024, 1025, 4096, 5000]) {
            let order = Order::new(num_documents, 3);
            for number in [0, 1, u64::MAX] {
                let mut drawn = epoch(&order, number);
                drawn.sort_unstable();
                assert!(drawn.into_iter().eq(0..num_documents), "{num_documents} documents");
            }
        }
    }

    #[test]
    fn huge_counts_stay_in_range() {
        for num_documents in [u64::MAX, 1 << 63, (1 << 62) + 1, 1 << 32] {
            let order = Order::new(num_documents, 9);
            for position in [0, 1, num_documents / 2, num_documents - 1] {
                assert!(order.document_at(&Cursor { position, ..order.start() }) < num_documents);
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let order = Order::new(1000, 1);
        assert_eq!(epoch(&order, 0), epoch(&order, 0));
        for other in [epoch(&order, 1), epoch(&Order::new(1000, 2), 0), (0..1000).collect()] {
            let same = epoch(&order, 0).iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 12, "{same} of 1000 documents at the same place");
        }
    }

    /// Pearson's chi-square of where document 0 and its successor fall, over many epochs.
    #[test]
    fn places_are_uniform() {
        for num_documents in [5u64, 16, 37] {
            let order = Order::new(num_documents, 11);
            let n = num_documents as usize;
            let (mut first, mut step) = (vec![0f64; n], vec![0f64; n]);
            let rounds = 200 * n;
            for number in 0..rounds {
                let at = |position| order.document_at(&Cursor { epoch: number as u64, position, ..order.start() });
                first[at(0) as usize] += 1.0;
                step[((at(1) + num_documents - at(0)) % num_documents) as usize] += 1.0;
            }
            assert_eq!(step[0], 0.0);
            for (counts, kinds) in [(&first[..], n), (&step[1..], n - 1)] {
                let wanted = rounds as f64 / kinds as f64;
                let chi: f64 = counts.iter().map(|count| (count - wanted).powi(2) / wanted).sum();
                let freedom = kinds as f64 - 1.0;
                assert!(chi < freedom + 5.0 * (2.0 * freedom).sqrt(), "{num_documents} documents: {chi} of {freedom}");
            }
        }
    }

    #[test]
    fn the_cursor_has_a_fixed_form_and_knows_its_data() {
        let order = Order::new(3, 7);
        let mut cursor = order.start();
        for _ in 0..4 {
            cursor = order.next(cursor);
        }
        let json = r#"{"epoch":1,"position":1,"num_documents":3,"seed":7}"#;
        assert_eq!(serde_json::to_string(&cursor).unwrap(), json);
        assert_eq!(serde_json::from_str::<Cursor>(json).unwrap(), cursor);
        assert!(serde_json::from_str::<Cursor>(&json.replace("seed", "sead")).is_err());
        order.check(&cursor).unwrap();
        let drawn = Cursor { drawn: 2, ..cursor };
        let json = r#"{"epoch":1,"position":1,"num_documents":3,"seed":7,"drawn":2}"#;
        assert_eq!(serde_json::to_string(&drawn).unwrap(), json);
        assert_eq!(serde_json::from_str::<Cursor>(json).unwrap(), drawn);
        assert_eq!(order.next(drawn), order.next(cursor));
        for other in
            [Cursor { position: 3, ..cursor }, Cursor { num_documents: 4, ..cursor }, Cursor { seed: 8, ..cursor }]
        {
            let error = order.check(&other).unwrap_err().to_string();
            assert!(error.starts_with("the data cursor: wanted 3 documents"), "{error}");
        }
    }
}
