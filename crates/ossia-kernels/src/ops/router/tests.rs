//! Holds the versions of `router` together over ragged shapes.

use super::*;
use crate::testing::Numbers;

fn choose(logits: &[f32], experts: usize, k: usize) -> Routes {
    let arena = Arena::new(1 << 16);
    let n = logits.len() / experts * k;
    let mut routes = Routes { per_token: k, experts: arena.take(n).unwrap(), weights: arena.take(n).unwrap() };
    cpu::choose(logits, experts, &mut routes);
    routes
}

#[test]
fn equals_the_reference() {
    let mut numbers = Numbers(13);
    for (experts, k) in [(1, 1), (4, 2), (8, 8), (32, 4), (128, 4)] {
        // Rounded logits tie often.
        let logits: Vec<f32> = numbers.vec(50 * experts).iter().map(|v| (v * 8.0).round()).collect();
        let routes = choose(&logits, experts, k);
        for (t, logits) in logits.chunks_exact(experts).enumerate() {
            for (i, (id, weight)) in reference::choose(logits, k).into_iter().enumerate() {
                assert_eq!(routes.experts[t * k + i], id);
                assert!((f64::from(routes.weights[t * k + i]) - weight).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn broken_logits_give_valid_ids() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let routes = choose(&[bad, 1.0, bad, bad], 4, 3);
        let mut ids = routes.experts.to_vec();
        ids.sort_unstable();
        ids.dedup();
        assert!(ids.len() == 3 && ids.iter().all(|&id| id < 4), "{bad}: {ids:?}");
    }
}
