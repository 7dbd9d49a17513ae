//! `ossia run`: one prompt, one answer on stdout, streamed; what the model thinks goes to stderr.

use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use ossia_kernels::ops::sample::Sampled;
use ossia_text::harmony::{Arguments, Effort, MessageKind};
use serde_json::{Value, json};

use crate::error::Failure;
use crate::generation::{Ended, SamplingArgs};
use crate::session::{self, Said, Session, Start, Turn};
use crate::source::{self, ModelArgs};
use crate::view::{Thinking, View};

/// The longest prompt, in bytes: several times what the largest context holds.
const MAX_PROMPT: usize = 8 << 20;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A fine-tuned adapter (a PEFT folder) through which the model answers
    #[arg(long, value_name = "FOLDER")]
    adapter: Option<PathBuf>,
    /// What to answer; without it, or as -, it is read from stdin
    prompt: Option<String>,
    /// How long the model thinks
    #[arg(long, value_enum, default_value = "medium")]
    effort: EffortArg,
    /// What the model is told to be (harmony's developer instructions)
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Tokens to make at most, thinking included [default: what the context holds]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// Show the model's thinking on stderr [default: where stderr is a terminal]
    #[arg(long, value_enum)]
    thinking: Option<ThinkingArg>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

/// See [`Effort`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EffortArg {
    /// Short.
    Low,
    /// Between.
    Medium,
    /// Long.
    High,
}

impl From<EffortArg> for Effort {
    fn from(arg: EffortArg) -> Self {
        match arg {
            EffortArg::Low => Effort::Low,
            EffortArg::Medium => Effort::Medium,
            EffortArg::High => Effort::High,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ThinkingArg {
    Show,
    Hide,
}

/// Runs the command.
pub fn run(args: RunArgs) -> Result<(), Failure> {
    if args.sampling.logprobs.is_some() && !args.json {
        return Err(Failure::Usage("--logprobs is reported in JSON: add --json".into()));
    }
    let typed = match args.prompt.as_deref() {
        None if std::io::stdin().is_terminal() => {
            return Err(Failure::Usage("no prompt: give a text, or pipe one in".into()));
        }
        None | Some("-") => read_prompt(&mut std::io::stdin().lock())?,
        Some(prompt) => prompt.to_owned(),
    };
    // The end of the last line is `echo`'s, not the user's.
    let prompt = typed.trim_end_matches(['\n', '\r']);
    if prompt.trim().is_empty() {
        return Err(Failure::Usage("the prompt is empty: give a text, or - to read it from stdin".into()));
    }
    if source::is_model_name(prompt) {
        let wanted =
            format!("{prompt} is a model's name, and this argument is the prompt: `ossia run -m {prompt} TEXT`");
        return Err(Failure::Usage(wanted));
    }
    let limit = args.max_tokens.map(|n| n as usize);
    let conversation = session::beginning(args.effort.into(), args.system.clone());
    let start = Start { conversation, prompt, max_tokens: limit, adapter: args.adapter.as_deref(), quiet: args.json };
    let mut session = Session::open(&args.model, &args.sampling, start)?;
    let limit = limit.unwrap_or(usize::MAX);
    if args.json {
        answer_json(&mut session, prompt, limit)
    } else {
        answer(&mut session, prompt, limit, args.thinking)
    }
}

fn answer(session: &mut Session, prompt: &str, limit: usize, thinking: Option<ThinkingArg>) -> Result<(), Failure> {
    let mut view = View::new(Thinking::Hide);
    if thinking.map_or(view.aside.is_terminal(), |t| t == ThinkingArg::Show) {
        view.thinking = Thinking::Show;
    }
    let turn = session.turn(prompt, limit, &mut |said| view.see(said))?;
    if let Some(error) = view.broken {
        return quiet_if_closed(Err(error));
    }
    if turn.ended == Ended::Length {
        let what = if turn.context_full { "the context is full (--ctx)" } else { "--max-tokens" };
        view.aside.note(&format!("(cut off after {} tokens: {what})", turn.tokens));
    }
    Ok(())
}

fn answer_json(session: &mut Session, prompt: &str, limit: usize) -> Result<(), Failure> {
    let mut made: Vec<Sampled> = Vec::new();
    let turn = session.turn(prompt, limit, &mut |said| {
        if let Said::Token(sampled) = said {
            made.push(sampled.clone());
        }
        ControlFlow::Continue(())
    })?;
    quiet_if_closed(writeln!(std::io::stdout(), "{}", object(&turn, &made)))
}

fn object(turn: &Turn, made: &[Sampled]) -> Value {
    let calls = turn.messages.iter().filter_map(|m| m.tool_call()).map(|call| {
        let arguments = match call.arguments {
            Arguments::Json(value) => value,
            Arguments::Text(text) | Arguments::Truncated(text) => Value::String(text),
        };
        json!({ "recipient": call.recipient, "arguments": arguments })
    });
    let mut object = json!({
        "answer": turn.text(MessageKind::Answer),
        "analysis": turn.text(MessageKind::Thinking),
        "preamble": turn.text(MessageKind::Preamble),
        "tool_calls": calls.collect::<Vec<_>>(),
        "finish_reason": turn.finish_reason(),
        "tokens": { "prompt": turn.prompt_tokens, "completion": turn.tokens, "analysis": turn.thinking_tokens },
        "ttft_s": turn.first_token_s,
        "prefill_tok_s": turn.prefill_tok_s(),
        "decode_tok_s": turn.decode_tok_s(),
    });
    if made.iter().any(|s| s.logprob.is_some()) {
        let entry = |s: &Sampled| json!({ "token": s.token, "logprob": s.logprob, "top": s.top });
        object["logprobs"] = made.iter().map(entry).collect();
    }
    object
}

/// A reader that has seen enough (`| head -1`) is no failure.
fn quiet_if_closed(written: std::io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::io("stdout", "write", error)),
        _ => Ok(()),
    }
}

fn read_prompt(from: &mut dyn Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = from.take(MAX_PROMPT as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::io("stdin", "read", error))?;
    if bytes.len() > MAX_PROMPT {
        let most = MAX_PROMPT >> 20;
        return Err(Failure::Message(format!("stdin: the prompt is longer than {most} MiB; give a shorter one")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::Message(format!("stdin: wanted UTF-8 text, found byte {at} that is not; convert it (iconv -t UTF-8)"))
    })
}

#[cfg(test)]
mod tests {
    use super::{MAX_PROMPT, read_prompt};

    #[test]
    fn prompts_from_stdin() {
        assert_eq!(read_prompt(&mut "Grüße\n".as_bytes()).unwrap(), "Grüße\n");
        let error = read_prompt(&mut &b"abc\xff"[..]).unwrap_err().to_string();
        assert!(error.contains("byte 3"), "{error}");
        assert_eq!(read_prompt(&mut std::io::repeat(b'a')).unwrap_err().status(), 1);
        let most = vec![b'a'; MAX_PROMPT];
        assert_eq!(read_prompt(&mut most.as_slice()).unwrap().len(), MAX_PROMPT);
    }
}
