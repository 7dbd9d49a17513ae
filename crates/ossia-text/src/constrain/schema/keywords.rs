//! One keyword of a schema: enforced, an annotation, or refused by name.

use serde_json::{Map, Value, json};

use super::super::error::{ConstrainError, shown};
use super::super::pattern;
use super::formats::{self, Enforced};
use super::{At, Lowering, MAX_DEPTH, child_pointer, one_of};

const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];
/// Keywords that restrict and are not supported.
const REFUSED: [&str; 19] = [
    "not",
    "if",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "propertyNames",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "unevaluatedProperties",
    "unevaluatedItems",
    "$dynamicRef",
    "$recursiveRef",
    "divisibleBy",
    "extends",
    "disallow",
    "minProperties",
    "maxProperties",
];
/// The largest length that is counted, since each character of such a string is a state. A longer `maxLength` is read
/// as this one, which is within it.
const MAX_LENGTH: u64 = 2048;
/// A `maxLength` above this means "long", and is left to the limit of tokens.
const NO_LENGTH: f64 = 16_384.0;
/// Numbers have at most eighteen digits (see `numbers`).
const MAX_BOUND: f64 = 999_999_999_999_999_900.0;
/// The largest whole number that is a float as it is, like all below it.
const MAX_EXACT: u64 = 1 << 53;
/// The largest `multipleOf`, its decimal point left out: each remainder is a state.
const MAX_STEP: u32 = 1_000_000;

impl<'s> Lowering<'s> {
    /// Lowers one keyword of `map` into `out`.
    pub(super) fn keyword(
        &mut self,
        key: &str,
        value: &'s Value,
        map: &'s Map<String, Value>,
        at: At<'_>,
        out: &mut Map<String, Value>,
    ) -> Result<(), ConstrainError> {
        let lowered = match key {
            "type" => self.types(value, at)?,
            "properties" | "patternProperties" => self.schemas_by_name(value, key == "patternProperties", at)?,
            "items" if value.is_array() => return self.insert(out, "prefixItems", value, at),
            "additionalItems" if map.get("items").is_some_and(Value::is_array) => {
                let items = self.schema(value, at)?;
                out.insert("items".to_owned(), items);
                return Ok(());
            }
            "items" | "additionalProperties" => self.schema(value, at)?,
            "prefixItems" | "anyOf" | "allOf" => return self.insert(out, key, value, at),
            "oneOf" => {
                one_of::check(self, value, at)?;
                return self.insert(out, if map.contains_key("anyOf") { "oneOf" } else { "anyOf" }, value, at);
            }
            "$ref" => self.reference(value, at)?,
            "const" | "enum" => self.literal(key, value, at)?,
            "required" => self.names(value, at)?,
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => self.bound(key, value, at)?,
            "multipleOf" => self.multiple_of(value, at)?,
            "maxLength" if value.as_f64().is_some_and(|size| size > NO_LENGTH) => return Ok(()),
            "minLength" | "maxLength" | "minItems" | "maxItems" => self.size(key, value, at)?,
            "pattern" => self.pattern(value, at)?,
            "format" => {
                format(value, map, out);
                return Ok(());
            }
            _ if REFUSED.contains(&key) && !is_harmless(key, value) => {
                return self.fail(at, format!("the keyword {key:?} is not supported"));
            }
            _ => return Ok(()),
        };
        out.insert(key.to_owned(), lowered);
        Ok(())
    }

    fn insert(
        &mut self,
        out: &mut Map<String, Value>,
        key: &str,
        value: &'s Value,
        at: At<'_>,
    ) -> Result<(), ConstrainError> {
        let Some(list) = value.as_array().filter(|list| !list.is_empty()) else {
            return self.fail(at, "wanted a list of at least one schema");
        };
        let mut lowered = Vec::with_capacity(list.len());
        for (i, schema) in list.iter().enumerate() {
            let pointer = child_pointer(at.pointer, &i.to_string());
            lowered.push(self.schema(schema, At { pointer: &pointer, depth: at.depth })?);
        }
        out.insert(key.to_owned(), Value::Array(lowered));
        Ok(())
    }

    fn types(&self, value: &Value, at: At<'_>) -> Result<Value, ConstrainError> {
        let is_type = |value: &Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
        let known = match value {
            Value::Array(list) => !list.is_empty() && list.len() <= TYPES.len() && list.iter().all(is_type),
            one => is_type(one),
        };
        if known { Ok(value.clone()) } else { self.fail(at, format!("wanted one of {TYPES:?}, or a list of them")) }
    }

    fn schemas_by_name(&mut self, value: &'s Value, are_patterns: bool, at: At<'_>) -> Result<Value, ConstrainError> {
        let Some(map) = value.as_object() else { return self.fail(at, "wanted an object of schemas") };
        let mut lowered = Map::new();
        for (name, schema) in map {
            let pointer = child_pointer(at.pointer, name);
            let inner = At { pointer: &pointer, depth: at.depth };
            self.count(inner, 1, name.len())?;
            if are_patterns {
                self.check_pattern(name, inner)?;
            }
            lowered.insert(name.clone(), self.schema(schema, inner)?);
        }
        Ok(Value::Object(lowered))
    }

    fn names(&mut self, value: &Value, at: At<'_>) -> Result<Value, ConstrainError> {
        let Some(list) = value.as_array().filter(|list| list.iter().all(Value::is_string)) else {
            return self.fail(at, "wanted a list of names");
        };
        let num_bytes = list.iter().filter_map(Value::as_str).map(str::len).sum();
        self.count(at, list.len(), num_bytes)?;
        Ok(value.clone())
    }

