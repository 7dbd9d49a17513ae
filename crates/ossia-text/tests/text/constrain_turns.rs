//! Constrained turns as a whole: which headers may come, what ends a turn, and that harmony's parser reads back what
//! was drawn.

use crate::common::sampler::Sampler;
use crate::common::{Rng, constrainer, encode_with_specials, feed, harmony, messages, nano, nano_constrainer};
use ossia_text::constrain::{AnswerRules, Choice, ConstrainError, Format, Place, ToolInput, ToolRule};
use ossia_text::harmony::{Arguments, MessageEnd, MessageKind};
use ossia_text::{Harmony, ParsedMessage};
use serde_json::json;

fn tools() -> Vec<ToolRule> {
    let schema = json!({
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 14}},
        "required": ["city", "days"],
        "additionalProperties": false,
    });
    vec![
        ToolRule::function("get_weather", Some(schema), true),
        ToolRule::function("get_weather_now", None, false),
        ToolRule { name: "patch".into(), input: ToolInput::Free },
        ToolRule { name: "colour".into(), input: ToolInput::Regex("#[0-9a-f]{6}".into()) },
        ToolRule {
            name: "sum".into(),
            input: ToolInput::Lark("start: NUMBER (\"+\" NUMBER)*\nNUMBER: /[0-9]{1,3}/".into()),
        },
    ]
}

fn rules(choice: Choice) -> AnswerRules {
    AnswerRules { tools: tools(), choice, ..AnswerRules::default() }
}

/// Feeds a turn, given as text with special tokens: how many tokens were accepted, and whether the turn is finished.
fn try_turn(rules: &AnswerRules, text: &str) -> (bool, bool) {
    let mut matcher = constrainer().compile(rules).unwrap();
    let mut mask = vec![0u32; harmony().tokenizer().vocab_size().div_ceil(32)];
    for id in encode_with_specials(harmony().tokenizer(), text) {
        mask.fill(u32::MAX);
        let masked = matcher.mask(&mut mask).is_ok() && mask[id as usize / 32] >> (id % 32) & 1 == 1;
        let accepted = matcher.accept(id).is_ok();
        assert_eq!(masked, accepted, "mask and accept differ in {text:?} at {id}");
        if !accepted {
            return (false, matcher.is_finished());
        }
    }
    (true, matcher.is_finished())
}

fn is_whole(rules: &AnswerRules, text: &str) -> bool {
    try_turn(rules, text) == (true, true)
}

const THOUGHT: &str = "<|channel|>analysis<|message|>Hm, {\"a\": 1} …<|end|><|start|>assistant";
const ANSWER: &str = "<|channel|>final<|message|>It is 20 °C.\n\n✓<|return|>";
const CALL: &str =
    "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\":\"Oslo\",\"days\":3}<|call|>";

#[test]
fn turns_as_models_write_them_are_allowed() {
    let auto = rules(Choice::Auto);
    for call in [
        CALL,
        " to=functions.get_weather<|channel|>commentary <|constrain|>json<|message|>{\"city\": \"Oslo\", \"days\": 3}<|call|>",
        "<|channel|>commentary to=functions.get_weather json<|message|>{\n  \"city\": \"Oslo\",\n  \"days\": 14\n}<|call|>",
        "<|channel|>commentary to=functions.get_weather_now<|message|>{\"x\":[1.5e3,{}],\"y\":null}<|call|>",
        "<|channel|>commentary to=functions.get_weather_now <|constrain|>json<|message|>{}<|call|>",
        "<|channel|>commentary to=functions.patch code<|message|>*** Begin\n-a\n+b<|call|>",
        "<|channel|>commentary to=functions.patch<|message|><|call|>",
        "<|channel|>commentary to=functions.colour<|message|>#00ff7f<|call|>",
        "<|channel|>commentary to=functions.sum<|message|>1+22+333<|call|>",
    ] {
        assert!(is_whole(&auto, call), "{call}");
        assert!(is_whole(&auto, &[THOUGHT, call].concat()), "{call}");
        let preamble = "<|channel|>commentary<|message|>Let me look.<|end|><|start|>assistant";
        assert!(is_whole(&auto, &[THOUGHT, preamble, THOUGHT, call].concat()), "{call}");
        assert!(is_whole(&rules(Choice::Required), &[THOUGHT, call].concat()), "{call}");
        assert!(!try_turn(&rules(Choice::None), call).0, "{call}");
    }
    assert!(is_whole(&auto, ANSWER) && is_whole(&rules(Choice::None), &[THOUGHT, ANSWER].concat()));
}

