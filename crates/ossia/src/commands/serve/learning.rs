//! What a served model has learned and may still learn: adapters that are given on the command line, and how fine-tuning
//! jobs are done.

use std::path::{Path, PathBuf};

use ossia_model::checkpoint::{limits, read_json, safetensors};
use ossia_model::gpt_oss::adapter::{AdapterParameters, MOST_RANK, peft};
use ossia_model::gpt_oss::config::Config;
use ossia_serve::adapters::MOST_HELD;
use ossia_serve::training::{Times, TrainingOptions};
use ossia_train::finetune;

use crate::error::Failure;
use crate::source::ModelArgs;

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

/// What the memory plan is to know of adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// The largest rank.
    pub rank: usize,
    /// Bytes of all that are attached at once.
    pub bytes: u64,
}

/// Room for the adapters that were given, and for those that jobs will make: as many of these as are held at once, or as a
/// sixteenth of the free memory can hold, and at least one.
pub fn room(adapters: &[(String, PathBuf)], config: &Config, available: Option<u64>) -> Result<Room, Failure> {
    let usual = AdapterParameters::of(config, &finetune::Config::default().adapter_config());
    let fitting = available.map_or(u64::MAX, |available| available / 16 / usual.bytes());
    let of_jobs = usual.bytes() * fitting.clamp(1, MOST_HELD as u64);
    let mut room = Room { rank: usual.config().rank, bytes: of_jobs };
    for (_, folder) in adapters {
        peft::check_folder(folder)?;
        let json = read_json(&folder.join("adapter_config.json"), limits::CONFIG_BYTES)?;
        // What else is wrong with it is said when it is read.
        let rank = json.get("r").and_then(serde_json::Value::as_u64).unwrap_or(0);
        room.rank = room.rank.max(usize::try_from(rank).unwrap_or(usize::MAX).min(MOST_RANK));
        let tensors = safetensors::open(&folder.join("adapter_model.safetensors"))?;
        room.bytes += 4 * tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>() as u64).sum::<u64>();
    }
    Ok(room)
}

#[cfg(test)]
mod tests {
    use ossia_model::gpt_oss::adapter::{AdapterConfig, AdapterParameters, Targets, peft};
    use ossia_model::gpt_oss::config::Config;

    use super::{named_folder, room};

    #[test]
    fn room_is_for_what_is_given_and_for_what_jobs_will_make() {
        let config = Config::preset("tiny", None).unwrap();
        let one = room(&[], &config, Some(0)).unwrap();
        assert_eq!(room(&[], &config, None).unwrap().bytes, 8 * one.bytes);
        assert_eq!(room(&[], &config, Some(16 * 3 * one.bytes)).unwrap().bytes, 3 * one.bytes);
        let dir = tempfile::tempdir().unwrap();
        let targets = Targets { attention: true, ..Targets::default() };
        let given = AdapterParameters::of(&config, &AdapterConfig { rank: 24, alpha: 1.0, targets });
        peft::save(dir.path(), &given, &given.init(1), "tiny").unwrap();
        let with = room(&[("a".into(), dir.path().into()), ("b".into(), dir.path().into())], &config, Some(0)).unwrap();
        assert_eq!((one.rank, with.rank, with.bytes), (16, 24, one.bytes + 2 * given.bytes()));
        let error = room(&[("a".into(), dir.path().join("none"))], &config, None).unwrap_err().to_string();
        assert!(error.contains("an adapter's folder"), "{error}");
    }

    #[test]
    fn names_and_folders() {
        assert_eq!(named_folder("mine=a=b/c").unwrap(), ("mine".to_owned(), "a=b/c".into()));
        for wrong in ["", "mine", "=a", "mine="] {
            assert!(named_folder(wrong).unwrap_err().contains("NAME=FOLDER"), "{wrong}");
        }
    }
}
