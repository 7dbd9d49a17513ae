//! The slow truth, one tensor: group by group through the codes of a file.

use super::Form;
use crate::mxfp4::{self, GROUP};
use crate::quantize_mxfp4::quantize_group;

pub fn look(weights: &[f32], form: Form) -> Vec<f32> {
    match form {
        Form::Whole => weights.to_vec(),
        Form::Bf16 => weights.iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect(),
        Form::Mxfp4 => weights.as_chunks::<GROUP>().0.iter().flat_map(group).collect(),
    }
}

fn group(values: &[f32; GROUP]) -> [f32; GROUP] {
    let (scale, codes) = quantize_group(values);
    // A file's zeros have no sign.
    codes.map(|code| mxfp4::value(code, scale) + 0.0)
}
