//! Hostile rules: each gives a matcher or one clear error, on a small stack, and a matcher that it gives works.

use std::fmt::Write;

use crate::common::sampler::Sampler;
use crate::common::{Rng, constrainer, harmony};
use ossia_text::constrain::{AnswerRules, Choice, ConstrainError, Constrainer, Format, Matcher, ToolInput, ToolRule};
use serde_json::{Map, Value, json};

fn nested(depth: usize) -> Value {
    (0..depth).fold(
        json!({"type": "string"}),
        |inner, _| json!({"type": "object", "properties": {"a": inner}, "required": ["a"]}),
    )
}

fn wide(num: usize, required: bool) -> Value {
    let name = |i| format!("property_{i}");
    let properties: Map<String, Value> = (0..num).map(|i| (name(i), json!({"type": "string"}))).collect();
    let names: Vec<String> = if required { (0..num).map(name).collect() } else { Vec::new() };
    json!({"type": "object", "properties": properties, "required": names, "additionalProperties": false})
}

fn product(num: usize) -> Value {
    let branches = |i| (0..8).map(|j| json!({"properties": {format!("p{i}"): {"const": j}}})).collect::<Vec<_>>();
    let all: Vec<Value> = (0..num).map(|i| json!({"anyOf": branches(i)})).collect();
    json!({"type": "object", "allOf": all})
}

fn chain(num: usize) -> Value {
    let next = |i: usize| json!({"anyOf": [{"$ref": format!("#/$defs/d{}", (i + 1) % num)}, {"type": "null"}]});
    let definitions: Map<String, Value> = (0..num).map(|i| (format!("d{i}"), next(i))).collect();
    json!({"$ref": "#/$defs/d0", "$defs": definitions})
}

