//! `/v1/fine_tuning/alpha/graders`: a grader is looked at, or tried on an answer, before a job is made with it. The same
//! graders as in a job, and like there none that runs a program or asks a model.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::routing::post;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::request::{check_grader, without_nulls};
use crate::app::{Access, App, Route, Shared};
use crate::auth::Scope;
use crate::error::ApiError;
use crate::grading::{Graded, GraderFault, Grading};
use crate::types::body::JsonBody;

/// Bytes of an answer or an item that is graded.
const MOST_BYTES: usize = 1 << 20;
/// Where a grader stands in these requests.
const PLACE: &str = "grader";
/// One is graded at a time: a comparison of long texts takes a core for a second.
static ONE: Semaphore = Semaphore::const_new(1);

/// This file's part of the table.
pub fn routes() -> Vec<Route> {
    let access = Access::Key(Scope::Train);
    vec![
        Route::new("POST", "/v1/fine_tuning/alpha/graders/run", access, post(run)).takes::<RunGrader>(),
        Route::new("POST", "/v1/fine_tuning/alpha/graders/validate", access, post(validate)).takes::<ValidateGrader>(),
    ]
}

/// A grader and what it is to grade.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RunGrader {
    /// As in a job's `method.reinforcement.grader`.
    pub grader: Value,
    /// The answer: `sample.output_text`, and `sample.output_json` where it is JSON.
    pub model_sample: String,
    /// The example: `item`.
    pub item: Option<Map<String, Value>>,
}

/// A grader to look at.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct ValidateGrader {
    /// As in a job's `method.reinforcement.grader`.
    pub grader: Value,
}

/// Looks at a grader, which stands at `place`, as the program that trains does.
pub fn check(app: &App, grader: &Value, place: &str) -> Result<(), ApiError> {
    check_grader(grader, place, 0)?;
    match &app.grading {
        Some(grading) => grading.check(&without_nulls(grader.clone()), place).map_err(wrong),
        None => Ok(()),
    }
}

fn wrong(fault: GraderFault) -> ApiError {
    ApiError::invalid(fault.field, fault.problem)
}

fn grading(app: &App) -> Result<Arc<dyn Grading>, ApiError> {
    app.grading.clone().ok_or_else(|| ApiError::unsupported(PLACE, "This server does not train, and has no graders."))
}

async fn validate(
    State(app): State<Shared>,
    JsonBody(request): JsonBody<ValidateGrader>,
) -> Result<Json<Value>, ApiError> {
    grading(&app)?;
    check(&app, &request.grader, PLACE)?;
    Ok(Json(json!({ "grader": request.grader })))
}

async fn run(State(app): State<Shared>, JsonBody(request): JsonBody<RunGrader>) -> Result<Json<Value>, ApiError> {
    let grading = grading(&app)?;
    check(&app, &request.grader, PLACE)?;
    let item = Value::Object(request.item.unwrap_or_default());
    for (field, bytes) in [("model_sample", request.model_sample.len()), ("item", item.to_string().len())] {
        if bytes > MOST_BYTES {
            return Err(ApiError::invalid(field, format!("{field}: wanted at most {MOST_BYTES} bytes, found {bytes}")));
        }
    }
    let name = json!([request.grader["name"], request.grader["type"]]);
    let (grader, answer) = (without_nulls(request.grader), request.model_sample);
    let _turn = ONE.acquire().await.map_err(|_| ApiError::Internal)?;
    let begun = Instant::now();
    let graded = tokio::task::spawn_blocking(move || grading.grade(&grader, &item, &answer)).await;
    let graded = graded.map_err(|_| ApiError::Internal)?.map_err(wrong)?;
    Ok(Json(shown(&graded, &name, begun.elapsed().as_secs_f64())))
}

/// As OpenAI has it; `problem` is ours, for people.
fn shown(graded: &Graded, name: &Value, seconds: f64) -> Value {
    let parts: Map<String, Value> = graded.parts.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "reward": graded.value,
        "metadata": {
            "name": name[0],
            "type": name[1],
            "errors": {
                "formula_parse_error": false,
                "sample_parse_error": graded.problem.is_some(),
                "truncated_observation_error": false,
                "unresponsive_reward_error": false,
                "invalid_variable_error": graded.missing.is_some(),
                "other_error": false,
                "python_grader_server_error": false,
                "python_grader_server_error_type": null,
                "python_grader_runtime_error": false,
                "python_grader_runtime_error_details": null,
                "model_grader_server_error": false,
                "model_grader_refusal_error": false,
                "model_grader_parse_error": false,
                "model_grader_server_error_details": null,
            },
            "problem": graded.missing.as_ref().or(graded.problem.as_ref()),
            "execution_time": seconds,
            "scores": parts,
            "token_usage": null,
            "sampled_model_name": null,
        },
        "sub_rewards": parts,
        "model_grader_token_usage_per_model": {},
    })
}
