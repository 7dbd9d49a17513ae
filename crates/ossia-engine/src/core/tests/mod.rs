//! The engine without its thread, over a model that sees which pages it is given.

mod fairness;
mod fake;
mod isolation;
mod prefixes;
mod simulation;
