//! Samples as training and measuring use them: rendered, parsed back, graded, held apart.

mod answers;

use std::collections::HashSet;

use ossia_text::harmony::{Effort, Role};
use ossia_text::{Conversation, Event, Harmony, ParsedMessage, RenderOptions, Tokenizer};
use serde_json::json;

use super::{Expected, Family, Sample, Split, grade, held_out, sample, sample_with_effort, split_of, training_sample};

fn harmony() -> Harmony {
    Harmony::new(Tokenizer::o200k_harmony().into()).unwrap()
}

/// The learned turn as tokens: what training renders after what completion renders.
fn answer_ids(harmony: &Harmony, sample: &Sample) -> Vec<u32> {
    let options = RenderOptions::default();
    let whole = harmony.render_for_training(&sample.conversation, &options).unwrap();
    let prompt = harmony.render_for_completion(&sample.question(), &options).unwrap();
    assert!(whole.starts_with(&prompt), "{}: the prompt is not the beginning", sample.key);
    whole[prompt.len()..].to_vec()
}

fn parsed(harmony: &Harmony, ids: &[u32]) -> Vec<ParsedMessage> {
    let mut parser = harmony.completion_parser();
    let mut events: Vec<Event> = ids.iter().flat_map(|&id| parser.push(id)).collect();
    events.extend(parser.finish());
    let message = |event| if let Event::End(message) = event { Some(message) } else { None };
    events.into_iter().filter_map(message).collect()
}

fn text(harmony: &Harmony, conversation: &Conversation) -> String {
    let ids = harmony.render_for_training(conversation, &RenderOptions::default()).unwrap();
    String::from_utf8(harmony.tokenizer().decode(&ids)).unwrap()
}

#[test]
fn answers_parse_back_and_grade_correct() {
    let harmony = harmony();
    for family in Family::ALL {
        for index in 0..60 {
            let sample = sample(family, if index % 2 == 0 { Split::Train } else { Split::HeldOut }, 1, index);
            let ids = answer_ids(&harmony, &sample);
            let grade = grade(&sample.expected, &parsed(&harmony, &ids));
            assert!(
                grade.correct && grade.valid,
                "{}: {grade:?}\n{}",
                family.name(),
                text(&harmony, &sample.conversation)
            );
            let cut = super::grade(&sample.expected, &parsed(&harmony, &ids[..ids.len() - 1]));
            assert!(!cut.valid, "{}: an answer without its end is not whole", family.name());
        }
    }
}

#[test]
fn wrong_answers_are_told_from_broken_ones() {
    let harmony = harmony();
    let [addition, call] = [Family::Addition, Family::ToolCall].map(|family| {
        (0..)
            .map(|i| sample(family, Split::HeldOut, 3, i))
            .find(|s| family == Family::Addition || matches!(s.expected, Expected::Call { .. }))
    });
    let (addition, call) = (addition.unwrap(), call.unwrap());
    let says = parsed(&harmony, &answer_ids(&harmony, &addition));
    let calls = parsed(&harmony, &answer_ids(&harmony, &call));
    let wrong = grade(&Expected::Final("no number".into()), &says);
    assert_eq!((wrong.correct, wrong.valid), (false, true));
    assert_eq!(Expected::Final(wrong.said), addition.expected);
    assert_eq!((grade(&call.expected, &says).correct, grade(&addition.expected, &calls).correct), (false, false));
    let Expected::Call { name, arguments } = call.expected else { panic!() };
    let other = Expected::Call { name: name.clone(), arguments: json!({"city": "nowhere"}) };
    assert_eq!((grade(&other, &calls).correct, grade(&other, &calls).valid), (false, true));
    assert_eq!(grade(&other, &calls).said, format!("{name} {arguments}"));
    let mut broken = calls.clone();
    broken.last_mut().unwrap().text.pop();
    let broken = grade(&Expected::Call { name, arguments }, &broken);
    assert_eq!((broken.correct, broken.valid), (false, false));
    assert_eq!(grade(&addition.expected, &[]).said, "");
}

#[test]
fn training_and_held_out_share_no_key() {
    for family in Family::ALL {
        let held = held_out(family, None, 5, 500);
        assert_eq!(held.len(), 500, "{}: too few different held-out samples", family.name());
        let held: HashSet<&str> = held.iter().map(|s| s.key.as_str()).collect();
        assert_eq!(held.len(), 500);
        assert!(held.iter().all(|key| split_of(key) == Split::HeldOut));
        for index in 0..3000 {
            let key = sample(family, Split::Train, 6, index).key;
            assert!(!held.contains(key.as_str()) && split_of(&key) == Split::Train, "{key}");
        }
    }
}

#[test]
fn samples_depend_on_their_place_only() {
    for family in Family::ALL {
        assert_eq!(sample(family, Split::Train, 1, 2), sample(family, Split::Train, 1, 2));
        assert_ne!(sample(family, Split::Train, 1, 2), sample(family, Split::Train, 1, 3));
        assert_ne!(sample(family, Split::Train, 1, 2), sample(family, Split::Train, 2, 2));
        let efforts = [Effort::Low, Effort::Medium, Effort::High];
        let [low, medium, high] = efforts.map(|effort| sample_with_effort(family, Split::HeldOut, effort, 1, 2));
        assert_eq!(low.key, high.key);
        let turn = |s: &Sample| s.conversation.messages.len() - s.prompt;
        assert_eq!((turn(&low), turn(&medium), turn(&high)), (1, 2, 2), "{}", family.name());
        let thought = |s: &Sample| s.conversation.messages[s.prompt].content_text();
        assert!(thought(&high).starts_with(&thought(&medium)));
        assert!(thought(&high).len() > thought(&medium).len());
    }
}

#[test]
fn families_come_in_their_shares() {
    assert_eq!(Family::ALL.map(Family::share).iter().sum::<u32>(), 100);
    let samples: Vec<Sample> = (0..4000).map(|index| training_sample(9, index)).collect();
    for family in Family::ALL {
        assert_eq!(Family::from_name(family.name()), Some(family));
        let percent = 100 * samples.iter().filter(|s| s.family == family).count() / samples.len();
        assert!(percent.abs_diff(family.share() as usize) <= 2, "{}: {percent} %", family.name());
    }
    let low = samples.iter().filter(|s| s.effort == Effort::Low).count();
    assert!((500..650).contains(&low), "{low} of 4000 at low effort");
}

#[test]
fn what_was_thought_in_a_finished_turn_is_not_shown() {
    let harmony = harmony();
    let sample = sample_with_effort(Family::Dialogue, Split::Train, Effort::High, 1, 1);
    let analyses = |text: String| text.matches("<|channel|>analysis").count();
    assert_eq!(analyses(text(&harmony, &sample.conversation)), 1);
    let users = sample.conversation.messages.iter().filter(|m| m.author.role == Role::User).count();
    assert_eq!(users, 2);
}

#[test]
fn conversations_are_short() {
    let harmony = harmony();
    for index in 0..1500 {
        let sample = training_sample(4, index);
        let text = text(&harmony, &Conversation::from(sample.conversation.messages[1..].to_vec()));
        assert!(text.len() < 1500, "{} bytes:\n{text}", text.len());
    }
}
