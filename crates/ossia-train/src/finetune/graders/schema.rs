//! Whether a JSON value follows a schema: the keywords that schemas of answers use. Others are refused when the grader is
//! made, so that none is silently passed over.

use serde_json::{Map, Value};

use super::description::shown;
use super::error::{Error, Result};
use super::template::same;

/// Schemas inside each other.
const MOST_DEPTH: usize = 64;
const KEYWORDS: [&str; 20] = [
    "type",
    "enum",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "anyOf",
    "allOf",
    "oneOf",
    "not",
];
/// They say nothing about a value.
const NOTES: [&str; 8] = ["title", "description", "default", "examples", "$schema", "$id", "format", "$comment"];
const TYPES: [&str; 7] = ["object", "array", "string", "number", "integer", "boolean", "null"];

/// Fails where a schema is none, or has a keyword that is not checked here.
pub(super) fn check(schema: &Value, at: &str, depth: usize) -> Result<()> {
    let schema = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(schema) if depth < MOST_DEPTH => schema,
        other => return Err(Error::field(at, "a JSON schema, not too deep", shown(other))),
    };
    for (keyword, value) in schema {
        let at = format!("{at}.{keyword}");
        let wrong = |wanted: &str| Err(Error::field(&at, wanted, shown(value)));
        let inside = |schema: &Value| check(schema, &at, depth + 1);
        let is_type = |value: &Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
        match (keyword.as_str(), value) {
            ("type", value) => match value.as_array() {
                Some(list) if list.iter().all(is_type) => {}
                None if is_type(value) => {}
                _ => return wrong("a type or a list of types"),
            },
            ("properties", Value::Object(named)) => named.values().try_for_each(inside)?,
            ("anyOf" | "allOf" | "oneOf", Value::Array(list)) => list.iter().try_for_each(inside)?,
            ("items" | "not" | "additionalProperties", schema) => inside(schema)?,
            ("required", Value::Array(names)) if names.iter().all(Value::is_string) => {}
            ("enum", Value::Array(_)) | ("uniqueItems", Value::Bool(_)) | ("const", _) => {}
            ("minItems" | "maxItems" | "minLength" | "maxLength", value) if value.is_u64() => {}
            ("minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum", Value::Number(_)) => {}
            (keyword, _) if NOTES.contains(&keyword) => {}
            (keyword, _) if KEYWORDS.contains(&keyword) => return wrong("what JSON schema has there"),
            _ => return Err(Error::field(&at, format!("one of the keywords {}", KEYWORDS.join(", ")), "another one")),
        }
    }
    Ok(())
}

/// Whether `value` follows `schema`, which [`check`] has accepted.
pub(super) fn follows(value: &Value, schema: &Value) -> bool {
    match schema {
        Value::Bool(anything) => *anything,
        Value::Object(schema) => schema.iter().all(|(keyword, wanted)| holds(value, schema, keyword, wanted)),
        _ => false,
    }
}

