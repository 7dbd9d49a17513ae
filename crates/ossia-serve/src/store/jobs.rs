//! Fine-tuning jobs: a row for each, its events, its checkpoints. Clients move a job's status and nothing else; the one
//! runner (`training`) writes the rest, each time under the condition that the status is still what it believes. So a job
//! leaves each status once, whoever is first, and what happened with it stands in the same transaction.

use super::files::{write_chunk, write_file};
use super::{CHUNK_BYTES, Page, Store, StoreError, StoredFile, Write};
use crate::ids::is_plausible;

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredJob {
    /// Its id.
    pub id: String,
    /// The API key that made it.
    pub owner: String,
    /// `queued`, `validating_files`, `running`, `paused`; at its end `succeeded`, `failed`, `cancelled`.
    pub status: String,
    /// When it came to its end, seconds since 1970.
    pub finished_at: Option<i64>,
    /// The last update whose numbers are kept.
    pub last_step: i64,
    /// How it is done: the configuration of the program that trains.
    pub settings: String,
    /// The rest, as the API shows it.
    pub body: String,
}

from_row!(StoredJob { id, owner, status, finished_at, last_step, settings, body });

/// Something that happened with a job, or a checkpoint of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEntry {
    /// Its id.
    pub id: String,
    /// As the API shows it.
    pub body: String,
}

from_row!(JobEntry { id, body });

/// A checkpoint of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobCheckpoint {
    /// Updates before it.
    pub step: i64,
    /// Its id, and as the API shows it.
    pub entry: JobEntry,
}

/// What is written together with a job.
#[derive(Debug, Default)]
pub struct JobNews {
    /// What happened, in order.
    pub events: Vec<JobEntry>,
    /// New checkpoints; those that are known stay as they are.
    pub checkpoints: Vec<JobCheckpoint>,
    /// Checkpoints before this step are gone.
    pub gone_before: Option<i64>,
    /// A file of results, and its content.
    pub file: Option<(StoredFile, Vec<u8>)>,
    /// The name of the model that was made.
    pub model: Option<String>,
}

/// Lists that belong to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobList {
    /// What happened.
    Events,
    /// Checkpoints.
    Checkpoints,
}

impl JobList {
    /// Where it is kept, and what it is ordered by.
    fn table_and_number(self) -> (&'static str, &'static str) {
        match self {
            JobList::Events => ("job_events", "number"),
            JobList::Checkpoints => ("job_checkpoints", "step"),
        }
    }
}

const COLUMNS: &str = "id, owner, status, finished_at, last_step, settings, body";

