//! What `POST /v1/fine_tuning/jobs` takes, and what it means for the program that trains: one TOML file.
//!
//! Fields that mean nothing are refused, unlike elsewhere: who waits hours for a model wants to know at once that a word was
//! misspelt. Graders that run a program or ask a model are never taken from a request.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::ApiError;

/// The validation file's name in a job's folder.
pub const VALIDATION_FILE: &str = "validation_file.jsonl";
/// Graders inside each other.
const MOST_GRADERS_DEEP: usize = 8;
/// Graders that compute something from texts and nothing else.
const GRADERS: [&str; 5] = ["string_check", "text_similarity", "numeric", "json_check", "multi"];
/// Checkpoints that stay.
pub const KEPT_CHECKPOINTS: usize = 3;
/// Answers to each question where nobody says.
const GROUP: f64 = 8.0;

/// The body.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct CreateJob {
    /// The served model, by any of its names.
    pub model: String,
    /// A file with purpose `fine-tune`.
    pub training_file: String,
    /// Another, of data that are measured and not learned.
    pub validation_file: Option<String>,
    /// A word in the new model's name.
    pub suffix: Option<String>,
    /// Any from 0.
    pub seed: Option<i64>,
    /// Up to 16 texts.
    pub metadata: Option<Map<String, Value>>,
    /// Not supported: the server calls nobody.
    pub integrations: Option<Vec<Value>>,
    /// How the model learns; supervised where nothing is said.
    pub method: Option<Method>,
    /// The old place of `method.supervised.hyperparameters`.
    pub hyperparameters: Option<Hyperparameters>,
}

/// How the model learns.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct Method {
    /// Which of them.
    pub r#type: Kind,
    /// From conversations.
    pub supervised: Option<Settings>,
    /// From pairs of a better and a worse answer.
    pub dpo: Option<Settings>,
    /// From answers of its own that a grader judges.
    pub reinforcement: Option<Settings>,
}

/// The ways to learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// From conversations.
    Supervised,
    /// From pairs of a better and a worse answer.
    Dpo,
    /// From answers of its own that a grader judges.
    Reinforcement,
}

/// Settings of a way to learn.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct Settings {
    /// Numbers.
    pub hyperparameters: Option<Hyperparameters>,
    /// What judges an answer; for `reinforcement`.
    pub grader: Option<Value>,
}

/// Numbers of all ways to learn; each `auto` or a number.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct Hyperparameters {
    /// Examples of an update.
    pub batch_size: Option<Auto>,
    /// Times the usual learning rate.
    pub learning_rate_multiplier: Option<Auto>,
    /// How often all data are seen.
    pub n_epochs: Option<Auto>,
    /// For `dpo`: how closely the model is held to what it was.
    pub beta: Option<Auto>,
    /// For `reinforcement`: times the usual number of answers to a question.
    pub compute_multiplier: Option<Auto>,
    /// For `reinforcement`: updates from one measurement to the next.
    pub eval_interval: Option<Auto>,
    /// For `reinforcement`: held-out questions that are measured.
    pub eval_samples: Option<Auto>,
    /// For `reinforcement`: low, medium or high.
    pub reasoning_effort: Option<String>,
}

/// A number, or the word `auto`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Auto {
    /// Chosen by the program.
    Auto,
    /// This one.
    Number(f64),
}

