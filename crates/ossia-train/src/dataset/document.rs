//! A conversation as a document: its tokens, and for each the class that decides how much it is learned.
//!
//! A document learns one turn. What comes before the turn is, token by token, the prompt that the model is given when
//! it is asked for the turn, with the analysis of finished turns left out as it is then. So a model meets in training
//! what it will meet in use.

use ossia_text::harmony::{ANALYSIS, COMMENTARY, FINAL};
use ossia_text::{Conversation, Harmony, Message, RenderOptions, Role, TextError};

use super::DatasetError;

/// Who must learn a token. Headers and stop tokens belong to their message.
pub mod class {
    /// Nobody: it is given by the prompt or by a tool.
    pub const CONTEXT: u8 = 0;
    /// Chain of thought.
    pub const ANALYSIS: u8 = 1;
    /// What is said to the user on the way, such as a plan.
    pub const COMMENTARY: u8 = 2;
    /// The answer.
    pub const FINAL: u8 = 3;
    /// A tool call, on whatever channel.
    pub const TOOL_CALL: u8 = 4;
}

/// The number of classes.
pub const NUM_CLASSES: usize = 5;
/// Names of the classes, for metrics.
pub const CLASS_NAMES: [&str; NUM_CLASSES] = ["context", "analysis", "commentary", "final", "tool_call"];

/// The tokens of one sequence and the class of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// As many; see [`class`].
    pub classes: Vec<u8>,
}

/// Renders a conversation of which the turn after the first `prompt` messages is learned.
///
/// The document begins with exactly what [`Harmony::render_for_completion`] gives for these messages, all of it
/// context, and a final message at its end closes with `<|return|>`. After the prompt come the model's messages, each
/// in its class, and results of tools, which are context. The model is given `<|start|>assistant` where it is asked to
/// write: at the beginning of the turn, after a tool's result, after a call. That is context; where it goes on by
/// itself after `<|end|>`, as from analysis to final, it writes these tokens and learns them.
///
/// Fails where the turn is empty, does not begin with the assistant, holds other messages than the assistant's and
/// tools' or goes on after a final message, and where a message's channel has no class. A conversation of several turns
/// gives a document for each: cut it after the turn.
pub fn tokenise(harmony: &Harmony, conversation: &Conversation, prompt: usize) -> Result<Document, DatasetError> {
    tokenise_where(harmony, conversation, prompt, &|_| true)
}

/// The same, but of the assistant's messages only those at places that `is_learned` says are learned; the others are
/// context.
pub fn tokenise_where(
    harmony: &Harmony,
    conversation: &Conversation,
    prompt: usize,
    is_learned: &dyn Fn(usize) -> bool,
) -> Result<Document, DatasetError> {
    let (before, turn) = split(conversation, prompt)?;
    let options = RenderOptions::default();
    let num_given = harmony.render_for_completion(&Conversation::default(), &options)?.len();
    let tokens = harmony.render_for_completion(&before.to_vec().into(), &options)?;
    let mut document = Document { classes: vec![class::CONTEXT; tokens.len()], tokens };
    let mut is_asked = true;
    for (index, message) in (prompt..).zip(turn) {
        let class = class_of(message, index)?;
        let is_last = index + 1 == conversation.messages.len();
        let tokens = render_one(harmony, message, index, is_last)?;
        let num_context = if is_asked { num_given } else { 0 };
        let in_prompt = if index == prompt { num_given } else { 0 };
        let kept = if is_learned(index) { class } else { class::CONTEXT };
        let classes = (0..tokens.len()).map(|at| if at < num_context { class::CONTEXT } else { kept });
        document.classes.extend(classes.skip(in_prompt));
        document.tokens.extend(tokens.iter().skip(in_prompt));
        is_asked = matches!(class, class::CONTEXT | class::TOOL_CALL);
    }
    Ok(document)
}

