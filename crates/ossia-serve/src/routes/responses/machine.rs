//! From a turn's events to the Responses API's: every item is added, told piece by piece, and done, whatever happens; the
//! object at the end has the same ids and texts as the events before it.
//!
//! Ids of items are the response's random digits and a number, so that making them cannot fail.

use std::collections::HashMap;

use ossia_text::ParsedMessage;
use ossia_text::harmony::{Header, MessageEnd, MessageKind};

use super::summary::Detail;
use crate::reasoning::{Called, Said, Thought};
use crate::turn::{FinishReason, TokenLogprob, TurnEvent};
use crate::types::responses::response::{Incomplete, LogProb, Part, ResponseError, phase_word};
use crate::types::responses::{Event, NumberedEvent, OutputItem, Response, Status};

/// What is kept of the chain of thought besides the response itself.
pub trait Keeper: Send + Sync {
    /// For `encrypted_content`, if it was asked for: the text, and the ids that it was written with.
    fn seal(&self, text: &str, ids: &[u32]) -> Option<String>;
    /// A whole call was made, after this was said.
    fn remember(&self, call_id: &str, thought: &Thought);
}

/// A tool as the client knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireTool {
    /// Its name.
    pub name: String,
    /// The group that it was declared in.
    pub namespace: Option<String>,
    /// True for one that takes text.
    pub custom: bool,
}

/// The tools by the names that the model knows.
pub type WireTools = HashMap<String, WireTool>;

/// Reads one turn's events; see the module.
pub struct Machine {
    response: Response,
    tools: WireTools,
    keeper: Box<dyn Keeper>,
    detail: Detail,
    open: Option<Open>,
    next: u64,
    num_items: usize,
    thought: Thought,
    ended: bool,
}

/// The item that is being told.
struct Open {
    kind: Kind,
    id: String,
    text: String,
    logprobs: Vec<LogProb>,
    /// Of a thought that is done.
    summary: Vec<Part>,
}

enum Kind {
    Thinking,
    Words { is_preamble: bool },
    Call { call_id: String, tool: WireTool },
}

impl Machine {
    /// `response` has said nothing yet.
    pub fn new(response: Response, tools: WireTools, keeper: Box<dyn Keeper>) -> Self {
        let (thought, detail) = (Thought::default(), Detail::of(response.reasoning["summary"].as_str()));
        Self { response, tools, keeper, detail, open: None, next: 0, num_items: 0, thought, ended: false }
    }

    /// The object as it is now; items are in it when they are done.
    pub fn response(&self) -> &Response {
        &self.response
    }

    /// The first events.
    pub fn begin(&mut self) -> Vec<NumberedEvent> {
        let mut out = Vec::new();
        let response = || Box::new(self.response.clone());
        let mut events = vec![Event::Created { response: response() }];
        if self.response.status == Status::Queued {
            events.push(Event::Queued { response: response() });
        } else {
            events.push(Event::InProgress { response: response() });
        }
        events.into_iter().for_each(|event| self.emit(event, &mut out));
        out
    }

    /// Takes the turn's next event.
    pub fn take(&mut self, event: TurnEvent) -> Vec<NumberedEvent> {
        let mut out = Vec::new();
        match event {
            _ if self.ended => {}
            TurnEvent::Started { .. } => self.started(&mut out),
            TurnEvent::Start(header) => {
                self.close(None, &mut out);
                self.open(&header, &mut out);
            }
            TurnEvent::Delta { text, logprobs } => self.delta(text, logprobs, &mut out),
            TurnEvent::End(message) => self.close(Some(message), &mut out),
            TurnEvent::Done { finish, usage } => {
                self.close(None, &mut out);
                self.response.usage = Some(usage.into());
                self.end(finish, &mut out);
            }
        }
        out
    }

    /// Ends a response whose turn could not begin.
    pub fn fail(&mut self, error: ResponseError) -> Vec<NumberedEvent> {
        let mut out = Vec::new();
        if !self.ended {
            self.close(None, &mut out);
            self.response.error = Some(error);
            self.last(Status::Failed, &mut out);
        }
        out
    }

    /// Ends a response that its client ended.
    pub fn cancel(&mut self) -> Vec<NumberedEvent> {
        let mut out = Vec::new();
        if !self.ended {
            self.close(None, &mut out);
            self.last(Status::Cancelled, &mut out);
        }
        out
    }

    /// Marks as failed a response that has ended but could not be kept.
    pub fn unkept(&mut self, error: ResponseError) {
        self.response.status = Status::Failed;
        self.response.completed_at = None;
        self.response.error = Some(error);
    }

