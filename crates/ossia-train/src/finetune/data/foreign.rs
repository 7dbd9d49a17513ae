//! Examples in the forms that other programs write: ShareGPT (`conversations` of `from` and `value`) and Alpaca
//! (`instruction`, `input`, `output`).

use serde_json::{Map, Value};

use super::chat::{arguments, frame};
use super::error::Bad;
use super::fields::{field, join, list, object, text, text_or_none, wrong};
use super::talk::{Call, Said, Spoken, Talk, without_tags};
use super::tools::check_name;

/// ShareGPT: `{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}`, with a `system`
/// text and `tools` beside them; calls and results as LLaMA-Factory writes them.
pub(super) fn share_gpt(example: &Map<String, Value>) -> Result<Talk, Bad> {
    let messages = example.get("conversations").ok_or("conversations: wanted a list of messages, found nothing")?;
    let mut said: Vec<Said> = Vec::new();
    if let Some(text) = text_or_none(example, "system", "")?.filter(|text| !text.is_empty()) {
        said.push(Said::Instructions(text.to_owned()));
    }
    let mut open = Vec::new();
    for (place, message) in list(messages, "conversations")?.iter().enumerate() {
        let at = format!("conversations[{place}]");
        said.push(shared(object(message, &at)?, &at, &mut open)?);
    }
    frame(example, said)
}

/// One message of ShareGPT; `open` are the full names of functions that were called and have not answered.
fn shared(message: &Map<String, Value>, at: &str, open: &mut Vec<String>) -> Result<Said, Bad> {
    let from = text(message, "from", at)?;
    let value = text(message, "value", at)?;
    match from {
        "system" => Ok(Said::Instructions(value.to_owned())),
        "human" | "user" if value.is_empty() => Err(Bad::Wrong(format!("{at}: the user's message is empty"))),
        "human" | "user" => Ok(Said::User(value.to_owned())),
        "gpt" | "assistant" | "chatgpt" | "model" | "bing" | "bard" => {
            answer(value, text_or_none(message, "thinking", at)?, at).map(Said::Assistant)
        }
        "function_call" => {
            let calls = function_calls(value, &join(at, "value"))?;
            *open = calls.iter().map(|call| format!("functions.{}", call.name)).collect();
            Ok(Said::Assistant(Spoken { calls, learned: true, ..Spoken::default() }))
        }
        "observation" | "function_response" | "tool" => {
            if open.is_empty() {
                let problem = "a result without a call: wanted a message from \"function_call\" before it";
                return Err(Bad::Wrong(format!("{at}: {problem}")));
            }
            Ok(Said::Tool(open.remove(0), value.to_owned()))
        }
        other => {
            let wanted = "\"system\", \"human\", \"gpt\", \"function_call\" or \"observation\"";
            Err(wrong(&join(at, "from"), wanted, &Value::from(other)))
        }
    }
}

/// One call or a list of them: `{"name": "...", "arguments": {...}}`.
fn function_calls(value: &str, at: &str) -> Result<Vec<Call>, Bad> {
    let parsed: Value = serde_json::from_str(value).map_err(|error| format!("{at}: the call is not JSON ({error})"))?;
    let calls = match &parsed {
        Value::Array(calls) => calls.as_slice(),
        one => std::slice::from_ref(one),
    };
    if calls.is_empty() {
        return Err(Bad::Wrong(format!("{at}: wanted a call, found none")));
    }
    let one = |call: &Value| {
        let call = object(call, at)?;
        let name = text(call, "name", at)?;
        check_name(name, &join(at, "name"))?;
        let input = arguments(call.get("arguments"), &join(at, "arguments"))?;
        Ok(Call { name: name.to_owned(), input, is_json: true })
    };
    calls.iter().map(one).collect()
}

/// What the assistant says, with its chain of thought beside it or in tags.
fn answer(said: &str, thought: Option<&str>, at: &str) -> Result<Spoken, Bad> {
    let (tagged, text) = without_tags(said);
    if text.is_empty() {
        return Err(Bad::Wrong(format!("{at}: the assistant's message is empty: wanted a text")));
    }
    let thought = thought.filter(|thought| !thought.is_empty()).map_or(tagged, str::to_owned);
    Ok(Spoken { thought, text: text.to_owned(), calls: Vec::new(), learned: true })
}

/// Alpaca: what is asked, perhaps with a text, and what is answered; `history` has earlier questions and answers, which
/// are context.
pub(super) fn alpaca(example: &Map<String, Value>) -> Result<Talk, Bad> {
    let mut said = Vec::new();
    if let Some(text) = text_or_none(example, "system", "")?.filter(|text| !text.is_empty()) {
        said.push(Said::Instructions(text.to_owned()));
    }
    let history = field(example, "history").map(|history| list(history, "history")).transpose()?;
    for (place, turn) in history.unwrap_or_default().iter().enumerate() {
        let at = format!("history[{place}]");
        let (Some(question), Some(text)) = (turn.get(0).and_then(Value::as_str), turn.get(1).and_then(Value::as_str))
        else {
            return Err(wrong(&at, "a question and an answer", turn));
        };
        said.push(Said::User(question.to_owned()));
        said.push(Said::Assistant(Spoken { learned: false, ..answer(text, None, &at)? }));
    }
    let instruction = text(example, "instruction", "")?;
    let input = text_or_none(example, "input", "")?.unwrap_or_default();
    let question: Vec<&str> = [instruction, input].into_iter().filter(|text| !text.is_empty()).collect();
    if question.is_empty() {
        return Err("instruction: the question is empty".into());
    }
    said.push(Said::User(question.join("\n\n")));
    let thought = text_or_none(example, "thinking", "")?;
    said.push(Said::Assistant(answer(text(example, "output", "")?, thought, "output")?));
    frame(example, said)
}
