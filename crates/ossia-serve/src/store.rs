//! What must last: responses, conversations, files, batches, jobs, in SQLite (a file in the data directory) or PostgreSQL.
//!
//! Contract: a call that returned `Ok` is on the disk (WAL with a sync at every commit); every row has an owner, the id of
//! the API key, and every query but those of the server's own upkeep names it, so another key's rows are as good as not
//! there. An id that cannot be one of ours (`ids::is_plausible`) is not looked up: PostgreSQL refuses texts with a zero
//! byte, where SQLite finds nothing. The same SQL runs on both databases; `schema` has the only words that differ. One server per database.

/// Reads a struct from a row whose columns have its fields' names.
macro_rules! from_row {
    ($name:ident { $($field:ident),* }) => {
        impl<'r> sqlx::FromRow<'r, sqlx::any::AnyRow> for $name {
            fn from_row(row: &'r sqlx::any::AnyRow) -> Result<Self, sqlx::Error> {
                Ok(Self { $($field: sqlx::Row::try_get(row, stringify!($field))?),* })
            }
        }
    };
}

mod batches;
mod conversations;
mod files;
mod jobs;
mod responses;
mod schema;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::{Any, AnyPool, ConnectOptions, FromRow, Transaction};
use tokio::sync::{Mutex, MutexGuard};

pub use batches::{BatchCounts, BatchItem, StoredBatch};
pub use conversations::{Append, StoredConversation, StoredItem};
pub use files::{CHUNK_BYTES, StoredFile};
pub use jobs::{JobCheckpoint, JobEntry, JobList, JobNews, StoredJob};
pub use responses::{Finished, NewResponse, StoredResponse, Turn};

/// Connections to the database at once.
const MAX_CONNECTIONS: u32 = 8;

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file could not be made.
    #[error("{path}: the database cannot be made: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database could not be opened; the URL is not repeated, it may hold a password.
    #[error("the database cannot be opened: {0}")]
    Open(sqlx::Error),
    /// A newer program made the database.
    #[error("the database has version {found}, this program knows versions up to {known}; use the newer program")]
    Newer {
        /// In the database.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// A query failed.
    #[error("the database failed: {0}")]
    Query(#[from] sqlx::Error),
    /// A row is not what this program writes.
    #[error("the database has a broken row in {table}: {id}")]
    Row {
        /// Where.
        table: &'static str,
        /// Which.
        id: String,
    },
}

/// A page of a list: what comes after an id, newest first unless `ascending`, at most `limit`.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Only what comes after this id in the order asked for.
    pub after: Option<String>,
    /// Oldest first.
    pub ascending: bool,
    /// At most so many.
    pub limit: i64,
}

impl Page {
    /// The beginning of `ORDER BY column` for this page, and the comparison that takes what comes after.
    fn order(&self) -> (&'static str, &'static str) {
        if self.ascending { ("ASC", ">") } else { ("DESC", "<") }
    }
}

/// The open database. Shared by all handlers.
pub struct Store {
    pool: AnyPool,
    /// SQLite has one writer at a time; waiting here is fair, waiting inside SQLite is not.
    writer: Option<Mutex<()>>,
}

impl Store {
    /// A page of an owner's rows of `table`, and one more where there are more.
    async fn list_of_owner<T>(&self, columns: &str, table: &str, owner: &str, page: &Page) -> Result<Vec<T>, StoreError>
    where
        T: for<'r> FromRow<'r, AnyRow> + Send + Unpin,
    {
        let (order, after) = page.order();
        let query = format!(
            "SELECT {columns} FROM {table} WHERE owner = $1
                AND ($2 = '' OR number {after} (SELECT number FROM {table} WHERE owner = $1 AND id = $2))
             ORDER BY number {order} LIMIT $3"
        );
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(owner.to_owned())
            .bind(page.after.clone().unwrap_or_default())
            .bind(page.limit + 1)
            .fetch_all(&self.pool)
            .await?)
    }
}

/// A transaction that writes.
struct Write<'s> {
    transaction: Transaction<'static, Any>,
    _turn: Option<MutexGuard<'s, ()>>,
}

impl Write<'_> {
    async fn commit(self) -> Result<(), StoreError> {
        Ok(self.transaction.commit().await?)
    }
}

impl Store {
    /// Opens the SQLite file, made with its owner's rights alone where it does not exist.
    pub async fn open_sqlite(path: &Path) -> Result<Self, StoreError> {
        make_private(path).map_err(|source| StoreError::File { path: path.to_owned(), source })?;
        Self::open_url(&format!("sqlite://{}?mode=rwc", percent_encoded(path))).await
    }

    /// Opens the database that a URL names: `postgres://…` or `sqlite://…`.
    pub async fn open_url(url: &str) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let options: AnyConnectOptions = url.parse().map_err(StoreError::Open)?;
        let is_sqlite = options.database_url.scheme() == "sqlite";
        let pool = AnyPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if is_sqlite {
                        sqlx::query(schema::SQLITE_SETTINGS).execute(connection).await?;
                    }
                    Ok(())
                })
            })
            .connect_with(options.disable_statement_logging())
            .await
            .map_err(StoreError::Open)?;
        let store = Self { pool, writer: is_sqlite.then(Mutex::default) };
        schema::migrate(&store, is_sqlite).await?;
        Ok(store)
    }

    /// Waits until everything is written and closes.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn write(&self) -> Result<Write<'_>, StoreError> {
        let turn = match &self.writer {
            Some(writer) => Some(writer.lock().await),
            None => None,
        };
        // SQLite: takes the lock at once, so that no transaction fails halfway for want of it.
        let begin = if turn.is_some() { "BEGIN IMMEDIATE" } else { "BEGIN" };
        Ok(Write { transaction: self.pool.begin_with(begin).await?, _turn: turn })
    }
}

/// SQLite's log files take over the rights of the database's file.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// A path as part of a URL.
fn percent_encoded(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    let encode = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    path.to_string_lossy().bytes().map(encode).collect()
}