#[test]
fn what_the_rules_exclude_is_refused() {
    let auto = rules(Choice::Auto);
    for text in [
        "<|channel|>commentary to=functions.get_wether <|constrain|>json<|message|>",
        "<|channel|>commentary to=functions.get_weather<|message|>{\"city\":\"Oslo\",\"days\":15",
        "<|channel|>commentary to=functions.get_weather<|message|>{\"town\"",
        "<|channel|>commentary to=functions.get_weather<|message|>{\"city\":\"Oslo\"}",
        "<|channel|>commentary to=functions.get_weather<|message|>[",
        "<|channel|>commentary to=functions.get_weather_now<|message|>[",
        "<|channel|>commentary to=functions.get_weather_now<|message|>{\"a\":1}<|return|>",
        "<|channel|>commentary to=functions.get_weather_now<|message|>{\"a\":<|call|>",
        "<|channel|>commentary to=functions.colour<|message|>#00ff7g",
        "<|channel|>commentary to=functions.colour<|message|>#00ff<|call|>",
        "<|channel|>commentary to=functions.sum<|message|>1+<|call|>",
        "<|channel|>commentary to=browser.search<|message|>",
        "<|channel|>analysis<|message|>x<|return|>",
        "<|channel|>final<|message|>x<|end|>",
        "<|channel|>final<|message|>x<|channel|>",
        "<|channel|>final<|message|>x<|endoftext|>",
        "<|channel|>other",
        "<|end|>",
        "Hello",
    ] {
        assert!(!try_turn(&auto, text).0, "{text}");
    }
    assert!(!try_turn(&rules(Choice::Required), "<|channel|>final").0);
    let plain = AnswerRules::default();
    assert!(is_whole(&plain, &[THOUGHT, ANSWER].concat()));
    assert!(!try_turn(&plain, "<|channel|>commentary").0, "no tools, no commentary");
    let quick = AnswerRules { thinking: false, ..AnswerRules::default() };
    assert!(is_whole(&quick, ANSWER) && !try_turn(&quick, "<|channel|>analysis").0);
}

