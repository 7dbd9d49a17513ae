//! What a model's answer is worth: graders as OpenAI's fine-tuning describes them, and three of our own.
//!
//! `string_check`, `text_similarity` and `multi` have OpenAI's fields; `numeric`, `json_check` and `command` are ours. A
//! grader is made once, from JSON, where everything that is wrong with it is an error; grading then never fails: what a
//! model wrote may be anything, and an answer that cannot be graded is worth nothing, with the reason beside it.

mod command;
mod description;
mod error;
mod formula;
mod json_check;
mod numeric;
mod schema;
mod similarity;
mod template;
#[cfg(test)]
mod tests;

use ossia_text::ParsedMessage;
use ossia_text::harmony::MessageKind;
use serde_json::{Value, json};

use command::Command;
use description::{Description, shown};
pub use error::{Error, Result};
use formula::Formula;
use json_check::JsonCheck;
use numeric::Numeric;
use similarity::Metric;
use template::{Context, Template};

/// Graders inside graders.
const MOST_DEPTH: usize = 8;

/// What a model has made of an item.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    text: String,
    json: Option<Value>,
    tools: Value,
}

impl Sample {
    /// The last answer among the messages of a turn, and the calls that it makes.
    pub fn of(messages: &[ParsedMessage]) -> Self {
        let mut answers = messages.iter().filter(|message| message.header.kind() == MessageKind::Answer);
        let text = answers.next_back().map(|message| message.text.clone()).unwrap_or_default();
        let calls = messages.iter().filter_map(|message| Some((message.tool_call()?, &message.text)));
        let calls = calls.map(|(call, arguments)| {
            json!({"type": "function", "function": {"name": call.function_name(), "arguments": arguments}})
        });
        Self { tools: calls.collect(), ..Self::of_text(text) }
    }

    /// An answer in words.
    pub fn of_text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { json: serde_json::from_str(text.trim()).ok(), text, tools: json!([]) }
    }

    /// As a command is given it.
    fn value(&self) -> Value {
        json!({"output_text": self.text, "output_json": self.json, "output_tools": self.tools})
    }
}

/// What an answer is worth.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Score {
    /// Finite; 0 to 1 for every grader but formulas and commands.
    pub value: f64,
    /// What the graders inside gave, by their names.
    pub parts: Vec<(String, f64)>,
    /// Why it could not be graded, if so; then the value is 0.
    pub problem: Option<String>,
}

impl Score {
    fn of(value: f64) -> Self {
        Self { value, ..Self::default() }
    }

    fn yes(is: bool) -> Self {
        Self::of(f64::from(u8::from(is)))
    }

    fn none(problem: impl Into<String>) -> Self {
        Self { problem: Some(problem.into()), ..Self::default() }
    }
}

/// A grader.
#[derive(Debug)]
pub struct Grader(Kind);

#[derive(Debug)]
enum Kind {
    String { operation: Operation, input: Template, reference: Template },
    Similarity { metric: Metric, input: Template, reference: Template },
    Numeric(Numeric),
    Json(JsonCheck),
    Command(Command),
    Multi { graders: Vec<(String, Grader)>, formula: Formula },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Operation {
    Equal,
    NotEqual,
    /// The input contains the reference.
    Like,
    /// The same, whatever the case.
    LikeAnyCase,
}

impl Grader {
    /// Reads a description, such as `{"type": "string_check", "operation": "eq", "input": "{{sample.output_text}}",
    /// "reference": "{{item.answer}}"}`. Fails where something is wrong with it, naming the field, and where a command
    /// cannot be run on this machine.
    pub fn from_json(description: &Value) -> Result<Self> {
        Self::read_at(description, "grader")
    }

    /// The same for a description that stands at `place`, which errors name.
    pub fn read_at(description: &Value, place: &str) -> Result<Self> {
        Self::read(description, place, 0)
    }

    fn read(value: &Value, at: &str, depth: usize) -> Result<Self> {
        let fields = Description::of(value, at)?;
        let kind = match fields.text("type")? {
            "string_check" => {
                fields.only(&["operation", "input", "reference"])?;
                let operation = operation(&fields)?;
                Kind::String { operation, input: fields.input()?, reference: fields.template("reference")? }
            }
            "text_similarity" => {
                fields.only(&["evaluation_metric", "input", "reference"])?;
                let metric = Metric::read(&fields)?;
                Kind::Similarity { metric, input: fields.input()?, reference: fields.template("reference")? }
            }
            "numeric" => Kind::Numeric(Numeric::read(&fields)?),
            "json_check" => Kind::Json(JsonCheck::read(&fields)?),
            "command" => Kind::Command(Command::read(&fields)?),
            "multi" => multi(&fields, depth)?,
            "python" => {
                return fields.wrong("type", "\"command\" with [\"python3\", \"grade.py\"] in place of a source text");
            }
            "score_model" | "label_model" => return fields.wrong("type", "a grader that asks no other model"),
            _ => {
                let wanted =
                    "\"string_check\", \"text_similarity\", \"numeric\", \"json_check\", \"command\" or \"multi\"";
                return fields.wrong("type", wanted);
            }
        };
        Ok(Self(kind))
    }

