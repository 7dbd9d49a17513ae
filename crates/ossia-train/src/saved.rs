//! Checkpoints of a run that are whole or not there, and are looked at again when they are read.
//!
//! ```text
//! checkpoints/step-00000200/   a model as it stands (config.json, generation_config.json, model.safetensors of f32,
//!                              tokenizer.json), or an adapter
//!                              optimizer.safetensors (the moments), state.json (place, hashes of the others)
//! checkpoints/latest.json      the newest, and the hash of its state.json; a person may name an older one without it
//! ```
//!
//! A folder is written under a temporary name, each file synced and hashed, then renamed; the pointer is moved last. So
//! whatever kills a run, the pointer names a whole checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use ossia_kernels::{DType, Floats};
use ossia_model::checkpoint::safetensors;
use ossia_model::checkpoint::write::{TensorSpec, Writer, write_json};
use ossia_model::gpt_oss::config::Config;
use ossia_model::gpt_oss::parameters::{Parameter, Parameters};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::dataset::{Cursor, whole_file};
use crate::error::{Error, Result};
use crate::optimizer::Moments;
use crate::recipe::Recipe;
use crate::trainer::{Place, Trainer};

/// Where the moments are.
const MOMENTS: &str = "optimizer.safetensors";
/// Where a model's weights are.
const WEIGHTS: &str = "model.safetensors";

/// What a checkpoint is of.
pub trait Contents {
    /// Writes the trained numbers into `folder`, as a model or an adapter that can be used as it stands. The store adds
    /// the moments and the state.
    fn write(&self, folder: &Path) -> Result<()>;
    /// The optimizer's moments.
    fn moments(&self) -> &Moments;
}

/// state.json.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State<R = Recipe> {
    /// Updates done.
    pub step: u64,
    /// Where the next batch begins.
    pub cursor: Cursor,
    /// Tokens read so far.
    pub tokens: u64,
    /// Documents read so far.
    pub documents: u64,
    /// Time so far, seconds.
    pub elapsed_s: f64,
    /// The lowest validation loss so far, and its step.
    pub best: Option<(u64, f64)>,
    /// The recipe, which must be the same when the run goes on.
    pub recipe: R,
    /// SHA-256 of each other file.
    pub hashes: BTreeMap<String, String>,
}

/// latest.json.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pointer {
    name: String,
    /// None where a person has named an older checkpoint.
    state_sha256: Option<String>,
}

