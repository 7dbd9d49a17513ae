//! Tools, their choice and the answer's format, as the Responses API writes them: to rules that the grammar enforces, to
//! what the model is shown, and back to the client's names.
//!
//! The functions of a namespace are shown to the model among the others, by their own name where no other tool has it,
//! else as `NAMESPACE__NAME`. Tools of kinds that are not there are passed over: Codex always sends some.

use std::collections::HashMap;

use ossia_text::constrain::{AnswerRules, Choice, Format, ToolInput, ToolRule};
use ossia_text::harmony::ToolDescription;
use serde_json::{Value, json};

use super::machine::{WireTool, WireTools};
use crate::error::ApiError;
use crate::turn::ShownFormat;
use crate::types::fields::WordOr;
use crate::types::responses::CreateResponse;
use crate::types::responses::request::TextFormat;

/// The most tools of a request; clients with tool servers have more than OpenAI's 128.
const MOST_TOOLS: usize = 512;
/// The longest name of a tool or namespace.
const LONGEST_NAME: usize = 64;

/// What a request declares.
#[derive(Debug, Clone)]
pub struct Declared {
    /// What the answer may look like.
    pub rules: AnswerRules,
    /// The tools as the model is shown them: all of them, whatever the choice, so that the prompt stays the same.
    pub shown: Vec<ToolDescription>,
    /// The tools as the client knows them, by the model's names.
    pub wire: WireTools,
    /// The answer's schema as the model is shown it.
    pub format: Option<ShownFormat>,
}

/// A tool as it was sent.
struct Sent<'a> {
    tool: WireTool,
    rule: ToolInput,
    description: String,
    parameters: Option<Value>,
    at: &'a str,
}

/// Reads tools, choice and format.
pub fn declared(request: &CreateResponse, thinking: bool) -> Result<Declared, ApiError> {
    let places = places(request.tools.as_deref().unwrap_or_default())?;
    let sent = places.iter().map(|(at, namespace, tool)| read_tool(tool, *namespace, at));
    let sent: Vec<Sent> = sent.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    if sent.len() > MOST_TOOLS {
        return Err(ApiError::invalid("tools", format!("tools: wanted at most {MOST_TOOLS}, found {}", sent.len())));
    }
    let names = model_names(&sent)?;
    let (mut rules, mut shown, mut wire) = (Vec::new(), Vec::new(), WireTools::new());
    for (sent, name) in sent.into_iter().zip(names) {
        rules.push(ToolRule { name: name.clone(), input: sent.rule });
        shown.push(ToolDescription { name: name.clone(), description: sent.description, parameters: sent.parameters });
        wire.insert(name, sent.tool);
    }
    let (choice, tools) = chosen(request.tool_choice.as_ref(), rules, &wire)?;
    let (format, shown_format) = format(request.text.as_ref().and_then(|text| text.format.as_ref()))?;
    let parallel = request.parallel_tool_calls.unwrap_or(true);
    let rules = AnswerRules { tools, choice, parallel, format, thinking };
    Ok(Declared { rules, shown, wire, format: shown_format })
}

impl Declared {
    /// The model's name for a tool that the client calls so; a tool that is no longer declared keeps its place in the
    /// conversation under the name that it would have.
    pub fn model_name(&self, name: &str, namespace: Option<&str>) -> String {
        let is_it = |tool: &WireTool| tool.name == name && tool.namespace.as_deref() == namespace;
        match self.wire.iter().find(|(_, tool)| is_it(tool)) {
            Some((known, _)) => known.clone(),
            None => namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}__{name}")),
        }
    }
}

/// A tool's place, its namespace, itself.
type Place<'a> = (String, Option<&'a str>, &'a Value);

/// Every tool with its place and namespace.
fn places(tools: &[Value]) -> Result<Vec<Place<'_>>, ApiError> {
    let mut places = Vec::new();
    for (index, tool) in tools.iter().enumerate() {
        let at = format!("tools[{index}]");
        if tool.get("type").and_then(Value::as_str) != Some("namespace") {
            places.push((at, None, tool));
            continue;
        }
        let namespace = name(tool, &at)?;
        let nested = tool.get("tools").and_then(Value::as_array);
        let nested = nested.ok_or_else(|| ApiError::invalid(format!("{at}.tools"), "wanted an array of tools"))?;
        let place = |(inner, tool)| (format!("{at}.tools[{inner}]"), Some(namespace), tool);
        places.extend(nested.iter().enumerate().map(place));
    }
    Ok(places)
}

