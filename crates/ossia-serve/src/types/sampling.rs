//! Generation controls, the same in every API: each in OpenAI's range, checked before anything is computed.

use std::collections::BTreeMap;

use ossia_kernels::ops::sample::Params;
use ossia_text::harmony::Effort;

use super::fields::TextOr;
use crate::error::ApiError;

/// The most answers to one prompt.
pub const MOST_CHOICES: i64 = 16;
/// The most stop texts, and the longest of them in bytes.
const MOST_STOPS: usize = 4;
const LONGEST_STOP: usize = 1024;
/// The most tokens with a bias.
const MOST_BIASES: usize = 1024;

/// What a client may say about how tokens are chosen; every field is optional.
#[derive(Debug, Clone, Default)]
pub struct Controls {
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// 0 or -1 (off) and up.
    pub top_k: Option<i64>,
    /// 0 to 1.
    pub min_p: Option<f64>,
    /// -2 to 2.
    pub presence_penalty: Option<f64>,
    /// -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// Above 0, at most 2.
    pub repetition_penalty: Option<f64>,
    /// Token ids, as texts, and -100 to 100.
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// Any.
    pub seed: Option<i64>,
    /// 0 to 20, or None for no log probabilities.
    pub top_logprobs: Option<i64>,
}

impl Controls {
    /// The parameters, for a model that asks for `temperature` where the client asks for none; `fresh` is the seed then.
    pub fn params(&self, temperature: f32, fresh: u64) -> Result<Params, ApiError> {
        let number = |value: Option<f64>, name, least, most, default| number(value, name, least, most, default);
        let top_p = number(self.top_p, "top_p", 0.0, 1.0, 1.0)?;
        Ok(Params {
            temperature: number(self.temperature, "temperature", 0.0, 2.0, temperature)?,
            // 0 keeps the likeliest token, as the smallest share does.
            top_p: top_p.max(f32::MIN_POSITIVE),
            top_k: integer(self.top_k, "top_k", -1, i64::from(u32::MAX), 0)?.max(0) as usize,
            min_p: number(self.min_p, "min_p", 0.0, 1.0, 0.0)?,
            repetition_penalty: number(self.repetition_penalty, "repetition_penalty", 0.01, 2.0, 1.0)?,
            presence_penalty: number(self.presence_penalty, "presence_penalty", -2.0, 2.0, 0.0)?,
            frequency_penalty: number(self.frequency_penalty, "frequency_penalty", -2.0, 2.0, 0.0)?,
            logit_bias: self.biases()?,
            seed: self.seed.map_or(fresh, i64::cast_unsigned),
            top_logprobs: match self.top_logprobs {
                None => None,
                some => Some(integer(some, "top_logprobs", 0, 20, 0)? as usize),
            },
        })
    }

    fn biases(&self) -> Result<Vec<(u32, f32)>, ApiError> {
        let biases = self.logit_bias.iter().flatten();
        if biases.clone().count() > MOST_BIASES {
            return Err(ApiError::invalid("logit_bias", format!("wanted at most {MOST_BIASES} tokens")));
        }
        biases
            .map(|(token, bias)| {
                let token: u32 = token.parse().map_err(|_| {
                    ApiError::invalid("logit_bias", format!("wanted token ids as keys, found {token:?}"))
                })?;
                Ok((token, number(Some(*bias), "logit_bias", -100.0, 100.0, 0.0)?))
            })
            .collect()
    }
}

/// A number within its range, or the default.
pub fn number(value: Option<f64>, name: &str, least: f64, most: f64, default: f32) -> Result<f32, ApiError> {
    match value {
        None => Ok(default),
        // Not-a-number lies in no range.
        Some(value) if (least..=most).contains(&value) => Ok(value as f32),
        Some(value) => Err(ApiError::invalid(name, format!("{name}: wanted {least} to {most}, found {value}"))),
    }
}

/// A whole number within its range, or the default.
pub fn integer(value: Option<i64>, name: &str, least: i64, most: i64, default: i64) -> Result<i64, ApiError> {
    match value {
        None => Ok(default),
        Some(value) if (least..=most).contains(&value) => Ok(value),
        Some(value) => Err(ApiError::invalid(name, format!("{name}: wanted {least} to {most}, found {value}"))),
    }
}

/// The stop texts of `stop`: a text or at most four.
pub fn stops(stop: Option<TextOr<String>>) -> Result<Vec<String>, ApiError> {
    let texts = match stop {
        None => Vec::new(),
        Some(TextOr::Text(text)) => vec![text],
        Some(TextOr::List(texts)) => texts,
    };
    if texts.len() > MOST_STOPS {
        return Err(ApiError::invalid(
            "stop",
            format!("stop: wanted at most {MOST_STOPS} texts, found {}", texts.len()),
        ));
    }
    match texts.iter().find(|text| text.len() > LONGEST_STOP) {
        Some(_) => Err(ApiError::invalid("stop", format!("stop: wanted texts of at most {LONGEST_STOP} bytes"))),
        None => Ok(texts),
    }
}

