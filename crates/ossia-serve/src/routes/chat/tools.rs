//! Tools, their choice and the answer's format: from the request to rules that the grammar enforces, and to what the
//! model is shown.

use std::collections::HashSet;

use ossia_text::constrain::{AnswerRules, Choice, Format, ToolInput, ToolRule};
use ossia_text::harmony::ToolDescription;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::turn::ShownFormat;
use crate::types::chat::{ChatRequest, CustomFormat, ResponseFormat, Tool, ToolChoice};
use crate::types::fields::WordOr;

/// The most tools of a request.
const MOST_TOOLS: usize = 128;
/// The longest name of a tool.
const LONGEST_NAME: usize = 64;

/// What a request declares.
#[derive(Debug, Clone)]
pub struct Declared {
    /// What the answer may look like.
    pub rules: AnswerRules,
    /// The tools as the model is shown them: all of them, whatever the choice, so that the prompt stays the same.
    pub shown: Vec<ToolDescription>,
    /// Names of the tools that take text.
    pub custom: HashSet<String>,
    /// The answer's schema as the model is shown it.
    pub format: Option<ShownFormat>,
}

/// Reads tools, choice and format.
pub fn declared(request: &ChatRequest, thinking: bool) -> Result<Declared, ApiError> {
    if request.functions.as_ref().is_some_and(|functions| !functions.is_null()) {
        return Err(ApiError::unsupported("functions", "functions: not supported, send them as tools"));
    }
    let tools = request.tools.as_deref().unwrap_or_default();
    if tools.len() > MOST_TOOLS {
        let problem = format!("tools: wanted at most {MOST_TOOLS}, found {}", tools.len());
        return Err(ApiError::invalid("tools", problem));
    }
    let (mut rules, mut shown, mut custom) = (Vec::new(), Vec::new(), HashSet::new());
    for (index, tool) in tools.iter().enumerate() {
        let (rule, description) = one(tool, &format!("tools[{index}]"))?;
        if rules.iter().any(|other: &ToolRule| other.name == rule.name) {
            let param = format!("tools[{index}]");
            return Err(ApiError::invalid(param, format!("the name {:?} is given to two tools", rule.name)));
        }
        if tool.custom.is_some() {
            custom.insert(rule.name.clone());
        }
        rules.push(rule);
        shown.push(description);
    }
    let (format, shown_format) = format(request.response_format.as_ref())?;
    let (choice, tools) = chosen(request.tool_choice.as_ref(), rules)?;
    let parallel = request.parallel_tool_calls.unwrap_or(true);
    let rules = AnswerRules { tools, choice, parallel, format, thinking };
    Ok(Declared { rules, shown, custom, format: shown_format })
}

fn one(tool: &Tool, at: &str) -> Result<(ToolRule, ToolDescription), ApiError> {
    match (tool.kind.as_str(), &tool.function, &tool.custom) {
        ("function", Some(function), _) => {
            let name = name(&function.name, &format!("{at}.function.name"))?;
            let parameters = function.parameters.clone().filter(|schema| !schema.is_null());
            if parameters.as_ref().is_some_and(|schema| !schema.is_object()) {
                let param = format!("{at}.function.parameters");
                return Err(ApiError::invalid(param, "parameters: wanted a JSON schema (an object)"));
            }
            let description = function.description.clone().unwrap_or_default();
            let rule = ToolRule::function(name, parameters.clone(), function.strict.unwrap_or(false));
            Ok((rule, ToolDescription { name: name.to_owned(), description, parameters }))
        }
        ("custom", _, Some(custom)) => {
            let name = name(&custom.name, &format!("{at}.custom.name"))?;
            let input = input(custom.format.as_ref(), &format!("{at}.custom.format"))?;
            let description = custom.description.clone().unwrap_or_default();
            let parameters = Some(json!({ "type": "string" }));
            let shown = ToolDescription { name: name.to_owned(), description, parameters };
            Ok((ToolRule { name: name.to_owned(), input }, shown))
        }
        (kind @ ("function" | "custom"), _, _) => {
            Err(ApiError::invalid(format!("{at}.{kind}"), format!("a tool of type {kind:?} needs the object {kind:?}")))
        }
        (kind, ..) => {
            let problem = format!("tools of type {kind:?} are not there: wanted \"function\" or \"custom\"");
            Err(ApiError::unsupported(format!("{at}.type"), problem))
        }
    }
}

