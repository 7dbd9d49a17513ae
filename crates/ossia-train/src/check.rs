//! Holds loss and gradients to a golden file of another implementation: `input_ids`, `attention_mask`, `labels` [B, T],
//! `loss`, `grad.*` for every parameter, and the same under `aux.` with the auxiliary loss.
//!
//! The file has the conventions of transformers: labels are shifted inside, -100 is ignored, the loss is the mean over
//! kept targets, experts' gradients lie as [E, in, out], and the auxiliary loss pools all layers (SPEC 7).

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use ossia_kernels::arena::Arena;
use ossia_kernels::cpu::isa::Isa;
use ossia_kernels::ops::cross_entropy::Targets;
use ossia_kernels::pool::Pool;
use ossia_kernels::{DType, Floats, Precision, Runtime};
use ossia_model::checkpoint::{Checkpoint, RawTensor, safetensors};
use ossia_model::gpt_oss::backward::Batch;
use ossia_model::gpt_oss::balance::Balancing;
use ossia_model::gpt_oss::config::Config;
use ossia_model::gpt_oss::forward::Transformer;
use ossia_model::gpt_oss::parameters::Parameters;
use ossia_model::gpt_oss::scratch::{self, LargestBatch};
use ossia_model::gpt_oss::tensors::{Dense, Reading};

use crate::error::{Error, Result};

/// One compared quantity.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Compared {
    /// Its name in the golden file.
    pub name: String,
    /// Largest difference over the largest reference.
    pub error: f64,
}

/// The golden's documents, padding left out.
struct Golden {
    file: String,
    tensors: BTreeMap<String, RawTensor>,
    tokens: Vec<u32>,
    documents: Vec<Range<usize>>,
    /// Predicting rows and what they are to predict.
    rows: Vec<u32>,
    targets: Vec<u32>,
}

/// Compares the model in `checkpoint` with every loss and gradient of `golden`, on `threads` threads.
pub fn compare(checkpoint: &Checkpoint, golden: &Path, threads: usize) -> Result<Vec<Compared>> {
    let golden = Golden::read(golden)?;
    let config = Config::from_checkpoint(checkpoint)?;
    let pool = Pool::new(threads);
    let reading = &mut Reading { dense: Dense::Kept, pool: &pool, isa: Isa::detect(), progress: &mut |_, _| {} };
    let parameters = Parameters::of(&config);
    let values = Floats::new(parameters.read(&Transformer::read(checkpoint, &config, reading)?));
    let largest = LargestBatch { tokens: golden.tokens.len(), threads, recompute: false, adapter_rank: 0 };
    let arena = Arena::new(scratch::training_bytes(&config, largest));
    let runtime = Runtime::on_cpu(pool, arena, Isa::detect(), Precision::F32);
    let model = parameters.transformer(&values, &runtime.pool)?;
    let mut compared = Vec::new();
    for (prefix, aux) in [("", 0.0), ("aux.", golden.aux_coefficient(checkpoint))] {
        if golden.tensors.contains_key(&format!("{prefix}loss")) {
            let balancing = Balancing { aux, pooled: true, z: 0.0 };
            golden.compare(&runtime, &parameters, &model, prefix, &balancing, &mut compared)?;
        }
    }
    Ok(compared)
}

impl Golden {
    fn read(path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let tensors: BTreeMap<_, _> = safetensors::open(path)?.into_iter().map(|t| (t.name.clone(), t)).collect();
        let mut golden = Self { file, tensors, tokens: vec![], documents: vec![], rows: vec![], targets: vec![] };
        let [ids, mask, labels] = ["input_ids", "attention_mask", "labels"].map(|name| golden.integers(name));
        let (ids, mask, labels) = (ids?, mask?, labels?);
        let width = golden.get("input_ids")?.shape.last().copied().unwrap_or(0);
        if width == 0 || mask.len() != ids.len() || labels.len() != ids.len() {
            return Err(golden.wrong("input_ids", "ids, mask and labels [B, T] of one shape", "others"));
        }
        for (i, ids) in ids.chunks_exact(width).enumerate() {
            let kept = mask[i * width..(i + 1) * width].iter().take_while(|&&m| m == 1).count();
            let (start, labels) = (golden.tokens.len(), &labels[i * width..(i + 1) * width]);
            golden.tokens.extend(ids[..kept].iter().map(|&id| id as u32));
            golden.documents.push(start..start + kept);
            for (row, &label) in labels.iter().enumerate().take(kept).skip(1).filter(|(_, label)| **label >= 0) {
                golden.rows.push((start + row - 1) as u32);
                golden.targets.push(label as u32);
            }
        }
        Ok(golden)
    }

