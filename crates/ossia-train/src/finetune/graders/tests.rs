//! Graders as they are described, given, and broken.

use ossia_text::harmony::{COMMENTARY, FINAL, Message};
use ossia_text::{Harmony, RenderOptions};
use serde_json::{Value, json};

use super::*;

fn grader(description: Value) -> Grader {
    Grader::from_json(&description).unwrap()
}

fn error(description: Value) -> String {
    Grader::from_json(&description).unwrap_err().to_string()
}

fn value(grader: &Grader, item: &Value, text: &str) -> f64 {
    let score = grader.grade(item, &Sample::of_text(text));
    assert_eq!(score.problem, None);
    score.value
}

fn problem(grader: &Grader, item: &Value, text: &str) -> String {
    let score = grader.grade(item, &Sample::of_text(text));
    assert_eq!(score.value, 0.0);
    score.problem.unwrap()
}

fn string_check(operation: &str) -> Value {
    json!({"type": "string_check", "name": "n", "operation": operation,
        "input": "{{sample.output_text}}", "reference": "{{item.answer}}"})
}

#[test]
fn strings() {
    let item = json!({"answer": "Yes"});
    for (operation, text, wanted) in [
        ("eq", "Yes", 1.0),
        ("eq", "yes", 0.0),
        ("ne", "no", 1.0),
        ("ne", "Yes", 0.0),
        ("like", "Oh Yes!", 1.0),
        ("like", "oh yes!", 0.0),
        ("ilike", "oh yes!", 1.0),
        ("ilike", "no", 0.0),
    ] {
        assert_eq!(value(&grader(string_check(operation)), &item, text), wanted, "{operation} {text}");
    }
    assert!(error(string_check("is")).starts_with("grader.operation: wanted \"eq\", \"ne\""));
    let bad = grader(string_check("eq")).check(&json!({})).unwrap_err().to_string();
    assert_eq!(bad, "the item has no item.answer, which the grader's grader.reference takes");
}

#[test]
fn numbers_and_likeness() {
    let item = json!({"answer": 10});
    let numeric = |more: Value| {
        let mut description = json!({"type": "numeric", "reference": "{{item.answer}}"});
        description.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        description
    };
    assert_eq!(value(&grader(numeric(json!({}))), &item, "7 and 3 is 10."), 1.0);
    assert_eq!(value(&grader(numeric(json!({"tolerance": 0.5}))), &item, "10.5"), 1.0);
    assert_eq!(value(&grader(numeric(json!({"relative_tolerance": 0.01}))), &item, "10.2"), 0.0);
    assert_eq!(value(&grader(numeric(json!({"reference": 4}))), &item, "4"), 1.0);
    assert!(problem(&grader(numeric(json!({"take": "only"}))), &item, "is 10").contains("no number"));
    assert!(problem(&grader(numeric(json!({"reference": "x"}))), &item, "1").contains("\"x\" is not a number"));
    assert!(error(numeric(json!({"tolerance": -1}))).starts_with("grader.tolerance: wanted a number from 0"));
    assert!(error(numeric(json!({"tolerence": 1}))).contains("only the keys"));
    assert!(error(numeric(json!({"take": 3}))).starts_with("grader.take: wanted \"last\" or \"only\""));
    let alike = json!({"type": "text_similarity", "evaluation_metric": "fuzzy_match",
        "input": "{{sample.output_text}}", "reference": "{{item.answer}}"});
    assert_eq!(value(&grader(alike.clone()), &item, "10"), 1.0);
    let mut bleu = alike;
    bleu["evaluation_metric"] = json!("meteor");
    assert!(error(bleu).starts_with("grader.evaluation_metric: wanted \"fuzzy_match\""));
}

#[test]
fn json_answers() {
    let check = json!({"type": "json_check", "schema": {"type": "object", "required": ["name"]},
        "fields": {"name": "{{item.name}}", "n": "{{item.n}}", "list[1].x": true}});
    let item = json!({"name": "Ada", "n": 3});
    let right = r#" {"name": "Ada", "n": 3.0, "list": [0, {"x": true}], "more": null} "#;
    assert_eq!(value(&grader(check.clone()), &item, right), 1.0);
    let half = r#"{"name": "Bob", "n": "3"}"#;
    assert_eq!(value(&grader(check.clone()), &item, half), 0.0);
    let mut partial = check.clone();
    partial["partial"] = json!(true);
    assert!((value(&grader(partial), &item, half) - 1.0 / 3.0).abs() < 1e-12);
    assert!(problem(&grader(check.clone()), &item, "{").starts_with("the answer is not JSON"));
    assert!(problem(&grader(check.clone()), &item, "[]").starts_with("the answer does not follow"));
    assert!(problem(&grader(check.clone()), &json!({}), right).contains("item.name"));
    assert!(grader(check.clone()).check(&json!({"name": 1})).unwrap_err().to_string().contains("item.n"));
    for (key, bad) in [
        ("schema", json!({"pattern": "x"})),
        ("fields", json!([])),
        ("partial", json!(1)),
        ("fields", json!({"a..b": 1})),
    ] {
        let mut description = check.clone();
        description[key] = bad;
        assert!(error(description).starts_with(&format!("grader.{key}")));
    }
}

