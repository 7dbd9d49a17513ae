//! The numbers of an adapter: one run of f32, a range of it for each factor, as `parameters.rs` has them for a model.

use std::ops::Range;

use ossia_kernels::ops::experts::{ExpertsAdapter, ExpertsAdapterGrad, ExpertsGrad, Pair};
use ossia_kernels::ops::linear::LinearGrad;
use ossia_kernels::ops::low_rank::{LowRank, LowRankGrad};
use ossia_kernels::{FloatPart, Floats};

use super::{AdapterConfig, ExpertSharing, Target, attention};
use crate::gpt_oss::backward::{AttentionGrad, BlockGrad, Gradients, MlpGrad};
use crate::gpt_oss::config::Config;
use crate::gpt_oss::forward::{Block, Transformer};
use crate::gpt_oss::parameters::{Class, Parameter};
use crate::gpt_oss::synth::rng::{Rng, key};

/// All factors of an adapter, in order.
#[derive(Clone, Debug)]
pub struct AdapterParameters {
    model: Config,
    config: AdapterConfig,
    tensors: Vec<Parameter>,
}

/// The names of gate and up together, and of down.
pub(super) const EXPERTS: [&str; 2] = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"];

impl AdapterParameters {
    /// Those of `config` on a model of the shape `model`.
    ///
    /// # Panics
    /// Where [`AdapterConfig::fault`] finds one.
    pub fn of(model: &Config, config: &AdapterConfig) -> Self {
        assert_eq!(config.fault(), None, "checked by whoever read it");
        let mut all = Self { model: model.clone(), config: config.clone(), tensors: Vec::new() };
        (0..model.num_layers).for_each(|layer| all.push_layer(layer));
        if config.targets.unembedding {
            let target = Target { name: "lm_head", inputs: model.hidden_size, outputs: model.vocab_size };
            all.push_linear("", &target);
        }
        all
    }

    fn push(&mut self, name: String, shape: Vec<usize>) {
        let start = self.len();
        let range = start..start + shape.iter().product::<usize>();
        self.tensors.push(Parameter { name, shape, range, class: Class::Adapter });
    }

    /// A [r, inputs], then B [outputs, r].
    fn push_linear(&mut self, prefix: &str, target: &Target) {
        let (r, name) = (self.config.rank, target.name);
        self.push(format!("{prefix}{name}.lora_A.weight"), vec![r, target.inputs]);
        self.push(format!("{prefix}{name}.lora_B.weight"), vec![target.outputs, r]);
    }

    fn push_layer(&mut self, layer: usize) {
        let prefix = format!("model.layers.{layer}.");
        let (d, i, e) = (self.model.hidden_size, self.model.intermediate_size, self.model.num_experts);
        if self.config.targets.attention {
            attention(&self.model).iter().for_each(|target| self.push_linear(&prefix, target));
        }
        if self.config.targets.router {
            self.push_linear(&prefix, &Target { name: "mlp.router", inputs: d, outputs: e });
        }
        let Some(sharing) = self.config.targets.experts else { return };
        let r = self.config.rank;
        let outer = |shape: [usize; 2]| match sharing {
            ExpertSharing::SharedOuter => shape.to_vec(),
            ExpertSharing::Each => vec![e, shape[0], shape[1]],
        };
        let [both, down] = EXPERTS;
        let mut push = |name: &str, shape| self.push(format!("{prefix}{name}.weight"), shape);
        push(&format!("{both}.lora_A"), outer([r, d]));
        push(&format!("{both}.lora_B"), vec![e, 2 * i, r]);
        push(&format!("{down}.lora_A"), vec![e, r, i]);
        push(&format!("{down}.lora_B"), outer([d, r]));
    }

    /// The factors, in order.
    pub fn tensors(&self) -> &[Parameter] {
        &self.tensors
    }

    /// The shape of the model that is adapted.
    pub fn model(&self) -> &Config {
        &self.model
    }

