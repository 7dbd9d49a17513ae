//! Checkpoints of a run that are whole or not there, and are looked at again when they are read.
//!
//! ```text
//! checkpoints/step-00000200/   config.json, generation_config.json, model.safetensors (f32), tokenizer.json:
//!                              a model as it stands
//!                              optimizer.safetensors (the moments), state.json (place, hashes of the others)
//! checkpoints/latest.json      the newest, and the hash of its state.json; a person may name an older one without it
//! ```
//!
//! A folder is written under a temporary name, each file synced and hashed, then renamed; the pointer is moved last. So
//! whatever kills a run, the pointer names a whole checkpoint.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use ossia_kernels::{DType, Floats};
use ossia_model::checkpoint::safetensors;
use ossia_model::checkpoint::write::{TensorSpec, Writer, write_json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::dataset::{Cursor, whole_file};
use crate::error::{Error, Result};
use crate::optimizer::Moments;
use crate::recipe::Recipe;
use crate::trainer::{Place, Trainer};

/// Files of a checkpoint whose hashes its state holds.
const FILES: [&str; 5] =
    ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "optimizer.safetensors"];

/// Those that a run which goes on reads.
const READ: [&str; 2] = ["model.safetensors", "optimizer.safetensors"];

/// state.json.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
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
    pub recipe: Recipe,
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
    pub fn save(&self, trainer: &Trainer, tokenizer_json: &str, mut state: State, keep: usize) -> Result<PathBuf> {
        let name = folder_name(state.step);
        let temporary = self.folder.join(format!(".tmp-{name}"));
        remove(&temporary)?;
        std::fs::create_dir(&temporary).map_err(io(&temporary, "make the folder"))?;
        let written = self.write(&temporary, trainer, tokenizer_json, &mut state);
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
    fn write(&self, folder: &Path, trainer: &Trainer, tokenizer_json: &str, state: &mut State) -> Result<String> {
        write_json(&folder.join("config.json"), &float_config(trainer))?;
        write_json(&folder.join("generation_config.json"), &generation_config(trainer))?;
        let tokenizer = folder.join("tokenizer.json");
        whole_file::write(&tokenizer, |out| out.write_all(tokenizer_json.as_bytes()))
            .map_err(io(&tokenizer, "write"))?;
        write_model(&folder.join("model.safetensors"), trainer)?;
        let moments = trainer.moments();
        write_runs(&folder.join("optimizer.safetensors"), &[("first", &moments.first), ("second", &moments.second)])?;
        for name in FILES {
            state.hashes.insert(name.into(), hash_file(&folder.join(name))?);
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

    /// The newest checkpoint, looked at; nothing where none was saved.
    pub fn latest(&self) -> Result<Option<Saved>> {
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
        let state: State = read_json(&state)?;
        for name in FILES.into_iter().filter(|name| READ.contains(name) || state.hashes.contains_key(*name)) {
            if state.hashes.get(name) != Some(&hash_file(&folder.join(name))?) {
                return Err(damaged(&folder.join(name), "is not what was saved"));
            }
        }
        Ok(Some(Saved { folder, state }))
    }
}

/// A checkpoint that was looked at.
pub struct Saved {
    /// Where it is.
    pub folder: PathBuf,
    /// What it says.
    pub state: State,
}

impl Saved {
    /// Puts a trainer of the same recipe where this one was.
    pub fn restore(&self, trainer: &mut Trainer) -> Result<()> {
        let len = trainer.parameters().len();
        let file = self.folder.join("model.safetensors");
        let tensors = safetensors::open(&file)?;
        let mut weights = Vec::with_capacity(len);
        for p in trainer.parameters().tensors() {
            let tensor = tensors.iter().find(|t| t.name == p.name && t.shape == p.shape && t.dtype == DType::F32);
            let tensor = tensor.ok_or_else(|| damaged(&file, &format!("has no F32 {} {:?}", p.name, p.shape)))?;
            weights.extend(tensor.bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)));
        }
        let file = self.folder.join("optimizer.safetensors");
        let tensors = safetensors::open(&file)?;
        let run = |name: &str| {
            let tensor = tensors.iter().find(|t| t.name == name && t.dtype == DType::F32 && t.shape == [len]);
            let tensor = tensor.ok_or_else(|| damaged(&file, &format!("has no F32 {name} [{len}]")))?;
            Ok::<Vec<f32>, Error>(tensor.bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
        };
        let moments = Moments { first: run("first")?, second: run("second")? };
        let place = Place { step: self.state.step, cursor: self.state.cursor };
        trainer.restore(&place, weights, moments)
    }
}

fn folder_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// A config.json without `quantization_config`: these weights are floats.
fn float_config(trainer: &Trainer) -> Value {
    let mut config = trainer.parameters().config().to_hf_json();
    if let Value::Object(map) = &mut config {
        map.remove("quantization_config");
    }
    config
}

/// What ends an answer; and no sampling, since the likeliest word of a small model is its best.
fn generation_config(trainer: &Trainer) -> Value {
    serde_json::json!({ "do_sample": false, "eos_token_id": trainer.parameters().config().eos_ids })
}

fn write_model(path: &Path, trainer: &Trainer) -> Result<()> {
    let tensors = trainer.parameters().tensors();
    let spec = |name: &str, shape: &[usize]| TensorSpec { name: name.into(), dtype: DType::F32, shape: shape.into() };
    let specs: Vec<TensorSpec> = tensors.iter().map(|p| spec(&p.name, &p.shape)).collect();
    let mut writer = Writer::create(path, &specs, &[("format", "pt")])?;
    writer.write(&Floats::new(trainer.weights().to_vec()).bytes())?;
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

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
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
