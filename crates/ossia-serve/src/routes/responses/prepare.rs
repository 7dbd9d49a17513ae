//! From a request to a turn: checks, what came before (a chain of responses or a conversation), and the conversation that
//! is rendered.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ossia_engine::Adapter;
use ossia_text::Conversation;
use serde_json::Value;

use super::conversation::{Frame, Sources, told};
use super::tools::{Declared, declared};
use crate::adapters::Chosen;
use crate::app::App;
use crate::auth::Identity;
use crate::clock;
use crate::error::ApiError;
use crate::store::{StoreError, Turn};
use crate::turn::TurnRequest;
use crate::types::responses::items::read_input;
use crate::types::responses::{CreateResponse, InputItem, Item, check_includes};
use crate::types::sampling::{self, Thinking};

/// The client's own words about an object: how many, and how long.
const MOST_PAIRS: usize = 16;
const LONGEST_NAME: usize = 64;
const LONGEST_VALUE: usize = 512;
/// The most bytes of what came before a request, which is read at once. Log probabilities take most of them.
const MOST_CHAIN_BYTES: i64 = 64 << 20;

/// What a request comes to.
pub struct Prepared {
    /// The request, with the model's name filled in.
    pub request: CreateResponse,
    /// Its own items.
    pub input: Vec<InputItem>,
    /// All items, those of what came before first.
    pub items: Vec<InputItem>,
    /// Its tools.
    pub declared: Declared,
    /// To be rendered.
    pub conversation: Conversation,
    /// The date in it.
    pub date: String,
    /// What the model has learned besides.
    pub adapter: Option<Arc<Adapter>>,
}

impl Prepared {
    /// Reads and checks everything but the sampling.
    pub async fn read(app: &App, identity: &Identity, mut request: CreateResponse) -> Result<Self, ApiError> {
        check(&request)?;
        let Chosen { name, adapter } = app.chosen(identity, Some(&request.model)).await?;
        request.model = name;
        let input = read_input(request.input.take())?;
        let before = Before::read(app, identity, &request).await?;
        if input.is_empty() && before.items.is_empty() {
            return Err(ApiError::invalid("input", "input: wanted a text or at least one item"));
        }
        let thinking = thinking(&request)?;
        let declared = declared(&request, thinking.allowed)?;
        let items = before.items.into_iter().chain(input.iter().cloned());
        let items = resolved(app, identity, items.collect()).await?;
        let frame = Frame {
            instructions: request.instructions.as_deref(),
            declared: &declared,
            thinking,
            date: before.date.as_deref(),
            today: &clock::today(),
        };
        let sources = Sources {
            memory: &app.memory,
            sealer: &app.keeping.sealer,
            harmony: app.turns.harmony(),
            owner: &identity.key_id,
        };
        let told = told(&items, &frame, &sources)?;
        Ok(Self { input, items, declared, conversation: told.conversation, date: told.date, adapter, request })
    }

    /// What is to be generated.
    pub fn turn(&self, app: &App, identity: &Identity) -> Result<TurnRequest, ApiError> {
        let params = self.request.controls().params(app.model.temperature, clock::fresh_seed())?;
        let limit = match self.request.max_output_tokens {
            None => None,
            some => {
                Some(sampling::integer(some, "max_output_tokens", 1, i64::from(u32::MAX), 1)?.unsigned_abs() as usize)
            }
        };
        Ok(TurnRequest {
            conversation: self.conversation.clone(),
            rules: self.declared.rules.clone(),
            params,
            limit,
            stop: Vec::new(),
            adapter: self.adapter.clone(),
            identity: identity.clone(),
        })
    }
}