impl<'de> Deserialize<'de> for Auto {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Auto;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\" or a number")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Auto, E> {
                if text == "auto" { Ok(Auto::Auto) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Auto, E> {
                Ok(Auto::Number(number))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Auto, E> {
                Ok(Auto::Number(number as f64))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Auto, E> {
                Ok(Auto::Number(number as f64))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Auto {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AutoOrNumber".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [{ "type": "string", "enum": ["auto"] }, { "type": "number" }] })
    }
}

/// A body that was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Understood {
    /// The configuration, TOML.
    pub settings: String,
    /// `method` as it is shown.
    pub method: Value,
    /// `hyperparameters` as they are shown.
    pub hyperparameters: Value,
    /// As it is shown.
    pub seed: i64,
}

/// A number's place in the configuration, and what it may be.
struct Known {
    name: &'static str,
    of: &'static [Kind],
    range: (f64, f64),
    is_whole: bool,
}

const ALL: &[Kind] = &[Kind::Supervised, Kind::Dpo, Kind::Reinforcement];
const KNOWN: [Known; 7] = [
    Known { name: "batch_size", of: ALL, range: (1.0, 256.0), is_whole: true },
    Known { name: "learning_rate_multiplier", of: ALL, range: (1e-4, 1e4), is_whole: false },
    Known { name: "n_epochs", of: ALL, range: (1.0, 50.0), is_whole: true },
    Known { name: "beta", of: &[Kind::Dpo], range: (1e-4, 2.0), is_whole: false },
    Known { name: "compute_multiplier", of: &[Kind::Reinforcement], range: (0.25, 8.0), is_whole: false },
    Known { name: "eval_interval", of: &[Kind::Reinforcement], range: (1.0, 1e6), is_whole: true },
    Known { name: "eval_samples", of: &[Kind::Reinforcement], range: (1.0, 1e4), is_whole: true },
];

impl CreateJob {
    /// Checks everything but the files and the model. `mean_tokens` is about how long a line of the training file is, and
    /// `fresh_seed` is taken where the request has none.
    pub fn understood(&self, mean_tokens: usize, fresh_seed: i64) -> Result<Understood, ApiError> {
        if self.integrations.as_ref().is_some_and(|list| !list.is_empty()) {
            let problem = "integrations: not supported; this server calls nobody. Job events have all numbers";
            return Err(ApiError::unsupported("integrations", problem));
        }
        check_suffix(self.suffix.as_deref())?;
        let seed = self.seed.unwrap_or(fresh_seed);
        if seed < 0 {
            return Err(ApiError::invalid("seed", format!("seed: wanted a number from 0, found {seed}")));
        }
        let (kind, settings, place) = self.way()?;
        let numbers = settings.hyperparameters.unwrap_or_default();
        let shown = numbers.shown(kind, &place)?;
        let mut table = numbers.table(&shown, kind, mean_tokens)?;
        table["seed"] = json!(seed);
        if self.validation_file.is_some() {
            table["validation"]["file"] = json!(VALIDATION_FILE);
        }
        let mut method = json!({ "type": kind });
        let name = method["type"].as_str().unwrap_or_default().to_owned();
        method[&name] = json!({ "hyperparameters": shown.clone() });
        match (kind, settings.grader) {
            (Kind::Reinforcement, Some(grader)) => {
                check_grader(&grader, "method.reinforcement.grader", 0)?;
                method[&name]["grader"] = grader.clone();
                table["grpo"]["grader"] = without_nulls(grader);
            }
            (Kind::Reinforcement, None) => {
                let param = "method.reinforcement.grader";
                return Err(ApiError::invalid(param, format!("{param}: wanted a grader, found nothing")));
            }
            (_, Some(_)) => return Err(ApiError::invalid(place, "a grader is for reinforcement only")),
            (_, None) => {}
        }
        // What is written must be readable: TOML has smaller integers than JSON.
        let settings = toml::to_string(&json!({ "finetune": table })).ok();
        let settings = settings.filter(|text| text.parse::<toml::Table>().is_ok());
        let too_large = || ApiError::invalid("method", "method: has a number that is too large for a configuration");
        let settings = settings.ok_or_else(too_large)?;
        Ok(Understood { settings, method, hyperparameters: Value::Object(shown), seed })
    }

    /// The way to learn, its settings, and where they stand.
    fn way(&self) -> Result<(Kind, Settings, String), ApiError> {
        let old = self.hyperparameters.clone();
        let Some(method) = self.method.clone() else {
            let settings = Settings { hyperparameters: old, grader: None };
            return Ok((Kind::Supervised, settings, "hyperparameters".into()));
        };
        let parts = [
            (Kind::Supervised, "supervised", method.supervised),
            (Kind::Dpo, "dpo", method.dpo),
            (Kind::Reinforcement, "reinforcement", method.reinforcement),
        ];
        let (mut found, mut place) = (None, "method".to_owned());
        for (kind, name, settings) in parts {
            match (kind == method.r#type, settings) {
                (true, settings) => (found, place) = (settings, format!("method.{name}")),
                (false, Some(_)) => {
                    let problem = format!("method.{name}: method.type is another; leave it out");
                    return Err(ApiError::invalid(format!("method.{name}"), problem));
                }
                (false, None) => {}
            }
        }
        let mut settings = found.unwrap_or_default();
        match (&settings.hyperparameters, old) {
            (Some(_), Some(_)) => {
                let problem = "hyperparameters: stand in method too; leave one of them out";
                return Err(ApiError::invalid("hyperparameters", problem));
            }
            (None, Some(old)) => (settings.hyperparameters, place) = (Some(old), "hyperparameters".to_owned()),
            (_, None) => place.push_str(".hyperparameters"),
        }
        Ok((method.r#type, settings, place))
    }
}

impl Hyperparameters {
    fn all(&self) -> [Option<Auto>; KNOWN.len()] {
        [
            self.batch_size,
            self.learning_rate_multiplier,
            self.n_epochs,
            self.beta,
            self.compute_multiplier,
            self.eval_interval,
            self.eval_samples,
        ]
    }

    /// As a job shows them: `auto` where nothing was said. Numbers that mean nothing here, or cannot be, are errors.
    fn shown(&self, kind: Kind, place: &str) -> Result<Map<String, Value>, ApiError> {
        let mut shown = Map::new();
        for (known, given) in KNOWN.iter().zip(self.all()) {
            let param = format!("{place}.{}", known.name);
            match given {
                Some(_) if !known.of.contains(&kind) => {
                    return Err(ApiError::invalid(&param, format!("{param}: is for another method")));
                }
                Some(Auto::Number(number)) => {
                    let (least, most) = known.range;
                    if !(least..=most).contains(&number) || (known.is_whole && number.fract() != 0.0) {
                        let whole = if known.is_whole { "whole " } else { "" };
                        let problem = format!("{param}: wanted \"auto\" or a {whole}number from {least} to {most}");
                        return Err(ApiError::invalid(&param, format!("{problem}, found {number}")));
                    }
                    shown.insert(known.name.into(), plain(number, known.is_whole));
                }
                _ if known.of.contains(&kind) => drop(shown.insert(known.name.into(), json!("auto"))),
                _ => {}
            }
        }
        if let Some(effort) = &self.reasoning_effort {
            let param = format!("{place}.reasoning_effort");
            if kind != Kind::Reinforcement {
                return Err(ApiError::invalid(&param, format!("{param}: is for another method")));
            }
            if !["default", "low", "medium", "high"].contains(&effort.as_str()) {
                let problem = format!("{param}: wanted default, low, medium or high, found {effort:?}");
                return Err(ApiError::invalid(&param, problem));
            }
            shown.insert("reasoning_effort".into(), json!(effort));
        }
        Ok(shown)
    }

    /// The configuration's table, from what is shown; what is `auto` is left to the program that trains.
    fn table(&self, shown: &Map<String, Value>, kind: Kind, mean_tokens: usize) -> Result<Value, ApiError> {
        let number = |name: &str| shown.get(name).and_then(Value::as_f64);
        let (method, format) = match kind {
            Kind::Supervised => ("sft", "auto"),
            Kind::Dpo => ("dpo", "preference"),
            Kind::Reinforcement => ("grpo", "items"),
        };
        let mut table = json!({
            "method": method, "data": { "format": format, "on_bad": "fail" },
            // What a client calls training data is all learned; it says itself what is held out.
            "validation": { "share": 0.0 }, "checkpoints": { "keep": KEPT_CHECKPOINTS },
        });
        let mut set = |path: &[&str], value: Value| {
            let mut at = &mut table;
            for key in path {
                at = &mut at[*key];
            }
            *at = value;
        };
        if let Some(epochs) = number("n_epochs") {
            set(&["epochs"], json!(epochs));
        }
        if let Some(multiplier) = number("learning_rate_multiplier") {
            set(&["lr_multiplier"], json!(multiplier));
        }
        if let Some(examples) = number("batch_size") {
            match kind {
                Kind::Reinforcement => set(&["grpo", "prompts"], json!(examples as u64)),
                _ => set(&["training", "batch_tokens"], json!(examples as usize * mean_tokens.max(1))),
            }
        }
        if let Some(beta) = number("beta") {
            set(&["dpo", "beta"], json!(beta));
        }
        if let Some(multiplier) = number("compute_multiplier") {
            set(&["grpo", "group"], json!((GROUP * multiplier).round().max(2.0) as u64));
        }
        if let Some(interval) = number("eval_interval") {
            set(&["validation", "every"], json!(interval as u64));
        }
        if let Some(samples) = number("eval_samples") {
            set(&["validation", "most"], json!(samples as u64));
        }
        if let Some(effort) = self.reasoning_effort.as_deref().filter(|effort| *effort != "default") {
            set(&["data", "reasoning"], json!(effort));
        }
        Ok(table)
    }
}

/// A number as JSON has it: whole ones without a point.
fn plain(number: f64, is_whole: bool) -> Value {
    if is_whole { json!(number as i64) } else { json!(number) }
}

/// A word that can stand in a model's name.
fn check_suffix(suffix: Option<&str>) -> Result<(), ApiError> {
    let is_word = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        (1..=64).contains(&text.len()) && plain
    };
    match suffix {
        Some(text) if !is_word(text) => {
            let problem = "suffix: wanted 1 to 64 letters, digits, hyphens, underscores and points";
            Err(ApiError::invalid("suffix", problem))
        }
        _ => Ok(()),
    }
}

/// Only graders that compute: a request must not be able to run a program, whatever the program that trains could do.
pub(super) fn check_grader(grader: &Value, place: &str, depth: usize) -> Result<(), ApiError> {
    let kind = grader["type"].as_str().unwrap_or_default();
    if !GRADERS.contains(&kind) || depth >= MOST_GRADERS_DEEP {
        let problem = format!("{place}.type: wanted one of {}, found {kind:?}", GRADERS.join(", "));
        return Err(ApiError::invalid(format!("{place}.type"), problem));
    }
    if kind != "multi" {
        return Ok(());
    }
    let place = format!("{place}.graders");
    match &grader["graders"] {
        Value::Object(inside) => {
            inside.iter().try_for_each(|(name, grader)| check_grader(grader, &format!("{place}.{name}"), depth + 1))
        }
        _ => Err(ApiError::invalid(&place, format!("{place}: wanted an object of graders by name"))),
    }
}

/// TOML has no null; a field that is null says as little as one that is not there.
pub(super) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(list) => {
            Value::Array(list.into_iter().filter(|value| !value.is_null()).map(without_nulls).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