/// A name that OpenAI allows: it becomes part of a message's header.
fn name<'t>(name: &'t str, param: &str) -> Result<&'t str, ApiError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    match (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(allowed) {
        true => Ok(name),
        false => {
            let wanted = format!("wanted a name of 1 to {LONGEST_NAME} letters, digits, _ and -, found {name:?}");
            Err(ApiError::invalid(param, wanted))
        }
    }
}

fn input(format: Option<&CustomFormat>, at: &str) -> Result<ToolInput, ApiError> {
    let Some(format) = format else { return Ok(ToolInput::Free) };
    match (format.kind.as_str(), &format.grammar) {
        ("text", _) => Ok(ToolInput::Free),
        ("grammar", Some(grammar)) if grammar.syntax == "lark" => Ok(ToolInput::Lark(grammar.definition.clone())),
        ("grammar", Some(grammar)) if grammar.syntax == "regex" => Ok(ToolInput::Regex(grammar.definition.clone())),
        ("grammar", _) => {
            Err(ApiError::invalid(format!("{at}.grammar"), "wanted a grammar of the syntax \"lark\" or \"regex\""))
        }
        (kind, _) => {
            Err(ApiError::invalid(format!("{at}.type"), format!("wanted \"text\" or \"grammar\", found {kind:?}")))
        }
    }
}

fn format(format: Option<&ResponseFormat>) -> Result<(Format, Option<ShownFormat>), ApiError> {
    let Some(format) = format else { return Ok((Format::Text, None)) };
    let schema = format.json_schema.as_ref();
    match (format.kind.as_str(), schema.and_then(|schema| schema.schema.clone())) {
        ("text", _) => Ok((Format::Text, None)),
        ("json_object", _) => Ok((Format::JsonObject, None)),
        ("json_schema", Some(body @ (Value::Object(_) | Value::Bool(_)))) => {
            let shown = ShownFormat {
                name: schema.and_then(|schema| schema.name.clone()).unwrap_or_else(|| "answer".to_owned()),
                description: schema.and_then(|schema| schema.description.clone()),
                schema: body.clone(),
            };
            Ok((Format::JsonSchema(body), Some(shown)))
        }
        ("json_schema", _) => {
            Err(ApiError::invalid("response_format.json_schema.schema", "wanted a JSON schema (an object)"))
        }
        (kind, _) => {
            let wanted = "wanted \"text\", \"json_object\" or \"json_schema\"";
            Err(ApiError::invalid("response_format.type", format!("{wanted}, found {kind:?}")))
        }
    }
}

/// The choice, and the tools that it leaves.
fn chosen(choice: Option<&WordOr<ToolChoice>>, tools: Vec<ToolRule>) -> Result<(Choice, Vec<ToolRule>), ApiError> {
    let (choice, tools) = match choice {
        None => (Choice::Auto, tools),
        Some(WordOr::Word(word)) => (mode(word, "tool_choice")?, tools),
        Some(WordOr::Object(object)) => narrowed(object, tools)?,
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
        "required" | "any" => Ok(Choice::Required),
        other => {
            let wanted = "wanted \"none\", \"auto\", \"required\" or an object";
            Err(ApiError::invalid(param, format!("{wanted}, found {other:?}")))
        }
    }
}

