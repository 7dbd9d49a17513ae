//! From a checkpoint's names to the weights of [`Transformer`], in every layout (SPEC 2).
//!
//! Formats are told by dtype and rank, never by name: some writers store dequantized experts under the names of packed
//! ones. Bytes are used in place, except where they cannot serve: dequantized safetensors experts lie transposed, and
//! in fast precision dense float weights become Q8_0.

mod experts;
pub(super) mod names;

use std::cell::RefCell;
use std::collections::HashSet;

use ossia_kernels::cpu::isa::Isa;
use ossia_kernels::ops::attention::Shape;
use ossia_kernels::ops::linear::{Linear, Part};
use ossia_kernels::ops::low_rank::Slots;
use ossia_kernels::ops::rms_norm::Norm;
use ossia_kernels::ops::rope::{Heads, Rope};
use ossia_kernels::pool::Pool;
use ossia_kernels::quantize_weights::to_q8;
use ossia_kernels::{DType, Matrix};

use super::config::{Config, LayerKind};
use super::forward::{AttentionBlock, Block, MlpBlock, Transformer};
use crate::checkpoint::{Checkpoint, Error, Layout, RawTensor, Result};
use crate::stop::Stop;
pub(super) use experts::transpose;
use names::Names;

/// What dense float weights become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dense {
    /// Q8_0, quantized at load.
    Q8,
    /// They stay as they are.
    Kept,
}

/// Bytes of float weights below which converting them gains no speed: they fit into the caches.
pub const SMALL: usize = 64 << 20;

impl Dense {
    /// What fast precision does where the user has not said: convert what is large enough to be worth it.
    pub fn for_fast(checkpoint: &Checkpoint) -> Self {
        let floats = checkpoint.tensors().filter(|t| matches!(t.dtype, DType::F32 | DType::F16 | DType::BF16));
        if floats.map(|t| t.bytes.len()).sum::<usize>() < SMALL { Dense::Kept } else { Dense::Q8 }
    }
}

/// How to read the weights, and with what.
pub struct Reading<'a> {
    /// Dense float weights.
    pub dense: Dense,
    /// Threads for conversions and checks.
    pub pool: &'a Pool,
    /// Kernel version for conversions.
    pub isa: Isa,
    /// Told (blocks done, blocks in all).
    pub progress: &'a mut dyn FnMut(usize, usize),
}

impl Transformer {
    /// All weights of `checkpoint`; an error names the first tensor that is missing, superfluous or wrong.
    pub fn read(checkpoint: &Checkpoint, config: &Config, reading: &mut Reading) -> Result<Self> {
        let names = Names::of(checkpoint);
        let Reading { dense, pool, isa, .. } = *reading;
        let reader = Reader { checkpoint, config, names, dense, pool, isa, used: RefCell::default() };
        let mut blocks = Vec::with_capacity(config.num_layers);
        for layer in 0..config.num_layers {
            (reading.progress)(layer, config.num_layers);
            blocks.push(Block { attention: reader.attention(layer)?, mlp: reader.mlp(layer)? });
        }
        let (v, d) = (config.vocab_size, config.hidden_size);
        let embedding = reader.matrix(reader.get(names.embedding, "the embedding table")?, v, d)?;
        let unembedding = reader.get(names.unembedding, "the unembedding matrix")?;
        let unembedding = reader.converted(reader.matrix(unembedding, v, d)?)?;
        let norm = reader.norm(names.norm)?;
        (reading.progress)(config.num_layers, config.num_layers);
        checkpoint.check_unused(&reader.used.borrow())?;
        let rope = &config.rope;
        Ok(Self {
            embedding,
            blocks,
            norm,
            unembedding: Linear::new(vec![Part { weight: unembedding, bias: None }]),
            rope: Rope::new(rope.theta, rope.factor, rope.ramp(config.head_dim), config.head_dim),
            adapters: Slots::default(),
            stop: Stop::default(),
        })
    }
}

/// Reads tensors and remembers which.
struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a Config,
    names: Names,
    dense: Dense,
    pool: &'a Pool,
    isa: Isa,
    used: RefCell<HashSet<&'a str>>,
}

