//! A model to files that other programs read: a Hugging Face folder with packed or with float experts, or a GGUF file;
//! also with an adapter merged into it.
//!
//! Tensor by tensor: memory holds at most one expert's matrix, and a small part of any other. Packed MXFP4 experts keep
//! their codes and scales; what cannot be kept exactly is counted (see [`Rounding`]). Nothing is written before every
//! tensor was found in its shape, each file appears whole or not at all, and config.json comes last, so a folder that
//! was not finished does not open.

mod encode;
mod folder;
mod items;
mod merge;
mod metadata;
mod source;
mod vocabulary;

use std::collections::HashMap;
use std::path::Path;

use ossia_kernels::DType;
use ossia_kernels::pool::Pool;

use self::encode::{Coding, Sink, Tally};
use self::items::{Item, Which, items};
pub use self::merge::Merge;
use self::source::Source;
use super::config::Config;
use super::synth::SHARD;
use crate::checkpoint::write::{
    TensorSpec, Writer, refuse_others, shard_name, sort_for_file, split_into_shards, write_index,
};
use crate::checkpoint::write_gguf::{GgufWriter, refuse_other_kinds};
use crate::checkpoint::{Checkpoint, Error, Layout, Result};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A Hugging Face folder as released: packed MXFP4 experts, everything else BF16.
    Mxfp4,
    /// A Hugging Face folder of BF16 alone, experts [E, in, out]: what others train.
    Bf16,
    /// The same for readers that compute in F32: BF16 where that holds every number, F32 elsewhere. Nothing is lost.
    F32,
    /// A file for llama.cpp and its kin: MXFP4 experts, F32 vectors and routers, other matrices as said.
    Gguf(Dense),
}

/// How a GGUF file holds the embedding, the unembedding and attention's matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dense {
    /// 32-bit floats.
    F32,
    /// As the released safetensors.
    Bf16,
    /// As the released GGUF file: 8 bits under a scale for each 32.
    Q8,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Files with tensors.
    pub num_files: usize,
    /// Tensors in them.
    pub num_tensors: usize,
    /// Bytes of tensor data.
    pub bytes: u64,
    /// Whether a tokenizer is among what was written.
    pub has_tokenizer: bool,
    /// One entry for each format that could not keep every value.
    pub rounded: Vec<Rounding>,
}

/// What a format changed.
#[derive(Clone, Debug)]
pub struct Rounding {
    /// BF16, Q8_0 or MXFP4.
    pub format: DType,
    /// Values written in it.
    pub values: u64,
    /// Those of them that are not exactly the source's.
    pub inexact: u64,
    /// The largest error relative to the value (BF16) or to the largest value of its group of 32 (Q8_0, MXFP4).
    pub max_relative_error: f64,
    /// The tensor, by its new name, where that is.
    pub worst_tensor: String,
    /// Root of the errors' squares over that of the squares of the values that were converted.
    pub rms_relative_error: f64,
}

/// What an export is to make.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// In what form.
    pub format: Format,
    /// A folder, or a file for GGUF.
    pub out: &'a Path,
    /// The text of a tokenizer.json for the model, o200k or one that cuts words in the same way; a GGUF source hands its
    /// own on to GGUF.
    pub tokenizer_json: Option<&'a str>,
    /// An adapter that becomes part of the model: s B A is added to the exact values of a row, and the sum written in the
    /// format. Rows to which it adds nothing stay as they are.
    pub merge: Option<Merge<'a>>,
    /// Threads; they change no byte.
    pub threads: usize,
}

/// A tensor to be written.
struct Output {
    spec: TensorSpec,
    item: Item,
    coding: Coding,
}

/// Writes the model in `checkpoint`, whose config is `config`, on one thread and without an adapter: see [`export_to`].
pub fn export(
    checkpoint: &Checkpoint,
    config: &Config,
    format: Format,
    out: &Path,
    tokenizer_json: Option<&str>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    export_to(checkpoint, config, &Target { format, out, tokenizer_json, merge: None, threads: 1 }, progress)
}

