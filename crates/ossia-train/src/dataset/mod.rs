//! Shards of token ids and the batches drawn from them.
//!
//! `document` turns a conversation into tokens and says who learns each, `shard` keeps documents in a file that is
//! verified when it is read, `order` shuffles all documents of all shards anew in every epoch, `batch` lays them end to
//! end with the weights of their losses, `packing` splits a batch into micro batches and `packed` draws full
//! ones. `stored` leaves shards on disk. Everything is deterministic: the same shards, settings and cursor give the same
//! batches, bit by bit. What comes from a file is untrusted.

mod batch;
mod document;
mod error;
mod order;
mod packed;
mod packing;
mod shard;
mod stored;
#[cfg(test)]
mod testing;
mod vocabulary;
pub(crate) mod whole_file;

pub use batch::{Batch, BatchSettings, Batches};
pub use document::{CLASS_NAMES, Document, NUM_CLASSES, class, tokenise, tokenise_where};
pub use error::DatasetError;
pub use order::{Cursor, Order};
pub use shard::{DocumentRef, Shard};
pub use stored::{Documents, ShardFile};
pub use vocabulary::VocabularyId;
