//! The sampler's passes over one row, on the caller's thread.
//!
//! Nothing here depends on the machine: weights are made with +, - and * alone (the compiler vectorizes them without
//! changing a bit; the system's exp differs from one libm to the next), and sums are f64, ascending ids within blocks of
//! 64, then ascending blocks. The blocks keep the additions from waiting for each other, and the draw looks through
//! V / 64 sums instead of V weights. No sort over V: a cut finds its edge with histograms (`edge`).

/// Weights in one partial sum.
const BLOCK: usize = 64;

/// The digits of a key that `edge` looks at, most significant first: 32 bits in three passes.
const DIGITS: [u32; 3] = [12, 12, 8];

/// The passes' memory, and what they hand to each other.
pub struct Scratch {
    /// The adjusted logits [V]: no not-a-number, no +infinity.
    pub row: Vec<f32>,
    /// Weights [V], the best token's is 1; 0 for a token that was cut.
    pub weights: Vec<f32>,
    /// Sums of `BLOCK` weights [V / BLOCK, rounded up].
    sums: Vec<f64>,
    /// A histogram over one digit.
    buckets: Vec<f64>,
}

impl Scratch {
    /// For rows of `vocab` logits.
    pub fn new(vocab: usize) -> Self {
        Self {
            row: vec![0.0; vocab],
            weights: vec![0.0; vocab],
            sums: vec![0.0; vocab.div_ceil(BLOCK)],
            buckets: vec![0.0; 1 << DIGITS[0]],
        }
    }

    /// ln sum exp of the row whose largest logit is `best`.
    pub fn log_sum_exp(&mut self, best: f32) -> f64 {
        self.weigh(best, 1.0);
        f64::from(best) + self.total().ln()
    }

    /// w = exp((l - best) / temperature); 0 below e^-87.
    pub fn weigh(&mut self, best: f32, temperature: f32) {
        // A temperature so small that its inverse overflows must not turn 0 * infinity into not-a-number.
        let scale = temperature.recip().min(f32::MAX);
        let blocks = self.weights.chunks_mut(BLOCK).zip(self.row.chunks(BLOCK));
        for ((weights, logits), sum) in blocks.zip(&mut self.sums) {
            for (w, &l) in weights.iter_mut().zip(logits) {
                *w = exp((l - best) * scale);
            }
            *sum = ascending(weights);
        }
    }

    /// Keeps the `k` largest logits.
    pub fn keep_top_k(&mut self, k: usize) {
        let mut edge = edge(&self.row, |id| f64::from(self.row[id] > f32::NEG_INFINITY), k as f64, &mut self.buckets);
        self.cut(|l, _| edge.keeps(l, 1.0));
    }

    /// Keeps the weights of at least `min_p`.
    pub fn keep_min_p(&mut self, min_p: f32) {
        self.cut(|_, w| w >= min_p);
    }

    /// Keeps the largest logits that together hold `top_p` of the weight.
    pub fn keep_top_p(&mut self, top_p: f32) {
        let wanted = f64::from(top_p) * self.total();
        let mut edge = edge(&self.row, |id| f64::from(self.weights[id]), wanted, &mut self.buckets);
        self.cut(|l, w| edge.keeps(l, f64::from(w)));
    }

    /// The ids of the `n` largest logits above -infinity, best first.
    pub fn best(&mut self, n: usize) -> Vec<u32> {
        if n == 0 {
            return Vec::new();
        }
        let row = &self.row;
        let mut edge = edge(row, |id| f64::from(row[id] > f32::NEG_INFINITY), n as f64, &mut self.buckets);
        let kept = |&id: &usize| row[id] > f32::NEG_INFINITY && edge.keeps(row[id], 1.0);
        let mut ids: Vec<u32> = (0..row.len()).filter(kept).map(|id| id as u32).collect();
        ids.sort_unstable_by_key(|&id| (std::cmp::Reverse(key(row[id as usize])), id));
        ids
    }

    /// The id at the point `unit` (0 to below 1) of the way through the weights.
    pub fn draw(&self, unit: f64) -> Option<u32> {
        let target = unit * self.total();
        let (mut before, mut block) = (0.0, None);
        for (i, &sum) in self.sums.iter().enumerate().filter(|&(_, &sum)| sum > 0.0) {
            block = Some((i, before));
            before += sum;
            if before > target {
                break;
            }
        }
        let (block, mut before) = block?;
        let first = block * BLOCK;
        let mut found = None;
        for (i, &w) in self.weights[first..].iter().take(BLOCK).enumerate().filter(|&(_, &w)| w > 0.0) {
            // Rounding may leave the target past the block's end: then its last token is meant.
            found = Some((first + i) as u32);
            before += f64::from(w);
            if before > target {
                break;
            }
        }
        found
    }

    fn total(&self) -> f64 {
        self.sums.iter().sum()
    }

    /// Sets weights to 0 where `keeps(logit, weight)` says no. Asked in ascending order of ids.
    fn cut(&mut self, mut keeps: impl FnMut(f32, f32) -> bool) {
        let blocks = self.weights.chunks_mut(BLOCK).zip(self.row.chunks(BLOCK));
        for ((weights, logits), sum) in blocks.zip(&mut self.sums) {
            for (w, &l) in weights.iter_mut().zip(logits) {
                if !keeps(l, *w) {
                    *w = 0.0;
                }
            }
            *sum = ascending(weights);
        }
    }
}

