//! One completion as it arrives: text with log probabilities in the form of the older API, the prompt before it where
//! the client wants it echoed.

use ossia_text::Harmony;

use crate::turn::{FinishReason, RawEvent, RawStream, TokenLogprob, Usage};
use crate::types::chat_answer::finite;
use crate::types::completions::CompletionLogprobs;

/// More of a completion.
#[derive(Debug, Default)]
pub struct Part {
    /// Whole characters.
    pub text: String,
    /// If they were asked for.
    pub logprobs: Option<CompletionLogprobs>,
}

impl Part {
    /// True where nothing is new.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.logprobs.as_ref().is_none_or(|logprobs| logprobs.tokens.is_empty())
    }

    /// Adds what follows.
    pub fn append(&mut self, next: Part) {
        self.text.push_str(&next.text);
        if let Some(next) = next.logprobs {
            let all = self.logprobs.get_or_insert_default();
            all.tokens.extend(next.tokens);
            all.token_logprobs.extend(next.token_logprobs);
            all.top_logprobs.extend(next.top_logprobs);
            all.text_offset.extend(next.text_offset);
        }
    }
}

/// One completion.
pub struct Voice {
    /// Its events, for `hear`.
    pub stream: RawStream,
    harmony: Harmony,
    /// To be given before the completion.
    echo: Option<Vec<u32>>,
    wants_logprobs: bool,
    /// Only the prompt is wanted.
    silent: bool,
    /// Characters of the tokens so far.
    offset: usize,
}

impl Voice {
    /// `echo` is the prompt, where it is wanted; `silent`: nothing else is.
    pub fn new(
        stream: RawStream,
        harmony: Harmony,
        echo: Option<Vec<u32>>,
        wants_logprobs: bool,
        silent: bool,
    ) -> Self {
        Self { stream, harmony, echo, wants_logprobs, silent, offset: 0 }
    }

    /// What comes before the first event: the prompt, unless its log probabilities have to be waited for.
    pub fn first(&mut self) -> Part {
        let logprobs = self.wants_logprobs.then(CompletionLogprobs::default);
        match self.echo.take_if(|_| logprobs.is_none()) {
            Some(prompt) => Part { text: self.text(&prompt), logprobs },
            None => Part { text: String::new(), logprobs },
        }
    }

    /// What an event brings, and the end.
    pub fn hear(&mut self, event: RawEvent) -> (Part, Option<(FinishReason, Usage)>) {
        match event {
            RawEvent::Prompt(entries) => (self.prompt(entries), None),
            RawEvent::Text { .. } if self.silent => (Part::default(), None),
            RawEvent::Text { text, logprobs } => {
                let logprobs = self.wants_logprobs.then(|| self.write(logprobs.into_iter().map(Some), &[]));
                (Part { text, logprobs }, None)
            }
            RawEvent::Done { finish, mut usage } => {
                if self.silent {
                    usage.completion_tokens = 0;
                }
                (Part::default(), Some((finish, usage)))
            }
        }
    }

    fn prompt(&mut self, entries: Vec<Option<TokenLogprob>>) -> Part {
        let Some(prompt) = self.echo.take() else { return Part::default() };
        let logprobs = Some(self.write(entries.into_iter(), &prompt));
        Part { text: self.text(&prompt), logprobs }
    }

    fn text(&self, tokens: &[u32]) -> String {
        String::from_utf8_lossy(&self.harmony.tokenizer().decode(tokens)).into_owned()
    }

    /// The four lists. `tokens` are those of the entries, for an entry that has none.
    fn write(&mut self, entries: impl Iterator<Item = Option<TokenLogprob>>, tokens: &[u32]) -> CompletionLogprobs {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut all = CompletionLogprobs::default();
        for (index, entry) in entries.enumerate() {
            let token = match &entry {
                Some(entry) => text(&entry.bytes),
                None => tokens.get(index).map(|&token| self.text(&[token])).unwrap_or_default(),
            };
            all.text_offset.push(self.offset);
            self.offset += token.chars().count();
            all.tokens.push(token);
            all.token_logprobs.push(entry.as_ref().map(|entry| finite(entry.logprob)));
            let top =
                |entry: TokenLogprob| entry.top.iter().map(|top| (text(&top.bytes), finite(top.logprob))).collect();
            all.top_logprobs.push(entry.map(top));
        }
        all
    }
}
