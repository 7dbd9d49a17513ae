//! An adapter on its way into a model: what is read, how far the merged model is from base and adapter, and whether that
//! is near enough to be kept.
//!
//! Both models read the same text, token by token, in f32; nothing else tells a merge that works from one that only
//! looks like it.

use std::path::{Path, PathBuf};

use ossia_kernels::{Floats, Precision};
use ossia_model::checkpoint::Checkpoint;
use ossia_model::gpt_oss::adapter::{AdapterParameters, peft};
use ossia_model::gpt_oss::export::Format;
use ossia_model::gpt_oss::tensors::Dense;
use ossia_model::kv_cache::Held;
use ossia_model::{Logits, Model, Options, Work};
use serde_json::json;

use crate::error::Failure;
use crate::source::{Source, isa};

/// What is read where the user names no text of his own.
const TEXT: &str = include_str!("text.txt");
/// Tokens of it that are read.
const TOKENS: usize = 512;
/// The largest difference of a logit, over the largest logit, with which a merged model answers as base and adapter do.
const EXACT: f64 = 1e-3;
/// Rows of logits of a step.
const ROWS: usize = 64;

/// An adapter that is to be merged.
pub struct Adapter {
    /// Its factors.
    pub parameters: AdapterParameters,
    /// Their numbers.
    pub values: Floats,
}

impl Adapter {
    /// The PEFT folder `path`, for the model of `source`.
    pub fn read(path: &Path, source: &Source) -> Result<Self, Failure> {
        let (parameters, values) = peft::load(path, &source.config)?;
        Ok(Self { parameters, values: Floats::new(values) })
    }
}

/// How far two models are apart on some text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Difference {
    /// Tokens that were read.
    pub tokens: usize,
    /// The largest difference of a logit.
    pub max_delta: f64,
    /// The largest logit, by size.
    pub largest: f64,
    /// Sums of squares: of the differences, of the logits.
    squares: [f64; 2],
    /// Sum over tokens of KL(base + adapter, merged), nats.
    kl: f64,
    /// Tokens after which both have the same best token.
    same_best: usize,
}

impl Difference {
    /// Mean KL of a token's prediction, nats.
    pub fn mean_kl(&self) -> f64 {
        self.kl / self.tokens.max(1) as f64
    }

    /// The largest difference over the largest logit.
    pub fn relative(&self) -> f64 {
        self.max_delta / self.largest.max(f64::MIN_POSITIVE)
    }

    /// Root of the differences' squares over that of the logits' squares.
    pub fn rms(&self) -> f64 {
        (self.squares[0] / self.squares[1].max(f64::MIN_POSITIVE)).sqrt()
    }

    fn add(&mut self, want: &[f32], got: &[f32]) {
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
        let (want, got) = (wide(want), wide(got));
        let lse = |v: &[f64]| {
            let max = v.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            max + v.iter().map(|v| (v - max).exp()).sum::<f64>().ln()
        };
        let (a, b) = (lse(&want), lse(&got));
        for (w, g) in want.iter().zip(&got) {
            self.max_delta = self.max_delta.max((w - g).abs());
            self.largest = self.largest.max(w.abs());
            self.squares = [self.squares[0] + (w - g).powi(2), self.squares[1] + w * w];
            self.kl += (w - a).exp() * ((w - a) - (g - b));
        }
        let best = |v: &[f64]| (0..v.len()).max_by(|&i, &j| v[i].total_cmp(&v[j]));
        self.same_best += usize::from(best(&want) == best(&got));
        self.tokens += 1;
    }

    /// For people.
    fn line(&self) -> String {
        format!(
            "max |Δlogit| {:.3e} ({:.2e} of the largest logit), rms {:.2e} of the logits', mean KL {:.3e} nats, the same best \
             token after {:.1} %",
            self.max_delta,
            self.relative(),
            self.rms(),
            self.mean_kl(),
            100.0 * self.same_best as f64 / self.tokens.max(1) as f64,
        )
    }

    fn object(&self) -> serde_json::Value {
        json!({
            "max_delta_logit": self.max_delta, "relative_delta": self.relative(), "rms_delta": self.rms(),
            "mean_kl": self.mean_kl(), "same_best": self.same_best, "tokens": self.tokens,
        })
    }
}

/// What a merge has done, beside what the adapter does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Comparison {
    /// The merged model against base and adapter.
    pub merged: Difference,
    /// The base alone against base and adapter: a merge that is not much nearer has lost the adapter.
    pub base: Difference,
}

impl Comparison {
    /// For people, two lines, and what to do where more was lost than need be.
    pub fn lines(&self, format: Format) -> String {
        let (tokens, merged, base) = (self.merged.tokens, self.merged.line(), self.base.line());
        let is_rounded = format != Format::F32 && self.merged.relative() > EXACT;
        let advice =
            if is_rounded { "\n  what is lost is the format's rounding: --format f32 keeps every number" } else { "" };
        format!(
            "against base + adapter on {tokens} tokens\n  the merged model: {merged}\n  the base alone: {base}{advice}"
        )
    }