/// Where the largest logits stop: all above `key` are in, and of those equal to it the first until `wanted` is reached.
struct Edge {
    key: u32,
    /// The measure of what is kept; at first of all that lies above `key`.
    kept: f64,
    wanted: f64,
}

impl Edge {
    /// Asked in ascending order of ids.
    fn keeps(&mut self, logit: f32, measure: f64) -> bool {
        let key = key(logit);
        if key != self.key {
            return key > self.key;
        }
        let room = self.kept < self.wanted;
        self.kept += measure;
        room
    }
}

/// Finds the edge down to which the largest logits measure `wanted` (above 0): a count, or a weight. One digit of the key
/// a pass: a histogram of the measures, then the bucket in which the sum from the top arrives.
fn edge(row: &[f32], measure: impl Fn(usize) -> f64, wanted: f64, buckets: &mut [f64]) -> Edge {
    let (mut prefix, mut kept, mut low) = (0, 0.0, 32);
    for bits in DIGITS {
        let buckets = &mut buckets[..1 << bits];
        buckets.fill(0.0);
        let high = low;
        low -= bits;
        for (id, &l) in row.iter().enumerate() {
            let key = u64::from(key(l));
            if key >> high == prefix {
                buckets[(key >> low) as usize & ((1 << bits) - 1)] += measure(id);
            }
        }
        let (bucket, above) = arrival(buckets, kept, wanted);
        prefix = prefix << bits | bucket as u64;
        kept = above;
    }
    Edge { key: prefix as u32, kept, wanted }
}

/// The bucket in which the sum from the top, begun at `kept`, reaches `wanted`, and the sum above it. The lowest
/// bucket that holds anything if the sum stays short of it.
fn arrival(buckets: &[f64], kept: f64, wanted: f64) -> (usize, f64) {
    let (mut found, mut sum) = ((0, kept), kept);
    for (i, &measure) in buckets.iter().enumerate().rev().filter(|&(_, &measure)| measure > 0.0) {
        found = (i, sum);
        sum += measure;
        if sum >= wanted {
            break;
        }
    }
    found
}

/// An integer that orders as the logit does; 0 and -0 are equal.
fn key(logit: f32) -> u32 {
    let bits = (logit + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn ascending(weights: &[f32]) -> f64 {
    weights.iter().fold(0.0, |sum, &w| sum + f64::from(w))
}

/// The first logit that is not a number or is +infinity.
pub fn first_broken(logits: &[f32]) -> Option<usize> {
    let broken = |l: f32| l.is_nan() || l == f32::INFINITY;
    // Without an early end the blocks are vectorized.
    let block = logits.chunks(BLOCK).position(|block| block.iter().fold(false, |any, &l| any | broken(l)))?;
    let first = block * BLOCK;
    logits[first..].iter().position(|&l| broken(l)).map(|i| first + i)
}

/// Sets logits to -infinity whose bits in `allowed` (32 a word, low bit first) are clear.
pub fn mask(row: &mut [f32], allowed: &[u32]) -> Result<(), super::NoChoice> {
    if allowed.len() < row.len().div_ceil(32) {
        return Err(super::NoChoice::Mask { wanted: row.len(), found: allowed.len() * 32 });
    }
    for (logits, &word) in row.chunks_mut(32).zip(allowed).filter(|(_, word)| **word != u32::MAX) {
        for (_, l) in logits.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0) {
            *l = f32::NEG_INFINITY;
        }
    }
    Ok(())
}

/// The largest logit; -infinity if there is none.
pub fn largest(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (groups, rest) = row.as_chunks::<16>();
    for group in groups {
        for (lane, &l) in lanes.iter_mut().zip(group) {
            *lane = larger(l, *lane);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| larger(a, b))
}

/// The lowest id of the largest logit, which is above -infinity.
pub fn argmax(row: &[f32]) -> Option<u32> {
    let best = largest(row);
    let id = row.iter().position(|&l| l == best && best > f32::NEG_INFINITY)?;
    Some(id as u32)
}

/// e^x for x <= 0, 0 below -87; within 2e-7 of it. x = n ln 2 + r with |r| <= ln 2 / 2, e^x = 2^n p(r), p the Taylor
/// polynomial of degree 7. No fused multiply-add: not every machine has one.
#[inline]
pub fn exp(x: f32) -> f32 {
    /// Added to a small number, it leaves the nearest integer in the lowest bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    // ln 2 in two parts, the first with trailing zeros so that n times it is exact.
    let r = (clamped - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { p * power }
}

/// The n-th random number of a seed, 0 to below 1 in steps of 2^-53: number n of the splitmix64 sequence (Steele, Lea and
/// Flood, 2014) that starts at the mixed seed, so that neighbouring seeds share nothing.
pub fn unit(seed: u64, n: u64) -> f64 {
    let state = mix(seed).wrapping_add(n.wrapping_add(1).wrapping_mul(GAMMA));
    (mix(state) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// splitmix64's step between states: odd, 2^64 / the golden ratio.
pub const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// splitmix64's output for a state.
pub fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
