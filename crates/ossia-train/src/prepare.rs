//! From a recipe's data to a tokenizer and shards on disk, once; a run that goes on finds them there.

use std::path::{Path, PathBuf};

use ossia_text::{Conversation, Harmony, Tokenizer};

use crate::dataset::{self, Document, Shard, VocabularyId, whole_file};
use crate::error::{Error, Result};
use crate::generate::{self, Family, Sample};
use crate::recipe::{Recipe, Source};

/// Documents of a shard.
const SHARD: u64 = 50_000;
/// Conversations that the vocabulary is trained on.
const VOCABULARY_TEXTS: u64 = 20_000;
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

/// Finds or makes the data of `recipe` in `folder`; `progress` is told what is done, and how many documents of how many.
pub fn prepare(recipe: &Recipe, folder: &Path, progress: &mut dyn FnMut(&str, u64, u64)) -> Result<Prepared> {
    let folder = match &recipe.data.source {
        Source::Generated => folder.to_owned(),
        Source::Shards(folder) => folder.clone(),
    };
    let generated = recipe.data.source == Source::Generated;
    let tokenizer_file = folder.join("tokenizer.json");
    if generated {
        make_folder(&folder)?;
        if !tokenizer_file.exists() {
            let json = train_tokenizer(recipe, progress)?;
            write_text(&tokenizer_file, &json)?;
        }
    }
    let tokenizer_json = read_text(&tokenizer_file)?;
    let tokenizer = Tokenizer::from_json(&tokenizer_json)?;
    let vocabulary = VocabularyId::of(&tokenizer);
    let harmony = Harmony::new(tokenizer.into())?;
    let stop_ids = harmony.stop_ids();
    let files = match generated {
        true => generate_shards(recipe, &harmony, vocabulary, &folder, progress)?,
        false => shard_files(&folder)?,
    };
    let mut shards = Vec::with_capacity(files.len());
    for (done, file) in files.iter().enumerate() {
        progress("reading shards", done as u64, files.len() as u64);
        shards.push(Shard::read(file, vocabulary)?);
    }
    let validation = validation(recipe, &harmony)?;
    Ok(Prepared { tokenizer_json, num_ids: vocabulary.num_ids as usize, stop_ids, shards, validation })
}

fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|source| Error::Io {
        path: folder.into(),
        action: "make the folder",
        source,
    })
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
    Ok(files)
}

/// The words of a conversation, without harmony's marks.
fn texts(conversation: &Conversation) -> String {
    let each = conversation.messages.iter().map(ossia_text::Message::content_text);
    each.collect::<Vec<_>>().join("\n")
}

fn train_tokenizer(recipe: &Recipe, progress: &mut dyn FnMut(&str, u64, u64)) -> Result<String> {
    let count = VOCABULARY_TEXTS.min(recipe.data.documents);
    let texts = (0..count).map(|index| {
        if index % 1000 == 0 {
            progress("training the vocabulary", index, count);
        }
        texts(&generate::training_sample(recipe.seed, index).conversation)
    });
    Ok(ossia_text::tokenizer::train_bpe(texts, recipe.data.vocabulary)?)
}

fn generate_shards(
    recipe: &Recipe,
    harmony: &Harmony,
    vocabulary: VocabularyId,
    folder: &Path,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<Vec<PathBuf>> {
    let count = recipe.data.documents;
    let mut files = Vec::new();
    for first in (0..count).step_by(SHARD as usize) {
        let file = folder.join(format!("{:05}.shard", first / SHARD));
        if !file.exists() {
            let mut shard = Shard::new(vocabulary);
            for index in first..(first + SHARD).min(count) {
                if index % 1000 == 0 {
                    progress("generating conversations", index, count);
                }
                let sample = generate::training_sample(recipe.seed, index);
                shard.push(&dataset::tokenise(harmony, &sample.conversation, sample.prompt)?)?;
            }
            shard.write(&file)?;
        }
        files.push(file);
    }
    Ok(files)
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
