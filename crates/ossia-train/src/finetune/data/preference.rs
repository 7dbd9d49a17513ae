//! Pairs of answers, of which one is better: OpenAI's `{"input", "preferred_output", "non_preferred_output"}`, and
//! `{"prompt", "chosen", "rejected"}` as it is usual elsewhere, with texts or lists of messages.

use serde_json::{Map, Value, json};

use super::chat::{Reader, frame};
use super::error::Bad;
use super::fields::{field, object, wrong};
use super::talk::{Said, Talk};

/// The conversation with the better and with the worse answer.
pub(super) fn pair(example: &Map<String, Value>) -> Result<[Talk; 2], Bad> {
    let (beside, prompt, answers) = match field(example, "input") {
        Some(input) => {
            let input = object(input, "input")?;
            let prompt = field(input, "messages").ok_or("input.messages: wanted a list of messages, found nothing")?;
            (input, Some(("input.messages", prompt.clone())), ["preferred_output", "non_preferred_output"])
        }
        None => {
            let prompt = field(example, "prompt").map(|prompt| ("prompt", messages(prompt, "user")));
            (example, prompt, ["chosen", "rejected"])
        }
    };
    let read = |name: &str| -> Result<Talk, Bad> {
        let answer = field(example, name).ok_or_else(|| format!("{name}: wanted an answer, found nothing"))?;
        let answer = messages(answer, "assistant");
        let mut reader = Reader::default();
        // Some data repeat the prompt in front of either answer.
        let is_whole = answer.get(0).and_then(|message| message.get("role")).is_some_and(|role| role != "assistant");
        match &prompt {
            Some((at, prompt)) if !is_whole => reader.read(prompt, at)?,
            None if !is_whole => return Err("prompt: wanted what the answers are to, found nothing".into()),
            _ => {}
        }
        reader.read(&answer, name)?;
        if !matches!(reader.said.last(), Some(Said::Assistant(_))) {
            return Err(wrong(name, "messages that end with the assistant's", &answer));
        }
        frame(beside, reader.said)
    };
    let [mut better, mut worse] = [read(answers[0])?, read(answers[1])?];
    let num_prompt = answer_start(&better);
    if better.said[..num_prompt] != worse.said[..answer_start(&worse)] {
        return Err("the two answers are not to the same prompt".into());
    }
    // Marks do not matter: the answer is learned as a whole, and nothing else.
    for talk in [&mut better, &mut worse] {
        for (place, said) in talk.said.iter_mut().enumerate() {
            if let Said::Assistant(spoken) = said {
                spoken.learned = place >= num_prompt;
            }
        }
    }
    Ok([better, worse])
}

/// Where the last turn of the assistant begins: after the last message that is the user's or the application's.
pub(super) fn answer_start(talk: &Talk) -> usize {
    let asks = |said: &Said| matches!(said, Said::User(_) | Said::Instructions(_));
    talk.said.iter().rposition(asks).map_or(0, |place| place + 1)
}

/// A text as one message of `role`; a message as a list.
fn messages(value: &Value, role: &str) -> Value {
    match value {
        Value::String(text) => json!([{ "role": role, "content": text }]),
        Value::Object(_) => json!([value]),
        other => other.clone(),
    }
}
