//! The tokens that a batch has taken: the sum of its answers' `usage`, whichever API they are of.

use serde_json::{Value, json};

/// Tokens, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    input: u64,
    cached: u64,
    output: u64,
    reasoning: u64,
}

impl Spent {
    /// Adds an answer's `usage`, in the words of chat or of responses.
    pub fn add(&mut self, usage: &Value) {
        let count = |paths: [&str; 2]| paths.iter().find_map(|path| usage.pointer(path)?.as_u64()).unwrap_or(0);
        self.input += count(["/input_tokens", "/prompt_tokens"]);
        self.cached += count(["/input_tokens_details/cached_tokens", "/prompt_tokens_details/cached_tokens"]);
        self.output += count(["/output_tokens", "/completion_tokens"]);
        self.reasoning +=
            count(["/output_tokens_details/reasoning_tokens", "/completion_tokens_details/reasoning_tokens"]);
    }

    /// The batch's `usage`.
    pub fn shown(&self) -> Value {
        json!({
            "input_tokens": self.input, "input_tokens_details": { "cached_tokens": self.cached },
            "output_tokens": self.output, "output_tokens_details": { "reasoning_tokens": self.reasoning },
            "total_tokens": self.input + self.output,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Spent;

    #[test]
    fn both_apis_words_are_counted() {
        let mut spent = Spent::default();
        spent.add(
            &json!({ "prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": { "cached_tokens": 8 },
            "completion_tokens_details": { "reasoning_tokens": 2 } }),
        );
        spent.add(&json!({ "input_tokens": 5, "output_tokens": 1, "input_tokens_details": { "cached_tokens": 4 },
            "output_tokens_details": { "reasoning_tokens": 1 } }));
        spent.add(&json!({ "prompt_tokens": 1, "completion_tokens": 1 }));
        spent.add(&json!(null));
        let wanted = json!({ "input_tokens": 16, "input_tokens_details": { "cached_tokens": 12 }, "output_tokens": 5,
            "output_tokens_details": { "reasoning_tokens": 3 }, "total_tokens": 21 });
        assert_eq!(spent.shown(), wanted);
    }
}