/// Reads a tool; None for a kind that is not there.
fn read_tool<'a>(tool: &Value, namespace: Option<&str>, at: &'a str) -> Result<Option<Sent<'a>>, ApiError> {
    let text = |field: &str| tool.get(field).and_then(Value::as_str);
    let Some(kind) = text("type") else {
        return Err(ApiError::invalid(format!("{at}.type"), "wanted a tool's type, such as \"function\""));
    };
    let custom = kind == "custom";
    if kind != "function" && !custom {
        return Ok(None);
    }
    let named = WireTool { name: name(tool, at)?.to_owned(), namespace: namespace.map(str::to_owned), custom };
    let mut description = text("description").unwrap_or_default().to_owned();
    let parameters = tool.get("parameters").filter(|schema| !schema.is_null());
    if parameters.is_some_and(|schema| !schema.is_object()) {
        return Err(ApiError::invalid(format!("{at}.parameters"), "parameters: wanted a JSON schema (an object)"));
    }
    let (rule, parameters) = if custom {
        let rule = input(tool.get("format"), at)?;
        describe_input(&rule, &mut description);
        (rule, Some(json!({ "type": "string" })))
    } else {
        let is_strict = tool.get("strict").and_then(Value::as_bool).unwrap_or(false);
        let rule = ToolRule::function("", parameters.cloned(), is_strict);
        (rule.input, parameters.cloned())
    };
    Ok(Some(Sent { tool: named, rule, description, parameters, at }))
}

/// A name that OpenAI allows: it becomes part of a message's header.
fn name<'t>(tool: &'t Value, at: &str) -> Result<&'t str, ApiError> {
    let name = tool.get("name").and_then(Value::as_str).unwrap_or_default();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    match (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(allowed) {
        true => Ok(name),
        false => {
            let wanted = format!("{at}.name: wanted 1 to {LONGEST_NAME} letters, digits, _ and -, found {name:?}");
            Err(ApiError::invalid(format!("{at}.name"), wanted))
        }
    }
}

/// What a custom tool takes.
fn input(format: Option<&Value>, at: &str) -> Result<ToolInput, ApiError> {
    let Some(format) = format.filter(|format| !format.is_null()) else { return Ok(ToolInput::Free) };
    let text = |field: &str| format.get(field).and_then(Value::as_str);
    match (text("type"), text("syntax"), text("definition")) {
        (Some("text"), ..) => Ok(ToolInput::Free),
        (Some("grammar"), Some("lark"), Some(definition)) => Ok(ToolInput::Lark(definition.to_owned())),
        (Some("grammar"), Some("regex"), Some(definition)) => Ok(ToolInput::Regex(definition.to_owned())),
        _ => {
            let wanted = "wanted {\"type\": \"text\"}, or a grammar with syntax \"lark\" or \"regex\" and a definition";
            Err(ApiError::invalid(format!("{at}.format"), wanted))
        }
    }
}

/// A model that was taught functions must be told that this one takes plain text, and which.
fn describe_input(input: &ToolInput, description: &mut String) {
    let (kind, definition) = match input {
        ToolInput::Lark(definition) => ("Lark grammar", definition),
        ToolInput::Regex(definition) => ("regular expression", definition),
        _ => return,
    };
    description.push_str(&format!("\nThe input is plain text, not JSON, that follows this {kind}:\n{definition}"));
}

/// The model's names of the tools, in order.
fn model_names(sent: &[Sent]) -> Result<Vec<String>, ApiError> {
    let mut num_bearers: HashMap<&str, usize> = HashMap::new();
    for tool in sent {
        *num_bearers.entry(&tool.tool.name).or_default() += 1;
    }
    let mut names: Vec<String> = Vec::with_capacity(sent.len());
    let mut seen = std::collections::HashSet::new();
    for Sent { tool, at, .. } in sent {
        let name = match &tool.namespace {
            Some(namespace) if num_bearers[tool.name.as_str()] > 1 => format!("{namespace}__{}", tool.name),
            _ => tool.name.clone(),
        };
        if !seen.insert(name.clone()) {
            return Err(ApiError::invalid(format!("{at}.name"), format!("the name {name:?} is given to two tools")));
        }
        names.push(name);
    }
    Ok(names)
}

/// The choice, and the tools that it leaves.
fn chosen(
    choice: Option<&WordOr<Value>>,
    tools: Vec<ToolRule>,
    wire: &WireTools,
) -> Result<(Choice, Vec<ToolRule>), ApiError> {
    let (choice, tools) = match choice {
        None => (Choice::Auto, tools),
        Some(WordOr::Word(word)) => (mode(word, "tool_choice")?, tools),
        Some(WordOr::Object(object)) => narrowed(object, tools, wire)?,
    };
    if choice == Choice::Required && tools.is_empty() {
        return Err(ApiError::invalid("tool_choice", "a tool is to be called, but there is none: send tools"));
    }
    Ok((choice, tools))
}

