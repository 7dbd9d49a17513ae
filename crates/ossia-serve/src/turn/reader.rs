//! Tokens to events: messages as harmony's parser reads them, corrected to what the caller declared, with log
//! probabilities beside the text that they belong to, counted, and cut at stop texts.

use ossia_kernels::ops::sample::Sampled;
use ossia_text::harmony::{FINAL, Header, MessageEnd, MessageKind};
use ossia_text::{Event, Harmony, HarmonyParser, ParsedMessage, Role};

use super::gate::{Gate, Out, describe};
use super::stops::Stops;
use super::{FinishReason, TokenLogprob, TurnEvent, Usage};

/// Reads one turn.
pub(super) struct Reader {
    harmony: Harmony,
    parser: HarmonyParser,
    /// Full names of the tools that may be called.
    recipients: Vec<String>,
    stops: Stops,
    /// For messages that are not the answer.
    no_stops: Stops,
    open: Option<Open>,
    /// Log probabilities of a header's tokens: part of the text if there turns out to be no header.
    heading: Vec<TokenLogprob>,
    usage: Usage,
    called: bool,
    stopped: bool,
}

/// The message that is being read.
struct Open {
    header: Header,
    gate: Gate,
}

impl Reader {
    /// A reader of what comes after `<|start|>assistant`.
    pub fn new(harmony: &Harmony, recipients: Vec<String>, stop: Vec<String>) -> Self {
        Self {
            harmony: harmony.clone(),
            parser: harmony.completion_parser(),
            recipients,
            stops: Stops::new(stop),
            no_stops: Stops::default(),
            open: None,
            heading: Vec::new(),
            usage: Usage::default(),
            called: false,
            stopped: false,
        }
    }

    /// The engine has begun.
    pub fn started(&mut self, prompt_tokens: usize, cached_tokens: usize) -> TurnEvent {
        (self.usage.prompt_tokens, self.usage.cached_tokens) = (prompt_tokens, cached_tokens);
        TurnEvent::Started { prompt_tokens, cached_tokens }
    }

    /// What was counted so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// True after a stop text: nothing more is to be read.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Takes a token and appends what it completes to `out`.
    pub fn token(&mut self, sampled: &Sampled, out: &mut Vec<TurnEvent>) {
        self.usage.completion_tokens += 1;
        let (was_open, thought) = (self.open.is_some(), self.is_thinking());
        let logprob = describe(self.harmony.tokenizer(), sampled);
        let mut spoke = false;
        for event in self.parser.push(sampled.token) {
            spoke |= matches!(event, Event::Delta(_));
            self.event(event, out);
        }
        self.usage.reasoning_tokens += usize::from(thought && self.is_thinking());
        match (&mut self.open, logprob) {
            (None, Some(logprob)) if !was_open && self.parser.header().is_none() => self.heading.push(logprob),
            (Some(open), logprob) if was_open || spoke => {
                let heading = std::mem::take(&mut self.heading);
                if !was_open {
                    open.gate.adopt(heading, logprob.as_ref());
                }
                open.gate.push_logprob(logprob);
            }
            _ => self.heading.clear(),
        }
        self.give(out);
    }

    /// Ends the turn: what is still held is given, then the last event.
    pub fn finish(&mut self, finish: FinishReason, out: &mut Vec<TurnEvent>) {
        if !self.stopped {
            for event in self.parser.finish() {
                self.event(event, out);
            }
        }
        let finish = match finish {
            FinishReason::Length if self.stopped => FinishReason::Stop,
            FinishReason::Stop if self.called => FinishReason::ToolCalls,
            other => other,
        };
        out.push(TurnEvent::Done { finish, usage: self.usage });
    }

    fn is_thinking(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.header.kind() == MessageKind::Thinking)
    }

    fn event(&mut self, event: Event, out: &mut Vec<TurnEvent>) {
        match event {
            _ if self.stopped => {}
            Event::Start(header) => {
                let header = self.admit(header);
                out.push(TurnEvent::Start(header.clone()));
                self.open = Some(Open { header, gate: Gate::default() });
            }
            Event::Delta(text) => {
                if let Some(open) = &mut self.open {
                    open.gate.push(&text);
                }
            }
            Event::End(message) => {
                // A stop text may be completed by the last bytes of a message.
                self.give(out);
                if self.stopped {
                    return;
                }
                let Some(mut open) = self.open.take() else { return };
                tell(open.gate.finish(), out);
                // What was read as something else than the model wrote is not to come back as it wrote it.
                let is_itself = message.header.kind() == open.header.kind();
                let ids = if is_itself { message.ids } else { Vec::new() };
                self.end(ParsedMessage { header: open.header, ids, ..message }, out);
            }
        }
    }

    fn end(&mut self, message: ParsedMessage, out: &mut Vec<TurnEvent>) {
        self.called |= message.header.kind() == MessageKind::ToolCall && message.end != MessageEnd::Truncated;
        out.push(TurnEvent::End(message));
    }

    /// The header as the caller may rely on it: a declared tool by its full name, or the assistant's own words.
    fn admit(&self, header: Header) -> Header {
        let answer = |header: Header| Header {
            role: Role::Assistant,
            name: None,
            channel: Some(FINAL.to_owned()),
            recipient: None,
            content_type: header.content_type,
        };
        match header.kind() {
            MessageKind::Thinking | MessageKind::Preamble | MessageKind::Answer => header,
            MessageKind::NotAssistant => answer(header),
            MessageKind::ToolCall => match self.find(header.recipient.as_deref().unwrap_or_default()) {
                Some(name) => Header { recipient: Some(name), ..header },
                None => answer(header),
            },
        }
    }

    fn find(&self, recipient: &str) -> Option<String> {
        let means = |name: &&String| {
            *name == recipient || name.strip_prefix("functions.").is_some_and(|function| function == recipient)
        };
        self.recipients.iter().find(means).cloned()
    }

    /// Gives what can be shown of the open message.
    fn give(&mut self, out: &mut Vec<TurnEvent>) {
        let Some(open) = &mut self.open else { return };
        let watched = open.header.kind() == MessageKind::Answer;
        let given = open.gate.give(if watched { &self.stops } else { &self.no_stops });
        self.stopped = given.stopped;
        tell(given, out);
        if let Some(Open { header, gate }) = self.open.take_if(|_| self.stopped) {
            let (end, anomalies, raw_header) = (MessageEnd::Truncated, Vec::new(), String::new());
            let (text, ids) = (gate.into_given(), Vec::new());
            self.end(ParsedMessage { header, text, end, anomalies, raw_header, ids }, out);
        }
    }
}

fn tell(given: Out, out: &mut Vec<TurnEvent>) {
    let Out { text, logprobs, .. } = given;
    if !text.is_empty() || !logprobs.is_empty() {
        out.push(TurnEvent::Delta { text, logprobs });
    }
}
