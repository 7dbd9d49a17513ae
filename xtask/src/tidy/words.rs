//! Words that must not stand in the code: unfinished places, `unwrap()` on what the world gives us, `unsafe` outside its
//! rooms, and paths of the machine that the code was written on. Test code may unwrap.

use super::source::{line_of, words};
use super::tables::{SPELLED_OUT, UNSAFE_PLACES, UNWRAPS, excuses};
use super::{Finding, Tree};

/// Macros that mark something unfinished: an identifier followed by `!`.
const MACROS: &[&str] = &["todo", "unimplemented", "dbg"];
/// Marks in comments.
const MARKS: &[&str] = &["FIXME", "XXX", "TODO"];
/// Folders of a developer's machine; the last one only in sources and settings, since a page may show it.
const MACHINE_PATHS: &[&str] = &["/work", "/root", "/home", "/tmp"];
/// A folder beside the project.
const OUTSIDE: &str = "../shared";

/// `unsafe` stands only where the table allows it.
pub fn unsafe_places(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let allowed = |path: &str| UNSAFE_PLACES.iter().any(|place| path.starts_with(place));
    for file in tree.files.iter().filter(|f| f.is_rust() && !allowed(&f.path)) {
        for (at, _) in words(&file.code).iter().filter(|(_, word)| *word == "unsafe") {
            let what = "unsafe outside ossia-kernels and the memory map: use a safe way, or move it into ossia-kernels";
            found.push(Finding::new(&file.path, line_of(&file.code, *at), what));
        }
    }
    found
}

/// No unfinished places, and no `unwrap()` outside tests and the named files.
pub fn banned(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|f| f.is_rust() && !excuses(SPELLED_OUT, &f.path)) {
        for (number, (code, text)) in (1..).zip(file.code.lines().zip(file.text.lines())) {
            let mut report = |what: String| found.push(Finding::new(&file.path, number, what));
            for name in MACROS.iter().filter(|name| has_macro(code, name)) {
                report(format!("{name}! is left: finish the place, or return an error that says what is missing"));
            }
            for mark in words(text).into_iter().filter(|(_, word)| MARKS.contains(word)) {
                report(format!("{} is left: finish the place, or open an issue and remove the mark", mark.1));
            }
            if code.contains(".unwrap()") && !file.is_test(number) && !excuses(UNWRAPS, &file.path) {
                report(
                    "unwrap() outside tests: return an error, or match (or name the file in tidy's UNWRAPS)".to_owned(),
                );
            }
        }
    }
    found
}

fn has_macro(code: &str, name: &str) -> bool {
    words(code).iter().any(|(at, word)| *word == name && code[at + word.len()..].starts_with('!'))
}

/// No paths of one machine, and nothing outside the project.
pub fn paths(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|f| !excuses(SPELLED_OUT, &f.path)) {
        let shown_in_pages = file.path.ends_with(".md");
        for (number, line) in (1..).zip(file.text.lines()) {
            if line.contains(OUTSIDE) {
                found.push(Finding::new(
                    &file.path,
                    number,
                    format!("{OUTSIDE} is not part of the project: copy what is needed into it"),
                ));
            }
            if file.is_test(number) {
                continue;
            }
            let paths = MACHINE_PATHS.iter().filter(|path| !(shown_in_pages && **path == "/tmp"));
            for path in paths.filter(|path| has_path(line, path)) {
                found.push(Finding::new(
                    &file.path,
                    number,
                    format!("{path} is a folder of one machine: take the place from an argument or the environment"),
                ));
            }
        }
    }
    found
}

/// Whether an absolute path in `line` begins with the folder `path`.
fn has_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let part_of_path = |c: char| c.is_alphanumeric() || "_-./}~$)".contains(c);
        let before = line[..at].chars().next_back();
        let after = line[at + path.len()..].chars().next();
        !before.is_some_and(part_of_path) && !after.is_some_and(|c| c.is_alphanumeric() || "_-.".contains(c))
    })
}
