//! Tool descriptions as the TypeScript that the models were trained on, from JSON schema (SPEC 9.5), and the built-in
//! browser. The exact bytes matter, including oddities: an enum's default is unquoted, a description's later lines are
//! not commented, numeric enums are not shown.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::message::{ToolDescription, ToolNamespace};

/// The "# Tools" section; None without namespaces.
pub(super) fn section(namespaces: &BTreeMap<String, ToolNamespace>) -> Option<String> {
    let texts = namespaces.values().map(namespace_text);
    let sections: Vec<String> = std::iter::once("# Tools".to_owned()).chain(texts).collect();
    (!namespaces.is_empty()).then(|| sections.join("\n\n"))
}

fn namespace_text(namespace: &ToolNamespace) -> String {
    let name = &namespace.name;
    let mut lines = vec![format!("## {name}\n")];
    let prefix = if namespace.tools.is_empty() { "" } else { "// " };
    let description = namespace.description.as_deref().unwrap_or_default();
    lines.extend(description.lines().map(|line| format!("{prefix}{line}")));
    if !namespace.tools.is_empty() {
        lines.push(format!("namespace {name} {{\n"));
        lines.extend(namespace.tools.iter().flat_map(function_lines));
        lines.push(format!("}} // namespace {name}"));
    }
    lines.join("\n")
}

fn function_lines(tool: &ToolDescription) -> Vec<String> {
    let mut lines: Vec<String> = tool.description.lines().map(|line| format!("// {line}")).collect();
    lines.push(match &tool.parameters {
        Some(schema) => format!("type {} = (_: {}) => any;\n", tool.name, type_text(schema, "")),
        None => format!("type {} = () => any;\n", tool.name),
    });
    lines
}

fn text_of<'v>(schema: &'v Value, key: &str) -> Option<&'v str> {
    schema.get(key)?.as_str()
}

/// The type that a schema describes; `indent` stands before the lines of an object.
fn type_text(schema: &Value, indent: &str) -> String {
    if let Some(variants) = schema.get("oneOf").and_then(Value::as_array) {
        return variants.iter().map(|variant| format!("\n{}", variant_text(variant, indent, true, None))).collect();
    }
    if let Some(list) = schema.get("type").and_then(Value::as_array) {
        let words = list.iter().filter_map(Value::as_str).map(|word| if word == "integer" { "number" } else { word });
        let words: Vec<&str> = words.collect();
        return if words.is_empty() { "any".to_owned() } else { words.join(" | ") };
    }
    match text_of(schema, "type").unwrap_or_default() {
        "object" => object_text(schema, indent),
        "string" => string_text(schema),
        "number" | "integer" => "number".to_owned(),
        "boolean" => "boolean".to_owned(),
        "array" => match schema.get("items") {
            Some(items) => format!("{}[]", type_text(items, indent)),
            None => "Array<any>".to_owned(),
        },
        _ => "any".to_owned(),
    }
}

fn string_text(schema: &Value) -> String {
    let values = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    let quoted: Vec<String> = values.filter_map(Value::as_str).map(|value| format!("\"{value}\"")).collect();
    if quoted.is_empty() { "string".to_owned() } else { quoted.join(" | ") }
}

fn nullable_type_text(schema: &Value, indent: &str) -> String {
    let mut text = type_text(schema, indent);
    if schema.get("nullable").and_then(Value::as_bool) == Some(true) && !text.contains("null") {
        text.push_str(" | null");
    }
    text
}

/// "default: V", with strings quoted unless they are an enum's.
fn default_text(schema: &Value) -> Option<String> {
    let is_enum = schema.get("enum").and_then(Value::as_array).is_some_and(|values| !values.is_empty());
    Some(match schema.get("default")? {
        Value::String(text) if is_enum => format!("default: {text}"),
        Value::String(text) => format!("default: \"{text}\""),
        other => format!("default: {other}"),
    })
}

fn object_text(schema: &Value, indent: &str) -> String {
    let mut out = String::new();
    if let Some(description) = text_of(schema, "description") {
        out.push_str(&format!("{indent}// {description}\n"));
    }
    out.push_str("{\n");
    let no_properties = Map::new();
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    for (key, property) in schema.get("properties").and_then(Value::as_object).unwrap_or(&no_properties) {
        let mark = if required.contains(&key.as_str()) { "" } else { "?" };
        out.push_str(&property_text(&format!("{key}{mark}"), property, indent));
    }
    out.push_str(&format!("{indent}}}"));
    out
}

