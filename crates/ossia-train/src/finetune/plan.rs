//! What a run is about to do, said before it does anything: what is trained, on what, and what memory it takes.

use ossia_model::gpt_oss::config::Config as ModelConfig;
use ossia_model::gpt_oss::parameters::Parameter;
use ossia_model::gpt_oss::scratch::{self, LargestBatch};
use serde::Serialize;

use super::config::{Config, Method};
use super::data::Report;
use crate::recipe::Training;

/// The head of a run.
#[derive(Clone, Debug)]
pub struct Header {
    /// How the model learns.
    pub method: Method,
    /// What is trained, kind by kind, in the order of the model.
    pub trained: Vec<Kind>,
    /// Numbers of the base, which stay as they are unless all are trained.
    pub base_numbers: u64,
    /// What was read.
    pub data: Report,
    /// Held-out documents, pairs or questions.
    pub held_out: usize,
    /// How updates are made.
    pub training: Training,
    /// Updates done when the run begins.
    pub step: u64,
    /// Memory.
    pub memory: Memory,
    /// What the grader's sandbox can do here, where there is one.
    pub isolation: Option<String>,
}

/// Tensors of one name in all layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kind {
    /// The name without layer and expert, as `self_attn.q_proj.lora_A.weight`.
    pub name: String,
    /// How many.
    pub tensors: usize,
    /// Their numbers.
    pub numbers: u64,
}

/// Memory of a run, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Weights of the base that are used where the file holds them.
    pub mapped: f64,
    /// Weights of the base in memory of their own.
    pub owned: f64,
    /// The trained numbers, their gradients and moments.
    pub state: f64,
    /// What the largest micro batch makes.
    pub scratch: f64,
    /// Keys, values and scratch of the answers, for `grpo`.
    pub answers: f64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.mapped + self.owned + self.state + self.scratch + self.answers
    }
}

/// Tensors by kind.
pub fn kinds(tensors: &[Parameter]) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = Vec::new();
    for tensor in tensors {
        let parts: Vec<&str> = tensor.name.split('.').collect();
        let is_number = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
        // "model.layers.3.self_attn" has its number third; an expert's stands further on.
        let layer = parts.iter().position(is_number).map_or(0, |at| at + 1);
        let kept: Vec<&str> = parts[layer..].iter().copied().filter(|part| !is_number(part)).collect();
        let name = kept.join(".");
        match kinds.iter_mut().find(|kind| kind.name == name) {
            Some(kind) => {
                kind.tensors += 1;
                kind.numbers += tensor.range.len() as u64;
            }
            None => kinds.push(Kind { name, tensors: 1, numbers: tensor.range.len() as u64 }),
        }
    }
    kinds
}

/// Bytes of scratch of a run's largest micro batch.
pub fn scratch_bytes(config: &Config, model: &ModelConfig, training: &Training, threads: usize) -> usize {
    let adapter_rank = if config.method == Method::Full { 0 } else { config.adapter.rank };
    let (tokens, recompute) = (training.micro_tokens, training.recompute);
    scratch::training_bytes(model, LargestBatch { tokens, threads, recompute, adapter_rank })
}

#[cfg(test)]
mod tests {
    use ossia_model::gpt_oss::parameters::Class;

    use super::*;

    #[test]
    fn layers_and_experts_are_counted_together() {
        let mut at = 0;
        let mut tensor = |name: &str, len: usize| {
            at += len;
            Parameter { name: name.into(), shape: vec![len], range: at - len..at, class: Class::Bias }
        };
        let tensors = [
            tensor("model.layers.0.self_attn.q_proj.lora_A.weight", 3),
            tensor("model.layers.0.mlp.experts.0.lora_A.weight", 5),
            tensor("model.layers.0.mlp.experts.1.lora_A.weight", 5),
            tensor("model.layers.1.self_attn.q_proj.lora_A.weight", 3),
            tensor("lm_head.lora_A.weight", 7),
        ];
        let kind = |name: &str, tensors, numbers| Kind { name: name.into(), tensors, numbers };
        let wanted = [
            kind("self_attn.q_proj.lora_A.weight", 2, 6),
            kind("mlp.experts.lora_A.weight", 2, 10),
            kind("lm_head.lora_A.weight", 1, 7),
        ];
        assert_eq!(kinds(&tensors), wanted);
    }
}
