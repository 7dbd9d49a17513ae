//! A few dozen logits a token: plain insertion, on the caller's thread.

use super::{Load, Routes};

pub fn choose(logits: &[f32], experts: usize, routes: &mut Routes) {
    let k = routes.per_token;
    let chosen = routes.experts.chunks_exact_mut(k).zip(routes.weights.chunks_exact_mut(k));
    for (logits, (ids, weights)) in logits.chunks_exact(experts).zip(chosen) {
        largest(logits, ids);
        let top = logits[ids[0] as usize];
        for (w, &id) in weights.iter_mut().zip(&*ids) {
            *w = (logits[id as usize] - top).exp();
        }
        let sum: f32 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= sum);
    }
}

/// Token by token.
pub fn load(logits: &[f32], experts: usize, k: usize) -> Load {
    let mut load = Load { counts: vec![0.0; experts], probability: vec![0.0; experts], square: 0.0 };
    let mut ids = vec![0; k];
    let mut p = vec![0.0f32; experts];
    for logits in logits.chunks_exact(experts) {
        largest(logits, &mut ids);
        ids.iter().for_each(|&id| load.counts[id as usize] += 1.0);
        let top = logits[ids[0] as usize];
        p.iter_mut().zip(logits).for_each(|(p, v)| *p = (v - top).exp());
        let sum: f32 = p.iter().sum();
        load.probability.iter_mut().zip(&p).for_each(|(all, p)| *all += f64::from(p / sum));
        load.square += f64::from(top + sum.ln()).powi(2);
    }
    load
}

/// The ids of the largest logits, best first; the lower id where two are equal. Not-a-number counts as smallest, so
/// the ids are valid whatever the logits are.
fn largest(logits: &[f32], ids: &mut [u32]) {
    let key = |id: u32| {
        let v = logits[id as usize];
        if v.is_nan() { f32::NEG_INFINITY } else { v }
    };
    let mut found = 0;
    for id in 0..logits.len() as u32 {
        let place = ids[..found].iter().position(|&other| key(id) > key(other)).unwrap_or(found);
        if place < ids.len() {
            let end = (found + 1).min(ids.len());
            ids[place..end].rotate_right(1);
            ids[place] = id;
            found = end;
        }
    }
}
