//! How files hang together: follows `mod name;` from each crate's roots, as the compiler would, whatever the `cfg`.
//! Finds files that no `mod` reaches (Cargo never compiles them, so nobody notices when they rot), and files that
//! only tests reach.

use super::source::{File, words};
use super::{Finding, Tree, house};
use std::collections::BTreeSet;

/// Every Rust file is reached from a root of its crate.
pub fn dead_files(tree: &Tree) -> Vec<Finding> {
    let mut reached = BTreeSet::new();
    let roots = tree.files.iter().filter(|f| f.is_rust() && is_root(tree, &f.path));
    roots.for_each(|root| follow(tree, root, true, &mut reached));
    let dead = tree.files.iter().filter(|f| f.is_rust() && !reached.contains(f.path.as_str()));
    dead.map(|f| Finding::new(&f.path, 1, "no mod declaration reaches this file: declare it or delete it")).collect()
}

fn is_root(tree: &Tree, path: &str) -> bool {
    house::crates(tree).filter_map(|(folder, _)| path.strip_prefix(folder)).any(|inside| {
        let parts: Vec<&str> = inside.split('/').collect();
        let file_roots = matches!(parts[..], ["build.rs"] | ["src", "lib.rs" | "main.rs"] | ["src", "bin", _]);
        let folder_roots =
            matches!(parts[..], ["tests" | "benches" | "examples", _, "main.rs"] | ["src", "bin", _, "main.rs"]);
        file_roots || folder_roots || matches!(parts[..], ["tests" | "benches" | "examples", _])
    })
}

/// Files that are reached only through `#[cfg(test)] mod name;`.
pub fn test_files(tree: &Tree) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    for file in tree.files.iter().filter(|f| f.is_rust()) {
        let modules = declared(file, is_root(tree, &file.path)).into_iter().filter(|module| module.for_tests);
        for path in modules.flat_map(|module| module.paths) {
            tree.files.iter().filter(|f| f.path == path).for_each(|f| follow(tree, f, false, &mut reached));
        }
    }
    reached.into_iter().map(str::to_owned).collect()
}

fn follow<'t>(tree: &'t Tree, file: &'t File, is_root: bool, reached: &mut BTreeSet<&'t str>) {
    if !reached.insert(&file.path) {
        return;
    }
    for path in declared(file, is_root).into_iter().flat_map(|module| module.paths) {
        if let Some(next) = tree.files.iter().find(|f| f.path == path) {
            follow(tree, next, false, reached);
        }
    }
}

/// A module or an included file, as declared.
struct Declared {
    /// Where it could stand.
    paths: Vec<String>,
    for_tests: bool,
}

fn declared(file: &File, is_root: bool) -> Vec<Declared> {
    let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    let stem = name.trim_end_matches(".rs");
    let below = if is_root || stem == "mod" { folder.to_owned() } else { format!("{folder}/{stem}") };
    let mut found = Vec::new();
    for pair in words(&file.code).windows(2).filter(|pair| pair[0].1 == "mod") {
        let (at, module) = pair[1];
        if file.code[at + module.len()..].trim_start().starts_with(';') {
            let attributes = file.code[..pair[0].0].rsplit([';', '{', '}']).next().unwrap_or("");
            let paths = vec![format!("{below}/{module}.rs"), format!("{below}/{module}/mod.rs")];
            found.push(Declared { paths, for_tests: attributes.contains("#[cfg(test)]") });
        }
    }
    let named = quoted_after(&file.text, "#[path = \"").chain(quoted_after(&file.text, "include!(\""));
    found.extend(named.map(|named| Declared { paths: vec![join(folder, named)], for_tests: false }));
    found
}

fn quoted_after<'t>(text: &'t str, start: &'t str) -> impl Iterator<Item = &'t str> {
    text.match_indices(start).filter_map(move |(at, _)| text[at + start.len()..].split('"').next())
}

/// `folder` joined with a relative path, `.` and `..` resolved by name.
pub fn join(folder: &str, relative: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}
