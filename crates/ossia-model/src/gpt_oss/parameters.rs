//! The trainable numbers of a model: one run of f32, a range of it for each tensor.
//!
//! Values, gradients and the optimizer's moments are runs of the same order, so an update is a loop over ranges. The
//! names are those of the Hugging Face layout with a matrix for each expert (SPEC 2.1), in which rows lie as the kernels
//! read them; so a run of values is a checkpoint as it stands.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ossia_kernels::cpu::isa::Isa;
use ossia_kernels::ops::experts::{ExpertGrad, ExpertsGrad};
use ossia_kernels::ops::linear::{Linear, LinearGrad};
use ossia_kernels::ops::stored::Stored;
use ossia_kernels::pool::Pool;
use ossia_kernels::{DType, Floats, Matrix, Runtime};

use super::backward::{AttentionGrad, BlockGrad, Gradients, MlpGrad};
use super::config::Config;
use super::forward::Transformer;
use super::tensors::{Dense, Reading};
use crate::checkpoint::{Checkpoint, Metadata, RawTensor, Result};

/// What a tensor is, for those who treat kinds differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// E [V, D].
    Embedding,
    /// U [V, D].
    Unembedding,
    /// A norm's weights.
    Norm,
    /// A bias, or the sinks.
    Bias,
    /// The router's weights.
    Router,
    /// A matrix of the attention.
    Attention,
    /// A matrix of an expert.
    Expert,
    /// A factor of an adapter.
    Adapter,
}

/// One tensor.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name in a checkpoint.
    pub name: String,
    /// Row-major.
    pub shape: Vec<usize>,
    /// Where its numbers lie.
    pub range: Range<usize>,
    /// What it is.
    pub class: Class,
}

/// All tensors of a model, in order.
#[derive(Clone, Debug)]
pub struct Parameters {
    config: Config,
    tensors: Vec<Parameter>,
}

impl Parameters {
    /// Those of a model of this shape.
    pub fn of(config: &Config) -> Self {
        let mut all = Self { config: config.clone(), tensors: Vec::new() };
        let (d, v) = (config.hidden_size, config.vocab_size);
        all.push("model.embed_tokens.weight".into(), &[v, d], Class::Embedding);
        (0..config.num_layers).for_each(|layer| all.push_layer(&format!("model.layers.{layer}.")));
        all.push("model.norm.weight".into(), &[d], Class::Norm);
        all.push("lm_head.weight".into(), &[v, d], Class::Unembedding);
        all
    }

    fn push(&mut self, name: String, shape: &[usize], class: Class) {
        let start = self.len();
        let range = start..start + shape.iter().product::<usize>();
        self.tensors.push(Parameter { name, shape: shape.into(), range, class });
    }

    fn push_layer(&mut self, prefix: &str) {
        let c = &self.config;
        let (d, i, experts) = (c.hidden_size, c.intermediate_size, c.num_experts);
        let (q, kv, heads) = (c.query_size(), c.kv_size(), c.num_heads);
        let mut push = |name: String, shape: &[usize], class| self.push(format!("{prefix}{name}"), shape, class);
        push("input_layernorm.weight".into(), &[d], Class::Norm);
        for (name, rows) in [("q", q), ("k", kv), ("v", kv)] {
            push(format!("self_attn.{name}_proj.weight"), &[rows, d], Class::Attention);
        }
        for (name, rows) in [("q", q), ("k", kv), ("v", kv)] {
            push(format!("self_attn.{name}_proj.bias"), &[rows], Class::Bias);
        }
        push("self_attn.sinks".into(), &[heads], Class::Bias);
        push("self_attn.o_proj.weight".into(), &[d, q], Class::Attention);
        push("self_attn.o_proj.bias".into(), &[d], Class::Bias);
        push("post_attention_layernorm.weight".into(), &[d], Class::Norm);
        push("mlp.router.weight".into(), &[experts, d], Class::Router);
        push("mlp.router.bias".into(), &[experts], Class::Bias);
        for e in 0..experts {
            for (name, rows, cols) in [("gate_up", 2 * i, d), ("down", d, i)] {
                push(format!("mlp.experts.{name}_projs.{e}.weight"), &[rows, cols], Class::Expert);
                push(format!("mlp.experts.{name}_projs.{e}.bias"), &[rows], Class::Bias);
            }
        }
    }

    /// The tensors, in order.
    pub fn tensors(&self) -> &[Parameter] {
        &self.tensors
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.tensors.last().map_or(0, |t| t.range.end)
    }

    /// Whether there are none, which no model is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tensors as a step sees them: on a device what decides is not rounded, nor is what is small.
    pub fn stored(&self) -> Vec<Stored> {
        let exact = |class| matches!(class, Class::Norm | Class::Bias | Class::Router);
        self.tensors.iter().map(|p| Stored { range: p.range.clone(), exact: exact(p.class) }).collect()
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.tensors.iter().find(|t| t.name == name)
    }

    /// A checkpoint over `values`, without a copy.
    pub fn checkpoint(&self, values: &Floats) -> Result<Checkpoint> {
        assert_eq!(values.len(), self.len(), "values of this model");
        let file: Arc<Path> = Path::new("training").into();
        let bytes = values.bytes();
        let tensor = |p: &Parameter| RawTensor {
            name: p.name.clone(),
            dtype: DType::F32,
            shape: p.shape.clone(),
            bytes: bytes.slice(4 * p.range.start..4 * p.range.end).expect("a range of the values"),
            file: file.clone(),
        };
        let metadata = Metadata::Json { value: self.config.to_hf_json(), file: PathBuf::from("training") };
        Checkpoint::from_parts("training".into(), metadata, self.tensors.iter().map(tensor).collect())
    }

