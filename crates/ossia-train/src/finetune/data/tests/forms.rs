//! Every form of examples, and what is learned of each.

use std::ops::ControlFlow;

use serde_json::{Value, json};

use super::super::*;
use super::support::{Files, documents, harmony, parts, prepare_in, settings};
use crate::dataset::{BatchSettings, Batches};

fn chat(question: &str, answer: &str) -> Value {
    json!({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})
}

/// What each document of one example learns.
fn learned(example: Value) -> Vec<String> {
    let files = Files::of(&[example]);
    let prepared = files.prepare(&settings()).unwrap();
    documents(prepared).iter().map(|document| parts(document).1).collect()
}

#[test]
fn a_conversation_gives_a_document_for_each_turn() {
    let example = json!({
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "reasoning_content": "hm", "content": "first"},
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": "I look.", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "w", "arguments": "{\"c\": 1}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "sun"},
            {"role": "assistant", "content": "<think>ok</think>It is sunny."},
        ],
        "tools": [{"type": "function", "function": {"name": "w", "parameters": {"type": "object"}}}],
        "reasoning_effort": "high", "date": "2031-05-06", "parallel_tool_calls": false,
    });
    let files = Files::of(&[example]);
    let prepared = files.prepare(&settings()).unwrap();
    let report = prepared.report.clone();
    let found: Vec<(String, String)> = documents(prepared).iter().map(parts).collect();
    assert_eq!(found.len(), 2);
    let (prompt, first) = &found[0];
    assert!(prompt.contains("Current date: 2031-05-06") && prompt.contains("Reasoning: high"), "{prompt}");
    assert!(prompt.contains("# Instructions\n\nBe short.") && prompt.contains("type w = (_:"), "{prompt}");
    assert!(prompt.ends_with("<|start|>user<|message|>ab<|end|><|start|>assistant"), "{prompt}");
    let wanted = "<|channel|>analysis<|message|>hm<|end|>\
                  <|start|>assistant<|channel|>final<|message|>first<|return|>";
    assert_eq!(first, wanted);
    let wanted = "<|channel|>commentary<|message|>I look.<|end|>\
                  <|start|>assistant to=functions.w<|channel|>commentary <|constrain|>json<|message|>{\"c\": 1}<|call|>\
                  <|channel|>analysis<|message|>ok<|end|>\
                  <|start|>assistant<|channel|>final<|message|>It is sunny.<|return|>";
    assert_eq!(found[1].1, wanted);
    assert!(!found[1].0.contains("hm"), "the analysis of a finished turn is left out");
    assert_eq!((report.read, report.kept, report.documents), (1, 1, 2));
    assert_eq!(report.tokens_by_class.iter().sum::<u64>(), report.tokens);
}

/// What is trained on is what is asked for: the prompt of a document is that of a served request.
#[test]
fn weight_0_is_context() {
    let mut messages = vec![
        json!({"role": "user", "content": "a"}),
        json!({"role": "assistant", "content": "one", "weight": 0}),
        json!({"role": "user", "content": "b"}),
        json!({"role": "assistant", "content": "two", "weight": 1}),
    ];
    let two = "<|channel|>final<|message|>two<|return|>";
    assert_eq!(learned(json!({"messages": messages})), [two]);
    messages.truncate(2);
    let error = Files::of(&[json!({"messages": messages})]).error(&settings());
    assert!(error.contains("train.jsonl:1: no message of the assistant is to be learned"), "{error}");
    let call = json!({"role": "assistant", "weight": 0, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]});
    let turn = json!({"messages": [
        {"role": "user", "content": "a"}, call, {"role": "tool", "content": "r"},
        {"role": "assistant", "content": "two"}]});
    assert_eq!(learned(turn), [two], "of one turn a part");
}

