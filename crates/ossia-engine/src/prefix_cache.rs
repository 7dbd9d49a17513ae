//! Prefixes that were computed before, exact to the token.
//!
//! A *point* is a place from which a sequence can go on: it holds every page of the layers that see everything, and of
//! the layers with a window the pages that the window still reaches there. Points are left at the end of each prompt (the
//! next prompt of a conversation goes on from there, even where the answer's thinking was dropped from it), at the end of
//! each answer, now and then in a long prompt, and where a prompt parts from what is known: many conversations begin with
//! the same instructions.
//!
//! The pages of all points of one salt form a tree, a node for each full page, found by its 64 tokens themselves and not
//! by a hash of them. Where a prompt parts from a point's tokens a little earlier, the point serves as far as its window
//! pages reach. Whoever goes on in the middle of a page copies it first; that is the caller's business, and so is holding
//! on to the sequence's own pages.
//!
//! **Eviction** takes the point that was not used for the longest time, among the salts that hold at least their equal
//! share of all cached pages: who floods the cache evicts himself.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};

use ossia_kernels::kv::{PAGE, PageTable};
use ossia_model::gpt_oss::config::LayerKind;

use crate::pages::{Holder, Pages, Tables};

/// Fewer tokens are not worth a copied page.
const LEAST: usize = 16;

/// All points.
pub struct PrefixCache {
    window: usize,
    nodes: BTreeMap<u64, Node>,
    next_node: u64,
    salts: BTreeMap<u64, Salt>,
    /// Counts uses.
    clock: u64,
    evictions: u64,
}

/// What one salt has.
struct Salt {
    root: u64,
    /// Points by their last use: the node that each hangs on.
    points: BTreeMap<u64, u64>,
    /// Pages that its nodes and points hold; one that several points hold counts for each.
    pages: usize,
}

/// A full page of tokens; the root has none.
struct Node {
    parent: Option<u64>,
    depth: usize,
    tokens: Box<[u32]>,
    page: u32,
    children: BTreeMap<Box<[u32]>, u64>,
    points: Vec<Point>,
}

struct Point {
    /// Tokens behind the node's, less than a page.
    tail: Box<[u32]>,
    /// Their page, where there are any.
    tail_page: Option<u32>,
    sliding: PageTable,
    used: u64,
}

/// A prefix that was found. The sequence holds its pages.
#[derive(Debug)]
pub struct Hit {
    /// Tokens.
    pub len: usize,
    /// Their pages; where `len` is not a multiple of a page, the last ones must be copied before they are written.
    pub tables: Tables,
}

/// How many tokens two runs have in common at their beginning.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The children that have most in common with `rest`: in their order, they are next to where it would be.
fn beside<'a>(node: &'a Node, rest: &[u32]) -> impl Iterator<Item = (&'a [u32], u64)> {
    let before = node.children.range::<[u32], _>((Unbounded, Excluded(rest))).next_back();
    let after = node.children.range::<[u32], _>((Included(rest), Unbounded)).next();
    before.into_iter().chain(after).map(|(chunk, &id)| (&**chunk, id))
}

impl PrefixCache {
    /// Empty, for a model whose window is so many positions wide.
    pub fn new(window: usize) -> Self {
        Self { window, nodes: BTreeMap::new(), next_node: 0, salts: BTreeMap::new(), clock: 0, evictions: 0 }
    }

    /// Points.
    pub fn points(&self) -> usize {
        self.salts.values().map(|salt| salt.points.len()).sum()
    }

    /// Points that were given up.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// The first position whose keys and values a point at `len` keeps in layers with a window: one more than the next
    /// token sees, so that the point also serves for one token less.
    pub fn first_kept(&self, len: usize) -> usize {
        len.saturating_sub(self.window)
    }

    /// The longest known prefix of `tokens`, at most `most` of them.
    pub fn lookup(&mut self, pages: &mut Pages, salt: u64, tokens: &[u32], most: usize) -> Option<Hit> {
        let (len, node, used) = self.best(salt, tokens, most).filter(|(len, ..)| *len >= LEAST)?;
        let point = self.nodes.get(&node)?.points.iter().find(|p| p.used == used)?;
        let count = len.div_ceil(PAGE);
        let mut full = self.path(node);
        full.extend(point.tail_page);
        full.truncate(count);
        let mut sliding = point.sliding.clone();
        sliding.pages.truncate(count - sliding.first);
        full.iter().for_each(|&page| pages.hold(LayerKind::Full, page, Holder::Sequence));
        sliding.pages.iter().for_each(|&page| pages.hold(LayerKind::Sliding, page, Holder::Sequence));
        self.touch(salt, node, used);
        Some(Hit { len, tables: Tables { full: PageTable { first: 0, pages: full }, sliding } })
    }

