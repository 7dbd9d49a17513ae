//! The house's rules, kept by a program. A rule reads the whole tree as text and returns findings; it never writes.
//! The tree is every `.rs`, `.md` and `.toml` file that git tracks or would track, so generated files are not judged.
//! What is excused stands in `tables`, each line with its reason.

mod house;
mod length;
mod links;
mod modules;
mod source;
mod tables;
#[cfg(test)]
mod tests;
mod words;

use source::File;
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::process::Command;

/// The project's text, and the names of all its files.
pub struct Tree {
    /// Rust, Markdown and TOML files, read and (Rust) lexed.
    files: Vec<File>,
    /// Every file of the project, paths relative to its root with `/`.
    paths: BTreeSet<String>,
}

impl Tree {
    /// Marks the files that only tests reach.
    fn new(files: Vec<File>, paths: BTreeSet<String>) -> Self {
        let mut tree = Tree { files, paths };
        let test_files = modules::test_files(&tree);
        tree.files.iter_mut().filter(|file| test_files.contains(&file.path)).for_each(File::mark_as_test);
        tree
    }
}

/// One broken rule: where, what, and what to do.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Finding { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

type Rule = fn(&Tree) -> Vec<Finding>;

const RULES: &[Rule] = &[
    length::files,
    length::functions,
    length::openings,
    words::unsafe_places,
    words::banned,
    words::paths,
    house::crate_roots,
    house::crate_arrows,
    house::op_folders,
    modules::dead_files,
    links::dead_links,
    tables::stale,
];

/// Judges the tree at `root`; the error lists every finding.
pub fn run(root: &Path) -> Result<(), String> {
    let tree = read_tree(root)?;
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    findings.sort();
    if findings.is_empty() {
        println!("tidy: {} files, nothing found", tree.files.len());
        return Ok(());
    }
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    Err(format!("{}\ntidy: {} found", lines.join("\n"), findings.len()))
}

fn read_tree(root: &Path) -> Result<Tree, String> {
    let (mut files, mut paths) = (Vec::new(), BTreeSet::new());
    for path in git_files(root)? {
        let full = root.join(&path);
        if !full.is_file() {
            continue; // deleted, but not yet for git
        }
        if [".rs", ".md", ".toml"].iter().any(|end| path.ends_with(end)) {
            let text = std::fs::read_to_string(&full).map_err(|e| format!("{path}: cannot be read as UTF-8: {e}"))?;
            files.push(File::new(&path, &text));
        }
        paths.insert(path);
    }
    Ok(Tree::new(files, paths))
}

fn git_files(root: &Path) -> Result<Vec<String>, String> {
    let args = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").args(args).current_dir(root).output();
    let output = output.map_err(|e| format!("git did not start: {e}; tidy asks it which files are the project's"))?;
    if !output.status.success() {
        return Err(format!("git {} failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()));
    }
    let names = String::from_utf8_lossy(&output.stdout);
    Ok(names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}
