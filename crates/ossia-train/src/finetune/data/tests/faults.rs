//! Every fault that users' files have: an error with file and line that says what to do, or a counted skip.

use serde_json::{Value, json};

use super::super::*;
use super::support::{Files, settings};

/// A good example.
const GOOD: &str = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#;

fn skip() -> DataSettings {
    DataSettings { on_bad: OnBad::Skip, ..settings() }
}

/// An example of these messages.
fn messages(messages: Value) -> String {
    json!({ "messages": messages }).to_string()
}

/// A conversation in which the assistant says this.
fn assistant(message: Value) -> String {
    messages(json!([{"role": "user", "content": "q"}, message]))
}

/// Examples that cannot be used, and what is said of them.
fn bad_examples() -> Vec<(String, &'static str)> {
    [bad_lines(), bad_answers(), bad_forms()].concat()
}

/// Lines and messages.
fn bad_lines() -> Vec<(String, &'static str)> {
    let user = json!({"role": "user", "content": "q"});
    let answer = json!({"role": "assistant", "content": "a"});
    let cut = &GOOD[..GOOD.len() - 20];
    vec![
        (cut.to_owned(), "is not JSON (EOF while parsing"),
        ("{'messages': []}".into(), "is not JSON (key must be a string"),
        ("hello".into(), "is not JSON (expected value"),
        ("7".into(), "wanted a JSON object, an example a line"),
        ("[1, 2]".into(), "wanted a JSON object"),
        (format!("{GOOD} {GOOD}"), "is not JSON (trailing characters"),
        ("[".repeat(5000), "is not JSON (recursion limit exceeded"),
        (
            r#"{"messages": [{"role": "user", "content": "\ud800"}]}"#.into(),
            "is not JSON (unexpected end of hex escape",
        ),
        (json!({"text": "a"}).to_string(), "found the keys text"),
        (messages(json!([])), "messages: wanted at least one message, found none"),
        (messages(json!("q")), "messages: wanted a list, found \"q\""),
        (messages(json!([7])), "messages[0]: wanted an object, found 7"),
        (messages(json!([{"content": "q"}])), "messages[0].role: wanted a text, found nothing"),
        (messages(json!([{"role": "bot", "content": "q"}])), "messages[0].role: wanted \"system\""),
        (
            messages(json!([user, {"role": "function", "content": "q"}])),
            "messages[1].role: \"function\" is the older form",
        ),
        (messages(json!([user])), "the last message is not the assistant's"),
        (messages(json!([{"role": "user", "content": ""}, answer])), "messages[0]: the user's message is empty"),
        (messages(json!([{"role": "user", "content": 7}, answer])), "messages[0].content: wanted a text or a list"),
        (
            messages(json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, answer])),
            "messages[0].content[0].type: wanted \"text\", found \"image_url\"",
        ),
    ]
}

