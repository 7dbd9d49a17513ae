//! The shape of the house: which crate may use which, which crate forbids `unsafe`, and that each op folder is whole.
//! Cargo refuses circles only; that arrows point down is kept here.

use super::source::File;
use super::tables::{ARROWS, DENY_CRATES, OPS_WITHOUT_REFERENCE, UNSAFE_CRATES, excuses};
use super::{Finding, Tree};
use std::collections::BTreeSet;

const OPS: &str = "crates/ossia-kernels/src/ops/";

/// A crate's folder (with a closing `/`) and its manifest.
pub fn crates(tree: &Tree) -> impl Iterator<Item = (&str, &File)> {
    let manifests = tree.files.iter().filter(|f| f.path.ends_with("/Cargo.toml") && f.text.contains("[package]"));
    manifests.filter_map(|f| Some((f.path.strip_suffix("Cargo.toml")?, f)))
}

fn crate_name(folder: &str) -> &str {
    folder.trim_end_matches('/').rsplit('/').next().unwrap_or(folder)
}

/// Every library and program forbids `unsafe`, except where the tables say otherwise.
pub fn crate_roots(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (folder, _) in crates(tree).filter(|(folder, _)| !UNSAFE_CRATES.contains(&crate_name(folder))) {
        let is_root = |path: &str| {
            path.strip_prefix(folder)
                .is_some_and(|p| p == "src/lib.rs" || p == "src/main.rs" || p.starts_with("src/bin/"))
        };
        for root in tree.files.iter().filter(|f| f.is_rust() && is_root(&f.path)) {
            let denies = DENY_CRATES.contains(&crate_name(folder)) && root.code.contains("#![deny(unsafe_code)]");
            if !denies && !root.code.contains("#![forbid(unsafe_code)]") {
                found.push(Finding::new(
                    &root.path,
                    1,
                    "the crate's root does not say #![forbid(unsafe_code)]: add it",
                ));
            }
        }
    }
    found
}

/// A crate uses only crates below it.
pub fn crate_arrows(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (folder, manifest) in crates(tree) {
        let name = crate_name(folder);
        let Some((_, below)) = ARROWS.iter().find(|(known, _)| *known == name) else {
            found.push(Finding::new(
                &manifest.path,
                1,
                format!("{name} has no place in the house: add it to tidy's ARROWS"),
            ));
            continue;
        };
        for (line, used) in our_dependencies(&manifest.text) {
            if !below.contains(&used) {
                let what =
                    format!("{name} must not use {used}: arrows point down only (it may use: {})", below.join(", "));
                found.push(Finding::new(&manifest.path, line, what));
            }
        }
    }
    found
}

/// The crates of ours in a manifest's dependency sections, each with its line.
fn our_dependencies(manifest: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_dependencies = false;
    for (number, line) in (1..).zip(manifest.lines().map(str::trim)) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            in_dependencies = section.ends_with("dependencies");
            let named = section.split_once("dependencies.").map(|(_, name)| name);
            found.extend(named.filter(|name| is_ours(name)).map(|name| (number, name)));
        } else if in_dependencies {
            let key = line.split(['=', '.', ' ']).next().unwrap_or(line);
            found.extend(is_ours(key).then_some((number, key)));
        }
    }
    found
}

fn is_ours(name: &str) -> bool {
    name == "ossia" || name.starts_with("ossia-") || name == "xtask"
}

/// Each op is a folder with its formula, its slow truth and its tests.
pub fn op_folders(tree: &Tree) -> Vec<Finding> {
    let inside = tree.paths.iter().filter_map(|path| path.strip_prefix(OPS));
    let ops: BTreeSet<&str> = inside.filter_map(|rest| Some(rest.split_once('/')?.0)).collect();
    let mut found = Vec::new();
    for op in ops {
        for part in ["mod.rs", "reference.rs", "tests.rs"] {
            let path = format!("{OPS}{op}/{part}");
            let excused = part == "reference.rs" && excuses(OPS_WITHOUT_REFERENCE, &format!("{OPS}{op}"));
            if !tree.paths.contains(&path) && !excused {
                found.push(Finding::new(
                    &path,
                    1,
                    format!("op {op} lacks {part}: an op folder holds mod.rs, reference.rs and tests.rs"),
                ));
            }
        }
    }
    found
}