#[test]
fn formats_hold_for_the_final_message_only() {
    let object = AnswerRules { format: Format::JsonObject, ..rules(Choice::Auto) };
    let answer = "<|channel|>final<|message|>{\"a\":[true]}<|return|>";
    assert!(is_whole(&object, &[THOUGHT, answer].concat()) && is_whole(&object, CALL));
    assert!(is_whole(&object, "<|channel|>final <|constrain|>json<|message|>{}<|return|>"));
    assert!(!try_turn(&object, "<|channel|>final<|message|>Hello").0);
    assert!(!try_turn(&AnswerRules::default(), "<|channel|>final <|constrain|>").0);
    let list = json!({"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2});
    let schema = AnswerRules { format: Format::JsonSchema(list), ..AnswerRules::default() };
    assert!(is_whole(&schema, "<|channel|>final<|message|>[\"a\", \"b\"]<|return|>"));
    assert!(!try_turn(&schema, "<|channel|>final<|message|>[\"a\",\"b\",").0);
    assert!(!try_turn(&schema, "<|channel|>final<|message|>[\"c").0);
}

#[test]
fn a_second_call_follows_only_where_calls_are_parallel() {
    let two = [CALL, "<|start|>assistant", CALL].concat();
    assert!(is_whole(&AnswerRules { parallel: true, ..rules(Choice::Auto) }, &two));
    assert!(!is_whole(&rules(Choice::Auto), &two));
    let mut matcher = constrainer().compile(&rules(Choice::Auto)).unwrap();
    encode_with_specials(harmony().tokenizer(), CALL).into_iter().for_each(|id| matcher.accept(id).unwrap());
    assert_eq!(matcher.mask(&mut [u32::MAX]), Err(ConstrainError::Ended));
    assert_eq!(matcher.accept(1), Err(ConstrainError::Ended));
}

#[test]
fn a_model_that_thinks_in_circles_is_led_to_an_end() {
    let mut matcher = constrainer().compile(&rules(Choice::Auto)).unwrap();
    let sampler = Sampler::new(harmony());
    let analysis = harmony().tokenizer().encode_text("analysis").unwrap()[0];
    let thought = encode_with_specials(harmony().tokenizer(), THOUGHT);
    for _ in 0..32 {
        thought.iter().for_each(|&id| matcher.accept(id).unwrap());
    }
    matcher.accept(thought[0]).unwrap();
    assert!(!sampler.allowed(&mut matcher).contains(&analysis));
}

#[test]
fn any_cutting_into_tokens_is_right() {
    let tokenizer = harmony().tokenizer();
    let mut matcher = constrainer().compile(&rules(Choice::Auto)).unwrap();
    for part in [
        "<|channel|>",
        "comm",
        "ent",
        "ary",
        " ",
        "to",
        "=",
        "func",
        "tions.",
        "get",
        "_",
        "weather",
        "<|message|>",
        "{",
    ] {
        let ids = tokenizer.special_id(part).map_or_else(|| tokenizer.encode_text(part).unwrap(), |id| vec![id]);
        ids.into_iter().for_each(|id| matcher.accept(id).unwrap());
    }
}

/// What a turn must be: messages without anomalies, of which only the last ends the turn.
fn check_messages(harmony: &Harmony, rules: &AnswerRules, ids: &[u32]) -> Vec<ParsedMessage> {
    let mut parser = harmony.completion_parser();
    let found = messages(feed(&mut parser, ids));
    assert_eq!(parser.trailing(), "");
    for (i, message) in found.iter().enumerate() {
        assert!(message.anomalies.is_empty(), "{message:?}");
        let wanted = match message.header.kind() {
            MessageKind::Thinking | MessageKind::Preamble => MessageEnd::End,
            MessageKind::Answer => MessageEnd::Return,
            MessageKind::ToolCall => MessageEnd::Call,
            MessageKind::NotAssistant => panic!("{message:?}"),
        };
        assert_eq!(message.end, wanted);
        assert_eq!(wanted != MessageEnd::End, i + 1 == found.len(), "{found:?}");
        if let Some(call) = message.tool_call() {
            let tool = rules.tools.iter().find(|tool| tool.recipient() == call.recipient).expect("a declared tool");
            let is_json = matches!(tool.input, ToolInput::JsonObject | ToolInput::Schema(_));
            assert!(!is_json || matches!(call.arguments, Arguments::Json(_)), "{message:?}");
        }
    }
    found
}

#[test]
fn drawn_turns_are_read_back_by_the_parser() {
    for (harmony, constrainer, num_turns) in [(harmony(), constrainer(), 40), (nano(), nano_constrainer(), 400)] {
        let (sampler, mut rng) = (Sampler::new(harmony), Rng(7));
        let mut num_calls = [0; 2];
        for i in 0..num_turns {
            let choice = [Choice::Auto, Choice::Required, Choice::None][i % 3];
            let format = [Format::Text, Format::JsonObject][i / 3 % 2].clone();
            let rules = AnswerRules { format, ..rules(choice) };
            let ids = sampler.turn(&mut constrainer.compile(&rules).unwrap(), &mut rng);
            let found = check_messages(harmony, &rules, &ids);
            let last = found.last().unwrap();
            let called = last.header.kind() == MessageKind::ToolCall;
            assert!(match choice {
                Choice::None => !called,
                Choice::Required => called,
                Choice::Auto => true,
            });
            num_calls[usize::from(called)] += 1;
            let is_object = || serde_json::from_str::<serde_json::Value>(&last.text).unwrap().is_object();
            assert!(called || rules.format == Format::Text || is_object(), "{}", last.text);
        }
        assert!(num_calls.iter().all(|num| *num > num_turns / 10), "{num_calls:?}");
    }
}

#[test]
fn special_and_reserved_tokens_never_come_up_in_contents() {
    let rules = AnswerRules { format: Format::JsonObject, ..rules(Choice::Auto) };
    let tokenizer = harmony().tokenizer();
    let sampler = Sampler::new(harmony());
    for (begin, end) in [
        ("<|channel|>analysis<|message|>", "<|end|>"),
        ("<|channel|>final<|message|>{\"a\":\"", ""),
        ("<|channel|>final<|message|>{}", "<|return|>"),
        ("<|channel|>commentary to=functions.patch<|message|>x", "<|call|>"),
    ] {
        let mut matcher = constrainer().compile(&rules).unwrap();
        encode_with_specials(tokenizer, begin).into_iter().for_each(|id| matcher.accept(id).unwrap());
        let special: Vec<u32> =
            sampler.allowed(&mut matcher).into_iter().filter(|id| tokenizer.is_special(*id)).collect();
        assert_eq!(special, tokenizer.special_id(end).into_iter().collect::<Vec<_>>(), "{begin}");
    }
}

#[test]
fn masks_of_any_width_are_cut_to_the_vocabulary() {
    let mut matcher = nano_constrainer().compile(&AnswerRules::default()).unwrap();
    let mut wide = vec![u32::MAX; 100];
    matcher.mask(&mut wide).unwrap();
    let channel = nano().tokenizer().special_id("<|channel|>").unwrap();
    let set: Vec<u32> = (0..3200).filter(|id| wide[*id as usize / 32] >> (id % 32) & 1 == 1).collect();
    assert_eq!(set, [channel]);
    let mut cleared = vec![0; 100];
    matcher.mask(&mut cleared).unwrap();
    assert!(cleared.iter().all(|word| *word == 0), "what others forbid stays forbidden");
    matcher.mask(&mut []).unwrap();
}

#[test]
fn tools_that_cannot_be_called_are_refused_by_name() {
    let tool = |name: &str| ToolRule { name: name.into(), input: ToolInput::JsonObject };
    for names in [&["a b"][..], &[""], &["a<|message|>"], &["é"], &["x", "x"], &["x", "functions.x"]] {
        let tools: Vec<ToolRule> = names.iter().map(|name| tool(name)).collect();
        let found = constrainer().compile(&AnswerRules { tools, ..AnswerRules::default() });
        let Err(ConstrainError::Tools { place: Place::Tool { index, name }, .. }) = found else { panic!("{names:?}") };
        assert_eq!((index, name.as_str()), (names.len() - 1, *names.last().unwrap()));
    }
    let none = AnswerRules { choice: Choice::Required, ..AnswerRules::default() };
    assert!(matches!(constrainer().compile(&none), Err(ConstrainError::Tools { place: Place::Rules, .. })));
    let browser = AnswerRules { tools: vec![tool("browser.search")], ..AnswerRules::default() };
    assert!(is_whole(&browser, "<|channel|>commentary to=browser.search<|message|>{}<|call|>"));
}