#[test]
fn several_with_a_formula() {
    let multi = json!({"type": "multi", "name": "all", "calculate_output": "0.75 * word + 0.25 * number",
        "graders": {"word": string_check("like"),
                    "number": {"type": "numeric", "reference": "{{item.n}}"}}});
    let item = json!({"answer": "sum", "n": 4});
    let score = grader(multi.clone()).grade(&item, &Sample::of_text("the sum is 5"));
    assert_eq!((score.value, score.problem), (0.75, None));
    assert_eq!(score.parts, [("word".to_owned(), 1.0), ("number".to_owned(), 0.0)]);
    let score = grader(multi.clone()).grade(&item, &Sample::of_text("the sum"));
    assert_eq!((score.value, score.problem.as_deref()), (0.75, Some("number: there is no number in the answer")));
    let change = |key: &str, value: Value| {
        let mut changed = multi.clone();
        changed[key] = value;
        changed
    };
    let wild = grader(change("calculate_output", json!("1 / (word - 1)"))).grade(&item, &Sample::of_text("sum 4"));
    assert_eq!((wild.value, wild.problem.as_deref()), (0.0, Some("the score is not finite")));
    assert!(error(change("calculate_output", json!("word + x"))).contains("there is no grader \"x\" (word, number)"));
    assert!(error(change("graders", json!({}))).starts_with("grader.graders: wanted at least one"));
    assert!(error(change("graders", json!({"max": 1}))).starts_with("grader.graders.max: wanted a name"));
    let inner = change("graders", json!({"word": {"type": "x"}}));
    assert!(error(inner).starts_with("grader.graders.word.type: wanted \"string_check\""));
    let mut deep = string_check("eq");
    for _ in 0..20 {
        deep = json!({"type": "multi", "graders": {"a": deep}, "calculate_output": "a"});
    }
    assert!(error(deep).contains("at most eight graders inside each other"));
    for (kind, wanted) in
        [("python", "\"command\" with"), ("score_model", "asks no other model"), ("", "\"string_check\"")]
    {
        assert!(error(json!({"type": kind})).contains(wanted));
    }
    assert!(error(json!(7)).starts_with("grader: wanted an object, found 7"));
}

#[test]
fn samples_are_read_from_a_turn() {
    let tokenizer = ossia_text::Tokenizer::from_json(&ossia_text::byte_level_tokenizer_json(300).unwrap()).unwrap();
    let harmony = Harmony::new(tokenizer.into()).unwrap();
    let sample = |message: Message| {
        let turn = vec![Message::assistant("analysis", "hm"), message].into();
        let tokens = harmony.render_for_training(&turn, &RenderOptions::default()).unwrap();
        let mut parser = harmony.parser();
        let mut events: Vec<ossia_text::Event> = tokens.iter().flat_map(|&token| parser.push(token)).collect();
        events.extend(parser.finish());
        let messages: Vec<ParsedMessage> = events
            .into_iter()
            .filter_map(|event| if let ossia_text::Event::End(message) = event { Some(message) } else { None })
            .collect();
        Sample::of(&messages)
    };
    let said = sample(Message::assistant(FINAL, "{\"a\": 1}"));
    assert_eq!(said, Sample::of_text("{\"a\": 1}"));
    assert_eq!(said.json, Some(json!({"a": 1})));
    let mut call = Message::assistant(COMMENTARY, "{\"x\": 2}");
    call.recipient = Some("functions.add".into());
    let called = sample(call);
    let tools = json!([{"type": "function", "function": {"name": "add", "arguments": "{\"x\": 2}"}}]);
    assert_eq!((called.text.as_str(), &called.tools), ("", &tools));
    let check = json!({"type": "json_check", "input": "{{sample.output_tools[0].function.arguments}}",
        "fields": {"x": "{{item.x}}"}});
    assert_eq!(grader(check).grade(&json!({"x": 2}), &called).value, 1.0);
    assert_eq!(Sample::of(&[]), Sample::of_text(""));
}

/// Whatever a model writes, grading gives a finite number.
#[test]
fn hostile_answers_are_worth_something_finite() {
    let multi = json!({"type": "multi", "calculate_output": "a + b / c ^ d", "graders": {
        "a": string_check("ilike"), "b": {"type": "numeric", "reference": "{{item.answer}}"},
        "c": {"type": "json_check", "schema": {"type": "object"}, "fields": {"answer": "{{sample.output_json.x[0]}}"}},
        "d": {"type": "text_similarity", "evaluation_metric": "gleu", "reference": "{{item.answer}}"}}});
    let grader = grader(multi);
    let item = json!({"answer": 1e308});
    let deep = "[".repeat(100_000);
    let pieces = ["", "{{item.answer}}", "1e999", "NaN", "\u{0}", "{\"x\": [1]}", "-", "\u{202e}", "<|end|>", &deep];
    for a in pieces {
        for b in pieces {
            let score = grader.grade(&item, &Sample::of_text(format!("{a}{b}")));
            assert!(score.value.is_finite());
        }
    }
}

