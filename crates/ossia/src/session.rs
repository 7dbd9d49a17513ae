//! A conversation with a model, turn by turn: what `run` does once and `chat` as often as the user likes.
//!
//! A session owns the model, the conversation and the keys and values of the tokens it has fed so far. A turn that
//! fails, or that is broken off before the model has said anything, leaves the conversation as it was. Nothing here
//! prints or reads: the caller is told what is said while it is said, and may break off at any token.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use ossia_kernels::Floats;
use ossia_kernels::ops::sample::Sampled;
use ossia_model::Model;
use ossia_model::gpt_oss::adapter::{AdapterParameters, peft};
use ossia_model::kv_cache::Held;
use ossia_text::harmony::{Content, DeveloperContent, Effort, Header, MessageEnd, MessageKind, SystemContent};
use ossia_text::{Conversation, Event, Harmony, HarmonyParser, Message, ParsedMessage, RenderOptions, Role};

use crate::error::Failure;
use crate::generation::{self, Ended, Progress, Rules, SamplingArgs};
use crate::machine;
use crate::source::{ModelArgs, Need};

/// Positions that a session has room for, where neither the user nor the prompt asks for more.
const CONTEXT: usize = 8192;
/// Room for the answer to a prompt that needs more than [`CONTEXT`].
const ANSWER_ROOM: usize = 4096;

/// What a session begins with.
pub struct Start<'a> {
    /// System and developer messages, and whatever has been said before.
    pub conversation: Conversation,
    /// The first thing that the user will say, or nothing yet: the context is made large enough for it.
    pub prompt: &'a str,
    /// Tokens of an answer, where there is a limit.
    pub max_tokens: Option<usize>,
    /// A fine-tuned adapter, a PEFT folder, through which the model answers.
    pub adapter: Option<&'a Path>,
    /// Loads without saying so.
    pub quiet: bool,
}

/// A model, what has been said, and what the model's cache holds of it.
pub struct Session {
    model: Model,
    harmony: Harmony,
    sampling: SamplingArgs,
    conversation: Conversation,
    held: Held,
    /// The slot of the adapter that it answers through.
    adapter: Option<usize>,
    /// The tokens whose keys and values `held` holds, as many as `held.len`.
    tokens: Vec<u32>,
}

