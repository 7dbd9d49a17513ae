//! Holds the versions of `stored` together.

use super::*;
use crate::testing::{Numbers, runtimes, same_bits};

#[test]
fn equals_the_reference() {
    let weights = Numbers(98).vec(64 + 7 + 32);
    let tensors = [0..64, 64..71, 71..103].map(|range| Stored { range, exact: false });
    let forms = [Form::Mxfp4, Form::Bf16, Form::Whole];
    let want: Vec<f32> =
        tensors.iter().zip(forms).flat_map(|(t, form)| reference::look(&weights[t.range.clone()], form)).collect();
    for runtime in runtimes() {
        let mut seen = vec![f32::NAN; weights.len()];
        look(&runtime, &weights, &mut seen, &tensors, &|which| forms[which]).unwrap();
        same_bits(&seen, &want, "seen");
    }
}
