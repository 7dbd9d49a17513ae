//! The first weights: a pure function of the seed and each tensor's name.

use ossia_model::gpt_oss::parameters::{Class, Parameters};
use sha2::{Digest, Sha256};

use crate::recipe::Init;

/// Normal numbers for matrices, ones for norms, zeros for biases and sinks. Matrices that write to the residual stream
/// are smaller by sqrt(2 layers), so that its size does not grow with depth.
pub fn weights(parameters: &Parameters, init: &Init, seed: u64) -> Vec<f32> {
    let mut values = vec![0.0; parameters.len()];
    let depth = (2.0 * parameters.config().num_layers as f32).sqrt();
    for p in parameters.tensors() {
        let std = match p.class {
            Class::Norm => {
                values[p.range.clone()].fill(1.0);
                continue;
            }
            // A new model has no adapters.
            Class::Bias | Class::Adapter => continue,
            Class::Embedding => init.embedding_std,
            Class::Attention | Class::Expert if p.name.contains("o_proj") || p.name.contains("down") => {
                init.std / depth
            }
            Class::Attention | Class::Expert | Class::Router | Class::Unembedding => init.std,
        };
        let mut normal = Normal::new(seed, &p.name);
        values[p.range.clone()].iter_mut().for_each(|v| *v = std * normal.next());
    }
    values
}

/// Normal numbers by Box and Muller's method.
struct Normal {
    state: u64,
    spare: Option<f64>,
}

impl Normal {
    fn new(seed: u64, name: &str) -> Self {
        let hash = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name).finalize();
        let mut state = [0; 8];
        state.copy_from_slice(&hash[..8]);
        Self { state: u64::from_le_bytes(state), spare: None }
    }

    /// Uniform above 0, at most 1 (splitmix64).
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (((z ^ (z >> 31)) >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    fn next(&mut self) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare as f32;
        }
        let (radius, angle) = ((-2.0 * self.uniform().ln()).sqrt(), std::f64::consts::TAU * self.uniform());
        self.spare = Some(radius * angle.sin());
        (radius * angle.cos()) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_normal_and_depend_on_seed_and_name() {
        let draw = |seed, name| {
            let mut normal = Normal::new(seed, name);
            (0..20_000).map(|_| f64::from(normal.next())).collect::<Vec<f64>>()
        };
        let values = draw(1, "a");
        let mean = values.iter().sum::<f64>() / 2e4;
        let square = values.iter().map(|v| v * v).sum::<f64>() / 2e4;
        assert!(mean.abs() < 0.03 && (square - 1.0).abs() < 0.05, "{mean} {square}");
        assert_eq!(values, draw(1, "a"));
        assert_ne!(values, draw(2, "a"));
        assert_ne!(values, draw(1, "b"));
    }
}
