//! Text on its way out: held back while it may be the beginning of a stop text, with the log probabilities of the tokens
//! that it is made of.

use std::collections::VecDeque;

use ossia_kernels::ops::sample::Sampled;
use ossia_text::Tokenizer;

use super::stops::{Stops, Verdict};
use super::{TokenLogprob, TopLogprob};

/// One text, from its first piece to its end.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Text that was given, and text that was not given yet.
    given: String,
    held: String,
    /// Log probabilities not given yet, each with the length of the text after its token.
    logprobs: VecDeque<(usize, TokenLogprob)>,
}

/// What a gate lets out.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Out {
    /// Whole characters, perhaps none.
    pub text: String,
    /// Of the tokens that the text completes.
    pub logprobs: Vec<TokenLogprob>,
    /// A stop text follows: this is the end.
    pub stopped: bool,
}

impl Gate {
    /// Takes more text.
    pub fn push(&mut self, text: &str) {
        self.held.push_str(text);
    }

    /// Takes the log probability of the token that brought the newest text, or a part of a character.
    pub fn push_logprob(&mut self, logprob: Option<TokenLogprob>) {
        let end = self.len();
        self.logprobs.extend(logprob.map(|logprob| (end, logprob)));
    }

    /// Takes over tokens that came before the text was known to be text: they are its beginning, all but the `last`.
    pub fn adopt(&mut self, tokens: Vec<TokenLogprob>, last: Option<&TokenLogprob>) {
        let mut end = self.len().saturating_sub(last.map_or(0, |last| last.bytes.len()));
        for logprob in tokens.into_iter().rev() {
            if end == 0 {
                break;
            }
            let len = logprob.bytes.len();
            self.logprobs.push_front((end, logprob));
            end = end.saturating_sub(len);
        }
    }

    /// Lets out what no stop text can begin with.
    pub fn give(&mut self, stops: &Stops) -> Out {
        let verdict = if stops.is_empty() { Verdict::Show(self.held.len()) } else { stops.judge(&self.held) };
        match verdict {
            Verdict::Show(len) => self.take(len, false),
            Verdict::StopAt(len) => Out { stopped: true, ..self.take(len, false) },
        }
    }

    /// Lets out everything: the text has ended.
    pub fn finish(&mut self) -> Out {
        self.take(self.held.len(), true)
    }

    /// The text that was let out, which is taken away.
    pub fn into_given(self) -> String {
        self.given
    }

    /// Bytes of the text so far.
    fn len(&self) -> usize {
        self.given.len() + self.held.len()
    }

    fn take(&mut self, len: usize, all: bool) -> Out {
        if len == 0 && !all {
            // The tokens of half a character wait for its other half.
            return Out::default();
        }
        let text: String = self.held.drain(..len).collect();
        self.given.push_str(&text);
        let complete = |entry: &&(usize, TokenLogprob)| all || entry.0 <= self.given.len();
        let count = self.logprobs.iter().take_while(complete).count();
        let logprobs = self.logprobs.drain(..count).map(|(_, logprob)| logprob).collect();
        Out { text, logprobs, stopped: false }
    }
}

/// A token as clients are told of it; None where no log probability was asked for.
pub(super) fn describe(tokenizer: &Tokenizer, sampled: &Sampled) -> Option<TokenLogprob> {
    Some(described(tokenizer, sampled.token, sampled.logprob?, &sampled.top))
}

/// The same from its parts.
pub(super) fn described(tokenizer: &Tokenizer, token: u32, logprob: f32, top: &[(u32, f32)]) -> TokenLogprob {
    let bytes = |token| tokenizer.token_bytes(token).unwrap_or_default().to_vec();
    let top = top.iter().map(|&(token, logprob)| TopLogprob { token, bytes: bytes(token), logprob });
    TokenLogprob { token, bytes: bytes(token), logprob, top: top.collect() }
}