/// Writes the model in `checkpoint`, whose config is `config`. `progress` is told the bytes of tensor data done and in
/// all. Errors say what the source lacks, what the target would mix up or cannot hold, and which file could not be
/// written.
///
/// # Panics
/// Where the adapter is for a model of another shape.
pub fn export_to(
    checkpoint: &Checkpoint,
    config: &Config,
    target: &Target,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    let Target { format, out, tokenizer_json, merge, threads } = *target;
    assert!(merge.is_none_or(|m| m.parameters.fits(config)), "an adapter of this model");
    folder::refuse_source(checkpoint, out)?;
    let source = Source::new(checkpoint, config);
    source.check(&items(config, experts_of(format)))?;
    let outputs = outputs(&source, config, target)?;
    let bytes = outputs.iter().map(|o| size(&o.spec)).sum::<Result<u64>>()?;
    progress(0, bytes);
    let pool = Pool::new(threads);
    let mut run = Run { source, config, merge, pool, done: 0, bytes, progress, tallies: Vec::new() };
    let (num_files, has_tokenizer) = match format {
        Format::Gguf(_) => (1, run.gguf(checkpoint, &outputs, out, tokenizer_json)?),
        _ => run.folder(checkpoint, format, &outputs, out, tokenizer_json)?,
    };
    Ok(Summary { num_files, num_tensors: outputs.len(), bytes, has_tokenizer, rounded: roundings(run.tallies) })
}

fn size(spec: &TensorSpec) -> Result<u64> {
    let wrong = || Error::tensor(Path::new("export"), &spec.name, "a size that fits into memory", "a larger one");
    spec.bytes().map(|n| n as u64).ok_or_else(wrong)
}

/// How a format cuts the experts' matrices.
fn experts_of(format: Format) -> &'static [Which] {
    match format {
        Format::Mxfp4 | Format::Bf16 | Format::F32 => &[Which::GateUp, Which::Down],
        Format::Gguf(_) => &[Which::Gate, Which::Up, Which::Down],
    }
}

/// Every tensor of the target, in model order.
fn outputs(source: &Source, config: &Config, target: &Target) -> Result<Vec<Output>> {
    let format = target.format;
    let layout = if matches!(format, Format::Gguf(_)) { Layout::Gguf } else { Layout::HuggingFace };
    let mut outputs = Vec::new();
    for item in items(config, experts_of(format)) {
        let mut add = |ending: &str, shape: Vec<usize>, coding: Coding| {
            let spec = TensorSpec { name: item.name(layout) + ending, dtype: coding.dtype(), shape };
            outputs.push(Output { spec, item, coding });
        };
        let shape = item.shape(config);
        match (item, format) {
            (Item::Experts(..), Format::Mxfp4) => {
                let (e, rows, groups) = (shape[0], shape[1], shape[2] / 32);
                add("_blocks", vec![e, rows, groups, 16], Coding::Blocks);
                add("_scales", vec![e, rows, groups], Coding::Scales);
            }
            (Item::Experts(..), Format::Bf16 | Format::F32) => {
                let is_held = format == Format::Bf16 || is_held(source, config, target.merge, item)?;
                let coding = if is_held { Coding::Bf16Columns } else { Coding::F32Columns };
                add("", vec![shape[0], shape[2], shape[1]], coding);
            }
            (Item::Experts(..), Format::Gguf(_)) => add("", shape, Coding::Mxfp4),
            (_, Format::Gguf(dense)) => add("", shape, gguf_coding(item, dense)),
            (_, Format::F32) if !is_held(source, config, target.merge, item)? => add("", shape, Coding::F32),
            _ => add("", shape, Coding::Bf16),
        }
    }
    Ok(outputs)
}

