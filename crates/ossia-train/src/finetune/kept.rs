//! What a fine-tuning run keeps: checkpoints from which it goes on to the same bits, and the finished adapter.
//!
//! A checkpoint of an adapter is a PEFT folder as it stands, one of a whole model is a model as it stands; the store adds
//! moments and state (`saved`).

use std::path::{Path, PathBuf};

use ossia_model::checkpoint::Checkpoint;
use ossia_model::gpt_oss::adapter::{AdapterParameters, peft};
use ossia_model::gpt_oss::config::Config as ModelConfig;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::config::{Config, Method};
use super::tuner::Tuner;
use crate::dataset::whole_file;
use crate::error::{Error, Result};
use crate::optimizer::Moments;
use crate::saved::{Contents, ModelFiles, Saved};

/// The weights of an adapter's folder.
const ADAPTER: &str = "adapter_model.safetensors";
/// Bytes of each tensor that go into a model's fingerprint.
const LOOKED_AT: usize = 64;

/// What must be the same when a run goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The configuration.
    pub finetune: Config,
    /// The base: see [`fingerprint`].
    pub base: String,
}

/// The file of a checkpoint that the trained numbers are in.
pub fn weights_file(method: Method) -> &'static str {
    if method == Method::Full { "model.safetensors" } else { ADAPTER }
}

/// Tells models apart: a hash of the shape, of each tensor's name and form, and of the beginning of its numbers.
pub fn fingerprint(checkpoint: &Checkpoint, config: &ModelConfig) -> String {
    let mut hash = Sha256::new();
    hash.update(config.to_hf_json().to_string());
    for tensor in checkpoint.tensors() {
        hash.update(&tensor.name);
        hash.update(format!("{} {:?}", tensor.dtype, tensor.shape));
        hash.update(&tensor.bytes[..tensor.bytes.len().min(LOOKED_AT)]);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What of a run goes into a checkpoint.
pub struct Kept<'a> {
    /// What is trained.
    pub tuner: &'a Tuner,
    /// The base's name.
    pub base: &'a str,
    /// The base's vocabulary, for a model's own folder.
    pub tokenizer_json: &'a str,
}

impl Contents for Kept<'_> {
    fn write(&self, folder: &Path) -> Result<()> {
        let subject = self.tuner.subject();
        match (subject.adapter_parameters(), subject.parameters()) {
            (Some(adapter), _) => Ok(peft::save(folder, adapter, subject.values(), self.base)?),
            (None, Some(parameters)) => {
                let (weights, moments) = (subject.values(), self.tuner.moments());
                ModelFiles { parameters, weights, tokenizer_json: self.tokenizer_json, moments }.write(folder)
            }
            (None, None) => Ok(()),
        }
    }

    fn moments(&self) -> &Moments {
        self.tuner.moments()
    }
}

/// Puts a tuner of the same configuration where a checkpoint was; `updates` are those of a step.
pub fn restore(saved: &Saved<Identity>, tuner: &mut Tuner, model: &ModelConfig, updates: u64) -> Result<()> {
    let subject = tuner.subject();
    let values = match subject.adapter_parameters() {
        Some(adapter) => adapter_values(&saved.folder, adapter, model)?,
        None => saved.weights(subject.tensors())?,
    };
    let moments = saved.moments(values.len())?;
    tuner.restore(saved.state.step * updates, values, moments);
    Ok(())
}

fn adapter_values(folder: &Path, wanted: &AdapterParameters, model: &ModelConfig) -> Result<Vec<f32>> {
    let (found, values) = peft::load(folder, model)?;
    if found.config() == wanted.config() {
        return Ok(values);
    }
    let message = format!("holds another adapter: {:?}, wanted {:?}", found.config(), wanted.config());
    Err(Error::Saved { path: folder.into(), message })
}

/// Puts the files of the adapter or model in checkpoint `from` at `run`/adapter or `run`/model, without moments and
/// state; the folder is there as a whole or not at all, and on the disk when this returns.
pub fn finish(from: &Path, run: &Path, method: Method) -> Result<PathBuf> {
    let io = |path: &Path, action| {
        let path = path.to_owned();
        move |source| Error::Io { path, action, source }
    };
    let name = if method == Method::Full { "model" } else { "adapter" };
    let (place, temporary) = (run.join(name), run.join(format!(".tmp-{name}")));
    for old in [&temporary, &place] {
        match std::fs::remove_dir_all(old) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(old, "remove")(error)),
            _ => {}
        }
    }
    std::fs::create_dir_all(&temporary).map_err(io(&temporary, "make the folder"))?;
    for entry in std::fs::read_dir(from).map_err(io(from, "list"))? {
        let file = entry.map_err(io(from, "list"))?.path();
        let name = file.file_name().unwrap_or_default();
        if name == "optimizer.safetensors" || name == "state.json" {
            continue;
        }
        let copied = whole_file::write(&temporary.join(name), |out| {
            std::io::copy(&mut std::fs::File::open(&file)?, out).map(drop)
        });
        copied.map_err(io(&file, "copy"))?;
    }
    std::fs::rename(&temporary, &place).map_err(io(&place, "put the folder in its place"))?;
    whole_file::sync_folder(&place).map_err(io(&place, "sync"))?;
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_finished_is_on_the_disk_before_it_is_said_to_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let (from, run) = (dir.path().join("step-00000004"), dir.path().join("run"));
        std::fs::create_dir_all(&from).unwrap();
        for name in ["adapter_config.json", ADAPTER, "optimizer.safetensors", "state.json"] {
            std::fs::write(from.join(name), name).unwrap();
        }
        for _ in 0..2 {
            whole_file::SYNCED.take();
            let place = finish(&from, &run, Method::Sft).unwrap();
            let kept: Vec<_> = std::fs::read_dir(&place).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(kept.len(), 2, "{kept:?}");
            let (synced, temporary) = (whole_file::SYNCED.take(), run.join(".tmp-adapter"));
            for name in kept {
                assert_eq!(std::fs::read(place.join(&name)).unwrap(), name.as_encoded_bytes());
                assert!(synced.contains(&temporary.join(&name)), "{name:?}: {synced:?}");
            }
            // On systems without a way to sync a folder nothing is waited for.
            let folders: &[&PathBuf] = if cfg!(unix) { &[&temporary, &run] } else { &[] };
            assert!(folders.iter().all(|folder| synced.contains(folder)), "{synced:?}");
            assert_eq!(synced.last(), folders.last().copied().or(synced.last()));
        }
    }
}
