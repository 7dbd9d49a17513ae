//! Random JSON schemas, of the keywords that strict tools and formats use.

use serde_json::{Map, Value, json};

use super::Rng;

const NAMES: [&str; 12] =
    ["a", "b", "name", "city", "x y", "ünï", "\"q\"", "back\\slash", "a/b~c", "$ref", "type", "properties"];
const WORDS: [&str; 10] = ["red", "green", "", "a\"b", "line\nbreak", "ü", "日本", "null", "1", "🙂"];
const PATTERNS: [&str; 7] =
    ["^[a-z]+$", "^\\d{3}-\\d{4}$", "^(ab|cd){1,3}$", "x", "^#[0-9A-Fa-f]{6}$", "^\\w*$", "^[^\"\\\\]{2,5}$"];
const FORMATS: [&str; 10] =
    ["date", "time", "date-time", "duration", "uuid", "ipv4", "ipv6", "email", "hostname", "uri"];

/// A schema, perhaps with definitions, some of which refer to themselves.
pub fn random_schema(rng: &mut Rng) -> Value {
    let num_definitions = rng.below(3);
    let mut root = schema(rng, 4, num_definitions);
    if num_definitions > 0
        && let Value::Object(map) = &mut root
    {
        let definitions: Map<String, Value> = (0..num_definitions)
            .map(|i| {
                let inner = object(rng, 2, 0);
                let list = json!({"type": "array", "items": {"$ref": format!("#/$defs/D{i}")}, "maxItems": 2});
                let own = json!({"type": "object", "properties": {"own": inner, "more": list}, "required": ["own", "more"],
                    "additionalProperties": false});
                (format!("D{i}"), own)
            })
            .collect();
        map.insert("$defs".to_owned(), Value::Object(definitions));
    }
    root
}

fn schema(rng: &mut Rng, depth: usize, num_definitions: usize) -> Value {
    let mut out = match rng.below(if depth == 0 { 7 } else { 12 }) {
        0 => integer(rng),
        1 => number(rng),
        2 | 3 => string(rng),
        4 => json!({"type": "boolean"}),
        5 => json!({"type": rng.pick(&["null", "string", "number"])}),
        6 => enumeration(rng),
        7 if num_definitions > 0 => return json!({"$ref": format!("#/$defs/D{}", rng.below(num_definitions))}),
        7 | 8 => array(rng, depth, num_definitions),
        9 => any_of(rng, depth, num_definitions),
        _ => object(rng, depth, num_definitions),
    };
    if rng.below(4) == 0 {
        out["description"] = "words".into();
        out["default"] = Value::Null;
    }
    out
}

fn integer(rng: &mut Rng) -> Value {
    let least = rng.below(2000) as i64 - 1000;
    match rng.below(6) {
        0 => json!({"type": "integer"}),
        1 => json!({"type": "integer", "minimum": least}),
        2 => json!({"type": "integer", "exclusiveMaximum": least}),
        3 => json!({"type": "integer", "minimum": least, "maximum": least + rng.below(300) as i64}),
        4 => json!({"type": "integer", "multipleOf": 1 + rng.below(12)}),
        _ => json!({"const": least}),
    }
}

fn number(rng: &mut Rng) -> Value {
    let least = rng.below(2000) as f64 / 8.0 - 100.0;
    match rng.below(5) {
        0 => json!({"type": "number"}),
        1 => json!({"type": "number", "minimum": least}),
        2 => json!({"type": "number", "exclusiveMinimum": least, "maximum": least + 12.5}),
        3 => json!({"type": ["number", "null"], "maximum": least}),
        _ => json!({"type": "number", "minimum": 0, "maximum": 1}),
    }
}

fn string(rng: &mut Rng) -> Value {
    let least = rng.below(4);
    match rng.below(6) {
        0 => json!({"type": "string"}),
        1 => json!({"type": "string", "minLength": least, "maxLength": least + rng.below(20)}),
        2 => json!({"type": "string", "pattern": rng.pick(&PATTERNS)}),
        3 => json!({"type": "string", "format": rng.pick(&FORMATS)}),
        4 => json!({"type": ["string", "null"], "minLength": least}),
        _ => json!({"const": rng.pick(&WORDS)}),
    }
}

fn enumeration(rng: &mut Rng) -> Value {
    let num = 1 + rng.below(6);
    let words: Vec<Value> = (0..num).map(|i| json!(format!("{}{i}", rng.pick(&WORDS)))).collect();
    match rng.below(3) {
        0 => json!({"enum": [1, 2.5, null, true, rng.pick(&WORDS)]}),
        1 => json!({"type": "string", "enum": words}),
        _ => json!({"enum": words}),
    }
}

fn array(rng: &mut Rng, depth: usize, num_definitions: usize) -> Value {
    let items = schema(rng, depth - 1, num_definitions);
    let least = rng.below(3);
    match rng.below(4) {
        0 => json!({"type": "array", "items": items}),
        1 => json!({"type": "array", "items": items, "minItems": least, "maxItems": least + rng.below(4)}),
        2 => json!({"type": "array", "items": items, "minItems": least}),
        _ => json!({"type": "array", "prefixItems": [schema(rng, depth - 1, 0)], "items": items, "minItems": least}),
    }
}

fn any_of(rng: &mut Rng, depth: usize, num_definitions: usize) -> Value {
    let branches: Vec<Value> = (0..1 + rng.below(3)).map(|_| schema(rng, depth - 1, num_definitions)).collect();
    json!({"anyOf": branches})
}

fn object(rng: &mut Rng, depth: usize, num_definitions: usize) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for _ in 0..rng.below(5) {
        let name = rng.pick(&NAMES);
        properties.insert(name.to_owned(), schema(rng, depth.saturating_sub(1), num_definitions));
        if rng.below(3) > 0 && !required.contains(&json!(name)) {
            required.push(json!(name));
        }
    }
    let mut out = json!({"type": "object", "properties": properties, "required": required});
    match rng.below(4) {
        0 => out["additionalProperties"] = json!({"type": "integer"}),
        1 => {}
        _ => out["additionalProperties"] = false.into(),
    }
    out
}
