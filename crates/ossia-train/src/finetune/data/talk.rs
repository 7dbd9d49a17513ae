//! What an example says, whatever form it came in, and the harmony conversation that it becomes: the same messages that the
//! server makes of the same request, so that a model is trained on the prompts that it will be given.

use ossia_text::Message;
use ossia_text::harmony::{ANALYSIS, COMMENTARY, DeveloperContent, Effort, FINAL, SystemContent, ToolDescription};

use super::{Dates, Manner};

/// An example's conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Talk {
    /// In order.
    pub said: Vec<Said>,
    /// What may be called.
    pub tools: Vec<ToolDescription>,
    /// A section about the form of the answer, at the end of the instructions.
    pub format: Option<String>,
    /// How much is thought, where the example says it.
    pub effort: Option<Effort>,
    /// The day, where the example says it.
    pub date: Option<String>,
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    /// The application.
    Instructions(String),
    /// The person.
    User(String),
    /// The model.
    Assistant(Spoken),
    /// A tool, by its full name, with what it gave back.
    Tool(String, String),
}

/// A message of the assistant: thought, text, calls, each of which may be missing.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Spoken {
    pub thought: String,
    pub text: String,
    pub calls: Vec<Call>,
    /// Whether it is to be learned; what is not is context.
    pub learned: bool,
}

/// A call of a function.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    /// Without `functions.`.
    pub name: String,
    /// To the letter.
    pub input: String,
    /// False for a custom tool, which takes any text.
    pub is_json: bool,
}

/// A conversation and which of its messages are learned.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Told {
    pub messages: Vec<Message>,
    /// As many.
    pub learned: Vec<bool>,
}

impl Told {
    fn push(&mut self, message: Message, learned: bool) {
        self.messages.push(message);
        self.learned.push(learned);
    }
}

impl Talk {
    /// The conversation, with what `manner` says where the example does not. `chance` draws what is drawn.
    pub fn told(&self, manner: &Manner, chance: u64) -> Told {
        let mut told = Told { messages: Vec::new(), learned: Vec::new() };
        told.push(self.system(manner, chance), false);
        let is_instruction = |said: &&Said| matches!(said, Said::Instructions(_));
        let num_leading = self.said.iter().take_while(is_instruction).count();
        let leading = self.said[..num_leading].iter().filter_map(|said| match said {
            Said::Instructions(text) if !text.is_empty() => Some(text.as_str()),
            _ => None,
        });
        let sections: Vec<&str> = leading.chain(self.format.as_deref()).collect();
        let instructions = (!sections.is_empty()).then(|| sections.join("\n\n"));
        if instructions.is_some() || !self.tools.is_empty() {
            told.push(Message::developer(DeveloperContent::new(instructions, self.tools.clone())), false);
        }
        for said in &self.said[num_leading..] {
            match said {
                Said::Instructions(text) => {
                    let content = DeveloperContent::new(Some(text.clone()), Vec::new());
                    told.push(Message::developer(content), false);
                }
                Said::User(text) => told.push(Message::user(text.as_str()), false),
                Said::Assistant(spoken) => spoken.tell(&mut told),
                Said::Tool(name, text) => {
                    told.push(Message::tool_result(name.as_str(), COMMENTARY, text.as_str()), false)
                }
            }
        }
        told
    }

    fn system(&self, manner: &Manner, chance: u64) -> Message {
        let date = self.date.clone().or_else(|| match &manner.dates {
            Dates::Drawn => Some(drawn_date(chance)),
            Dates::None => None,
            Dates::Fixed(date) => Some(date.clone()),
        });
        Message::system(SystemContent {
            reasoning_effort: Some(self.effort.unwrap_or(manner.effort)),
            conversation_start_date: date,
            ..SystemContent::default()
        })
    }
}

impl Spoken {
    fn tell(&self, told: &mut Told) {
        let mut push = |message| told.push(message, self.learned);
        if !self.thought.is_empty() {
            push(Message::assistant(ANALYSIS, self.thought.as_str()));
        }
        let channel = if self.calls.is_empty() { FINAL } else { COMMENTARY };
        if !self.text.is_empty() {
            push(Message::assistant(channel, self.text.as_str()));
        }
        for call in &self.calls {
            let mut message = Message::assistant(COMMENTARY, call.input.as_str());
            message.recipient = Some(format!("functions.{}", call.name));
            message.content_type = call.is_json.then(|| "<|constrain|>json".to_owned());
            push(message);
        }
    }
}

