//! Examples into documents, pairs or items, and these onto disk, file by file; what cannot be used is an error or counted.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ossia_text::Harmony;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::error::{Bad, Error, Result};
use super::items::Item;
use super::prepare::{Progress, all_files, hex};
use super::records::{Record, Records};
use super::report::{MOST_NAMED, Report, Skipped};
use super::talk::Talk;
use super::writer::{TRAIN, VALIDATION, Writer, clear};
use super::{DataSettings, Format, OnBad, Validation, chat, foreign, preference, turns};
use crate::dataset::{Document, VocabularyId};

/// Examples between two reports of how far it is.
const BETWEEN_REPORTS: u64 = 256;

/// Files on their way to shards.
pub(super) struct Reading<'a> {
    settings: &'a DataSettings,
    harmony: &'a Harmony,
    vocabulary: VocabularyId,
    folder: &'a Path,
    all_bytes: u64,
    bytes_before: u64,
    pub report: Report,
}

/// Size and digest of each file, and the number of shards of training and of validation.
pub(super) type Made = (Vec<(u64, String)>, [usize; 2]);

/// What an example comes to.
enum Example {
    Documents(Vec<Document>),
    Item(Item),
}

/// Which examples are kept aside: those whose number, drawn from their content, is below a bound.
#[derive(Debug, Clone, Copy)]
struct Bound {
    below: u64,
    /// The smallest and the largest number seen.
    seen: Option<(u64, u64)>,
}

impl<'a> Reading<'a> {
    /// Nothing is read yet; the files have `all_bytes` together.
    pub fn new(settings: &'a DataSettings, harmony: &'a Harmony, folder: &'a Path, all_bytes: u64) -> Self {
        let vocabulary = VocabularyId::of(harmony.tokenizer());
        Self { settings, harmony, vocabulary, folder, all_bytes, bytes_before: 0, report: Report::default() }
    }

