//! Who holds which pages. A page is held by any number of sequences and by the prefix cache, and is free when nobody
//! holds it.
//!
//! There are two groups: pages of layers that see everything, and pages of layers with a window. A slot is written once
//! by the sequence that computed it and never changed after, so holders share pages without asking; who goes on from the
//! middle of a shared page copies it first. Pages that only the cache holds can be had by evicting, so what sequences
//! can still get is known without looking into the cache: all pages less those that sequences hold.

use ossia_kernels::kv::{PAGE, PageTable};
use ossia_model::gpt_oss::config::LayerKind;
use ossia_model::kv_cache::PageCounts;

/// On whose behalf a page is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A running sequence.
    Sequence,
    /// The prefix cache.
    Cache,
}

/// What one sequence, or one point of the prefix cache, holds.
#[derive(Debug, Default)]
pub struct Tables {
    /// Pages of layers that see everything.
    pub full: PageTable,
    /// Pages of layers with a window.
    pub sliding: PageTable,
}

/// All pages of both groups.
pub struct Pages {
    full: Group,
    sliding: Group,
}

struct Group {
    /// Sequences that hold a page, and points of the cache that do.
    holders: Vec<[u32; 2]>,
    free: Vec<u32>,
    /// Pages that at least one sequence holds.
    used: usize,
}

impl Group {
    fn new(pages: usize) -> Self {
        Self { holders: vec![[0; 2]; pages], free: (0..pages as u32).rev().collect(), used: 0 }
    }

    fn hold(&mut self, page: u32, holder: Holder) {
        let count = &mut self.holders[page as usize][holder as usize];
        *count += 1;
        self.used += usize::from(holder == Holder::Sequence && *count == 1);
    }

    fn release(&mut self, page: u32, holder: Holder) {
        let counts = &mut self.holders[page as usize];
        assert!(counts[holder as usize] > 0, "page {page} is released twice");
        counts[holder as usize] -= 1;
        self.used -= usize::from(holder == Holder::Sequence && counts[holder as usize] == 0);
        if *counts == [0; 2] {
            self.free.push(page);
        }
    }

    /// Takes `count` free pages for a sequence; the caller has seen that there are so many.
    fn take(&mut self, count: usize, table: &mut PageTable) {
        for page in self.free.split_off(self.free.len() - count).into_iter().rev() {
            self.hold(page, Holder::Sequence);
            table.pages.push(page);
        }
    }
}

/// Pages that `table` lacks to cover positions up to `end`, which is not included.
fn missing(table: &PageTable, end: usize) -> usize {
    end.div_ceil(PAGE).saturating_sub(table.first + table.pages.len())
}

impl Tables {
    /// Pages that are lacking to cover positions up to `end`, which is not included.
    pub fn missing(&self, end: usize) -> PageCounts {
        PageCounts { full: missing(&self.full, end), sliding: missing(&self.sliding, end) }
    }

    fn of(&mut self, kind: LayerKind) -> &mut PageTable {
        match kind {
            LayerKind::Full => &mut self.full,
            LayerKind::Sliding => &mut self.sliding,
        }
    }
}

impl Pages {
    /// All free.
    pub fn new(counts: PageCounts) -> Self {
        Self { full: Group::new(counts.full), sliding: Group::new(counts.sliding) }
    }

    /// Pages that nobody holds.
    pub fn free(&self) -> PageCounts {
        PageCounts { full: self.full.free.len(), sliding: self.sliding.free.len() }
    }

    /// Pages that sequences hold.
    pub fn used(&self) -> PageCounts {
        PageCounts { full: self.full.used, sliding: self.sliding.used }
    }

    /// Pages that only the cache holds.
    pub fn cached(&self) -> PageCounts {
        let cached = |group: &Group| group.holders.len() - group.free.len() - group.used;
        PageCounts { full: cached(&self.full), sliding: cached(&self.sliding) }
    }

    /// Pages that sequences do not hold: free ones and those that evicting would free.
    pub fn available(&self) -> PageCounts {
        let available = |group: &Group| group.holders.len() - group.used;
        PageCounts { full: available(&self.full), sliding: available(&self.sliding) }
    }

    fn group(&mut self, kind: LayerKind) -> &mut Group {
        match kind {
            LayerKind::Full => &mut self.full,
            LayerKind::Sliding => &mut self.sliding,
        }
    }

    /// One more holder of `page`.
    pub fn hold(&mut self, kind: LayerKind, page: u32, holder: Holder) {
        self.group(kind).hold(page, holder);
    }