#[cfg(unix)]
mod commands {
    use std::time::Instant;

    use super::*;

    fn shell(script: &str, more: Value) -> Grader {
        let mut description = json!({"type": "command", "command": ["sh", "-c", script], "seconds": 20});
        description.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        grader(description)
    }

    #[test]
    fn a_command_says_a_number() {
        let item = json!({"answer": "Yes"});
        for (script, wanted) in [
            ("echo 0.25", 0.25),
            ("echo thinking; echo; echo ' 1 '; echo", 1.0),
            ("echo '{\"score\": -2, \"why\": \"so\"}'", -2.0),
            // What it is given.
            ("grep -q '\"answer\":\"Yes\"' && echo 1 || echo 0", 1.0),
            ("grep -q '\"output_text\":\"Yes\"' && echo 1 || echo 0", 1.0),
        ] {
            assert_eq!(value(&shell(script, json!({})), &item, "Yes"), wanted, "{script}");
        }
        let large = "x".repeat(1 << 20);
        assert_eq!(value(&shell("echo 1", json!({})), &item, &large), 1.0, "it need not read");
        assert_eq!(value(&shell("wc -c | tr -d ' '", json!({})), &item, &large) as usize / (1 << 20), 1);
    }

    #[test]
    fn commands_that_fail_are_worth_nothing() {
        let item = json!({});
        for (script, wanted) in [
            ("echo 1; echo broken >&2; exit 3", "the command failed: broken"),
            ("echo one", "last line is no number and no {\"score\": number}: \"one\""),
            ("true", "last line is no number"),
            ("echo nan", "the score is not finite"),
            ("kill -9 $$", "the command failed"),
            ("exec no-such-program-at-all", "the command failed"),
            ("yes | head -c 1000000", "the command failed"),
        ] {
            let found = problem(&shell(script, json!({})), &item, "a");
            assert!(found.contains(wanted), "{script}: {found}");
        }
    }

    #[test]
    fn commands_are_held_by_their_limits() {
        let item = json!({});
        let start = Instant::now();
        let slow = shell("sleep 100 & sleep 100", json!({"seconds": 0.3}));
        assert_eq!(problem(&slow, &item, "a"), "the command took more than 0.3 s");
        assert!(start.elapsed().as_secs() < 20, "nothing is waited for that it has left");
        let left = shell("(sleep 100; echo 2) & echo 1", json!({}));
        let start = Instant::now();
        assert_eq!(value(&left, &item, "a"), 1.0);
        assert!(start.elapsed().as_secs() < 20, "a child in the background does not hold it");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("large");
        let script = format!("head -c 4000000 /dev/zero > {}; echo 1", file.display());
        let _ = shell(&script, json!({"file_mb": 1})).grade(&item, &Sample::of_text(""));
        assert!(std::fs::metadata(&file).is_ok_and(|file| file.len() <= 1 << 20), "files are bounded");
        let hungry = "a=x; while :; do a=$a$a; done";
        let found = problem(&shell(hungry, json!({"memory_mb": 64})), &item, "a");
        assert!(found.contains("the command failed"), "{found}");
    }

    #[test]
    fn no_secrets_and_where_possible_no_network() {
        let item = json!({});
        let home = shell("test -z \"$CARGO_MANIFEST_DIR\" && test -n \"$PATH\" && echo 1", json!({}));
        assert_eq!(value(&home, &item, ""), 1.0, "the environment is cleared");
        let isolation = home.isolation().unwrap();
        assert!(isolation.contains("20 s, 512 MB"), "{isolation}");
        let is_apart = isolation.contains("without a network");
        assert!(is_apart || isolation.contains("WITH the network"), "{isolation}");
        if is_apart {
            // Only the loopback device is there, and it is down.
            let devices = shell("tail -n +3 /proc/net/dev | grep -v ' *lo:' | wc -l | tr -d ' '", json!({}));
            assert_eq!(value(&devices, &item, ""), 0.0, "no device of the machine is seen");
        }
        let multi = json!({"type": "multi", "calculate_output": "a",
            "graders": {"a": {"type": "command", "command": ["true"]}}});
        assert!(grader(multi).isolation().is_some() && grader(string_check("eq")).isolation().is_none());
    }

    #[test]
    fn descriptions_that_are_wrong() {
        for (description, wanted) in [
            (json!({"type": "command"}), "grader.command: wanted a list of the program"),
            (json!({"type": "command", "command": "true"}), "grader.command: wanted a list"),
            (json!({"type": "command", "command": []}), "grader.command: wanted a list"),
            (json!({"type": "command", "command": ["a", 1]}), "grader.command: wanted a list"),
            (json!({"type": "command", "command": ["a\u{0}"]}), "grader.command: wanted a list"),
            (
                json!({"type": "command", "command": ["true"], "seconds": 0}),
                "grader.seconds: wanted a number from 0.01",
            ),
            (json!({"type": "command", "command": ["true"], "network": true}), "wanted only the keys"),
        ] {
            let found = error(description.clone());
            assert!(found.contains(wanted), "{description}: {found}");
        }
    }
}
