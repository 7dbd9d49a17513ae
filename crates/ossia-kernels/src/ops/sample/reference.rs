//! The slow truth: the steps as `mod.rs` lists them, in f64, over a full sort.

use super::Params;

/// What a sampler knows besides the logits.
#[derive(Default)]
pub struct Past<'a> {
    pub prompt: &'a [u32],
    pub output: &'a [u32],
    pub forbidden: &'a [u32],
    /// The ids that a mask leaves; nothing: all of them.
    pub allowed: Option<&'a [u32]>,
}

/// Steps 1 to 4.
pub fn adjusted(params: &Params, past: &Past, logits: &[f32]) -> Vec<f64> {
    let mut row: Vec<f64> = logits.iter().map(|&l| f64::from(l)).collect();
    for (id, l) in (0..).zip(&mut row) {
        let count = past.output.iter().filter(|&&o| o == id).count();
        if count > 0 || past.prompt.contains(&id) {
            let penalty = f64::from(params.repetition_penalty);
            *l = if *l > 0.0 { *l / penalty } else { *l * penalty };
        }
        if count > 0 {
            *l -= f64::from(params.presence_penalty) + f64::from(params.frequency_penalty) * count as f64;
        }
        *l += params.logit_bias.iter().filter(|b| b.0 == id).map(|b| f64::from(b.1)).sum::<f64>();
        if past.forbidden.contains(&id) {
            *l = f64::NEG_INFINITY;
        }
    }
    row
}

/// Softmax of `row` / `temperature`: ids and probabilities, best first.
pub fn softmax(row: &[f64], temperature: f64) -> Vec<(u32, f64)> {
    let mut all: Vec<(u32, f64)> = (0..).zip(row.iter().copied()).collect();
    all.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then(a.0.cmp(&b.0)));
    let best = all[0].1;
    all.iter_mut().for_each(|(_, l)| *l = ((*l - best) / temperature).exp());
    normalize(&mut all);
    all
}

fn normalize(all: &mut [(u32, f64)]) {
    let sum: f64 = all.iter().map(|x| x.1).sum();
    all.iter_mut().for_each(|x| x.1 /= sum);
}

/// The probability of each id in steps 6 to 9 (temperature above 0).
pub fn distribution(params: &Params, past: &Past, logits: &[f32]) -> Vec<f64> {
    let mut row = adjusted(params, past, logits);
    let masked = |id: u32| past.allowed.is_some_and(|allowed| !allowed.contains(&id));
    (0..).zip(&mut row).filter(|(id, _)| masked(*id)).for_each(|(_, l)| *l = f64::NEG_INFINITY);
    let mut all = softmax(&row, f64::from(params.temperature));
    if params.top_k > 0 {
        all.truncate(params.top_k);
    }
    let least = f64::from(params.min_p) * all[0].1;
    all.retain(|x| x.1 >= least);
    normalize(&mut all);
    let mut sum = 0.0;
    let reached = |x: &(u32, f64)| {
        sum += x.1;
        sum >= f64::from(params.top_p)
    };
    if params.top_p < 1.0 {
        let end = all.iter().position(reached).unwrap_or(all.len() - 1);
        all.truncate(end + 1);
    }
    normalize(&mut all);
    let mut probabilities = vec![0.0; logits.len()];
    all.iter().for_each(|&(id, p)| probabilities[id as usize] = p);
    probabilities
}
