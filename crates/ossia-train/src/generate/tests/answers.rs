//! The expected answers, computed again from what the user sees.

use std::collections::BTreeMap;

use ossia_text::harmony::{Content, Role};

use super::super::{Expected, Family, Sample, Split, sample};

const COUNT: u64 = 400;

fn samples(family: Family) -> impl Iterator<Item = Sample> {
    (0..COUNT).map(move |i| sample(family, if i % 2 == 0 { Split::Train } else { Split::HeldOut }, 11, i))
}

/// What user and developer wrote.
fn shown(sample: &Sample) -> String {
    let mut text = String::new();
    for part in sample.question().messages.iter().flat_map(|m| &m.content) {
        match part {
            Content::Text { text: said } => text += &format!("{said}\n"),
            Content::DeveloperContent(dev) => text += &format!("{}\n", dev.instructions.clone().unwrap_or_default()),
            Content::SystemContent(_) => {}
        }
    }
    text
}

fn asked(sample: &Sample) -> String {
    sample.conversation.messages.iter().rfind(|m| m.author.role == Role::User).unwrap().content_text()
}

fn numbers(text: &str) -> Vec<i64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn answer(sample: &Sample) -> &str {
    let Expected::Final(text) = &sample.expected else { panic!("{}: a call", sample.key) };
    text
}

fn check(family: Family, right: impl Fn(&str) -> String) {
    for sample in samples(family) {
        let question = asked(&sample);
        assert_eq!(answer(&sample), right(&question), "{question}");
    }
}

#[test]
fn arithmetic() {
    check(Family::Addition, |question| numbers(question).iter().sum::<i64>().to_string());
    check(Family::Multiplication, |question| numbers(question).iter().product::<i64>().to_string());
    check(Family::Subtraction, |question| {
        let n = numbers(question);
        let turned = question.contains(" from ");
        if turned { n[1] - n[0] } else { n[0] - n[1] }.to_string()
    });
}

#[test]
fn order() {
    check(Family::Comparison, |question| {
        let n = numbers(question);
        let words = ["arger", "bigger", "greater", " more", "argest", "max", "biggest", "greatest"];
        let high = words.iter().any(|word| question.contains(word));
        if high { n.iter().max() } else { n.iter().min() }.unwrap().to_string()
    });
    check(Family::Sorting, |question| {
        let mut n = numbers(question);
        n.sort();
        let down = ["descending", "largest to", "falling", "high to", "large to", "largest first", "downwards"];
        if down.iter().any(|words| question.contains(words)) {
            n.reverse();
        }
        n.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
    });
}

#[test]
fn units_and_dates() {
    for sample in samples(Family::Units) {
        let product: i64 = numbers(&asked(&sample)).iter().product();
        assert_eq!(answer(&sample).split(' ').next(), Some(product.to_string().as_str()), "{}", asked(&sample));
        assert!(asked(&sample).contains(answer(&sample).split(' ').nth(1).unwrap()));
    }
    let days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    for sample in samples(Family::Dates) {
        let words: Vec<&str> = sample.key.split(' ').collect();
        match words[..] {
            ["weekday", way, day, count] => {
                let (mut at, step) = (days.iter().position(|d| *d == day).unwrap(), if way == "after" { 1 } else { 6 });
                (0..count.parse().unwrap()).for_each(|_| at = (at + step) % 7);
                assert_eq!(answer(&sample), days[at], "{}", asked(&sample));
            }
            ["date", month, day, count] => {
                assert!([month, day, count].iter().all(|word| asked(&sample).contains(word)));
                assert_eq!(answer(&sample), later(month, day.parse().unwrap(), count.parse().unwrap()));
            }
            ["today", date] | ["year", date] => {
                assert!(date.starts_with(answer(&sample)));
                let system = &sample.conversation.messages[0].content[0];
                let Content::SystemContent(system) = system else { panic!() };
                assert_eq!(system.conversation_start_date.as_deref(), Some(date));
            }
            _ => panic!("{}", sample.key),
        }
    }
}

/// Walks day by day.
fn later(month: &str, day: u64, count: u64) -> String {
    let names = "January February March April May June July August September October November December";
    let names: Vec<&str> = names.split(' ').collect();
    let (mut at, mut day) = (names.iter().position(|name| *name == month).unwrap(), day);
    for _ in 0..count {
        let length = if at == 1 { 28 } else { [31, 30][usize::from([3, 5, 8, 10].contains(&at))] };
        (at, day) = if day == length { ((at + 1) % 12, 1) } else { (at, day + 1) };
    }
    format!("{} {day}", names[at])
}