    /// How many of `tokens` are the beginning of something known, whether or not a point is near.
    pub fn known(&self, salt: u64, tokens: &[u32]) -> usize {
        let (mut at, mut known) = (self.salts.get(&salt).map(|salt| salt.root), 0);
        while let Some(node) = at.and_then(|at| self.nodes.get(&at)) {
            let rest = tokens.get(node.depth * PAGE..).unwrap_or_default();
            at = rest.get(..PAGE).and_then(|chunk| node.children.get(chunk)).copied();
            let tails = node.points.iter().map(|point| common(&point.tail, rest));
            let beside = beside(node, rest).map(|(chunk, _)| common(chunk, rest));
            known = node.depth * PAGE + tails.chain(beside).max().unwrap_or(0);
        }
        known
    }

    /// Remembers that `tokens` are in `tables`, which may cover more. Nothing where window pages are gone.
    pub fn insert(&mut self, pages: &mut Pages, salt: u64, tokens: &[u32], tables: &Tables) {
        let (first, end) = (self.first_kept(tokens.len()) / PAGE, tokens.len().div_ceil(PAGE));
        if tokens.len() < LEAST || tables.sliding.first > first {
            return;
        }
        let (chunks, tail) = tokens.as_chunks::<PAGE>();
        let mut node = self.root(salt);
        for (chunk, &page) in chunks.iter().zip(&tables.full.pages) {
            node = self.child(pages, salt, node, chunk, page);
        }
        let known = self.nodes.get(&node).and_then(|n| n.points.iter().find(|p| *p.tail == *tail));
        if let Some(used) = known.map(|p| p.used) {
            return self.touch(salt, node, used);
        }
        let tail_page = (!tail.is_empty()).then(|| tables.full.pages[end - 1]);
        let at = tables.sliding.first;
        let sliding = PageTable { first, pages: tables.sliding.pages[first - at..end - at].to_vec() };
        tail_page.iter().for_each(|&page| pages.hold(LayerKind::Full, page, Holder::Cache));
        sliding.pages.iter().for_each(|&page| pages.hold(LayerKind::Sliding, page, Holder::Cache));
        self.clock += 1;
        let held = usize::from(tail_page.is_some()) + sliding.pages.len();
        if let (Some(entry), Some(at)) = (self.salts.get_mut(&salt), self.nodes.get_mut(&node)) {
            entry.points.insert(self.clock, node);
            entry.pages += held;
            at.points.push(Point { tail: tail.into(), tail_page, sliding, used: self.clock });
        }
    }

    /// Gives up one point. False where there is none.
    pub fn evict(&mut self, pages: &mut Pages) -> bool {
        let all: usize = self.salts.values().map(|salt| salt.pages).sum();
        let large = |salt: &Salt| salt.pages * self.salts.len() >= all;
        let oldest = |(&id, salt): (&u64, &Salt)| salt.points.first_key_value().map(|(&used, &node)| (used, node, id));
        let Some((used, node, salt)) = self.salts.iter().filter(|(_, s)| large(s)).filter_map(oldest).min() else {
            return false;
        };
        self.evictions += 1;
        self.remove(pages, salt, node, used);
        true
    }

    /// Length, node and last use of the point that serves the longest prefix.
    fn best(&self, salt: u64, tokens: &[u32], most: usize) -> Option<(usize, u64, u64)> {
        let (mut at, mut best) = (self.salts.get(&salt)?.root, None);
        loop {
            let node = self.nodes.get(&at)?;
            let rest = tokens.get(node.depth * PAGE..)?;
            for point in &node.points {
                let len = (node.depth * PAGE + common(&point.tail, rest)).min(most);
                best = best.max(self.serves(point, len).then_some((len, at, point.used)));
            }
            if let Some(&child) = rest.get(..PAGE).and_then(|chunk| node.children.get(chunk)) {
                at = child;
                continue;
            }
            return best.max(self.best_beside(node, rest, most));
        }
    }

