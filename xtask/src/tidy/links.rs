//! Links in pages: each relative link of a Markdown file names a file or folder of the project.
//! Links to the web are not tried: the check must not depend on a network.

use super::modules::join;
use super::{Finding, Tree};

/// Every relative link leads somewhere.
pub fn dead_links(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for page in tree.files.iter().filter(|f| f.path.ends_with(".md")) {
        let folder = page.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (line, target) in links(&page.text) {
            let file = target.split('#').next().unwrap_or(target);
            if !exists(tree, &join(folder, file)) {
                found.push(Finding::new(
                    &page.path,
                    line,
                    format!("link to {target}, which is not in the project: mend it or remove it"),
                ));
            }
        }
    }
    found
}

fn exists(tree: &Tree, path: &str) -> bool {
    path.is_empty() || tree.paths.iter().any(|p| p == path || p.starts_with(&format!("{path}/")))
}

/// The relative targets of `[text](target)`, outside code, each with its line.
fn links(page: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in (1..).zip(page.lines()) {
        fenced ^= line.trim_start().starts_with("```");
        if fenced || line.starts_with("    ") {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let in_code = line[..at].matches('`').count() % 2 == 1;
            let target = line[at + 2..].split([')', ' ']).next().unwrap_or("");
            let outside = target.starts_with('#') || target.contains("://") || target.starts_with("mailto:");
            if !in_code && !outside && !target.is_empty() {
                found.push((number, target));
            }
        }
    }
    found
}