impl<'a> Reader<'a> {
    fn find(&self, name: &str) -> Option<&'a RawTensor> {
        let tensor = self.checkpoint.get(name)?;
        self.used.borrow_mut().insert(&tensor.name);
        Some(tensor)
    }

    fn get(&self, name: &str, what: &str) -> Result<&'a RawTensor> {
        self.find(name).ok_or_else(|| Error::missing_tensor(self.checkpoint.source(), name, what))
    }

    /// A vector [len] of floats.
    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let tensor = self.get(name, &format!("a vector of {len} numbers"))?;
        expect_shape(tensor, &[len])?;
        floats(tensor)
    }

    /// A matrix [rows, cols] in place.
    fn matrix(&self, tensor: &RawTensor, rows: usize, cols: usize) -> Result<Matrix> {
        expect_shape(tensor, &[rows, cols])?;
        self.matrix_of(tensor, rows, cols)
    }

    /// The same for a tensor whose shape was checked already.
    fn matrix_of(&self, tensor: &RawTensor, rows: usize, cols: usize) -> Result<Matrix> {
        if matches!(tensor.dtype, DType::U8 | DType::I32) {
            return Err(Error::wrong_dtype(tensor, "F32, F16, BF16, Q8_0 or MXFP4"));
        }
        if tensor.dtype == DType::Mxfp4 {
            self.check_scales(tensor, 17)?;
        }
        Matrix::new(tensor.dtype, rows, cols, tensor.bytes.clone()).map_err(|e| broken(tensor, &e))
    }

    /// Refuses a scale that the standard calls not-a-number; scales lie `stride` bytes apart.
    fn check_scales(&self, tensor: &RawTensor, stride: usize) -> Result<()> {
        let bad = std::sync::Mutex::new(None::<usize>);
        self.pool.run_ranges(tensor.bytes.len() / stride, 1 << 20, |range, _| {
            let run = &tensor.bytes[range.start * stride..range.end * stride];
            if let Some(at) = find_nan_scale(run, stride) {
                let mut bad = bad.lock().unwrap_or_else(|e| e.into_inner());
                *bad = Some(bad.map_or(range.start + at, |old| old.min(range.start + at)));
            }
        });
        let bad = bad.into_inner().unwrap_or_else(|e| e.into_inner());
        bad.map_or(Ok(()), |index| Err(Error::nan_scale(tensor, index)))
    }

    /// Q8_0 where dense float weights are to become that.
    fn converted(&self, matrix: Matrix) -> Result<Matrix> {
        if self.dense == Dense::Kept || matrix.kind().is_quantized() {
            return Ok(matrix);
        }
        to_q8(self.pool, self.isa, &matrix)
            .map_err(|e| Error::tensor(self.checkpoint.source().as_ref(), "dense weights", "Q8_0", e.to_string()))
    }

    /// A weight with its bias; `weight` and `bias` are full names.
    fn part(&self, weight: &str, bias: &str, rows: usize, cols: usize) -> Result<Part> {
        let matrix = self.matrix(self.get(weight, &format!("a matrix [{rows}, {cols}]"))?, rows, cols)?;
        Ok(Part { weight: self.converted(matrix)?, bias: Some(self.vector(bias, rows)?) })
    }

    fn norm(&self, name: &str) -> Result<Norm> {
        Ok(Norm { weight: self.vector(name, self.config.hidden_size)?, eps: self.config.rms_norm_eps })
    }

    fn attention(&self, layer: usize) -> Result<AttentionBlock> {
        let c = self.config;
        let (d, q, kv) = (c.hidden_size, c.query_size(), c.kv_size());
        let name = |suffix: &str| self.names.in_block(layer, suffix);
        let linear = |stem: &str, rows, cols| {
            self.part(&name(&format!("{stem}.weight")), &name(&format!("{stem}.bias")), rows, cols)
        };
        let fused = name(&format!("{}.weight", self.names.qkv));
        let has = |name: &str| self.checkpoint.get(name).is_some();
        let [q_name, k_name, v_name] = self.names.q_k_v;
        // Where neither form is there, the layout's own is what is missing.
        let neither = !has(&fused) && !has(&name(&format!("{q_name}.weight")));
        let parts = if has(&fused) || neither && self.checkpoint.layout() == Layout::Original {
            vec![linear(self.names.qkv, q + 2 * kv, d)?]
        } else {
            vec![linear(q_name, q, d)?, linear(k_name, kv, d)?, linear(v_name, kv, d)?]
        };
        let sliding = c.layer_types[layer] == LayerKind::Sliding;
        Ok(AttentionBlock {
            norm: self.norm(&name(self.names.attention_norm))?,
            qkv: self.stacked(parts, layer)?,
            sinks: self.vector(&name(self.names.sinks), c.num_heads)?,
            out: Linear::new(vec![linear(self.names.out, d, q)?]),
            shape: Shape { heads: heads(c), window: sliding.then_some(c.sliding_window), layer },
        })
    }

    /// q, k and v must be of one format to share their prepared input.
    fn stacked(&self, parts: Vec<Part>, layer: usize) -> Result<Linear> {
        let kind = parts[0].weight.kind();
        let Some(other) = parts.iter().position(|p| p.weight.kind() != kind) else { return Ok(Linear::new(parts)) };
        let name = self.names.in_block(layer, &format!("{}.weight", self.names.q_k_v[other]));
        let tensor = self.get(&name, "a matrix")?;
        let found = format!("{kind:?} and {:?}", parts[other].weight.kind());
        Err(Error::tensor(&tensor.file, &tensor.name, "q, k and v in one format", found))
    }

    /// A router's weights [E, D]. One that is not finite would only keep its expert from ever being chosen, which no
    /// later check can see.
    fn router(&self, tensor: &RawTensor) -> Result<Matrix> {
        let (rows, cols) = (self.config.num_experts, self.config.hidden_size);
        let matrix = self.matrix(tensor, rows, cols)?;
        let mut values = vec![0.0; cols];
        for row in 0..rows {
            matrix.row_into(row, &mut values);
            if let Some(col) = values.iter().position(|v| !v.is_finite()) {
                return Err(not_finite(tensor, row * cols + col));
            }
        }
        Ok(matrix)
    }

    fn mlp(&self, layer: usize) -> Result<MlpBlock> {
        let c = self.config;
        let name = |suffix: &str| self.names.in_block(layer, suffix);
        let stems = self.names.routers.iter().map(|stem| name(stem));
        let stem = stems.clone().find(|s| self.checkpoint.get(&format!("{s}.weight")).is_some());
        let stem = stem.unwrap_or_else(|| name(self.names.routers[0]));
        let (weight, bias) = (format!("{stem}.weight"), format!("{stem}.bias"));
        // The router decides: its weights always keep their values.
        let router = self.get(&weight, &format!("a matrix [{}, {}]", c.num_experts, c.hidden_size))?;
        let router = self.router(router)?;
        let router = Part { weight: router, bias: Some(self.vector(&bias, c.num_experts)?) };
        Ok(MlpBlock {
            norm: self.norm(&name(self.names.mlp_norm))?,
            router: Linear::new(vec![router]),
            experts_per_token: c.experts_per_token,
            experts: self.experts(layer)?,
        })
    }
}

