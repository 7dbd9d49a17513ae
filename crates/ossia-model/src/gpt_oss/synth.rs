//! Random weights of a true shape, in memory or streamed to disk in the Hugging Face layout.
//!
//! Every tensor depends only on the seed, its name and its shape, and is made in chunks that do not depend on each
//! other: memory and disk hold the same bytes, however many threads made them. The statistics keep activations of
//! every layer near 1, so that numbers behave like a trained model's; the words are noise.

pub(super) mod rng;

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use ossia_kernels::{Bytes, DType};
use serde_json::{Value, json};

use self::rng::{Rng, normal_quantiles};
use super::config::Config;
use crate::checkpoint::write::{
    TensorSpec, Writer, refuse_others, shard_name, sort_for_file, split_into_shards, write_index, write_json,
};
use crate::checkpoint::{Checkpoint, Error, Metadata, RawTensor, Result};

/// Bytes that one run of the generator makes; even, so that no BF16 number is cut.
const CHUNK: usize = 1 << 22;
/// Bytes of the largest shard, as in the released files.
pub(super) const SHARD: usize = 4_800_000_000;

/// The random model of this config and seed, in memory.
pub fn checkpoint(config: &Config, seed: u64) -> Result<Checkpoint> {
    let source = format!("synth (seed {seed})");
    let file: Arc<Path> = Path::new(&source).into();
    let maker = Maker::new(config, seed);
    let make = |spec: TensorSpec| {
        let mut bytes = vec![0; size(&spec)?];
        maker.fill(&spec, &mut bytes);
        Ok(RawTensor {
            name: spec.name,
            dtype: spec.dtype,
            shape: spec.shape,
            bytes: Bytes::new(bytes),
            file: file.clone(),
        })
    };
    let tensors = tensors(config).into_iter().map(make).collect::<Result<Vec<_>>>()?;
    let metadata = Metadata::Json { value: config.to_hf_json(), file: file.to_path_buf() };
    Checkpoint::from_parts(source, metadata, tensors)
}

/// The random model of this config by names, types and shapes alone, for who asks only what it would take. All tensors
/// have the same zeros for bytes, which the system does not make before they are read.
pub fn outline(config: &Config) -> Result<Checkpoint> {
    let file: Arc<Path> = Path::new("synth").into();
    let specs = tensors(config);
    let largest = specs.iter().map(size).try_fold(0, |most, size| Ok(most.max(size?)))?;
    let zeros = Bytes::new(vec![0; largest]);
    let shown = |spec: TensorSpec| {
        let bytes = zeros.slice(0..size(&spec)?).unwrap_or_else(|| zeros.clone());
        Ok(RawTensor { name: spec.name, dtype: spec.dtype, shape: spec.shape, bytes, file: file.clone() })
    };
    let tensors = specs.into_iter().map(shown).collect::<Result<Vec<_>>>()?;
    let metadata = Metadata::Json { value: config.to_hf_json(), file: file.to_path_buf() };
    Checkpoint::from_parts("synth (shapes alone)".to_owned(), metadata, tensors)
}

/// Writes the random model of this config and seed into folder `dir`: config.json, generation_config.json, and one
/// safetensors file or shards with an index; fails where another checkpoint's files lie there. `progress` is told the
/// bytes of tensor data done and in all.
pub fn write(config: &Config, seed: u64, dir: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, "create", e))?;
    let mut shards = split_into_shards(tensors(config), SHARD);
    shards.iter_mut().for_each(|shard| sort_for_file(shard));
    refuse_others(dir, shards.len())?;
    write_json(&dir.join("config.json"), &config.to_hf_json())?;
    write_json(&dir.join("generation_config.json"), &generation_config(config))?;
    let total = shards.iter().flatten().map(|s| size(s).map(|n| n as u64)).sum::<Result<u64>>()?;
    let maker = Maker::new(config, seed);
    let mut done = 0;
    progress(done, total);
    for (index, shard) in shards.iter().enumerate() {
        let mut writer = Writer::create(&dir.join(shard_name(index, shards.len())), shard, &[("format", "pt")])?;
        stream(&maker, shard, |chunk| {
            writer.write(chunk)?;
            done += chunk.len() as u64;
            progress(done, total);
            Ok(())
        })?;
        writer.finish()?;
    }
    if shards.len() > 1 { write_index(dir, &shards) } else { Ok(()) }
}

/// Makes the chunks of all tensors in order on a second thread and hands them to `sink`. Three buffers go round.
fn stream(maker: &Maker, specs: &[TensorSpec], mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let (full_in, full_out) = sync_channel(3);
    let (empty_in, empty_out) = channel();
    for _ in 0..3 {
        // The receiver lives until the end of this function.
        let _ = empty_in.send(Vec::new());
    }
    // Both of our ends are dropped inside the scope: where `sink` fails, the other thread sees that and ends.
    std::thread::scope(move |scope| {
        scope.spawn(move || produce(maker, specs, &empty_out, &full_in));
        for chunk in full_out {
            sink(&chunk)?;
            // Where the other thread is done, nobody needs the buffer.
            let _ = empty_in.send(chunk);
        }
        Ok(())
    })
}

