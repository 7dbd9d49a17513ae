//! Where the user's lines come from: a line editor on a terminal, plain lines otherwise.
//!
//! The history is the user's: it lies in their state folder, readable by them alone, and OSSIA_NO_HISTORY or
//! `--no-history` keeps it from being read or written.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Cmd, CompletionType, Config, Context, Editor, Helper, KeyCode, KeyEvent, Modifiers};

use super::command::{FORMS, is_open};
use crate::error::Failure;

/// The longest line that is read from a pipe, in bytes.
const MAX_LINE: u64 = 8 << 20;
/// Entries that the history keeps.
const MAX_HISTORY: usize = 2000;

/// What came.
pub enum Typed {
    /// Something complete: one line, or several that belong together.
    Text(String),
    /// Ctrl-C at the prompt.
    Interrupt,
    /// Ctrl-D, or the end of the pipe.
    End,
}

/// Where lines come from.
pub enum Input {
    /// A person.
    Terminal {
        /// The line editor.
        editor: Box<Editor<Rules, FileHistory>>,
        /// Where lines are kept.
        history: Option<PathBuf>,
    },
    /// A pipe or file.
    Pipe(io::Stdin),
}

impl Input {
    /// Stdin as it is now.
    pub fn new(keep_history: bool) -> Result<Self, Failure> {
        if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
            return Ok(Input::Pipe(io::stdin()));
        }
        let config = Config::builder().completion_type(CompletionType::List).max_history_size(MAX_HISTORY);
        let mut editor = Editor::with_config(config.map_err(broken)?.build()).map_err(broken)?;
        editor.set_helper(Some(Rules));
        editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::ALT), Cmd::Newline);
        let history = keep_history.then(history_file).flatten().filter(|path| make_folder_of(path));
        if let Some(path) = &history {
            // The first time there is none; a damaged one is not worth the user's time.
            let _ = editor.load_history(path);
        }
        Ok(Input::Terminal { editor: Box::new(editor), history })
    }

    /// True for a person.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Input::Terminal { .. })
    }

    /// The next input.
    pub fn next(&mut self) -> Result<Typed, Failure> {
        match self {
            Input::Pipe(stdin) => from_pipe(&mut stdin.lock()),
            Input::Terminal { editor, history } => match editor.readline("> ") {
                Ok(text) => {
                    remember(editor, history.as_deref(), &text);
                    Ok(Typed::Text(text))
                }
                Err(ReadlineError::Interrupted) => Ok(Typed::Interrupt),
                Err(ReadlineError::Eof) => Ok(Typed::End),
                Err(error) => Err(broken(error)),
            },
        }
    }
}

fn broken(error: ReadlineError) -> Failure {
    Failure::Message(format!("the terminal cannot be read: {error}"))
}

/// Written after each line, so that a killed program loses none. A history that cannot be written is no reason to stop.
fn remember(editor: &mut Editor<Rules, FileHistory>, history: Option<&Path>, text: &str) {
    if editor.add_history_entry(text).is_ok_and(|new| new)
        && let Some(path) = history
    {
        let _ = editor.append_history(path);
    }
}

fn history_file() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if set("OSSIA_NO_HISTORY").is_some() {
        return None;
    }
    let state = set("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| std::env::home_dir().map(|home| home.join(".local/state")))?;
    Some(state.join("ossia/history"))
}

fn make_folder_of(path: &Path) -> bool {
    path.parent().is_some_and(|folder| fs::create_dir_all(folder).is_ok())
}

fn from_pipe(from: &mut dyn BufRead) -> Result<Typed, Failure> {
    let mut text = String::new();
    loop {
        let line = from.take(MAX_LINE - text.len() as u64).read_line(&mut text);
        let read = line.map_err(|error| Failure::io("stdin", "read", error))?;
        if text.len() as u64 >= MAX_LINE {
            return Err(Failure::Message(format!("stdin: a message is longer than {} MiB", MAX_LINE >> 20)));
        }
        let end = text.trim_end_matches(['\n', '\r']).len();
        if read == 0 || !is_open(&text[..end]) {
            let ended = text.is_empty() && read == 0;
            text.truncate(end);
            return Ok(if ended { Typed::End } else { Typed::Text(text) });
        }
    }
}

/// What the line editor asks: whether the input is complete, and what Tab gives.
pub struct Rules;

impl Helper for Rules {}
impl Highlighter for Rules {}
impl Hinter for Rules {
    type Hint = String;
}

impl Validator for Rules {
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        Ok(if is_open(context.input()) { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

impl Completer for Rules {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..at).filter(|typed| typed.starts_with('/')).unwrap_or("\n");
        let fitting = FORMS.iter().filter(|form| form.starts_with(typed));
        Ok((0, fitting.map(|form| (*form).to_owned()).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Typed, from_pipe};

    #[test]
    fn lines_from_a_pipe() {
        let mut pipe = "one\r\ntwo\\\nthree\n\"\"\"\nfour\n\nfive\n\"\"\"\n\nopen\\".as_bytes();
        let mut texts = Vec::new();
        while let Typed::Text(text) = from_pipe(&mut pipe).unwrap() {
            texts.push(text);
        }
        assert_eq!(texts, ["one", "two\\\nthree", "\"\"\"\nfour\n\nfive\n\"\"\"", "", "open\\"]);
        assert!(from_pipe(&mut &b"\xff\n"[..]).is_err(), "not UTF-8");
        assert!(from_pipe(&mut std::io::BufReader::new(std::io::repeat(b'a'))).is_err(), "no end");
    }
}