/// The numbers of a small tensor, all of which must be finite.
pub(super) fn floats(tensor: &RawTensor) -> Result<Vec<f32>> {
    let two = |f: fn([u8; 2]) -> f32| tensor.bytes.as_chunks().0.iter().map(|&b| f(b)).collect();
    let values: Vec<f32> = match tensor.dtype {
        DType::F32 => tensor.bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        DType::F16 => two(|b| half::f16::from_le_bytes(b).to_f32()),
        DType::BF16 => two(|b| half::bf16::from_le_bytes(b).to_f32()),
        _ => return Err(Error::wrong_dtype(tensor, "F32, F16 or BF16")),
    };
    let bad = values.iter().position(|v| !v.is_finite());
    bad.map_or(Ok(values), |at| Err(not_finite(tensor, at)))
}

/// The heads of every layer.
pub fn heads(config: &Config) -> Heads {
    Heads { query: config.num_heads, kv: config.num_kv_heads, dim: config.head_dim }
}

fn not_finite(tensor: &RawTensor, at: usize) -> Error {
    Error::tensor(&tensor.file, &tensor.name, "finite numbers", format!("one that is not, element {at}"))
}

fn expect_shape(tensor: &RawTensor, wanted: &[usize]) -> Result<()> {
    if tensor.shape == wanted { Ok(()) } else { Err(Error::wrong_shape(tensor, wanted)) }
}

fn broken(tensor: &RawTensor, error: &ossia_kernels::Error) -> Error {
    Error::tensor(&tensor.file, &tensor.name, "a readable matrix", error.to_string())
}

/// The first block whose scale byte is 255; the scale is a block's first byte.
fn find_nan_scale(bytes: &[u8], stride: usize) -> Option<usize> {
    if stride == 1 {
        return bytes.contains(&255).then(|| bytes.iter().position(|&b| b == 255)).flatten();
    }
    bytes.chunks_exact(stride).position(|block| block[0] == 255)
}