/// How long to think, and whether at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thinking {
    /// What the system message says.
    pub effort: Effort,
    /// False where analysis must not come.
    pub allowed: bool,
}

/// Reads an effort; the words beyond gpt-oss' three mean the nearest, `none` also forbids thinking.
pub fn thinking(effort: Option<&str>, param: &str) -> Result<Thinking, ApiError> {
    let (effort, allowed) = match effort {
        None | Some("medium" | "default") => (Effort::Medium, true),
        Some("low" | "minimal") => (Effort::Low, true),
        Some("high" | "xhigh" | "max") => (Effort::High, true),
        Some("none") => (Effort::Low, false),
        Some(other) => {
            let wanted = "none, minimal, low, medium, high, xhigh or max";
            return Err(ApiError::invalid(param, format!("{param}: wanted {wanted}, found {other:?}")));
        }
    };
    Ok(Thinking { effort, allowed })
}

#[cfg(test)]
mod tests {
    use super::{Controls, stops, thinking};
    use crate::types::fields::TextOr;

    #[test]
    fn defaults_are_the_models_own() {
        let params = Controls::default().params(0.7, 5).unwrap();
        assert_eq!((params.temperature, params.top_p, params.seed, params.top_logprobs), (0.7, 1.0, 5, None));
        params.check(100).unwrap();
    }

    /// Every numeric field at its extremes: a value or an error that names the field, and what passes the kernel takes.
    #[test]
    fn extremes() {
        let numbers = [f64::NAN, f64::INFINITY, -f64::INFINITY, 1e308, -1e308, -0.0, 0.0, 1e-320, 2.0, 100.1, -2.0];
        let integers = [i64::MIN, -2, -1, 0, 1, 20, 21, i64::MAX];
        type SetNumber = fn(&mut Controls, f64);
        let set_number: [(&str, SetNumber); 7] = [
            ("temperature", |c, v| c.temperature = Some(v)),
            ("top_p", |c, v| c.top_p = Some(v)),
            ("min_p", |c, v| c.min_p = Some(v)),
            ("presence_penalty", |c, v| c.presence_penalty = Some(v)),
            ("frequency_penalty", |c, v| c.frequency_penalty = Some(v)),
            ("repetition_penalty", |c, v| c.repetition_penalty = Some(v)),
            ("logit_bias", |c, v| c.logit_bias = Some([("7".to_owned(), v)].into())),
        ];
        type SetInteger = fn(&mut Controls, i64);
        let set_integer: [(&str, SetInteger); 3] = [
            ("top_k", |c, v| c.top_k = Some(v)),
            ("seed", |c, v| c.seed = Some(v)),
            ("top_logprobs", |c, v| c.top_logprobs = Some(v)),
        ];
        let judge = |name: &str, controls: Controls| match controls.params(1.0, 0) {
            Ok(params) => params.check(100).unwrap(),
            Err(error) => assert_eq!(error.param(), Some(name)),
        };
        for (name, set) in set_number {
            for value in numbers {
                let mut controls = Controls::default();
                set(&mut controls, value);
                judge(name, controls);
            }
        }
        for (name, set) in set_integer {
            for value in integers {
                let mut controls = Controls::default();
                set(&mut controls, value);
                judge(name, controls);
            }
        }
    }

    #[test]
    fn words_and_lists_have_limits() {
        assert!(stops(Some(TextOr::List(vec!["a".into(); 5]))).is_err());
        assert!(stops(Some(TextOr::Text("a".repeat(1025)))).is_err());
        assert_eq!(stops(Some(TextOr::Text("a".into()))).unwrap(), ["a"]);
        assert!(!thinking(Some("none"), "reasoning_effort").unwrap().allowed);
        assert_eq!(thinking(Some("huge"), "reasoning_effort").unwrap_err().param(), Some("reasoning_effort"));
        let many = (0..1025).map(|n| (n.to_string(), 0.0)).collect();
        assert!(Controls { logit_bias: Some(many), ..Controls::default() }.params(1.0, 0).is_err());
        for key in ["x", "-1", "1.5", "4294967296", ""] {
            let bias = Some([(key.to_owned(), 1.0)].into());
            assert!(Controls { logit_bias: bias, ..Controls::default() }.params(1.0, 0).is_err(), "{key}");
        }
    }
}
