//! Responses: a row when one begins, changed once when it ends. A row that is unfinished when the server starts belongs
//! to a server that died, and becomes failed.

use serde_json::Value;

use super::{Append, Store, StoreError};
use crate::ids::is_plausible;

/// Longest chain of `previous_response_id` that is followed.
const MAX_CHAIN: i64 = 10_000;
/// A response, what it goes on from, and so on: of one owner, $3 links at most.
const CHAIN: &str = "WITH RECURSIVE chain (id, previous_id, depth) AS (
        SELECT id, previous_id, 0 FROM responses WHERE id = $1 AND owner = $2
        UNION ALL
        SELECT older.id, older.previous_id, chain.depth + 1 FROM responses older
        JOIN chain ON older.id = chain.previous_id WHERE older.owner = $2 AND chain.depth < $3)";

/// A response that begins.
#[derive(Debug, Clone)]
pub struct NewResponse {
    /// Its id.
    pub id: String,
    /// Seconds since 1970.
    pub created_at: i64,
    /// `queued` or `in_progress`.
    pub status: &'static str,
    /// The response that it goes on from.
    pub previous_id: Option<String>,
    /// The conversation that it belongs to.
    pub conversation_id: Option<String>,
    /// True where it runs without its client.
    pub background: bool,
    /// The date in its system message.
    pub date: String,
    /// Its own input items, with ids: a JSON array.
    pub input: String,
    /// The response as the API shows it.
    pub body: String,
}

/// How a response ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its status.
    pub status: &'static str,
    /// The response as the API shows it.
    pub body: String,
    /// Every event of its stream, one JSON per line, where it may be read again.
    pub events: Option<String>,
    /// What is added to its conversation, in the same transaction.
    pub append: Option<Append>,
}

/// A response as it is kept.
#[derive(Debug, Clone)]
pub struct StoredResponse {
    /// Its status.
    pub status: String,
    /// As the API shows it.
    pub body: String,
    /// Its own input items: a JSON array.
    pub input: String,
    /// 1 where it runs without its client.
    pub background: i64,
    /// Every event of its stream, one JSON per line, where it may be read again.
    pub events: Option<String>,
}

from_row!(StoredResponse { status, body, input, background, events });

/// One link of a chain: what a response was given and what it said.
#[derive(Debug, Clone)]
pub struct Turn {
    /// The response that it goes on from.
    pub previous_id: Option<String>,
    /// The date in its system message.
    pub date: String,
    /// Its own input items: a JSON array.
    pub input: String,
    /// The response as the API shows it.
    pub body: String,
}

from_row!(Turn { previous_id, date, input, body });