#[test]
fn other_forms_say_the_same() {
    let wanted = learned(json!({"messages": [
        {"role": "system", "content": "S"}, {"role": "user", "content": "q\n\nmore"},
        {"role": "assistant", "thinking": "t", "content": "a"}]}));
    let shared = json!({"system": "S", "conversations": [
        {"from": "human", "value": "q\n\nmore"}, {"from": "gpt", "value": "<think>\nt\n</think>\na"}]});
    let alpaca = json!({"system": "S", "instruction": "q", "input": "more", "output": "a", "thinking": "t"});
    assert_eq!((learned(shared), learned(alpaca)), (wanted.clone(), wanted));
    let calls = json!({"tools": "[{\"name\": \"f\"}]", "conversations": [
        {"from": "human", "value": "q"}, {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"},
        {"from": "observation", "value": "7"}, {"from": "gpt", "value": "seven"}]});
    let found = learned(calls).remove(0);
    assert!(found.contains("to=functions.f") && found.ends_with("seven<|return|>"), "{found}");
    let earlier = json!({"instruction": "q", "output": "a", "history": [["x", "y"]]});
    assert_eq!(learned(earlier), ["<|channel|>final<|message|>a<|return|>"]);
}

#[test]
fn pairs_share_their_prompt() {
    let input = json!({"messages": [{"role": "user", "content": "q"}]});
    let answer = |text: &str| json!([{"role": "assistant", "content": text}]);
    let openai = json!({"input": input, "preferred_output": answer("good"), "non_preferred_output": answer("bad")});
    let texts = json!({"prompt": "q", "chosen": "good", "rejected": "bad"});
    let user = json!({"role": "user", "content": "q"});
    let whole = |text: &str| json!([user, {"role": "assistant", "content": text}]);
    let lists = json!({"chosen": whole("good"), "rejected": whole("bad")});
    let repeated = json!({"prompt": "q", "chosen": whole("good"), "rejected": whole("bad")});
    for example in [openai.clone(), texts, lists, repeated] {
        let files = Files::of(std::slice::from_ref(&example));
        let prepared = files.prepare(&settings()).unwrap();
        assert_eq!(prepared.report.format, Format::Preference);
        let found: Vec<(String, String)> = documents(prepared).iter().map(parts).collect();
        assert_eq!(found[0].0, found[1].0, "one prompt");
        let said = |place: usize| found[place].1.clone();
        assert_eq!(said(0), "<|channel|>final<|message|>good<|return|>");
        assert_eq!(said(1), "<|channel|>final<|message|>bad<|return|>");
    }
    let mut marked = openai.clone();
    marked["preferred_output"][0]["weight"] = json!(0);
    let files = Files::of(&[marked]);
    let prepared = files.prepare(&settings()).unwrap();
    assert!(
        documents(prepared).iter().all(|document| parts(document).1.ends_with("<|return|>")),
        "marks do not matter"
    );
    for (change, problem) in [
        (json!({"non_preferred_output": answer("good")}), "the two answers are the same"),
        (json!({"non_preferred_output": null}), "non_preferred_output: wanted an answer"),
        (json!({"preferred_output": [user]}), "preferred_output: wanted messages that end with the assistant's"),
        (json!({"preferred_output": whole("a")[0]}), "preferred_output: wanted messages that end"),
        (json!({"input": {}}), "input.messages: wanted a list"),
        (
            json!({"non_preferred_output": [
            {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]}),
            "one turn of the assistant",
        ),
    ] {
        let mut example = openai.clone();
        example.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let error = Files::of(&[example]).error(&settings());
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn pairs_are_drawn_as_pairs() {
    let pair = |n: usize| json!({"prompt": format!("q{n}"), "chosen": format!("good{n}"), "rejected": "bad"});
    let files = Files::of(&(0..40).map(pair).collect::<Vec<_>>());
    let settings = DataSettings { validation: Validation::Share(0.2), ..settings() };
    let prepared = files.prepare(&settings).unwrap();
    assert_eq!(prepared.validation.len() as u64, 2 * prepared.report.validation);
    let learned = BatchSettings { seed: 1, max_len: 2000, class_weights: [0.0, 1.0, 1.0, 1.0, 1.0] };
    let mut batches = Batches::new(prepared.train, learned).unwrap().in_groups(2).unwrap();
    let mut num = 0;
    while batches.cursor().epoch == 0 {
        let batch = batches.next_micro(2000).unwrap();
        for pair in batch.documents.chunks(2) {
            let text = |place: usize| harmony().tokenizer().decode(&batch.tokens[pair[place].clone()]);
            let (good, bad) = (String::from_utf8(text(0)).unwrap(), String::from_utf8(text(1)).unwrap());
            assert!(good.contains("good") && bad.contains("<|message|>bad"));
            assert_eq!(good.split("<|channel|>final").next(), bad.split("<|channel|>final").next());
            num += 1;
        }
    }
    assert_eq!(num, prepared.report.kept);
}

#[test]
fn items_keep_what_a_grader_needs() {
    let example = json!({"messages": [{"role": "user", "content": "2+2?"}], "answer": "4"});
    let files = Files::of(&[example.clone(), chat("a", "b")]);
    let error = files.error(&settings());
    assert!(error.contains("train.jsonl:2: the last message is the assistant's"), "{error}");
    let files = Files::of(std::slice::from_ref(&example));
    let prepared = files.prepare(&settings()).unwrap();
    assert_eq!((prepared.report.format, prepared.train_items.len()), (Format::Items, 1));
    assert!(prepared.train.is_empty());
    let item = prepared.train_items.get(0).unwrap();
    assert_eq!(item.item, example);
    let text = String::from_utf8(harmony().tokenizer().decode(&item.prompt)).unwrap();
    assert!(text.ends_with("2+2?<|end|><|start|>assistant"));
}

#[test]
fn a_share_is_kept_aside_by_content() {
    let examples: Vec<Value> = (0..200).map(|n| chat(&format!("q{n}"), "a")).collect();
    let twice: Vec<Value> = examples.iter().chain(&examples).cloned().collect();
    let share = |share: f64, seed: u64| DataSettings { validation: Validation::Share(share), seed, ..settings() };
    let files = Files::of(&twice);
    let prepared = files.prepare(&share(0.1, 1)).unwrap();
    let aside: Vec<String> = prepared.validation.iter().map(|document| parts(document).0).collect();
    assert!((20..60).contains(&aside.len()), "{}", aside.len());
    let learned: Vec<String> = documents(prepared).iter().map(|document| parts(document).0).collect();
    assert!(aside.iter().all(|prompt| !learned.contains(prompt)), "nothing is on both sides");
    assert_eq!(aside.len() + learned.len(), 400);
    let other = Files::of(&twice).prepare(&share(0.1, 2)).unwrap();
    assert_ne!(other.validation.iter().map(|document| parts(document).0).collect::<Vec<_>>(), aside);
    let most = DataSettings { validation_most: 5, ..share(0.1, 1) };
    assert_eq!(Files::of(&twice).prepare(&most).unwrap().report.validation, 5);
}

/// However few there are, both sides have something where there are two different examples.
#[test]
fn few_examples_are_shared_out() {
    for seed in 0..20 {
        for (num, share) in [(2, 0.01), (2, 0.5), (3, 0.5), (4, 0.0001)] {
            let examples: Vec<Value> = (0..num).map(|n| chat(&format!("q{n}"), "a")).collect();
            let settings = DataSettings { validation: Validation::Share(share), seed, ..settings() };
            let report = Files::of(&examples).prepare(&settings).unwrap().report;
            assert!(report.kept > 0 && report.validation > 0, "{num} {share} {seed}: {report:?}");
            assert_eq!(report.kept + report.validation, num);
        }
    }
    let settings = DataSettings { validation: Validation::Share(0.5), ..settings() };
    let report = Files::of(&[chat("q", "a")]).prepare(&settings).unwrap().report;
    assert_eq!((report.kept, report.validation), (1, 0), "one alone is learned");
}

#[test]
fn files_of_validation() {
    let files = Files::of(&[chat("a", "b")]);
    let held = files.dir.path().join("held.json");
    std::fs::write(&held, json!([chat("c", "d"), chat("e", "f"), chat("g", "h")]).to_string()).unwrap();
    let held = DataSettings { validation: Validation::Files(vec![held]), validation_most: 2, ..settings() };
    let prepared = files.prepare(&held).unwrap();
    assert_eq!((prepared.report.kept, prepared.validation.len()), (1, 2));
    let same = DataSettings { validation: Validation::Files(vec![files.file.clone()]), ..settings() };
    assert!(files.error(&same).contains("wanted other files than those of training"));
}

#[test]
fn data_are_found_again_and_others_refused() {
    let files = Files::of(&[chat("a", "b"), chat("c", "d")]);
    let settings = settings();
    let first = files.prepare(&settings).unwrap();
    let stamp = std::fs::metadata(first.train[0].path()).unwrap().modified().unwrap();
    let again = files.prepare(&settings).unwrap();
    assert_eq!(again.report, first.report);
    assert_eq!(std::fs::metadata(again.train[0].path()).unwrap().modified().unwrap(), stamp, "nothing was made");
    assert_eq!(documents(first), documents(again));
    let error = files.error(&DataSettings { max_len: 999, ..settings.clone() });
    assert!(error.contains("origin.json: the data in this folder were made from other settings"), "{error}");
    std::fs::write(&files.file, chat("x", "y").to_string()).unwrap();
    assert!(files.error(&settings).contains("made from other files"));
    std::fs::write(files.out().join("origin.json"), "{}").unwrap();
    assert!(files.error(&settings).contains("origin.json: is damaged"));
    std::fs::remove_file(files.out().join("origin.json")).unwrap();
    std::fs::write(files.out().join("train-00007.shard"), "left by a run that was killed").unwrap();
    let prepared = files.prepare(&settings).unwrap();
    assert_eq!((prepared.report.kept, documents(prepared).len()), (1, 1));
    assert!(!files.out().join("train-00007.shard").exists());
}

#[test]
fn breaking_off_leaves_nothing_that_is_taken_for_whole() {
    let files = Files::of(&[chat("a", "b")]);
    let stop = &mut |_: &Progress| ControlFlow::Break(());
    assert!(prepare(std::slice::from_ref(&files.file), &settings(), harmony(), &files.out(), stop).unwrap().is_none());
    assert_eq!(files.prepare(&settings()).unwrap().report.kept, 1);
    assert!(prepare(std::slice::from_ref(&files.file), &settings(), harmony(), &files.out(), stop).unwrap().is_none());
    let mut seen = Vec::new();
    let out = files.dir.path().join("other");
    let go_on = &mut |now: &Progress| {
        seen.push((now.bytes, now.all_bytes));
        ControlFlow::Continue(())
    };
    prepare(std::slice::from_ref(&files.file), &settings(), harmony(), &out, go_on).unwrap();
    assert!(!seen.is_empty() && seen.iter().all(|(bytes, all)| bytes <= all));
    assert!(prepare_in(&[], &settings(), &out).unwrap_err().to_string().contains("at least one file"));
}
