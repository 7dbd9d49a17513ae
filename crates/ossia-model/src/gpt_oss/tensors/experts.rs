//! The experts' tensors, which come in five forms (SPEC 2.1 to 2.3):
//!
//! * safetensors, packed: U8 blocks [E, N, K/32, 16] and scales [E, N, K/32], gate and up rows interleaved;
//! * safetensors, dequantized: floats [E, K, N], transposed, sometimes under the packed name;
//! * safetensors, a matrix [N, K] for each expert, as some fine-tunes write them;
//! * GGUF: gate, up and down apart, [E, N, K] in any format.

use ossia_kernels::ops::experts::{Expert, Experts};
use ossia_kernels::{Bytes, DType, Matrix};

use super::{Reader, broken, expect_shape, floats};
use crate::checkpoint::{Error, Layout, RawTensor, Result};

/// One of the two matrices of a safetensors expert.
struct Stem {
    /// Names of the blocks or floats, of which one is there.
    weights: [String; 2],
    scales: String,
    bias: String,
    /// Names of one expert's matrix and bias: before and after its id.
    single: [String; 2],
    /// N, K.
    shape: [usize; 2],
}

impl Reader<'_> {
    pub(super) fn experts(&self, layer: usize) -> Result<Experts> {
        let experts = match self.checkpoint.layout() {
            Layout::Gguf => self.gguf_experts(layer)?,
            Layout::HuggingFace | Layout::Original => self.safetensors_experts(layer)?,
        };
        Ok(Experts::new(experts, self.config.swiglu_limit, self.config.swiglu_alpha))
    }

    fn gguf_experts(&self, layer: usize) -> Result<Vec<Expert>> {
        let (d, i) = (self.config.hidden_size, self.config.intermediate_size);
        let load = |which: &str, rows, cols| {
            let name = |end: &str| self.names.in_block(layer, &format!("ffn_{which}_exps.{end}"));
            let tensor = self.get(&name("weight"), "the experts' weights")?;
            expect_shape(tensor, &[self.config.num_experts, rows, cols])?;
            let bias = self.get(&name("bias"), "the experts' biases")?;
            Ok((self.split(&self.converted(self.all_rows(tensor, rows, cols)?)?), self.biases(bias, rows)?))
        };
        let (gates, gate_biases) = load("gate", i, d)?;
        let (ups, up_biases) = load("up", i, d)?;
        let (downs, down_biases) = load("down", d, i)?;
        let weights = gates.into_iter().zip(ups).zip(downs);
        let biases = gate_biases.into_iter().zip(up_biases).zip(down_biases);
        let experts: Vec<Expert> = weights
            .zip(biases)
            .map(|(((gate, up), down), ((gate_bias, up_bias), down_bias))| Expert {
                gate,
                up,
                down,
                gate_bias,
                up_bias,
                down_bias,
            })
            .collect();
        self.check_kinds(&experts, &self.names.in_block(layer, "ffn_up_exps.weight"))?;
        Ok(experts)
    }

    /// Gate and up share their prepared input, so they must be of one format.
    fn check_kinds(&self, experts: &[Expert], name: &str) -> Result<()> {
        let Some(e) = experts.iter().find(|e| e.gate.kind() != e.up.kind()) else { return Ok(()) };
        let found = format!("{:?} and {:?}", e.gate.kind(), e.up.kind());
        Err(Error::tensor(self.checkpoint.source().as_ref(), name, "gate and up in one format", &found))
    }

    fn safetensors_experts(&self, layer: usize) -> Result<Vec<Expert>> {
        let (d, i) = (self.config.hidden_size, self.config.intermediate_size);
        let (both, both_biases) = self.stem(&self.stem_names(layer, 0, [2 * i, d]))?;
        let (downs, down_biases) = self.stem(&self.stem_names(layer, 1, [d, i]))?;
        let every_other = |v: &[f32], first: usize| v.iter().skip(first).step_by(2).copied().collect::<Vec<f32>>();
        let parts = both.into_iter().zip(both_biases).zip(downs.into_iter().zip(down_biases));
        let expert = |((both, bias), (down, down_bias)): ((Matrix, Vec<f32>), (Matrix, Vec<f32>))| Expert {
            gate: both.every_other(0),
            up: both.every_other(1),
            down,
            gate_bias: every_other(&bias, 0),
            up_bias: every_other(&bias, 1),
            down_bias,
        };
        Ok(parts.map(expert).collect())
    }

    /// Names of gate and up (0) or down (1).
    fn stem_names(&self, layer: usize, which: usize, shape: [usize; 2]) -> Stem {
        let name = |suffix: &str| self.names.in_block(layer, suffix);
        if self.checkpoint.layout() == Layout::Original {
            let stem = ["mlp.mlp1", "mlp.mlp2"][which];
            let weight = |end: &str| name(&format!("{stem}_weight{end}"));
            return Stem {
                weights: [weight(".blocks"), weight("")],
                scales: weight(".scales"),
                bias: name(&format!("{stem}_bias")),
                single: [weight("."), String::new()],
                shape,
            };
        }
        let stem = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"][which];
        let end = |end: &str| name(&format!("{stem}{end}"));
        Stem {
            weights: [end("_blocks"), end("")],
            scales: end("_scales"),
            bias: end("_bias"),
            single: [end("s."), ".weight".into()],
            shape,
        }
    }

    /// The matrices and biases of all experts.
    fn stem(&self, stem: &Stem) -> Result<(Vec<Matrix>, Vec<Vec<f32>>)> {
        let [rows, cols] = stem.shape;
        let [before, after] = &stem.single;
        if self.checkpoint.get(&format!("{before}0{after}")).is_some() {
            return self.singles(stem);
        }
        let weights = stem.weights.iter().find_map(|name| self.find(name));
        let Some(weights) = weights else {
            return Err(Error::missing_tensor(self.checkpoint.source(), &stem.weights[0], "the experts' weights"));
        };
        let biases = self.biases(self.get(&stem.bias, "the experts' biases")?, rows)?;
        let matrices = if weights.dtype == DType::U8 && weights.shape.len() == 4 {
            self.packed(weights, self.get(&stem.scales, "the scales of the packed experts")?, rows, cols)?
        } else {
            self.transposed(weights, rows, cols)?
        };
        Ok((matrices, biases))
    }

    fn packed(&self, blocks: &RawTensor, scales: &RawTensor, rows: usize, cols: usize) -> Result<Vec<Matrix>> {
        let e = self.config.num_experts;
        expect_shape(blocks, &[e, rows, cols / 32, 16])?;
        expect_shape(scales, &[e, rows, cols / 32])?;
        if scales.dtype != DType::U8 {
            return Err(Error::wrong_dtype(scales, "U8"));
        }
        self.check_scales(scales, 1)?;
        let all = Matrix::mxfp4(e * rows, cols, blocks.bytes.clone(), scales.bytes.clone());
        Ok(self.split(&all.map_err(|error| broken(blocks, &error))?))
    }

    /// Floats [E, K, N] to matrices [N, K]: a copy, since rows must be read along K.
    fn transposed(&self, tensor: &RawTensor, rows: usize, cols: usize) -> Result<Vec<Matrix>> {
        let e = self.config.num_experts;
        let size = match tensor.dtype {
            DType::F32 if tensor.shape == [e, cols, rows] => 4,
            DType::F16 | DType::BF16 if tensor.shape == [e, cols, rows] => 2,
            _ => {
                let wanted = format!("U8 blocks {:?} or floats {:?}", [e, rows, cols / 32, 16], [e, cols, rows]);
                return Err(Error::wrong_dtype(tensor, &wanted));
            }
        };
        let one = |source: &[u8]| {
            let bytes = Bytes::new(transpose(source, cols, rows, size));
            self.converted(Matrix::new(tensor.dtype, rows, cols, bytes).map_err(|error| broken(tensor, &error))?)
        };
        tensor.bytes.chunks_exact(rows * cols * size).map(one).collect()
    }

    fn singles(&self, stem: &Stem) -> Result<(Vec<Matrix>, Vec<Vec<f32>>)> {
        let [rows, cols] = stem.shape;
        let [before, after] = &stem.single;
        let one = |e: usize| {
            let weight = self.get(&format!("{before}{e}{after}"), "an expert's weights")?;
            let bias = self.vector(&format!("{before}{e}.bias"), rows)?;
            Ok((self.converted(self.matrix(weight, rows, cols)?)?, bias))
        };
        (0..self.config.num_experts).map(one).collect()
    }

    /// Biases [E, N], one vector for each expert.
    fn biases(&self, tensor: &RawTensor, rows: usize) -> Result<Vec<Vec<f32>>> {
        expect_shape(tensor, &[self.config.num_experts, rows])?;
        Ok(floats(tensor)?.chunks_exact(rows).map(<[f32]>::to_vec).collect())
    }

    /// [E, N, K] as one tall matrix.
    fn all_rows(&self, tensor: &RawTensor, rows: usize, cols: usize) -> Result<Matrix> {
        self.matrix_of(tensor, self.config.num_experts * rows, cols)
    }

    /// A tall matrix cut into the experts' own.
    fn split(&self, all: &Matrix) -> Vec<Matrix> {
        let rows = all.rows() / self.config.num_experts;
        (0..self.config.num_experts).map(|e| all.rows_of(e * rows..(e + 1) * rows)).collect()
    }
}

/// [from_rows, from_cols] to [from_cols, from_rows], elements of `size` bytes, in squares that fit the cache.
pub(in crate::gpt_oss) fn transpose(source: &[u8], from_rows: usize, from_cols: usize, size: usize) -> Vec<u8> {
    const SQUARE: usize = 32;
    let mut out = vec![0; source.len()];
    for first_row in (0..from_rows).step_by(SQUARE) {
        for first_col in (0..from_cols).step_by(SQUARE) {
            for col in first_col..(first_col + SQUARE).min(from_cols) {
                for row in first_row..(first_row + SQUARE).min(from_rows) {
                    let (from, to) = ((row * from_cols + col) * size, (col * from_rows + row) * size);
                    out[to..to + size].copy_from_slice(&source[from..from + size]);
                }
            }
        }
    }
    out
}