/// What contradicts itself, or is not there.
fn check(request: &CreateResponse) -> Result<(), ApiError> {
    if request.prompt.as_ref().is_some_and(|prompt| !prompt.is_null()) {
        return Err(ApiError::unsupported(
            "prompt",
            "prompt: there are no kept prompts here, send instructions and input",
        ));
    }
    if request.previous_response_id.is_some() && request.conversation.is_some() {
        let problem = "previous_response_id and conversation exclude each other: send one of them";
        return Err(ApiError::invalid("previous_response_id", problem));
    }
    if request.background == Some(true) && request.store == Some(false) {
        return Err(ApiError::invalid(
            "background",
            "background: true needs store: true, or the answer could not be read",
        ));
    }
    if let Some(word) = request.truncation.as_deref().filter(|word| !["auto", "disabled"].contains(word)) {
        return Err(ApiError::invalid("truncation", format!("truncation: wanted \"disabled\", found {word:?}")));
    }
    let reasoning = request.reasoning.as_ref();
    let summary = reasoning.and_then(|reasoning| reasoning.summary.as_deref());
    let generate_summary = reasoning.and_then(|reasoning| reasoning.generate_summary.as_deref());
    let verbosity = request.text.as_ref().and_then(|text| text.verbosity.as_deref());
    check_word("reasoning.summary", summary, &["auto", "concise", "detailed"])?;
    check_word("reasoning.generate_summary", generate_summary, &["auto", "concise", "detailed"])?;
    check_word("text.verbosity", verbosity, &["low", "medium", "high"])?;
    check_includes(request.include.iter().flatten().map(String::as_str))?;
    check_metadata(request.metadata.as_ref())
}

/// A field that has one of these words, if it has any.
fn check_word(name: &str, found: Option<&str>, words: &[&str]) -> Result<(), ApiError> {
    match found {
        Some(word) if !words.contains(&word) => {
            Err(ApiError::invalid(name, format!("{name}: wanted one of {}, found {word:?}", words.join(", "))))
        }
        _ => Ok(()),
    }
}

/// The client's own words about an object: texts, not too many and not too long.
pub fn check_metadata(metadata: Option<&serde_json::Map<String, Value>>) -> Result<(), ApiError> {
    let Some(metadata) = metadata else { return Ok(()) };
    let fits = |(name, value): (&String, &Value)| {
        name.chars().count() <= LONGEST_NAME
            && value.as_str().is_some_and(|value| value.chars().count() <= LONGEST_VALUE)
    };
    if metadata.len() > MOST_PAIRS || !metadata.iter().all(fits) {
        let wanted = format!(
            "metadata: wanted at most {MOST_PAIRS} texts of {LONGEST_VALUE} characters, with names of {LONGEST_NAME}"
        );
        return Err(ApiError::invalid("metadata", wanted));
    }
    Ok(())
}

fn thinking(request: &CreateResponse) -> Result<Thinking, ApiError> {
    let effort = request.reasoning.as_ref().and_then(|reasoning| reasoning.effort.as_deref());
    sampling::thinking(effort, "reasoning.effort")
}

/// What came before a request.
#[derive(Default)]
struct Before {
    items: Vec<InputItem>,
    date: Option<String>,
}

impl Before {
    async fn read(app: &App, identity: &Identity, request: &CreateResponse) -> Result<Self, ApiError> {
        if let Some(id) = &request.previous_response_id {
            if app.keeping.store.num_chain_bytes(&identity.key_id, id).await.map_err(lost)? > MOST_CHAIN_BYTES {
                let problem = format!("what came before has more than {MOST_CHAIN_BYTES} bytes: begin anew");
                return Err(ApiError::invalid("previous_response_id", problem));
            }
            let turns = app.keeping.store.chain(&identity.key_id, id).await.map_err(lost)?;
            return Self::of_chain(id, turns);
        }
        let Some(id) = request.conversation_id() else { return Ok(Self::default()) };
        let conversation = app.keeping.store.conversation(&identity.key_id, id).await.map_err(lost)?;
        let conversation = conversation.ok_or_else(|| ApiError::NotFound { what: "conversation", id: id.into() })?;
        if app.keeping.store.num_item_bytes(&identity.key_id, id).await.map_err(lost)? > MOST_CHAIN_BYTES {
            let problem = format!("the conversation has more than {MOST_CHAIN_BYTES} bytes: begin a new one");
            return Err(ApiError::invalid("conversation", problem));
        }
        let rows = app.keeping.store.all_items(&identity.key_id, id).await.map_err(lost)?;
        let items = rows.iter().map(|row| kept_item(json(&row.body)?)).collect::<Result<_, _>>()?;
        Ok(Self { items, date: Some(conversation.date) })
    }

