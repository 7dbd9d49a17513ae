//! A grader's description, read field by field: every error names the field, and keys that mean nothing are refused.

use serde_json::{Map, Value};

use super::error::{Error, Result};
use super::template::Template;

/// Characters of a value that an error shows.
const SHOWN: usize = 60;

/// An object and where it stands.
pub(super) struct Description<'v> {
    object: &'v Map<String, Value>,
    at: String,
}

/// The value as an error shows it.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

impl<'v> Description<'v> {
    pub fn of(value: &'v Value, at: &str) -> Result<Self> {
        let object = value.as_object().ok_or_else(|| Error::field(at, "an object", shown(value)))?;
        Ok(Self { object, at: at.to_owned() })
    }

    /// Where the field `key` stands.
    pub fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.at)
    }

    /// Fails where there is another key than `known`, a type and a name.
    pub fn only(&self, known: &[&str]) -> Result<()> {
        let is_known = |key: &&String| ["type", "name"].contains(&key.as_str()) || known.contains(&key.as_str());
        match self.object.keys().find(|key| !is_known(key)) {
            Some(key) => Err(Error::field(&self.at, format!("only the keys {}", known.join(", ")), format!("{key:?}"))),
            None => Ok(()),
        }
    }

    /// A field that may be missing or null.
    pub fn get(&self, key: &str) -> Option<&'v Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    pub fn need(&self, key: &str, wanted: &str) -> Result<&'v Value> {
        self.get(key).ok_or_else(|| Error::field(&self.at(key), wanted, "nothing"))
    }

    pub fn wrong<T>(&self, key: &str, wanted: &str) -> Result<T> {
        let found = self.get(key).map_or_else(|| "nothing".to_owned(), shown);
        Err(Error::field(&self.at(key), wanted, found))
    }

    pub fn text(&self, key: &str) -> Result<&'v str> {
        self.need(key, "a text")?.as_str().map_or_else(|| self.wrong(key, "a text"), Ok)
    }

    /// A template that must be there.
    pub fn template(&self, key: &str) -> Result<Template> {
        Template::parse(self.text(key)?, &self.at(key))
    }

    /// A template, or what the model has said.
    pub fn input(&self) -> Result<Template> {
        match self.get("input") {
            Some(_) => self.template("input"),
            None => Template::parse("{{sample.output_text}}", &self.at("input")),
        }
    }

    /// A number in a range, or `usual` where there is none.
    pub fn number(&self, key: &str, usual: f64, range: std::ops::RangeInclusive<f64>) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(usual) };
        let number = value.as_f64().filter(|number| range.contains(number));
        number.map_or_else(|| self.wrong(key, &format!("a number from {} to {}", range.start(), range.end())), Ok)
    }
}
