//! The model that is served, and its names.

use crate::error::ApiError;

/// What clients can know of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct ServedModel {
    /// Its id.
    pub id: String,
    /// Other names that mean it.
    pub aliases: Vec<String>,
    /// Seconds since 1970.
    pub created: u64,
    /// The temperature that it asks for.
    pub temperature: f32,
    /// Tokens that prompt and answer share.
    pub context: usize,
    /// Weights.
    pub num_parameters: u64,
    /// Of the files.
    pub num_bytes: u64,
    /// How the weights are stored, such as MXFP4.
    pub quantization: String,
}

impl ServedModel {
    /// The name to answer with, for what a request asks for: nothing, the id, or another of its names. Ollama's clients
    /// write `:latest` after a name.
    pub fn named(&self, asked: Option<&str>) -> Result<String, ApiError> {
        let Some(asked) = asked.filter(|asked| !asked.is_empty()) else { return Ok(self.id.clone()) };
        let bare = asked.strip_suffix(":latest").unwrap_or(asked);
        let known = self.names().any(|name| name == asked || name == bare);
        known.then(|| asked.to_owned()).ok_or_else(|| ApiError::ModelNotFound(asked.into()))
    }

    /// The id, then the aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.id.as_str()).chain(self.aliases.iter().map(String::as_str))
    }
}

/// Other names for a model of this name: without the organisation, and Ollama's way of writing sizes.
pub fn usual_aliases(id: &str) -> Vec<String> {
    let bare = id.rsplit('/').next().unwrap_or(id);
    let mut names = vec![bare.to_owned()];
    if let Some(size) = bare.strip_prefix("gpt-oss-").filter(|size| ["20b", "120b"].contains(size)) {
        names.extend([format!("openai/{bare}"), format!("gpt-oss:{size}")]);
        if size == "20b" {
            names.push("gpt-oss".to_owned());
        }
    }
    names.retain(|name| name != id);
    names
}

#[cfg(test)]
mod tests {
    use super::{ServedModel, usual_aliases};

    #[test]
    fn names_that_mean_it() {
        let model = ServedModel {
            id: "openai/gpt-oss-20b".into(),
            aliases: usual_aliases("openai/gpt-oss-20b"),
            created: 0,
            temperature: 1.0,
            context: 1,
            num_parameters: 1,
            num_bytes: 1,
            quantization: String::new(),
        };
        for name in ["openai/gpt-oss-20b", "gpt-oss-20b", "gpt-oss:20b", "gpt-oss", "gpt-oss:latest"] {
            assert_eq!(model.named(Some(name)).unwrap(), name);
        }
        assert_eq!(model.named(None).unwrap(), "openai/gpt-oss-20b");
        assert_eq!(model.named(Some("gpt-4o")).unwrap_err().status(), 404);
        assert_eq!(usual_aliases("nano"), Vec::<String>::new());
    }
}