    fn of_chain(id: &str, turns: Vec<Turn>) -> Result<Self, ApiError> {
        match turns.first() {
            None => {
                let problem = format!("Previous response with id {id:?} not found.");
                return Err(ApiError::invalid("previous_response_id", problem));
            }
            Some(Turn { previous_id: Some(gone), .. }) => {
                let problem = format!("Response {gone:?}, from which {id:?} goes on, is no longer kept.");
                return Err(ApiError::invalid("previous_response_id", problem));
            }
            Some(_) => {}
        }
        let mut before = Self::default();
        for turn in turns {
            let mut body = json(&turn.body)?;
            if matches!(body["status"].as_str(), Some("queued" | "in_progress")) {
                let problem = "the previous response is not finished: wait for its end, or cancel it";
                return Err(ApiError::invalid("previous_response_id", problem));
            }
            for list in [json(&turn.input)?, body["output"].take()] {
                let Value::Array(list) = list else { return Err(ApiError::Internal) };
                for item in list {
                    before.items.push(kept_item(item)?);
                }
            }
            before.date.get_or_insert(turn.date);
        }
        Ok(before)
    }
}

/// Puts items that the server has in the place of references to them; what is there already is not repeated.
async fn resolved(app: &App, identity: &Identity, items: Vec<InputItem>) -> Result<Vec<InputItem>, ApiError> {
    let mut found: Vec<InputItem> = Vec::with_capacity(items.len());
    let (mut ids, mut outputs) = (HashSet::new(), HashMap::new());
    for item in items {
        if item.item != Item::Reference {
            ids.insert(item.id.clone());
            found.push(item);
        } else if ids.insert(item.id.clone()) {
            let kept = referred(app, identity, &item.id, &mut outputs).await?;
            found.push(
                kept.ok_or_else(|| ApiError::invalid("input", format!("Item with id {:?} not found.", item.id)))?,
            );
        }
    }
    Ok(found)
}

/// The output item with this id, which has the digits of its response. Each response is read once for a request: its
/// output is kept in `outputs`.
async fn referred(
    app: &App,
    identity: &Identity,
    id: &str,
    outputs: &mut HashMap<String, Vec<Value>>,
) -> Result<Option<InputItem>, ApiError> {
    let Some(digits) = id.rsplit('_').next().and_then(|digits| digits.get(..digits.len().checked_sub(4)?)) else {
        return Ok(None);
    };
    if !outputs.contains_key(digits) {
        let response = app.keeping.store.response(&identity.key_id, &format!("resp_{digits}")).await.map_err(lost)?;
        let Some(response) = response else { return Ok(None) };
        let Value::Array(output) = json(&response.body)?["output"].take() else { return Ok(None) };
        outputs.insert(digits.to_owned(), output);
    }
    let item = outputs.get(digits).and_then(|output| output.iter().find(|item| item["id"] == id));
    item.cloned().map(kept_item).transpose()
}

/// An item that this server wrote.
fn kept_item(item: Value) -> Result<InputItem, ApiError> {
    InputItem::read(item, "item").inspect_err(|error| tracing::error!(%error, "a kept item cannot be read"))
}

/// JSON that this server wrote.
pub fn json(text: &str) -> Result<Value, ApiError> {
    serde_json::from_str(text).map_err(|error| {
        tracing::error!(%error, "a kept row is not JSON");
        ApiError::Internal
    })
}

/// The store failed: the log has the cause, the client hears nothing of it.
pub fn lost(error: StoreError) -> ApiError {
    tracing::error!(%error, "store");
    ApiError::Internal
}