    /// One holder of `page` less.
    pub fn release_page(&mut self, kind: LayerKind, page: u32, holder: Holder) {
        self.group(kind).release(page, holder);
    }

    /// Free pages for a sequence's positions up to `end`; all of them or none. False where there are too few.
    pub fn extend(&mut self, tables: &mut Tables, end: usize) -> bool {
        let missing = tables.missing(end);
        let free = self.free();
        if missing.full > free.full || missing.sliding > free.sliding {
            return false;
        }
        self.full.take(missing.full, &mut tables.full);
        self.sliding.take(missing.sliding, &mut tables.sliding);
        true
    }

    /// Gives back a sequence's sliding pages that end before position `first`.
    pub fn trim(&mut self, tables: &mut Tables, first: usize) {
        let table = &mut tables.sliding;
        let gone = (first / PAGE).saturating_sub(table.first).min(table.pages.len());
        table.pages.drain(..gone).for_each(|page| self.sliding.release(page, Holder::Sequence));
        table.first += gone;
    }

    /// Puts a free page in the place of a sequence's last page of a group, and gives that back. Which page is to be copied
    /// to which: (from, to); nothing where no page is free.
    pub fn replace_last(&mut self, kind: LayerKind, tables: &mut Tables) -> Option<(u32, u32)> {
        let group = self.group(kind);
        let table = tables.of(kind);
        let from = table.pages.pop()?;
        if group.free.is_empty() {
            table.pages.push(from);
            return None;
        }
        group.take(1, table);
        group.release(from, Holder::Sequence);
        table.pages.last().map(|&to| (from, to))
    }

    /// Gives back everything that a sequence holds.
    pub fn release(&mut self, tables: &mut Tables) {
        tables.full.pages.drain(..).for_each(|page| self.full.release(page, Holder::Sequence));
        tables.sliding.pages.drain(..).for_each(|page| self.sliding.release(page, Holder::Sequence));
        *tables = Tables::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: PageCounts = PageCounts { full: 6, sliding: 4 };

    #[test]
    fn pages_come_all_or_none_and_all_come_back() {
        let (mut pages, mut a, mut b) = (Pages::new(COUNTS), Tables::default(), Tables::default());
        assert!(pages.extend(&mut a, 65));
        assert_eq!(pages.free(), PageCounts { full: 4, sliding: 2 });
        assert!(!pages.extend(&mut b, 129), "three sliding pages are not there");
        assert_eq!((pages.free().full, b.full.pages.len()), (4, 0));
        pages.trim(&mut a, 64);
        assert_eq!((a.sliding.first, a.sliding.pages.len()), (1, 1));
        assert!(pages.extend(&mut b, 129));
        assert_eq!(pages.used(), PageCounts { full: 5, sliding: 4 });
        pages.release(&mut a);
        pages.release(&mut b);
        assert_eq!((pages.free(), pages.used()), (COUNTS, PageCounts { full: 0, sliding: 0 }));
    }

    #[test]
    fn a_page_is_free_when_nobody_holds_it() {
        let (mut pages, mut a, mut b) = (Pages::new(COUNTS), Tables::default(), Tables::default());
        assert!(pages.extend(&mut a, 64));
        let page = a.full.pages[0];
        pages.hold(LayerKind::Full, page, Holder::Cache);
        pages.hold(LayerKind::Full, page, Holder::Sequence);
        b.full.pages.push(page);
        pages.release(&mut a);
        assert_eq!((pages.free().full, pages.used().full, pages.cached().full), (5, 1, 0));
        pages.release(&mut b);
        assert_eq!((pages.free().full, pages.used().full, pages.cached().full), (5, 0, 1));
        assert_eq!(pages.available().full, 6);
        pages.release_page(LayerKind::Full, page, Holder::Cache);
        assert_eq!(pages.free(), COUNTS);
    }

    #[test]
    fn a_shared_page_is_replaced_by_one_of_its_own() {
        let (mut pages, mut a) = (Pages::new(PageCounts { full: 2, sliding: 1 }), Tables::default());
        assert!(pages.extend(&mut a, 10));
        let old = a.full.pages[0];
        pages.hold(LayerKind::Full, old, Holder::Cache);
        let (from, to) = pages.replace_last(LayerKind::Full, &mut a).unwrap();
        assert_eq!((from, a.full.pages.as_slice()), (old, [to].as_slice()));
        assert_ne!(from, to);
        assert_eq!(pages.replace_last(LayerKind::Sliding, &mut a), None);
        assert_eq!(a.sliding.pages.len(), 1);
    }
}
