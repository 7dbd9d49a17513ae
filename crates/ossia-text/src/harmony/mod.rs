//! The harmony format (SPEC 9): `message` has the types, `render` writes them as token ids, `tools` writes tool
//! descriptions as TypeScript, `parse` and `header` read a model's token ids back, `call` reads tool calls.
//!
//! Rendering follows OpenAI's harmony library byte for byte, except for the dropping of old analysis (`DropRule`).
//! Parsing is total: every sequence of ids gives messages, and no text is lost.

mod call;
mod header;
mod message;
mod parse;
mod render;
mod tools;

use std::sync::Arc;

pub use call::{Arguments, MessageKind, ToolCall};
pub use header::Anomaly;
pub use message::{
    ANALYSIS, Author, COMMENTARY, ChannelConfig, Content, Conversation, DeveloperContent, Effort, FINAL, Message, Role,
    SystemContent, ToolDescription, ToolNamespace,
};
pub use parse::{Event, HarmonyParser, Header, MessageEnd, ParsedMessage};
pub use render::{DropRule, RenderOptions};

use crate::{TextError, Tokenizer};

/// A tokenizer that has all of harmony's special tokens: renders conversations, makes parsers.
#[derive(Debug, Clone)]
pub struct Harmony {
    tokenizer: Arc<Tokenizer>,
    pub(crate) marks: Marks,
}

/// The ids of the special tokens that give messages their form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks {
    pub start: u32,
    pub channel: u32,
    pub constrain: u32,
    pub message: u32,
    pub end: u32,
    pub call: u32,
    pub return_: u32,
    pub end_of_text: Option<u32>,
}

impl Harmony {
    /// Fails where the tokenizer lacks one of harmony's special tokens, naming it.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Result<Self, TextError> {
        let s = *tokenizer.specials();
        let marks = Marks {
            start: s.start.ok_or(TextError::MissingSpecial("<|start|>"))?,
            channel: s.channel.ok_or(TextError::MissingSpecial("<|channel|>"))?,
            constrain: s.constrain.ok_or(TextError::MissingSpecial("<|constrain|>"))?,
            message: s.message.ok_or(TextError::MissingSpecial("<|message|>"))?,
            end: s.end.ok_or(TextError::MissingSpecial("<|end|>"))?,
            call: s.call.ok_or(TextError::MissingSpecial("<|call|>"))?,
            return_: s.return_.ok_or(TextError::MissingSpecial("<|return|>"))?,
            end_of_text: s.end_of_text,
        };
        Ok(Self { tokenizer, marks })
    }

    /// The tokenizer inside.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The ids at which sampling stops. `<|end|>` is not among them: it ends a message, and most often only the
    /// analysis (SPEC 9.1, 9.9 number 9).
    pub fn stop_ids(&self) -> Vec<u32> {
        self.tokenizer.stop_ids()
    }

    /// A parser for what a model writes after [`Harmony::render_for_completion`], that is after `<|start|>assistant`.
    pub fn completion_parser(&self) -> HarmonyParser {
        HarmonyParser::new(self, Some(Role::Assistant))
    }

    /// A parser for whole messages, beginning with `<|start|>`.
    pub fn parser(&self) -> HarmonyParser {
        HarmonyParser::new(self, None)
    }
}
