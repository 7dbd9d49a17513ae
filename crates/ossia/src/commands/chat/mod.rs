//! `ossia chat`: a conversation in the terminal. Answers go to stdout, everything else to stderr.
//!
//! On a terminal a failed turn or command is said and the chat goes on; from a pipe it ends the program, since nobody
//! would notice.

mod command;
mod input;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ossia_text::Conversation;
use ossia_text::harmony::{Effort, MessageKind};

use self::command::{Command, HELP};
use self::input::{Input, Typed};
use super::run::EffortArg;
use crate::carried;
use crate::error::Failure;
use crate::generation::{Ended, SamplingArgs};
use crate::session::{self, Session, Start, Turn};
use crate::source::ModelArgs;
use crate::view::{Thinking, View};

/// The longest conversation file that is read, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// Arguments of `chat`.
#[derive(Debug, clap::Args)]
pub struct ChatArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A fine-tuned adapter (a PEFT folder) through which the model answers
    #[arg(long, value_name = "FOLDER")]
    adapter: Option<PathBuf>,
    /// How long the model thinks
    #[arg(long, value_enum, default_value = "medium")]
    effort: EffortArg,
    /// What the model is told to be (harmony's developer instructions)
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Tokens of an answer at most, thinking included [default: what the context holds]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// Neither read nor write the history of lines
    #[arg(long)]
    no_history: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// Runs the command.
pub fn run(args: ChatArgs) -> Result<(), Failure> {
    if args.sampling.logprobs.is_some() {
        return Err(Failure::Usage("--logprobs: a chat has no place for them; `ossia run --json` has".into()));
    }
    let limit = args.max_tokens.map(|n| n as usize);
    let conversation = session::beginning(args.effort.into(), args.system.clone());
    let start = Start { conversation, prompt: "", max_tokens: limit, adapter: args.adapter.as_deref(), quiet: false };
    let mut session = Session::open(&args.model, &args.sampling, start)?;
    let mut input = Input::new(!args.no_history)?;
    let stop = Arc::new(AtomicBool::new(false));
    if input.is_terminal() {
        session.stop_at(Arc::clone(&stop));
        let flag = Arc::clone(&stop);
        ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
            .map_err(|error| Failure::Message(format!("Ctrl-C cannot be caught: {error}")))?;
    }
    let limit = limit.unwrap_or(usize::MAX);
    let mut chat = Chat { session, view: View::new(Thinking::Brief), limit, stop, last_thinking: String::new() };
    chat.greet(&args.model.model);
    chat.talk(&mut input)
}

struct Chat {
    session: Session,
    view: View,
    limit: usize,
    /// Set by Ctrl-C.
    stop: Arc<AtomicBool>,
    last_thinking: String,
}

impl Chat {
    fn greet(&mut self, model: &str) {
        let context = self.session.context();
        self.view.aside.plain(&format!("{model}, room for {context} tokens\n"));
        if carried::is_meant(model) {
            self.view.aside.plain(
                "nano is tiny: it adds and subtracts, compares and sorts, calls tools, answers from a text you give it.\n\
                 For real answers: ossia pull gpt-oss-20b, then ossia chat -m gpt-oss-20b\n",
            );
        }
        if model.starts_with("synth:") {
            self.view.aside.plain("This model's weights are random: its words are noise.\n");
        }
        self.view.aside.note("Type a message. /help lists commands, Ctrl-C stops an answer, Ctrl-D leaves.");
    }