fn schemas() -> Vec<(&'static str, Value)> {
    let words =
        |num: usize, length: usize| json!({"enum": (0..num).map(|i| format!("{i:0length$}")).collect::<Vec<_>>()});
    let pattern = |text: &str| json!({"type": "string", "pattern": text});
    let deep_value = (0..100).fold(json!(1), |inner, _| json!([inner]));
    vec![
        ("nested 60", nested(60)),
        ("nested 120", nested(120)),
        ("1,000 required", wide(1_000, true)),
        ("10,000 required", wide(10_000, true)),
        ("400 optional", wide(400, false)),
        ("10,000 optional", wide(10_000, false)),
        ("1,000 values", words(1_000, 12)),
        ("10,000 values", words(10_000, 20)),
        ("100,000 values", words(100_000, 6)),
        ("one value of 60,000 bytes", words(1, 60_000)),
        ("deep value", json!({"const": deep_value})),
        ("exponential", pattern("^(a+)+b$")),
        ("counted", pattern("^(a{1,100}){1,100}$")),
        ("counted thrice", pattern("^((a{1,50}){1,50}){1,50}$")),
        ("counted to a million", pattern("^.{1000000}$")),
        ("counted from a million", pattern("^.{0,1000000}$")),
        ("alternatives", pattern(&format!("^({})$", (0..800).map(|i| format!("w{i}")).collect::<Vec<_>>().join("|")))),
        ("far back", pattern("a.{12}$")),
        ("very far back", pattern("(a|b).{300}$")),
        ("groups", pattern(&("(".repeat(500) + "a" + &")".repeat(500)))),
        ("letters", pattern("^\\p{L}{1,200}$")),
        ("controls", pattern("^[\\x00-\\x1f]*$")),
        ("length", json!({"type": "string", "minLength": 2_000, "maxLength": 2_048})),
        (
            "items",
            json!({"type": "array", "items": {"type": "integer"}, "minItems": 3_000_000, "maxItems": 4_000_000_000u32}),
        ),
        ("items of any length", json!({"type": "array", "items": {}, "maxItems": 4_000_000_000u32})),
        ("product", product(3)),
        ("large product", product(12)),
        ("chain", chain(300)),
        ("itself twice", json!({"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}})),
        (
            "itself with others",
            json!({"type": "object", "properties": {"a": {"$ref": "#", "minLength": 1, "title": "t"}}}),
        ),
        ("numbers", json!({"type": "number", "minimum": -1e308, "maximum": 1.7e308, "multipleOf": 1e-300})),
        ("whole numbers", json!({"type": "integer", "minimum": i64::MIN, "maximum": u64::MAX})),
        ("the smallest constant", json!({"const": i64::MIN})),
        ("large constants", json!({"enum": [u64::MAX, i64::MAX, -1e308, [i64::MIN]]})),
        ("multiples", json!({"type": "integer", "multipleOf": 999_999_937})),
        ("options", json!({"x-guidance": {"whitespace_pattern": "((a*)*)*", "lenient": true}, "type": "object"})),
        ("odd keywords", json!({"properties": [], "items": 3, "type": {"a": 1}})),
        ("multibyte", json!({"const": 1, "enum": ["é".repeat(200)], "format": "é".repeat(200)})),
    ]
}

fn inputs() -> Vec<(&'static str, ToolInput)> {
    let mut rules = "start: r0\n".to_owned();
    let mut terminals = "start: T0\n".to_owned();
    for i in 0..900 {
        writeln!(rules, "r{i}: \"a\" r{} | \"b\"", i + 1).unwrap();
        writeln!(terminals, "T{i}: \"a\" T{}", i + 1).unwrap();
    }
    let (rules, terminals) = (rules + "r900: \"c\"\n", terminals + "T900: \"c\"\n");
    let groups = "start: ".to_owned() + &"(".repeat(5_000) + "\"a\"" + &")".repeat(5_000);
    let lark = |text: &str| ToolInput::Lark(text.to_owned());
    let regex = |text: &str| ToolInput::Regex(text.to_owned());
    vec![
        ("rules", lark(&rules)),
        ("terminals", lark(&terminals)),
        ("groups", lark(&groups)),
        ("circle", lark("start: a\na: b\nb: a")),
        ("left", lark("start: start \"a\" | \"b\"")),
        ("ambiguous", lark("start: e\ne: e e | \"a\" | e \"+\" e")),
        ("terminal circle", lark("start: A\nA: A \"x\"")),
        ("nothing", lark("start:")),
        ("no start", lark("x: \"a\"")),
        ("empty", lark("")),
        ("long", lark(&"x".repeat(100_000))),
        ("schema inside", lark("start: %json {\"type\": \"object\"}")),
        ("special inside", lark("start: <|end|>")),
        ("ids inside", lark("start: <[0-100]>")),
        ("options inside", lark("%llguidance {\"allow_invalid_utf8\": true}\nstart: /a/")),
        ("repeated", lark("start: (\"a\"{0,10000}){0,10000}")),
        ("import", lark("%import common.NUMBER\nstart: NUMBER")),
        ("slash", regex("a/\nstart2: \"b\"")),
        ("exponential", regex("(a+)+b")),
        ("counted", regex("(x{1,300}){1,300}")),
        ("groups", regex(&"(".repeat(3_000))),
        ("never", regex("[^\\s\\S]")),
        ("nothing", regex("")),
    ]
}

fn corpus() -> Vec<(String, AnswerRules)> {
    let schemas = schemas().into_iter().map(|(name, schema)| {
        let rules = AnswerRules { format: Format::JsonSchema(schema), thinking: false, ..AnswerRules::default() };
        (format!("schema: {name}"), rules)
    });
    let inputs = inputs().into_iter().map(|(name, input)| {
        let tools = vec![ToolRule { name: "f".into(), input }];
        let rules = AnswerRules { tools, choice: Choice::Required, thinking: false, ..AnswerRules::default() };
        (format!("input: {name}"), rules)
    });
    schemas.chain(inputs).collect()
}

/// Some tokens of a turn; an error on the way is allowed, a panic or a dead end is not.
fn draw_some(rules: &AnswerRules) -> Result<usize, ConstrainError> {
    let mut matcher = constrainer().compile(rules)?;
    let (sampler, mut rng) = (Sampler::new(harmony()), Rng(5));
    let mut num = 0;
    while num < 200 && !matcher.is_finished() {
        let token = sampler.try_pick(&mut matcher, &mut rng, num > 100)?;
        matcher.accept(token)?;
        num += 1;
    }
    Ok(num)
}

#[test]
fn hostile_rules_give_a_matcher_or_one_clear_error_on_a_small_stack() {
    let work = || {
        for (name, rules) in corpus() {
            match draw_some(&rules) {
                Ok(num) => println!("{name}: {num} tokens"),
                Err(error) => {
                    let text = error.to_string();
                    println!("{name}: {text}");
                    assert!(!text.contains('\n') && text.len() < 500, "{name}: {text}");
                    assert!(!text.contains(".rs") && !text.contains("panic"), "{name}: {text}");
                }
            }
        }
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap().join().unwrap();
    assert!(constrainer().cached_bytes() <= 64 << 20);
}

#[test]
fn a_value_of_any_depth_is_walked_no_deeper_than_the_limit() {
    let deep = (0..2_000).fold(json!({"type": "string"}), |inner, _| json!({"type": "array", "items": inner}));
    let rules = AnswerRules { format: Format::JsonSchema(deep), ..AnswerRules::default() };
    let found = constrainer().compile(&rules);
    assert!(matches!(found, Err(ConstrainError::TooComplex { .. })), "{found:?}");
}

#[test]
fn a_generation_that_fails_leaves_others_alone() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]});
    let rules = AnswerRules { format: Format::JsonSchema(schema), thinking: false, ..AnswerRules::default() };
    let mut broken = constrainer().compile(&rules).unwrap();
    assert_eq!(broken.accept(1), Err(ConstrainError::Token(1)));
    assert_eq!(broken.accept(u32::MAX), Err(ConstrainError::Token(u32::MAX)));
    let sampler = Sampler::new(harmony());
    sampler.turn(&mut broken, &mut Rng(1));
    sampler.turn(&mut constrainer().compile(&rules).unwrap(), &mut Rng(2));
}

