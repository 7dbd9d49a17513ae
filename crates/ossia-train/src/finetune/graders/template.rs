//! Texts with places to fill: `{{item.answer}}`, `{{ item.facts[0].name }}`, `{{sample.output_text}}`,
//! `{{sample.output_json.total}}`, `{{sample.output_tools[0].function.arguments}}`.

use serde_json::Value;

use super::Sample;
use super::description::shown;
use super::error::{Error, Result};

/// What stands in the places comes from an item and from what the model made of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub item: &'a Value,
    pub sample: &'a Sample,
}

/// A text with places.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template {
    /// Where it stands in the description.
    at: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Place(Place),
}

#[derive(Debug, Clone, PartialEq)]
struct Place {
    /// As it is written, without the braces.
    path: String,
    source: Source,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Source {
    Item,
    Text,
    Json,
    Tools,
}

/// A step into a JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl Template {
    /// Reads a template. Fails where a place is not closed, or leads nowhere.
    pub fn parse(text: &str, at: &str) -> Result<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((place, behind)) = after.split_once("}}") else {
                return Err(Error::field(at, "}} after {{", format!("{text:?}")));
            };
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Place(Place::parse(place.trim(), at)?));
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self { at: at.to_owned(), parts })
    }

    /// The text with all places filled; the name of the place that is missing in the sample where one is.
    pub fn fill(&self, context: Context) -> std::result::Result<String, String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Place(place) => text.push_str(&plain(&place.value(context)?)),
            }
        }
        Ok(text)
    }

    /// The value itself where the template is a place alone, else its text.
    pub fn value(&self, context: Context) -> std::result::Result<Value, String> {
        match self.parts.as_slice() {
            [Part::Place(place)] => place.value(context),
            _ => self.fill(context).map(Value::String),
        }
    }

    /// Fails where `item` lacks what the template takes from it.
    pub fn check(&self, item: &Value) -> Result<()> {
        for part in &self.parts {
            let Part::Place(place) = part else { continue };
            if place.source == Source::Item && follow(item, &place.steps).is_none() {
                return Err(Error::Item { path: place.path.clone(), at: self.at.clone() });
            }
        }
        Ok(())
    }
}

impl Place {
    fn parse(path: &str, at: &str) -> Result<Self> {
        let wanted = "a place such as {{item.answer}}, {{sample.output_text}}, {{sample.output_json.x}} or \
                      {{sample.output_tools[0].function.name}}";
        let wrong = || Error::field(at, wanted, format!("{{{{{path}}}}}"));
        let steps = steps(path).ok_or_else(wrong)?;
        let [Step::Key(root), rest @ ..] = steps.as_slice() else { return Err(wrong()) };
        let (source, rest) = match (root.as_str(), rest) {
            ("item", rest) => (Source::Item, rest),
            ("sample", [Step::Key(field), rest @ ..]) => match (field.as_str(), rest) {
                ("output_text", []) => (Source::Text, rest),
                ("output_json", rest) => (Source::Json, rest),
                ("output_tools", rest) => (Source::Tools, rest),
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        };
        Ok(Self { path: path.to_owned(), source, steps: rest.to_vec() })
    }

    fn value(&self, context: Context) -> std::result::Result<Value, String> {
        let Context { item, sample } = context;
        let found = match self.source {
            Source::Item => follow(item, &self.steps).cloned(),
            Source::Text => Some(Value::String(sample.text.clone())),
            Source::Json => sample.json.as_ref().and_then(|json| follow(json, &self.steps)).cloned(),
            Source::Tools => follow(&sample.tools, &self.steps).cloned(),
        };
        found.ok_or_else(|| format!("there is no {}", self.path))
    }
}

/// A path as steps: names of letters, digits, _ and -, and places in lists.
pub(super) fn steps(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let (name, indices) = match part.find('[') {
            Some(start) => part.split_at(start),
            None => (part, ""),
        };
        let allowed = |c: char| c.is_alphanumeric() || "_-$".contains(c);
        if name.is_empty() || !name.chars().all(allowed) {
            return None;
        }
        steps.push(Step::Key(name.to_owned()));
        let mut rest = indices;
        while !rest.is_empty() {
            let (index, behind) = rest.strip_prefix('[')?.split_once(']')?;
            steps.push(Step::Index(index.parse().ok()?));
            rest = behind;
        }
    }
    Some(steps)
}

