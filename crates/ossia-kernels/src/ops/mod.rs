//! The ops, one folder each: formula and shapes in `mod.rs`, the slow truth in `reference.rs`, then the fast versions
//! and the tests that hold them together.

pub mod adamw;
pub mod attention;
pub mod cross_entropy;
pub mod embed;
pub mod experts;
pub mod linear;
pub mod low_rank;
pub mod muon;
pub mod rms_norm;
pub mod rope;
pub mod router;
pub mod rows;
pub mod sample;
pub mod squares;
pub mod stored;