/// The messages before the turn and those of the turn.
fn split(conversation: &Conversation, prompt: usize) -> Result<(&[Message], &[Message]), DatasetError> {
    let parts = conversation.messages.split_at_checked(prompt).filter(|(_, turn)| !turn.is_empty());
    let problem = "the turn to be learned has no message: give fewer prompt messages than the conversation has";
    let (before, turn) = parts.ok_or(DatasetError::Turn { index: prompt, problem })?;
    for (index, message) in (prompt..).zip(turn) {
        let is_first = index == prompt;
        let is_last = index + 1 == conversation.messages.len();
        let problem = match message.author.role {
            Role::Assistant if message.channel.as_deref() == Some(FINAL) && !is_last => {
                "a final message ends the turn: cut the conversation after it"
            }
            Role::Assistant => continue,
            Role::Tool if !is_first => continue,
            Role::Tool => "a turn to be learned begins with the assistant: count the tool's result to the prompt",
            Role::User | Role::System | Role::Developer => {
                "a document learns one turn: make one for each, cut before the next user message"
            }
        };
        return Err(DatasetError::Turn { index, problem });
    }
    Ok((before, turn))
}

fn class_of(message: &Message, index: usize) -> Result<u8, DatasetError> {
    let problem = "the assistant's message is on none of the channels analysis, commentary, final: name one";
    match message.channel.as_deref() {
        _ if message.author.role != Role::Assistant => Ok(class::CONTEXT),
        // Whatever has a recipient ends in `<|call|>`.
        _ if message.recipient.is_some() => Ok(class::TOOL_CALL),
        Some(ANALYSIS) => Ok(class::ANALYSIS),
        Some(COMMENTARY) => Ok(class::COMMENTARY),
        Some(FINAL) => Ok(class::FINAL),
        _ => Err(DatasetError::Turn { index, problem }),
    }
}

