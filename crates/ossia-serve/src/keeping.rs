//! What the server keeps: the database, the secret that seals reasoning, and the responses that are being made. Opened
//! before the server listens; what a server that died left unfinished is put right then.

use std::path::Path;

use serde_json::{Value, json};

use crate::clock;
use crate::keys::{self, KeyError};
use crate::reasoning::Sealer;
use crate::routes::batches::Jobs;
use crate::routes::responses::Runs;
use crate::store::{Store, StoreError};
use crate::training::Training;

/// The database's file in the data directory.
const DATABASE: &str = "ossia.db";
/// The secret's file in the data directory.
const SECRET: &str = "reasoning.secret";
/// Responses are kept for so long, as at OpenAI.
const RESPONSES_S: u64 = 30 * 24 * 3600;

/// See the module.
pub struct Keeping {
    /// The database.
    pub store: Store,
    /// Seals reasoning for clients.
    pub sealer: Sealer,
    /// Responses that are being made.
    pub runs: Runs,
    /// Batches that are being done.
    pub jobs: Jobs,
    /// Fine-tuning jobs.
    pub training: Training,
}

/// Why it could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum KeepingError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The secret.
    #[error(transparent)]
    Secret(#[from] KeyError),
}

impl Keeping {
    /// Opens what is in the data directory, which must exist; the database elsewhere if there is a URL.
    pub async fn open(data: &Path, database_url: Option<&str>) -> Result<Self, KeepingError> {
        let sealer = Sealer::new(keys::secret(data, SECRET)?);
        let store = match database_url {
            Some(url) => Store::open_url(url).await?,
            None => Store::open_sqlite(&data.join(DATABASE)).await?,
        };
        let failed = store.fail_unfinished(fail).await?;
        if failed > 0 {
            tracing::warn!(failed, "responses were unfinished when the server stopped");
        }
        store.delete_incomplete_files().await?;
        let keeping =
            Self { store, sealer, runs: Runs::default(), jobs: Jobs::default(), training: Training::default() };
        keeping.expire().await?;
        Ok(keeping)
    }

    /// Deletes what has been kept long enough. To be called from time to time.
    pub async fn expire(&self) -> Result<(), StoreError> {
        let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        let now = clock::now_s();
        self.store.expire_responses(seconds(now.saturating_sub(RESPONSES_S))).await?;
        self.store.expire_files(seconds(now)).await
    }

    /// Ends well: waits for what is being made, then closes the database.
    pub async fn close(&self) {
        self.jobs.wait_idle().await;
        self.runs.wait_idle().await;
        self.training.wait_idle().await;
        self.store.close().await;
    }
}

/// A response whose server died.
fn fail(body: &mut Value) {
    body["status"] = json!("failed");
    body["error"] = json!({
        "code": "server_error", "message": "The server was stopped before the response was finished. Send it again.",
    });
}
