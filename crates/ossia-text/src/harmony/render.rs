//! Conversations to token ids (SPEC 9.1, 9.3, 9.4, 9.6). All text is encoded with special tokens disabled, so that
//! nothing that a user, a tool or an application writes can end a message or begin another.

use super::message::{ANALYSIS, Content, Conversation, DeveloperContent, Effort, FINAL, Message, Role, SystemContent};
use super::{Harmony, tools};
use crate::TextError;

/// Which earlier chain of thought is left out of a rendering (SPEC 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DropRule {
    /// The documented rule: the analysis of every turn that ended in a final message is left out, that of an unfinished
    /// tool loop stays. For training the last turn keeps its analysis, since it is what is learned.
    #[default]
    FinishedTurns,
    /// What OpenAI's library does: if the last assistant message is final, analysis before the *first* final message is
    /// left out, otherwise nothing is.
    Library,
    /// Everything stays.
    KeepAll,
}

/// How to render.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RenderOptions {
    /// Which earlier chain of thought is left out.
    pub drop: DropRule,
}

impl Harmony {
    /// The conversation's tokens, nothing after them. Messages end in `<|end|>`, or `<|call|>` where the assistant
    /// calls a tool.
    pub fn render(&self, conversation: &Conversation, options: &RenderOptions) -> Result<Vec<u32>, TextError> {
        let last_final = conversation.messages.iter().rposition(|message| message.is_on(FINAL));
        self.render_messages(&conversation.messages, options.drop, last_final)
    }

    /// The conversation's tokens, then `<|start|>assistant`: the prompt from which the model continues.
    pub fn render_for_completion(
        &self,
        conversation: &Conversation,
        options: &RenderOptions,
    ) -> Result<Vec<u32>, TextError> {
        let mut ids = self.render(conversation, options)?;
        ids.push(self.marks.start);
        self.push_text(&mut ids, Role::Assistant.as_str())?;
        Ok(ids)
    }

    /// The conversation's tokens for training: where the last message is the assistant's final one, it ends in
    /// `<|return|>`.
    pub fn render_for_training(
        &self,
        conversation: &Conversation,
        options: &RenderOptions,
    ) -> Result<Vec<u32>, TextError> {
        let messages = &conversation.messages;
        let last_turn = messages.iter().rposition(|m| matches!(m.author.role, Role::User)).unwrap_or(0);
        let last_final = messages.iter().take(last_turn).rposition(|message| message.is_on(FINAL));
        let mut ids = self.render_messages(messages, options.drop, last_final)?;
        let ends_in_final = messages.last().is_some_and(|m| m.author.role == Role::Assistant && m.is_on(FINAL));
        if let Some(last) = ids.last_mut().filter(|_| ends_in_final) {
            *last = self.marks.return_;
        }
        Ok(ids)
    }

    /// `last_final` is the place of the final message that closes the last finished turn.
    fn render_messages(
        &self,
        messages: &[Message],
        rule: DropRule,
        last_final: Option<usize>,
    ) -> Result<Vec<u32>, TextError> {
        let drop_before = match rule {
            DropRule::FinishedTurns => last_final.unwrap_or(0),
            DropRule::Library => library_drop(messages),
            DropRule::KeepAll => 0,
        };
        let has_functions = messages.iter().any(defines_functions);
        let mut ids = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            if index >= drop_before || !message.is_on(ANALYSIS) {
                self.push_message(&mut ids, index, message, has_functions)?;
            }
        }
        Ok(ids)
    }

    fn push_text(&self, ids: &mut Vec<u32>, text: &str) -> Result<(), TextError> {
        ids.extend(self.tokenizer.encode_text(text)?);
        Ok(())
    }

    fn push_message(
        &self,
        ids: &mut Vec<u32>,
        index: usize,
        message: &Message,
        has_functions: bool,
    ) -> Result<(), TextError> {
        if let Some(written) = &message.written {
            ids.extend_from_slice(written);
            return Ok(());
        }
        let marks = &self.marks;
        ids.push(marks.start);
        self.push_author(ids, message).map_err(|error| at(index, error))?;
        if let Some(recipient) = message.recipient.as_ref().filter(|recipient| *recipient != "all") {
            self.push_text(ids, &format!(" to={recipient}"))?;
        }
        if let Some(channel) = &message.channel {
            ids.push(marks.channel);
            self.push_text(ids, channel)?;
        }
        if let Some(content_type) = &message.content_type {
            self.push_content_type(ids, content_type)?;
        }
        ids.push(marks.message);
        for part in &message.content {
            let text = content_text(message.author.role, part, has_functions).map_err(|error| at(index, error))?;
            self.push_text(ids, &text)?;
        }
        let calls = message.author.role == Role::Assistant && message.recipient.is_some();
        ids.push(if calls { marks.call } else { marks.end });
        Ok(())
    }

    fn push_author(&self, ids: &mut Vec<u32>, message: &Message) -> Result<(), TextError> {
        let name = message.author.name.as_deref();
        if message.author.role == Role::Tool {
            let problem = "a tool's message needs the tool's name";
            return self.push_text(ids, name.ok_or(TextError::Message { index: 0, problem })?);
        }
        self.push_text(ids, message.author.role.as_str())?;
        name.map_or(Ok(()), |name| self.push_text(ids, &format!(":{name}")))
    }

    fn push_content_type(&self, ids: &mut Vec<u32>, content_type: &str) -> Result<(), TextError> {
        let Some(rest) = content_type.strip_prefix("<|constrain|>") else {
            return self.push_text(ids, &format!(" {content_type}"));
        };
        self.push_text(ids, " ")?;
        ids.push(self.marks.constrain);
        self.push_text(ids, rest)
    }
}

