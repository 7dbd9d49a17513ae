//! A small harmony, files of examples, and what is made of them.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ossia_text::{Harmony, Tokenizer, byte_level_tokenizer_json};
use serde_json::Value;

use super::super::*;
use crate::dataset::Documents;

/// One token a byte.
pub fn harmony() -> &'static Harmony {
    static HARMONY: OnceLock<Harmony> = OnceLock::new();
    HARMONY.get_or_init(|| {
        let tokenizer = Tokenizer::from_json(&byte_level_tokenizer_json(300).unwrap()).unwrap();
        Harmony::new(Arc::new(tokenizer)).unwrap()
    })
}

pub fn settings() -> DataSettings {
    DataSettings {
        format: Format::Auto,
        on_bad: OnBad::Fail,
        max_len: 2000,
        validation: Validation::None,
        validation_most: 100,
        seed: 1,
        manner: Manner { dates: Dates::None, ..Manner::default() },
    }
}

/// A folder with a file of these bytes.
pub struct Files {
    pub dir: tempfile::TempDir,
    pub file: PathBuf,
}

impl Files {
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("train.jsonl");
        std::fs::write(&file, bytes).unwrap();
        Self { dir, file }
    }

    pub fn of(examples: &[Value]) -> Self {
        Self::new(examples.iter().map(|example| format!("{example}\n")).collect::<String>())
    }

    pub fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    pub fn prepare(&self, settings: &DataSettings) -> Result<Prepared> {
        prepare_in(std::slice::from_ref(&self.file), settings, &self.out())
    }

    pub fn error(&self, settings: &DataSettings) -> String {
        let text = self.prepare(settings).unwrap_err().to_string();
        assert!(!text.contains('\n'), "one line: {text}");
        text
    }
}

pub fn prepare_in(files: &[PathBuf], settings: &DataSettings, out: &Path) -> Result<Prepared> {
    let go_on = &mut |_: &Progress| ControlFlow::Continue(());
    Ok(prepare(files, settings, harmony(), out, go_on)?.expect("nobody breaks off"))
}

/// All documents, in order.
pub fn documents(prepared: Prepared) -> Vec<Document> {
    let mut all = Vec::new();
    for shard in prepared.train {
        let shard = Documents::from(shard);
        all.extend((0..shard.num_documents()).map(|index| shard.document(index).unwrap().unwrap()));
    }
    all
}

/// What a document learns, as text, and what comes before.
pub fn parts(document: &Document) -> (String, String) {
    let text = |learned: bool| {
        let both = document.tokens.iter().zip(&document.classes);
        let tokens: Vec<u32> = both.filter(|(_, class)| (**class != 0) == learned).map(|(token, _)| *token).collect();
        String::from_utf8(harmony().tokenizer().decode(&tokens)).unwrap()
    };
    (text(false), text(true))
}
