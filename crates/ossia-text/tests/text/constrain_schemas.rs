//! Strict schemas: whatever a matcher allows is valid under the schema that a user gave, by another library's judgement.

use crate::common::sampler::Sampler;
use crate::common::schemas::random_schema;
use crate::common::{Rng, constrainer, feed, harmony, messages, nano, nano_constrainer};
use ossia_text::Harmony;
use ossia_text::constrain::{AnswerRules, ConstrainError, Constrainer, Format, Place, ToolRule};
use serde_json::{Value, json};

fn final_rules(schema: &Value) -> AnswerRules {
    AnswerRules { format: Format::JsonSchema(schema.clone()), thinking: false, ..AnswerRules::default() }
}

/// Draws documents of a schema and judges them.
fn check_schema(harmony: &Harmony, constrainer: &Constrainer, schema: &Value, rng: &mut Rng, num: usize) {
    let sampler = Sampler::new(harmony);
    let judge = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
    let matcher = || constrainer.compile(&final_rules(schema)).unwrap_or_else(|e| panic!("{e}: {schema}"));
    for _ in 0..num {
        let ids = sampler.turn(&mut matcher(), rng);
        let text = messages(feed(&mut harmony.completion_parser(), &ids)).remove(0).text;
        let document: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?} of {schema}"));
        assert!(judge.is_valid(&document), "{:?}: {text} of {schema}", judge.validate(&document).err());
    }
}

fn check_random(seed: u64, num_schemas: usize) {
    let mut rng = Rng(seed);
    for i in 0..num_schemas {
        let schema = random_schema(&mut rng);
        check_schema(nano(), nano_constrainer(), &schema, &mut rng, 2);
        if i % 8 == 0 {
            check_schema(harmony(), constrainer(), &schema, &mut rng, 1);
        }
    }
}

#[test]
fn documents_of_random_schemas_are_valid() {
    check_random(1, 300);
}

#[test]
#[ignore = "ten times as many; takes a minute"]
fn documents_of_many_random_schemas_are_valid() {
    check_random(2, 3_000);
}

#[test]
fn documents_of_schemas_that_libraries_write_are_valid() {
    let date = json!({"type": "string", "format": "date"});
    let step = json!({"type": "object", "properties": {"explanation": {"type": "string"}, "output": {"type": "string"}},
        "required": ["explanation", "output"], "additionalProperties": false});
    let shape = |kind: &str, key: &str| {
        json!({"type": "object", "title": kind, "properties": {"kind": {"const": kind, "title": "Kind"},
            key: {"type": "number", "exclusiveMinimum": 0}}, "required": ["kind", key]})
    };
    for schema in [
        json!({"type": "object", "properties": {"steps": {"type": "array", "items": {"$ref": "#/$defs/Step"}},
            "answer": {"type": "string"}}, "required": ["steps", "answer"], "$defs": {"Step": step}}),
        json!({"$ref": "#/definitions/A~1B", "definitions": {"A/B": {"type": "object", "properties": {
            "next": {"anyOf": [{"$ref": "#/definitions/A~1B"}, {"type": "null"}], "default": null}, "day": date},
            "required": ["next", "day"], "additionalProperties": false}}}),
        json!({"oneOf": [{"$ref": "#/$defs/Circle"}, {"$ref": "#/$defs/Square"}],
            "discriminator": {"propertyName": "kind", "mapping": {"circle": "#/$defs/Circle"}},
            "$defs": {"Circle": shape("circle", "radius"), "Square": shape("square", "side")}}),
        json!({"type": "object", "properties": {"a": {"allOf": [{"$ref": "#/$defs/E"}], "description": "one"},
            "b": {"type": ["string", "null"], "maxLength": 5}}, "$defs": {"E": {"type": "string", "enum": ["x", "y\n\"z\""]}}}),
        json!({"type": "object", "properties": {}, "$schema": "http://json-schema.org/draft-07/schema#"}),
        json!({"type": "object", "properties": {"pair": {"type": "array", "items": [{"type": "integer"}, {"type": "boolean"}],
            "additionalItems": false, "minItems": 2}}, "$schema": "http://json-schema.org/draft-07/schema#"}),
        json!({"type": "object", "additionalProperties": {"type": "integer", "multipleOf": 5}}),
        json!({"type": "object", "patternProperties": {"^[a-z]{1,3}$": {"type": "boolean"}}, "additionalProperties": false}),
        json!({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]}]}),
        json!({"type": "object", "properties": {"id": {"type": "string", "format": "uuid"}, "at": {"type": "string", "format": "date-time"},
            "ip": {"type": "string", "format": "ipv4"}, "mail": {"type": "string", "format": "email"},
            "zip": {"type": "string", "pattern": "^\\d{5}(-\\d{4})?$"}, "free": {"type": "string", "format": "colour"}}}),
        json!({"type": "number", "minimum": -0.5, "maximum": 99.5}),
        json!({"type": "integer", "exclusiveMinimum": -3, "exclusiveMaximum": 1000}),
        json!({"type": "integer", "minimum": i64::MIN, "maximum": u64::MAX}),
        json!({"type": "number", "minimum": -1e300, "maximum": 1.7e308, "multipleOf": 0.25}),
        json!({"type": "integer", "minimum": 0, "format": "uint64"}),
        json!({"enum": [null, true, 1, 2.5, "a", [1, {"b": []}]]}),
        json!({}),
        json!(true),
    ] {
        check_schema(nano(), nano_constrainer(), &schema, &mut Rng(3), 20);
        check_schema(harmony(), constrainer(), &schema, &mut Rng(4), 5);
    }
}

