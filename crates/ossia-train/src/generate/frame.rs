//! Puts a task into a conversation: system message, developer message, what is said, what is thought, the answer.

use ossia_text::Message;
use ossia_text::harmony::{COMMENTARY, DeveloperContent, Effort, FINAL, Role, SystemContent};

use super::rng::Rng;
use super::task::{Task, Turn};
use super::tools::unneeded;
use super::words::INSTRUCTIONS;
use super::{Expected, Family, Sample};

/// So many of a hundred system messages are those of `ossia run`; the others have only effort and channels.
const USUAL_PERCENT: usize = 70;
/// So many of a hundred conversations carry instructions that change nothing, with a usual and with a short system message.
const INSTRUCTED_PERCENT: (usize, usize) = (10, 40);

/// So many of a hundred questions that need no tool come with one all the same.
const UNNEEDED_TOOL_PERCENT: usize = 5;

/// The conversation of a task.
pub(super) fn frame(family: Family, mut task: Task, effort: Effort, rng: &mut Rng) -> Sample {
    if rng.chance(UNNEEDED_TOOL_PERCENT) && task.tools.is_empty() {
        task.tools = unneeded(rng);
    }
    let usual = task.today.is_some() || rng.chance(USUAL_PERCENT);
    let mut messages = vec![system(&task, effort, usual, rng)];
    messages.extend(developer(&task, usual, rng));
    for turn in task.turns {
        match turn {
            Turn::Said(message) => messages.push(message),
            Turn::Thought(thought) => messages.extend(thought.message(effort)),
        }
    }
    let prompt = messages.len();
    messages.extend(task.thought.message(effort));
    messages.push(match &task.answer {
        Expected::Final(text) => Message::assistant(FINAL, text.clone()),
        Expected::Call { name, arguments } => call(name, arguments.to_string()),
    });
    Sample { family, effort, conversation: messages.into(), prompt, expected: task.answer, key: task.key }
}

/// The assistant's call of a function.
pub(super) fn call(name: &str, arguments: String) -> Message {
    Message {
        channel: Some(COMMENTARY.to_owned()),
        recipient: Some(format!("functions.{name}")),
        content_type: Some("<|constrain|>json".to_owned()),
        ..Message::text(Role::Assistant, arguments)
    }
}

fn system(task: &Task, effort: Effort, usual: bool, rng: &mut Rng) -> Message {
    let reasoning_effort = Some(effort);
    let (drawn, usual_content) = (date(rng), SystemContent::default());
    let conversation_start_date = Some(task.today.clone().unwrap_or(drawn));
    let content = SystemContent { reasoning_effort, conversation_start_date, ..usual_content };
    Message::system(match usual {
        true => content,
        false => {
            SystemContent { model_identity: None, knowledge_cutoff: None, conversation_start_date: None, ..content }
        }
    })
}

fn developer(task: &Task, usual: bool, rng: &mut Rng) -> Option<Message> {
    let percent = if usual { INSTRUCTED_PERCENT.0 } else { INSTRUCTED_PERCENT.1 };
    let drawn = rng.chance(percent).then(|| rng.pick(INSTRUCTIONS).to_owned());
    let instructions = task.instructions.clone().or(drawn);
    let content = DeveloperContent::new(instructions, task.tools.clone());
    (content.instructions.is_some() || content.tools.is_some()).then(|| Message::developer(content))
}

/// A date as the system message writes it, YYYY-MM-DD.
pub(super) fn date(rng: &mut Rng) -> String {
    format!("{}-{:02}-{:02}", rng.between(2024, 2032), rng.between(1, 12), rng.between(1, 28))
}
