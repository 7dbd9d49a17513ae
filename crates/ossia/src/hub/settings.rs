//! Where models lie and where they come from: Hugging Face's environment variables, read once.
//! Everything else takes a [`Settings`], so tests set nothing in the process.

use super::error::HubError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The cache, the server, and whether it may be asked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder that holds `models--ORG--NAME`.
    pub cache: PathBuf,
    /// The server, without a closing slash.
    pub endpoint: String,
    /// Sent to the endpoint and to nobody else.
    pub token: Option<Token>,
    /// Never touch the network.
    pub offline: bool,
    /// How often a broken transfer is taken up again before giving up, counted from its last progress.
    pub retries: u32,
    /// The pause before the first retry; doubles with each.
    pub pause: Duration,
}

/// An access token, which no message shows.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token of visible ASCII characters; surrounding blanks are dropped.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let visible = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        visible.then(|| Token(text.to_owned()))
    }

    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

impl Settings {
    /// From the process' environment.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_lookup(|name| std::env::var(name).ok(), std::env::home_dir().as_deref())
    }

    /// From any source of variables; an empty one counts as unset.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>, home: Option<&Path>) -> Result<Self, HubError> {
        let lookup = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        Ok(Settings {
            cache: cache_folder(&lookup, home)?,
            endpoint: endpoint(lookup("HF_ENDPOINT"))?,
            token: lookup("HF_TOKEN").map(|text| token(&text)).transpose()?,
            offline: lookup("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)),
            retries: 5,
            pause: Duration::from_secs(1),
        })
    }
}

fn cache_folder(lookup: &impl Fn(&str) -> Option<String>, home: Option<&Path>) -> Result<PathBuf, HubError> {
    let path = |name: &str| lookup(name).map(|value| expand(&value, home));
    if let Some(hub) = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")) {
        return Ok(hub);
    }
    let above = || path("XDG_CACHE_HOME").or_else(|| home.map(|h| h.join(".cache"))).map(|c| c.join("huggingface"));
    path("HF_HOME").or_else(above).map(|hf| hf.join("hub")).ok_or_else(|| HubError::Setting {
        variable: "HF_HOME",
        wanted: "a folder for models, since there is no home folder",
        found: "nothing".to_owned(),
    })
}

/// A leading `~/` is the home folder, as in Hugging Face's own tools.
fn expand(value: &str, home: Option<&Path>) -> PathBuf {
    match (value.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(value),
    }
}

fn endpoint(value: Option<String>) -> Result<String, HubError> {
    let value = value.unwrap_or_else(|| "https://huggingface.co".to_owned());
    let value = value.trim().trim_end_matches('/');
    let rest = value.strip_prefix("https://").or_else(|| value.strip_prefix("http://"));
    if rest.is_none_or(|host| host.is_empty() || host.contains(['@', '?', '#', ' '])) {
        let wanted = "an address such as https://huggingface.co, without a user, query or fragment";
        let found = value.rsplit('@').next().unwrap_or(value).to_owned();
        return Err(HubError::Setting { variable: "HF_ENDPOINT", wanted, found });
    }
    Ok(value.to_owned())
}

fn token(text: &str) -> Result<Token, HubError> {
    let found = || format!("{} characters, some of them not allowed", text.chars().count());
    let wanted = "visible ASCII characters, such as hf_...";
    Token::new(text).ok_or_else(|| HubError::Setting { variable: "HF_TOKEN", wanted, found: found() })
}

fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.trim().to_ascii_lowercase().as_str())
}
