//! How every conversation begins: our system message (identity, date, effort, channels), then the application's
//! instructions and functions as the developer message.

use ossia_text::Message;
use ossia_text::harmony::{DeveloperContent, Effort, SystemContent, ToolDescription};
use serde_json::Value;

/// What stands before the first thing that somebody says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Opening {
    /// How long to think.
    pub effort: Effort,
    /// The day on which the conversation began, as YYYY-MM-DD. It must stay the same through the conversation: another
    /// date is another prompt, of which nothing is cached.
    pub date: String,
    /// What the application says, if anything.
    pub instructions: Option<String>,
    /// The tools, as the model is shown them.
    pub functions: Vec<ToolDescription>,
    /// The form of the answer, as the model is shown it.
    pub format: Option<ShownFormat>,
}

/// A schema that the final message follows.
#[derive(Debug, Clone, PartialEq)]
pub struct ShownFormat {
    /// A name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The schema.
    pub schema: Value,
}

impl Opening {
    /// The one or two messages.
    pub fn messages(self) -> Vec<Message> {
        let system = Message::system(SystemContent {
            reasoning_effort: Some(self.effort),
            conversation_start_date: Some(self.date),
            ..SystemContent::default()
        });
        let format = self.format.as_ref().map(ShownFormat::section);
        let said: Vec<String> = self.instructions.filter(|text| !text.is_empty()).into_iter().chain(format).collect();
        let instructions = (!said.is_empty()).then(|| said.join("\n\n"));
        let has_developer = instructions.is_some() || !self.functions.is_empty();
        let developer = has_developer.then(|| Message::developer(DeveloperContent::new(instructions, self.functions)));
        std::iter::once(system).chain(developer).collect()
    }
}

impl ShownFormat {
    /// The section that the models were taught to follow.
    fn section(&self) -> String {
        let description = self.description.as_ref().map(|text| format!("// {text}\n")).unwrap_or_default();
        format!("# Response Formats\n\n## {}\n\n{description}{}", self.name, self.schema)
    }
}

/// A message of the application in the middle of a conversation.
pub fn later_instructions(text: String) -> Message {
    Message::developer(DeveloperContent::new(Some(text), Vec::new()))
}

#[cfg(test)]
mod tests {
    use ossia_text::Role;
    use ossia_text::harmony::Content;

    use super::{Opening, ShownFormat};

    #[test]
    fn a_developer_message_only_where_there_is_something_to_say() {
        let roles = |opening: Opening| opening.messages().iter().map(|m| m.author.role).collect::<Vec<_>>();
        assert_eq!(roles(Opening::default()), [Role::System]);
        assert_eq!(roles(Opening { instructions: Some(String::new()), ..Opening::default() }), [Role::System]);
        let format = ShownFormat { name: "n".into(), description: Some("d".into()), schema: serde_json::json!({}) };
        let opening = Opening { instructions: Some("Be brief.".into()), format: Some(format), ..Opening::default() };
        let Content::DeveloperContent(developer) = opening.messages()[1].content[0].clone() else { panic!() };
        assert_eq!(developer.instructions.unwrap(), "Be brief.\n\n# Response Formats\n\n## n\n\n// d\n{}");
    }
}
