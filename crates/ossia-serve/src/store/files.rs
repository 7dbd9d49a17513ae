//! Files, in chunks: an upload is written as it arrives, each chunk in a transaction of its own, and becomes a file only
//! with the last; what a server that died left incomplete is deleted at the next start.

use super::{Page, Store, StoreError, Write};
use crate::ids::is_plausible;

/// The bytes of a chunk, but for the last.
pub const CHUNK_BYTES: usize = 1 << 20;

/// A file without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Its id.
    pub id: String,
    /// Seconds since 1970.
    pub created_at: i64,
    /// When it is deleted.
    pub expires_at: Option<i64>,
    /// The client's name for it; never used as a path.
    pub filename: String,
    /// The client's word for what it is for.
    pub purpose: String,
    /// Bytes in all.
    pub num_bytes: i64,
}

from_row!(StoredFile { id, created_at, expires_at, filename, purpose, num_bytes });

const COLUMNS: &str = "id, created_at, expires_at, filename, purpose, num_bytes";

/// Writes a chunk as part of a transaction.
pub(super) async fn write_chunk(
    write: &mut Write<'_>,
    file_id: &str,
    position: i64,
    data: Vec<u8>,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO file_chunks (file_id, position, data) VALUES ($1, $2, $3)")
        .bind(file_id.to_owned())
        .bind(position)
        .bind(data)
        .execute(&mut *write.transaction)
        .await?;
    Ok(())
}

/// Writes a file's row as part of a transaction.
pub(super) async fn write_file(
    write: &mut Write<'_>,
    owner: &str,
    file: &StoredFile,
    complete: bool,
) -> Result<(), StoreError> {
    let insert = "INSERT INTO files
        (id, owner, created_at, expires_at, number, filename, purpose, num_bytes, complete)
        SELECT $1, $2, $3, $4, COALESCE(MAX(number), 0) + 1, $5, $6, $7, $8 FROM files";
    sqlx::query(insert)
        .bind(file.id.clone())
        .bind(owner.to_owned())
        .bind(file.created_at)
        .bind(file.expires_at)
        .bind(file.filename.clone())
        .bind(file.purpose.clone())
        .bind(file.num_bytes)
        .bind(i64::from(complete))
        .execute(&mut *write.transaction)
        .await?;
    Ok(())
}

/// Bytes of all files of an owner.
const SUM_OF_OWNER: &str = "SELECT CAST(COALESCE(SUM(num_bytes), 0) AS BIGINT) FROM files WHERE owner = $1";

impl Store {
    /// Begins a file of `num_bytes` at most; nobody sees it before [`Store::complete_file`]. False where all files of the
    /// owner, those that are begun among them, would then take more than `most` bytes.
    pub async fn begin_file(&self, owner: &str, file: &StoredFile, most: i64) -> Result<bool, StoreError> {
        let mut write = self.write().await?;
        let (used,): (i64,) =
            sqlx::query_as(SUM_OF_OWNER).bind(owner.to_owned()).fetch_one(&mut *write.transaction).await?;
        if used.saturating_add(file.num_bytes) > most {
            return Ok(false);
        }
        write_file(&mut write, owner, file, false).await?;
        write.commit().await?;
        Ok(true)
    }

