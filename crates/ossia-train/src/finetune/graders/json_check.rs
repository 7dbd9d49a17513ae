//! An answer that is to be JSON: of a schema, or with certain fields.

use serde_json::Value;

use super::Score;
use super::description::{Description, shown};
use super::error::{Error, Result};
use super::schema;
use super::template::{Context, Step, Template, follow, same, steps};

/// `{"type": "json_check", "schema": {...}, "fields": {"name": "{{item.name}}", "lines[0].count": 3}, "partial": false}`.
///
/// An answer that is no JSON, or does not follow the schema, is worth 0. Fields are right where they mean the same as what
/// is wanted: numbers by value, texts to the letter. With `partial` the score is the share of fields that are right,
/// else all must be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct JsonCheck {
    input: Template,
    schema: Option<Value>,
    fields: Vec<Field>,
    partial: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Field {
    steps: Vec<Step>,
    wanted: Wanted,
}

#[derive(Debug, Clone, PartialEq)]
enum Wanted {
    Filled(Template),
    Value(Value),
}

impl JsonCheck {
    pub fn read(fields: &Description) -> Result<Self> {
        fields.only(&["input", "schema", "fields", "partial"])?;
        let schema = fields.get("schema").cloned();
        if let Some(schema) = &schema {
            schema::check(schema, &fields.at("schema"), 0)?;
        }
        let named = match fields.get("fields") {
            None => None,
            Some(Value::Object(named)) => Some(named),
            Some(_) => return fields.wrong("fields", "an object of fields and what they are to be"),
        };
        let mut read = Vec::new();
        for (path, wanted) in named.into_iter().flatten() {
            let at = format!("{}.{path}", fields.at("fields"));
            let steps = steps(path).ok_or_else(|| {
                Error::field(&at, "a path such as name or lines[0].count", shown(&path.as_str().into()))
            })?;
            let wanted = match wanted {
                Value::String(text) => Wanted::Filled(Template::parse(text, &at)?),
                other => Wanted::Value(other.clone()),
            };
            read.push(Field { steps, wanted });
        }
        let partial = match fields.get("partial") {
            None => false,
            Some(Value::Bool(partial)) => *partial,
            Some(_) => return fields.wrong("partial", "true or false"),
        };
        Ok(Self { input: fields.input()?, schema, fields: read, partial })
    }

    pub fn check(&self, item: &Value) -> Result<()> {
        self.input.check(item)?;
        self.fields.iter().try_for_each(|field| match &field.wanted {
            Wanted::Filled(template) => template.check(item),
            Wanted::Value(_) => Ok(()),
        })
    }

    pub fn grade(&self, context: Context) -> std::result::Result<Score, String> {
        let found = match self.input.value(context)? {
            Value::String(text) => {
                serde_json::from_str(text.trim()).map_err(|error| format!("the answer is not JSON: {error}"))?
            }
            value => value,
        };
        if self.schema.as_ref().is_some_and(|schema| !schema::follows(&found, schema)) {
            return Err("the answer does not follow the schema".to_owned());
        }
        let mut num_right = 0;
        for field in &self.fields {
            let wanted = match &field.wanted {
                Wanted::Filled(template) => template.value(context)?,
                Wanted::Value(value) => value.clone(),
            };
            num_right += usize::from(follow(&found, &field.steps).is_some_and(|found| same(found, &wanted)));
        }
        let all = self.fields.len();
        match self.partial && all > 0 {
            true => Ok(Score::of(num_right as f64 / all as f64)),
            false => Ok(Score::yes(num_right == all)),
        }
    }
}
