//! Shards of token ids and the batches drawn from them.