/// Ends early where the other side has gone away.
fn produce(maker: &Maker, specs: &[TensorSpec], empty: &Receiver<Vec<u8>>, full: &SyncSender<Vec<u8>>) {
    for spec in specs {
        let recipe = maker.recipe(spec);
        let size = spec.bytes().unwrap_or(0);
        for index in 0..size.div_ceil(CHUNK) {
            let Ok(mut buffer) = empty.recv() else { return };
            buffer.resize(CHUNK.min(size - index * CHUNK), 0);
            recipe.fill(index, &mut buffer);
            if full.send(buffer).is_err() {
                return;
            }
        }
    }
}

fn size(spec: &TensorSpec) -> Result<usize> {
    let wanted = "a size that fits into memory";
    spec.bytes().ok_or_else(|| Error::tensor(Path::new("synth"), &spec.name, wanted, format!("{:?}", spec.shape)))
}

/// The tensors of the Hugging Face layout with packed experts, in model order: SPEC 2.1.
pub fn tensors(config: &Config) -> Vec<TensorSpec> {
    let (h, v) = (config.hidden_size, config.vocab_size);
    let mut specs = vec![bf16("model.embed_tokens.weight".into(), &[v, h])];
    for layer in 0..config.num_layers {
        layer_tensors(config, &format!("model.layers.{layer}."), &mut specs);
    }
    specs.push(bf16("model.norm.weight".into(), &[h]));
    specs.push(bf16("lm_head.weight".into(), &[v, h]));
    specs
}

fn layer_tensors(c: &Config, prefix: &str, specs: &mut Vec<TensorSpec>) {
    let (h, i, e, q, kv) = (c.hidden_size, c.intermediate_size, c.num_experts, c.query_size(), c.kv_size());
    let mut dense = |name: &str, shape: &[usize]| specs.push(bf16(format!("{prefix}{name}"), shape));
    dense("input_layernorm.weight", &[h]);
    for (name, rows, columns) in [("q", q, h), ("k", kv, h), ("v", kv, h), ("o", h, q)] {
        dense(&format!("self_attn.{name}_proj.weight"), &[rows, columns]);
        dense(&format!("self_attn.{name}_proj.bias"), &[rows]);
    }
    dense("self_attn.sinks", &[c.num_heads]);
    dense("post_attention_layernorm.weight", &[h]);
    dense("mlp.router.weight", &[e, h]);
    dense("mlp.router.bias", &[e]);
    for (name, rows, columns) in [("gate_up_proj", 2 * i, h), ("down_proj", h, i)] {
        let packed = |suffix: &str, shape: Vec<usize>| TensorSpec {
            name: format!("{prefix}mlp.experts.{name}_{suffix}"),
            dtype: DType::U8,
            shape,
        };
        specs.push(packed("blocks", vec![e, rows, columns / 32, 16]));
        specs.push(packed("scales", vec![e, rows, columns / 32]));
        specs.push(bf16(format!("{prefix}mlp.experts.{name}_bias"), &[e, rows]));
    }
}

fn bf16(name: String, shape: &[usize]) -> TensorSpec {
    TensorSpec { name, dtype: DType::BF16, shape: shape.into() }
}

/// generation_config.json: what ends an answer, and no sampling parameters, as in the released files (SPEC 1).
pub(super) fn generation_config(config: &Config) -> Value {
    let released = config.vocab_size == 201_088;
    let ids: Vec<u32> = config.eos_ids.iter().copied().chain(config.pad_id).collect();
    json!({
        "bos_token_id": if released { 199_998 } else { config.vocab_size.saturating_sub(3) },
        "do_sample": true,
        "eos_token_id": if released { vec![200_002, 199_999, 200_012] } else { ids },
        "pad_token_id": config.pad_id,
    })
}

/// Makes the tensors of one model.
struct Maker {
    hidden_size: f64,
    intermediate_size: f64,
    query_size: f64,
    seed: u64,
    quantiles: Vec<f32>,
}

impl Maker {
    fn new(config: &Config, seed: u64) -> Self {
        Self {
            hidden_size: config.hidden_size as f64,
            intermediate_size: config.intermediate_size as f64,
            query_size: config.query_size() as f64,
            seed,
            quantiles: normal_quantiles(),
        }
    }

