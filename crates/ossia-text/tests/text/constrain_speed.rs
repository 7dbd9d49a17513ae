//! Prints what constraints cost for each token with o200k's 201,088 ids. Run alone, with `--ignored --nocapture`.

use std::time::{Duration, Instant};

use crate::common::schemas::random_schema;
use crate::common::{Rng, constrainer, encode_with_specials, harmony};
use ossia_text::constrain::{AnswerRules, Choice, ConstrainError, Format, ToolRule};
use serde_json::{Value, json};

struct Times {
    mask: Vec<Duration>,
    accept: Duration,
    compile: Duration,
}

/// Follows a given turn.
fn follow(rules: &AnswerRules, ids: &[u32]) -> Result<Times, ConstrainError> {
    let start = Instant::now();
    let mut matcher = constrainer().compile(rules)?;
    let mut times = Times { mask: Vec::new(), accept: Duration::ZERO, compile: start.elapsed() };
    let mut words = vec![0u32; harmony().tokenizer().vocab_size().div_ceil(32)];
    for &id in ids {
        words.fill(u32::MAX);
        let start = Instant::now();
        matcher.mask(&mut words)?;
        times.mask.push(start.elapsed());
        let start = Instant::now();
        matcher.accept(id)?;
        times.accept += start.elapsed();
    }
    Ok(times)
}

fn print(name: &str, times: &mut [Times]) {
    let mut mask: Vec<Duration> = times.iter().flat_map(|times| times.mask.iter().copied()).collect();
    mask.sort();
    let num = mask.len().max(1) as u32;
    let us = |d: Duration| d.as_secs_f64() * 1e6;
    let accept: Duration = times.iter().map(|times| times.accept).sum();
    let compile = times.iter().map(|times| times.compile).max().unwrap_or_default();
    println!(
        "{name:32} {num:6} masks: mean {:7.1} µs, 99 % {:7.1}, most {:8.1}; accept {:6.1} µs; compiled in {:5.1} ms",
        us(mask.iter().sum::<Duration>() / num),
        us(mask[mask.len() * 99 / 100]),
        us(*mask.last().unwrap()),
        us(accept / num),
        compile.as_secs_f64() * 1e3,
    );
}

fn ids(text: &str) -> Vec<u32> {
    encode_with_specials(harmony().tokenizer(), text)
}

#[test]
#[ignore = "prints times; run alone"]
fn time_of_masks() {
    let prose = "The quick brown fox, 42 of them — jumped over \"lazy\" dogs.\n".repeat(20);
    let escaped = prose.replace('\n', "\\n").replace('"', "\\\"");
    let text = format!(
        "<|channel|>analysis<|message|>{prose}<|end|><|start|>assistant<|channel|>final<|message|>{prose}<|return|>"
    );
    print("free text", &mut [follow(&AnswerRules::default(), &ids(&text)).unwrap()]);
    let object = AnswerRules { format: Format::JsonObject, ..AnswerRules::default() };
    let text =
        format!("<|channel|>final<|message|>{{\"text\": \"{escaped}\", \"list\": [1, 2.5, true, null]}}<|return|>");
    print("any object", &mut [follow(&object, &ids(&text)).unwrap()]);
    let schema = json!({"type": "object", "properties": {"city": {"type": "string", "maxLength": 5000}, "unit": {"enum": ["c", "f"]},
        "days": {"type": "integer", "minimum": 1}, "tags": {"type": "array", "items": {"type": "string"}}},
        "required": ["city", "unit", "days", "tags"], "additionalProperties": false});
    let tools: Vec<ToolRule> =
        (0..50).map(|i| ToolRule::function(format!("tool_{i}"), Some(schema.clone()), true)).collect();
    let strict = AnswerRules { tools, choice: Choice::Required, ..AnswerRules::default() };
    let text = format!(
        "<|channel|>commentary to=functions.tool_17 <|constrain|>json<|message|>{{\"city\":\"{escaped}\",\"unit\":\"c\",\"days\":12,\"tags\":[\"{escaped}\",\"b\"]}}<|call|>"
    );
    print("strict arguments, 50 tools", &mut [follow(&strict, &ids(&text)).unwrap()]);
}

#[test]
#[ignore = "prints times; run alone"]
fn time_of_compiling_many_tools() {
    let mut rng = Rng(3);
    let random = std::iter::repeat_with(|| random_schema(&mut rng)).filter(|schema| schema.get("$defs").is_none());
    let objects = random.map(|schema| json!({"type": "object", "properties": {"input": schema}}));
    let tool = |(i, schema)| ToolRule::function(format!("tool_{i}"), Some(schema), true);
    let tools: Vec<ToolRule> = objects.take(128).enumerate().map(tool).collect();
    let rules = AnswerRules { tools, ..AnswerRules::default() };
    constrainer();
    for _ in 0..2 {
        let start = Instant::now();
        let bytes = constrainer().compile(&rules).map(|_| constrainer().cached_bytes());
        println!("128 strict tools compiled in {:?}, cached bytes {bytes:?}", start.elapsed());
    }
}

#[test]
#[ignore = "prints times; run alone"]
fn time_of_random_schemas() {
    let (mut rng, mut times) = (Rng(11), Vec::new());
    let sampler = crate::common::sampler::Sampler::new(harmony());
    for _ in 0..150 {
        let format = Format::JsonSchema(random_schema(&mut rng));
        let rules = AnswerRules { format, thinking: false, ..AnswerRules::default() };
        let drawn = sampler.turn(&mut constrainer().compile(&rules).unwrap(), &mut rng);
        times.push(follow(&rules, &drawn).unwrap());
    }
    print("random schemas", &mut times);
}

#[test]
#[ignore = "prints times; run alone"]
fn time_of_hard_schemas() {
    let pattern = |text: &str| json!({"type": "string", "pattern": text});
    let words: Vec<String> = (0..5_000).map(|i| format!("{:x}{i:020}", i * 7919)).collect();
    let hard: [(&str, Value, String); 6] = [
        ("very far back", pattern("(a|b).{300}$"), "\"abababab bab a bab ab a bab".to_owned()),
        ("counted thrice", pattern("^((a{1,50}){1,50}){1,50}$"), "\"aaaaaaaaaaaaaaaaaaaaaaaa\"<|return|>".to_owned()),
        ("5,000 values", json!({"enum": words}), format!("\"{}\"<|return|>", words[7])),
        ("letters", pattern("^\\p{L}{1,2000}$"), format!("\"{}\"<|return|>", "abcdefgh".repeat(100))),
        (
            "long string",
            json!({"type": "string", "maxLength": 2_048}),
            format!("\"{}\"<|return|>", "abc defgh, ".repeat(186)),
        ),
        (
            "400 optional",
            json!({"type": "object", "properties": (0..400).map(|i| (format!("p{i}"), json!({"type": "integer"}))).collect::<serde_json::Map<_, _>>()}),
            "{\"p3\": 1, \"p77\": 2, \"p399\": 3}<|return|>".to_owned(),
        ),
    ];
    for (name, schema, text) in hard {
        let rules = AnswerRules { format: Format::JsonSchema(schema), thinking: false, ..AnswerRules::default() };
        match follow(&rules, &ids(&format!("<|channel|>final<|message|>{text}"))) {
            Ok(times) => print(name, &mut [times]),
            Err(error) => println!("{name:32} {error}"),
        }
    }
}