/// Whether BF16 holds every number of `item`, the adapter's among them. Our own reader wants q, k and v in one form.
fn is_held(source: &Source, config: &Config, merge: Option<Merge>, item: Item) -> Result<bool> {
    use items::Linear::{K, Q, V};
    let together = match item {
        Item::Weight(layer, Q | K | V) => [Q, K, V].map(|linear| Item::Weight(layer, linear)).to_vec(),
        item => vec![item],
    };
    for item in together {
        if merge.is_some_and(|merge| merge.changes(item, config.num_experts)) || !source.is_bf16(item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Vectors and the router, which decides, are F32 in GGUF.
fn gguf_coding(item: Item, dense: Dense) -> Coding {
    match (item, dense) {
        (Item::Weight(_, items::Linear::Router), _) => Coding::F32,
        (Item::Embedding | Item::Unembedding | Item::Weight(..), Dense::Bf16) => Coding::Bf16,
        (Item::Embedding | Item::Unembedding | Item::Weight(..), Dense::Q8) => Coding::Q8,
        _ => Coding::F32,
    }
}

/// An export under way.
struct Run<'a, 'p> {
    source: Source<'a>,
    config: &'a Config,
    merge: Option<Merge<'a>>,
    pool: Pool,
    done: u64,
    bytes: u64,
    progress: &'p mut dyn FnMut(u64, u64),
    /// By format and new name.
    tallies: Vec<(DType, String, Tally)>,
}

impl Run<'_, '_> {
    /// Whether a tokenizer was written.
    fn gguf(&mut self, from: &Checkpoint, outputs: &[Output], out: &Path, tokenizer: Option<&str>) -> Result<bool> {
        refuse_other_kinds(out)?;
        let template = folder::chat_template(from)?;
        let metadata = metadata::metadata(from, self.config, out, tokenizer, template.as_deref())?;
        let specs: Vec<TensorSpec> = outputs.iter().map(|o| o.spec.clone()).collect();
        let mut writer = GgufWriter::create(out, &metadata, &specs)?;
        for output in outputs {
            self.tensor(output, &mut |bytes| writer.write(bytes))?;
        }
        writer.finish()?;
        Ok(metadata.iter().any(|(key, _)| key == "tokenizer.ggml.tokens"))
    }

    /// The files with tensors, and whether a tokenizer was written.
    fn folder(
        &mut self,
        from: &Checkpoint,
        format: Format,
        outputs: &[Output],
        out: &Path,
        tokenizer: Option<&str>,
    ) -> Result<(usize, bool)> {
        std::fs::create_dir_all(out).map_err(|e| Error::io(out, "create", e))?;
        let by_name: HashMap<&str, &Output> = outputs.iter().map(|o| (o.spec.name.as_str(), o)).collect();
        let mut shards = split_into_shards(outputs.iter().map(|o| o.spec.clone()).collect(), SHARD);
        shards.iter_mut().for_each(|shard| sort_for_file(shard));
        refuse_others(out, shards.len())?;
        folder::refuse_other_text(out, tokenizer.is_some())?;
        for (index, shard) in shards.iter().enumerate() {
            let mut writer = Writer::create(&out.join(shard_name(index, shards.len())), shard, &[("format", "pt")])?;
            for output in shard.iter().filter_map(|spec| by_name.get(spec.name.as_str())) {
                self.tensor(output, &mut |bytes| writer.write(bytes))?;
            }
            writer.finish()?;
        }
        if shards.len() > 1 {
            write_index(out, &shards)?;
        }
        folder::write_text(from, self.config, format, out, tokenizer)?;
        Ok((shards.len(), tokenizer.is_some()))
    }

    /// Hands the bytes of one tensor on.
    fn tensor(&mut self, output: &Output, write: &mut Sink) -> Result<()> {
        let (done, all, progress) = (&mut self.done, self.bytes, &mut self.progress);
        let sink: &mut Sink = &mut |bytes| {
            write(bytes)?;
            *done += bytes.len() as u64;
            progress(*done, all);
            Ok(())
        };
        let (source, pool, coding) = (&self.source, &self.pool, output.coding);
        let mut tally = Tally::default();
        match output.item {
            Item::Experts(layer, which) => {
                for (e, expert) in source.experts(layer, which)?.into_iter().enumerate() {
                    let delta = self.merge.and_then(|merge| merge.delta(output.item, e));
                    encode::matrix(pool, &expert.read()?, delta, coding, &mut tally, sink)?;
                }
            }
            item @ (Item::Embedding | Item::Unembedding | Item::Weight(..)) => {
                let delta = self.merge.and_then(|merge| merge.delta(item, 0));
                encode::matrix(pool, &source.matrix(item)?.read()?, delta, coding, &mut tally, sink)?;
            }
            item => {
                let bytes = encode::vector(&source.vector(item)?, coding, &mut tally);
                let wrong = || {
                    Error::tensor(Path::new("export"), &output.spec.name, "numbers that BF16 can hold", "larger ones")
                };
                sink(&bytes.ok_or_else(wrong)?)?;
            }
        }
        self.tallies.extend(coding.rounds_to().map(|format| (format, output.spec.name.clone(), tally)));
        Ok(())
    }
}

/// The tallies of all tensors by format; formats that kept everything are left out.
fn roundings(tallies: Vec<(DType, String, Tally)>) -> Vec<Rounding> {
    let one = |format: DType| {
        let of_it = || tallies.iter().filter(|(f, ..)| *f == format);
        let sum = |of: fn(&Tally) -> f64| of_it().map(|(_, _, tally)| of(tally)).sum::<f64>();
        let worst = of_it().max_by(|a, b| a.2.worst.total_cmp(&b.2.worst))?;
        let rounding = Rounding {
            format,
            values: of_it().map(|(_, _, tally)| tally.values).sum(),
            inexact: of_it().map(|(_, _, tally)| tally.inexact).sum(),
            max_relative_error: worst.2.worst,
            worst_tensor: worst.1.clone(),
            rms_relative_error: (sum(|t| t.error) / sum(|t| t.total)).sqrt(),
        };
        (rounding.inexact > 0).then_some(rounding)
    };
    [DType::BF16, DType::Q8_0, DType::Mxfp4].into_iter().filter_map(one).collect()
}