impl Store {
    /// Writes a new job and its first event.
    pub async fn insert_job(&self, job: &StoredJob, created_at: i64, event: JobEntry) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let insert = "INSERT INTO jobs (id, owner, created_at, number, status, last_step, settings, body)
            SELECT $1, $2, $3, COALESCE(MAX(number), 0) + 1, $4, $5, $6, $7 FROM jobs";
        sqlx::query(insert)
            .bind(job.id.clone())
            .bind(job.owner.clone())
            .bind(created_at)
            .bind(job.status.clone())
            .bind(job.last_step)
            .bind(job.settings.clone())
            .bind(job.body.clone())
            .execute(&mut *write.transaction)
            .await?;
        add_event(&mut write, &job.id, event).await?;
        write.commit().await
    }

    /// A job of this owner.
    pub async fn job(&self, owner: &str, id: &str) -> Result<Option<StoredJob>, StoreError> {
        if !is_plausible(id) {
            return Ok(None);
        }
        let query = format!("SELECT {COLUMNS} FROM jobs WHERE id = $1 AND owner = $2");
        let query = sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(id.to_owned()).bind(owner.to_owned());
        Ok(query.fetch_optional(&self.pool).await?)
    }

    /// The status of a job, whoever it belongs to. For the runner.
    pub async fn job_status(&self, id: &str) -> Result<Option<String>, StoreError> {
        let query = sqlx::query_as("SELECT status FROM jobs WHERE id = $1").bind(id.to_owned());
        let row: Option<(String,)> = query.fetch_optional(&self.pool).await?;
        Ok(row.map(|(status,)| status))
    }

    /// A page of an owner's jobs, and one more where there are more.
    pub async fn list_jobs(&self, owner: &str, page: &Page) -> Result<Vec<StoredJob>, StoreError> {
        self.list_of_owner(COLUMNS, "jobs", owner, page).await
    }

    /// A page of what belongs to a job that [`Store::job`] gave, and one more where there are more.
    pub async fn list_of_job(&self, job_id: &str, list: JobList, page: &Page) -> Result<Vec<JobEntry>, StoreError> {
        let (order, after) = page.order();
        let (table, number) = list.table_and_number();
        let query = format!(
            "SELECT id, body FROM {table} WHERE job_id = $1
                AND ($2 = '' OR {number} {after} (SELECT {number} FROM {table} WHERE job_id = $1 AND id = $2))
             ORDER BY {number} {order} LIMIT $3"
        );
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(job_id.to_owned())
            .bind(page.after.clone().unwrap_or_default())
            .bind(page.limit + 1)
            .fetch_all(&self.pool)
            .await?)
    }

    /// Whether an object with this id belongs to a job that [`Store::job`] gave.
    pub async fn is_of_job(&self, job_id: &str, list: JobList, id: &str) -> Result<bool, StoreError> {
        let query = format!("SELECT id FROM {} WHERE job_id = $1 AND id = $2", list.table_and_number().0);
        let query = sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(job_id.to_owned()).bind(id.to_owned());
        let row: Option<(String,)> = query.fetch_optional(&self.pool).await?;
        Ok(row.is_some())
    }

    /// The job of this owner that has made a model.
    pub async fn job_of_model(&self, owner: &str, model: &str) -> Result<Option<StoredJob>, StoreError> {
        if model.contains('\0') {
            return Ok(None);
        }
        let query = format!("SELECT {COLUMNS} FROM jobs WHERE model = $1 AND owner = $2 AND status = 'succeeded'");
        let query = sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(model.to_owned()).bind(owner.to_owned());
        Ok(query.fetch_optional(&self.pool).await?)
    }

    /// Names of the models that an owner's jobs have made, and when, oldest first.
    pub async fn models_of_jobs(&self, owner: &str) -> Result<Vec<(String, i64)>, StoreError> {
        let query = "SELECT model, finished_at FROM jobs WHERE owner = $1 AND model IS NOT NULL
            AND status = 'succeeded' ORDER BY number";
        Ok(sqlx::query_as(query).bind(owner.to_owned()).fetch_all(&self.pool).await?)
    }

    /// A model is gone; the job that made it stays. False where there is none.
    pub async fn forget_model(&self, owner: &str, model: &str) -> Result<bool, StoreError> {
        let mut write = self.write().await?;
        let query = sqlx::query("UPDATE jobs SET model = NULL WHERE model = $1 AND owner = $2");
        let query = query.bind(model.to_owned()).bind(owner.to_owned());
        let gone = query.execute(&mut *write.transaction).await?.rows_affected();
        write.commit().await?;
        Ok(gone > 0)
    }

    /// Jobs of an owner that are not at their end.
    pub async fn num_open_jobs(&self, owner: &str) -> Result<i64, StoreError> {
        let query = "SELECT COUNT(*) FROM jobs WHERE owner = $1 AND finished_at IS NULL";
        let (num,): (i64,) = sqlx::query_as(query).bind(owner.to_owned()).fetch_one(&self.pool).await?;
        Ok(num)
    }

    /// The job that is to be done next, of all owners: what a server before this one had begun, then the oldest.
    pub async fn next_job(&self) -> Result<Option<StoredJob>, StoreError> {
        let query = format!(
            "SELECT {COLUMNS} FROM jobs WHERE status IN ('running', 'validating_files', 'queued')
             ORDER BY CASE WHEN status = 'queued' THEN 1 ELSE 0 END, number LIMIT 1"
        );
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(query)).fetch_optional(&self.pool).await?)
    }

    /// What a client asks for: the status `to` in place of one of `from`, and an event; false where it has another.
    /// `finished_at` is set where the job thereby comes to its end.
    pub async fn move_job(
        &self,
        (owner, id): (&str, &str),
        from: &[&str],
        to: &str,
        finished_at: Option<i64>,
        event: JobEntry,
    ) -> Result<bool, StoreError> {
        let mut write = self.write().await?;
        for from in from {
            let update = "UPDATE jobs SET status = $3, finished_at = $4 WHERE id = $1 AND owner = $2 AND status = $5";
            let done = sqlx::query(update)
                .bind(id.to_owned())
                .bind(owner.to_owned())
                .bind(to.to_owned())
                .bind(finished_at)
                .bind((*from).to_owned())
                .execute(&mut *write.transaction)
                .await?;
            if done.rows_affected() > 0 {
                add_event(&mut write, id, event).await?;
                write.commit().await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What the runner has to say: the job as it is now and its news, in one transaction, if it still has the status
    /// `from`; false, and nothing is written, where it has another.
    pub async fn change_job(&self, job: &StoredJob, from: &str, news: JobNews) -> Result<bool, StoreError> {
        let mut write = self.write().await?;
        let update = "UPDATE jobs SET status = $3, finished_at = $4, last_step = $5, body = $6,
            model = COALESCE($7, model) WHERE id = $1 AND owner = $2 AND status = $8";
        let done = sqlx::query(update)
            .bind(job.id.clone())
            .bind(job.owner.clone())
            .bind(job.status.clone())
            .bind(job.finished_at)
            .bind(job.last_step)
            .bind(job.body.clone())
            .bind(news.model)
            .bind(from.to_owned())
            .execute(&mut *write.transaction)
            .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        for event in news.events {
            add_event(&mut write, &job.id, event).await?;
        }
        for checkpoint in news.checkpoints {
            add_checkpoint(&mut write, &job.id, checkpoint).await?;
        }
        if let Some(step) = news.gone_before {
            let query = sqlx::query("DELETE FROM job_checkpoints WHERE job_id = $1 AND step < $2");
            query.bind(job.id.clone()).bind(step).execute(&mut *write.transaction).await?;
        }
        if let Some((file, content)) = news.file {
            for (position, chunk) in (0_i64..).zip(content.chunks(CHUNK_BYTES)) {
                write_chunk(&mut write, &file.id, position, chunk.to_vec()).await?;
            }
            write_file(&mut write, &job.owner, &file, true).await?;
        }
        write.commit().await?;
        Ok(true)
    }
}

async fn add_event(write: &mut Write<'_>, job_id: &str, event: JobEntry) -> Result<(), StoreError> {
    let insert = "INSERT INTO job_events (job_id, number, id, body)
        SELECT $1, COALESCE(MAX(number), 0) + 1, $2, $3 FROM job_events WHERE job_id = $1";
    let query = sqlx::query(insert).bind(job_id.to_owned()).bind(event.id).bind(event.body);
    query.execute(&mut *write.transaction).await?;
    Ok(())
}

async fn add_checkpoint(write: &mut Write<'_>, job_id: &str, new: JobCheckpoint) -> Result<(), StoreError> {
    let insert = "INSERT INTO job_checkpoints (job_id, step, id, body) VALUES ($1, $2, $3, $4)
        ON CONFLICT (job_id, step) DO NOTHING";
    let query = sqlx::query(insert).bind(job_id.to_owned()).bind(new.step).bind(new.entry.id).bind(new.entry.body);
    query.execute(&mut *write.transaction).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{id, on_each, sqlite};

    fn entry(prefix: &str, body: &str) -> JobEntry {
        JobEntry { id: id(prefix), body: body.to_owned() }
    }

    fn job(owner: &str) -> StoredJob {
        let status = "queued".to_owned();
        let (settings, body) = ("[finetune]".to_owned(), "{}".to_owned());
        StoredJob { id: id("ftjob"), owner: owner.into(), status, finished_at: None, last_step: -1, settings, body }
    }

    #[tokio::test]
    async fn a_job_leaves_each_status_once() {
        on_each(async |store| {
            let owner = id("key");
            let new = job(&owner);
            store.insert_job(&new, 1, entry("ftevent", "0")).await.unwrap();
            let begun = StoredJob { status: "running".into(), last_step: 3, body: "{\"a\":1}".into(), ..new.clone() };
            assert!(store.change_job(&begun, "queued", JobNews::default()).await.unwrap());
            let who = (owner.as_str(), new.id.as_str());
            assert!(store.move_job(who, &["queued", "running"], "paused", None, entry("e", "1")).await.unwrap());
            assert!(!store.move_job(who, &["queued", "running"], "paused", None, entry("e", "2")).await.unwrap());
            let file = StoredFile {
                id: id("file"),
                created_at: 1,
                expires_at: None,
                filename: "f".into(),
                purpose: "fine-tune-results".into(),
                num_bytes: 3,
            };
            let end = StoredJob { status: "succeeded".into(), finished_at: Some(9), ..begun.clone() };
            let news = || JobNews {
                events: vec![entry("e", "3")],
                file: Some((file.clone(), b"abc".to_vec())),
                model: Some(id("ft")),
                ..JobNews::default()
            };
            assert!(!store.change_job(&end, "running", news()).await.unwrap(), "it was paused meanwhile");
            assert!(store.file(&owner, &file.id).await.unwrap().is_none());
            assert_eq!(store.num_open_jobs(&owner).await.unwrap(), 1);
            assert!(store.move_job(who, &["paused"], "running", None, entry("e", "4")).await.unwrap());
            assert!(store.change_job(&end, "running", news()).await.unwrap());
            assert!(!store.move_job(who, &["running"], "cancelled", Some(9), entry("e", "5")).await.unwrap());
            assert_eq!(store.job(&owner, &new.id).await.unwrap(), Some(end));
            assert_eq!(store.file_chunk(&file.id, 0).await.unwrap().unwrap(), b"abc");
            assert_eq!(store.num_open_jobs(&owner).await.unwrap(), 0);
            let page = Page { ascending: true, limit: 10, ..Page::default() };
            let events = store.list_of_job(&new.id, JobList::Events, &page).await.unwrap();
            assert_eq!(events.iter().map(|event| event.body.as_str()).collect::<String>(), "0143");
        })
        .await;
    }

    #[tokio::test]
    async fn nobody_sees_or_moves_anothers_job() {
        on_each(async |store| {
            let (owner, other) = (id("key"), id("key"));
            let new = job(&owner);
            store.insert_job(&new, 1, entry("ftevent", "0")).await.unwrap();
            assert_eq!(store.job(&other, &new.id).await.unwrap(), None);
            assert_eq!(store.job(&owner, "a\0").await.unwrap(), None);
            assert!(
                !store.move_job((&other, &new.id), &["queued"], "cancelled", Some(1), entry("e", "")).await.unwrap()
            );
            let strange = StoredJob { owner: other.clone(), ..new.clone() };
            assert!(!store.change_job(&strange, "queued", JobNews::default()).await.unwrap());
            assert!(store.list_jobs(&other, &Page { limit: 5, ..Page::default() }).await.unwrap().is_empty());
            assert_eq!(
                store.list_jobs(&owner, &Page { limit: 5, ..Page::default() }).await.unwrap(),
                std::slice::from_ref(&new)
            );
            let end = ((owner.as_str(), new.id.as_str()), ["queued"]);
            assert!(store.move_job(end.0, &end.1, "cancelled", Some(1), entry("e", "")).await.unwrap());
        })
        .await;
    }

    #[tokio::test]
    async fn what_was_begun_is_next_and_old_checkpoints_go() {
        let folder = tempfile::tempdir().unwrap();
        let store = sqlite(&folder).await;
        let [first, second] = [job("ada"), job("eve")];
        for new in [&first, &second] {
            store.insert_job(new, 1, entry("ftevent", "")).await.unwrap();
        }
        assert_eq!(store.next_job().await.unwrap().unwrap().id, first.id);
        let begun = StoredJob { status: "running".into(), ..second.clone() };
        let checkpoints =
            (1..=4).map(|step| JobCheckpoint { step, entry: entry("ftckpt", &step.to_string()) }).collect();
        let news = JobNews { checkpoints, gone_before: Some(3), ..JobNews::default() };
        assert!(store.change_job(&begun, "queued", news).await.unwrap());
        let again = vec![JobCheckpoint { step: 4, entry: entry("ftckpt", "again") }];
        let news = JobNews { checkpoints: again, ..JobNews::default() };
        assert!(store.change_job(&begun, "running", news).await.unwrap());
        assert_eq!(store.next_job().await.unwrap().unwrap().id, second.id, "it was begun");
        let page = Page { limit: 1, ..Page::default() };
        let listed = store.list_of_job(&second.id, JobList::Checkpoints, &page).await.unwrap();
        assert_eq!(listed.iter().map(|entry| entry.body.as_str()).collect::<Vec<_>>(), ["4", "3"]);
    }

    #[tokio::test]
    async fn a_database_of_before_gets_the_tables() {
        let folder = tempfile::tempdir().unwrap();
        let store = sqlite(&folder).await;
        for statement in [
            "DROP TABLE jobs",
            "DROP TABLE job_events",
            "DROP TABLE job_checkpoints",
            "UPDATE ossia_schema SET version = 1",
        ] {
            sqlx::query(statement).execute(&store.pool).await.unwrap();
        }
        store.close().await;
        let store = sqlite(&folder).await;
        store.insert_job(&job("ada"), 1, entry("ftevent", "")).await.unwrap();
    }
}