    /// The same for points of a child that has only a part of its tokens in common with `rest`.
    fn best_beside(&self, node: &Node, rest: &[u32], most: usize) -> Option<(usize, u64, u64)> {
        let mut best = None;
        for (chunk, id) in beside(node, rest) {
            let len = (node.depth * PAGE + common(chunk, rest)).min(most);
            for point in self.nodes.get(&id).iter().flat_map(|child| &child.points) {
                best = best.max(self.serves(point, len).then_some((len, id, point.used)));
            }
        }
        best
    }

    /// Whether a sequence of `len` tokens finds all that its next token sees.
    fn serves(&self, point: &Point, len: usize) -> bool {
        (point.sliding.first * PAGE <= (len + 1).saturating_sub(self.window)) && len > 0
    }

    /// The pages from the root's child to `node`.
    fn path(&self, mut node: u64) -> Vec<u32> {
        let mut pages = Vec::new();
        while let Some(Node { parent: Some(parent), page, .. }) = self.nodes.get(&node) {
            pages.push(*page);
            node = *parent;
        }
        pages.reverse();
        pages
    }

    fn add_node(&mut self, parent: Option<u64>, depth: usize, tokens: &[u32], page: u32) -> u64 {
        self.next_node += 1;
        let node = Node { parent, depth, tokens: tokens.into(), page, children: BTreeMap::new(), points: Vec::new() };
        self.nodes.insert(self.next_node, node);
        self.next_node
    }

    fn root(&mut self, salt: u64) -> u64 {
        if let Some(salt) = self.salts.get(&salt) {
            return salt.root;
        }
        let root = self.add_node(None, 0, &[], 0);
        self.salts.insert(salt, Salt { root, points: BTreeMap::new(), pages: 0 });
        root
    }

    /// The node of `chunk` below `node`; a new one holds `page`.
    fn child(&mut self, pages: &mut Pages, salt: u64, node: u64, chunk: &[u32], page: u32) -> u64 {
        let Some(parent) = self.nodes.get(&node) else { return node };
        if let Some(&child) = parent.children.get(chunk) {
            return child;
        }
        let child = self.add_node(Some(node), parent.depth + 1, chunk, page);
        pages.hold(LayerKind::Full, page, Holder::Cache);
        if let Some(salt) = self.salts.get_mut(&salt) {
            salt.pages += 1;
        }
        if let Some(parent) = self.nodes.get_mut(&node) {
            parent.children.insert(chunk.into(), child);
        }
        child
    }

    fn touch(&mut self, salt: u64, node: u64, used: u64) {
        self.clock += 1;
        let now = self.clock;
        if let Some(salt) = self.salts.get_mut(&salt) {
            salt.points.remove(&used);
            salt.points.insert(now, node);
        }
        let points = self.nodes.get_mut(&node).into_iter().flat_map(|n| &mut n.points);
        points.filter(|p| p.used == used).for_each(|p| p.used = now);
    }

    fn remove(&mut self, pages: &mut Pages, salt: u64, node: u64, used: u64) {
        let Some(entry) = self.salts.get_mut(&salt) else { return };
        entry.points.remove(&used);
        if let Some(at) = self.nodes.get_mut(&node) {
            for point in at.points.extract_if(.., |p| p.used == used) {
                entry.pages -= usize::from(point.tail_page.is_some()) + point.sliding.pages.len();
                point.tail_page.iter().for_each(|&page| pages.release_page(LayerKind::Full, page, Holder::Cache));
                let sliding = point.sliding.pages.iter();
                sliding.for_each(|&page| pages.release_page(LayerKind::Sliding, page, Holder::Cache));
            }
        }
        self.prune(pages, salt, node);
    }

    /// Removes `node` and those above it that serve no point any more.
    fn prune(&mut self, pages: &mut Pages, salt: u64, mut node: u64) {
        while self.nodes.get(&node).is_some_and(|n| n.children.is_empty() && n.points.is_empty()) {
            let Some(gone) = self.nodes.remove(&node) else { return };
            let Some(parent) = gone.parent else {
                self.salts.remove(&salt);
                return;
            };
            pages.release_page(LayerKind::Full, gone.page, Holder::Cache);
            if let Some(salt) = self.salts.get_mut(&salt) {
                salt.pages -= 1;
            }
            if let Some(parent) = self.nodes.get_mut(&parent) {
                parent.children.remove(&gone.tokens);
            }
            node = parent;
        }
    }
}

#[cfg(test)]
mod tests;
