//! What the rules excuse, one line each with its reason, and the facts of the house that the rules read.
//! An entry whose file is gone is itself a finding, so the tables cannot rot.

use super::{Finding, Tree};

/// The longest file, in lines.
pub const MAX_FILE_LINES: usize = 500;
/// The longest function, in lines from `fn` to its closing brace.
pub const MAX_FUNCTION_LINES: usize = 70;

/// A file that a rule leaves alone, and why.
pub struct Excused {
    /// Path from the root; for op folders the folder.
    pub path: &'static str,
    /// Read by people only, but it must be there.
    pub why: &'static str,
}

/// Files that may be longer than `MAX_FILE_LINES`.
pub const LONG_FILES: &[Excused] =
    &[Excused { path: "docs/spec.md", why: "one document, whose section numbers the code cites" }];

/// Files outside tests that may say `unwrap()`.
pub const UNWRAPS: &[Excused] = &[];

/// Op folders that need no `reference.rs`.
pub const OPS_WITHOUT_REFERENCE: &[Excused] = &[];

/// Places that must spell out the words and paths that they ban.
pub const SPELLED_OUT: &[Excused] = &[
    Excused { path: "xtask/src/tidy/words.rs", why: "lists the banned words" },
    Excused { path: "xtask/src/tidy/tests.rs", why: "shows that they are found" },
];

/// The only places where `unsafe` may stand.
pub const UNSAFE_PLACES: &[&str] = &["crates/ossia-kernels/", "crates/ossia-model/src/checkpoint/map.rs"];

/// Crates whose root need not forbid `unsafe`.
pub const UNSAFE_CRATES: &[&str] = &["ossia-kernels"];
/// Crates whose root may say deny where the others say forbid, because one file of theirs is excused.
pub const DENY_CRATES: &[&str] = &["ossia-model"];

/// Which of our crates each crate may use: arrows point down only.
pub const ARROWS: &[(&str, &[&str])] = &[
    ("ossia-kernels", &[]),
    ("ossia-text", &[]),
    ("ossia-model", &["ossia-kernels"]),
    ("ossia-engine", &["ossia-kernels", "ossia-model"]),
    ("ossia-train", &["ossia-kernels", "ossia-model", "ossia-text"]),
    ("ossia-serve", &["ossia-kernels", "ossia-model", "ossia-text", "ossia-engine"]),
    ("ossia", &["ossia-kernels", "ossia-model", "ossia-text", "ossia-engine", "ossia-train", "ossia-serve"]),
    ("xtask", &[]),
];

/// Whether `table` excuses `path`.
pub fn excuses(table: &[Excused], path: &str) -> bool {
    table.iter().any(|entry| entry.path == path)
}

/// Entries that excuse nothing, because the file is gone or no reason is given.
pub fn stale(tree: &Tree) -> Vec<Finding> {
    let tables = [LONG_FILES, UNWRAPS, OPS_WITHOUT_REFERENCE, SPELLED_OUT];
    let entries = tables.into_iter().flatten();
    let exists = |path: &str| tree.paths.iter().any(|p| p == path || p.starts_with(&format!("{path}/")));
    entries
        .filter(|entry| entry.why.is_empty() || !exists(entry.path))
        .map(|entry| {
            Finding::new(
                "xtask/src/tidy/tables.rs",
                1,
                format!("{} is excused, but is gone or has no reason: remove the entry", entry.path),
            )
        })
        .collect()
}