    /// A model that reads `values`; an error names the first vector that holds a number that is not finite.
    pub fn transformer(&self, values: &Floats, pool: &Pool) -> Result<Transformer> {
        let checkpoint = self.checkpoint(values)?;
        let reading = &mut Reading { dense: Dense::Kept, pool, isa: Isa::Scalar, progress: &mut |_, _| {} };
        Transformer::read(&checkpoint, &self.config, reading)
    }

    /// The exact values of a model of this shape, whatever form its weights have.
    pub fn read(&self, model: &Transformer) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.len());
        push_matrix(&mut out, &model.embedding);
        for block in &model.blocks {
            let (attention, mlp) = (&block.attention, &block.mlp);
            out.extend_from_slice(&attention.norm.weight);
            push_linear(&mut out, &attention.qkv);
            out.extend_from_slice(&attention.sinks);
            push_linear(&mut out, &attention.out);
            out.extend_from_slice(&mlp.norm.weight);
            push_linear(&mut out, &mlp.router);
            for e in &mlp.experts.experts {
                for row in 0..e.gate.rows() {
                    push_row(&mut out, &e.gate, row);
                    push_row(&mut out, &e.up, row);
                }
                out.extend(e.gate_bias.iter().zip(&e.up_bias).flat_map(|(g, u)| [*g, *u]));
                push_matrix(&mut out, &e.down);
                out.extend_from_slice(&e.down_bias);
            }
        }
        out.extend_from_slice(&model.norm.weight);
        push_linear(&mut out, &model.unembedding);
        assert_eq!(out.len(), self.len(), "a model of this shape");
        out
    }

    /// Tells a device where in the run `values` the vectors lie that `model`, made of it, has copied.
    pub fn name(&self, model: &Transformer, values: &Floats, runtime: &Runtime) {
        let mut vectors: Vec<&[f32]> = Vec::new();
        for block in &model.blocks {
            let (attention, mlp) = (&block.attention, &block.mlp);
            vectors.push(&attention.norm.weight);
            vectors.extend(attention.qkv.parts().iter().filter_map(|part| part.bias.as_deref()));
            vectors.push(&attention.sinks);
            vectors.extend(attention.out.parts().iter().filter_map(|part| part.bias.as_deref()));
            vectors.push(&mlp.norm.weight);
            vectors.extend(mlp.router.parts().iter().filter_map(|part| part.bias.as_deref()));
            // The run has the biases of gates and ups interleaved: they are found under the gates' name.
            vectors.extend(mlp.experts.experts.iter().flat_map(|e| [&e.gate_bias[..], &e.down_bias]));
        }
        vectors.push(&model.norm.weight);
        let places = self.tensors.iter().filter(|p| matches!(p.class, Class::Norm | Class::Bias));
        let places: Vec<&[f32]> = places.map(|p| &values[p.range.clone()]).collect();
        assert_eq!(vectors.len(), places.len(), "a model of this shape");
        runtime.name(&vectors.into_iter().zip(places).collect::<Vec<_>>());
    }

    /// A run of gradients, tensor by tensor.
    pub fn gradients<'a>(&self, run: &'a mut [f32]) -> Gradients<'a> {
        assert_eq!(run.len(), self.len(), "gradients of this model");
        let c = &self.config;
        let (d, i, rows) = (c.hidden_size, c.intermediate_size, c.query_size() + 2 * c.kv_size());
        let mut rest = run;
        let mut take = |len: usize| rest.split_off_mut(..len).expect("as many as counted");
        let embedding = Some(take(c.vocab_size * d));
        let blocks = (0..c.num_layers)
            .map(|_| {
                let norm = Some(take(d));
                let qkv = linear_grad(take(rows * d), take(rows));
                let sinks = Some(take(c.num_heads));
                let out = linear_grad(take(d * c.query_size()), take(d));
                let attention = AttentionGrad { norm, qkv, sinks, out };
                let norm = Some(take(d));
                let router = linear_grad(take(c.num_experts * d), take(c.num_experts));
                let mut expert = || ExpertGrad {
                    gate_up: take(2 * i * d),
                    gate_up_bias: take(2 * i),
                    down: take(d * i),
                    down_bias: take(d),
                };
                let experts = (0..c.num_experts).map(|_| expert()).collect();
                BlockGrad { attention, mlp: MlpGrad { norm, router, experts: ExpertsGrad { experts, adapter: None } } }
            })
            .collect();
        let norm = Some(take(d));
        let unembedding = LinearGrad { weight: Some(take(c.vocab_size * d)), ..LinearGrad::default() };
        Gradients { embedding, blocks, norm, unembedding }
    }
}

fn linear_grad<'a>(weight: &'a mut [f32], bias: &'a mut [f32]) -> LinearGrad<'a> {
    LinearGrad { weight: Some(weight), bias: Some(bias), low_rank: Vec::new() }
}

fn push_row(out: &mut Vec<f32>, m: &Matrix, row: usize) {
    let at = out.len();
    out.resize(at + m.cols(), 0.0);
    m.row_into(row, &mut out[at..]);
}

fn push_matrix(out: &mut Vec<f32>, m: &Matrix) {
    (0..m.rows()).for_each(|row| push_row(out, m, row));
}

/// All weights, then all biases.
fn push_linear(out: &mut Vec<f32>, linear: &Linear) {
    linear.parts().iter().for_each(|part| push_matrix(out, &part.weight));
    linear.parts().iter().filter_map(|part| part.bias.as_ref()).for_each(|bias| out.extend_from_slice(bias));
}