#[test]
fn the_cache_keeps_to_its_bytes_and_serves_what_it_keeps() {
    let max_bytes = 1 << 20;
    let constrainer = Constrainer::with_cache_bytes(crate::common::nano(), max_bytes).unwrap();
    let compile = |i: usize| {
        let schema = json!({"type": "object", "properties": {format!("p{i}"): {"type": "string"}}, "required": [format!("p{i}")]});
        constrainer.compile(&AnswerRules { format: Format::JsonSchema(schema), ..AnswerRules::default() }).unwrap()
    };
    compile(0);
    let one = constrainer.cached_bytes();
    compile(0);
    assert!(one > 0 && constrainer.cached_bytes() == one, "known rules take no more");
    for i in 0..100 {
        compile(i);
        assert!(constrainer.cached_bytes() <= max_bytes);
    }
    assert!(constrainer.clone().cached_bytes() > max_bytes / 2, "clones share it");
    let tiny = Constrainer::with_cache_bytes(crate::common::nano(), 10).unwrap();
    tiny.compile(&AnswerRules { format: Format::JsonObject, ..AnswerRules::default() }).unwrap();
    assert_eq!(tiny.cached_bytes(), 0);
}

#[test]
fn matchers_go_to_other_threads() {
    fn is_send<T: Send>() {}
    fn is_shared<T: Send + Sync + Clone>() {}
    is_send::<Matcher>();
    is_shared::<Constrainer>();
}

#[test]
#[ignore = "prints times; run alone"]
fn time_of_compiling_hostile_rules() {
    for (name, rules) in corpus() {
        let fresh = Constrainer::new(harmony()).unwrap();
        let start = std::time::Instant::now();
        let found = fresh.compile(&rules).map(|_| ());
        println!(
            "{:7.1} ms {:8} kB  {name}: {found:?}",
            start.elapsed().as_secs_f64() * 1e3,
            fresh.cached_bytes() >> 10
        );
    }
}
