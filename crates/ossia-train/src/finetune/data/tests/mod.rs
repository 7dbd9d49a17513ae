//! Whole files to data: every form, every fault, hostile files, and data that are found again.

mod faults;
mod forms;
mod fuzz;
pub(super) mod support;
