//! Conversations and their items, in the order in which they were added.

use super::{Page, Store, StoreError, Write};
use crate::ids::is_plausible;

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredConversation {
    /// Its id.
    pub id: String,
    /// Seconds since 1970.
    pub created_at: i64,
    /// The date in its system message.
    pub date: String,
    /// The client's own words: a JSON object.
    pub metadata: String,
}

from_row!(StoredConversation { id, created_at, date, metadata });

/// An item with its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredItem {
    /// Unique in its conversation.
    pub id: String,
    /// As the API shows it.
    pub body: String,
}

from_row!(StoredItem { id, body });

/// Items for the end of a conversation.
#[derive(Debug, Clone)]
pub struct Append {
    /// The conversation.
    pub conversation_id: String,
    /// The items, in order.
    pub items: Vec<StoredItem>,
}

/// Adds items at the end; none where the conversation is gone or another's. An id that is there already is not added
/// again: a client that sends back what it was given means the same item.
pub(super) async fn append(write: &mut Write<'_>, owner: &str, append: Append) -> Result<(), StoreError> {
    let query = "SELECT COALESCE(MAX(position) + 1, 0) FROM conversation_items WHERE conversation_id = $1";
    let id = &append.conversation_id;
    let (mut position,): (i64,) = sqlx::query_as(query).bind(id.clone()).fetch_one(&mut *write.transaction).await?;
    for item in append.items {
        let insert = "INSERT INTO conversation_items (conversation_id, position, owner, id, body)
            SELECT id, $2, owner, $3, $4 FROM conversations WHERE id = $1 AND owner = $5
            ON CONFLICT (conversation_id, id) DO NOTHING";
        let done = sqlx::query(insert)
            .bind(id.clone())
            .bind(position)
            .bind(item.id)
            .bind(item.body)
            .bind(owner.to_owned())
            .execute(&mut *write.transaction)
            .await?;
        position += i64::try_from(done.rows_affected()).unwrap_or(1);
    }
    Ok(())
}

impl Store {
    /// Writes a new conversation with its first items.
    pub async fn insert_conversation(
        &self,
        owner: &str,
        conversation: &StoredConversation,
        items: Vec<StoredItem>,
    ) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let insert = "INSERT INTO conversations (id, owner, created_at, date, metadata) VALUES ($1, $2, $3, $4, $5)";
        sqlx::query(insert)
            .bind(conversation.id.clone())
            .bind(owner.to_owned())
            .bind(conversation.created_at)
            .bind(conversation.date.clone())
            .bind(conversation.metadata.clone())
            .execute(&mut *write.transaction)
            .await?;
        append(&mut write, owner, Append { conversation_id: conversation.id.clone(), items }).await?;
        write.commit().await
    }

    /// A conversation of this owner.
    pub async fn conversation(&self, owner: &str, id: &str) -> Result<Option<StoredConversation>, StoreError> {
        if !is_plausible(id) {
            return Ok(None);
        }
        let query = "SELECT id, created_at, date, metadata FROM conversations WHERE id = $1 AND owner = $2";
        Ok(sqlx::query_as(query).bind(id.to_owned()).bind(owner.to_owned()).fetch_optional(&self.pool).await?)
    }

    /// Changes the client's own words about a conversation.
    pub async fn set_metadata(&self, owner: &str, id: &str, metadata: &str) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        sqlx::query("UPDATE conversations SET metadata = $3 WHERE id = $1 AND owner = $2")
            .bind(id.to_owned())
            .bind(owner.to_owned())
            .bind(metadata.to_owned())
            .execute(&mut *write.transaction)
            .await?;
        write.commit().await
    }

    /// Deletes a conversation and its items; false where there is none.
    pub async fn delete_conversation(&self, owner: &str, id: &str) -> Result<bool, StoreError> {
        let mut write = self.write().await?;
        let mut gone = 0;
        for query in [
            "DELETE FROM conversation_items WHERE conversation_id = $1 AND owner = $2",
            "DELETE FROM conversations WHERE id = $1 AND owner = $2",
        ] {
            let query = sqlx::query(query).bind(id.to_owned()).bind(owner.to_owned());
            gone = query.execute(&mut *write.transaction).await?.rows_affected();
        }
        write.commit().await?;
        Ok(gone > 0)
    }

    /// Adds items at the end of a conversation.
    pub async fn append_items(&self, owner: &str, items: Append) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        append(&mut write, owner, items).await?;
        write.commit().await
    }

    /// Bytes of all items of a conversation.
    pub async fn num_item_bytes(&self, owner: &str, id: &str) -> Result<i64, StoreError> {
        let query = "SELECT CAST(COALESCE(SUM(OCTET_LENGTH(body)), 0) AS BIGINT) FROM conversation_items
            WHERE conversation_id = $1 AND owner = $2";
        let query = sqlx::query_as(query).bind(id.to_owned()).bind(owner.to_owned());
        let (sum,): (i64,) = query.fetch_one(&self.pool).await?;
        Ok(sum)
    }

    /// All items of a conversation, oldest first.
    pub async fn all_items(&self, owner: &str, id: &str) -> Result<Vec<StoredItem>, StoreError> {
        let query =
            "SELECT id, body FROM conversation_items WHERE conversation_id = $1 AND owner = $2 ORDER BY position";
        Ok(sqlx::query_as(query).bind(id.to_owned()).bind(owner.to_owned()).fetch_all(&self.pool).await?)
    }

    /// A page of a conversation's items, and one more where there are more. After an unknown id: nothing.
    pub async fn list_items(&self, owner: &str, id: &str, page: &Page) -> Result<Vec<StoredItem>, StoreError> {
        let (order, after) = page.order();
        let query = format!(
            "SELECT id, body FROM conversation_items WHERE conversation_id = $1 AND owner = $2
                AND ($3 = '' OR position {after} (SELECT position FROM conversation_items
                    WHERE conversation_id = $1 AND owner = $2 AND id = $3))
             ORDER BY position {order} LIMIT $4"
        );
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(id.to_owned())
            .bind(owner.to_owned())
            .bind(page.after.clone().unwrap_or_default())
            .bind(page.limit + 1)
            .fetch_all(&self.pool)
            .await?)
    }

    /// One item.
    pub async fn item(&self, owner: &str, id: &str, item: &str) -> Result<Option<StoredItem>, StoreError> {
        let query = "SELECT id, body FROM conversation_items WHERE conversation_id = $1 AND owner = $2 AND id = $3";
        let query = sqlx::query_as(query).bind(id.to_owned()).bind(owner.to_owned()).bind(item.to_owned());
        Ok(query.fetch_optional(&self.pool).await?)
    }

    /// Deletes one item; false where there is none.
    pub async fn delete_item(&self, owner: &str, id: &str, item: &str) -> Result<bool, StoreError> {
        let mut write = self.write().await?;
        let query = "DELETE FROM conversation_items WHERE conversation_id = $1 AND owner = $2 AND id = $3";
        let query = sqlx::query(query).bind(id.to_owned()).bind(owner.to_owned()).bind(item.to_owned());
        let done = query.execute(&mut *write.transaction).await?;
        write.commit().await?;
        Ok(done.rows_affected() > 0)
    }
}
