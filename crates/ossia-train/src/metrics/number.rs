//! Numbers in the log. JSON has no word for infinity or not-a-number and would keep them as `null`, from which nobody
//! could tell a loss that diverged from a loss that was not measured. They are kept as the strings "NaN", "inf", "-inf".

use serde::{Deserialize, Deserializer, Serializer, de};

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(f64),
    Word(String),
}

pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() { serializer.serialize_f64(*value) } else { serializer.collect_str(value) }
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    number(Written::deserialize(deserializer)?)
}

fn number<E: de::Error>(written: Written) -> Result<f64, E> {
    match written {
        Written::Number(value) => Ok(value),
        Written::Word(word) => match word.as_str() {
            "NaN" => Ok(f64::NAN),
            "inf" => Ok(f64::INFINITY),
            "-inf" => Ok(f64::NEG_INFINITY),
            _ => Err(E::custom(format!("wanted a number, \"NaN\", \"inf\" or \"-inf\", found \"{word}\""))),
        },
    }
}

/// The same for numbers that may be absent.
pub mod option {
    use super::Written;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Option::<Written>::deserialize(deserializer)?.map(super::number).transpose()
    }
}
