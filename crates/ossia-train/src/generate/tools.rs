//! Calls of tools, and answers from what they give back.

use ossia_text::Message;
use ossia_text::harmony::{COMMENTARY, ToolDescription};
use serde_json::{Map, Value, json};

use super::Expected;
use super::frame;
use super::phrases::{ask, fill};
use super::rng::Rng;
use super::schemas::{Kind, SCHEMAS, Schema, Slot};
use super::task::{Task, Thought, Turn};

/// The answer where no tool serves.
const NO_TOOL: &str = "I have no tool for that.";
/// So many of a hundred requests are for a tool that is not there.
const NO_TOOL_PERCENT: usize = 12;
/// So many of a hundred results are errors.
const ERROR_PERCENT: usize = 12;
const ERRORS: &[&str] = &["not found", "no connection", "not allowed", "timeout", "try later", "bad request"];

/// A tool under one of its names.
struct Offer {
    schema: &'static Schema,
    name: &'static str,
    params: Vec<&'static str>,
}

impl Offer {
    fn draw(rng: &mut Rng, schema: &'static Schema) -> Self {
        let params = schema.params.iter().map(|slot| rng.pick(slot.names)).collect();
        Self { schema, name: rng.pick(schema.names), params }
    }

    fn description(&self) -> ToolDescription {
        let slots = self.params.iter().zip(self.schema.params);
        let properties: Map<String, Value> = slots.map(|(name, slot)| ((*name).to_owned(), type_of(slot))).collect();
        let parameters = json!({"type": "object", "properties": properties, "required": self.params});
        ToolDescription {
            name: self.name.to_owned(),
            description: self.schema.about.to_owned(),
            parameters: Some(parameters),
        }
    }
}

fn type_of(slot: &Slot) -> Value {
    match slot.kind {
        Kind::Enum(values) => json!({"type": "string", "enum": values}),
        Kind::Number(..) => json!({"type": "number"}),
        Kind::Word(_) | Kind::Pair(..) | Kind::Clock => json!({"type": "string"}),
    }
}

fn value_of(rng: &mut Rng, slot: &Slot) -> Value {
    match slot.kind {
        Kind::Word(values) | Kind::Enum(values) => json!(rng.pick(values)),
        Kind::Pair(first, second) => json!(format!("{} {}", rng.pick(first), rng.pick(second))),
        Kind::Number(low, high) => json!(rng.between(low, high)),
        Kind::Clock => json!(format!("{:02}:{:02}", rng.between(6, 22), 5 * rng.below(12))),
    }
}

/// Different values for the slots, since a template tells them apart by their place only.
fn values_of(rng: &mut Rng, slots: &[Slot]) -> Vec<Value> {
    let mut values: Vec<Value> = Vec::new();
    while values.len() < slots.len() {
        let value = value_of(rng, &slots[values.len()]);
        if !values.contains(&value) {
            values.push(value);
        }
    }
    values
}

/// The value as people write it.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A request for a tool.
struct Request {
    /// All tools that are offered, in the order of the developer message.
    offers: Vec<Offer>,
    /// The one that serves.
    wanted: Option<usize>,
    topic: &'static str,
    question: String,
    values: Vec<Value>,
}

impl Request {
    fn draw(rng: &mut Rng, wants_tool: bool) -> Self {
        let count = 1 + rng.weighted(&[45, 35, 20]);
        let places: Vec<usize> = (0..SCHEMAS.len()).collect();
        let mut chosen = rng.some(&places, count + 1);
        let schema = &SCHEMAS[chosen[0]];
        let values = values_of(rng, schema.params);
        let texts: Vec<String> = values.iter().map(plain).collect();
        let named: Vec<(&str, &str)> = ["0", "1", "2"].into_iter().zip(texts.iter().map(String::as_str)).collect();
        let question = ask(rng, schema.asks, &named);
        if wants_tool {
            chosen.truncate(count);
            rng.shuffle(&mut chosen);
        } else {
            chosen.remove(0);
        }
        let offers: Vec<Offer> = chosen.iter().map(|place| Offer::draw(rng, &SCHEMAS[*place])).collect();
        let wanted = offers.iter().position(|offer| offer.schema.topic == schema.topic);
        Self { offers, wanted, topic: schema.topic, question, values }
    }

