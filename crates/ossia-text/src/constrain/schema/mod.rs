//! A user's JSON schema to the schema that is compiled: only keywords that are enforced, references resolved and
//! rewritten, annotations dropped; or an error that names the place.
//!
//! Nothing that restricts is dropped in silence. Two things are read more narrowly than JSON schema does, so that a
//! small model cannot ramble: an object with `properties` and nothing said of others is closed, and properties come in
//! the schema's order. Whatever comes out is valid under the user's own schema.

mod formats;
mod keywords;
mod one_of;
mod productive;
mod references;

use serde_json::{Map, Value, json};

use super::error::{ConstrainError, Place, shown};
use references::References;

/// The deepest nesting of schemas in schemas, and of values in `const` and `enum`.
const MAX_DEPTH: usize = 64;
/// Most schemas, names and enum values in all.
const MAX_NODES: usize = 20_000;
/// Most bytes of names, values and patterns in all.
const MAX_BYTES: usize = 256 << 10;
/// Most properties of one object that may be left out: each may come next, which costs at every token.
const MAX_OPTIONAL: usize = 500;

/// The largest multiple where a schema gives no bound.
const MAX_MULTIPLE: i64 = 1_000_000_000_000;

/// What may stand between a document's tokens: one space, or a line break with indentation. Small models
/// would otherwise write spaces without end.
const WHITESPACE: &str = r"\x20|\r?\n(\x20{0,24}|\t{0,12})";

/// The schema to compile for a user's schema. `object` demands an object as the document.
pub(super) fn lower(place: &Place, schema: &Value, object: bool) -> Result<Value, ConstrainError> {
    let mut lowering =
        Lowering { place, root: schema, references: References::default(), closes: false, num_nodes: 0, num_bytes: 0 };
    lowering.closes = !combines(schema, 0);
    let mut out = lowering.document(schema, object)?;
    let options = json!({"whitespace_pattern": WHITESPACE});
    if let Value::Object(map) = &mut out {
        map.insert("x-guidance".to_owned(), options);
    }
    Ok(out)
}

/// The schema of any object.
pub(super) fn any_object() -> Value {
    json!({"type": "object", "x-guidance": {"whitespace_pattern": WHITESPACE}})
}

/// Walks a schema once.
struct Lowering<'s> {
    place: &'s Place,
    root: &'s Value,
    references: References<'s>,
    /// Objects that do not speak of other properties are closed.
    closes: bool,
    num_nodes: usize,
    num_bytes: usize,
}

/// Where in the schema.
#[derive(Clone, Copy)]
struct At<'p> {
    pointer: &'p str,
    depth: usize,
}

impl<'s> Lowering<'s> {
    fn document(&mut self, schema: &'s Value, object: bool) -> Result<Value, ConstrainError> {
        let root = At { pointer: "", depth: 0 };
        let mut out = self.schema(schema, root)?;
        if out == Value::Bool(true) {
            out = json!({});
        }
        let Value::Object(map) = &mut out else { return self.fail(root, "false allows nothing at all") };
        if object {
            self.demand_object(map)?;
        }
        let mut definitions = Map::new();
        while let Some((name, pointer, found)) = self.references.next() {
            let lowered = self.schema(found, At { pointer: &pointer, depth: 0 })?;
            definitions.insert(name, lowered);
        }
        if let Some(name) = productive::first_endless(&out, &definitions) {
            let pointer = self.references.pointer_of(&name);
            return self.fail(At { pointer, depth: 0 }, "can never be complete: it is false, or requires itself");
        }
        if let (false, Value::Object(map)) = (definitions.is_empty(), &mut out) {
            map.insert("$defs".to_owned(), Value::Object(definitions));
        }
        Ok(out)
    }

    fn demand_object(&self, map: &mut Map<String, Value>) -> Result<(), ConstrainError> {
        let elsewhere = ["$ref", "anyOf", "oneOf", "allOf", "enum", "const"];
        match map.get("type") {
            Some(Value::String(name)) if name == "object" => Ok(()),
            None if elsewhere.iter().any(|key| map.contains_key(*key)) => Ok(()),
            None => {
                map.insert("type".to_owned(), "object".into());
                Ok(())
            }
            Some(_) => self.fail(At { pointer: "/type", depth: 0 }, "a tool's arguments are of type \"object\""),
        }
    }

    /// Lowers one schema.
    fn schema(&mut self, schema: &'s Value, at: At<'_>) -> Result<Value, ConstrainError> {
        self.count(at, 1, 0)?;
        match schema {
            Value::Bool(_) => Ok(schema.clone()),
            Value::Object(_) if at.depth >= MAX_DEPTH => {
                self.too_complex(format!("schemas nested deeper than {MAX_DEPTH} (at {})", shown(at.pointer)))
            }
            Value::Object(map) => {
                let mut out = Map::new();
                for (key, value) in map {
                    let pointer = child_pointer(at.pointer, key);
                    let inner = At { pointer: &pointer, depth: at.depth + 1 };
                    self.keyword(key, value, map, inner, &mut out)?;
                }
                self.close(map, &mut out);
                bound_multiples(&mut out);
                self.check_optional(&out, at)?;
                Ok(unwrap_single(out, map))
            }
            _ => self.fail(at, "a schema is an object, true or false"),
        }
    }