fn mode(word: &str, param: &str) -> Result<Choice, ApiError> {
    match word {
        "none" => Ok(Choice::None),
        "auto" => Ok(Choice::Auto),
        "required" => Ok(Choice::Required),
        other => {
            let wanted = "wanted \"none\", \"auto\", \"required\" or an object";
            Err(ApiError::invalid(param, format!("{wanted}, found {other:?}")))
        }
    }
}

fn narrowed(choice: &Value, tools: Vec<ToolRule>, wire: &WireTools) -> Result<(Choice, Vec<ToolRule>), ApiError> {
    match choice.get("type").and_then(Value::as_str) {
        Some("function" | "custom") => {
            let name = named(choice, wire, "tool_choice")?;
            Ok((Choice::Required, tools.into_iter().filter(|tool| tool.name == name).collect()))
        }
        Some("allowed_tools") => {
            let allowed = choice.get("tools").and_then(Value::as_array);
            let allowed = allowed.ok_or_else(|| ApiError::invalid("tool_choice.tools", "wanted an array of tools"))?;
            let is_ours = |tool: &&Value| matches!(tool["type"].as_str(), Some("function" | "custom"));
            let names = allowed.iter().filter(is_ours).map(|tool| named(tool, wire, "tool_choice.tools"));
            let names: Vec<String> = names.collect::<Result<_, _>>()?;
            let word = choice.get("mode").and_then(Value::as_str).unwrap_or("auto");
            let choice = mode(word, "tool_choice.mode")?;
            Ok((choice, tools.into_iter().filter(|tool| names.contains(&tool.name)).collect()))
        }
        kind => {
            let wanted = "tool_choice: wanted type \"function\", \"custom\" or \"allowed_tools\"";
            Err(ApiError::unsupported("tool_choice", format!("{wanted}, found {:?}", kind.unwrap_or_default())))
        }
    }
}

/// The model's name of the tool that a choice names.
fn named(choice: &Value, wire: &WireTools, param: &str) -> Result<String, ApiError> {
    let name = choice.get("name").and_then(Value::as_str).unwrap_or_default();
    let namespace = choice.get("namespace").and_then(Value::as_str);
    let is_it = |tool: &WireTool| tool.name == name && (namespace.is_none() || tool.namespace.as_deref() == namespace);
    let found = wire.iter().find(|(_, tool)| is_it(tool)).map(|(known, _)| known.clone());
    found.ok_or_else(|| ApiError::invalid(param, format!("{param}: there is no tool {name:?}")))
}