/// The folder of a run's checkpoints.
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Makes the folder, and removes what an interrupted save has left.
    pub fn open(run: &Path) -> Result<Self> {
        let folder = run.join("checkpoints");
        std::fs::create_dir_all(&folder).map_err(io(&folder, "make the folder"))?;
        let store = Self { folder };
        for name in store.names(".tmp-")? {
            remove(&store.folder.join(name))?;
        }
        whole_file::remove_left(&store.folder).map_err(io(&store.folder, "remove files left by a killed run from"))?;
        Ok(store)
    }

    /// Names in the folder that begin so, sorted.
    fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(io(&self.folder, "list"))? {
            let name = entry.map_err(io(&self.folder, "list"))?.file_name().to_string_lossy().into_owned();
            if name.starts_with(prefix) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Writes a checkpoint and moves the pointer to it, then removes old ones: the newest `keep` and the best stay.
    pub fn save<R: Serialize>(&self, contents: &dyn Contents, mut state: State<R>, keep: usize) -> Result<PathBuf> {
        let name = folder_name(state.step);
        let temporary = self.folder.join(format!(".tmp-{name}"));
        remove(&temporary)?;
        std::fs::create_dir(&temporary).map_err(io(&temporary, "make the folder"))?;
        let written = self.write(&temporary, contents, &mut state);
        let state_sha256 = written.inspect_err(|_| {
            // The first error is the one to tell.
            let _ = std::fs::remove_dir_all(&temporary);
        })?;
        let place = self.folder.join(&name);
        remove(&place)?;
        std::fs::rename(&temporary, &place).map_err(io(&place, "put the checkpoint in its place"))?;
        whole_file::sync_folder(&place).map_err(io(&place, "sync"))?;
        let pointer = Pointer { name, state_sha256: Some(state_sha256) };
        self.write_json("latest.json", &pointer)?;
        self.prune(state.step, state.best.map(|(step, _)| step), keep)?;
        Ok(place)
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let path = self.folder.join(name);
        Ok(write_json(&path, &json_of(&path, value)?)?)
    }

    /// Gives the hash of state.json.
    fn write<R: Serialize>(&self, folder: &Path, contents: &dyn Contents, state: &mut State<R>) -> Result<String> {
        contents.write(folder)?;
        let moments = contents.moments();
        write_runs(&folder.join(MOMENTS), &[("first", &moments.first), ("second", &moments.second)])?;
        for entry in std::fs::read_dir(folder).map_err(io(folder, "list"))? {
            let name = entry.map_err(io(folder, "list"))?.file_name().to_string_lossy().into_owned();
            let hash = hash_file(&folder.join(&name))?;
            state.hashes.insert(name, hash);
        }
        let path = folder.join("state.json");
        write_json(&path, &json_of(&path, state)?)?;
        hash_file(&path)
    }

    fn prune(&self, newest: u64, best: Option<u64>, keep: usize) -> Result<()> {
        let mut names = self.names("step-")?;
        names.retain(|name| *name != folder_name(newest));
        let surplus = names.len().saturating_sub(keep.saturating_sub(1));
        for name in names.into_iter().take(surplus) {
            if best.is_none_or(|step| name != folder_name(step)) {
                remove(&self.folder.join(name))?;
            }
        }
        Ok(())
    }

    /// The newest checkpoint, looked at; nothing where none was saved. `weights` is the file that its weights are in.
    pub fn latest<R: DeserializeOwned>(&self, weights: &str) -> Result<Option<Saved<R>>> {
        let file = self.folder.join("latest.json");
        if !file.exists() {
            return Ok(None);
        }
        let pointer: Pointer = read_json(&file)?;
        let step = pointer.name.strip_prefix("step-").filter(|step| step.bytes().all(|b| b.is_ascii_digit()));
        if step.is_none() {
            return Err(damaged(&file, &format!("names {:?}, wanted a checkpoint beside it", pointer.name)));
        }
        let folder = self.folder.join(&pointer.name);
        let state = folder.join("state.json");
        if let Some(wanted) = pointer.state_sha256
            && hash_file(&state)? != wanted
        {
            return Err(damaged(&state, "is not what was saved"));
        }
        let state: State<R> = read_json(&state)?;
        let saved = state.hashes.keys().map(String::as_str).filter(|name| !name.contains(['/', '\\']));
        let names: BTreeSet<&str> = saved.chain([weights, MOMENTS]).collect();
        for name in names {
            if state.hashes.get(name) != Some(&hash_file(&folder.join(name))?) {
                return Err(damaged(&folder.join(name), "is not what was saved"));
            }
        }
        Ok(Some(Saved { folder, state }))
    }

    /// The checkpoint of a step, where it is still there.
    pub fn folder_of(&self, step: u64) -> Option<PathBuf> {
        Some(self.folder.join(folder_name(step))).filter(|folder| folder.is_dir())
    }
}

/// A checkpoint that was looked at.
pub struct Saved<R = Recipe> {
    /// Where it is.
    pub folder: PathBuf,
    /// What it says.
    pub state: State<R>,
}

impl Saved {
    /// Puts a trainer of the same recipe where this one was.
    pub fn restore(&self, trainer: &mut Trainer) -> Result<()> {
        let weights = self.weights(trainer.parameters().tensors())?;
        let moments = self.moments(weights.len())?;
        let place = Place { step: self.state.step, cursor: self.state.cursor };
        trainer.restore(&place, weights, moments)
    }
}

