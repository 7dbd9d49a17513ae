//! `/v1/conversations`: items that responses are made from and added to, without a client sending them again.

use std::collections::HashSet;

use axum::extract::State;
use axum::routing::{delete, get, post};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::lists::{ListQuery, known, list};
use super::responses::{check_metadata, kept_json, lost};
use crate::app::{Access, Route, Shared};
use crate::auth::{Identity, Scope};
use crate::clock;
use crate::error::ApiError;
use crate::ids;
use crate::store::{Append, StoredConversation, StoredItem};
use crate::types::body::JsonBody;
use crate::types::params::{Includes, Path, Query};
use crate::types::responses::items::{InputItem, Item, read_items};

/// The most bytes of all items of a conversation: far more than any context holds, and still read at once.
pub const MOST_BYTES: i64 = 16 << 20;
/// The most items that are added at once, as at OpenAI.
const MOST_AT_ONCE: usize = 20;

/// This API's part of the table.
pub fn routes() -> Vec<Route> {
    let access = Access::Key(Scope::Infer);
    let (one, items, item) =
        ("/v1/conversations/{id}", "/v1/conversations/{id}/items", "/v1/conversations/{id}/items/{item}");
    vec![
        Route::new("POST", "/v1/conversations", access, post(create)),
        Route::new("GET", one, access, get(retrieve)),
        Route::new("POST", one, access, post(update)),
        Route::new("DELETE", one, access, delete(remove)),
        Route::new("POST", items, access, post(add_items)),
        Route::new("GET", items, access, get(list_items)),
        Route::new("GET", item, access, get(retrieve_item)),
        Route::new("DELETE", item, access, delete(remove_item)),
    ]
}

/// What `POST /v1/conversations` takes.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "an object")]
struct Create {
    items: Option<Vec<Value>>,
    metadata: Option<Map<String, Value>>,
}

/// What `POST /v1/conversations/{id}` takes.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
struct Update {
    /// Null takes all away; one that is missing is a mistake.
    #[serde(deserialize_with = "Option::deserialize")]
    metadata: Option<Map<String, Value>>,
}

/// What `POST /v1/conversations/{id}/items` takes.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
struct AddItems {
    items: Vec<Value>,
}

fn shown(conversation: &StoredConversation) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({
        "id": conversation.id, "object": "conversation", "created_at": conversation.created_at,
        "metadata": kept_json(&conversation.metadata)?,
    })))
}

/// Items to be kept: a reference has nothing to keep, and what is encrypted must open.
fn to_keep(app: &Shared, identity: &Identity, items: Vec<Value>) -> Result<Vec<InputItem>, ApiError> {
    if items.len() > MOST_AT_ONCE {
        let problem = format!("items: wanted at most {MOST_AT_ONCE} at once, found {}", items.len());
        return Err(ApiError::invalid("items", problem));
    }
    let keep = |(index, item): (usize, InputItem)| match item.item {
        Item::Reference => {
            Err(ApiError::invalid(format!("items[{index}]"), "wanted an item, found a reference to one"))
        }
        Item::Reasoning { encrypted: Some(ref sealed), .. } | Item::Compaction { encrypted: ref sealed } => {
            let at = format!("items[{index}].encrypted_content");
            let opened = app.keeping.sealer.open(&identity.key_id, sealed);
            opened.map_err(|error| ApiError::invalid(&*at, format!("{at}: {error}")))?;
            Ok(item)
        }
        _ => Ok(item),
    };
    read_items(items, "items")?.into_iter().enumerate().map(keep).collect()
}

/// Checks that each result has its call before it, among `items` or in what is kept already: no response could read the
/// conversation otherwise.
fn check_results(items: &[InputItem], kept: &[StoredItem]) -> Result<(), ApiError> {
    let kept = kept.iter().map(|item| InputItem::read(kept_json(&item.body)?, "item"));
    let kept = kept.collect::<Result<Vec<_>, _>>()?;
    let mut calls: HashSet<&str> = kept.iter().filter_map(InputItem::made_call).collect();
    let mut ids: HashSet<&str> = kept.iter().map(|item| &*item.id).collect();
    // An id that is there already is not added again.
    for (index, item) in items.iter().enumerate().filter(|(_, item)| ids.insert(&item.id)) {
        calls.extend(item.made_call());
        if let Item::Output { call_id, .. } = &item.item
            && !calls.contains(call_id.as_str())
        {
            let at = format!("items[{index}].call_id");
            let problem = format!("{at}: no tool call found before it with call_id {call_id:?}: add the call first");
            return Err(ApiError::invalid(at, problem));
        }
    }
    Ok(())
}