fn holds(value: &Value, schema: &Map<String, Value>, keyword: &str, wanted: &Value) -> bool {
    let list = wanted.as_array().map(Vec::as_slice).unwrap_or_default();
    let count = wanted.as_u64().unwrap_or_default();
    let number = |holds: fn(f64, f64) -> bool| match (value.as_f64(), wanted.as_f64()) {
        (Some(found), Some(wanted)) => holds(found, wanted),
        _ => true,
    };
    let length =
        |holds: fn(u64, u64) -> bool| value.as_str().is_none_or(|text| holds(text.chars().count() as u64, count));
    let items = |holds: fn(u64, u64) -> bool| value.as_array().is_none_or(|items| holds(items.len() as u64, count));
    match keyword {
        "type" if wanted.is_array() => list.iter().any(|name| is_of(value, name)),
        "type" => is_of(value, wanted),
        "enum" => list.iter().any(|one| is_equal(value, one)),
        "const" => is_equal(value, wanted),
        "required" => value
            .as_object()
            .is_none_or(|object| list.iter().filter_map(Value::as_str).all(|name| object.contains_key(name))),
        "properties" => value.as_object().is_none_or(|object| {
            let mut named = wanted.as_object().into_iter().flatten();
            named.all(|(name, schema)| object.get(name).is_none_or(|value| follows(value, schema)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|object| {
            let named = schema.get("properties").and_then(Value::as_object);
            let is_other = |name: &String| named.is_none_or(|named| !named.contains_key(name));
            object.iter().filter(|(name, _)| is_other(name)).all(|(_, value)| follows(value, wanted))
        }),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| follows(item, wanted))),
        "uniqueItems" => wanted != &Value::Bool(true) || value.as_array().is_none_or(|items| is_unique(items)),
        "minItems" => items(|found, wanted| found >= wanted),
        "maxItems" => items(|found, wanted| found <= wanted),
        "minLength" => length(|found, wanted| found >= wanted),
        "maxLength" => length(|found, wanted| found <= wanted),
        "minimum" => number(|found, wanted| found >= wanted),
        "maximum" => number(|found, wanted| found <= wanted),
        "exclusiveMinimum" => number(|found, wanted| found > wanted),
        "exclusiveMaximum" => number(|found, wanted| found < wanted),
        "anyOf" => list.iter().any(|schema| follows(value, schema)),
        "allOf" => list.iter().all(|schema| follows(value, schema)),
        "oneOf" => list.iter().filter(|schema| follows(value, schema)).count() == 1,
        "not" => !follows(value, wanted),
        _ => true,
    }
}

fn is_of(value: &Value, name: &Value) -> bool {
    match name.as_str().unwrap_or_default() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}

/// The same value, of the same kind.
fn is_equal(a: &Value, b: &Value) -> bool {
    a.is_string() == b.is_string() && same(a, b)
}

fn is_unique(items: &[Value]) -> bool {
    (1..items.len()).all(|place| items[..place].iter().all(|other| !is_equal(other, &items[place])))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_follow_schemas() {
        let schema = json!({
            "type": "object", "required": ["name", "n"], "additionalProperties": false, "description": "d",
            "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 3},
                "n": {"type": "integer", "minimum": 0, "exclusiveMaximum": 10},
                "list": {"type": "array", "items": {"enum": ["a", 1]}, "minItems": 1, "maxItems": 2, "uniqueItems": true},
                "any": {"anyOf": [{"type": "null"}, {"type": ["number", "boolean"]}], "not": {"const": 3}},
                "one": {"oneOf": [{"type": "integer"}, {"minimum": 5}], "allOf": [true]},
            },
        });
        check(&schema, "s", 0).unwrap();
        let base = json!({"name": "äöü", "n": 9.0});
        assert!(follows(&base, &schema));
        for (key, value, good) in [
            ("name", json!(""), false),
            ("name", json!("abcd"), false),
            ("name", json!(1), false),
            ("n", json!(10), false),
            ("n", json!(-1), false),
            ("n", json!(1.5), false),
            ("n", json!("1"), false),
            ("list", json!(["a", 1]), true),
            ("list", json!([]), false),
            ("list", json!(["a", "a"]), false),
            ("list", json!(["1"]), false),
            ("list", json!(["a", 1, 1]), false),
            ("any", json!(null), true),
            ("any", json!(true), true),
            ("any", json!(3), false),
            ("any", json!("x"), false),
            ("one", json!(1), true),
            ("one", json!(5.5), true),
            ("one", json!(7), false),
            ("more", json!(1), false),
        ] {
            let mut changed = base.clone();
            changed[key] = value.clone();
            assert_eq!(follows(&changed, &schema), good, "{key}: {value}");
        }
        assert!(!follows(&json!({"name": "a"}), &schema) && !follows(&json!([]), &schema));
        assert!(follows(&json!(1), &json!(true)) && !follows(&json!(1), &json!(false)));
    }

    #[test]
    fn what_is_not_checked_is_refused() {
        let mut deep = json!({});
        for _ in 0..100 {
            deep = json!({"items": deep});
        }
        for schema in [
            json!({"pattern": "a"}),
            json!({"$ref": "#"}),
            json!({"type": "text"}),
            json!({"required": "a"}),
            json!({"minItems": -1}),
            json!({"properties": {"a": {"if": true}}}),
            json!({"items": 7}),
            json!("object"),
            deep,
        ] {
            assert!(check(&schema, "s", 0).is_err(), "{schema}");
        }
        let error = check(&json!({"properties": {"a": {"pattern": "x"}}}), "grader.schema", 0).unwrap_err();
        assert!(
            error.to_string().starts_with("grader.schema.properties.pattern: wanted one of the keywords"),
            "{error}"
        );
    }
}