/// Gives an error about a message its place in the conversation.
fn at(index: usize, error: TextError) -> TextError {
    match error {
        TextError::Message { problem, .. } => TextError::Message { index, problem },
        other => other,
    }
}

/// The library's rule as a place: analysis before it is left out.
fn library_drop(messages: &[Message]) -> usize {
    let last_assistant = messages.iter().rfind(|message| message.author.role == Role::Assistant);
    if !last_assistant.is_some_and(|message| message.is_on(FINAL)) {
        return 0;
    }
    messages.iter().position(|message| message.is_on(FINAL)).unwrap_or(0)
}

fn defines_functions(message: &Message) -> bool {
    message.content.iter().any(|part| matches!(part, Content::DeveloperContent(dev) if dev.has_functions()))
}

fn content_text(role: Role, part: &Content, has_functions: bool) -> Result<String, TextError> {
    let misplaced = |problem| Err(TextError::Message { index: 0, problem });
    match part {
        Content::Text { text } => Ok(text.clone()),
        Content::SystemContent(content) if role == Role::System => Ok(system_text(content, has_functions)),
        Content::SystemContent(_) => misplaced("system content is only allowed in a system message"),
        Content::DeveloperContent(content) if role == Role::Developer => Ok(developer_text(content)),
        Content::DeveloperContent(_) => misplaced("developer content is only allowed in a developer message"),
    }
}

/// SPEC 9.3.
fn system_text(content: &SystemContent, has_functions: bool) -> String {
    let lines = [
        content.model_identity.clone(),
        content.knowledge_cutoff.as_ref().map(|month| format!("Knowledge cutoff: {month}")),
        content.conversation_start_date.as_ref().map(|date| format!("Current date: {date}")),
    ];
    let lines: Vec<String> = lines.into_iter().flatten().collect();
    let sections = [
        (!lines.is_empty()).then(|| lines.join("\n")),
        content.reasoning_effort.map(|effort| format!("Reasoning: {}", effort_word(effort))),
        content.tools.as_ref().and_then(tools::section),
        channels_text(content, has_functions),
    ];
    sections.into_iter().flatten().collect::<Vec<_>>().join("\n\n")
}

fn effort_word(effort: Effort) -> &'static str {
    match effort {
        Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High => "high",
    }
}

fn channels_text(content: &SystemContent, has_functions: bool) -> Option<String> {
    let config = content.channel_config.as_ref().filter(|config| !config.valid_channels.is_empty())?;
    let mut text = format!("# Valid channels: {}.", config.valid_channels.join(", "));
    if config.channel_required {
        text.push_str(" Channel must be included for every message.");
    }
    if has_functions {
        text.push_str("\nCalls to these tools must go to the commentary channel: 'functions'.");
    }
    Some(text)
}

/// SPEC 9.4.
fn developer_text(content: &DeveloperContent) -> String {
    let instructions = content.instructions.as_ref().map(|text| format!("# Instructions\n\n{text}"));
    let sections = [instructions, content.tools.as_ref().and_then(tools::section)];
    sections.into_iter().flatten().collect::<Vec<_>>().join("\n\n")
}