fn rows(items: Vec<InputItem>) -> Vec<StoredItem> {
    items.into_iter().map(|item| StoredItem { id: item.id, body: item.json.to_string() }).collect()
}

async fn create(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    JsonBody(request): JsonBody<Create>,
) -> Result<Json<Value>, ApiError> {
    check_metadata(request.metadata.as_ref())?;
    let items = to_keep(&app, &identity, request.items.unwrap_or_default())?;
    check_results(&items, &[])?;
    let conversation = StoredConversation {
        id: ids::new("conv")?,
        created_at: i64::try_from(clock::now_s()).unwrap_or(i64::MAX),
        date: clock::today(),
        metadata: Value::Object(request.metadata.unwrap_or_default()).to_string(),
    };
    app.keeping.store.insert_conversation(&identity.key_id, &conversation, rows(items)).await.map_err(lost)?;
    shown(&conversation)
}

async fn found(app: &Shared, identity: &Identity, id: &str) -> Result<StoredConversation, ApiError> {
    let conversation = app.keeping.store.conversation(&identity.key_id, id).await.map_err(lost)?;
    conversation.ok_or_else(|| ApiError::NotFound { what: "conversation", id: id.into() })
}

async fn retrieve(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    shown(&found(&app, &identity, &id).await?)
}

async fn update(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<Update>,
) -> Result<Json<Value>, ApiError> {
    check_metadata(request.metadata.as_ref())?;
    let mut conversation = found(&app, &identity, &id).await?;
    conversation.metadata = Value::Object(request.metadata.unwrap_or_default()).to_string();
    app.keeping.store.set_metadata(&identity.key_id, &id, &conversation.metadata).await.map_err(lost)?;
    shown(&conversation)
}

async fn remove(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    found(&app, &identity, &id).await?;
    app.keeping.store.delete_conversation(&identity.key_id, &id).await.map_err(lost)?;
    Ok(Json(json!({ "id": id, "object": "conversation.deleted", "deleted": true })))
}

async fn add_items(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
    _: Includes,
    JsonBody(request): JsonBody<AddItems>,
) -> Result<Json<Value>, ApiError> {
    found(&app, &identity, &id).await?;
    let items = to_keep(&app, &identity, request.items)?;
    if items.iter().any(|item| matches!(item.item, Item::Output { .. })) {
        check_results(&items, &app.keeping.store.all_items(&identity.key_id, &id).await.map_err(lost)?)?;
    }
    let items = rows(items);
    let more: usize = items.iter().map(|item| item.body.len()).sum();
    let kept = app.keeping.store.num_item_bytes(&identity.key_id, &id).await.map_err(lost)?;
    if kept.saturating_add_unsigned(more as u64) > MOST_BYTES {
        let problem =
            format!("items: a conversation has at most {MOST_BYTES} bytes, this one has {kept} and {more} more");
        return Err(ApiError::invalid("items", problem));
    }
    let added = items.iter().map(|item| kept_json(&item.body)).collect::<Result<Vec<_>, _>>()?;
    app.keeping.store.append_items(&identity.key_id, Append { conversation_id: id, items }).await.map_err(lost)?;
    Ok(Json(list(added, i64::MAX)))
}

async fn list_items(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
    _: Includes,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>, ApiError> {
    found(&app, &identity, &id).await?;
    let page = query.page(100)?;
    let (store, owner, after) = (&app.keeping.store, &*identity.key_id, page.after.as_deref().unwrap_or_default());
    let items = store.list_items(owner, &id, &page).await.map_err(lost)?;
    let items = known(items, &page, async { Ok(store.item(owner, &id, after).await?.is_some()) }).await?;
    let items = items.iter().map(|item| kept_json(&item.body)).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(list(items, page.limit)))
}

async fn retrieve_item(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path((id, item)): Path<(String, String)>,
    _: Includes,
) -> Result<Json<Value>, ApiError> {
    let found = app.keeping.store.item(&identity.key_id, &id, &item).await.map_err(lost)?;
    let found = found.ok_or_else(|| ApiError::NotFound { what: "item", id: item.into() })?;
    Ok(Json(kept_json(&found.body)?))
}

async fn remove_item(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path((id, item)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let conversation = found(&app, &identity, &id).await?;
    match app.keeping.store.delete_item(&identity.key_id, &id, &item).await.map_err(lost)? {
        true => shown(&conversation),
        false => Err(ApiError::NotFound { what: "item", id: item.into() }),
    }
}
