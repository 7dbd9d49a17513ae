//! Items: what a conversation in the Responses API is made of. Read by hand from JSON, because an item without `type` is a
//! message, and because the error must name the place.
//!
//! The JSON itself is kept beside what was read of it, with an id: it is what `input_items` and conversations show.

use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::ids;
use crate::types::fields::TextOr;

/// The most items of a request.
const MOST_ITEMS: usize = 8192;

/// Items of tools that only OpenAI has. They cannot have come from here, and say nothing that gpt-oss could read.
const FOREIGN: [&str; 13] = [
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "computer_call",
    "computer_call_output",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "tool_search_call",
    "tool_search_output",
    "compaction_trigger",
];

/// An item that was sent: its JSON, with an id, and what it means.
#[derive(Debug, Clone, PartialEq)]
pub struct InputItem {
    /// Its id, the client's own or a new one.
    pub id: String,
    /// As the client sent it, with `id`, `type` and, for messages, parts instead of a text.
    pub json: Value,
    /// What it means.
    pub item: Item,
}

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// `system` or `developer`: the application.
    Application,
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// Which of the model's messages it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Words before or between calls.
    Commentary,
    /// The answer.
    FinalAnswer,
}

impl Phase {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Commentary => "commentary",
            Phase::FinalAnswer => "final_answer",
        }
    }
}

/// What an item means.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// Somebody says something.
    Message {
        /// Who.
        speaker: Speaker,
        /// What: the parts, end to end.
        text: String,
        /// Which of the model's messages, if the client kept that.
        phase: Option<Phase>,
    },
    /// The model thought something.
    Reasoning {
        /// What, if the client kept it.
        text: Option<String>,
        /// Its summary, which some servers fill with the whole, if there is nothing else.
        summary: Option<String>,
        /// The same, encrypted.
        encrypted: Option<String>,
    },
    /// The model called a tool.
    Call {
        /// Which call.
        call_id: String,
        /// The tool.
        name: String,
        /// The group that the tool is in.
        namespace: Option<String>,
        /// What it was given.
        input: String,
        /// True for a custom tool, which takes text; false for a function, which takes JSON.
        custom: bool,
    },
    /// The tool's result.
    Output {
        /// Of which call.
        call_id: String,
        /// What it gave.
        text: String,
    },
    /// What an earlier part of the conversation came to, encrypted.
    Compaction {
        /// A summary.
        encrypted: String,
    },
    /// An item that the server has.
    Reference,
    /// An item that means nothing here.
    Foreign,
}

/// Reads `input`: a text is the user's message.
pub fn read_input(input: Option<TextOr<Value>>) -> Result<Vec<InputItem>, ApiError> {
    match input {
        None => Ok(Vec::new()),
        Some(TextOr::Text(text)) => {
            let message = json!({ "role": "user", "content": text });
            Ok(vec![InputItem::read(message, "input")?])
        }
        Some(TextOr::List(items)) => read_items(items, "input"),
    }
}

/// Reads a list of items; `at` is the field that it is in.
pub fn read_items(items: Vec<Value>, at: &str) -> Result<Vec<InputItem>, ApiError> {
    if items.len() > MOST_ITEMS {
        return Err(ApiError::invalid(at, format!("{at}: wanted at most {MOST_ITEMS} items, found {}", items.len())));
    }
    items.into_iter().enumerate().map(|(index, item)| InputItem::read(item, &format!("{at}[{index}]"))).collect()
}

impl InputItem {
    /// Reads an item at the place `at`; one that has no id is given one.
    pub fn read(item: Value, at: &str) -> Result<Self, ApiError> {
        let Value::Object(mut fields) = item else {
            return Err(ApiError::invalid(at, format!("{at}: wanted an item (an object)")));
        };
        let kind = match fields.get("type") {
            None if fields.contains_key("role") => "message".to_owned(),
            None if fields.contains_key("id") => "item_reference".to_owned(),
            Some(Value::String(kind)) => kind.clone(),
            _ => return Err(ApiError::invalid(format!("{at}.type"), format!("{at}.type: wanted an item's type"))),
        };
        let item = Fields { fields: &fields, at }.item(&kind)?;
        let id = match fields.get("id").and_then(Value::as_str) {
            Some(id) if ids::is_plausible(id) => id.to_owned(),
            Some(_) => return Err(ApiError::invalid(format!("{at}.id"), format!("{at}.id: not an id"))),
            None => ids::new(prefix(&kind))?,
        };
        if kind == "message" {
            show_as_parts(&mut fields);
        }
        fields.insert("id".to_owned(), Value::from(id.clone()));
        fields.insert("type".to_owned(), Value::from(kind));
        Ok(Self { id, json: Value::Object(fields), item })
    }

    /// The id of the call that this item is; one that was cut off was never made.
    pub fn made_call(&self) -> Option<&str> {
        match &self.item {
            Item::Call { call_id, .. } if self.json["status"] != "incomplete" => Some(call_id),
            _ => None,
        }
    }
}

