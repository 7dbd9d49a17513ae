//! The slow truth: sort, then softmax in f64.

pub fn choose(logits: &[f32], k: usize) -> Vec<(u32, f64)> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    order.truncate(k);
    let exp = |&id: &u32| f64::from(logits[id as usize] - logits[order[0] as usize]).exp();
    let sum: f64 = order.iter().map(exp).sum();
    order.iter().map(|id| (*id, exp(id) / sum)).collect()
}