fn narrowed(choice: &ToolChoice, tools: Vec<ToolRule>) -> Result<(Choice, Vec<ToolRule>), ApiError> {
    let keep = |names: Vec<&str>, tools: Vec<ToolRule>| {
        let known = |name: &&&str| tools.iter().any(|tool| tool.name == **name);
        if let Some(name) = names.iter().find(|name| !known(name)) {
            return Err(ApiError::invalid("tool_choice", format!("there is no tool {name:?}")));
        }
        Ok(tools.into_iter().filter(|tool| names.contains(&tool.name.as_str())).collect())
    };
    match (choice.kind.as_str(), &choice.function, &choice.custom, &choice.allowed_tools) {
        ("function", Some(named), _, _) | ("custom", _, Some(named), _) => {
            Ok((Choice::Required, keep(vec![&named.name], tools)?))
        }
        ("allowed_tools", _, _, Some(allowed)) => {
            let names = allowed.tools.iter().enumerate().map(|(index, tool)| {
                let named = tool.function.as_ref().or(tool.custom.as_ref());
                let param = format!("tool_choice.allowed_tools.tools[{index}]");
                named.map(|named| named.name.as_str()).ok_or_else(|| ApiError::invalid(param, "wanted a tool's name"))
            });
            let mode = mode(allowed.mode.as_deref().unwrap_or("auto"), "tool_choice.allowed_tools.mode")?;
            Ok((mode, keep(names.collect::<Result<_, _>>()?, tools)?))
        }
        _ => {
            let wanted = "wanted a function, a custom tool or allowed_tools, with the object of that name";
            Err(ApiError::invalid("tool_choice", wanted))
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
        let mut body = json!({ "messages": [], "tools": [
            { "type": "function", "function": { "name": "a", "parameters": { "type": "object" }, "strict": true } },
            { "type": "function", "function": { "name": "b", "description": "B." } },
            { "type": "custom", "custom": { "name": "c", "format":
                { "type": "grammar", "grammar": { "syntax": "regex", "definition": "x+" } } } },
        ] });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        declared(&serde_json::from_value(body).unwrap(), true)
    }

    fn names(declared: &Declared) -> Vec<&str> {
        declared.rules.tools.iter().map(|tool| tool.name.as_str()).collect()
    }

    #[test]
    fn every_form_of_choice() {
        for (choice, wanted, left) in [
            (json!(null), Choice::Auto, vec!["a", "b", "c"]),
            (json!("auto"), Choice::Auto, vec!["a", "b", "c"]),
            (json!("none"), Choice::None, vec!["a", "b", "c"]),
            (json!("required"), Choice::Required, vec!["a", "b", "c"]),
            (json!({"type": "function", "function": {"name": "b"}}), Choice::Required, vec!["b"]),
            (json!({"type": "custom", "custom": {"name": "c"}}), Choice::Required, vec!["c"]),
            (
                json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [
                    {"type": "function", "function": {"name": "a"}}, {"type": "custom", "custom": {"name": "c"}}]}}),
                Choice::Required,
                vec!["a", "c"],
            ),
        ] {
            let declared = read(json!({ "tool_choice": choice })).unwrap();
            assert_eq!((declared.rules.choice, names(&declared)), (wanted, left), "{choice}");
            assert_eq!(declared.shown.len(), 3, "the prompt does not change with the choice");
        }
    }

    #[test]
    fn tools_have_inputs() {
        let declared = read(json!({})).unwrap();
        let inputs: Vec<&ToolInput> = declared.rules.tools.iter().map(|tool| &tool.input).collect();
        let schema = ToolInput::Schema(json!({"type": "object"}));
        assert_eq!(inputs, [&schema, &ToolInput::JsonObject, &ToolInput::Regex("x+".into())]);
        assert!(declared.custom.contains("c") && declared.custom.len() == 1);
    }

    #[test]
    fn wrong_ones_name_the_field() {
        let function = |name: &str| json!({ "tools": [{ "type": "function", "function": { "name": name } }] });
        for (fields, param) in [
            (json!({ "tool_choice": "always" }), "tool_choice"),
            (json!({ "tool_choice": {"type": "function", "function": {"name": "x"}} }), "tool_choice"),
            (json!({ "tool_choice": {"type": "function"} }), "tool_choice"),
            (json!({ "tools": [], "tool_choice": "required" }), "tool_choice"),
            (function(""), "tools[0].function.name"),
            (function("a b"), "tools[0].function.name"),
            (function("<|call|>"), "tools[0].function.name"),
            (function(&"x".repeat(65)), "tools[0].function.name"),
            (json!({ "tools": [{ "type": "web_search" }] }), "tools[0].type"),
            (json!({ "tools": [{ "type": "function" }] }), "tools[0].function"),
            (json!({ "functions": [] }), "functions"),
            (json!({ "response_format": { "type": "xml" } }), "response_format.type"),
            (json!({ "response_format": { "type": "json_schema" } }), "response_format.json_schema.schema"),
        ] {
            assert_eq!(read(fields.clone()).unwrap_err().param(), Some(param), "{fields}");
        }
        let one = json!({ "type": "function", "function": { "name": "a" } });
        assert!(read(json!({ "tools": [one, one] })).is_err());
        assert!(read(json!({ "tools": vec![one; 129] })).is_err());
    }

    #[test]
    fn formats() {
        let format = |value: Value| read(json!({ "response_format": value })).unwrap();
        assert_eq!(format(json!({"type": "text"})).rules.format, Format::Text);
        assert_eq!(format(json!({"type": "json_object"})).rules.format, Format::JsonObject);
        let declared = format(json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "null"}}}));
        assert_eq!(declared.rules.format, Format::JsonSchema(json!({"type": "null"})));
        assert_eq!(declared.format.unwrap().name, "n");
    }
}