    /// What is adapted.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.tensors.last().map_or(0, |t| t.range.end)
    }

    /// Bytes of the numbers.
    pub fn bytes(&self) -> u64 {
        4 * self.len() as u64
    }

    /// Whether there are none, which no adapter is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many matrices of the model are adapted; an expert's gate and up count as one.
    pub fn num_matrices(&self) -> usize {
        let of = |t: &Parameter| if t.name.contains("mlp.experts.") { self.model.num_experts } else { 1 };
        self.tensors.iter().filter(|t| t.name.ends_with("lora_A.weight")).map(of).sum()
    }

    /// The factor called `name`.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.tensors.iter().find(|t| t.name == name)
    }

    /// Whether a model of this shape can take them.
    pub fn fits(&self, model: &Config) -> bool {
        let shape = |c: &Config| {
            let heads = (c.num_heads, c.num_kv_heads, c.head_dim);
            (c.num_layers, c.hidden_size, c.intermediate_size, c.num_experts, c.vocab_size, heads)
        };
        shape(&self.model) == shape(model)
    }

    /// Where training begins: A uniform in ±1/sqrt(inputs), as PEFT has it, and B zero, so that the model is the base.
    pub fn init(&self, seed: u64) -> Vec<f32> {
        let mut values = vec![0.0; self.len()];
        for tensor in self.tensors.iter().filter(|t| t.name.ends_with("lora_A.weight")) {
            let mut rng = Rng::new(key(seed, &tensor.name, &tensor.shape), 0);
            let bound = 1.0 / (tensor.shape[tensor.shape.len() - 1] as f32).sqrt();
            for value in &mut values[tensor.range.clone()] {
                // 24 bits, the precision of f32.
                *value = bound * ((rng.next() >> 40) as f32 / (1u32 << 23) as f32 - 1.0);
            }
        }
        values
    }

    /// A run of gradients, factor by factor; everything of the model itself is frozen.
    pub fn gradients<'a>(&self, run: &'a mut [f32]) -> Gradients<'a> {
        assert_eq!(run.len(), self.len(), "gradients of this adapter");
        let (targets, experts) = (self.config.targets, self.model.num_experts);
        let mut rest = run;
        let mut tensors = self.tensors.iter();
        let mut take = || {
            let tensor = tensors.next().expect("as many as counted");
            rest.split_off_mut(..tensor.range.len()).expect("as many as counted")
        };
        let mut blocks = Vec::with_capacity(self.model.num_layers);
        for _ in 0..self.model.num_layers {
            let mut low_rank = |wanted: bool, parts: usize| {
                (0..if wanted { parts } else { 0 }).map(|_| LowRankGrad { a: take(), b: take() }).collect()
            };
            let linear = |low_rank| LinearGrad { low_rank, ..LinearGrad::default() };
            let qkv = linear(low_rank(targets.attention, 3));
            let out = linear(low_rank(targets.attention, 1));
            let router = linear(low_rank(targets.router, 1));
            let adapter = targets.experts.map(|sharing| {
                let outer = if sharing == ExpertSharing::Each { experts } else { 1 };
                ExpertsAdapterGrad {
                    gate_up_a: cut(take(), outer),
                    gate_up_b: cut(take(), experts),
                    down_a: cut(take(), experts),
                    down_b: cut(take(), outer),
                }
            });
            let attention = AttentionGrad { qkv, out, ..AttentionGrad::default() };
            let experts = ExpertsGrad { experts: Vec::new(), adapter };
            blocks.push(BlockGrad { attention, mlp: MlpGrad { router, experts, ..MlpGrad::default() } });
        }
        let low_rank = if targets.unembedding { vec![LowRankGrad { a: take(), b: take() }] } else { Vec::new() };
        let unembedding = LinearGrad { low_rank, ..LinearGrad::default() };
        Gradients { embedding: None, blocks, norm: None, unembedding }
    }

    /// Lends `values` to the weights of `model`, without a copy, and gives the slot in which they hang. The values can
    /// be changed again after [`Transformer::detach`].
    ///
    /// # Panics
    /// Where the values are not as many as the factors have, or the model has another shape.
    pub fn attach(&self, values: &Floats, model: &mut Transformer) -> usize {
        assert_eq!(values.len(), self.len(), "values of this adapter");
        let slot = model.adapters.vacant();
        model.adapters.put(slot, ());
        let mut lent = Lent { parameters: self, values, next: 0 };
        for block in &mut model.blocks {
            lent.attach(block, slot);
        }
        if self.config.targets.unembedding {
            let part = lent.low_rank(0);
            model.unembedding.attach(slot, vec![part]);
        }
        slot
    }
}

/// `run` in `parts` equal parts.
fn cut(run: &mut [f32], parts: usize) -> Vec<&mut [f32]> {
    let len = run.len() / parts;
    run.chunks_exact_mut(len).collect()
}

/// Values that are handed out factor by factor, in order.
struct Lent<'a> {
    parameters: &'a AdapterParameters,
    values: &'a Floats,
    next: usize,
}

impl Lent<'_> {
    fn range(&mut self) -> Range<usize> {
        self.next += 1;
        self.parameters.tensors[self.next - 1].range.clone()
    }

    fn part(&self, range: Range<usize>) -> FloatPart {
        self.values.part(range).expect("a range of the values")
    }

    /// The next A and B, for the outputs from `first` on.
    fn low_rank(&mut self, first: usize) -> LowRank {
        let (a, b) = (self.range(), self.range());
        let config = &self.parameters.config;
        LowRank::new(self.part(a), self.part(b), config.rank, config.scale(), first)
    }

    /// The next factor of all experts, in as many parts as it has matrices.
    fn list(&mut self) -> Vec<FloatPart> {
        let shape = &self.parameters.tensors[self.next].shape;
        let parts = if shape.len() == 3 { shape[0] } else { 1 };
        let range = self.range();
        let len = range.len() / parts;
        range.step_by(len).map(|start| self.part(start..start + len)).collect()
    }

    fn attach(&mut self, block: &mut Block, slot: usize) {
        let AdapterConfig { rank, targets, .. } = self.parameters.config;
        if targets.attention {
            let [q, k, v, _] = attention(&self.parameters.model);
            let firsts = [0, q.outputs, q.outputs + k.outputs];
            debug_assert_eq!(k.outputs, v.outputs);
            block.attention.qkv.attach(slot, firsts.map(|first| self.low_rank(first)).into());
            block.attention.out.attach(slot, vec![self.low_rank(0)]);
        }
        if targets.router {
            block.mlp.router.attach(slot, vec![self.low_rank(0)]);
        }
        if targets.experts.is_some() {
            let gate_up = Pair { a: self.list(), b: self.list() };
            let down = Pair { a: self.list(), b: self.list() };
            let scale = self.parameters.config.scale();
            block.mlp.experts.attach(slot, ExpertsAdapter { rank, scale, gate_up, down });
        }
    }
}

impl Transformer {
    /// Takes away the adapter in `slot`.
    pub fn detach(&mut self, slot: usize) {
        self.adapters.clear(slot);
        for block in &mut self.blocks {
            block.attention.qkv.detach(slot);
            block.attention.out.detach(slot);
            block.mlp.router.detach(slot);
            block.mlp.experts.adapters.clear(slot);
        }
        self.unembedding.detach(slot);
    }
}