/// A message of the turn, which keeps all of its analysis.
fn render_one(harmony: &Harmony, message: &Message, index: usize, is_last: bool) -> Result<Vec<u32>, TextError> {
    let alone = Conversation::from(vec![message.clone()]);
    let options = RenderOptions::default();
    let tokens = match is_last {
        true => harmony.render_for_training(&alone, &options),
        false => harmony.render(&alone, &options),
    };
    tokens.map_err(|error| match error {
        TextError::Message { problem, .. } => TextError::Message { index, problem },
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use ossia_text::harmony::{DeveloperContent, SystemContent, ToolDescription};

    use super::super::testing::harmony;
    use super::*;

    fn call(text: &str) -> Message {
        let mut message = Message::assistant(COMMENTARY, text);
        message.recipient = Some("functions.add".to_owned());
        message.content_type = Some("<|constrain|>json".to_owned());
        message
    }

    fn opening() -> Vec<Message> {
        let tool = ToolDescription { name: "add".into(), description: "Adds.".into(), parameters: None };
        let developer = DeveloperContent::new(Some("Be short.".into()), vec![tool]);
        vec![Message::system(SystemContent::default()), Message::developer(developer), Message::user("One and two?")]
    }

    /// A finished turn with a tool call, then a second one.
    fn two_turns() -> Vec<Message> {
        let mut messages = opening();
        messages.extend([
            Message::assistant(ANALYSIS, "use the tool"),
            Message::assistant(COMMENTARY, "I will add."),
            call("{\"a\":1,\"b\":2}"),
            Message::tool_result("functions.add", COMMENTARY, "3"),
            Message::assistant(ANALYSIS, "easy now"),
            Message::assistant(FINAL, "Three."),
            Message::user("And two and two?"),
            Message::assistant(ANALYSIS, "known"),
            Message::assistant(FINAL, "Four."),
        ]);
        messages
    }

    /// The text of each run of tokens of one class.
    fn runs(document: &Document) -> Vec<(u8, String)> {
        let mut runs: Vec<(u8, Vec<u32>)> = Vec::new();
        for (&token, &class) in document.tokens.iter().zip(&document.classes) {
            match runs.last_mut().filter(|(last, _)| *last == class) {
                Some((_, tokens)) => tokens.push(token),
                None => runs.push((class, vec![token])),
            }
        }
        let text = |tokens: Vec<u32>| String::from_utf8(harmony().tokenizer().decode(&tokens)).unwrap();
        runs.into_iter().map(|(class, tokens)| (class, text(tokens))).collect()
    }

    #[test]
    fn every_token_has_the_class_of_who_writes_it() {
        let messages = two_turns();
        let document = tokenise(harmony(), &messages[..9].to_vec().into(), 3).unwrap();
        let runs = runs(&document);
        assert!(runs[0].1.ends_with("One and two?<|end|><|start|>assistant"), "{}", runs[0].1);
        let wanted = [
            (1, "<|channel|>analysis<|message|>use the tool<|end|>"),
            (2, "<|start|>assistant<|channel|>commentary<|message|>I will add.<|end|>"),
            (
                4,
                "<|start|>assistant to=functions.add<|channel|>commentary <|constrain|>json<|message|>{\"a\":1,\"b\":2}<|call|>",
            ),
            (0, "<|start|>functions.add to=assistant<|channel|>commentary<|message|>3<|end|><|start|>assistant"),
            (1, "<|channel|>analysis<|message|>easy now<|end|>"),
            (3, "<|start|>assistant<|channel|>final<|message|>Three.<|return|>"),
        ];
        let found: Vec<(u8, &str)> = runs[1..].iter().map(|(class, text)| (*class, text.as_str())).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn documents_begin_with_the_prompt_and_equal_the_training_rendering() {
        let messages = two_turns();
        let options = RenderOptions::default();
        for (prompt, end) in [(3, 9), (3, 6), (4, 6), (5, 6), (7, 9), (8, 9), (10, 12), (11, 12), (10, 11)] {
            let conversation = Conversation::from(messages[..end].to_vec());
            let document = tokenise(harmony(), &conversation, prompt).unwrap();
            let given = harmony().render_for_completion(&messages[..prompt].to_vec().into(), &options).unwrap();
            assert_eq!(document.tokens[..given.len()], given, "{prompt} of {end}");
            assert!(document.classes[..given.len()].iter().all(|&class| class == class::CONTEXT));
            assert_ne!(document.classes[given.len()], class::CONTEXT, "the first token after the prompt is learned");
            assert_eq!(document.tokens.len(), document.classes.len());
            assert_eq!(document.tokens, harmony().render_for_training(&conversation, &options).unwrap());
        }
        let second = tokenise(harmony(), &messages.into(), 10).unwrap();
        let text = String::from_utf8(harmony().tokenizer().decode(&second.tokens)).unwrap();
        assert!(!text.contains("use the tool") && !text.contains("easy now"), "old analysis is left out");
        assert!(
            text.contains("I will add.<|end|>") && text.contains("Three.<|end|>") && text.ends_with("Four.<|return|>")
        );
    }

    #[test]
    fn messages_may_be_context() {
        let conversation = Conversation::from(two_turns()[..9].to_vec());
        let all = tokenise(harmony(), &conversation, 3).unwrap();
        let some = tokenise_where(harmony(), &conversation, 3, &|index| index != 4 && index != 7).unwrap();
        assert_eq!(all.tokens, some.tokens);
        let classes: Vec<u8> = runs(&some).into_iter().map(|(class, _)| class).collect();
        assert_eq!(classes, [0, 1, 0, 4, 0, 3]);
        let last = runs(&some).pop().unwrap().1;
        assert_eq!(last, "<|start|>assistant<|channel|>final<|message|>Three.<|return|>", "the header is learned");
    }

    #[test]
    fn after_a_call_the_model_is_asked_again() {
        let mut messages = opening();
        messages.extend([call("{}"), call("[]")]);
        let document = tokenise(harmony(), &messages.into(), 3).unwrap();
        let classes: Vec<u8> = runs(&document).into_iter().map(|(class, _)| class).collect();
        assert_eq!(classes, [0, 4, 0, 4]);
    }

    #[test]
    fn turns_that_cannot_be_learned_are_refused() {
        let messages = two_turns();
        let fail = |messages: &[Message], prompt| {
            tokenise(harmony(), &messages.to_vec().into(), prompt).unwrap_err().to_string()
        };
        assert!(fail(&messages, 12).starts_with("message 12: the turn to be learned has no message"));
        assert!(fail(&messages, usize::MAX).contains("has no message"));
        assert!(fail(&messages, 9).starts_with("message 9: a document learns one turn"));
        assert!(fail(&messages, 3).starts_with("message 8: a final message ends the turn"));
        assert!(fail(&messages[..9], 6).starts_with("message 6: a turn to be learned begins with the assistant"));
        let mut odd = messages[..4].to_vec();
        odd[3].channel = Some("thoughts".to_owned());
        assert!(fail(&odd, 3).starts_with("message 3: the assistant's message is on none of the channels"));
        odd[3] = Message::system(SystemContent::default());
        odd[3].author.role = Role::Assistant;
        odd[3].channel = Some(FINAL.to_owned());
        assert!(fail(&odd, 3).starts_with("message 3: system content is only allowed"));
    }
}