impl Store {
    /// Writes a response that begins.
    pub async fn insert_response(&self, owner: &str, response: &NewResponse) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let columns = "INSERT INTO responses
            (id, owner, created_at, status, previous_id, conversation_id, background, date, input, body)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        sqlx::query(columns)
            .bind(response.id.clone())
            .bind(owner.to_owned())
            .bind(response.created_at)
            .bind(response.status.to_owned())
            .bind(response.previous_id.clone())
            .bind(response.conversation_id.clone())
            .bind(i64::from(response.background))
            .bind(response.date.clone())
            .bind(response.input.clone())
            .bind(response.body.clone())
            .execute(&mut *write.transaction)
            .await?;
        write.commit().await
    }

    /// Changes the status and body of a response that goes on.
    pub async fn update_response(&self, owner: &str, id: &str, status: &str, body: &str) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        sqlx::query("UPDATE responses SET status = $3, body = $4 WHERE id = $1 AND owner = $2")
            .bind(id.to_owned())
            .bind(owner.to_owned())
            .bind(status.to_owned())
            .bind(body.to_owned())
            .execute(&mut *write.transaction)
            .await?;
        write.commit().await
    }

    /// Writes how a response ended, and adds to its conversation. One that was deleted meanwhile stays deleted, and
    /// adds nothing.
    pub async fn finish_response(&self, owner: &str, id: &str, finished: Finished) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let update = "UPDATE responses SET status = $3, body = $4, events = $5 WHERE id = $1 AND owner = $2";
        let done = sqlx::query(update)
            .bind(id.to_owned())
            .bind(owner.to_owned())
            .bind(finished.status.to_owned())
            .bind(finished.body)
            .bind(finished.events)
            .execute(&mut *write.transaction)
            .await?;
        if let Some(append) = finished.append.filter(|_| done.rows_affected() > 0) {
            super::conversations::append(&mut write, owner, append).await?;
        }
        write.commit().await
    }

    /// A response of this owner.
    pub async fn response(&self, owner: &str, id: &str) -> Result<Option<StoredResponse>, StoreError> {
        if !is_plausible(id) {
            return Ok(None);
        }
        let query = "SELECT status, body, input, background, events FROM responses WHERE id = $1 AND owner = $2";
        Ok(sqlx::query_as(query).bind(id.to_owned()).bind(owner.to_owned()).fetch_optional(&self.pool).await?)
    }

    /// Deletes a response; false where there is none.
    pub async fn delete_response(&self, owner: &str, id: &str) -> Result<bool, StoreError> {
        if !is_plausible(id) {
            return Ok(false);
        }
        let mut write = self.write().await?;
        let done = sqlx::query("DELETE FROM responses WHERE id = $1 AND owner = $2")
            .bind(id.to_owned())
            .bind(owner.to_owned())
            .execute(&mut *write.transaction)
            .await?;
        write.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    /// Bytes of what [`Store::chain`] would give, or more.
    pub async fn num_chain_bytes(&self, owner: &str, id: &str) -> Result<i64, StoreError> {
        if !is_plausible(id) {
            return Ok(0);
        }
        let query = format!(
            "{CHAIN} SELECT CAST(COALESCE(SUM(OCTET_LENGTH(turn.input) + OCTET_LENGTH(turn.body)), 0) AS BIGINT)
            FROM chain JOIN responses turn ON turn.id = chain.id"
        );
        let query =
            sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(id.to_owned()).bind(owner.to_owned()).bind(MAX_CHAIN);
        let (sum,): (i64,) = query.fetch_one(&self.pool).await?;
        Ok(sum)
    }

    /// The chain that ends in response `id`, oldest first. Its first link still names a previous one where that is gone
    /// or the chain is too long; empty where `id` does not exist.
    pub async fn chain(&self, owner: &str, id: &str) -> Result<Vec<Turn>, StoreError> {
        if !is_plausible(id) {
            return Ok(Vec::new());
        }
        let query = format!(
            "{CHAIN} SELECT turn.previous_id, turn.date, turn.input, turn.body FROM chain
            JOIN responses turn ON turn.id = chain.id ORDER BY chain.depth DESC"
        );
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(id.to_owned())
            .bind(owner.to_owned())
            .bind(MAX_CHAIN)
            .fetch_all(&self.pool)
            .await?)
    }

    /// Makes failed what a server that died left unfinished; gives how many. `fail` changes a body.
    pub async fn fail_unfinished(&self, fail: impl Fn(&mut Value)) -> Result<usize, StoreError> {
        let mut write = self.write().await?;
        let query = "SELECT id, body FROM responses WHERE status = 'queued' OR status = 'in_progress'";
        let rows: Vec<(String, String)> = sqlx::query_as(query).fetch_all(&mut *write.transaction).await?;
        for (id, body) in &rows {
            let broken = |_| StoreError::Row { table: "responses", id: id.clone() };
            let mut body: Value = serde_json::from_str(body).map_err(broken)?;
            fail(&mut body);
            sqlx::query("UPDATE responses SET status = 'failed', body = $2 WHERE id = $1")
                .bind(id.clone())
                .bind(body.to_string())
                .execute(&mut *write.transaction)
                .await?;
        }
        write.commit().await?;
        Ok(rows.len())
    }

    /// Deletes responses that began before `created_before`; gives how many.
    pub async fn expire_responses(&self, created_before: i64) -> Result<u64, StoreError> {
        let mut write = self.write().await?;
        let done = sqlx::query("DELETE FROM responses WHERE created_at < $1")
            .bind(created_before)
            .execute(&mut *write.transaction)
            .await?;
        write.commit().await?;
        Ok(done.rows_affected())
    }
}