#[test]
fn letters() {
    for sample in samples(Family::Strings) {
        let parts: Vec<&str> = sample.key.split(' ').collect();
        let (word, detail) = (parts[2], parts[3]);
        let right = match parts[1] {
            "reverse" => word.chars().rev().collect(),
            "upper" => word.to_uppercase(),
            "count" => word.matches(detail).count().to_string(),
            "first" => word[..1].to_owned(),
            "last" => word[word.len() - 1..].to_owned(),
            "place" => word[detail.parse::<usize>().unwrap() - 1..][..1].to_owned(),
            "length" => word.len().to_string(),
            other => panic!("{other}"),
        };
        assert_eq!(answer(&sample), right, "{}", asked(&sample));
        assert!(asked(&sample).contains(word) && (3..=8).contains(&word.len()), "{word}");
    }
}

/// The sentences of a text, without their marks.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split(['.', '?', '\n', ':']).map(str::trim)
}

#[test]
fn texts() {
    for sample in samples(Family::Context1) {
        let (text, words) = (shown(&sample), sample.key.split(' ').collect::<Vec<_>>());
        let says = |sentence: &&str| sentence.starts_with(words[1]) && sentence.ends_with(answer(&sample));
        assert_eq!(sentences(&text).filter(says).count(), 1, "{text}");
    }
    for sample in samples(Family::Context2) {
        let (text, words) = (shown(&sample), sample.key.split(' ').collect::<Vec<_>>());
        let middle = if words[0] == "kin" { words[3] } else { words[2] };
        let says = |sentence: &&str| sentence.contains(middle) && sentence.ends_with(answer(&sample));
        assert_eq!(sentences(&text).filter(says).count(), 1, "{text}");
        let links = |sentence: &&str| sentence.contains(words[1]) && sentence.contains(middle);
        assert_eq!(sentences(&text).filter(links).count(), 1, "{text}");
    }
    let verbs: BTreeMap<&str, &str> = [
        ("home", "lives"),
        ("pet", "has"),
        ("job", "works"),
        ("color", "likes"),
        ("food", "eats"),
        ("vehicle", "drives"),
    ]
    .into();
    for sample in samples(Family::Refusal) {
        assert_eq!(answer(&sample), "That is not in the text.");
        let (text, words) = (shown(&sample), sample.key.split(' ').collect::<Vec<_>>());
        let slot = if words[1].ends_with("'s") { words[3] } else { words[2] };
        let says = format!("{} {} ", words[1], verbs[slot]);
        let told = |sentence: &&str| {
            sentence.starts_with(&says) && ![" what", " where"].iter().any(|word| sentence.ends_with(word))
        };
        assert_eq!(sentences(&text).filter(told).count(), 0, "{text}");
    }
}

#[test]
fn calls() {
    let mut without = 0;
    for sample in samples(Family::ToolCall) {
        let developer = sample.conversation.messages.iter().flat_map(|m| &m.content).find_map(|part| match part {
            Content::DeveloperContent(developer) => developer.tools.as_ref(),
            _ => None,
        });
        let tools = &developer.unwrap()["functions"].tools;
        let Expected::Call { name, arguments } = &sample.expected else {
            assert_eq!(answer(&sample), "I have no tool for that.");
            without += 1;
            continue;
        };
        let tool = tools.iter().find(|tool| tool.name == *name).unwrap();
        let properties = tool.parameters.as_ref().unwrap()["properties"].as_object().unwrap();
        let arguments = arguments.as_object().unwrap();
        assert!(properties.keys().eq(arguments.keys()), "{}", sample.key);
        for value in arguments.values() {
            let plain = value.as_str().map_or(value.to_string(), str::to_owned);
            assert!(asked(&sample).contains(&plain), "{}", sample.key);
        }
    }
    assert!((20..90).contains(&without), "{without} without a tool");
    for sample in samples(Family::ToolAnswer) {
        let result = sample.question().messages.last().unwrap().content_text();
        let result: serde_json::Value = serde_json::from_str(&result).unwrap();
        for value in result.as_object().unwrap().values() {
            let plain = value.as_str().map_or(value.to_string(), str::to_owned);
            assert!(answer(&sample).contains(&plain), "{result}");
        }
    }
}
