//! What `serve` says when it is ready: where it is, the key (once), and what to paste into clients.

use std::fmt;
use std::net::SocketAddr;

/// See the module.
pub struct Greeting {
    /// The address it listens on.
    pub at: SocketAddr,
    /// Whether by TLS.
    pub is_tls: bool,
    /// The model's id.
    pub model: String,
    /// Tokens of prompt and answer together.
    pub context: usize,
    /// The key that was just made.
    pub first_key: Option<String>,
    /// No key is needed.
    pub no_key: bool,
}

impl fmt::Display for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        // What listens everywhere is reached from here by this machine's own name.
        let at =
            if self.at.ip().is_unspecified() { format!("localhost:{}", self.at.port()) } else { self.at.to_string() };
        let url = format!("{scheme}://{at}");
        writeln!(f, "\n{} is ready, {} tokens of context", self.model, self.context)?;
        match &self.first_key {
            Some(key) => writeln!(f, "\n  chat page   {url}/#key={key}\n  API         {url}/v1\n  key         {key}")?,
            None => writeln!(f, "\n  chat page   {url}/\n  API         {url}/v1")?,
        }
        if self.first_key.is_some() {
            writeln!(f, "              (shown this once; `ossia keys add` makes more)")?;
        }
        let key = match (&self.first_key, self.no_key) {
            (Some(key), _) => key.as_str(),
            (None, true) => "none",
            (None, false) => "YOUR-KEY",
        };
        writeln!(f, "\nFor OpenAI's clients:\n")?;
        writeln!(f, "  export OPENAI_BASE_URL={url}/v1\n  export OPENAI_API_KEY={key}")?;
        writeln!(f, "\nFor Codex, in ~/.codex/config.toml:\n")?;
        writeln!(f, "  model = \"{}\"\n  model_provider = \"ossia\"", self.model)?;
        writeln!(f, "  [model_providers.ossia]\n  name = \"ossia\"\n  base_url = \"{url}/v1\"")?;
        writeln!(f, "  wire_api = \"responses\"\n  env_key = \"OPENAI_API_KEY\"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::Greeting;

    #[test]
    fn the_key_is_shown_only_when_it_is_new() {
        let greeting = |first_key: Option<&str>| Greeting {
            at: "127.0.0.1:8000".parse().unwrap(),
            is_tls: false,
            model: "nano".into(),
            context: 2048,
            first_key: first_key.map(str::to_owned),
            no_key: false,
        };
        let text = greeting(Some("sk-ossia-x")).to_string();
        for line in [
            "http://127.0.0.1:8000/#key=sk-ossia-x",
            "export OPENAI_BASE_URL=http://127.0.0.1:8000/v1",
            "export OPENAI_API_KEY=sk-ossia-x",
            "base_url = \"http://127.0.0.1:8000/v1\"",
            "wire_api = \"responses\"",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!greeting(None).to_string().contains("#key="));
    }
}
