//! Examples as tokens: a document for each turn of the assistant that is to be learned, the two documents of a pair, the
//! prompt of an item.

use ossia_text::harmony::FINAL;
use ossia_text::{Conversation, Harmony, Message, RenderOptions, Role};

use super::error::Bad;
use super::talk::Told;
use crate::dataset::{DatasetError, Document, tokenise_where};

/// A document for each turn of which something is learned, in order. Fails where nothing is, and where one has more than
/// `max_len` rows.
pub(super) fn documents(harmony: &Harmony, told: &Told, max_len: usize) -> Result<Vec<Document>, Bad> {
    if told.messages.last().is_some_and(|message| message.author.role != Role::Assistant) {
        return Err("the last message is not the assistant's: nothing could be learned from it".into());
    }
    let mut documents = Vec::new();
    for (start, end) in turns(&told.messages) {
        let Some(last) = (start..end).rfind(|&index| told.learned.get(index) == Some(&true)) else { continue };
        documents.push(document(harmony, told, start, last + 1, max_len)?);
    }
    match documents.is_empty() {
        true => Err("no message of the assistant is to be learned: wanted one at least without \"weight\": 0".into()),
        false => Ok(documents),
    }
}

/// The turn from `start` to `end`, after what came before it.
fn document(harmony: &Harmony, told: &Told, start: usize, end: usize, max_len: usize) -> Result<Document, Bad> {
    let conversation = Conversation::from(told.messages[..end].to_vec());
    let is_learned = |index: usize| told.learned.get(index).copied().unwrap_or(false);
    let document = tokenise_where(harmony, &conversation, start, &is_learned).map_err(bad)?;
    check_length(document.tokens.len(), max_len)?;
    Ok(document)
}

/// Answers to the same prompt: the first better than the second. `told` are the conversations with either answer, which
/// begins after `prompt` messages.
pub(super) fn pair(harmony: &Harmony, told: &[Told; 2], prompt: usize, max_len: usize) -> Result<[Document; 2], Bad> {
    let one = |told: &Told| {
        let end = told.messages.len();
        match turns(&told.messages).last() {
            Some(&(start, last)) if start == prompt && last == end => document(harmony, told, prompt, end, max_len),
            _ => Err("an answer of a pair is one turn of the assistant: wanted nothing after its final message".into()),
        }
    };
    let [chosen, rejected] = [one(&told[0])?, one(&told[1])?];
    if chosen == rejected {
        return Err("the two answers are the same: there is nothing to prefer".into());
    }
    Ok([chosen, rejected])
}

/// The tokens from which the model is to answer.
pub(super) fn prompt(harmony: &Harmony, told: &Told, max_len: usize) -> Result<Vec<u32>, Bad> {
    let asks = |message: &Message| matches!(message.author.role, Role::User | Role::Tool | Role::Developer);
    if !told.messages.last().is_some_and(asks) {
        return Err("the last message is the assistant's: wanted the user's, which the model is to answer".into());
    }
    let conversation = Conversation::from(told.messages.clone());
    let tokens = harmony.render_for_completion(&conversation, &RenderOptions::default());
    let tokens = tokens.map_err(|error| bad(error.into()))?;
    // A row more than the prompt, for an answer at least.
    check_length(tokens.len() + 1, max_len)?;
    Ok(tokens)
}

fn check_length(num_tokens: usize, max_len: usize) -> Result<(), Bad> {
    if num_tokens.saturating_sub(1) <= max_len {
        return Ok(());
    }
    Err(Bad::TooLong(format!(
        "the example has {num_tokens} tokens, more than the {} of max_len: raise it, or shorten the example",
        max_len.saturating_add(1)
    )))
}

fn bad(error: DatasetError) -> Bad {
    Bad::Wrong(error.to_string())
}

/// Where the assistant's turns begin and end. A turn goes on after a tool's result and ends with a final message.
fn turns(messages: &[Message]) -> Vec<(usize, usize)> {
    let mut turns = Vec::new();
    let mut start = None;
    for (index, message) in messages.iter().enumerate() {
        match message.author.role {
            Role::Assistant => {
                let begun = *start.get_or_insert(index);
                if message.channel.as_deref() == Some(FINAL) {
                    turns.push((begun, index + 1));
                    start = None;
                }
            }
            Role::Tool => {}
            Role::User | Role::System | Role::Developer => {
                turns.extend(start.take().map(|begun| (begun, index)));
            }
        }
    }
    turns.extend(start.map(|begun| (begun, messages.len())));
    turns
}