    /// For programs.
    pub fn object(&self) -> serde_json::Value {
        let mut object = self.merged.object();
        object["base"] = self.base.object();
        object
    }
}

/// The tokens that both models read: of the user's text, or of our own; without a tokenizer any tokens do.
pub fn tokens(source: &Source, text: Option<&PathBuf>) -> Result<Vec<u32>, Failure> {
    let own = text.map(|file| std::fs::read_to_string(file).map_err(|e| Failure::io(file, "read", e))).transpose()?;
    let vocab = source.config.vocab_size as u32;
    let is_told = source.has_tokenizer() || vocab == 201_088 || source.checkpoint.folder().is_none();
    let mut tokens = if is_told {
        source.tokenizer()?.encode_text(own.as_deref().unwrap_or(TEXT))?
    } else {
        (0..TOKENS as u32).map(|i| i.wrapping_mul(2_654_435_761) % vocab).collect()
    };
    tokens.truncate(TOKENS.min(source.config.max_context));
    if tokens.len() < 2 {
        return Err(Failure::Message("the text for the comparison has less than two tokens".into()));
    }
    Ok(tokens)
}

/// Reads `tokens` with the source and its adapter, and with what was written to `out`.
pub fn compare(source: &Source, adapter: &Adapter, out: &Path, tokens: &[u32]) -> Result<Comparison, Failure> {
    let merged = Checkpoint::open(out)?;
    let options = || -> Result<Options, Failure> {
        let (context, isa) = (tokens.len(), isa()?);
        let dense = Some(Dense::Kept);
        let precision = Precision::F32;
        let (sequences, logits_rows) = (2, 2 * ROWS);
        Ok(Options { precision, dense, isa, context, sequences, chunk: 2 * ROWS, logits_rows, ..Options::default() })
    };
    let with_adapter = options()?.with_adapter(&adapter.parameters);
    let mut want = Model::load(&source.checkpoint, with_adapter, None, &mut |_, _| {})?;
    let slot = want.attach(&adapter.parameters, &adapter.values);
    let slot = slot.map_err(|error| Failure::Message(error.to_string()))?;
    let mut got = Model::load(&merged, options()?, None, &mut |_, _| {})?;
    let mut held = [Held { adapter: Some(slot), ..Held::default() }, Held::default(), Held::default()];
    let mut comparison = Comparison::default();
    for tokens in tokens.chunks(ROWS) {
        let [with, base, own] = held.each_mut().map(|held| Work { held, tokens, logits: Logits::All });
        let (want, got) = (want.step(&mut [with, base])?, got.step(&mut [own])?);
        for row in 0..tokens.len() {
            comparison.merged.add(want.row(row), got.row(row));
            comparison.base.add(want.row(row), want.row(tokens.len() + row));
        }
    }
    Ok(comparison)
}

/// The largest mean KL with which a merge is kept, where the user has not said: F32 loses nothing, BF16 little beside a
/// route that flips now and then, four bits what an adapter's small changes are made of.
pub fn bound(format: Format) -> f64 {
    match format {
        Format::F32 => 1e-6,
        Format::Bf16 => 1e-2,
        Format::Mxfp4 | Format::Gguf(_) => 0.1,
    }
}

/// Takes away what was written to `out`, so that it is not taken for a model.
pub fn discard(out: &Path) -> Result<(), Failure> {
    let remove = |file: &Path| std::fs::remove_file(file).map_err(|e| Failure::io(file, "remove", e));
    if out.is_file() {
        return remove(out);
    }
    remove(&out.join("config.json"))?;
    let entries = std::fs::read_dir(out).map_err(|e| Failure::io(out, "list", e))?;
    for entry in entries {
        let file = entry.map_err(|e| Failure::io(out, "list", e))?.path();
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("model") && (name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json")) {
            remove(&file)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Difference;

    #[test]
    fn the_same_logits_do_not_differ_and_others_do() {
        let mut same = Difference::default();
        same.add(&[1.0, -2.0, 0.5], &[1.0, -2.0, 0.5]);
        assert_eq!((same.max_delta, same.mean_kl(), same.same_best), (0.0, 0.0, 1));
        let mut other = Difference::default();
        other.add(&[0.0, 0.0], &[0.0, 3f32.ln()]);
        // Half and half against a quarter and three quarters.
        let want = 0.5 * (0.5f64 / 0.25).ln() + 0.5 * (0.5f64 / 0.75).ln();
        assert!((other.mean_kl() - want).abs() < 1e-6, "{}", other.mean_kl());
        assert!((other.max_delta - 3f64.ln()).abs() < 1e-6);
        let mut best = Difference::default();
        best.add(&[1.0, 0.0], &[0.0, 1.0]);
        assert_eq!(best.same_best, 0);
    }
}
