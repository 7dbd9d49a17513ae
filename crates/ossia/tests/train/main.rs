//! `ossia train`, end to end, on a model of a few thousand weights: signals, recipes and files that are wrong, places
//! that cannot be written, numbers that break, and the commands beside it.

mod checkpoints;
mod commands;
mod data;
mod disk;
mod numbers;
mod program;
mod recipes;
mod signals;