impl<R> Saved<R> {
    /// The numbers of a model's tensors, in order.
    pub fn weights(&self, tensors: &[Parameter]) -> Result<Vec<f32>> {
        let file = self.folder.join(WEIGHTS);
        let saved = safetensors::open(&file)?;
        let mut weights = Vec::with_capacity(tensors.last().map_or(0, |p| p.range.end));
        for p in tensors {
            let tensor = saved.iter().find(|t| t.name == p.name && t.shape == p.shape && t.dtype == DType::F32);
            let tensor = tensor.ok_or_else(|| damaged(&file, &format!("has no F32 {} {:?}", p.name, p.shape)))?;
            weights.extend(tensor.bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)));
        }
        Ok(weights)
    }

    /// The moments of `len` numbers.
    pub fn moments(&self, len: usize) -> Result<Moments> {
        let file = self.folder.join(MOMENTS);
        let tensors = safetensors::open(&file)?;
        let run = |name: &str| {
            let tensor = tensors.iter().find(|t| t.name == name && t.dtype == DType::F32 && t.shape == [len]);
            let tensor = tensor.ok_or_else(|| damaged(&file, &format!("has no F32 {name} [{len}]")))?;
            Ok::<Vec<f32>, Error>(tensor.bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
        };
        Ok(Moments { first: run("first")?, second: run("second")? })
    }
}

/// A model of floats: what of a checkpoint can be run as it stands.
pub struct ModelFiles<'a> {
    /// Its tensors.
    pub parameters: &'a Parameters,
    /// Their numbers.
    pub weights: &'a [f32],
    /// Its vocabulary.
    pub tokenizer_json: &'a str,
    /// The optimizer's.
    pub moments: &'a Moments,
}

impl Contents for ModelFiles<'_> {
    fn write(&self, folder: &Path) -> Result<()> {
        let config = self.parameters.config();
        write_json(&folder.join("config.json"), &float_config(config))?;
        // No sampling, since the likeliest word of a small model is its best.
        let generation = serde_json::json!({ "do_sample": false, "eos_token_id": config.eos_ids });
        write_json(&folder.join("generation_config.json"), &generation)?;
        let tokenizer = folder.join("tokenizer.json");
        whole_file::write(&tokenizer, |out| out.write_all(self.tokenizer_json.as_bytes()))
            .map_err(io(&tokenizer, "write"))?;
        write_tensors(&folder.join(WEIGHTS), self.parameters.tensors(), self.weights)
    }

    fn moments(&self) -> &Moments {
        self.moments
    }
}

fn folder_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// A config.json without `quantization_config`: these weights are floats.
fn float_config(config: &Config) -> Value {
    let mut config = config.to_hf_json();
    if let Value::Object(map) = &mut config {
        map.remove("quantization_config");
    }
    config
}

fn write_tensors(path: &Path, tensors: &[Parameter], values: &[f32]) -> Result<()> {
    let spec = |name: &str, shape: &[usize]| TensorSpec { name: name.into(), dtype: DType::F32, shape: shape.into() };
    let specs: Vec<TensorSpec> = tensors.iter().map(|p| spec(&p.name, &p.shape)).collect();
    let mut writer = Writer::create(path, &specs, &[("format", "pt")])?;
    writer.write(&Floats::new(values.to_vec()).bytes())?;
    Ok(writer.finish()?)
}

fn write_runs(path: &Path, runs: &[(&str, &Vec<f32>)]) -> Result<()> {
    let spec = |(name, run): &(&str, &Vec<f32>)| TensorSpec {
        name: (*name).into(),
        dtype: DType::F32,
        shape: vec![run.len()],
    };
    let specs: Vec<TensorSpec> = runs.iter().map(spec).collect();
    let mut writer = Writer::create(path, &specs, &[])?;
    for (_, run) in runs {
        writer.write(&Floats::new(run.to_vec()).bytes())?;
    }
    Ok(writer.finish()?)
}

fn hash_file(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).map_err(io(path, "open"))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(io(path, "read"))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn json_of(path: &Path, value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|e| damaged(path, &format!("cannot be written: {e}")))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).map_err(io(path, "read"))?;
    serde_json::from_slice(&bytes).map_err(|e| damaged(path, &format!("is not what was saved: {e}")))
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io(path, "remove")(e)),
        _ => Ok(()),
    }
}

fn damaged(path: &Path, what: &str) -> Error {
    let advice = "to go on from an older checkpoint, write {\"name\": \"step-NNNNNNNN\"} into latest.json";
    let message = format!("{what}; {advice}, or begin again in another folder");
    Error::Saved { path: path.into(), message }
}

fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { path: path.into(), action, source }
}
