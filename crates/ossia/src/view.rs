//! How a turn looks while it goes on: the answer on stdout, thinking and whatever else there is on stderr.

use std::io;
use std::ops::ControlFlow;
use std::time::Instant;

use ossia_text::ParsedMessage;
use ossia_text::harmony::{Header, MessageKind};

use crate::session::Said;
use crate::terminal::{Answers, Aside};

/// How much of the thinking is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thinking {
    /// All of it, dimmed.
    Show,
    /// One live line, and afterwards how long it took.
    Brief,
    /// None of it: one live line without a word of it.
    Hide,
}

/// Shows a turn.
pub struct View {
    /// Stdout.
    pub answers: Answers,
    /// Stderr.
    pub aside: Aside,
    /// How much of the thinking is shown.
    pub thinking: Thinking,
    /// Why the answer could not be written, if it could not: nothing more is then worth saying.
    pub broken: Option<io::Error>,
    kind: MessageKind,
    began: Instant,
    tokens: usize,
    tail: String,
}

impl View {
    /// The program's own streams.
    pub fn new(thinking: Thinking) -> Self {
        Self {
            answers: Answers::new(),
            aside: Aside::new(),
            thinking,
            broken: None,
            kind: MessageKind::Answer,
            began: Instant::now(),
            tokens: 0,
            tail: String::new(),
        }
    }

    /// Shows what was said; breaks off where stdout takes no more.
    pub fn see(&mut self, said: Said) -> ControlFlow<()> {
        let written = match said {
            Said::Reading { done, all } => {
                self.aside.live(&format!("reading: {done} of {all} tokens"), "");
                Ok(())
            }
            Said::Token(_) => {
                self.tokens += 1;
                Ok(())
            }
            Said::Start(header) => self.start(header),
            Said::Delta(text) => self.delta(text),
            Said::End(message) => self.end(message),
        };
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.broken = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    fn start(&mut self, header: &Header) -> io::Result<()> {
        self.aside.end_line();
        (self.kind, self.began, self.tokens) = (header.kind(), Instant::now(), 0);
        self.tail.clear();
        match self.kind {
            MessageKind::NotAssistant => {
                self.aside.note(&format!("(the model speaks as {}; this is not kept)", header.role.as_str()));
            }
            MessageKind::ToolCall => {
                let tool = header.recipient.as_deref().unwrap_or_default();
                self.aside.note(&format!("(the model calls {tool}, a tool that is not here)"));
            }
            MessageKind::Thinking | MessageKind::Answer | MessageKind::Preamble => {}
        }
        self.answers.end_line()
    }

    fn delta(&mut self, text: &str) -> io::Result<()> {
        match (self.kind, self.thinking) {
            (MessageKind::Answer, _) => {
                self.aside.clear();
                return self.answers.write(text);
            }
            (MessageKind::Preamble, _) => self.aside.plain(text),
            (MessageKind::Thinking, Thinking::Hide) => self.live(""),
            (MessageKind::Thinking, Thinking::Brief) => self.live(text),
            (MessageKind::Thinking | MessageKind::ToolCall | MessageKind::NotAssistant, _) => self.aside.dim(text),
        }
        Ok(())
    }

    fn live(&mut self, text: &str) {
        // More than any terminal is wide.
        const KEPT: usize = 2000;
        self.tail.push_str(text);
        if self.tail.len() > 2 * KEPT {
            let from = (self.tail.len() - KEPT..).find(|&at| self.tail.is_char_boundary(at));
            self.tail.drain(..from.unwrap_or_default());
        }
        let head = format!("thinking, {:.1} s, {} tokens ", self.began.elapsed().as_secs_f64(), self.tokens);
        self.aside.live(&head, &self.tail);
    }

    fn end(&mut self, _: &ParsedMessage) -> io::Result<()> {
        self.aside.end_line();
        match (self.kind, self.thinking) {
            (MessageKind::Thinking, Thinking::Brief) => {
                let seconds = self.began.elapsed().as_secs_f64();
                self.aside.note(&format!("thought for {seconds:.1} s, {} tokens (/last shows it)", self.tokens));
            }
            (MessageKind::Thinking, Thinking::Show) => self.aside.gap(),
            _ => {}
        }
        self.answers.end_line()
    }
}
