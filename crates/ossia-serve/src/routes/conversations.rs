//! `/v1/conversations`: items that responses are made from and added to, without a client sending them again.

use axum::extract::State;
use axum::routing::{delete, get, post};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::lists::{ListQuery, list};
use super::responses::{check_metadata, kept_json, lost};
use crate::app::{Access, Route, Shared};
use crate::auth::{Identity, Scope};
use crate::clock;
use crate::error::ApiError;
use crate::ids;
use crate::store::{Append, StoredConversation, StoredItem};
use crate::types::body::JsonBody;
use crate::types::params::{Path, Query};
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

/// Items to be kept: a reference has nothing to keep.
fn to_keep(items: Vec<Value>) -> Result<Vec<StoredItem>, ApiError> {
    if items.len() > MOST_AT_ONCE {
        let problem = format!("items: wanted at most {MOST_AT_ONCE} at once, found {}", items.len());
        return Err(ApiError::invalid("items", problem));
    }
    let keep = |(index, item): (usize, InputItem)| match item.item {
        Item::Reference => {
            Err(ApiError::invalid(format!("items[{index}]"), "wanted an item, found a reference to one"))
        }
        _ => Ok(StoredItem { id: item.id, body: item.json.to_string() }),
    };
    read_items(items, "items")?.into_iter().enumerate().map(keep).collect()
}

async fn create(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    JsonBody(request): JsonBody<Create>,
) -> Result<Json<Value>, ApiError> {
    check_metadata(request.metadata.as_ref())?;
    let items = to_keep(request.items.unwrap_or_default())?;
    let conversation = StoredConversation {
        id: ids::new("conv")?,
        created_at: i64::try_from(clock::now_s()).unwrap_or(i64::MAX),
        date: clock::today(),
        metadata: Value::Object(request.metadata.unwrap_or_default()).to_string(),
    };
    app.keeping.store.insert_conversation(&identity.key_id, &conversation, items).await.map_err(lost)?;
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
    JsonBody(request): JsonBody<AddItems>,
) -> Result<Json<Value>, ApiError> {
    found(&app, &identity, &id).await?;
    let items = to_keep(request.items)?;
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
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>, ApiError> {
    found(&app, &identity, &id).await?;
    let page = query.page(100)?;
    let items = app.keeping.store.list_items(&identity.key_id, &id, &page).await.map_err(lost)?;
    let items = items.iter().map(|item| kept_json(&item.body)).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(list(items, page.limit)))
}

async fn retrieve_item(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path((id, item)): Path<(String, String)>,
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
