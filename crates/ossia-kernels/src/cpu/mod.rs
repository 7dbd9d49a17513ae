//! What the ops' CPU versions share: instruction sets, dot products, exponentials, disjoint writes.

pub mod bandwidth;
pub mod columns;
pub mod disjoint;
pub mod dot;
pub mod gemm;
pub mod isa;
pub mod lanes;
pub mod peak;
pub mod vector;