    /// Fails where `item` lacks what a template takes from it: to be called for every item before a run.
    pub fn check(&self, item: &Value) -> Result<()> {
        match &self.0 {
            Kind::String { input, reference, .. } | Kind::Similarity { input, reference, .. } => {
                input.check(item)?;
                reference.check(item)
            }
            Kind::Numeric(numeric) => numeric.check(item),
            Kind::Json(json) => json.check(item),
            Kind::Command(_) => Ok(()),
            Kind::Multi { graders, .. } => graders.iter().try_for_each(|(_, grader)| grader.check(item)),
        }
    }

    /// What `sample` is worth as an answer to `item`.
    pub fn grade(&self, item: &Value, sample: &Sample) -> Score {
        let context = Context { item, sample };
        let both = |input: &Template, reference: &Template| -> std::result::Result<_, String> {
            Ok((input.fill(context)?, reference.fill(context)?))
        };
        let score = match &self.0 {
            Kind::String { operation, input, reference } => {
                both(input, reference).map(|(found, wanted)| Score::yes(operation.holds(&found, &wanted)))
            }
            Kind::Similarity { metric, input, reference } => {
                both(input, reference).map(|(found, wanted)| Score::of(metric.of(&found, &wanted)))
            }
            Kind::Numeric(numeric) => numeric.grade(context),
            Kind::Json(json) => json.grade(context),
            Kind::Command(command) => command.grade(item, sample),
            Kind::Multi { graders, formula } => Ok(together(graders, formula, item, sample)),
        };
        match score {
            Ok(score) if score.value.is_finite() => score,
            Ok(score) => Score { value: 0.0, problem: Some("the score is not finite".to_owned()), ..score },
            Err(problem) => Score::none(problem),
        }
    }

    /// How commands are kept apart from the machine, in one line for people; nothing where there is none.
    pub fn isolation(&self) -> Option<String> {
        match &self.0 {
            Kind::Command(command) => Some(command.isolation()),
            Kind::Multi { graders, .. } => graders.iter().find_map(|(_, grader)| grader.isolation()),
            _ => None,
        }
    }
}

fn operation(fields: &Description) -> Result<Operation> {
    match fields.text("operation")? {
        "eq" => Ok(Operation::Equal),
        "ne" => Ok(Operation::NotEqual),
        "like" => Ok(Operation::Like),
        "ilike" => Ok(Operation::LikeAnyCase),
        _ => fields.wrong("operation", "\"eq\", \"ne\", \"like\" or \"ilike\""),
    }
}

impl Operation {
    fn holds(self, found: &str, wanted: &str) -> bool {
        match self {
            Self::Equal => found == wanted,
            Self::NotEqual => found != wanted,
            Self::Like => found.contains(wanted),
            Self::LikeAnyCase => found.to_lowercase().contains(&wanted.to_lowercase()),
        }
    }
}

/// Several graders and a formula over what they give.
fn multi(fields: &Description, depth: usize) -> Result<Kind> {
    fields.only(&["graders", "calculate_output"])?;
    if depth >= MOST_DEPTH {
        return fields.wrong("type", "at most eight graders inside each other");
    }
    let Value::Object(inside) = fields.need("graders", "an object of graders by name")? else {
        return fields.wrong("graders", "an object of graders by name");
    };
    let mut graders = Vec::new();
    for (name, description) in inside {
        let at = format!("{}.{name}", fields.at("graders"));
        if !formula::is_name(name) {
            return Err(Error::field(&at, "a name of letters, digits and _ that is no function", shown(&json!(name))));
        }
        graders.push((name.clone(), Grader::read(description, &at, depth + 1)?));
    }
    if graders.is_empty() {
        return fields.wrong("graders", "at least one grader");
    }
    let names: Vec<&str> = graders.iter().map(|(name, _)| name.as_str()).collect();
    let formula = Formula::parse(fields.text("calculate_output")?, &names, &fields.at("calculate_output"))?;
    Ok(Kind::Multi { graders, formula })
}

fn together(graders: &[(String, Grader)], formula: &Formula, item: &Value, sample: &Sample) -> Score {
    let scores: Vec<Score> = graders.iter().map(|(_, grader)| grader.grade(item, sample)).collect();
    let values: Vec<f64> = scores.iter().map(|score| score.value).collect();
    let parts = graders.iter().zip(&values).map(|((name, _), value)| (name.clone(), *value)).collect();
    // A part that could not be graded counts as 0 in the formula; the first reason is told.
    let named = graders.iter().zip(scores).find_map(|((name, _), score)| Some(format!("{name}: {}", score.problem?)));
    Score { value: formula.value(&values), parts, problem: named }
}