    fn emit(&mut self, event: Event, out: &mut Vec<NumberedEvent>) {
        out.push(NumberedEvent { event, sequence_number: self.next });
        self.next += 1;
    }

    fn started(&mut self, out: &mut Vec<NumberedEvent>) {
        if self.response.status == Status::Queued {
            self.response.status = Status::InProgress;
            self.emit(Event::InProgress { response: Box::new(self.response.clone()) }, out);
        }
    }

    fn open(&mut self, header: &Header, out: &mut Vec<NumberedEvent>) {
        let kind = self.kind(header);
        let prefix = match &kind {
            Kind::Thinking => "rs",
            Kind::Words { .. } => "msg",
            Kind::Call { tool, .. } => {
                if tool.custom {
                    "ctc"
                } else {
                    "fc"
                }
            }
        };
        let open = Open { id: self.id(prefix), kind, text: String::new(), logprobs: Vec::new(), summary: Vec::new() };
        self.num_items += 1;
        let output_index = self.response.output.len();
        self.emit(Event::ItemAdded { output_index, item: open.item(Status::InProgress, false, None) }, out);
        if let Some(part) = open.part() {
            self.emit(Event::PartAdded { item_id: open.id.clone(), output_index, content_index: 0, part }, out);
        }
        self.open = Some(open);
    }

    fn kind(&self, header: &Header) -> Kind {
        match header.kind() {
            MessageKind::Thinking => Kind::Thinking,
            MessageKind::Preamble => Kind::Words { is_preamble: true },
            MessageKind::Answer | MessageKind::NotAssistant => Kind::Words { is_preamble: false },
            MessageKind::ToolCall => {
                let recipient = header.recipient.as_deref().unwrap_or_default();
                let name = recipient.strip_prefix("functions.").unwrap_or(recipient);
                match self.tools.get(name) {
                    Some(tool) => Kind::Call { call_id: self.id("call"), tool: tool.clone() },
                    // Nobody waits for it: it is shown to the user rather than lost.
                    None => Kind::Words { is_preamble: false },
                }
            }
        }
    }

    fn id(&self, prefix: &str) -> String {
        let digits = self.response.id.rsplit('_').next().unwrap_or_default();
        format!("{prefix}_{digits}{:04x}", self.num_items)
    }

    fn delta(&mut self, text: String, logprobs: Vec<TokenLogprob>, out: &mut Vec<NumberedEvent>) {
        let Some(open) = &mut self.open else { return };
        if text.is_empty() && logprobs.is_empty() {
            return;
        }
        open.text.push_str(&text);
        let (item_id, output_index, content_index) = (open.id.clone(), self.response.output.len(), 0);
        let event = match &open.kind {
            Kind::Thinking => Event::ReasoningDelta { item_id, output_index, content_index, delta: text },
            Kind::Words { .. } => {
                let logprobs: Vec<LogProb> = logprobs.into_iter().map(LogProb::from).collect();
                open.logprobs.extend(logprobs.iter().cloned());
                Event::TextDelta { item_id, output_index, content_index, delta: text, logprobs }
            }
            Kind::Call { tool, .. } if tool.custom => Event::InputDelta { item_id, output_index, delta: text },
            Kind::Call { .. } => Event::ArgumentsDelta { item_id, output_index, delta: text },
        };
        self.emit(event, out);
    }

    /// Ends the open item, if there is one: its text, its part, itself. Without its message it was cut off.
    fn close(&mut self, message: Option<ParsedMessage>, out: &mut Vec<NumberedEvent>) {
        let Some(mut open) = self.open.take() else { return };
        let (item_id, output_index, content_index) = (open.id.clone(), self.response.output.len(), 0);
        let text = open.text.clone();
        let event = match &open.kind {
            Kind::Thinking => Event::ReasoningDone { item_id, output_index, content_index, text },
            Kind::Words { .. } => {
                Event::TextDone { item_id, output_index, content_index, text, logprobs: open.logprobs.clone() }
            }
            Kind::Call { tool, .. } if tool.custom => Event::InputDone { item_id, output_index, input: text },
            Kind::Call { tool, .. } => {
                Event::ArgumentsDone { item_id, output_index, name: tool.name.clone(), arguments: text }
            }
        };
        self.emit(event, out);
        if let Some(part) = open.part() {
            self.emit(Event::PartDone { item_id: open.id.clone(), output_index, content_index, part }, out);
        }
        if matches!(open.kind, Kind::Thinking) {
            open.summary = self.summarize(&open.id, &open.text, out);
        }
        let ids = message.as_ref().map_or(&[][..], |message| &message.ids);
        let sealed = if matches!(open.kind, Kind::Thinking) { self.keeper.seal(&open.text, ids) } else { None };
        let message = message.filter(|message| message.end != MessageEnd::Truncated);
        let status = if message.is_some() { Status::Completed } else { Status::Incomplete };
        let item = open.item(status, true, sealed);
        self.response.output.push(item.clone());
        self.emit(Event::ItemDone { output_index, item }, out);
        self.note(open.kind, message);
    }