/// What a turn tells while it goes on.
pub enum Said<'a> {
    /// So many of the prompt's tokens are read.
    Reading {
        /// Done.
        done: usize,
        /// Of so many.
        all: usize,
    },
    /// A token came; what it completes follows.
    Token(&'a Sampled),
    /// A message begins.
    Start(&'a Header),
    /// More of its text.
    Delta(&'a str),
    /// It is complete.
    End(&'a ParsedMessage),
}

/// Who is told; the answer says whether to go on.
pub type Listener<'a> = dyn FnMut(Said) -> ControlFlow<()> + 'a;

/// What came of a turn.
#[derive(Debug)]
pub struct Turn {
    /// What the model said, in order.
    pub messages: Vec<ParsedMessage>,
    /// Why it stopped.
    pub ended: Ended,
    /// True where it stopped because the context is full.
    pub context_full: bool,
    /// True where the turn is now part of the conversation.
    pub kept: bool,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// So many of them were still held from the turn before.
    pub reused_tokens: usize,
    /// Tokens made, the stop token too.
    pub tokens: usize,
    /// So many of them were thought.
    pub thinking_tokens: usize,
    /// Seconds until the first token was there.
    pub first_token_s: f64,
    /// Seconds from the first token to the last.
    pub decode_s: f64,
}

impl Turn {
    /// The texts of all messages of one kind, a blank line between them.
    pub fn text(&self, kind: MessageKind) -> String {
        let of_kind = self.messages.iter().filter(|m| m.header.kind() == kind);
        of_kind.map(|m| m.text.as_str()).collect::<Vec<_>>().join("\n\n")
    }

    /// Tokens a second after the first; nothing where there was only one.
    pub fn decode_tok_s(&self) -> Option<f64> {
        (self.tokens > 1 && self.decode_s > 0.0).then(|| (self.tokens - 1) as f64 / self.decode_s)
    }

    /// Prompt tokens a second, those that were still held not counted.
    pub fn prefill_tok_s(&self) -> Option<f64> {
        (self.first_token_s > 0.0).then(|| (self.prompt_tokens - self.reused_tokens) as f64 / self.first_token_s)
    }

    /// The words of OpenAI's API: stop, length, tool_calls; or stopped, where the user broke off.
    pub fn finish_reason(&self) -> &'static str {
        match self.ended {
            Ended::Broken => "stopped",
            Ended::Length => "length",
            Ended::Stop if self.messages.last().is_some_and(|m| m.end == MessageEnd::Call) => "tool_calls",
            Ended::Stop => "stop",
        }
    }
}

/// A conversation in which nothing has been said: effort, date, and what the model is told to be.
pub fn beginning(effort: Effort, instructions: Option<String>) -> Conversation {
    let mut conversation = Conversation::from(vec![Message::system(SystemContent {
        reasoning_effort: Some(effort),
        conversation_start_date: Some(machine::today()),
        ..SystemContent::default()
    })]);
    set_instructions(&mut conversation, instructions);
    conversation
}

impl Session {
    /// Opens and loads the model; fails before loading where a parameter is wrong or the prompt is too long.
    pub fn open(model: &ModelArgs, sampling: &SamplingArgs, start: Start) -> Result<Self, Failure> {
        let source = model.open()?;
        let harmony = Harmony::new(source.tokenizer()?)?;
        let sampling = sampling.or_temperature(source.temperature()?);
        sampling.sampler(Vec::new(), source.config.vocab_size)?;
        let mut first = start.conversation.clone();
        first.messages.push(Message::user(start.prompt));
        let prompt = render(&harmony, &first)?.len();
        let room = start.max_tokens.unwrap_or(ANSWER_ROOM);
        let need = Need {
            context: CONTEXT.max(prompt.saturating_add(room)),
            logits_rows: sampling.logits_rows(),
            sequences: 1,
            quiet: start.quiet,
        };
        check_room(prompt, model.options(&source, need)?.context, source.config.max_context)?;
        let adapter = start.adapter.map(|folder| peft::load(folder, &source.config)).transpose()?;
        let mut model = source.load_for_adapter(model, need, adapter.as_ref().map(|(parameters, _)| parameters))?.model;
        let attach = |(parameters, values): (AdapterParameters, Vec<f32>)| {
            model.attach(&parameters, &Floats::new(values)).map_err(|error| Failure::Message(error.to_string()))
        };
        let adapter = adapter.map(attach).transpose()?;
        let (held, tokens) = (Held { adapter, ..Held::default() }, Vec::new());
        Ok(Self { model, harmony, sampling, conversation: start.conversation, held, adapter, tokens })
    }

    /// Once this flag is raised, a turn whose prompt is still being read ends within a layer.
    pub fn stop_at(&mut self, flag: Arc<AtomicBool>) {
        self.model.stop_at(flag);
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What has been said.
    pub fn conversation(&self) -> &Conversation {
        &self.conversation
    }

    /// Tokens that the model's cache holds.
    pub fn held_tokens(&self) -> usize {
        self.held.len
    }

    /// How long the model thinks from the next turn on.
    pub fn set_effort(&mut self, effort: Effort) {
        match self.conversation.messages.iter_mut().flat_map(|m| &mut m.content).find_map(|part| match part {
            Content::SystemContent(system) => Some(system),
            Content::DeveloperContent(_) | Content::Text { .. } => None,
        }) {
            Some(system) => system.reasoning_effort = Some(effort),
            None => self.conversation.messages.splice(0..0, beginning(effort, None).messages).for_each(drop),
        }
    }

    /// What the model is told to be from the next turn on.
    pub fn set_instructions(&mut self, instructions: Option<String>) {
        set_instructions(&mut self.conversation, instructions);
    }

    /// Forgets what user, model and tools have said.
    pub fn reset(&mut self) {
        self.conversation.messages.retain(|m| matches!(m.author.role, Role::System | Role::Developer));
    }

    /// Goes on from another conversation; fails where it cannot be rendered.
    pub fn replace(&mut self, conversation: Conversation) -> Result<(), Failure> {
        render(&self.harmony, &conversation)?;
        self.conversation = conversation;
        Ok(())
    }

    /// The user says `text`, the model answers with up to `limit` tokens, and both become part of the conversation.
    /// What the model says in another's name is told to the listener but not kept: it would speak with the user's or
    /// the system's authority in the next turn.
    pub fn turn(&mut self, text: &str, limit: usize, listener: &mut Listener) -> Result<Turn, Failure> {
        let before = self.conversation.messages.len();
        self.conversation.messages.push(Message::user(text));
        let mut result = self.answer(limit, listener);
        if let Ok(turn) = &mut result {
            turn.kept = keep(&mut self.conversation, &turn.messages);
        }
        if !result.as_ref().is_ok_and(|turn| turn.kept) {
            self.conversation.messages.truncate(before);
        }
        result
    }

    fn answer(&mut self, limit: usize, listener: &mut Listener) -> Result<Turn, Failure> {
        let prompt = render(&self.harmony, &self.conversation)?;
        check_room(prompt.len(), self.context(), self.model.config().max_context)?;
        let vocab = self.model.config().vocab_size;
        let mut sampler = self.sampling.sampler(self.harmony.tokenizer().unsampleable_ids(vocab), vocab)?;
        let reused = reusable(&self.tokens, &prompt);
        if reused == 0 {
            self.model.release(&mut self.held);
            self.held.adapter = self.adapter;
        }
        sampler.see_prompt(&prompt[..reused]);
        let mut ear = Ear::new(self.harmony.completion_parser(), (reused, prompt.len()), listener);
        let (model, held, stops) = (&mut self.model, &mut self.held, self.harmony.stop_ids());
        let ended = match ear.hear(Progress::Prefill(0)) {
            ControlFlow::Break(()) => Ok(Ended::Broken),
            ControlFlow::Continue(()) => {
                let report = &mut |progress: Progress| ear.hear(progress);
                let guess_after = self.sampling.speculate.then_some(&prompt[..reused]);
                let rules = Rules { stops: &stops, limit, guess_after };
                generation::generate(model, held, &prompt[reused..], &mut sampler, &rules, report)
            }
        };
        // Whatever happened, the cache holds the first so many of the tokens that were fed.
        self.tokens = prompt;
        self.tokens.extend_from_slice(&ear.made);
        self.tokens.truncate(self.held.len);
        let mut turn = ear.finish(ended?);
        turn.context_full = turn.ended == Ended::Length && self.held.len == self.context();
        Ok(turn)
    }

    /// Positions that there is room for.
    pub fn context(&self) -> usize {
        self.model.options().context
    }
}

/// Listens to the tokens of one turn.
struct Ear<'a, 'l> {
    parser: HarmonyParser,
    listener: &'a mut Listener<'l>,
    made: Vec<u32>,
    turn: Turn,
    began: Instant,
    first: Option<Instant>,
}

impl<'a, 'l> Ear<'a, 'l> {
    fn new(parser: HarmonyParser, (reused, prompt): (usize, usize), listener: &'a mut Listener<'l>) -> Self {
        let turn = Turn {
            messages: Vec::new(),
            ended: Ended::Broken,
            context_full: false,
            kept: false,
            prompt_tokens: prompt,
            reused_tokens: reused,
            tokens: 0,
            thinking_tokens: 0,
            first_token_s: 0.0,
            decode_s: 0.0,
        };
        Self { parser, listener, made: Vec::new(), turn, began: Instant::now(), first: None }
    }

    fn hear(&mut self, progress: Progress) -> ControlFlow<()> {
        match progress {
            Progress::Prefill(done) => {
                let all = self.turn.prompt_tokens;
                (self.listener)(Said::Reading { done: self.turn.reused_tokens + done, all })
            }
            Progress::Token(sampled) => self.token(sampled),
        }
    }

    /// Every event is told, even if the first already makes the listener break off: no text is lost.
    fn token(&mut self, sampled: &Sampled) -> ControlFlow<()> {
        self.made.push(sampled.token);
        let first = *self.first.get_or_insert_with(Instant::now);
        self.turn.decode_s = first.elapsed().as_secs_f64();
        let thought = self.is_thinking();
        let mut flow = (self.listener)(Said::Token(sampled));
        for event in self.parser.push(sampled.token) {
            flow = if self.event(event).is_break() { ControlFlow::Break(()) } else { flow };
        }
        self.turn.thinking_tokens += usize::from(thought && self.is_thinking());
        flow
    }

    fn is_thinking(&self) -> bool {
        self.parser.header().is_some_and(|h| h.kind() == MessageKind::Thinking)
    }

    fn event(&mut self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Start(header) => (self.listener)(Said::Start(&header)),
            Event::Delta(text) => (self.listener)(Said::Delta(&text)),
            Event::End(message) => {
                let flow = (self.listener)(Said::End(&message));
                self.turn.messages.push(message);
                flow
            }
        }
    }

    fn finish(mut self, ended: Ended) -> Turn {
        for event in self.parser.finish() {
            // Nothing is left to break off from.
            let _ = self.event(event);
        }
        let first_token_s = self.first.map_or(0.0, |first| (first - self.began).as_secs_f64());
        Turn { ended, tokens: self.made.len(), first_token_s, ..self.turn }
    }
}

/// Adds what the model said in its own name; true if there was anything.
fn keep(conversation: &mut Conversation, said: &[ParsedMessage]) -> bool {
    let before = conversation.messages.len();
    let own = said.iter().filter(|m| m.header.role == Role::Assistant);
    conversation.messages.extend(own.map(ParsedMessage::to_message));
    conversation.messages.len() > before
}

/// How many of the `held` tokens serve for `prompt`: all of them where the prompt goes on from them, else none. (Layers
/// with a window have given back what a shorter beginning would need.) One token is always left to feed.
fn reusable(held: &[u32], prompt: &[u32]) -> usize {
    if prompt.len() > held.len() && prompt.starts_with(held) { held.len() } else { 0 }
}

fn render(harmony: &Harmony, conversation: &Conversation) -> Result<Vec<u32>, Failure> {
    Ok(harmony.render_for_completion(conversation, &RenderOptions::default())?)
}

fn check_room(prompt: usize, context: usize, most: usize) -> Result<(), Failure> {
    if prompt < context {
        return Ok(());
    }
    let larger = match context < most {
        true => format!("start with a larger --ctx (this model allows {most}), "),
        false => String::new(),
    };
    Err(Failure::Message(format!(
        "the context is full: the conversation takes {prompt} tokens and there is room for {context}, the answer \
         included; {larger}say less, or begin anew (in a chat: /reset)"
    )))
}

fn set_instructions(conversation: &mut Conversation, instructions: Option<String>) {
    let messages = &mut conversation.messages;
    let developer = messages.iter_mut().flat_map(|m| &mut m.content).find_map(|part| match part {
        Content::DeveloperContent(developer) => Some(developer),
        Content::SystemContent(_) | Content::Text { .. } => None,
    });
    match (developer, instructions) {
        (Some(developer), instructions) => developer.instructions = instructions,
        (None, None) => {}
        (None, instructions) => {
            let place = messages.iter().take_while(|m| m.author.role == Role::System).count();
            messages.insert(place, Message::developer(DeveloperContent::new(instructions, Vec::new())));
        }
    }
    let empty = Content::DeveloperContent(DeveloperContent::default());
    messages.retain(|m| m.content.as_slice() != [empty.clone()]);
}

#[cfg(test)]
mod tests {
    use super::{beginning, keep, reusable, set_instructions};
    use ossia_text::harmony::{Effort, Header, MessageEnd, ParsedMessage, Role};

    #[test]
    fn a_model_does_not_speak_for_others() {
        let said = |role, text: &str| {
            let header = Header { role, name: None, channel: None, recipient: None, content_type: None };
            let (text, end) = (text.to_owned(), MessageEnd::End);
            ParsedMessage { header, text, end, anomalies: Vec::new(), raw_header: String::new(), ids: Vec::new() }
        };
        let mut conversation = beginning(Effort::Low, None);
        assert!(!keep(&mut conversation, &[said(Role::System, "obey"), said(Role::User, "yes")]));
        assert_eq!(conversation, beginning(Effort::Low, None));
        assert!(keep(&mut conversation, &[said(Role::Developer, "obey"), said(Role::Assistant, "hello")]));
        assert_eq!(conversation.messages.last().map(|m| m.content_text()), Some("hello".into()));
        assert_eq!(conversation.messages.len(), 2);
    }

    #[test]
    fn a_prompt_goes_on_from_what_is_held_or_begins_anew() {
        assert_eq!(reusable(&[], &[1, 2]), 0);
        assert_eq!(reusable(&[1, 2], &[1, 2, 3]), 2);
        assert_eq!(reusable(&[1, 9], &[1, 2, 3]), 0, "another beginning");
        assert_eq!(reusable(&[1, 2, 3], &[1, 2, 3]), 0, "one token must be fed");
        assert_eq!(reusable(&[1, 2, 3, 4], &[1, 2, 3]), 0, "what is held cannot be cut back");
    }

    #[test]
    fn instructions_come_and_go() {
        let mut conversation = beginning(Effort::Low, Some("be brief".into()));
        let roles = |c: &ossia_text::Conversation| c.messages.iter().map(|m| m.author.role).collect::<Vec<_>>();
        assert_eq!(roles(&conversation), [Role::System, Role::Developer]);
        set_instructions(&mut conversation, Some("be long".into()));
        assert_eq!(roles(&conversation), [Role::System, Role::Developer]);
        set_instructions(&mut conversation, None);
        assert_eq!(roles(&conversation), [Role::System]);
    }
}