/// The value at the end of a path.
pub(super) fn follow<'v>(value: &'v Value, steps: &[Step]) -> Option<&'v Value> {
    steps.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Index(index) => value.get(index),
    })
}

/// A text as it is, everything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether two values mean the same: numbers by their value, and a text is the number or word that it spells.
pub(super) fn same(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a == b),
        (Value::String(a), Value::String(b)) => a == b,
        (Value::String(text), other) | (other, Value::String(text)) => {
            !other.is_object() && !other.is_array() && *text == shown(other)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fill(template: &str, item: &Value, sample: &Sample) -> std::result::Result<String, String> {
        Template::parse(template, "t").unwrap().fill(Context { item, sample })
    }

    #[test]
    fn places_are_filled() {
        let item = json!({"a": "x", "n": 1.5, "list": [{"k": true}, [7]], "o": {"b": null}});
        let sample = Sample::of_text("{\"total\": 3}");
        let fill = |template: &str| fill(template, &item, &sample);
        assert_eq!(fill("{{item.a}}").unwrap(), "x");
        assert_eq!(fill("<{{ item.n }}|{{item.list[0].k}}|{{item.list[1][0]}}>").unwrap(), "<1.5|true|7>");
        assert_eq!(fill("{{item.o}} {{item.o.b}}").unwrap(), "{\"b\":null} null");
        assert_eq!(fill("{{sample.output_text}}").unwrap(), "{\"total\": 3}");
        assert_eq!(fill("{{sample.output_json.total}}").unwrap(), "3");
        assert_eq!(fill("no place }} {").unwrap(), "no place }} {");
        assert_eq!(fill("{{sample.output_json.none}}").unwrap_err(), "there is no sample.output_json.none");
        assert_eq!(fill("{{sample.output_tools[0]}}").unwrap_err(), "there is no sample.output_tools[0]");
        let braces = json!({"a": "{{item.n}}"});
        let once = Template::parse("{{item.a}}", "t").unwrap();
        assert_eq!(once.fill(Context { item: &braces, sample: &sample }).unwrap(), "{{item.n}}", "filled once");
    }

    #[test]
    fn wrong_templates_and_items_are_named() {
        let wrong = ["{{item.a", "{{}}", "{{other.x}}", "{{sample}}", "{{sample.x}}", "{{item.a[x]}}", "{{item..a}}"];
        for template in wrong {
            assert!(Template::parse(template, "grader.input").is_err(), "{template}");
        }
        let template = Template::parse("{{item.a.b}}", "grader.input").unwrap();
        let error = template.check(&json!({"a": 1})).unwrap_err().to_string();
        assert_eq!(error, "the item has no item.a.b, which the grader's grader.input takes");
        template.check(&json!({"a": {"b": null}})).unwrap();
    }

    #[test]
    fn values_are_compared_by_meaning() {
        for (a, b) in [
            (json!(1), json!(1.0)),
            (json!("1"), json!(1)),
            (json!(true), json!("true")),
            (json!([1, {"a": 2.0}]), json!([1.0, {"a": 2}])),
            (json!({"a": 1, "b": 2}), json!({"b": 2, "a": 1})),
        ] {
            assert!(same(&a, &b) && same(&b, &a), "{a} {b}");
        }
        for (a, b) in
            [(json!(1), json!(2)), (json!("a"), json!("A")), (json!([1]), json!([1, 2])), (json!(null), json!(0))]
        {
            assert!(!same(&a, &b), "{a} {b}");
        }
    }
}