#[test]
fn a_string_of_many_counted_characters_is_followed_to_its_end() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 10_000}, "b": {"type": "string", "maxLength": 2_047}},
        "required": ["a", "b"]});
    for part in ["It is 20 °C.", "abc defgh; ", "日本語 ", "a"] {
        let mut matcher = constrainer().compile(&final_rules(&schema)).unwrap();
        let text = part.repeat(2_047 / part.chars().count());
        let turn = format!("<|channel|>final<|message|>{{\"a\":\"{text}\",\"b\":\"{text}\"}}<|return|>");
        let mut mask = vec![0; harmony().tokenizer().vocab_size().div_ceil(32)];
        for id in crate::common::encode_with_specials(harmony().tokenizer(), &turn) {
            mask.fill(u32::MAX);
            matcher.mask(&mut mask).unwrap();
            assert_eq!(mask[id as usize / 32] >> (id % 32) & 1, 1);
            matcher.accept(id).unwrap();
        }
        assert!(matcher.is_finished());
    }
}

#[test]
fn openapis_nullable_allows_null() {
    let schema =
        json!({"type": "object", "properties": {"a": {"type": "integer", "nullable": true}}, "required": ["a"]});
    let strict = json!({"type": "object", "properties": {"a": {"type": ["integer", "null"]}}, "required": ["a"]});
    let (judge, sampler) = (jsonschema::validator_for(&strict).unwrap(), Sampler::new(nano()));
    let (mut rng, mut num_null) = (Rng(1), 0);
    for _ in 0..50 {
        let ids = sampler.turn(&mut nano_constrainer().compile(&final_rules(&schema)).unwrap(), &mut rng);
        let text = messages(feed(&mut nano().completion_parser(), &ids)).remove(0).text;
        let document: Value = serde_json::from_str(&text).unwrap();
        assert!(judge.is_valid(&document));
        num_null += usize::from(document["a"].is_null());
    }
    assert!((1..50).contains(&num_null));
}

/// The pointer and the text of the error that a schema gives.
fn error_of(schema: Value) -> (String, String) {
    let error = constrainer().compile(&final_rules(&schema)).expect_err(&schema.to_string());
    let text = error.to_string();
    match error {
        ConstrainError::Schema { place: Place::Format, pointer, .. } => (pointer, text),
        ConstrainError::Grammar { place: Place::Format, .. } => ("".to_owned(), text),
        ConstrainError::TooComplex { .. } => ("complex".to_owned(), text),
        other => panic!("{other}"),
    }
}

