//! From a recipe's data to a tokenizer and shards on disk, once; a run that goes on finds them there.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ossia_text::{Conversation, Harmony, RenderOptions, Tokenizer, byte_level_tokenizer_json};

use crate::dataset::{self, Document, Shard, VocabularyId, whole_file};
use crate::error::{Error, Result};
use crate::generate::{self, Family, Sample};
use crate::recipe::{Recipe, Source};

/// Documents of a shard.
const SHARD: u64 = 50_000;
/// Conversations that the vocabulary is trained on.
const VOCABULARY_TEXTS: u64 = 20_000;
/// 256 bytes and harmony's nine special tokens.
const BYTES_ONLY: usize = 265;
/// Held-out conversations are drawn by another seed than those of training.
const VALIDATION_SEED: u64 = 0x7661_6c69_6461_7465;

/// What a run reads.
pub struct Prepared {
    /// The vocabulary.
    pub tokenizer_json: String,
    /// Tokens of the vocabulary.
    pub num_ids: usize,
    /// Tokens that end an answer.
    pub stop_ids: Vec<u32>,
    /// What is learned.
    pub shards: Vec<Shard>,
    /// What is measured.
    pub validation: Vec<Document>,
}

/// Told what is done, and how many documents of how many; it may break off.
pub type Progress<'a> = dyn FnMut(&str, u64, u64) -> ControlFlow<()> + 'a;

/// Finds or makes the data of `recipe` in `folder`; nothing where `progress` has broken off.
pub fn prepare(recipe: &Recipe, folder: &Path, progress: &mut Progress) -> Result<Option<Prepared>> {
    let folder = match &recipe.data.source {
        Source::Generated => folder.to_owned(),
        Source::Shards(folder) => folder.clone(),
    };
    let generated = recipe.data.source == Source::Generated;
    let tokenizer_file = folder.join("tokenizer.json");
    if generated {
        make_folder(&folder)?;
        whole_file::remove_left(&folder).map_err(|source| Error::Io {
            path: folder.clone(),
            action: "remove files left by a killed run from",
            source,
        })?;
        check_origin(recipe, &folder)?;
        if !tokenizer_file.exists() {
            let Some(json) = train_tokenizer(recipe, progress)? else { return Ok(None) };
            write_text(&tokenizer_file, &json)?;
        }
    }
    let tokenizer = Tokenizer::from_json_file(&tokenizer_file)?;
    let tokenizer_json = read_text(&tokenizer_file)?;
    let vocabulary = VocabularyId::of(&tokenizer);
    let harmony = Harmony::new(tokenizer.into())?;
    let stop_ids = harmony.stop_ids();
    let files = match generated {
        true => generate_shards(recipe, &harmony, vocabulary, &folder, progress)?,
        false => Some(shard_files(&folder)?),
    };
    let Some(files) = files else { return Ok(None) };
    let mut shards = Vec::with_capacity(files.len());
    for (done, file) in files.iter().enumerate() {
        if progress("reading shards", done as u64, files.len() as u64).is_break() {
            return Ok(None);
        }
        shards.push(Shard::read(file, vocabulary)?);
    }
    let validation = validation(recipe, &harmony)?;
    Ok(Some(Prepared { tokenizer_json, num_ids: vocabulary.num_ids as usize, stop_ids, shards, validation }))
}

fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|source| Error::Io {
        path: folder.into(),
        action: "make the folder",
        source,
    })
}

/// Data that are there must be what this recipe would make: a run may have been stopped while it made them, and begun
/// again with another recipe.
fn check_origin(recipe: &Recipe, folder: &Path) -> Result<()> {
    let (data, file) = (&recipe.data, folder.join("origin.json"));
    let wanted = format!(
        "{{\"seed\": {}, \"documents\": {}, \"vocabulary\": {}}}\n",
        recipe.seed, data.documents, data.vocabulary
    );
    if !file.exists() {
        return write_text(&file, &wanted);
    }
    let found = read_text(&file)?;
    if found == wanted {
        return Ok(());
    }
    let message = format!(
        "says that the data were made from {}, {} has {}; remove the folder, or give another --out",
        found.trim_end().replace(char::is_control, " "),
        recipe.file.display(),
        wanted.trim_end()
    );
    Err(Error::Saved { path: file, message })
}

