//! The slow truth: sort, then softmax in f64.

pub fn choose(logits: &[f32], k: usize) -> Vec<(u32, f64)> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    order.truncate(k);
    let exp = |&id: &u32| f64::from(logits[id as usize] - logits[order[0] as usize]).exp();
    let sum: f64 = order.iter().map(exp).sum();
    order.iter().map(|id| (*id, exp(id) / sum)).collect()
}

/// Softmax over the chosen logits of one token; `ids` are held fixed.
pub fn weights(logits: &[f64], ids: &[usize]) -> Vec<f64> {
    let exp = |&id: &usize| (logits[id] - logits[ids[0]]).exp();
    let sum: f64 = ids.iter().map(exp).sum();
    ids.iter().map(|id| exp(id) / sum).collect()
}

/// Softmax over all logits, and their log-sum-exp.
pub fn softmax(logits: &[f64]) -> (Vec<f64>, f64) {
    let max = logits.iter().fold(f64::MIN, |m, &v| m.max(v));
    let sum: f64 = logits.iter().map(|v| (v - max).exp()).sum();
    (logits.iter().map(|v| (v - max).exp() / sum).collect(), max + sum.ln())
}

/// The gradient for one token's logits.
pub fn backward(logits: &[f64], ids: &[usize], d_weights: &[f64], load: &[f64], z: f64) -> Vec<f64> {
    let (p, lse) = softmax(logits);
    let mean: f64 = p.iter().zip(load).map(|(p, g)| p * g).sum();
    let mut d: Vec<f64> = p.iter().zip(load).map(|(p, g)| p * (g - mean) + 2.0 * z * lse * p).collect();
    let w = weights(logits, ids);
    let mean: f64 = w.iter().zip(d_weights).map(|(w, d)| w * d).sum();
    ids.iter().zip(w.iter().zip(d_weights)).for_each(|(&id, (w, dw))| d[id] += w * (dw - mean));
    d
}