/// What the assistant says and calls.
fn bad_answers() -> Vec<(String, &'static str)> {
    let user = json!({"role": "user", "content": "q"});
    let call = |arguments: Value| {
        assistant(json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}))
    };
    let tool = json!({"role": "tool", "tool_call_id": "x", "content": "r"});
    let answer = json!({"role": "assistant", "content": "a"});
    let with_tools = |tools: Value| json!({"messages": [user, answer], "tools": tools}).to_string();
    vec![
        (assistant(json!({"role": "assistant"})), "messages[1]: the assistant's message is empty"),
        (assistant(json!({"role": "assistant", "content": null})), "messages[1]: the assistant's message is empty"),
        (assistant(json!({"role": "assistant", "content": "", "tool_calls": []})), "the assistant's message is empty"),
        (
            assistant(json!({"role": "assistant", "thinking": "t"})),
            "messages[1]: the assistant's message thinks and says nothing",
        ),
        (
            assistant(json!({"role": "assistant", "content": "a", "weight": 2})),
            "messages[1].weight: wanted 0 (context)",
        ),
        (
            assistant(json!({"role": "assistant", "content": "a", "function_call": {}})),
            "messages[1].function_call: this is the older form",
        ),
        (call(json!("{\"a\": ")), "messages[1].tool_calls[0].function.arguments: the call's arguments are not JSON"),
        (call(json!("[1]")), "function.arguments: wanted the text of a JSON object, found [1]"),
        (call(json!(3)), "function.arguments: wanted the text of a JSON object, found 3"),
        (
            assistant(json!({"role": "assistant", "tool_calls": [{"function": {"name": "a b"}}]})),
            "messages[1].tool_calls[0].function.name: wanted a name of 1 to 64",
        ),
        (messages(json!([user, tool, answer])), "messages[1]: a tool's message must answer a call"),
        (with_tools(json!([{"function": {"name": "a b"}}])), "tools[0].function.name: wanted a name"),
        (
            json!({"messages": [user, {"role": "assistant", "tool_calls": [{"function": {"name": "g"}}]}],
                "tools": [{"name": "f"}]})
            .to_string(),
            "a call of \"g\", which is not among the example's tools (f)",
        ),
        (json!({"messages": [user, answer], "reasoning_effort": "much"}).to_string(), "reasoning_effort: wanted"),
        (json!({"messages": [user, answer], "date": "yesterday"}).to_string(), "date: wanted a day as YYYY-MM-DD"),
    ]
}

/// Other forms than chat, and what is too long.
fn bad_forms() -> Vec<(String, &'static str)> {
    let shared = |from: &str| json!({"conversations": [{"from": from, "value": "q"}]}).to_string();
    vec![
        (shared("robot"), "conversations[0].from: wanted \"system\", \"human\""),
        (shared("observation"), "conversations[0]: a result without a call"),
        (shared("function_call"), "conversations[0].value: the call is not JSON"),
        (shared("human"), "the last message is not the assistant's"),
        (json!({"conversations": [{"from": "gpt", "value": ""}]}).to_string(), "the assistant's message is empty"),
        (json!({"instruction": "", "output": "a"}).to_string(), "instruction: the question is empty"),
        (json!({"instruction": "q", "output": ""}).to_string(), "output: the assistant's message is empty"),
        (json!({"instruction": "q", "output": "a", "history": [["x"]]}).to_string(), "history[0]: wanted a question"),
        (assistant(json!({"role": "assistant", "content": "long ".repeat(500)})), "more than the 2001 of max_len"),
        (json!({"chosen": "a", "rejected": "b"}).to_string(), "prompt: wanted what the answers are to"),
    ]
}

#[test]
fn every_fault_names_file_line_and_field() {
    for (example, problem) in bad_examples() {
        // After a good example, where that is of the same form.
        let (before, line) = if guess_of(&example) == Format::Chat { (GOOD, 3) } else { ("", 1) };
        let text = if before.is_empty() { example.clone() } else { format!("{before}\n\n{example}\n") };
        let error = Files::new(text).error(&settings());
        assert!(error.contains(&format!("train.jsonl:{line}: ")) && error.contains(problem), "{example}\n{error}");
        assert!(error.contains("on_bad = \"skip\""), "{error}");
    }
}

/// The form of a bad example that is meant to be one of it.
fn guess_of(example: &str) -> Format {
    let has = |key: &str| example.contains(key);
    match () {
        () if has("\"conversations\"") => Format::ShareGpt,
        () if has("\"instruction\"") => Format::Alpaca,
        () if has("\"chosen\"") => Format::Preference,
        () if has("\"text\":\"a\"}") && !has("messages") => Format::Auto,
        () => Format::Chat,
    }
}