    /// Reads everything; a second time where a share of so few examples has left one side empty. Nothing where `progress`
    /// broke off.
    pub fn all(
        &mut self,
        files: &[PathBuf],
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Option<Made>> {
        let share = if let Validation::Share(share) = self.settings.validation { share } else { 0.0 };
        let mut bound = Bound { below: (share * u64::MAX as f64) as u64, seen: None };
        let mut made = self.once(files, &mut bound, progress)?;
        let below = match (self.report.kept, self.report.validation, bound.seen) {
            (0, 1.., Some((_, largest))) => Some(largest),
            (2.., 0, Some((smallest, largest))) if share > 0.0 && smallest < largest => Some(smallest + 1),
            _ => None,
        };
        // Of files for validation nothing is taken for training.
        if let Some(below) = below.filter(|_| share > 0.0 && made.is_some()) {
            made = self.once(files, &mut Bound { below, seen: None }, progress)?;
        }
        match made {
            Some(_) if self.report.kept == 0 => Err(self.nothing(files)),
            made => Ok(made),
        }
    }

    fn once(
        &mut self,
        files: &[PathBuf],
        bound: &mut Bound,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Option<Made>> {
        clear(self.folder)?;
        (self.report, self.bytes_before) = (Report::default(), 0);
        let mut out = [TRAIN, VALIDATION].map(|name| Writer::new(self.folder, name, self.vocabulary));
        let mut digests = Vec::new();
        for (place, path) in all_files(files, self.settings).into_iter().enumerate() {
            let held = place >= files.len();
            let Some(digest) = self.file(path, held, bound, &mut out, progress)? else {
                return Ok(None);
            };
            digests.push(digest);
        }
        let [train, validation] = out;
        Ok(Some((digests, [train.finish()?, validation.finish()?])))
    }

    fn nothing(&self, files: &[PathBuf]) -> Error {
        let files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
        let Report { read, num_skipped, .. } = self.report;
        let why = match self.report.skipped.first() {
            Some(Skipped { file, line, why }) => {
                format!("{num_skipped} of {read} were passed over, the first {}:{line}: {why}", file.display())
            }
            None => "there is none, wanted one JSON object a line".to_owned(),
        };
        Error::Empty { files: files.join(", "), why }
    }

    fn file(
        &mut self,
        path: &Path,
        held: bool,
        bound: &mut Bound,
        out: &mut [Writer; 2],
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Option<(u64, String)>> {
        let mut records = Records::open(path)?;
        let mut format = self.settings.format;
        let mut num = 0u64;
        while let Some(record) = records.next()? {
            if num.is_multiple_of(BETWEEN_REPORTS) {
                let bytes = self.bytes_before + records.num_bytes();
                let now = Progress { file: path, bytes, all_bytes: self.all_bytes, report: &self.report };
                if progress(&now).is_break() {
                    return Ok(None);
                }
            }
            num += 1;
            let is_full = self.report.validation >= self.settings.validation_most as u64;
            if held && is_full {
                continue;
            }
            self.report.read += 1;
            let chance = chance_of(&record, self.settings.seed);
            match self.example(&record, &mut format, chance) {
                Ok(made) => {
                    bound.see(chance);
                    let aside = held || (chance < bound.below && !is_full);
                    self.keep(made, aside, out)?;
                }
                Err(bad) => self.pass_over(path, record.line, bad)?,
            }
        }
        let size = records.num_bytes();
        self.bytes_before += size;
        Ok(Some((size, hex(&records.digest()))))
    }

    fn example(&mut self, record: &Record, format: &mut Format, chance: u64) -> std::result::Result<Example, Bad> {
        let value = parse(record)?;
        let example = value.as_object().ok_or("wanted a JSON object, an example a line")?;
        if *format == Format::Auto {
            *format = guess(example)?;
        }
        if self.report.format == Format::Auto {
            self.report.format = *format;
        }
        let (harmony, max_len, manner) = (self.harmony, self.settings.max_len, &self.settings.manner);
        match format {
            Format::Preference => {
                let pair = preference::pair(example)?;
                let start = preference::answer_start(&pair[0]);
                let question = Talk { said: pair[0].said[..start].to_vec(), ..pair[0].clone() };
                let prompt = question.told(manner, chance).messages.len();
                let told = pair.map(|talk| talk.told(manner, chance));
                Ok(Example::Documents(turns::pair(harmony, &told, prompt, max_len)?.into()))
            }
            Format::Items => {
                let prompt = turns::prompt(harmony, &chat::talk(example)?.told(manner, chance), max_len)?;
                Ok(Example::Item(Item { prompt, item: value }))
            }
            format => {
                let told = talk(example, *format)?.told(manner, chance);
                turns::documents(harmony, &told, max_len).map(Example::Documents)
            }
        }
    }

    fn keep(&mut self, made: Example, aside: bool, out: &mut [Writer; 2]) -> Result<()> {
        let report = &mut self.report;
        *(if aside { &mut report.validation } else { &mut report.kept }) += 1;
        let out = &mut out[usize::from(aside)];
        match made {
            Example::Documents(documents) => {
                if !aside {
                    documents.iter().for_each(|document| report.count(&document.tokens, &document.classes));
                }
                out.documents(&documents)
            }
            Example::Item(item) => {
                if !aside {
                    report.count(&item.prompt, &vec![0; item.prompt.len()]);
                }
                out.item(&item)
            }
        }
    }

    fn pass_over(&mut self, path: &Path, line: u64, bad: Bad) -> Result<()> {
        self.report.num_skipped += 1;
        self.report.too_long += u64::from(matches!(bad, Bad::TooLong(_)));
        let why = bad.text().replace(char::is_control, " ");
        if self.settings.on_bad == OnBad::Fail {
            return Err(Error::Line { path: path.to_owned(), line, problem: why });
        }
        if self.report.skipped.len() < MOST_NAMED {
            self.report.skipped.push(Skipped { file: path.to_owned(), line, why });
        }
        Ok(())
    }
}

impl Report {
    fn count(&mut self, tokens: &[u32], classes: &[u8]) {
        self.documents += 1;
        self.tokens += tokens.len() as u64;
        self.longest = self.longest.max(tokens.len() as u64);
        for &class in classes {
            if let Some(count) = self.tokens_by_class.get_mut(usize::from(class)) {
                *count += 1;
            }
        }
    }
}

impl Bound {
    fn see(&mut self, chance: u64) {
        let (smallest, largest) = self.seen.unwrap_or((chance, chance));
        self.seen = Some((smallest.min(chance), largest.max(chance)));
    }
}

/// The JSON of an example.
pub(super) fn parse(record: &Record) -> std::result::Result<Value, Bad> {
    let text = record.text.as_ref().map_err(|problem| Bad::Wrong(problem.clone()))?;
    serde_json::from_str(text).map_err(|error| not_json(text, &error))
}

/// The conversation of an example that holds one.
pub(super) fn talk(example: &Map<String, Value>, format: Format) -> std::result::Result<Talk, Bad> {
    match format {
        Format::ShareGpt => foreign::share_gpt(example),
        Format::Alpaca => foreign::alpaca(example),
        _ => chat::talk(example),
    }
}

/// A number that the example's text and the seed give.
fn chance_of(record: &Record, seed: u64) -> u64 {
    let Ok(text) = &record.text else { return 0 };
    let digest: [u8; 32] = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(text).finalize().into();
    digest.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The form of an example, by its keys.
pub(super) fn guess(example: &Map<String, Value>) -> std::result::Result<Format, Bad> {
    let has = |key: &str| example.contains_key(key);
    if has("preferred_output") || has("chosen") && has("rejected") {
        Ok(Format::Preference)
    } else if has("messages") {
        let last = example.get("messages").and_then(Value::as_array).and_then(|messages| messages.last());
        let asks = last.and_then(|message| message.get("role")).is_some_and(|role| role != "assistant");
        Ok(if asks && example.len() > 1 && !has("tools") { Format::Items } else { Format::Chat })
    } else if has("conversations") {
        Ok(Format::ShareGpt)
    } else if has("instruction") && has("output") {
        Ok(Format::Alpaca)
    } else {
        let keys: Vec<&str> = example.keys().take(8).map(String::as_str).collect();
        let wanted =
            "messages (chat), preferred_output or chosen (pairs), conversations (ShareGPT), instruction (Alpaca)";
        Err(Bad::Wrong(format!("wanted an example with one of the keys {wanted}; found the keys {}", keys.join(", "))))
    }
}

/// What the parser says, and what it may come from.
fn not_json(text: &str, error: &serde_json::Error) -> Bad {
    let found: String = text.chars().take(40).collect();
    let advice = match text.as_bytes().first() {
        Some(b'{') if error.is_eof() => {
            "it was cut short, or is written over several lines: wanted an object on one line"
        }
        Some(b'{') => "wanted one JSON object on the line",
        _ => "wanted a line that begins with {",
    };
    Bad::Wrong(format!("is not JSON ({error}): {advice}; it begins {found:?}"))
}
