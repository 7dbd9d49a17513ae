//! Fields that may be written in more than one way: a text or a list, a word or an object. Read by hand rather than as
//! untagged enums, so that an error names the place and what was wanted.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A text, or a list of parts.
#[derive(Debug, Clone, PartialEq)]
pub enum TextOr<T> {
    /// The text.
    Text(String),
    /// The list.
    List(Vec<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = TextOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(TextOr::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(list)).map(TextOr::List)
            }
        }
        deserializer.deserialize_any(Reader(PhantomData))
    }
}

/// A whole number, also written as 40.0: what Ollama reads, and so what some of its clients write.
pub fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    struct Reader;
    impl Visitor<'_> for Reader {
        type Value = Option<i64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an integer")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Option<i64>, E> {
            Ok(None)
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<Option<i64>, E> {
            Ok(Some(number))
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Option<i64>, E> {
            i64::try_from(number).map(Some).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<Option<i64>, E> {
            // Below 2^53 every whole number is exact.
            match number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
                true => Ok(Some(number as i64)),
                false => Err(E::invalid_type(de::Unexpected::Float(number), &self)),
            }
        }
    }
    deserializer.deserialize_any(Reader)
}

/// A word, or an object.
#[derive(Debug, Clone, PartialEq)]
pub enum WordOr<T> {
    /// The word.
    Word(String),
    /// The object.
    Object(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for WordOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = WordOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an object")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(WordOr::Word(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(WordOr::Object)
            }
        }
        deserializer.deserialize_any(Reader(PhantomData))
    }
}

/// The prompt of a completion: text, texts, token ids, or lists of token ids.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompts {
    /// One or more texts.
    Texts(Vec<String>),
    /// One or more lists of ids.
    Tokens(Vec<Vec<u32>>),
}

/// An entry of a prompt's list.
enum Entry {
    Text(String),
    Token(u32),
    Tokens(Vec<u32>),
}

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = match TextOr::<Entry>::deserialize(deserializer)? {
            TextOr::Text(text) => return Ok(Self::Texts(vec![text])),
            TextOr::List(list) => list,
        };
        let (mut texts, mut tokens, mut lists) = (Vec::new(), Vec::new(), Vec::new());
        for entry in list {
            match entry {
                Entry::Text(text) => texts.push(text),
                Entry::Token(token) => tokens.push(token),
                Entry::Tokens(list) => lists.push(list),
            }
        }
        match (texts.is_empty(), tokens.is_empty(), lists.is_empty()) {
            (false, true, true) => Ok(Self::Texts(texts)),
            (true, false, true) => Ok(Self::Tokens(vec![tokens])),
            (true, true, false) => Ok(Self::Tokens(lists)),
            (true, true, true) => Err(de::Error::custom("the array is empty: wanted texts or token ids")),
            _ => Err(de::Error::custom("wanted texts, token ids, or arrays of token ids, found a mixture")),
        }
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a token id or an array of token ids")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Entry, E> {
                Ok(Entry::Text(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, token: u64) -> Result<Entry, E> {
                let wanted = || E::invalid_value(de::Unexpected::Unsigned(token), &self);
                u32::try_from(token).map(Entry::Token).map_err(|_| wanted())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Entry, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(list)).map(Entry::Tokens)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl<T: JsonSchema> JsonSchema for TextOr<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("TextOr{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": item }] })
    }
}

impl<T: JsonSchema> JsonSchema for WordOr<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("WordOr{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let object = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "type": "string" }, object] })
    }
}

impl JsonSchema for Prompts {
    fn schema_name() -> Cow<'static, str> {
        "Prompts".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let (text, token) = (serde_json::json!({ "type": "string" }), serde_json::json!({ "type": "integer" }));
        let list = |of: &serde_json::Value| serde_json::json!({ "type": "array", "items": of });
        json_schema!({ "anyOf": [text, list(&text), list(&token), list(&list(&token))] })
    }
}

#[cfg(test)]
mod tests {
    use super::{Prompts, TextOr, WordOr};

    #[test]
    fn prompts_in_four_forms() {
        let read = |text: &str| serde_json::from_str::<Prompts>(text);
        assert_eq!(read(r#""a""#).unwrap(), Prompts::Texts(vec!["a".into()]));
        assert_eq!(read(r#"["a","b"]"#).unwrap(), Prompts::Texts(vec!["a".into(), "b".into()]));
        assert_eq!(read("[1,2]").unwrap(), Prompts::Tokens(vec![vec![1, 2]]));
        assert_eq!(read("[[1],[2,3]]").unwrap(), Prompts::Tokens(vec![vec![1], vec![2, 3]]));
        for wrong in ["[]", r#"["a",1]"#, "[1,[2]]", "[-1]", "[4294967296]", "[1.5]", "{}", "1", "[[[1]]]"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn whole_numbers_as_floats() {
        let read = |text: &str| super::whole(&mut serde_json::Deserializer::from_str(text));
        for (text, number) in [("40", Some(40)), ("40.0", Some(40)), ("-2e0", Some(-2)), ("null", None)] {
            assert_eq!(read(text).unwrap(), number, "{text}");
        }
        for wrong in ["1.5", "1e300", "-1e16", "18446744073709551615", "\"1\"", "true", "[1]"] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("an integer"), "{wrong}: {error}");
        }
    }

    #[test]
    fn other_types_are_named_in_the_error() {
        let error = serde_json::from_str::<TextOr<u32>>("7").unwrap_err().to_string();
        assert!(error.contains("a string or an array"), "{error}");
        let error = serde_json::from_str::<WordOr<u32>>("[]").unwrap_err().to_string();
        assert!(error.contains("a string or an object"), "{error}");
        assert_eq!(serde_json::from_str::<TextOr<u32>>("[1]").unwrap(), TextOr::List(vec![1]));
    }
}
