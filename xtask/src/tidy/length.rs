//! How long a file and a function may be, and that each source file opens with its contract.
//! Short pieces are the cheapest way to keep a file one room; the limits are generous and the exceptions named.

use super::tables::{LONG_FILES, MAX_FILE_LINES, MAX_FUNCTION_LINES, excuses};
use super::{Finding, Tree};

/// No file is longer than the limit.
pub fn files(tree: &Tree) -> Vec<Finding> {
    let long = tree.files.iter().filter(|f| f.text.lines().count() > MAX_FILE_LINES && !excuses(LONG_FILES, &f.path));
    long.map(|file| {
        let lines = file.text.lines().count();
        let what = format!("{lines} lines, at most {MAX_FILE_LINES}: split it by what it does (or name it in tidy's LONG_FILES with the reason)");
        Finding::new(&file.path, MAX_FILE_LINES + 1, what)
    })
    .collect()
}

/// No function is longer than the limit, in tests too.
pub fn functions(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|f| f.is_rust()) {
        for function in file.functions() {
            let lines = function.last + 1 - function.first;
            if lines > MAX_FUNCTION_LINES {
                let what = format!(
                    "fn {} has {lines} lines, at most {MAX_FUNCTION_LINES}: cut it where a name would help",
                    function.name
                );
                found.push(Finding::new(&file.path, function.first, what));
            }
        }
    }
    found
}

/// Each file under `src` begins with `//!`.
pub fn openings(tree: &Tree) -> Vec<Finding> {
    let sources = tree.files.iter().filter(|f| f.is_rust() && f.path.contains("/src/"));
    sources
        .filter(|f| !f.text.starts_with("//! "))
        .map(|f| {
            Finding::new(&f.path, 1, "no opening: begin the file with `//!` lines that say its contract and its why")
        })
        .collect()
}
