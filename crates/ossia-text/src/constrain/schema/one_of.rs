//! `oneOf` is the same as `anyOf` where no document can satisfy two of its schemas; that is the case that is
//! supported. It is seen in their types, in constants, or in a property that tells them apart.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::super::error::{ConstrainError, shown};
use super::{At, Lowering, references};

/// Most schemas in one `oneOf`: each is compared with each.
const MAX_BRANCHES: usize = 100;
/// Most references followed to a schema.
const MAX_HOPS: usize = 8;

/// Fails where two schemas may overlap.
pub(super) fn check(lowering: &Lowering<'_>, value: &Value, at: At<'_>) -> Result<(), ConstrainError> {
    let branches: Vec<&Value> =
        value.as_array().into_iter().flatten().map(|schema| behind(lowering.root, schema)).collect();
    if branches.len() > MAX_BRANCHES {
        return lowering.too_complex(format!("more than {MAX_BRANCHES} schemas in oneOf at {}", shown(at.pointer)));
    }
    for (i, one) in branches.iter().enumerate() {
        for (j, other) in branches.iter().enumerate().skip(i + 1) {
            if !are_apart(lowering.root, one, other) {
                let problem =
                    format!("schemas {i} and {j} may both hold: use anyOf, or a property that tells them apart");
                return lowering.fail(at, problem);
            }
        }
    }
    Ok(())
}

/// The schema that references lead to.
fn behind<'s>(root: &'s Value, mut schema: &'s Value) -> &'s Value {
    for _ in 0..MAX_HOPS {
        let reference = schema.get("$ref").and_then(Value::as_str);
        match reference.and_then(|text| references::resolve(root, text)) {
            Some((_, next)) => schema = next,
            None => break,
        }
    }
    schema
}

fn are_apart(root: &Value, one: &Value, other: &Value) -> bool {
    if let (Some(one), Some(other)) = (types(one), types(other))
        && one.is_disjoint(&other)
    {
        return true;
    }
    if let (Some(one), Some(other)) = (values(one), values(other)) {
        return !one.iter().any(|value| other.contains(value));
    }
    let empty = Map::new();
    let properties = |schema: &'_ Value| schema.get("properties").and_then(Value::as_object).cloned();
    let (first, second) = (properties(one).unwrap_or(empty), properties(other).unwrap_or_default());
    let requires = |schema: &Value, name: &str| {
        let list = schema.get("required").and_then(Value::as_array);
        list.is_some_and(|list| list.iter().any(|required| required == name))
    };
    first.iter().any(|(name, schema)| {
        let pair = second.get(name).and_then(|second| values(behind(root, schema)).zip(values(behind(root, second))));
        let differ = pair.is_some_and(|(one, other)| !one.iter().any(|value| other.contains(value)));
        differ && requires(one, name) && requires(other, name)
    })
}

/// The types that a schema names; whole numbers are numbers.
fn types(schema: &Value) -> Option<BTreeSet<&str>> {
    let name = |value: &'_ Value| value.as_str().map(|name| if name == "integer" { "number" } else { name }.to_owned());
    let list = match schema.get("type")? {
        Value::Array(list) => list.iter().map(name).collect::<Option<Vec<_>>>()?,
        one => vec![name(one)?],
    };
    let known = ["null", "boolean", "number", "string", "array", "object"];
    Some(known.into_iter().filter(|known| list.iter().any(|name| name == known)).collect())
}

/// The values that a schema is limited to.
fn values(schema: &Value) -> Option<Vec<&Value>> {
    if let Some(value) = schema.get("const") {
        return Some(vec![value]);
    }
    Some(schema.get("enum")?.as_array()?.iter().collect())
}
