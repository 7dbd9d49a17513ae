//! Batches: a row for each, and one for each of its lines. A line's result is written once, whole; which lines still
//! have none is all that a restarted server needs to know.

use super::files::{write_chunk, write_file};
use super::{CHUNK_BYTES, Page, Store, StoreError, StoredFile};
use crate::ids::is_plausible;

/// A batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBatch {
    /// Its id.
    pub id: String,
    /// The API key that made it.
    pub owner: String,
    /// As in the body.
    pub status: String,
    /// As the API shows it.
    pub body: String,
}

from_row!(StoredBatch { id, owner, status, body });

/// A line of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchItem {
    /// Its place in the input file, from 0.
    pub line: i64,
    /// The client's name for it.
    pub custom_id: String,
    /// The request's body, or the line of the result when it is read back.
    pub text: String,
}

from_row!(BatchItem { line, custom_id, text });

/// How far a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchCounts {
    /// Lines in all.
    pub total: i64,
    /// With an answer.
    pub completed: i64,
    /// With an error.
    pub failed: i64,
}

from_row!(BatchCounts { total, completed, failed });

impl Store {
    /// Writes a new batch.
    pub async fn insert_batch(&self, batch: &StoredBatch, created_at: i64) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let insert = "INSERT INTO batches (id, owner, created_at, number, status, body)
            SELECT $1, $2, $3, COALESCE(MAX(number), 0) + 1, $4, $5 FROM batches";
        sqlx::query(insert)
            .bind(batch.id.clone())
            .bind(batch.owner.clone())
            .bind(created_at)
            .bind(batch.status.clone())
            .bind(batch.body.clone())
            .execute(&mut *write.transaction)
            .await?;
        write.commit().await
    }

    /// A batch of this owner.
    pub async fn batch(&self, owner: &str, id: &str) -> Result<Option<StoredBatch>, StoreError> {
        if !is_plausible(id) {
            return Ok(None);
        }
        let query = "SELECT id, owner, status, body FROM batches WHERE id = $1 AND owner = $2";
        Ok(sqlx::query_as(query).bind(id.to_owned()).bind(owner.to_owned()).fetch_optional(&self.pool).await?)
    }

    /// A page of an owner's batches, and one more where there are more.
    pub async fn list_batches(&self, owner: &str, page: &Page) -> Result<Vec<StoredBatch>, StoreError> {
        self.list_of_owner("id, owner, status, body", "batches", owner, page).await
    }

    /// All batches, of all owners, that are not at their end, oldest first. For the worker.
    pub async fn open_batches(&self) -> Result<Vec<StoredBatch>, StoreError> {
        let query = "SELECT id, owner, status, body FROM batches
            WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling') ORDER BY number";
        Ok(sqlx::query_as(query).fetch_all(&self.pool).await?)
    }

    /// Changes a batch if it still has the status `from`; false where it does not.
    pub async fn change_batch(&self, batch: &StoredBatch, from: &str) -> Result<bool, StoreError> {
        let mut write = self.write().await?;
        let done = replace(&mut write, batch, from).await?;
        write.commit().await?;
        Ok(done)
    }

    /// Writes the lines of a batch and its new status, in one transaction, if it still has the status `from`.
    pub async fn start_batch(
        &self,
        batch: &StoredBatch,
        from: &str,
        items: Vec<BatchItem>,
    ) -> Result<bool, StoreError> {
        let mut write = self.write().await?;
        for item in items {
            sqlx::query("INSERT INTO batch_items (batch_id, line, custom_id, request) VALUES ($1, $2, $3, $4)")
                .bind(batch.id.clone())
                .bind(item.line)
                .bind(item.custom_id)
                .bind(item.text)
                .execute(&mut *write.transaction)
                .await?;
        }
        if !replace(&mut write, batch, from).await? {
            return Ok(false);
        }
        write.commit().await?;
        Ok(true)
    }

    /// Lines after `after` that have no result, in order, at most `limit`.
    pub async fn open_items(&self, batch_id: &str, after: i64, limit: i64) -> Result<Vec<BatchItem>, StoreError> {
        let query = "SELECT line, custom_id, request AS text FROM batch_items
            WHERE batch_id = $1 AND line > $2 AND failed IS NULL ORDER BY line LIMIT $3";
        Ok(sqlx::query_as(query).bind(batch_id.to_owned()).bind(after).bind(limit).fetch_all(&self.pool).await?)
    }

    /// Writes a line's result, unless it has one: the first stays.
    pub async fn finish_item(&self, batch_id: &str, line: i64, failed: bool, result: String) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let update = "UPDATE batch_items SET failed = $3, result = $4
            WHERE batch_id = $1 AND line = $2 AND failed IS NULL";
        sqlx::query(update)
            .bind(batch_id.to_owned())
            .bind(line)
            .bind(i64::from(failed))
            .bind(result)
            .execute(&mut *write.transaction)
            .await?;
        write.commit().await
    }

    /// How far a batch is.
    pub async fn batch_counts(&self, batch_id: &str) -> Result<BatchCounts, StoreError> {
        let query = "SELECT COUNT(*) AS total,
            COUNT(CASE WHEN failed = 0 THEN 1 END) AS completed, COUNT(CASE WHEN failed = 1 THEN 1 END) AS failed
            FROM batch_items WHERE batch_id = $1";
        Ok(sqlx::query_as(query).bind(batch_id.to_owned()).fetch_one(&self.pool).await?)
    }

    /// The results of lines after `after` that have an answer, in order, at most `limit`.
    pub async fn batch_answers(&self, batch_id: &str, after: i64, limit: i64) -> Result<Vec<BatchItem>, StoreError> {
        let query = "SELECT line, custom_id, result AS text FROM batch_items
            WHERE batch_id = $1 AND line > $2 AND failed = 0 ORDER BY line LIMIT $3";
        Ok(sqlx::query_as(query).bind(batch_id.to_owned()).bind(after).bind(limit).fetch_all(&self.pool).await?)
    }

    /// Ends a batch: writes its output and error files from the lines' results and its last body, in one transaction,
    /// and deletes the lines. `files` are those of them that are wanted: (failed lines?, the file).
    pub async fn finalize_batch(
        &self,
        batch: &StoredBatch,
        from: &str,
        files: Vec<(bool, StoredFile)>,
    ) -> Result<bool, StoreError> {
        let mut write = self.write().await?;
        for (failed, mut file) in files {
            let mut out = Chunks { file_id: file.id.clone(), position: 0, buffer: Vec::new(), num_bytes: 0 };
            let mut after = -1;
            loop {
                let query = "SELECT line, result FROM batch_items
                    WHERE batch_id = $1 AND failed = $2 AND line > $3 ORDER BY line LIMIT 64";
                let query = sqlx::query_as(query).bind(batch.id.clone()).bind(i64::from(failed)).bind(after);
                let rows: Vec<(i64, String)> = query.fetch_all(&mut *write.transaction).await?;
                let Some((last, _)) = rows.last() else { break };
                after = *last;
                for (_, result) in rows {
                    out.push(&mut write, &result).await?;
                }
            }
            file.num_bytes = out.end(&mut write).await?;
            write_file(&mut write, &batch.owner, &file, true).await?;
        }
        sqlx::query("DELETE FROM batch_items WHERE batch_id = $1")
            .bind(batch.id.clone())
            .execute(&mut *write.transaction)
            .await?;
        if !replace(&mut write, batch, from).await? {
            return Ok(false);
        }
        write.commit().await?;
        Ok(true)
    }
}