    fn get(&self, name: &str) -> Result<&RawTensor> {
        self.tensors.get(name).ok_or_else(|| self.wrong(name, "a tensor of this name", "none"))
    }

    fn wrong(&self, name: &str, wanted: &str, found: impl Into<String>) -> Error {
        Error::Golden { file: self.file.clone(), name: name.into(), wanted: wanted.into(), found: found.into() }
    }

    fn integers(&self, name: &str) -> Result<Vec<i32>> {
        let tensor = self.get(name)?;
        if tensor.dtype != DType::I32 {
            return Err(self.wrong(name, "I32", tensor.dtype.to_string()));
        }
        Ok(tensor.bytes.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b)).collect())
    }

    fn floats(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.get(name)?;
        if tensor.dtype != DType::F32 {
            return Err(self.wrong(name, "F32", tensor.dtype.to_string()));
        }
        Ok(tensor.bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
    }

    /// `router_aux_loss_coef` of the model's config.json.
    fn aux_coefficient(&self, checkpoint: &Checkpoint) -> f32 {
        let json = match checkpoint.metadata() {
            ossia_model::checkpoint::Metadata::Json { value, .. } => value.get("router_aux_loss_coef"),
            ossia_model::checkpoint::Metadata::Gguf(_) => None,
        };
        // The published files say 0.9 (SPEC 1).
        json.and_then(serde_json::Value::as_f64).unwrap_or(0.9) as f32
    }

    fn compare(
        &self,
        runtime: &Runtime,
        parameters: &Parameters,
        model: &Transformer,
        prefix: &str,
        balancing: &Balancing,
        compared: &mut Vec<Compared>,
    ) -> Result<()> {
        let weights = vec![1.0 / self.rows.len() as f32; self.rows.len()];
        let targets = Targets { ids: &self.targets, weights: &weights, z: 0.0 };
        let batch = Batch {
            tokens: &self.tokens,
            documents: &self.documents,
            rows: &self.rows,
            targets,
            recompute: false,
            adapter: None,
        };
        let mut run = vec![0.0; parameters.len()];
        let losses = model.backward(runtime, &batch, balancing, &mut parameters.gradients(&mut run))?;
        let nll: f64 = losses.nll.iter().map(|&v| f64::from(v)).sum::<f64>() / losses.nll.len() as f64;
        let total = nll + f64::from(balancing.aux) * losses.loads.aux(balancing.pooled);
        let mut add = |name: String, got: &[f32]| -> Result<()> {
            let error = self.error(&name, got)?;
            compared.push(Compared { name, error });
            Ok(())
        };
        add(format!("{prefix}loss"), &[total as f32])?;
        for (name, values) in transformers_names(parameters, &run) {
            let name = format!("{prefix}grad.{name}");
            // Some files keep the router's gradients only.
            if self.tensors.contains_key(&name) || prefix.is_empty() {
                add(name, &values)?;
            }
        }
        Ok(())
    }

    fn error(&self, name: &str, got: &[f32]) -> Result<f64> {
        let want = self.floats(name)?;
        if want.len() != got.len() {
            return Err(self.wrong(name, &format!("{} numbers", got.len()), want.len().to_string()));
        }
        let largest = want.iter().fold(0.0f64, |m, &v| m.max(f64::from(v).abs()));
        let differences = want.iter().zip(got).map(|(w, g)| (f64::from(*w) - f64::from(*g)).abs());
        // A difference that is not a number is the largest of all.
        let worst = differences.fold(0.0f64, |m, d| if d > m || d.is_nan() { d } else { m });
        Ok(worst / largest.max(f64::MIN_POSITIVE))
    }
}

/// Gradients under the names and in the layout of transformers: experts stacked, [E, in, out].
fn transformers_names(parameters: &Parameters, run: &[f32]) -> BTreeMap<String, Vec<f32>> {
    let mut named: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for p in parameters.tensors() {
        let values = &run[p.range.clone()];
        let Some((stem, rest)) = p.name.split_once("_projs.") else {
            named.insert(p.name.clone(), values.to_vec());
            continue;
        };
        if rest.ends_with("bias") {
            named.entry(format!("{stem}_proj_bias")).or_default().extend_from_slice(values);
        } else {
            let (rows, cols) = (p.shape[0], p.shape[1]);
            let turned = (0..cols * rows).map(|at| values[at % rows * cols + at / rows]);
            named.entry(format!("{stem}_proj")).or_default().extend(turned);
        }
    }
    named
}
