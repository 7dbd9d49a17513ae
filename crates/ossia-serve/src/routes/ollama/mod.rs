//! Ollama's API, so that its clients work, and programs that look for it: /api/version, tags, show, pull, chat, generate.
//! Models are not fetched here: a pull of the model that is served succeeds at once, any other is unknown.

mod answer;
mod convert;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::app::{Access, Route, Shared};
use crate::auth::{Identity, Scope};
use crate::clock;
use crate::error::ApiError;
use crate::models::ServedModel;
use crate::types::body::JsonBody;
use crate::types::ollama::{OllamaChat, OllamaGenerate, OllamaModel};

/// The version whose API this is: programs ask it before they use newer parts.
const VERSION: &str = "0.20.0";

/// When the model is given up.
const FOR_EVER: &str = "9999-12-31T23:59:59Z";

/// This file's part of the table.
pub fn routes() -> Vec<Route> {
    let key = Access::Key(Scope::Infer);
    vec![
        Route::new("GET", "/api/version", key, get(version)),
        Route::new("GET", "/api/tags", key, get(tags)),
        Route::new("GET", "/api/ps", key, get(running)),
        Route::new("POST", "/api/show", key, post(show)).takes::<OllamaModel>(),
        Route::new("POST", "/api/pull", key, post(pull)).takes::<OllamaModel>(),
        Route::new("POST", "/api/chat", key, post(chat)).takes::<OllamaChat>().generates(busy),
        Route::new("POST", "/api/generate", key, post(generate)).takes::<OllamaGenerate>().generates(busy),
    ]
}

/// An error as Ollama's clients read it: a text.
pub struct OllamaError(ApiError);

impl From<ApiError> for OllamaError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for OllamaError {
    fn into_response(self) -> Response {
        let error = self.0.clone();
        in_its_form(self.0.into_response(), &error)
    }
}

/// The response that tells of `error`, in Ollama's form.
fn in_its_form(mut response: Response, error: &ApiError) -> Response {
    *response.body_mut() = json!({ "error": error.to_string() }).to_string().into();
    response.headers_mut().remove("content-length");
    response
}

/// What is refused under /api before a handler is reached (no key, no such route) is told in Ollama's form too.
pub fn told(path: &str, mut response: Response) -> Response {
    match response.extensions_mut().remove::<ApiError>() {
        Some(error) if path.starts_with("/api/") => in_its_form(response, &error),
        _ => response,
    }
}

fn busy(error: ApiError) -> Response {
    OllamaError(error).into_response()
}

/// A body that is refused in Ollama's form.
type Body<T> = Result<JsonBody<T>, ApiError>;

async fn version() -> Json<Value> {
    Json(json!({ "version": VERSION }))
}

async fn tags(State(app): State<Shared>) -> Json<Value> {
    let model = &app.model;
    let entry = |name: &str| {
        json!({
            "name": name, "model": name, "modified_at": clock::rfc3339(model.created), "size": model.num_bytes,
            "digest": digest(model), "details": details(model),
        })
    };
    Json(json!({ "models": model.names().map(entry).collect::<Vec<_>>() }))
}

/// What is loaded: the one model, for as long as the server runs.
async fn running(State(app): State<Shared>) -> Json<Value> {
    let model = &app.model;
    Json(json!({ "models": [{
        "name": model.id, "model": model.id, "size": model.num_bytes, "digest": digest(model),
        "details": details(model), "expires_at": FOR_EVER, "size_vram": 0, "context_length": model.context,
    }] }))
}

async fn show(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    body: Body<OllamaModel>,
) -> Result<Json<Value>, OllamaError> {
    let JsonBody(request) = body?;
    let model = &app.model;
    app.chosen(&identity, request.model.or(request.name).as_deref()).await?;
    Ok(Json(json!({
        "license": "Apache-2.0", "modelfile": "", "parameters": "", "template": "harmony", "details": details(model),
        "model_info": {
            "general.architecture": "gptoss", "general.parameter_count": model.num_parameters,
            "gptoss.context_length": model.context,
        },
        "capabilities": ["completion", "tools", "thinking"], "modified_at": clock::rfc3339(model.created),
    })))
}

async fn pull(State(app): State<Shared>, body: Body<OllamaModel>) -> Result<Response, OllamaError> {
    let JsonBody(request) = body?;
    app.model.named(request.model.or(request.name).as_deref())?;
    let success = json!({ "status": "success" });
    if request.stream == Some(false) {
        return Ok(Json(success).into_response());
    }
    let lines = format!("{}\n{success}\n", json!({ "status": "pulling manifest" }));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], lines).into_response())
}

async fn chat(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    body: Body<OllamaChat>,
) -> Result<Response, OllamaError> {
    let JsonBody(request) = body?;
    if request.messages.as_ref().is_none_or(Vec::is_empty) {
        return Ok(loaded(&app, &identity, answer::Form::Chat, request.model.as_deref()).await?);
    }
    let is_stream = request.stream.unwrap_or(true);
    let request = convert::chat(request)?;
    answer::answer(app, identity, request, answer::Form::Chat, is_stream).await
}

async fn generate(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    body: Body<OllamaGenerate>,
) -> Result<Response, OllamaError> {
    let JsonBody(request) = body?;
    if request.prompt.as_ref().is_none_or(String::is_empty) {
        return Ok(loaded(&app, &identity, answer::Form::Generate, request.model.as_deref()).await?);
    }
    let is_stream = request.stream.unwrap_or(true);
    let request = convert::generate(request)?;
    answer::answer(app, identity, request, answer::Form::Generate, is_stream).await
}

/// Without a prompt a client only wants the model to be loaded, which it is.
async fn loaded(
    app: &Shared,
    identity: &Identity,
    form: answer::Form,
    asked: Option<&str>,
) -> Result<Response, ApiError> {
    let model = app.chosen(identity, asked).await?.name;
    let mut object = form.object(&model, "", "", Vec::new());
    object["done"] = json!(true);
    object["done_reason"] = json!("load");
    Ok(Json(object).into_response())
}

fn details(model: &ServedModel) -> Value {
    let size = match model.num_parameters {
        n if n >= 1_000_000_000 => format!("{:.1}B", n as f64 / 1e9),
        n => format!("{:.1}M", n as f64 / 1e6),
    };
    json!({
        "parent_model": "", "format": "gguf", "family": "gptoss", "families": ["gptoss"], "parameter_size": size,
        "quantization_level": model.quantization,
    })
}

/// Something that stays the same as long as the model does; clients only compare it.
fn digest(model: &ServedModel) -> String {
    crate::keys::hash(&format!("{} {} {}", model.id, model.num_parameters, model.num_bytes))
}