/// A day of 2024 to 2027, as YYYY-MM-DD: served prompts carry the day on which they are asked, and the model is not to
/// tie what it learns to one.
fn drawn_date(chance: u64) -> String {
    let (year, month, day) = (2024 + chance % 4, 1 + chance / 4 % 12, 1 + chance / 48 % 28);
    format!("{year}-{month:02}-{day:02}")
}

/// The chain of thought that some data put in front of the text, in tags, and the text after it.
pub(super) fn without_tags(said: &str) -> (String, &str) {
    let mut thoughts = Vec::new();
    let mut rest = said;
    while let Some(tagged) = rest.trim_start().strip_prefix("<think>")
        && let Some((thought, after)) = tagged.split_once("</think>")
    {
        thoughts.push(thought.trim());
        rest = after.trim_start();
    }
    (thoughts.join("\n\n"), rest)
}

#[cfg(test)]
mod tests {
    use ossia_text::harmony::Role;

    use super::*;

    fn spoken(thought: &str, text: &str, calls: &[&str]) -> Said {
        let call = |name: &&str| Call { name: (*name).into(), input: "{}".into(), is_json: true };
        let calls = calls.iter().map(call).collect();
        Said::Assistant(Spoken { thought: thought.into(), text: text.into(), calls, learned: true })
    }

    #[test]
    fn a_talk_becomes_harmony() {
        let talk = Talk {
            said: vec![
                Said::Instructions("A".into()),
                Said::Instructions("B".into()),
                Said::User("q".into()),
                spoken("t", "first", &["f", "g"]),
                Said::Tool("functions.f".into(), "1".into()),
                spoken("", "done", &[]),
                Said::Instructions("later".into()),
            ],
            format: Some("# Form".into()),
            ..Talk::default()
        };
        let manner = Manner { effort: Effort::Low, dates: Dates::Fixed("2030-01-02".into()) };
        let told = talk.told(&manner, 7);
        let found: Vec<String> = told
            .messages
            .iter()
            .map(|m| {
                let to = m.recipient.as_deref().unwrap_or("-");
                format!("{} {} {to}", m.author.role.as_str(), m.channel.as_deref().unwrap_or("-"))
            })
            .collect();
        let wanted = [
            "system - -",
            "developer - -",
            "user - -",
            "assistant analysis -",
            "assistant commentary -",
            "assistant commentary functions.f",
            "assistant commentary functions.g",
            "tool commentary assistant",
            "assistant final -",
            "developer - -",
        ];
        assert_eq!(found, wanted);
        let wanted = [false, false, false, true, true, true, true, false, true, false];
        assert_eq!(told.learned, wanted);
        let ossia_text::harmony::Content::DeveloperContent(developer) = &told.messages[1].content[0] else { panic!() };
        assert_eq!(developer.instructions.as_deref(), Some("A\n\nB\n\n# Form"));
        let ossia_text::harmony::Content::SystemContent(system) = &told.messages[0].content[0] else { panic!() };
        assert_eq!(system.conversation_start_date.as_deref(), Some("2030-01-02"));
        assert_eq!(system.reasoning_effort, Some(Effort::Low));
    }

    #[test]
    fn a_developer_message_only_where_there_is_something_to_say() {
        let talk = Talk { said: vec![Said::Instructions(String::new()), Said::User("q".into())], ..Talk::default() };
        let roles: Vec<Role> =
            talk.told(&Manner::default(), 0).messages.iter().map(|message| message.author.role).collect();
        assert_eq!(roles, [Role::System, Role::User]);
    }

    #[test]
    fn dates_are_days() {
        assert_eq!(drawn_date(0), "2024-01-01");
        assert_eq!(drawn_date(u64::MAX).len(), 10);
        assert_ne!(drawn_date(1), drawn_date(2));
    }

    #[test]
    fn tagged_thoughts() {
        assert_eq!(without_tags("<think>\na\n</think>\n\nb"), ("a".into(), "b"));
        assert_eq!(without_tags(" <think>a</think><think>b</think> c"), ("a\n\nb".into(), "c"));
        assert_eq!(without_tags("<think>never ends"), (String::new(), "<think>never ends"));
        assert_eq!(without_tags("no <think>x</think>"), (String::new(), "no <think>x</think>"));
    }
}