#[test]
fn what_is_not_supported_is_refused_by_its_place() {
    let within = |inner: Value| json!({"type": "object", "properties": {"a/b": {"type": "array", "items": inner}}});
    for (inner, key, word) in [
        (json!({"not": {"type": "string"}}), "/not", "\"not\""),
        (json!({"if": {}, "then": {}}), "/if", "\"if\""),
        (json!({"type": "array", "uniqueItems": true}), "/uniqueItems", "uniqueItems"),
        (json!({"type": "object", "minProperties": 1}), "/minProperties", "minProperties"),
        (json!({"type": "text"}), "/type", "wanted one of"),
        (json!({"type": "string", "pattern": "(?=a)"}), "/pattern", "look-around"),
        (json!({"type": "string", "pattern": "["}), "/pattern", "unclosed"),
        (json!({"type": "string", "minLength": 1_000_000}), "/minLength", "at most"),
        (json!({"type": "string", "minLength": -1}), "/minLength", "whole number"),
        (json!({"type": "number", "multipleOf": 0}), "/multipleOf", "above 0"),
        (json!({"type": "integer", "minimum": 1e30}), "/minimum", "between"),
        (json!({"minimum": "1"}), "/minimum", "a number"),
        (json!({"enum": []}), "/enum", "at least one"),
        (json!({"anyOf": []}), "/anyOf", "at least one"),
        (json!({"$ref": "#/nowhere"}), "/$ref", "nowhere"),
        (json!({"$ref": "https://example.com/schema"}), "/$ref", "nowhere"),
        (json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}), "/oneOf", "both hold"),
        (json!({"properties": {"x": 7}}), "/properties/x", "an object, true or false"),
        (json!({"required": "x"}), "/required", "list of names"),
    ] {
        let (pointer, text) = error_of(within(inner));
        assert_eq!(pointer, format!("/properties/a~1b/items{key}"));
        assert!(text.contains(word) && text.starts_with("response format: schema at /"), "{text}");
    }
    let tool = ToolRule::function("f", Some(json!({"type": "object", "properties": {"a": {"not": {}}}})), true);
    let rules = AnswerRules { tools: vec![tool], ..AnswerRules::default() };
    let text = constrainer().compile(&rules).unwrap_err().to_string();
    assert_eq!(text, "tool \"f\": schema at /properties/a/not: the keyword \"not\" is not supported");
    let list = ToolRule::function("f", Some(json!({"type": "array"})), true);
    let rules = AnswerRules { tools: vec![list], ..AnswerRules::default() };
    assert!(constrainer().compile(&rules).unwrap_err().to_string().contains("schema at /type"));
}

#[test]
fn schemas_without_a_finite_document_are_refused() {
    for schema in [
        json!(false),
        json!({"$ref": "#"}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        json!({"type": "object", "properties": {"child": {"$ref": "#"}}, "required": ["child"]}),
        json!({"type": "array", "items": {"$ref": "#"}, "minItems": 1}),
        json!({"type": "object", "properties": {"a": false}, "required": ["a"]}),
        json!({"type": "integer", "minimum": 5, "maximum": 4}),
        json!({"type": "object", "properties": {}, "required": ["a"], "additionalProperties": false}),
        json!({"allOf": [{"type": "string"}, {"type": "integer"}]}),
    ] {
        let (_, text) = error_of(schema.clone());
        assert!(text.starts_with("response format: "), "{schema}: {text}");
    }
    assert!(constrainer().compile(&final_rules(&json!({"type": "array", "items": {"$ref": "#"}}))).is_ok());
}

#[test]
fn documents_have_no_endless_whitespace_and_no_endless_numbers() {
    let tokenizer = nano().tokenizer();
    let allows = |text: &str| {
        let mut matcher = nano_constrainer().compile(&final_rules(&json!({}))).unwrap();
        let text = format!("<|channel|>final<|message|>{text}");
        let ids = crate::common::encode_with_specials(tokenizer, &text);
        let sampler = Sampler::new(nano());
        ids.iter().all(|id| sampler.allowed(&mut matcher).contains(id) && matcher.accept(*id).is_ok())
    };
    assert!(allows("{\"a\": 1, \"b\": [1,\n  2]}") && allows("[\n\t\t1\n]") && allows("[\r\n 1]"));
    assert!(!allows("{  ") && !allows("[\n\n") && !allows(&format!("[\n{}", " ".repeat(25))));
    assert!(allows("[1.23456789e-12,-7E+99,123456789012345678]"));
    assert!(!allows("[1e100") && !allows("[0.123456789012345678") && !allows("1234567890123456789"));
    check_schema(nano(), nano_constrainer(), &json!({"const": -(1i64 << 53)}), &mut Rng(1), 1);
    for long in [json!(12345678901234567890123456789012u128 as f64), json!((1u64 << 53) + 1), json!(i64::MIN)] {
        assert!(nano_constrainer().compile(&final_rules(&json!({"const": long}))).is_err(), "{long}");
    }
}
