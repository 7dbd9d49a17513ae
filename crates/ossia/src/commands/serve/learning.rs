//! What a served model has learned and may still learn: adapters that are given on the command line, and how fine-tuning
//! jobs are done.

use std::path::{Path, PathBuf};

use ossia_model::checkpoint::{limits, read_json};
use ossia_model::gpt_oss::adapter::MOST_RANK;
use ossia_serve::training::{Times, TrainingOptions};

use crate::error::Failure;
use crate::source::ModelArgs;

/// The rank of the adapters that fine-tuning jobs make.
const RANK_OF_JOBS: usize = 16;

/// Fine-tuning jobs are done by this program, over the model that is served, in a folder of `data`.
pub fn training(model: &ModelArgs, threads: Option<u16>, data: &Path) -> Result<TrainingOptions, Failure> {
    let io = |action| move |error| Failure::io("the program", action, error);
    let program = std::env::current_exe().map_err(io("find it"))?;
    // The child works in another folder.
    let absolute = |path: &Path| std::path::absolute(path).map_err(io("find the current folder of"));
    let path = Path::new(&model.model);
    let model = if path.exists() { absolute(path)?.into_os_string() } else { path.as_os_str().to_owned() };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.map_or((cores / 2).max(1), usize::from);
    let arguments = vec!["finetune".into(), "-m".into(), model, "--threads".into(), threads.to_string().into()];
    Ok(TrainingOptions { program, arguments, folder: absolute(data)?.join("fine-tuning"), times: Times::default() })
}

/// NAME=FOLDER.
pub fn named_folder(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, folder)) if !name.is_empty() && !folder.is_empty() => Ok((name.to_owned(), folder.into())),
        _ => Err(format!("wanted NAME=FOLDER, such as mine=runs/mine/adapter, found {text:?}")),
    }
}

/// The largest rank of an adapter that the server will use, for its memory plan.
pub fn largest_rank(adapters: &[(String, PathBuf)]) -> Result<usize, Failure> {
    let mut largest = RANK_OF_JOBS;
    for (_, folder) in adapters {
        let config = read_json(&folder.join("adapter_config.json"), limits::CONFIG_BYTES)?;
        // What else is wrong with it is said when it is read.
        let rank = config.get("r").and_then(serde_json::Value::as_u64).unwrap_or(0);
        largest = largest.max(usize::try_from(rank).unwrap_or(usize::MAX).min(MOST_RANK));
    }
    Ok(largest)
}

#[cfg(test)]
mod tests {
    use super::named_folder;

    #[test]
    fn names_and_folders() {
        assert_eq!(named_folder("mine=a=b/c").unwrap(), ("mine".to_owned(), "a=b/c".into()));
        for wrong in ["", "mine", "=a", "mine="] {
            assert!(named_folder(wrong).unwrap_err().contains("NAME=FOLDER"), "{wrong}");
        }
    }
}