    /// Writes the chunk at `position`.
    pub async fn add_chunk(&self, file_id: &str, position: i64, data: Vec<u8>) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        write_chunk(&mut write, file_id, position, data).await?;
        write.commit().await
    }

    /// Makes a file whole: what it is for, its name and its length are known at last.
    pub async fn complete_file(&self, owner: &str, file: &StoredFile) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let update = "UPDATE files SET complete = 1, num_bytes = $3, filename = $4, purpose = $5, expires_at = $6
            WHERE id = $1 AND owner = $2";
        sqlx::query(update)
            .bind(file.id.clone())
            .bind(owner.to_owned())
            .bind(file.num_bytes)
            .bind(file.filename.clone())
            .bind(file.purpose.clone())
            .bind(file.expires_at)
            .execute(&mut *write.transaction)
            .await?;
        write.commit().await
    }

    /// A file of this owner that is whole.
    pub async fn file(&self, owner: &str, id: &str) -> Result<Option<StoredFile>, StoreError> {
        if !is_plausible(id) {
            return Ok(None);
        }
        let query = format!("SELECT {COLUMNS} FROM files WHERE id = $1 AND owner = $2 AND complete = 1");
        let query = sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(id.to_owned()).bind(owner.to_owned());
        Ok(query.fetch_optional(&self.pool).await?)
    }

    /// A chunk of a file that [`Store::file`] gave, counted from 0; None after the last.
    pub async fn file_chunk(&self, file_id: &str, position: i64) -> Result<Option<Vec<u8>>, StoreError> {
        let query = "SELECT data FROM file_chunks WHERE file_id = $1 AND position = $2";
        let query = sqlx::query_as(query).bind(file_id.to_owned()).bind(position);
        let chunk: Option<(Vec<u8>,)> = query.fetch_optional(&self.pool).await?;
        Ok(chunk.map(|(data,)| data))
    }

    /// A page of an owner's files, for one purpose if one is given, and one more where there are more.
    pub async fn list_files(
        &self,
        owner: &str,
        purpose: Option<&str>,
        page: &Page,
    ) -> Result<Vec<StoredFile>, StoreError> {
        let (order, after) = page.order();
        let query = format!(
            "SELECT {COLUMNS} FROM files WHERE owner = $1 AND complete = 1 AND ($2 = '' OR purpose = $2)
                AND ($3 = '' OR number {after} (SELECT number FROM files WHERE owner = $1 AND id = $3))
             ORDER BY number {order} LIMIT $4"
        );
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(owner.to_owned())
            .bind(purpose.unwrap_or_default().to_owned())
            .bind(page.after.clone().unwrap_or_default())
            .bind(page.limit + 1)
            .fetch_all(&self.pool)
            .await?)
    }

    /// Bytes of all files of an owner, incomplete ones by what is announced.
    pub async fn num_file_bytes(&self, owner: &str) -> Result<i64, StoreError> {
        let (sum,): (i64,) = sqlx::query_as(SUM_OF_OWNER).bind(owner.to_owned()).fetch_one(&self.pool).await?;
        Ok(sum)
    }

    /// Deletes a file, whole or not; false where there is none.
    pub async fn delete_file(&self, owner: &str, id: &str) -> Result<bool, StoreError> {
        let mut write = self.write().await?;
        let chunks = "DELETE FROM file_chunks WHERE file_id IN (SELECT id FROM files WHERE id = $1 AND owner = $2)";
        let mut gone = 0;
        for query in [chunks, "DELETE FROM files WHERE id = $1 AND owner = $2"] {
            let query = sqlx::query(query).bind(id.to_owned()).bind(owner.to_owned());
            gone = query.execute(&mut *write.transaction).await?.rows_affected();
        }
        write.commit().await?;
        Ok(gone > 0)
    }

    /// Deletes files that have expired at `now`.
    pub async fn expire_files(&self, now: i64) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        for query in [
            "DELETE FROM file_chunks WHERE file_id IN (SELECT id FROM files WHERE expires_at <= $1)",
            "DELETE FROM files WHERE expires_at <= $1",
        ] {
            sqlx::query(query).bind(now).execute(&mut *write.transaction).await?;
        }
        write.commit().await
    }

    /// Deletes uploads that a server that died left incomplete. Only before the server listens.
    pub async fn delete_incomplete_files(&self) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        for query in [
            "DELETE FROM file_chunks WHERE file_id IN (SELECT id FROM files WHERE complete = 0)",
            "DELETE FROM files WHERE complete = 0",
        ] {
            sqlx::query(query).execute(&mut *write.transaction).await?;
        }
        write.commit().await
    }
}
