//! What a user may type: a message, or a command that begins with a slash.

use std::path::PathBuf;

use ossia_text::harmony::Effort;

use crate::view::Thinking;

/// What `/help` prints.
pub const HELP: &str = "\
/effort low|medium|high   how long the model thinks
/system TEXT              what the model is told to be; without TEXT: nothing
/think show|brief|hide    thinking: all of it, one line, nothing
/last                     the last thinking, all of it
/reset (or /clear)        forget what was said
/save FILE                write the conversation as JSON; /save! FILE replaces a file
/load FILE                go on from a saved conversation
/exit                     leave (or Ctrl-D)

A line that ends in \\ goes on in the next; Alt-Enter begins a new line; \"\"\" begins and ends a block of lines.
A message that begins with a slash: put a space before it. Ctrl-C stops an answer.";

/// The beginnings that Tab completes.
pub const FORMS: [&str; 14] = [
    "/effort low",
    "/effort medium",
    "/effort high",
    "/exit",
    "/help",
    "/last",
    "/load ",
    "/reset",
    "/save ",
    "/save! ",
    "/system ",
    "/think show",
    "/think brief",
    "/think hide",
];

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// For the model.
    Message(String),
    /// For the program.
    Command(Command),
    /// An empty line.
    Nothing,
}

/// What the program is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Print [`HELP`].
    Help,
    /// From the next turn on.
    Effort(Effort),
    /// New instructions, or none.
    System(Option<String>),
    /// How thinking is shown.
    Think(Thinking),
    /// Print the last thinking.
    Last,
    /// Forget.
    Reset,
    /// Write the conversation.
    Save {
        /// Where.
        path: PathBuf,
        /// Whether an existing file may go.
        replace: bool,
    },
    /// Read a conversation.
    Load(PathBuf),
    /// Leave.
    Exit,
}

/// True while what was typed wants more lines: an open block, or a backslash at the end.
pub fn is_open(typed: &str) -> bool {
    match typed.trim_start().strip_prefix("\"\"\"") {
        Some(block) => !block.trim_end().ends_with("\"\"\""),
        None => typed.ends_with('\\'),
    }
}

/// Reads what was typed, all lines of it. An error is one line for the user.
pub fn parse(typed: &str) -> Result<Input, String> {
    if let Some(block) = typed.trim_start().strip_prefix("\"\"\"") {
        let block = block.trim_end();
        let block = block.strip_suffix("\"\"\"").unwrap_or(block).trim_matches(['\n', '\r']);
        return Ok(message(block.to_owned()));
    }
    match typed.strip_prefix('/') {
        Some(command) => command_of(command.trim_end()).map(Input::Command),
        None => Ok(message(typed.replace("\\\n", "\n"))),
    }
}

fn message(text: String) -> Input {
    if text.trim().is_empty() { Input::Nothing } else { Input::Message(text) }
}

fn command_of(typed: &str) -> Result<Command, String> {
    let (name, rest) = typed.split_once(char::is_whitespace).unwrap_or((typed, ""));
    let rest = rest.trim();
    match (name, rest) {
        ("help", "") => Ok(Command::Help),
        ("last", "") => Ok(Command::Last),
        ("reset" | "clear", "") => Ok(Command::Reset),
        ("exit" | "quit", "") => Ok(Command::Exit),
        ("help" | "last" | "reset" | "clear" | "exit" | "quit", _) => Err(format!("/{name} takes nothing after it")),
        ("effort", "low") => Ok(Command::Effort(Effort::Low)),
        ("effort", "medium") => Ok(Command::Effort(Effort::Medium)),
        ("effort", "high") => Ok(Command::Effort(Effort::High)),
        ("effort", _) => Err("wanted: /effort low, /effort medium or /effort high".into()),
        ("think", "show") => Ok(Command::Think(Thinking::Show)),
        ("think", "brief") => Ok(Command::Think(Thinking::Brief)),
        ("think", "hide") => Ok(Command::Think(Thinking::Hide)),
        ("think", _) => Err("wanted: /think show, /think brief or /think hide".into()),
        ("system", text) => Ok(Command::System((!text.is_empty()).then(|| text.replace("\\\n", "\n")))),
        ("save" | "save!" | "load", "") => Err(format!("wanted: /{name} FILE")),
        ("save" | "save!", file) => Ok(Command::Save { path: path(file), replace: name == "save!" }),
        ("load", file) => Ok(Command::Load(path(file))),
        _ => Err(format!("there is no /{name}; /help lists what there is (a message: put a space before the slash)")),
    }
}

/// A file name, `~/` being the home folder.
fn path(typed: &str) -> PathBuf {
    match (typed.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(typed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Result<Input, String> {
        Ok(Input::Message(text.to_owned()))
    }

    #[test]
    fn commands() {
        let command = |typed| match parse(typed) {
            Ok(Input::Command(command)) => command,
            other => panic!("{typed}: {other:?}"),
        };
        assert_eq!(command("/help"), Command::Help);
        assert_eq!(command("/effort  low "), Command::Effort(Effort::Low));
        assert_eq!(command("/think brief"), Command::Think(Thinking::Brief));
        assert_eq!(command("/system be brief\nand kind"), Command::System(Some("be brief\nand kind".into())));
        assert_eq!(command("/system"), Command::System(None));
        assert_eq!(command("/save a b.json"), Command::Save { path: "a b.json".into(), replace: false });
        assert_eq!(command("/save! x"), Command::Save { path: "x".into(), replace: true });
        assert_eq!(command("/load x"), Command::Load("x".into()));
        assert_eq!(command("/quit"), Command::Exit);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong =
            [("/effort", "low"), ("/effort max", "high"), ("/save", "FILE"), ("/nope x", "/help"), ("/", "/help")];
        for (typed, word) in wrong.into_iter().chain([("/reset all", "nothing after"), ("/load ", "FILE")]) {
            let error = parse(typed).unwrap_err();
            assert!(error.contains(word), "{typed}: {error}");
        }
    }

    #[test]
    fn every_form_is_a_command_or_its_beginning() {
        for form in FORMS {
            let whole = format!("{form}{}", if form.ends_with(' ') { "x" } else { "" });
            let error = parse(&whole).err().unwrap_or_default();
            assert!(!error.contains("there is no"), "{form}: {error}");
        }
    }

    #[test]
    fn messages_of_one_line_and_of_many() {
        assert_eq!(parse("hello"), said("hello"));
        assert_eq!(parse(" /etc is a folder"), said(" /etc is a folder"));
        assert_eq!(parse("one\\\ntwo"), said("one\ntwo"));
        assert_eq!(parse("\"\"\"\none\n\n/two\\\n\"\"\""), said("one\n\n/two\\"));
        assert_eq!(parse("\"\"\"one\"\"\""), said("one"));
        assert_eq!(parse(" \t"), Ok(Input::Nothing));
        assert_eq!(parse("\"\"\"\n\"\"\""), Ok(Input::Nothing));
    }

    #[test]
    fn open_input_wants_more_lines() {
        for open in ["one\\", "\"\"\"", "\"\"\"\none\n", "  \"\"\"one\n\"\"\" two"] {
            assert!(is_open(open), "{open}");
        }
        for closed in ["", "one", "one\\\ntwo", "\"\"\"\none\n\"\"\"", "\"\"\"one\"\"\"  ", "a \"\"\" b"] {
            assert!(!is_open(closed), "{closed}");
        }
    }
}
