//! The tables, and how an older database becomes a newer one: a list of steps, each run once, in one transaction.
//!
//! `BYTES` in a step is the database's word for bytes. Times are seconds since 1970. `body` columns hold JSON as the API
//! shows it.

use sqlx::AssertSqlSafe;

use super::{Store, StoreError};

/// Of every SQLite connection: write-ahead log, a sync at every commit.
pub(super) const SQLITE_SETTINGS: &str =
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 20000; PRAGMA secure_delete = ON";

/// Never change a step that has been released; add one.
const STEPS: [&[&str]; 2] = [KEPT, JOBS];

const KEPT: &[&str] = &[
    "CREATE TABLE responses (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, created_at BIGINT NOT NULL, status TEXT NOT NULL,
        previous_id TEXT, conversation_id TEXT, background BIGINT NOT NULL, date TEXT NOT NULL,
        input TEXT NOT NULL, body TEXT NOT NULL, events TEXT)",
    "CREATE INDEX responses_by_age ON responses (created_at)",
    "CREATE INDEX responses_by_status ON responses (status)",
    "CREATE TABLE conversations (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, created_at BIGINT NOT NULL, date TEXT NOT NULL,
        metadata TEXT NOT NULL)",
    "CREATE TABLE conversation_items (
        conversation_id TEXT NOT NULL, position BIGINT NOT NULL, owner TEXT NOT NULL, id TEXT NOT NULL,
        body TEXT NOT NULL, PRIMARY KEY (conversation_id, position))",
    "CREATE UNIQUE INDEX conversation_items_by_id ON conversation_items (conversation_id, id)",
    "CREATE TABLE files (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, created_at BIGINT NOT NULL, expires_at BIGINT, number BIGINT NOT NULL,
        filename TEXT NOT NULL, purpose TEXT NOT NULL, num_bytes BIGINT NOT NULL, complete BIGINT NOT NULL)",
    "CREATE INDEX files_by_owner ON files (owner, number)",
    "CREATE TABLE file_chunks (
        file_id TEXT NOT NULL, position BIGINT NOT NULL, data BYTES NOT NULL, PRIMARY KEY (file_id, position))",
    "CREATE TABLE batches (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, created_at BIGINT NOT NULL, number BIGINT NOT NULL,
        status TEXT NOT NULL, body TEXT NOT NULL)",
    "CREATE INDEX batches_by_owner ON batches (owner, number)",
    "CREATE INDEX batches_by_status ON batches (status)",
    "CREATE TABLE batch_items (
        batch_id TEXT NOT NULL, line BIGINT NOT NULL, custom_id TEXT NOT NULL, request TEXT NOT NULL,
        failed BIGINT, result TEXT, PRIMARY KEY (batch_id, line))",
    "CREATE UNIQUE INDEX batch_items_by_custom_id ON batch_items (batch_id, custom_id)",
];

const JOBS: &[&str] = &[
    "CREATE TABLE jobs (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, created_at BIGINT NOT NULL, number BIGINT NOT NULL,
        status TEXT NOT NULL, finished_at BIGINT, last_step BIGINT NOT NULL, model TEXT, settings TEXT NOT NULL,
        body TEXT NOT NULL)",
    "CREATE INDEX jobs_by_owner ON jobs (owner, number)",
    "CREATE INDEX jobs_by_status ON jobs (status)",
    "CREATE UNIQUE INDEX jobs_by_model ON jobs (model)",
    "CREATE TABLE job_events (
        job_id TEXT NOT NULL, number BIGINT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (job_id, number))",
    "CREATE UNIQUE INDEX job_events_by_id ON job_events (job_id, id)",
    "CREATE TABLE job_checkpoints (
        job_id TEXT NOT NULL, step BIGINT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (job_id, step))",
];

/// Brings the database to the newest version; refuses one that is newer than this program.
pub(super) async fn migrate(store: &Store, is_sqlite: bool) -> Result<(), StoreError> {
    let mut write = store.write().await?;
    let connection = &mut *write.transaction;
    sqlx::query("CREATE TABLE IF NOT EXISTS ossia_schema (version BIGINT NOT NULL)").execute(&mut *connection).await?;
    let found: Option<(i64,)> =
        sqlx::query_as("SELECT version FROM ossia_schema").fetch_optional(&mut *connection).await?;
    let known = STEPS.len() as i64;
    let version = found.map_or(0, |(version,)| version);
    let done = usize::try_from(version).ok().filter(|done| *done <= STEPS.len());
    let Some(done) = done else { return Err(StoreError::Newer { found: version, known }) };
    if found.is_none() {
        sqlx::query("INSERT INTO ossia_schema (version) VALUES (0)").execute(&mut *connection).await?;
    }
    let bytes = if is_sqlite { "BLOB" } else { "BYTEA" };
    for statement in STEPS[done..].iter().copied().flatten() {
        sqlx::query(AssertSqlSafe(statement.replace("BYTES", bytes))).execute(&mut *connection).await?;
    }
    sqlx::query("UPDATE ossia_schema SET version = $1").bind(known).execute(&mut *connection).await?;
    write.commit().await
}
