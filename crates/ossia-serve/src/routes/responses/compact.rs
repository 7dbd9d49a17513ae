//! POST /v1/responses/compact: a conversation that has become long is made short. What the user said stays as it was; all
//! the rest becomes one encrypted item, a summary that the model writes of it.

use axum::extract::State;
use axum::{Extension, Json};
use futures_util::StreamExt;
use ossia_text::Message;
use ossia_text::constrain::{Choice, Format};
use ossia_text::harmony::MessageKind;
use serde_json::{Value, json};

use super::in_our_words;
use super::prepare::Prepared;
use crate::app::Shared;
use crate::auth::Identity;
use crate::clock;
use crate::error::ApiError;
use crate::ids;
use crate::reasoning::Sealed;
use crate::routes::chat::failure;
use crate::turn::{TurnEvent, Usage, later_instructions};
use crate::types::body::JsonBody;
use crate::types::responses::response::ResponseUsage;
use crate::types::responses::{CreateResponse, InputItem, Item, Speaker};

/// What the model is asked for.
const ASKED: &str = "The conversation is about to be cut off here. Write a summary from which you can go on without the \
    rest: what was asked, what was done and found, with every name, number and decision that still matters, and what is \
    left to do. Write only the summary.";
/// How the summary is told later.
const TOLD: &str = "Summary of the conversation up to here, as you wrote it before the rest was cut off:";
/// The longest summary, in tokens, thinking included.
const LONGEST: usize = 4096;

/// The message that stands for everything before.
pub fn told(summary: &str) -> Message {
    later_instructions(format!("{TOLD}\n\n{summary}"))
}

/// The route.
pub async fn create(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    JsonBody(request): JsonBody<CreateResponse>,
) -> Result<Json<Value>, ApiError> {
    let mut prepared = Prepared::read(&app, &identity, request).await?;
    prepared.conversation.messages.push(later_instructions(ASKED.to_owned()));
    let mut turn = prepared.turn(&app, &identity)?;
    // The tools stay in the prompt, which so begins as the conversation did.
    (turn.rules.choice, turn.rules.format) = (Choice::None, Format::Text);
    turn.limit = Some(turn.limit.unwrap_or(LONGEST).min(LONGEST));
    let (text, usage) = answered(app.turns.start(turn).await.map_err(in_our_words)?).await?;
    let sealed = Sealed { text, date: Some(prepared.date), ids: None };
    let sealed = app.keeping.sealer.seal(&identity.key_id, &sealed).map_err(|error| {
        tracing::error!(%error, "compaction");
        ApiError::Internal
    })?;
    let mut output: Vec<Value> = prepared.items.into_iter().filter(is_users).map(|item| item.json).collect();
    output.push(json!({ "id": ids::new("cmp")?, "type": "compaction", "encrypted_content": sealed }));
    Ok(Json(json!({
        "id": ids::new("resp")?, "object": "response.compaction", "created_at": clock::now_s(), "output": output,
        "usage": ResponseUsage::from(usage),
    })))
}

fn is_users(item: &InputItem) -> bool {
    matches!(item.item, Item::Message { speaker: Speaker::User, .. })
}

/// What the model answers, without its thinking.
async fn answered(mut turn: crate::turn::TurnStream) -> Result<(String, Usage), ApiError> {
    let mut texts = Vec::new();
    while let Some(event) = turn.next().await {
        match event {
            TurnEvent::End(message) if message.header.kind() == MessageKind::Answer => texts.push(message.text),
            TurnEvent::Done { finish, usage } if finish.is_end() => return Ok((texts.join("\n\n"), usage)),
            TurnEvent::Done { finish, .. } => return Err(failure(&finish)),
            _ => {}
        }
    }
    Err(ApiError::Internal)
}