    /// Forbids other properties where a schema lists some and says nothing of others.
    fn close(&self, map: &Map<String, Value>, out: &mut Map<String, Value>) {
        let speaks = ["additionalProperties", "patternProperties", "anyOf", "oneOf", "$ref", "allOf", "minProperties"];
        let Some(Value::Object(properties)) = map.get("properties") else { return };
        let required = map.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let all_known = required.into_iter().all(|name| properties.contains_key(name));
        if self.closes && all_known && !speaks.iter().any(|key| map.contains_key(*key)) {
            out.insert("additionalProperties".to_owned(), false.into());
        }
    }

    fn check_optional(&self, out: &Map<String, Value>, at: At<'_>) -> Result<(), ConstrainError> {
        let num_properties = out.get("properties").and_then(Value::as_object).map_or(0, Map::len);
        let num_required = out.get("required").and_then(Value::as_array).map_or(0, Vec::len);
        let found = num_properties.saturating_sub(num_required);
        if found <= MAX_OPTIONAL {
            return Ok(());
        }
        self.too_complex(format!("{found} optional properties at {}, at most {MAX_OPTIONAL}", shown(at.pointer)))
    }

    /// Adds to what the schema holds.
    fn count(&mut self, at: At<'_>, num_nodes: usize, num_bytes: usize) -> Result<(), ConstrainError> {
        self.num_nodes += num_nodes;
        self.num_bytes += num_bytes;
        if self.num_nodes > MAX_NODES {
            return self
                .too_complex(format!("more than {MAX_NODES} schemas, names and values (at {})", shown(at.pointer)));
        }
        if self.num_bytes > MAX_BYTES {
            return self
                .too_complex(format!("more than {MAX_BYTES} bytes of names and values (at {})", shown(at.pointer)));
        }
        Ok(())
    }

    fn fail<T>(&self, at: At<'_>, problem: impl Into<String>) -> Result<T, ConstrainError> {
        let (place, pointer) = (self.place.clone(), at.pointer.to_owned());
        Err(ConstrainError::Schema { place, pointer, problem: problem.into() })
    }

    fn too_complex<T>(&self, problem: String) -> Result<T, ConstrainError> {
        Err(ConstrainError::TooComplex { place: self.place.clone(), problem })
    }
}

/// Multiples of a number stay where every reader's arithmetic is exact: none is past it that a model would mean.
fn bound_multiples(out: &mut Map<String, Value>) {
    let bounds = ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"];
    if out.contains_key("multipleOf") && !bounds.iter().any(|key| out.contains_key(*key)) {
        out.insert("minimum".to_owned(), (-MAX_MULTIPLE).into());
        out.insert("maximum".to_owned(), MAX_MULTIPLE.into());
    }
}

/// The pointer of a key or index below another.
fn child_pointer(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// A schema that only wraps one other, as some libraries write references with a description, is the other. `nullable`
/// is OpenAPI's word for "or null".
fn unwrap_single(out: Map<String, Value>, map: &Map<String, Value>) -> Value {
    for key in ["allOf", "anyOf", "oneOf"] {
        let is_single = out.get(key).and_then(Value::as_array).is_some_and(|list| list.len() == 1);
        if let (true, 1, Some(Value::Array(mut list))) = (is_single, out.len(), out.get(key).cloned()) {
            return list.swap_remove(0);
        }
    }
    match map.get("nullable") {
        Some(Value::Bool(true)) => json!({"anyOf": [out, {"type": "null"}]}),
        _ => Value::Object(out),
    }
}

/// True where somewhere two schemas speak of one object, so that closing one would contradict the other.
fn combines(value: &Value, depth: usize) -> bool {
    if depth > 2 * MAX_DEPTH {
        return true;
    }
    match value {
        Value::Array(list) => list.iter().any(|value| combines(value, depth + 1)),
        Value::Object(map) => {
            let several = map.get("allOf").and_then(Value::as_array).is_some_and(|list| list.len() > 1);
            let applies = ["$ref", "anyOf", "oneOf", "allOf"].iter().any(|key| map.contains_key(*key));
            let speaks = ["properties", "required", "additionalProperties", "patternProperties"];
            let itself = speaks.iter().any(|key| map.contains_key(*key));
            let twice = map.contains_key("$ref") && (map.contains_key("anyOf") || map.contains_key("oneOf"));
            several || applies && itself || twice || map.values().any(|value| combines(value, depth + 1))
        }
        _ => false,
    }
}
