//! What the ops' CPU versions share: instruction sets, dot products, exponentials, disjoint writes.

pub mod bandwidth;
pub mod disjoint;
pub mod dot;
pub mod exp;
pub mod isa;
pub mod lanes;
