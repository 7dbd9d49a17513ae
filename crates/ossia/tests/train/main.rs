//! `ossia train` and `ossia finetune`, end to end, on small models: signals, recipes and files that are wrong, places that
//! cannot be written, numbers that break, and the commands beside them.

mod checkpoints;
mod commands;
mod data;
mod disk;
mod finetune;
mod numbers;
mod program;
mod recipes;
mod signals;