    /// Fills the whole tensor, on all cores.
    fn fill(&self, spec: &TensorSpec, bytes: &mut [u8]) {
        let recipe = self.recipe(spec);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(bytes.len().div_ceil(CHUNK));
        let chunks = Mutex::new(bytes.chunks_mut(CHUNK).enumerate());
        // A panicking thread ends the scope, so a poisoned lock still holds a sound iterator.
        let next = || chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some((index, chunk)) = next() {
                recipe.fill(index, chunk);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
    }

    fn recipe(&self, spec: &TensorSpec) -> Recipe {
        let (std, mean) = self.std_mean(&spec.name);
        let kind = match spec.dtype {
            DType::U8 if spec.name.ends_with("_scales") => {
                // Uniformly random codes have an rms of 2.93; the scales bring them to `std`, give or take one.
                let middle = 127.0 + (std / 2.93).log2().round();
                Kind::Scales(middle.clamp(1.0, 253.0) as u8 - 1)
            }
            DType::U8 => Kind::Codes,
            _ => Kind::Normal(self.quantiles.iter().map(|&q| round_to_bf16(q * std as f32 + mean as f32)).collect()),
        };
        Recipe { kind, key: rng::key(self.seed, &spec.name, &spec.shape) }
    }

    /// Standard deviation and mean of the weights called `name`.
    fn std_mean(&self, name: &str) -> (f64, f64) {
        let (h, i, q) = (self.hidden_size.sqrt(), self.intermediate_size.sqrt(), self.query_size.sqrt());
        let table = [
            ("embed_tokens.weight", 1.0, 0.0),
            ("lm_head.weight", 2.0 / h, 0.0),
            ("norm.weight", 0.2, 1.0),
            ("q_proj.weight", 0.9 / h, 0.0),
            ("k_proj.weight", 0.9 / h, 0.0),
            ("v_proj.weight", 1.0 / h, 0.0),
            ("o_proj.weight", 1.0 / q, 0.0),
            ("_proj.bias", 0.3, 0.0),
            ("sinks", 1.5, 0.5),
            ("router.weight", 2.0 / h, 0.0),
            ("router.bias", 0.5, 0.0),
            ("gate_up_proj_bias", 2.0, 0.0),
            ("down_proj_bias", 0.3, 0.0),
            ("gate_up_proj_blocks", 1.5 / h, 0.0),
            ("gate_up_proj_scales", 1.5 / h, 0.0),
            ("down_proj_blocks", 0.2 / i, 0.0),
            ("down_proj_scales", 0.2 / i, 0.0),
        ];
        let found = table.iter().find(|(suffix, ..)| name.ends_with(suffix));
        found.map_or((1.0, 0.0), |&(_, std, mean)| (std, mean))
    }
}

/// How the bytes of one tensor are made.
struct Recipe {
    kind: Kind,
    key: u64,
}

enum Kind {
    /// BF16 numbers drawn from 65,536 equally likely ones.
    Normal(Vec<u16>),
    /// Any bytes: packed E2M1 codes.
    Codes,
    /// This scale byte, or one or two more.
    Scales(u8),
}

impl Recipe {
    /// Fills chunk `index`; all but a tensor's last chunk are [`CHUNK`] bytes long.
    fn fill(&self, index: usize, out: &mut [u8]) {
        let mut rng = Rng::new(self.key, index as u64);
        for eight in out.chunks_mut(8) {
            let random = rng.next().to_le_bytes();
            let made = match &self.kind {
                Kind::Normal(table) => pick(table, random),
                Kind::Codes => random,
                Kind::Scales(least) => random.map(|byte| least + ((u16::from(byte) * 3) >> 8) as u8),
            };
            eight.copy_from_slice(&made[..eight.len()]);
        }
    }
}

fn pick(table: &[u16], random: [u8; 8]) -> [u8; 8] {
    let mut made = [0; 8];
    for (from, to) in random.as_chunks::<2>().0.iter().zip(made.as_chunks_mut::<2>().0) {
        *to = table[usize::from(u16::from_le_bytes(*from))].to_le_bytes();
    }
    made
}

fn round_to_bf16(x: f32) -> u16 {
    half::bf16::from_f32(x).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_disk_ends_both_threads() {
        let specs = [TensorSpec { name: "x_blocks".into(), dtype: DType::U8, shape: vec![12 * CHUNK + 5] }];
        let maker = Maker::new(&Config::preset("nano", None).expect("a preset"), 0);
        for good in [0, 1, 4, 12] {
            let mut left: usize = good;
            let result = stream(&maker, &specs, |chunk| {
                assert!(chunk.len() == CHUNK || chunk.len() == 5);
                let fail = || {
                    // Gives the other thread the time to use up all buffers and wait for one.
                    std::thread::sleep(std::time::Duration::from_millis(100));
                    Error::file(Path::new("x"), "room", "none")
                };
                left.checked_sub(1).map(|fewer| left = fewer).ok_or_else(fail)
            });
            assert!(result.is_err());
        }
    }
}