/// The first word of a new item's id.
fn prefix(kind: &str) -> &'static str {
    match kind {
        "message" => "msg",
        "reasoning" => "rs",
        "function_call" => "fc",
        "function_call_output" => "fco",
        "custom_tool_call" => "ctc",
        "custom_tool_call_output" => "ctco",
        "compaction" => "cmp",
        _ => "item",
    }
}

/// A message's text as the list of parts that readers of items expect, and a status.
fn show_as_parts(fields: &mut Map<String, Value>) {
    let kind =
        if fields.get("role").and_then(Value::as_str) == Some("assistant") { "output_text" } else { "input_text" };
    if let Some(Value::String(text)) = fields.get("content") {
        let mut part = json!({ "type": kind, "text": text });
        if kind == "output_text" {
            part["annotations"] = json!([]);
        }
        fields.insert("content".to_owned(), json!([part]));
    }
    fields.entry("status").or_insert_with(|| Value::from("completed"));
}

/// An item's fields, and where it stands.
struct Fields<'a> {
    fields: &'a Map<String, Value>,
    at: &'a str,
}

impl Fields<'_> {
    fn item(&self, kind: &str) -> Result<Item, ApiError> {
        match kind {
            "message" => self.message(),
            "reasoning" => Ok(Item::Reasoning {
                text: self.reasoning_text("content")?,
                summary: self.reasoning_text("summary")?,
                encrypted: self.optional("encrypted_content")?.filter(|text| !text.is_empty()),
            }),
            "function_call" => self.call("arguments", false),
            "custom_tool_call" => self.call("input", true),
            "function_call_output" | "custom_tool_call_output" => {
                Ok(Item::Output { call_id: self.text("call_id")?, text: self.parts("output")? })
            }
            "compaction" => Ok(Item::Compaction { encrypted: self.text("encrypted_content")? }),
            "item_reference" => self.text("id").map(|_| Item::Reference),
            kind if FOREIGN.contains(&kind) => Ok(Item::Foreign),
            kind => {
                let wanted = "wanted message, reasoning, function_call, function_call_output, custom_tool_call, \
                    custom_tool_call_output, compaction or item_reference";
                Err(self.wrong("type", &format!("{wanted}, found {kind:?}")))
            }
        }
    }

    fn message(&self) -> Result<Item, ApiError> {
        let speaker = match self.text("role")?.as_str() {
            "system" | "developer" => Speaker::Application,
            "user" => Speaker::User,
            "assistant" => Speaker::Assistant,
            other => {
                return Err(
                    self.wrong("role", &format!("wanted user, assistant, system or developer, found {other:?}"))
                );
            }
        };
        let phase = match self.optional("phase")?.as_deref() {
            Some("commentary") => Some(Phase::Commentary),
            Some("final_answer") => Some(Phase::FinalAnswer),
            _ => None,
        };
        Ok(Item::Message { speaker, text: self.parts("content")?, phase })
    }

    fn call(&self, input: &str, custom: bool) -> Result<Item, ApiError> {
        Ok(Item::Call {
            call_id: self.text("call_id")?,
            name: self.text("name")?,
            namespace: self.optional("namespace")?,
            input: self.text(input)?,
            custom,
        })
    }

    /// Chain of thought, if there is any.
    fn reasoning_text(&self, name: &str) -> Result<Option<String>, ApiError> {
        if self.fields.get(name).is_none_or(Value::is_null) {
            return Ok(None);
        }
        Ok(Some(self.parts(name)?).filter(|text| !text.is_empty()))
    }

    /// A text, or parts of it, end to end.
    fn parts(&self, name: &str) -> Result<String, ApiError> {
        match self.fields.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Array(parts)) => {
                let part = |(index, part): (usize, &Value)| self.part(part, &format!("{name}[{index}]"));
                parts.iter().enumerate().map(part).collect()
            }
            _ => Err(self.wrong(name, "wanted a text or an array of parts")),
        }
    }

    fn part(&self, part: &Value, name: &str) -> Result<String, ApiError> {
        let text = |field: &str| match part.get(field).and_then(Value::as_str) {
            Some(text) => Ok(text.to_owned()),
            None => Err(self.wrong(&format!("{name}.{field}"), "wanted a text")),
        };
        match part.get("type").and_then(Value::as_str) {
            Some("input_text" | "output_text" | "text" | "summary_text" | "reasoning_text") => text("text"),
            Some("refusal") => text("refusal"),
            Some(kind @ ("input_image" | "input_file" | "input_audio" | "computer_screenshot")) => {
                let param = format!("{}.{name}", self.at);
                Err(ApiError::unsupported(param, format!("this model reads text only, not {kind:?}: send input_text")))
            }
            _ => Err(self.wrong(&format!("{name}.type"), "wanted \"input_text\" or another part of text")),
        }
    }

    fn text(&self, name: &str) -> Result<String, ApiError> {
        self.optional(name)?.ok_or_else(|| self.wrong(name, "wanted a text, found nothing"))
    }

    fn optional(&self, name: &str) -> Result<Option<String>, ApiError> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(name, "wanted a text")),
        }
    }

    fn wrong(&self, name: &str, problem: &str) -> ApiError {
        let param = format!("{}.{name}", self.at);
        let problem = format!("{param}: {problem}");
        ApiError::invalid(param, problem)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{InputItem, Item, Phase, Speaker, read_input};
    use crate::types::fields::TextOr;

    fn read(item: Value) -> Item {
        InputItem::read(item, "input[3]").unwrap().item
    }

    fn said(speaker: Speaker, text: &str, phase: Option<Phase>) -> Item {
        Item::Message { speaker, text: text.to_owned(), phase }
    }

    #[test]
    fn messages_in_every_form() {
        let input = read_input(Some(TextOr::Text("Hi".into()))).unwrap();
        assert_eq!(input[0].item, said(Speaker::User, "Hi", None));
        let parts = json!([{"type": "input_text", "text": "Hi"}]);
        assert_eq!(input[0].json["content"], parts);
        assert_eq!(input[0].json["type"], "message");
        assert!(input[0].id.starts_with("msg_") && input[0].json["id"] == input[0].id.as_str());
        for role in ["system", "developer"] {
            let item =
                json!({"role": role, "content": [{"type": "input_text", "text": "a"}, {"type": "text", "text": "b"}]});
            assert_eq!(read(item), said(Speaker::Application, "ab", None));
        }
        let item = json!({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "phase": "commentary", "content": [{"type": "output_text", "text": "x", "annotations": []},
            {"type": "refusal", "refusal": "y"}]});
        assert_eq!(read(item), said(Speaker::Assistant, "xy", Some(Phase::Commentary)));
    }

    #[test]
    fn reasoning_in_every_form() {
        let text = |text: &str| Some(text.to_owned());
        for (item, wanted, summary, encrypted) in [
            (json!({"content": [{"type": "reasoning_text", "text": "c"}], "summary": []}), text("c"), None, None),
            (json!({"content": [], "summary": [{"type": "summary_text", "text": "s"}]}), None, text("s"), None),
            (json!({"content": null, "summary": [], "encrypted_content": "e"}), None, None, text("e")),
            (json!({"summary": [], "encrypted_content": ""}), None, None, None),
            (json!({"summary": [], "encrypted_content": null}), None, None, None),
        ] {
            let mut item = item;
            item["type"] = "reasoning".into();
            assert_eq!(read(item.clone()), Item::Reasoning { text: wanted, summary, encrypted }, "{item}");
        }
    }

    #[test]
    fn calls_and_outputs() {
        let item = json!({"type": "function_call", "call_id": "c", "name": "f", "namespace": "n", "arguments": "{}"});
        let call = |custom, namespace: Option<&str>| Item::Call {
            call_id: "c".into(),
            name: "f".into(),
            namespace: namespace.map(str::to_owned),
            input: "{}".into(),
            custom,
        };
        assert_eq!(read(item), call(false, Some("n")));
        let item = json!({"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "{}"});
        assert_eq!(read(item), call(true, None));
        for output in [json!("out"), json!([{"type": "input_text", "text": "out"}])] {
            let item = json!({"type": "function_call_output", "call_id": "c", "output": output});
            assert_eq!(read(item), Item::Output { call_id: "c".into(), text: "out".into() });
        }
        assert_eq!(read(json!({"id": "msg_1"})), Item::Reference);
        assert_eq!(read(json!({"type": "item_reference", "id": "msg_1"})), Item::Reference);
        assert_eq!(read(json!({"type": "web_search_call", "id": "ws_1", "status": "completed"})), Item::Foreign);
    }

    #[test]
    fn errors_name_the_place() {
        for (item, param) in [
            (json!(7), "input[3]"),
            (json!({}), "input[3].type"),
            (json!({"type": 7}), "input[3].type"),
            (json!({"type": "spell"}), "input[3].type"),
            (json!({"role": "critic", "content": ""}), "input[3].role"),
            (json!({"role": "user"}), "input[3].content"),
            (json!({"role": "user", "content": [{"type": "input_image"}]}), "input[3].content[0]"),
            (json!({"role": "user", "content": ["x"]}), "input[3].content[0].type"),
            (json!({"role": "user", "content": [{"type": "input_text"}]}), "input[3].content[0].text"),
            (json!({"role": "user", "content": "", "id": "../x"}), "input[3].id"),
            (json!({"type": "function_call", "call_id": "c", "name": "f"}), "input[3].arguments"),
            (json!({"type": "function_call", "call_id": 7}), "input[3].call_id"),
            (json!({"type": "function_call_output", "call_id": "c"}), "input[3].output"),
            (json!({"type": "reasoning", "encrypted_content": 7}), "input[3].encrypted_content"),
        ] {
            let error = InputItem::read(item.clone(), "input[3]").unwrap_err();
            assert_eq!((error.param(), error.status().as_u16()), (Some(param), 400), "{item}: {error}");
        }
        let many = vec![json!({"role": "user", "content": ""}); 8193];
        assert_eq!(read_input(Some(TextOr::List(many))).unwrap_err().param(), Some("input"));
    }
}
