//! What the engine counts, for a metrics page.

use ossia_model::kv_cache::PageCounts;

/// A group's pages, by who holds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageStats {
    /// By nobody.
    pub free: usize,
    /// By running sequences.
    pub used: usize,
    /// By the prefix cache alone.
    pub cached: usize,
}

/// Now, and since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// Requests that wait, those that were preempted too.
    pub waiting: usize,
    /// Requests that run.
    pub running: usize,
    /// Pages of layers that see everything.
    pub full_pages: PageStats,
    /// Pages of layers with a window.
    pub sliding_pages: PageStats,
    /// Points of the prefix cache from which a sequence can go on.
    pub cache_points: usize,
    /// Requests that were taken.
    pub requests: u64,
    /// Requests that were refused because the queue was full.
    pub refused: u64,
    /// Requests that ended with an answer: a stop token, the limit or a full context.
    pub answered: u64,
    /// Requests whose client went away.
    pub cancelled: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Tokens of all prompts that were begun.
    pub prompt_tokens: u64,
    /// So many of them came from the prefix cache.
    pub cached_tokens: u64,
    /// Tokens that were computed, those that were computed again too.
    pub computed_tokens: u64,
    /// Tokens that were generated.
    pub generated_tokens: u64,
    /// Times that a sequence had to give up its pages and wait.
    pub preemptions: u64,
    /// Points that the prefix cache gave up.
    pub evictions: u64,
    /// Steps.
    pub steps: u64,
    /// Seconds that steps took, all together.
    pub step_s: f64,
    /// Seconds that the last step took.
    pub last_step_s: f64,
}

/// A group's pages from the counts of both groups.
pub(crate) fn page_stats(free: PageCounts, used: PageCounts, cached: PageCounts) -> (PageStats, PageStats) {
    let full = PageStats { free: free.full, used: used.full, cached: cached.full };
    (full, PageStats { free: free.sliding, used: used.sliding, cached: cached.sliding })
}