/// Keeps `batch` in place of what is there, if that is in the state `from`.
async fn replace(write: &mut super::Write<'_>, batch: &StoredBatch, from: &str) -> Result<bool, StoreError> {
    let update = "UPDATE batches SET status = $3, body = $4 WHERE id = $1 AND owner = $2 AND status = $5";
    let done = sqlx::query(update)
        .bind(batch.id.clone())
        .bind(batch.owner.clone())
        .bind(batch.status.clone())
        .bind(batch.body.clone())
        .bind(from.to_owned())
        .execute(&mut *write.transaction)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Lines on their way into a file's chunks.
struct Chunks {
    file_id: String,
    position: i64,
    buffer: Vec<u8>,
    num_bytes: i64,
}

impl Chunks {
    async fn push(&mut self, write: &mut super::Write<'_>, line: &str) -> Result<(), StoreError> {
        self.buffer.extend_from_slice(line.as_bytes());
        self.buffer.push(b'\n');
        while self.buffer.len() >= CHUNK_BYTES {
            let rest = self.buffer.split_off(CHUNK_BYTES);
            self.flush(write, rest).await?;
        }
        Ok(())
    }

    async fn flush(&mut self, write: &mut super::Write<'_>, rest: Vec<u8>) -> Result<(), StoreError> {
        let chunk = std::mem::replace(&mut self.buffer, rest);
        self.num_bytes += chunk.len() as i64;
        write_chunk(write, &self.file_id, self.position, chunk).await?;
        self.position += 1;
        Ok(())
    }

    async fn end(mut self, write: &mut super::Write<'_>) -> Result<i64, StoreError> {
        if !self.buffer.is_empty() {
            self.flush(write, Vec::new()).await?;
        }
        Ok(self.num_bytes)
    }
}
