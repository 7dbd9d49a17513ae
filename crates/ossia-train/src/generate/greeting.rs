//! Small talk with fixed answers: greetings, who the model is, what it can do, and that it does not know the rest.
//! There are few things to say, so it is the combinations of phrases that are held out.

use super::phrases::{ask, fill, lower_first, upper_first};
use super::rng::Rng;
use super::task::{Task, Thought};
use super::words::{COUNTRIES, THEMES};

/// What somebody may want, how it is said, and the answer.
struct Intent {
    thought: (&'static str, &'static str),
    answer: &'static str,
    before: &'static [&'static str],
    core: &'static [&'static str],
    after: &'static [&'static str],
}

const TO_WHOM: &[&str] = &[
    "",
    "",
    " nano",
    " there",
    " again",
    " friend",
    " everyone",
    " little one",
    " my friend",
    " robot",
    " buddy",
    " computer",
    " you",
    " dear",
    " Ossia",
    " model",
];
const BEFORE_HELLO: &[&str] = &["", "", "Oh, ", "Well, ", "Ah, ", "So, ", "Ok, "];
const BEFORE_QUESTION: &[&str] = &[
    "",
    "",
    "Hi, ",
    "Hello, ",
    "Hey, ",
    "So, ",
    "Ok, ",
    "Tell me: ",
    "One question: ",
    "Nano, ",
    "Please: ",
    "Well, ",
];
const AFTER_QUESTION: &[&str] =
    &["", "", " please", " exactly", " really", " then", " now", ", nano", ", my friend", " again"];

const INTENTS: &[Intent] = &[
    Intent {
        thought: ("A greeting.", "I greet back."),
        answer: "Hello! What can I do for you?",
        before: BEFORE_HELLO,
        core: &[
            "hi",
            "hello",
            "hey",
            "good morning",
            "good evening",
            "good day",
            "greetings",
            "hi hi",
            "good afternoon",
        ],
        after: TO_WHOM,
    },
    Intent {
        thought: ("They ask how I am.", "I thank them."),
        answer: "I am fine, thank you. What can I do for you?",
        before: BEFORE_QUESTION,
        core: &[
            "how are you",
            "how do you do",
            "how is it going",
            "are you well",
            "how are you today",
            "how do you feel",
        ],
        after: AFTER_QUESTION,
    },
    Intent {
        thought: ("They ask who I am.", "I am nano."),
        answer: "I am nano, a small model trained from nothing by Ossia.",
        before: BEFORE_QUESTION,
        core: &[
            "who are you",
            "what are you",
            "what is your name",
            "who made you",
            "are you ChatGPT",
            "what model are you",
            "who trained you",
            "are you a human",
            "are you a robot",
            "introduce yourself",
            "do you have a name",
        ],
        after: AFTER_QUESTION,
    },
    Intent {
        thought: ("They ask what I can do.", "I list it."),
        answer: "I can calculate with small numbers, compare and sort, call tools and answer from a text.",
        before: BEFORE_QUESTION,
        core: &[
            "what can you do",
            "what do you know",
            "how can you help me",
            "what are you good at",
            "help",
            "what should I ask you",
            "what are your skills",
            "what can I ask",
            "can you help me",
        ],
        after: AFTER_QUESTION,
    },
    Intent {
        thought: ("Thanks.", "I am polite."),
        answer: "You are welcome.",
        before: BEFORE_HELLO,
        core: &[
            "thanks",
            "thank you",
            "many thanks",
            "thanks a lot",
            "thank you very much",
            "great, thanks",
            "nice, thank you",
        ],
        after: TO_WHOM,
    },
    Intent {
        thought: ("A farewell.", "I say goodbye."),
        answer: "Goodbye!",
        before: BEFORE_HELLO,
        core: &["bye", "goodbye", "see you", "good night", "see you later", "bye bye", "farewell", "until tomorrow"],
        after: TO_WHOM,
    },
];

/// What is asked of the world, which a model of this size does not know.
const ABOUT_COUNTRIES: &[&str] = &[
    "What is the capital of {s}?",
    "Who is the president of {s}?",
    "How many people live in {s}?",
    "Which language is spoken in {s}?",
    "How large is {s}?",
    "What is the highest mountain of {s}?",
    "When should I visit {s}?",
    "What do people eat in {s}?",
];
const ABOUT_THEMES: &[&str] = &[
    "Write a poem about {s}.",
    "Tell me a joke about {s}.",
    "Explain {s} to me.",
    "What do you think about {s}?",
    "Write a story about {s}.",
    "Who discovered {s}?",
    "Write an essay about {s}.",
    "What is the history of {s}?",
    "Tell me about {s}.",
    "Give me five facts about {s}.",
    "What do you know about {s}?",
    "Translate a text about {s} into French.",
    "Write code that draws {s}.",
    "Recommend a book about {s}.",
];
const UNKNOWN_ANSWER: &str = "I am too small to know that. Try gpt-oss-20b.";

/// Something said that needs no work.
pub(super) fn talk(rng: &mut Rng) -> Task {
    if rng.chance(45) {
        return unknown(rng);
    }
    let intent = &INTENTS[rng.weighted(&[22, 12, 24, 18, 12, 12])];
    said(rng, intent)
}

/// A greeting, as the beginning of a dialogue.
pub(super) fn hello(rng: &mut Rng) -> Task {
    said(rng, &INTENTS[0])
}

fn said(rng: &mut Rng, intent: &Intent) -> Task {
    let (before, core, after) = (rng.pick(intent.before), rng.pick(intent.core), rng.pick(intent.after));
    let end = match core.split(' ').next() {
        Some("who" | "what" | "how" | "are" | "do" | "can") => "?",
        _ => rng.pick(&["", ".", "!"]),
    };
    let text = format!("{before}{core}{after}");
    let key = format!("talk {}", text.to_lowercase());
    let text = ask(rng, &["{t}"], &[("t", &format!("{}{end}", upper_first(&text)))]);
    let question = if rng.chance(35) { text.to_lowercase() } else { text };
    Task::new(key, question, Thought::new(intent.thought.0, intent.thought.1), intent.answer)
}

fn unknown(rng: &mut Rng) -> Task {
    let (templates, subjects) = if rng.chance(30) { (ABOUT_COUNTRIES, COUNTRIES) } else { (ABOUT_THEMES, THEMES) };
    let (template, subject, before) = (rng.pick(templates), rng.pick(subjects), rng.pick(BEFORE_QUESTION));
    let core = fill(template, &[("s", subject)]);
    let core = if before.is_empty() { core } else { lower_first(&core) };
    let key = format!("unknown {before}{core}");
    let question = ask(rng, &["{b}{c}"], &[("b", before), ("c", &core)]);
    Task::new(key, question, Thought::new("I do not know this.", "No tool, no text, no sum."), UNKNOWN_ANSWER)
}
