//! Who asks: the identity that a key stands for, and what it may do.

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Generate, list models, keep responses and conversations.
    Infer,
    /// Store and read files.
    Files,
    /// Run batches.
    Batch,
    /// Change the server.
    Admin,
    /// Read the metrics.
    Metrics,
}

impl Scope {
    /// The word on the command line and in errors.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Infer => "infer",
            Scope::Files => "files",
            Scope::Batch => "batch",
            Scope::Admin => "admin",
            Scope::Metrics => "metrics",
        }
    }
}

/// Who a request is from. Handlers get it as `Extension<Identity>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The key's public id. Everything that is stored belongs to one.
    pub key_id: std::sync::Arc<str>,
    /// Requests are scheduled fairly between clients.
    pub client: u64,
    /// The prefix cache is separate for each salt. The server derives it; no request can choose it.
    pub salt: u64,
}
