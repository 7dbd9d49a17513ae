//! The tools that an example offers, as the model is shown them, and the form of an answer that it asks for: the same text
//! that the server puts into a prompt.

use ossia_text::harmony::ToolDescription;
use serde_json::{Map, Value, json};

use super::error::Bad;
use super::fields::{field, join, list, object, text, text_or_none, wrong};

/// The longest name of a tool.
const LONGEST_NAME: usize = 64;

/// Reads `tools`: a list of functions or custom tools, as OpenAI writes them, or of the bare functions; or the text of such
/// a list.
pub(super) fn tools(example: &Map<String, Value>) -> Result<Vec<ToolDescription>, Bad> {
    if field(example, "functions").is_some() {
        return Err("functions: this is the older form, write them as tools".into());
    }
    match field(example, "tools") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(Vec::new()),
        Some(Value::String(text)) => {
            let parsed: Value =
                serde_json::from_str(text).map_err(|error| format!("tools: a text that is not JSON: {error}"))?;
            described(&parsed)
        }
        Some(value) => described(value),
    }
}

fn described(tools: &Value) -> Result<Vec<ToolDescription>, Bad> {
    let mut described: Vec<ToolDescription> = Vec::new();
    for (place, tool) in list(tools, "tools")?.iter().enumerate() {
        let tool = one(tool, &format!("tools[{place}]"))?;
        if described.iter().any(|other| other.name == tool.name) {
            return Err(Bad::Wrong(format!("tools[{place}]: the name {:?} is given to two tools", tool.name)));
        }
        described.push(tool);
    }
    Ok(described)
}

fn one(tool: &Value, at: &str) -> Result<ToolDescription, Bad> {
    let tool = object(tool, at)?;
    let inner = |key: &str| field(tool, key).map(|value| object(value, &join(at, key))).transpose();
    if let Some(custom) = inner("custom")? {
        let parameters = Some(json!({ "type": "string" }));
        return Ok(ToolDescription { parameters, ..named(custom, &join(at, "custom"))? });
    }
    let (function, at) = match inner("function")? {
        Some(function) => (function, join(at, "function")),
        None => (tool, at.to_owned()),
    };
    let parameters = field(function, "parameters");
    if let Some(schema) = parameters.filter(|schema| !schema.is_object()) {
        return Err(wrong(&join(&at, "parameters"), "a JSON schema (an object)", schema));
    }
    Ok(ToolDescription { parameters: parameters.cloned(), ..named(function, &at)? })
}

fn named(tool: &Map<String, Value>, at: &str) -> Result<ToolDescription, Bad> {
    let name = text(tool, "name", at)?;
    check_name(name, &join(at, "name"))?;
    let description = text_or_none(tool, "description", at)?.unwrap_or_default().to_owned();
    Ok(ToolDescription { name: name.to_owned(), description, parameters: None })
}

/// A name becomes part of a message's header.
pub(super) fn check_name(name: &str, at: &str) -> Result<(), Bad> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    let wanted = format!("a name of 1 to {LONGEST_NAME} letters, digits, _ and -");
    Err(wrong(at, &wanted, &Value::from(name)))
}

/// What `response_format` adds to the instructions.
pub(super) fn format_section(example: &Map<String, Value>) -> Result<Option<String>, Bad> {
    let Some(format) = field(example, "response_format") else { return Ok(None) };
    let format = object(format, "response_format")?;
    match text(format, "type", "response_format")? {
        "text" | "json_object" => Ok(None),
        "json_schema" => {
            let at = "response_format.json_schema";
            let schema = object(format.get("json_schema").unwrap_or(&Value::Null), at)?;
            let name = text_or_none(schema, "name", at)?.unwrap_or("answer");
            let description = text_or_none(schema, "description", at)?;
            let description = description.map(|text| format!("// {text}\n")).unwrap_or_default();
            let body = field(schema, "schema").unwrap_or(&Value::Null);
            if !body.is_object() {
                return Err(wrong(&join(at, "schema"), "a JSON schema (an object)", body));
            }
            Ok(Some(format!("# Response Formats\n\n## {name}\n\n{description}{body}")))
        }
        kind => Err(Bad::Wrong(format!(
            "response_format.type: wanted \"text\", \"json_object\" or \"json_schema\", found {kind:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(example: Value) -> Result<Vec<ToolDescription>, String> {
        tools(example.as_object().unwrap()).map_err(Bad::text)
    }

    #[test]
    fn every_form_of_a_tool() {
        let schema = json!({"type": "object", "properties": {"b": {}, "a": {}}});
        let function = json!({"name": "f", "description": "F.", "parameters": schema});
        let wanted = ToolDescription { name: "f".into(), description: "F.".into(), parameters: Some(schema) };
        let wrapped = json!([{"type": "function", "function": function}]);
        for tools in [wrapped.clone(), json!([function]), json!(wrapped.to_string())] {
            assert_eq!(read(json!({"tools": tools})).unwrap(), std::slice::from_ref(&wanted));
        }
        let custom = read(json!({"tools": [{"type": "custom", "custom": {"name": "c"}}]})).unwrap();
        assert_eq!(custom[0].parameters, Some(json!({"type": "string"})));
        for none in [json!({}), json!({"tools": null}), json!({"tools": []}), json!({"tools": " "})] {
            assert!(read(none).unwrap().is_empty());
        }
    }

    #[test]
    fn wrong_tools_name_the_field() {
        let function = |function: Value| json!({"tools": [{"function": function}]});
        for (example, start) in [
            (json!({"functions": []}), "functions: this is the older form"),
            (json!({"tools": {}}), "tools: wanted a list, found {}"),
            (json!({"tools": "[{"}), "tools: a text that is not JSON"),
            (json!({"tools": [7]}), "tools[0]: wanted an object, found 7"),
            (json!({"tools": [{"type": "web_search"}]}), "tools[0].name: wanted a text, found nothing"),
            (function(json!({"name": "a b"})), "tools[0].function.name: wanted a name of 1 to 64"),
            (function(json!({"name": ""})), "tools[0].function.name: wanted a name"),
            (function(json!({"name": "<|call|>"})), "tools[0].function.name: wanted a name"),
            (function(json!({"name": "a", "parameters": []})), "tools[0].function.parameters: wanted a JSON schema"),
            (function(json!({"name": "a", "description": 1})), "tools[0].function.description: wanted a text"),
            (json!({"tools": [{"name": "a"}, {"name": "a"}]}), "tools[1]: the name \"a\" is given to two tools"),
        ] {
            let error = read(example.clone()).unwrap_err();
            assert!(error.starts_with(start), "{example}: {error}");
        }
    }

    #[test]
    fn forms_of_answers() {
        let read = |format: Value| format_section(json!({"response_format": format}).as_object().unwrap());
        let schema = json!({"name": "n", "description": "d", "schema": {"type": "object"}});
        let shown = read(json!({"type": "json_schema", "json_schema": schema})).unwrap().unwrap();
        assert_eq!(shown, "# Response Formats\n\n## n\n\n// d\n{\"type\":\"object\"}");
        assert_eq!(read(json!({"type": "text"})), Ok(None));
        assert_eq!(read(Value::Null), Ok(None));
        for bad in [json!({"type": "xml"}), json!({}), json!(3), json!({"type": "json_schema"})] {
            assert!(read(bad).unwrap_err().text().starts_with("response_format"));
        }
    }
}