    fn key(&self, kind: &str) -> String {
        let values: Vec<String> = self.values.iter().map(plain).collect();
        format!("{kind} {} {}", self.topic, values.join("|"))
    }

    fn tools(&self) -> Vec<ToolDescription> {
        self.offers.iter().map(Offer::description).collect()
    }

    /// What is wanted, which tool serves, and each argument; the check reads the tools again.
    fn thought(&self) -> Thought {
        let offer = self.wanted.map(|place| &self.offers[place]);
        let mut lines = vec![format!("{}: {}", self.topic, offer.map_or("no tool", |offer| offer.name))];
        let params = offer.map_or(&[][..], |offer| &offer.params);
        lines.extend(params.iter().zip(&self.values).map(|(name, value)| format!("{name}: {}", plain(value))));
        let tools: Vec<String> = self.offers.iter().map(|o| format!("{}({})", o.name, o.params.join(", "))).collect();
        Thought::new(lines.join("\n"), format!("check {}", tools.join(" ")))
    }

    fn arguments(&self, offer: &Offer) -> Value {
        let pairs = offer.params.iter().zip(&self.values);
        Value::Object(pairs.map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }
}

/// Tools for a question that needs none.
pub(super) fn unneeded(rng: &mut Rng) -> Vec<ToolDescription> {
    let schema = &SCHEMAS[rng.below(SCHEMAS.len())];
    vec![Offer::draw(rng, schema).description()]
}

/// A request that the right tool must be called for, or that none of the tools serves.
pub(super) fn call(rng: &mut Rng) -> Task {
    let wants_tool = !rng.chance(NO_TOOL_PERCENT);
    let request = Request::draw(rng, wants_tool);
    let task = Task::new(request.key("call"), request.question.clone(), request.thought(), NO_TOOL);
    let answer = match request.wanted.map(|place| &request.offers[place]) {
        Some(offer) => Expected::Call { name: offer.name.to_owned(), arguments: request.arguments(offer) },
        None => task.answer.clone(),
    };
    Task { tools: request.tools(), answer, ..task }
}

/// A request, the call, what the tool gave back; the answer says it in a sentence.
pub(super) fn answer(rng: &mut Rng) -> Task {
    loop {
        let request = Request::draw(rng, true);
        if let Some(place) = request.wanted {
            return told(rng, &request, &request.offers[place]);
        }
    }
}

fn told(rng: &mut Rng, request: &Request, offer: &Offer) -> Task {
    let slots = offer.schema.results;
    let (results, answer) = if rng.chance(ERROR_PERCENT) {
        let error = rng.pick(ERRORS);
        (vec![("error", json!(error))], format!("The tool failed: {error}."))
    } else {
        let results = values_of(rng, slots);
        let answer = fill_answer(offer.schema.answer, &request.values, &results);
        (slots.iter().map(|slot| rng.pick(slot.names)).zip(results).collect(), answer)
    };
    let said: Vec<String> = results.iter().map(|(name, value)| format!("{name}: {}", plain(value))).collect();
    let thought = Thought::new(said.join("\n"), format!("check {}: {}", request.topic, offer.name));
    let key = format!("{} -> {}", request.key("told"), said.join("|"));
    let result = Value::Object(results.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
    let function = format!("functions.{}", offer.name);
    let turns = vec![
        Turn::Said(Message::user(request.question.clone())),
        Turn::Thought(request.thought()),
        Turn::Said(frame::call(offer.name, request.arguments(offer).to_string())),
        Turn::Said(Message::tool_result(function, COMMENTARY, result.to_string())),
    ];
    let task = Task::new(key, String::new(), thought, answer);
    Task { tools: request.tools(), turns, inner: vec![request.key("call")], ..task }
}

fn fill_answer(template: &str, values: &[Value], results: &[Value]) -> String {
    let (values, results): (Vec<String>, Vec<String>) =
        (values.iter().map(plain).collect(), results.iter().map(plain).collect());
    let names = ["0", "1", "2"].into_iter().zip(&values).chain(["r0", "r1"].into_iter().zip(&results));
    let named: Vec<(&str, &str)> = names.map(|(name, value)| (name, value.as_str())).collect();
    fill(template, &named)
}