    /// A bound that no number reaches that a model may write is moved to the last that it may.
    fn bound(&self, key: &str, value: &Value, at: At<'_>) -> Result<Value, ConstrainError> {
        let Some(bound) = value.as_f64() else { return self.fail(at, "wanted a number") };
        let is_lower = key.ends_with("inimum");
        let beyond = if is_lower { -bound } else { bound };
        match () {
            () if beyond >= MAX_BOUND => Ok(json!(if is_lower { -MAX_BOUND } else { MAX_BOUND } as i64)),
            () if beyond <= -MAX_BOUND => {
                self.fail(at, format!("wanted numbers between {MAX_BOUND:e} and -{MAX_BOUND:e}"))
            }
            () => Ok(value.clone()),
        }
    }

    fn multiple_of(&self, value: &Value, at: At<'_>) -> Result<Value, ConstrainError> {
        let digits = value.to_string().replace('.', "");
        let fits = digits.parse::<u32>().is_ok_and(|digits| (1..=MAX_STEP).contains(&digits));
        if fits {
            Ok(value.clone())
        } else {
            self.fail(at, format!("wanted a number above 0 of digits up to {MAX_STEP}"))
        }
    }

    fn size(&self, key: &str, value: &Value, at: At<'_>) -> Result<Value, ConstrainError> {
        let whole = value.as_f64().filter(|size| size.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(size));
        let Some(size) = whole.map(|size| size as u64) else {
            return self.fail(at, format!("wanted a whole number from 0 to {}", u32::MAX));
        };
        match key {
            "minLength" if size > MAX_LENGTH => self.fail(at, format!("wanted at most {MAX_LENGTH}")),
            "maxLength" => Ok(size.min(MAX_LENGTH).into()),
            _ => Ok(size.into()),
        }
    }

    fn pattern(&mut self, value: &Value, at: At<'_>) -> Result<Value, ConstrainError> {
        let Some(text) = value.as_str() else { return self.fail(at, "wanted a text") };
        self.check_pattern(text, at)?;
        Ok(value.clone())
    }

    fn check_pattern(&mut self, text: &str, at: At<'_>) -> Result<(), ConstrainError> {
        self.count(at, 1, text.len())?;
        pattern::check(text).or_else(|problem| self.fail(at, problem))
    }

    fn reference(&mut self, value: &Value, at: At<'_>) -> Result<Value, ConstrainError> {
        let Some(text) = value.as_str() else { return self.fail(at, "wanted a text") };
        match self.references.name_of(self.root, text) {
            Some(name) => Ok(Value::String(format!("#/$defs/{name}"))),
            None => self.fail(at, format!("{text:?} is nowhere in this schema: wanted # or #/a/path")),
        }
    }

    fn literal(&mut self, key: &str, value: &Value, at: At<'_>) -> Result<Value, ConstrainError> {
        if key == "enum" && value.as_array().is_none_or(Vec::is_empty) {
            return self.fail(at, "wanted a list of at least one value");
        }
        self.count_value(value, at, 0)?;
        Ok(value.clone())
    }

    fn count_value(&mut self, value: &Value, at: At<'_>, depth: usize) -> Result<(), ConstrainError> {
        if depth > MAX_DEPTH {
            return self.too_complex(format!("a value nested deeper than {MAX_DEPTH} at {}", shown(at.pointer)));
        }
        match value {
            Value::Array(list) => list.iter().try_for_each(|value| self.count_value(value, at, depth + 1)),
            Value::Object(map) => map.iter().try_for_each(|(name, value)| {
                self.count(at, 0, name.len())?;
                self.count_value(value, at, depth + 1)
            }),
            Value::String(text) => self.count(at, 1, text.len()),
            Value::Number(number) if !is_exact(number) => {
                self.fail(at, format!("{number} cannot be followed exactly: wanted a number between -2^53 and 2^53"))
            }
            _ => self.count(at, 1, 0),
        }
    }
}

/// The grammar's compiler reads constants as floats: a larger whole number would become another one, and the smallest of
/// all has no opposite, which it looks for without end.
fn is_exact(number: &serde_json::Number) -> bool {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(whole), _, _) => whole.unsigned_abs() <= MAX_EXACT,
        (None, Some(whole), _) => whole <= MAX_EXACT,
        (None, None, float) => float.is_some_and(|float| float.abs() <= MAX_EXACT as f64),
    }
}

/// A pattern beside a format says more than it, and stands alone.
fn format(value: &Value, map: &Map<String, Value>, out: &mut Map<String, Value>) {
    if map.contains_key("pattern") {
        return;
    }
    match value.as_str().and_then(formats::enforced) {
        Some(Enforced::Pattern(text)) => out.insert("pattern".to_owned(), text.into()),
        Some(Enforced::Known) => out.insert("format".to_owned(), value.clone()),
        None => None,
    };
}

/// A refused keyword that restricts nothing.
fn is_harmless(key: &str, value: &Value) -> bool {
    match key {
        "uniqueItems" => value == &Value::Bool(false),
        "unevaluatedProperties" | "unevaluatedItems" | "contains" => value == &Value::Bool(true),
        "minProperties" => value.as_u64() == Some(0),
        "dependentRequired" | "dependentSchemas" | "dependencies" => value.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}
