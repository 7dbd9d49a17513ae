//! A task is some thousands of elements.

use super::Settings;
use crate::Runtime;
use crate::cpu::disjoint::Disjoint;
use crate::cpu::lanes::{fma, versions};

/// Elements of a task.
const GRAIN: usize = 1 << 14;

pub fn update(runtime: &Runtime, p: &mut [f32], g: &[f32], (m, v): (&mut [f32], &mut [f32]), settings: &Settings) {
    let n = p.len();
    let (p, m, v) = (Disjoint::new(p), Disjoint::new(m), Disjoint::new(v));
    runtime.pool.run_ranges(n, GRAIN, |range, _| {
        // SAFETY: ranges of one run do not overlap.
        let (p, m, v) = unsafe { (p.part(range.clone()), m.part(range.clone()), v.part(range.clone())) };
        elements(runtime.isa, p, &g[range], m, v, settings);
    });
}

versions! {
    fn elements(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], settings: &Settings) = elements_body
}

#[inline(always)]
fn elements_body<const FMA: bool>(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], s: &Settings) {
    let n = p.len();
    let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
    let (c1, c2) = s.corrections();
    let (b1, b2) = s.betas;
    for i in 0..n {
        let g = g[i] * s.scale;
        m[i] = fma::<FMA>(b1, m[i], (1.0 - b1) * g);
        v[i] = fma::<FMA>(b2, v[i], (1.0 - b2) * g * g);
        let by = m[i] * c1 / ((v[i] * c2).sqrt() + s.eps);
        p[i] -= s.lr * fma::<FMA>(s.decay, p[i], by);
    }
}