fn format(format: Option<&TextFormat>) -> Result<(Format, Option<ShownFormat>), ApiError> {
    let Some(format) = format else { return Ok((Format::Text, None)) };
    match (format.kind.as_str(), &format.schema) {
        ("text", _) => Ok((Format::Text, None)),
        ("json_object", _) => Ok((Format::JsonObject, None)),
        ("json_schema", Some(schema @ (Value::Object(_) | Value::Bool(_)))) => {
            let shown = ShownFormat {
                name: format.name.clone().unwrap_or_else(|| "answer".to_owned()),
                description: format.description.clone(),
                schema: schema.clone(),
            };
            Ok((Format::JsonSchema(schema.clone()), Some(shown)))
        }
        ("json_schema", _) => Err(ApiError::invalid("text.format.schema", "wanted a JSON schema (an object)")),
        (kind, _) => {
            let wanted = "wanted \"text\", \"json_object\" or \"json_schema\"";
            Err(ApiError::invalid("text.format.type", format!("{wanted}, found {kind:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use ossia_text::constrain::{Choice, Format, ToolInput};
    use serde_json::{Value, json};

    use super::{Declared, declared};
    use crate::error::ApiError;

    fn read(fields: Value) -> Result<Declared, ApiError> {
        let mut body = json!({ "model": "nano", "tools": [
            { "type": "function", "name": "a", "parameters": { "type": "object" }, "strict": true },
            { "type": "function", "name": "b", "description": "B.", "parameters": { "type": "object" }, "strict": null },
            { "type": "custom", "name": "c", "description": "C.",
                "format": { "type": "grammar", "syntax": "regex", "definition": "x+" } },
            { "type": "namespace", "name": "n", "description": "N.", "tools": [
                { "type": "function", "name": "d", "parameters": null }, { "type": "function", "name": "a" }] },
            { "type": "web_search", "external_web_access": true },
            { "type": "mcp", "server_label": "x" },
        ] });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        declared(&serde_json::from_value(body).unwrap(), true)
    }

    fn names(declared: &Declared) -> Vec<&str> {
        declared.rules.tools.iter().map(|tool| tool.name.as_str()).collect()
    }

    #[test]
    fn every_kind_of_tool_and_the_foreign_ones_passed_over() {
        let declared = read(json!({})).unwrap();
        assert_eq!(names(&declared), ["a", "b", "c", "d", "n__a"]);
        let inputs: Vec<&ToolInput> = declared.rules.tools.iter().map(|tool| &tool.input).collect();
        let schema = ToolInput::Schema(json!({"type": "object"}));
        let (object, regex) = (&ToolInput::JsonObject, &ToolInput::Regex("x+".into()));
        assert_eq!(inputs, [&schema, object, regex, object, object]);
        let custom = &declared.shown[2];
        assert!(custom.description.starts_with("C.\n") && custom.description.ends_with("\nx+"));
        assert_eq!(custom.parameters, Some(json!({"type": "string"})));
        for (name, namespace, model) in
            [("a", None, "a"), ("a", Some("n"), "n__a"), ("d", Some("n"), "d"), ("gone", None, "gone")]
        {
            assert_eq!(declared.model_name(name, namespace), model);
        }
        assert_eq!(declared.model_name("gone", Some("m")), "m__gone");
        assert_eq!(declared.wire["n__a"].namespace.as_deref(), Some("n"));
    }

    #[test]
    fn every_form_of_choice() {
        let all = vec!["a", "b", "c", "d", "n__a"];
        let allowed =
            json!([{"type": "function", "name": "b"}, {"type": "custom", "name": "c"}, {"type": "web_search"}]);
        for (choice, wanted, left) in [
            (json!(null), Choice::Auto, all.clone()),
            (json!("none"), Choice::None, all.clone()),
            (json!("required"), Choice::Required, all),
            (json!({"type": "function", "name": "b"}), Choice::Required, vec!["b"]),
            (json!({"type": "function", "name": "a", "namespace": "n"}), Choice::Required, vec!["n__a"]),
            (json!({"type": "custom", "name": "c"}), Choice::Required, vec!["c"]),
            (json!({"type": "allowed_tools", "mode": "required", "tools": allowed}), Choice::Required, vec!["b", "c"]),
            (json!({"type": "allowed_tools", "mode": "auto", "tools": []}), Choice::Auto, vec![]),
        ] {
            let declared = read(json!({ "tool_choice": choice })).unwrap();
            assert_eq!((declared.rules.choice, names(&declared)), (wanted, left), "{choice}");
            assert_eq!(declared.shown.len(), 5, "the prompt does not change with the choice");
        }
    }

    #[test]
    fn wrong_ones_name_the_field() {
        let tool = |tool: Value| json!({ "tools": [tool] });
        for (fields, param) in [
            (json!({ "tool_choice": "always" }), "tool_choice"),
            (json!({ "tool_choice": {"type": "function", "name": "x"} }), "tool_choice"),
            (json!({ "tool_choice": {"type": "web_search_preview"} }), "tool_choice"),
            (json!({ "tools": [], "tool_choice": "required" }), "tool_choice"),
            (json!({ "tool_choice": {"type": "allowed_tools"} }), "tool_choice.tools"),
            (tool(json!({ "type": "function" })), "tools[0].name"),
            (tool(json!({ "type": "function", "name": "a b" })), "tools[0].name"),
            (tool(json!({ "type": "function", "name": "x".repeat(65) })), "tools[0].name"),
            (tool(json!({ "type": "function", "name": "a", "parameters": [] })), "tools[0].parameters"),
            (tool(json!({ "type": "custom", "name": "a", "format": {"type": "grammar"} })), "tools[0].format"),
            (tool(json!({ "type": "namespace", "name": "n" })), "tools[0].tools"),
            (
                tool(json!({ "type": "namespace", "name": "n", "tools": [{"type": "function"}] })),
                "tools[0].tools[0].name",
            ),
            (tool(json!({ "name": "a" })), "tools[0].type"),
            (tool(json!(7)), "tools[0].type"),
            (json!({ "text": {"format": {"type": "xml"}} }), "text.format.type"),
            (json!({ "text": {"format": {"type": "json_schema", "name": "n"}} }), "text.format.schema"),
        ] {
            assert_eq!(read(fields.clone()).unwrap_err().param(), Some(param), "{fields}");
        }
        let one = json!({ "type": "function", "name": "a" });
        assert!(read(json!({ "tools": [one, one] })).is_err());
        assert!(read(json!({ "tools": vec![one; 513] })).is_err());
    }

    #[test]
    fn formats() {
        let format = |value: Value| read(json!({ "text": { "format": value } })).unwrap();
        assert_eq!(format(json!({"type": "text"})).rules.format, Format::Text);
        assert_eq!(format(json!({"type": "json_object"})).rules.format, Format::JsonObject);
        let declared = format(json!({"type": "json_schema", "name": "n", "schema": {"type": "null"}, "strict": true}));
        assert_eq!(declared.rules.format, Format::JsonSchema(json!({"type": "null"})));
        assert_eq!(declared.format.unwrap().name, "n");
    }
}