    fn talk(&mut self, input: &mut Input) -> Result<(), Failure> {
        let mut interrupted = false;
        loop {
            let text = match input.next()? {
                Typed::Text(text) => text,
                Typed::Interrupt => {
                    if std::mem::replace(&mut interrupted, true) {
                        self.view.aside.note("Ctrl-D or /exit leaves");
                    }
                    continue;
                }
                Typed::End => return Ok(()),
            };
            interrupted = false;
            match self.take(&text) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Ok(()),
                Err(failure) if input.is_terminal() => self.view.aside.plain(&format!("{failure}\n")),
                Err(failure) => return Err(failure),
            }
        }
    }

    fn take(&mut self, typed: &str) -> Result<ControlFlow<()>, Failure> {
        match command::parse(typed).map_err(Failure::Message)? {
            command::Input::Nothing => Ok(ControlFlow::Continue(())),
            command::Input::Message(text) => self.turn(&text),
            command::Input::Command(Command::Exit) => Ok(ControlFlow::Break(())),
            command::Input::Command(command) => self.obey(command).map(ControlFlow::Continue),
        }
    }

    fn turn(&mut self, text: &str) -> Result<ControlFlow<()>, Failure> {
        let Self { session, view, stop, .. } = self;
        stop.store(false, Ordering::Relaxed);
        let result = session.turn(text, self.limit, &mut |said| match view.see(said) {
            ControlFlow::Continue(()) if stop.load(Ordering::Relaxed) => ControlFlow::Break(()),
            flow => flow,
        });
        view.aside.clear();
        match view.broken.take() {
            Some(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ControlFlow::Break(())),
            Some(error) => return Err(Failure::io("stdout", "write", error)),
            None => {}
        }
        let turn = result?;
        self.last_thinking = turn.text(MessageKind::Thinking);
        let note = self.summary(&turn);
        self.view.aside.note(&note);
        self.view.aside.gap();
        Ok(ControlFlow::Continue(()))
    }

    fn summary(&self, turn: &Turn) -> String {
        let speed = turn.decode_tok_s().map_or(String::new(), |speed| format!("{speed:.1} tok/s, "));
        let (tokens, held, context) = (turn.tokens, self.session.held_tokens(), self.session.context());
        let plural = if tokens == 1 { "" } else { "s" };
        let mut line = format!("{speed}{tokens} token{plural}, context {held} of {context}");
        let why = match turn.ended {
            Ended::Broken => "; stopped",
            Ended::Length if turn.context_full => "; the context is full: /reset, or start with a larger --ctx",
            Ended::Length => "; cut off by --max-tokens",
            Ended::Stop => "",
        };
        line.push_str(why);
        if !turn.kept {
            line.push_str("; nothing was said, so this turn is forgotten");
        }
        line
    }

    fn obey(&mut self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Help => self.view.aside.plain(&format!("{HELP}\n")),
            Command::Effort(effort) => {
                self.session.set_effort(effort);
                self.view.aside.note(&format!("effort: {}", word(effort)));
            }
            Command::System(text) => {
                self.view.aside.note(if text.is_some() { "instructions: set" } else { "instructions: none" });
                self.session.set_instructions(text);
            }
            Command::Think(thinking) => {
                self.view.thinking = thinking;
                self.view.aside.note(match thinking {
                    Thinking::Show => "thinking: all of it",
                    Thinking::Brief => "thinking: one line",
                    Thinking::Hide => "thinking: nothing",
                });
            }
            Command::Last if self.last_thinking.is_empty() => self.view.aside.note("the model has not thought"),
            Command::Last => self.view.aside.note(&self.last_thinking.clone()),
            Command::Reset => {
                self.session.reset();
                self.last_thinking.clear();
                self.view.aside.note("what was said is forgotten; effort and instructions stay");
            }
            Command::Save { path, replace } => {
                save(self.session.conversation(), &path, replace)?;
                self.view.aside.note(&format!("saved to {}", path.display()));
            }
            Command::Load(path) => {
                self.session.replace(load(&path)?)?;
                self.last_thinking.clear();
                let messages = self.session.conversation().messages.len();
                self.view.aside.note(&format!("loaded {messages} messages from {}", path.display()));
            }
            Command::Exit => {}
        }
        Ok(())
    }
}

fn word(effort: Effort) -> &'static str {
    match effort {
        Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High => "high",
    }
}

/// In the shape of OpenAI's harmony library; the content's parts are tagged.
fn save(conversation: &Conversation, path: &Path, replace: bool) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(conversation)
        .map_err(|error| Failure::Message(format!("the conversation cannot be written as JSON: {error}")))?;
    let mut file = match if replace { File::create(path) } else { File::create_new(path) } {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let path = path.display();
            return Err(Failure::Message(format!("{path} exists: /save! {path} replaces it")));
        }
        opened => opened.map_err(|error| Failure::io(path, "write", error))?,
    };
    writeln!(file, "{text}").map_err(|error| Failure::io(path, "write", error))
}

fn load(path: &Path) -> Result<Conversation, Failure> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| Failure::io(path, "read", error))?;
    let read = file.take(MAX_FILE + 1).read_to_string(&mut text);
    read.map_err(|error| Failure::io(path, "read", error))?;
    let path = path.display();
    if text.len() as u64 > MAX_FILE {
        return Err(Failure::Message(format!("{path}: wanted at most {} MiB of JSON", MAX_FILE >> 20)));
    }
    serde_json::from_str(&text)
        .map_err(|error| Failure::Message(format!("{path}: wanted a conversation as /save writes it; {error}")))
}

#[cfg(test)]
mod tests {
    use super::{load, save};
    use crate::session::beginning;
    use ossia_text::harmony::Effort;

    #[test]
    fn a_conversation_comes_back_and_no_file_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talk.json");
        let conversation = beginning(Effort::High, Some("be brief".into()));
        save(&conversation, &path, false).unwrap();
        assert_eq!(load(&path).unwrap(), conversation);
        let error = save(&beginning(Effort::Low, None), &path, false).unwrap_err().to_string();
        assert!(error.contains("/save!"), "{error}");
        assert_eq!(load(&path).unwrap(), conversation);
        save(&beginning(Effort::Low, None), &path, true).unwrap();
        assert_ne!(load(&path).unwrap(), conversation);
        std::fs::write(&path, "{}").unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("talk.json"));
    }
}