#[test]
fn faults_are_counted_where_they_may_be() {
    let bad: Vec<(String, &str)> =
        bad_examples().into_iter().filter(|(example, _)| guess_of(example) == Format::Chat).collect();
    let lines: String = bad.iter().map(|(example, _)| format!("{example}\n{GOOD}\r\n")).collect();
    let report = Files::new(lines).prepare(&DataSettings { format: Format::Chat, ..skip() }).unwrap().report;
    let num = bad.len() as u64;
    assert_eq!((report.read, report.kept, report.num_skipped, report.too_long), (2 * num, num, num, 1));
    assert_eq!(report.skipped.len(), 20);
    for (place, skipped) in report.skipped.iter().enumerate() {
        assert_eq!(skipped.line, 2 * place as u64 + 1);
        assert!(skipped.why.contains(bad[place].1), "{}", skipped.why);
        assert!(!skipped.why.contains(char::is_control));
    }
}

#[test]
fn encodings() {
    let bom = Files::new([b"\xef\xbb\xbf", GOOD.as_bytes()].concat()).prepare(&settings()).unwrap();
    assert_eq!(bom.report.kept, 1, "a byte order mark does no harm");
    let crlf = Files::new(format!("\r\n{GOOD}\r\n\r\n  {GOOD}\r\n")).prepare(&settings()).unwrap();
    assert_eq!(crlf.report.kept, 2);
    let utf16: Vec<u8> = GOOD.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in [utf16.clone(), [b"\xff\xfe", &utf16[..]].concat()] {
        let files = Files::new(bytes);
        for settings in [settings(), skip()] {
            let error = files.error(&settings);
            assert!(error.contains("train.jsonl: is UTF-16: save it as UTF-8, iconv"), "{error}");
        }
    }
    let latin = [GOOD.as_bytes(), b"\n{\"messages\": \"caf\xe9\"}\n", GOOD.as_bytes()].concat();
    let error = Files::new(&latin).error(&settings());
    assert!(error.contains("train.jsonl:2: byte 17 of the example, 0xe9, is not UTF-8"), "{error}");
    let report = Files::new(&latin).prepare(&skip()).unwrap().report;
    assert_eq!((report.kept, report.num_skipped), (2, 1));
    let gz = Files::new(b"\x1f\x8b\x08\x00rest").error(&skip());
    assert!(gz.contains("train.jsonl: is compressed (gzip): unpack it first, gunzip train.jsonl"), "{gz}");
}

#[test]
fn files_that_are_none() {
    let files = Files::new(GOOD);
    let dir = files.dir.path().to_owned();
    let fail = |path: std::path::PathBuf| {
        super::support::prepare_in(&[path], &settings(), &dir.join("out")).unwrap_err().to_string()
    };
    assert!(fail(dir.clone()).contains("is a folder: name the files in it"));
    assert!(fail(dir.join("none.jsonl")).contains("none.jsonl: cannot open"));
    assert!(!dir.join("out").exists(), "nothing is made for files that are not there");
    if cfg!(unix) {
        assert!(fail("/dev/null".into()).contains("is a pipe or a device"));
    }
}

#[test]
fn nothing_to_learn_from() {
    for empty in ["", "\n \r\n", "[]"] {
        let error = Files::new(empty).error(&skip());
        assert!(error.starts_with("no example to learn from in") && error.contains("there is none"), "{error}");
    }
    let error = Files::new("{\n{\n").error(&skip());
    assert!(error.contains("2 of 2 were passed over, the first") && error.contains("train.jsonl:1:"), "{error}");
}

#[test]
fn settings_that_cannot_be() {
    let files = Files::new(GOOD);
    for (settings, problem) in [
        (DataSettings { max_len: 0, ..settings() }, "max_len: wanted at least 1"),
        (DataSettings { validation: Validation::Share(0.6), ..settings() }, "the share of validation: wanted 0 to 0.5"),
        (DataSettings { validation: Validation::Share(f64::NAN), ..settings() }, "found NaN"),
        (
            DataSettings { manner: Manner { dates: Dates::Fixed("today".into()), ..Manner::default() }, ..settings() },
            "the date: wanted a day as YYYY-MM-DD, found \"today\"",
        ),
    ] {
        let error = files.error(&settings);
        assert!(error.contains(problem), "{error}");
    }
}
