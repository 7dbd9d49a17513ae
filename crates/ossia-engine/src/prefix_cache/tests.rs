//! The tree against a plain list of all points.

use ossia_model::kv_cache::PageCounts;

use super::*;

const WINDOW: usize = 100;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// What a point serves, by its own tokens.
fn plain(point: &[u32], tokens: &[u32], most: usize) -> usize {
    let len = common(point, tokens).min(most);
    let first = point.len().saturating_sub(WINDOW) / PAGE;
    if len >= LEAST && first * PAGE <= (len + 1).saturating_sub(WINDOW) { len } else { 0 }
}

/// Leaves a point after `tokens`, as a sequence that held pages for them and is gone now.
fn leave(cache: &mut PrefixCache, pages: &mut Pages, salt: u64, tokens: &[u32]) {
    let mut tables = Tables::default();
    assert!(pages.extend(&mut tables, tokens.len() + 3));
    pages.trim(&mut tables, cache.first_kept(tokens.len()));
    cache.insert(pages, salt, tokens, &tables);
    pages.release(&mut tables);
}

#[test]
fn finds_what_a_plain_list_finds() {
    let counts = PageCounts { full: 4000, sliding: 4000 };
    for seed in 0..20 {
        let (mut random, mut cache, mut pages) = (Random(seed), PrefixCache::new(WINDOW), Pages::new(counts));
        let mut all: Vec<(u64, Vec<u32>)> = Vec::new();
        for _ in 0..120 {
            let mut tokens = match all.len() {
                0 => Vec::new(),
                n => all[random.below(n)].1.clone(),
            };
            tokens.truncate(random.below(500));
            let more = random.below(200);
            tokens.extend((0..more).map(|_| random.below(2) as u32));
            tokens.push(2);
            let salt = random.below(2) as u64;
            let most = tokens.len() - 1 - random.below(2) * random.below(tokens.len());
            let of_salt = || all.iter().filter(|(s, _)| *s == salt).map(|(_, point)| point);
            let most_there = of_salt().map(|point| plain(point, &tokens, most)).max().unwrap_or(0);
            // Points whose full pages all match are always found, others where they are near.
            let on_path = of_salt().filter(|point| common(point, &tokens) / PAGE == point.len() / PAGE);
            let least = on_path.map(|point| plain(point, &tokens, most)).max().unwrap_or(0);
            let hit = cache.lookup(&mut pages, salt, &tokens, most);
            let found = hit.as_ref().map_or(0, |h| h.len);
            assert!((least..=most_there).contains(&found), "seed {seed}: {found} of {least} to {most_there}");
            let known = of_salt().map(|point| common(point, &tokens)).max().unwrap_or(0);
            assert_eq!(cache.known(salt, &tokens), known, "seed {seed}");
            if let Some(mut hit) = hit {
                let last = hit.len.div_ceil(PAGE);
                assert_eq!(hit.tables.full.pages.len(), last);
                assert_eq!(hit.tables.sliding.first + hit.tables.sliding.pages.len(), last);
                assert!(hit.tables.sliding.first * PAGE <= (hit.len + 1).saturating_sub(WINDOW));
                pages.release(&mut hit.tables);
            }
            if tokens.len() >= LEAST {
                leave(&mut cache, &mut pages, salt, &tokens);
                all.push((salt, tokens));
            }
        }
        while cache.evict(&mut pages) {}
        assert_eq!((pages.free(), cache.points(), cache.nodes.len()), (counts, 0, 0));
    }
}

#[test]
fn the_least_used_goes_first() {
    let counts = PageCounts { full: 100, sliding: 100 };
    let (mut cache, mut pages) = (PrefixCache::new(WINDOW), Pages::new(counts));
    let tokens = |i: u32| vec![i; 70];
    (0..4).for_each(|i| leave(&mut cache, &mut pages, 0, &tokens(i)));
    let find = |cache: &mut PrefixCache, pages: &mut Pages, i: u32| {
        let hit = cache.lookup(pages, 0, &tokens(i), 70);
        hit.map(|mut hit| pages.release(&mut hit.tables)).is_some()
    };
    assert!(find(&mut cache, &mut pages, 0));
    leave(&mut cache, &mut pages, 0, &tokens(1));
    assert!(cache.evict(&mut pages) && cache.evict(&mut pages));
    assert_eq!([0, 1, 2, 3].map(|i| find(&mut cache, &mut pages, i)), [true, true, false, false]);
    assert_eq!((cache.points(), cache.evictions()), (2, 2));
}

/// A point is not left where the window's pages are gone.
#[test]
fn a_point_needs_its_window() {
    let (mut cache, mut pages) = (PrefixCache::new(WINDOW), Pages::new(PageCounts { full: 9, sliding: 9 }));
    let mut tables = Tables::default();
    assert!(pages.extend(&mut tables, 400));
    pages.trim(&mut tables, 300);
    cache.insert(&mut pages, 0, &[1; 350], &tables);
    assert_eq!(cache.points(), 0);
    cache.insert(&mut pages, 0, &[1; 400], &tables);
    assert_eq!(cache.points(), 1);
}
