//! Files to shards, once. What was made lies in a folder with `origin.json`, which says from what; a run that goes on finds
//! it there, and is refused where files or settings are others.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ossia_text::Harmony;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{Error, Result};
use super::reading::Reading;
use super::records::{digest_of, size_of};
use super::report::Report;
use super::writer::{TRAIN, VALIDATION, open_items, shard_path};
use super::{DataSettings, Prepared, Validation, chat};
use crate::dataset::{Document, Shard, ShardFile, VocabularyId, whole_file};

/// How far reading is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress<'a> {
    /// The file.
    pub file: &'a Path,
    /// Bytes of all files that are done.
    pub bytes: u64,
    /// Bytes of all files.
    pub all_bytes: u64,
    /// What was read so far.
    pub report: &'a Report,
}

/// What the data in a folder were made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Origin {
    settings: Value,
    vocabulary: String,
    /// Size and SHA-256 of each file.
    files: Vec<(u64, String)>,
    /// Shards of training and of validation.
    num_shards: [usize; 2],
    report: Report,
}

/// Reads `files` into `folder`, or finds there what an earlier call with the same files and settings has made. `progress`
/// may break off: then there is nothing.
pub fn prepare(
    files: &[PathBuf],
    settings: &DataSettings,
    harmony: &Harmony,
    folder: &Path,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Option<Prepared>> {
    check(files, settings)?;
    let all_bytes = all_files(files, settings).iter().map(|path| size_of(path)).sum::<Result<u64>>()?;
    std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, "make the folder", error))?;
    let vocabulary = VocabularyId::of(harmony.tokenizer());
    let origin_file = folder.join("origin.json");
    if origin_file.exists() {
        let origin = read_origin(&origin_file)?;
        return match is_same(&origin, files, settings, vocabulary, all_bytes, progress)? {
            None => Ok(None),
            Some(Some(what)) => {
                let problem =
                    format!("the data in this folder were made from other {what}: give another folder (--out)");
                Err(Error::file(&origin_file, problem))
            }
            Some(None) => open(folder, &origin, vocabulary).map(Some),
        };
    }
    whole_file::remove_left(folder).map_err(|error| Error::io(folder, "clear", error))?;
    let mut reading = Reading::new(settings, harmony, folder, all_bytes);
    let Some((files, num_shards)) = reading.all(files, progress)? else { return Ok(None) };
    let vocabulary_name = vocabulary.to_string();
    let report = reading.report;
    let origin = Origin { settings: named(settings), vocabulary: vocabulary_name, files, num_shards, report };
    let text = serde_json::to_string_pretty(&origin).unwrap_or_default();
    let written = whole_file::write(&origin_file, |out| out.write_all(text.as_bytes()));
    written.map_err(|error| Error::io(&origin_file, "write", error))?;
    open(folder, &origin, vocabulary).map(Some)
}

fn check(files: &[PathBuf], settings: &DataSettings) -> Result<()> {
    let bad = |what, wanted, found: String| Err(Error::Setting { what, wanted, found });
    if files.is_empty() {
        return bad("the data", "at least one file", "none".to_owned());
    }
    if settings.max_len == 0 {
        return bad("max_len", "at least 1", "0".to_owned());
    }
    if let super::Dates::Fixed(date) = &settings.manner.dates
        && !chat::is_date(date)
    {
        return bad("the date", "a day as YYYY-MM-DD", format!("{date:?}"));
    }
    match &settings.validation {
        Validation::Share(share) if !(0.0..=0.5).contains(share) => {
            bad("the share of validation", "0 to 0.5", share.to_string())
        }
        Validation::Files(held) => match held.iter().find(|path| files.contains(path)) {
            Some(path) => {
                bad("the files of validation", "other files than those of training", path.display().to_string())
            }
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// The files of training, then those of validation.
pub(super) fn all_files<'a>(files: &'a [PathBuf], settings: &'a DataSettings) -> Vec<&'a PathBuf> {
    let held: &[PathBuf] = if let Validation::Files(held) = &settings.validation { held } else { &[] };
    files.iter().chain(held).collect()
}

/// The settings that change what is made. Names of files do not: their contents count.
fn named(settings: &DataSettings) -> Value {
    let validation = match &settings.validation {
        Validation::Files(files) => serde_json::json!({ "files": files.len() }),
        other => serde_json::to_value(other).unwrap_or_default(),
    };
    serde_json::json!({
        "format": settings.format, "on_bad": settings.on_bad, "max_len": settings.max_len, "validation": validation,
        "validation_most": settings.validation_most, "seed": settings.seed, "manner": settings.manner,
    })
}

fn read_origin(path: &Path) -> Result<Origin> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, "read", error))?;
    let damaged = |_| Error::file(path, "is damaged: remove the folder that it is in, the data are made again");
    serde_json::from_str(&text).map_err(damaged)
}

/// What is not the same, if anything; nothing where `progress` broke off.
fn is_same(
    origin: &Origin,
    files: &[PathBuf],
    settings: &DataSettings,
    vocabulary: VocabularyId,
    all_bytes: u64,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Option<Option<&'static str>>> {
    if origin.settings != named(settings) {
        return Ok(Some(Some("settings")));
    }
    if origin.vocabulary != vocabulary.to_string() {
        return Ok(Some(Some("tokens (another model)")));
    }
    let files = all_files(files, settings);
    if files.len() != origin.files.len() {
        return Ok(Some(Some("files")));
    }
    let mut bytes = 0;
    for (path, (size, digest)) in files.into_iter().zip(&origin.files) {
        let now = Progress { file: path, bytes, all_bytes, report: &origin.report };
        if progress(&now).is_break() {
            return Ok(None);
        }
        if size_of(path)? != *size || hex(&digest_of(path)?) != *digest {
            return Ok(Some(Some("files")));
        }
        bytes += size;
    }
    Ok(Some(None))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What lies in the folder.
fn open(folder: &Path, origin: &Origin, vocabulary: VocabularyId) -> Result<Prepared> {
    let [num_train, num_validation] = origin.num_shards;
    let train = (0..num_train).map(|number| ShardFile::open(&shard_path(folder, TRAIN, number), vocabulary));
    let train = train.collect::<std::result::Result<_, _>>()?;
    let mut validation = Vec::new();
    for number in 0..num_validation {
        let shard = Shard::read(&shard_path(folder, VALIDATION, number), vocabulary)?;
        let documents = (0..shard.num_documents()).filter_map(|index| shard.document(index));
        validation.extend(documents.map(|d| Document { tokens: d.tokens.to_vec(), classes: d.classes.to_vec() }));
    }
    let (train_items, validation_items) = (open_items(folder, TRAIN)?, open_items(folder, VALIDATION)?);
    Ok(Prepared { train, validation, train_items, validation_items, report: origin.report.clone() })
}