    /// Tells the summary of a thought, part by part, if it was asked for.
    fn summarize(&mut self, id: &str, thinking: &str, out: &mut Vec<NumberedEvent>) -> Vec<Part> {
        let output_index = self.response.output.len();
        let mut summary = Vec::new();
        for (summary_index, text) in self.detail.parts(thinking).into_iter().enumerate() {
            let (item_id, part) = (|| id.to_owned(), |text: &str| Part::SummaryText { text: text.to_owned() });
            let delta = text.clone();
            for event in [
                Event::SummaryPartAdded { item_id: item_id(), output_index, summary_index, part: part("") },
                Event::SummaryDelta { item_id: item_id(), output_index, summary_index, delta },
                Event::SummaryDone { item_id: item_id(), output_index, summary_index, text: text.clone() },
                Event::SummaryPartDone { item_id: item_id(), output_index, summary_index, part: part(&text) },
            ] {
                self.emit(event, out);
            }
            summary.push(part(&text));
        }
        summary
    }

    /// Notes a whole message, and hands everything over at a call.
    fn note(&mut self, kind: Kind, message: Option<ParsedMessage>) {
        let Some(message) = message else { return };
        match kind {
            Kind::Thinking => self.thought.said.push(Said::read(true, message)),
            Kind::Words { .. } => self.thought.said.push(Said::read(false, message)),
            Kind::Call { call_id, .. } => {
                self.thought.called = Some(Called::read(message));
                self.keeper.remember(&call_id, &self.thought);
            }
        }
    }

    fn end(&mut self, finish: FinishReason, out: &mut Vec<NumberedEvent>) {
        let status = match finish {
            FinishReason::Stop | FinishReason::ToolCalls => {
                self.response.completed_at = Some(i64::try_from(crate::clock::now_s()).unwrap_or(i64::MAX));
                Status::Completed
            }
            FinishReason::Length => {
                self.response.incomplete_details = Some(Incomplete { reason: "max_output_tokens" });
                Status::Incomplete
            }
            FinishReason::Cancelled => Status::Cancelled,
            FinishReason::Failed(_) => {
                let message = "The model failed to generate an answer; the server's log has the cause.".to_owned();
                self.response.error = Some(ResponseError { code: "server_error".to_owned(), message });
                Status::Failed
            }
        };
        self.last(status, out);
    }

    fn last(&mut self, status: Status, out: &mut Vec<NumberedEvent>) {
        self.ended = true;
        self.response.status = status;
        let response = Box::new(self.response.clone());
        let event = match status {
            Status::Incomplete => Event::Incomplete { response },
            Status::Cancelled => Event::Cancelled { response },
            Status::Failed => Event::Failed { response },
            Status::Completed | Status::Queued | Status::InProgress => Event::Completed { response },
        };
        self.emit(event, out);
    }
}

impl Open {
    /// The part that holds the text; calls have none.
    fn part(&self) -> Option<Part> {
        let text = self.text.clone();
        match &self.kind {
            Kind::Thinking => Some(Part::ReasoningText { text }),
            Kind::Words { .. } => {
                Some(Part::OutputText { text, annotations: Vec::new(), logprobs: self.logprobs.clone() })
            }
            Kind::Call { .. } => None,
        }
    }

    /// The item; its part is in it only when it is `done`, because `content_part.added` adds it before.
    fn item(&self, status: Status, done: bool, encrypted_content: Option<String>) -> OutputItem {
        let id = self.id.clone();
        let content: Vec<Part> = self.part().filter(|_| done).into_iter().collect();
        match &self.kind {
            Kind::Thinking => {
                OutputItem::Reasoning { id, status, summary: self.summary.clone(), content, encrypted_content }
            }
            Kind::Words { is_preamble } => {
                OutputItem::Message { id, status, role: "assistant", phase: phase_word(*is_preamble), content }
            }
            Kind::Call { call_id, tool } => {
                let WireTool { name, namespace, custom } = tool.clone();
                let (call_id, text) = (call_id.clone(), self.text.clone());
                match custom {
                    true => OutputItem::CustomToolCall { id, status, call_id, name, namespace, input: text },
                    false => OutputItem::FunctionCall { id, status, call_id, name, namespace, arguments: text },
                }
            }
        }
    }
}