fn write_text(file: &Path, text: &str) -> Result<()> {
    let written = whole_file::write(file, |out| out.write_all(text.as_bytes()));
    written.map_err(|source| Error::Io { path: file.into(), action: "write", source })
}

fn read_text(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(|source| Error::Io { path: file.into(), action: "read", source })
}

/// Every *.shard of a folder, by name.
fn shard_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |source| Error::Io { path: folder.into(), action: "list the shards", source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "shard") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        let message = "data.source: wanted a folder with *.shard files, found none".to_owned();
        return Err(Error::Saved { path: folder.into(), message });
    }
    Ok(files)
}

/// All that stands between harmony's marks when a conversation is rendered: headers and the system message too, which
/// every document holds, and which cost most of its tokens where the vocabulary does not know them.
fn texts(bytes: &Harmony, conversation: &Conversation) -> Result<String> {
    let tokens = bytes.render_for_training(conversation, &RenderOptions::default())?;
    let tokenizer = bytes.tokenizer();
    let parts = tokens.split(|&id| tokenizer.is_special(id));
    let parts: Vec<_> = parts.map(|ids| String::from_utf8_lossy(&tokenizer.decode(ids)).into_owned()).collect();
    Ok(parts.join("\n"))
}

fn train_tokenizer(recipe: &Recipe, progress: &mut Progress) -> Result<Option<String>> {
    // One token a byte: enough to render.
    let bytes = Harmony::new(Tokenizer::from_json(&byte_level_tokenizer_json(BYTES_ONLY)?)?.into())?;
    let count = VOCABULARY_TEXTS.min(recipe.data.documents);
    let (mut broken_off, mut failed) = (false, None);
    let texts = (0..count).map_while(|index| {
        broken_off |= index % 1000 == 0 && progress("training the vocabulary", index, count).is_break();
        let sample = (!broken_off).then(|| generate::training_sample(recipe.seed, index))?;
        texts(&bytes, &sample.conversation).map_err(|error| failed = Some(error)).ok()
    });
    let json = ossia_text::tokenizer::train_bpe(texts, recipe.data.vocabulary);
    match failed {
        Some(error) => Err(error),
        None if broken_off => Ok(None),
        None => Ok(Some(json?)),
    }
}

fn generate_shards(
    recipe: &Recipe,
    harmony: &Harmony,
    vocabulary: VocabularyId,
    folder: &Path,
    progress: &mut Progress,
) -> Result<Option<Vec<PathBuf>>> {
    let count = recipe.data.documents;
    let mut files = Vec::new();
    for first in (0..count).step_by(SHARD as usize) {
        let file = folder.join(format!("{:05}.shard", first / SHARD));
        if !file.exists() {
            let mut shard = Shard::new(vocabulary);
            for index in first..(first + SHARD).min(count) {
                if index % 1000 == 0 && progress("generating conversations", index, count).is_break() {
                    return Ok(None);
                }
                let sample = generate::training_sample(recipe.seed, index);
                shard.push(&dataset::tokenise(harmony, &sample.conversation, sample.prompt)?)?;
            }
            shard.write(&file)?;
        }
        files.push(file);
    }
    Ok(Some(files))
}

/// Held-out conversations of all families in turn.
fn validation(recipe: &Recipe, harmony: &Harmony) -> Result<Vec<Document>> {
    let families = Family::ALL;
    let each = recipe.validation.documents.div_ceil(families.len() as u64) as usize;
    let samples: Vec<Vec<Sample>> =
        families.iter().map(|&f| generate::held_out(f, None, VALIDATION_SEED, each)).collect();
    let mut documents = Vec::new();
    for sample in samples.iter().flatten() {
        documents.push(dataset::tokenise(harmony, &sample.conversation, sample.prompt)?);
    }
    Ok(documents)
}