fn property_text(key: &str, property: &Value, indent: &str) -> String {
    let mut out = String::new();
    if let Some(title) = text_of(property, "title") {
        out.push_str(&format!("{indent}// {title}\n{indent}//\n"));
    }
    let description = text_of(property, "description");
    if let Some(description) = description.filter(|_| property.get("oneOf").is_none()) {
        out.push_str(&format!("{indent}// {description}\n"));
    }
    out.push_str(&examples_text(property, indent));
    if let Some(variants) = property.get("oneOf").and_then(Value::as_array) {
        out.push_str(&one_of_text(key, property, variants, indent));
        return out;
    }
    out.push_str(&format!("{indent}{key}: {},", nullable_type_text(property, &format!("{indent}    "))));
    if let Some(default) = default_text(property).filter(|_| property.get("oneOf").is_none()) {
        out.push_str(&format!(" // {default}"));
    }
    out.push('\n');
    out
}

fn examples_text(property: &Value, indent: &str) -> String {
    let Some(examples) = property.get("examples").and_then(Value::as_array).filter(|list| !list.is_empty()) else {
        return String::new();
    };
    let lines = examples.iter().filter_map(Value::as_str).map(|example| format!("{indent}// - \"{example}\"\n"));
    std::iter::once(format!("{indent}// Examples:\n")).chain(lines).collect()
}

/// A property that is one of several types: its own comments above, then one line per variant.
fn one_of_text(key: &str, property: &Value, variants: &[Value], indent: &str) -> String {
    let mut out = String::new();
    let description = text_of(property, "description");
    let first = variants.first().and_then(|variant| text_of(variant, "description"));
    let shown_above = description.filter(|text| Some(*text) != first);
    if let Some(text) = shown_above {
        out.push_str(&format!("{indent}// {text}\n"));
    }
    if let Some(default) = default_text(property) {
        out.push_str(&format!("{indent}// {default}\n"));
    }
    out.push_str(&format!("{indent}{key}:\n"));
    for (i, variant) in variants.iter().enumerate() {
        let describe = i > 0 || shown_above.is_none();
        out.push_str(&variant_text(variant, indent, describe, description));
        out.push('\n');
    }
    out.push_str(&format!("{indent},\n"));
    out
}

/// One variant: ` | TYPE`, then its description (unless it is `above`, said already) and default as a comment.
fn variant_text(variant: &Value, indent: &str, describe: bool, above: Option<&str>) -> String {
    let description = text_of(variant, "description").filter(|text| describe && Some(*text) != above);
    let comments: Vec<String> = description.map(str::to_owned).into_iter().chain(default_text(variant)).collect();
    let text = format!("{indent} | {}", nullable_type_text(variant, &format!("{indent}   ")));
    if comments.is_empty() { text } else { format!("{text} // {}", comments.join(" ")) }
}

impl ToolNamespace {
    /// The built-in browser, as harmony describes it to the models.
    pub fn browser() -> Self {
        let description = "Tool for browsing.\n\
            The `cursor` appears in brackets before each browsing display: `[{cursor}]`.\n\
            Cite information from the tool using the following format:\n\
            `【{cursor}†L{line_start}(-L{line_end})?】`, for example: `【6†L9-L11】` or `【8†L3】`.\n\
            Do not quote more than 10 words directly from the tool output.\n\
            sources=web (default: web)";
        let tools = vec![browser_search(), browser_open(), browser_find()];
        Self { name: "browser".to_owned(), description: Some(description.to_owned()), tools }
    }
}

fn tool(name: &str, description: &str, parameters: Value) -> ToolDescription {
    ToolDescription { name: name.to_owned(), description: description.to_owned(), parameters: Some(parameters) }
}

fn browser_search() -> ToolDescription {
    let parameters = json!({
        "type": "object",
        "properties": {
            "query": {"type": "string"},
            "topn": {"type": "number", "default": 10},
            "source": {"type": "string"},
        },
        "required": ["query"],
    });
    tool("search", "Searches for information related to `query` and displays `topn` results.", parameters)
}

fn browser_open() -> ToolDescription {
    let description = "Opens the link `id` from the page indicated by `cursor` starting at line number `loc`, showing \
        `num_lines` lines.\n\
        Valid link ids are displayed with the formatting: `【{id}†.*】`.\n\
        If `cursor` is not provided, the most recent page is implied.\n\
        If `id` is a string, it is treated as a fully qualified URL associated with `source`.\n\
        If `loc` is not provided, the viewport will be positioned at the beginning of the document or centered on the \
        most relevant passage, if available.\n\
        Use this function without `id` to scroll to a new location of an opened page.";
    let parameters = json!({
        "type": "object",
        "properties": {
            "id": {"type": ["number", "string"], "default": -1},
            "cursor": {"type": "number", "default": -1},
            "loc": {"type": "number", "default": -1},
            "num_lines": {"type": "number", "default": -1},
            "view_source": {"type": "boolean", "default": false},
            "source": {"type": "string"},
        },
    });
    tool("open", description, parameters)
}

fn browser_find() -> ToolDescription {
    let description = "Finds exact matches of `pattern` in the current page, or the page given by `cursor`.";
    let parameters = json!({
        "type": "object",
        "properties": {"pattern": {"type": "string"}, "cursor": {"type": "number", "default": -1}},
        "required": ["pattern"],
    });
    tool("find", description, parameters)
}
