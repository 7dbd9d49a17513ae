//! Finds schemas that no finite document satisfies: an object that requires itself, references in a circle, `false`.
//! They would make a model write without end, or leave it without a token.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// The first definition that a document needs and that can never be complete; an empty name for the root.
pub(super) fn first_endless(root: &Value, definitions: &Map<String, Value>) -> Option<String> {
    let mut complete = BTreeSet::new();
    loop {
        let before = complete.len();
        for (name, schema) in definitions {
            if !complete.contains(name.as_str()) && can_end(schema, &complete) {
                complete.insert(name.as_str());
            }
        }
        if complete.len() == before {
            break;
        }
    }
    if can_end(root, &complete) {
        return None;
    }
    Some(definitions.keys().find(|name| !complete.contains(name.as_str())).cloned().unwrap_or_default())
}

/// True where a document of the schema exists, if those of the known definitions do. Looks at structure only.
fn can_end(schema: &Value, complete: &BTreeSet<&str>) -> bool {
    let Value::Object(map) = schema else { return schema != &Value::Bool(false) };
    let list = |key: &str| map.get(key).and_then(Value::as_array);
    let reference = map.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix("#/$defs/"));
    reference.is_none_or(|name| complete.contains(name))
        && list("allOf").is_none_or(|list| list.iter().all(|schema| can_end(schema, complete)))
        && ["anyOf", "oneOf"].iter().all(|key| list(key).is_none_or(|list| list.iter().any(|s| can_end(s, complete))))
        && (may_be_other(map) || object_can_end(map, complete) || array_can_end(map, complete))
}

/// True where the type allows more than objects and arrays.
fn may_be_other(map: &Map<String, Value>) -> bool {
    let is_other = |value: &Value| value != "object" && value != "array";
    match map.get("type") {
        Some(Value::Array(list)) => list.iter().any(is_other),
        Some(one) => is_other(one),
        None => true,
    }
}

fn allows(map: &Map<String, Value>, wanted: &str) -> bool {
    match map.get("type") {
        Some(Value::Array(list)) => list.iter().any(|name| name == wanted),
        Some(one) => one == wanted,
        None => true,
    }
}

fn object_can_end(map: &Map<String, Value>, complete: &BTreeSet<&str>) -> bool {
    let required = map.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let schema_of = |name: &str| map.get("properties")?.get(name).or_else(|| map.get("additionalProperties"));
    allows(map, "object") && required.into_iter().all(|name| schema_of(name).is_none_or(|s| can_end(s, complete)))
}

fn array_can_end(map: &Map<String, Value>, complete: &BTreeSet<&str>) -> bool {
    let least = map.get("minItems").and_then(Value::as_u64).unwrap_or(0) as usize;
    let first = map.get("prefixItems").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let rest = map.get("items").filter(|_| least > first.len());
    let all_end = first.iter().take(least).chain(rest).all(|schema| can_end(schema, complete));
    allows(map, "array") && all_end
}
