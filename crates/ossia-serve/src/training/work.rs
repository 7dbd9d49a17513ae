//! One job from its turn in the queue to its end, or to where it is left for later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::{Value, json};

use super::TrainingOptions;
use super::child::{self, Child};
use super::folder::{self, Fault, Folder};
use super::progress::{self, Growing, Numbers, Said};
use crate::app::Shared;
use crate::auth::Scope;
use crate::clock;
use crate::error::ApiError;
use crate::ids;
use crate::routes::fine_tuning::{KEPT_CHECKPOINTS, VALIDATION_FILE, event};
use crate::routes::responses::{kept_json, lost};
use crate::store::{JobCheckpoint, JobEntry, JobNews, StoredFile, StoredJob};

/// A child that breaks is started again from its last checkpoint; after so many times in a row without a new update the job
/// fails.
const MOST_TRIES: usize = 3;
/// Updates whose numbers wait for a checkpoint.
const MOST_RECENT: usize = 2000;

/// Does a job until it is at its end or is left for later. An error is the server's own trouble: the job waits.
pub async fn run(app: &Shared, options: &TrainingOptions, job: StoredJob) -> Result<(), ApiError> {
    let folder = Folder::of(&options.folder, &job.id);
    let body = kept_json(&job.body)?;
    let mut work = Work {
        app,
        options,
        said: Growing::new(folder.path().join(child::SAID)),
        folder,
        job,
        body,
        log: None,
        steps: 0,
        recent: BTreeMap::new(),
        listed: BTreeSet::new(),
        heard: Instant::now(),
        outcome: None,
        is_left: false,
    };
    match work.go().await {
        Ok(()) => Ok(()),
        Err(Fault::Ours(error)) => Err(error),
        Err(Fault::Folder(error)) => {
            tracing::error!(%error, job = work.job.id, "the folder of a job");
            if let Ok(Some(mut child)) = Child::left_in(work.folder.path()) {
                child.kill();
            }
            work.fail("training_failed", &format!("The job's folder cannot be used: {}.", error.kind())).await
        }
    }
}

/// How a child's life ended.
enum Ending {
    Succeeded,
    Failed(String),
    /// The job is paused or cancelled, or the server goes down.
    Left,
    /// It said nothing.
    Broke(String),
}

/// Why a child is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Intent {
    Pause,
    Down,
    Silent,
    Cancel,
}

struct Work<'a> {
    app: &'a Shared,
    options: &'a TrainingOptions,
    folder: Folder,
    /// As it is in the database, unless somebody has moved its status.
    job: StoredJob,
    body: Value,
    said: Growing,
    /// The run's log, once the child has opened it.
    log: Option<Growing>,
    steps: i64,
    /// Numbers of the newest updates.
    recent: BTreeMap<i64, Value>,
    /// Checkpoints that are in the database.
    listed: BTreeSet<i64>,
    /// When the child last gave a sign.
    heard: Instant,
    outcome: Option<Said>,
    /// The child is one of a server before this one: its first words have been heard.
    is_left: bool,
}

impl Work<'_> {
    async fn go(&mut self) -> Result<(), Fault> {
        if self.app.auth.by_id(&self.job.owner, Scope::Train).is_none() {
            if let Some(mut child) = Child::left_in(self.folder.path())? {
                child.kill();
            }
            return Ok(self.fail("key_not_allowed", "The key that made this job may not train any more.").await?);
        }
        let mut tries = 0;
        loop {
            let left = Child::left_in(self.folder.path())?;
            self.is_left = left.is_some();
            let mut child = match left {
                Some(child) => child,
                None => match self.begin().await? {
                    Some(child) => child,
                    None => return Ok(()),
                },
            };
            let before = self.job.last_step;
            match self.follow(&mut child).await? {
                Ending::Succeeded => return self.succeed().await,
                Ending::Failed(message) => return Ok(self.fail(code_of(&message), &message).await?),
                Ending::Left => return self.leave().await,
                Ending::Broke(how) => {
                    tries = if self.job.last_step > before { 1 } else { tries + 1 };
                    tracing::warn!(job = self.job.id, how, "a training process broke");
                    if tries == MOST_TRIES {
                        let message = format!("The training process ended unexpectedly, {tries} times in a row.");
                        return Ok(self.fail("training_failed", &message).await?);
                    }
                    let message = "The training process ended unexpectedly; it goes on from its last checkpoint";
                    let (from, events) = (self.job.status.clone(), vec![event("warn", message, None)?]);
                    if !self.change(&from, JobNews { events, ..JobNews::default() }).await? {
                        return self.leave().await;
                    }
                }
            }
        }
    }

    /// Brings the job into its folder and starts a child; nothing where the job was moved or cannot begin.
    async fn begin(&mut self) -> Result<Option<Child>, Fault> {
        let training = self.text("training_file");
        if self.job.status == "queued" {
            let from = std::mem::replace(&mut self.job.status, "validating_files".to_owned());
            let events = vec![event("info", &format!("Validating training file: {training}"), None)?];
            if !self.change(&from, JobNews { events, ..JobNews::default() }).await? {
                return Ok(None);
            }
        }
        self.folder.make(&self.job.settings)?;
        let files = [(training, folder::TRAINING_FILE), (self.text("validation_file"), VALIDATION_FILE)];
        for (id, name) in files.iter().filter(|(id, _)| !id.is_empty()) {
            if !self.folder.fetch(self.app, &self.job.owner, id, name).await? {
                self.fail("invalid_training_file", &format!("The file {id} is not there any more.")).await?;
                return Ok(None);
            }
        }
        (self.log, self.outcome, self.heard) = (None, None, Instant::now());
        self.said = Growing::new(self.folder.path().join(child::SAID));
        let arguments = ["--data", folder::TRAINING_FILE, "--config", folder::CONFIG, "--out", folder::RUN, "--json"];
        match Child::spawn(self.options, self.folder.path(), &arguments) {
            Ok(child) => Ok(Some(child)),
            Err(error) => {
                tracing::error!(%error, "a training process could not be started");
                self.fail("training_failed", "The training process could not be started.").await?;
                Ok(None)
            }
        }
    }

    /// Hears what a child has to say until it has ended, by itself or because it had to.
    async fn follow(&mut self, child: &mut Child) -> Result<Ending, Fault> {
        let (mut wanted, mut until) = (None, None);
        loop {
            tokio::time::sleep(self.options.times.look).await;
            // Before its words are heard, so that none is missed.
            let has_ended = child.has_ended()?;
            let status = self.app.keeping.store.job_status(&self.job.id).await.map_err(lost)?;
            let is_ours = status.as_deref() == Some(&*self.job.status);
            if is_ours {
                self.hear().await?;
            }
            if has_ended {
                return Ok(self.ending(is_ours, wanted, child));
            }
            let now = self.intent(status.as_deref());
            if now > wanted {
                wanted = now;
                let times = self.options.times;
                until = match now {
                    Some(Intent::Pause) => Some(Instant::now() + times.pause),
                    Some(Intent::Down) => Some(Instant::now() + times.down),
                    _ => Some(Instant::now()),
                };
                child.ask_to_end();
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                child.kill();
            }
        }
    }

    fn intent(&self, status: Option<&str>) -> Option<Intent> {
        match status {
            Some("validating_files" | "running") if !self.app.is_ready() => Some(Intent::Down),
            Some("validating_files" | "running") => {
                (self.heard.elapsed() > self.options.times.silence).then_some(Intent::Silent)
            }
            // Paused, and resumed before the child has ended: it is begun again.
            Some("paused" | "queued") if self.app.is_ready() => Some(Intent::Pause),
            Some("paused" | "queued") => Some(Intent::Down),
            _ => Some(Intent::Cancel),
        }
    }

    fn ending(&mut self, is_ours: bool, wanted: Option<Intent>, child: &mut Child) -> Ending {
        match (self.outcome.take(), wanted) {
            _ if !is_ours => Ending::Left,
            (Some(Said::Complete), _) => Ending::Succeeded,
            (Some(Said::Failed(message)), _) if !message.is_empty() => Ending::Failed(message),
            (_, Some(Intent::Silent)) => {
                Ending::Failed("The training process gave no sign of life and was ended.".into())
            }
            (_, Some(_)) => Ending::Left,
            // A signal to all processes reaches the child before the server looks.
            _ if !self.app.is_ready() => Ending::Left,
            _ => Ending::Broke(child.how_it_ended()),
        }
    }

    /// Reads what is new and writes it down.
    async fn hear(&mut self) -> Result<(), Fault> {
        let (job, body) = (self.job.clone(), self.body.clone());
        let mut news = JobNews::default();
        let lines = self.said.lines()?;
        let mut is_new = !lines.is_empty();
        for said in lines.iter().filter_map(Said::read) {
            match said {
                Said::Begins { steps, step, epochs, examples } => {
                    self.steps = steps;
                    self.log = Some(Growing::new(self.folder.path().join(folder::RUN).join("metrics.jsonl")));
                    news.events.extend(self.begun(step, epochs, examples)?);
                }
                said => self.outcome = Some(said),
            }
        }
        let lines = self.log.as_mut().map_or_else(|| Ok(Vec::new()), Growing::lines)?;
        for numbers in lines.iter().filter_map(Numbers::read) {
            is_new = true;
            news.events.extend(self.count(numbers)?);
        }
        self.find_checkpoints(&mut news)?;
        if is_new {
            self.heard = Instant::now();
        }
        let from = job.status.clone();
        let is_worth = !news.events.is_empty() || !news.checkpoints.is_empty() || self.job != job || self.body != body;
        if is_worth && !self.change(&from, news).await? {
            // Moved meanwhile: what is not written down is heard again when the job goes on.
            (self.job, self.body) = (job, body);
        }
        Ok(())
    }

    /// Updates begin.
    fn begun(&mut self, step: i64, epochs: Option<f64>, examples: Option<i64>) -> Result<Option<JobEntry>, ApiError> {
        let epochs = epochs.map(|epochs| if epochs.fract() == 0.0 { json!(epochs as i64) } else { json!(epochs) });
        if let Some(epochs) = epochs.filter(|_| self.body["hyperparameters"]["n_epochs"] == "auto") {
            self.body["hyperparameters"]["n_epochs"] = epochs;
        }
        let is_first = std::mem::replace(&mut self.job.status, "running".to_owned()) == "validating_files";
        if !is_first && self.is_left {
            return Ok(None);
        }
        let message = match (step, examples) {
            (0, Some(examples)) => {
                format!("Files validated: {examples} examples, {} updates; training started", self.steps)
            }
            (0, None) => format!("Files validated: {} updates; training started", self.steps),
            (step, _) => format!("Training goes on after step {step}/{}", self.steps),
        };
        event("info", &message, None).map(Some)
    }

    /// An update is done; nothing where it was known.
    fn count(&mut self, numbers: Numbers) -> Result<Option<JobEntry>, ApiError> {
        let Numbers { step, tokens, elapsed_s, .. } = numbers;
        self.recent.insert(step, numbers.shown.clone());
        while self.recent.len() > MOST_RECENT {
            self.recent.pop_first();
        }
        if step <= self.job.last_step {
            return Ok(None);
        }
        self.job.last_step = step;
        self.body["trained_tokens"] = json!(tokens);
        if step > 0 {
            let left = elapsed_s / step as f64 * (self.steps - step).max(0) as f64;
            self.body["estimated_finish"] = json!(clock::now_s().saturating_add(left as u64));
        }
        let mut data = numbers.shown.clone();
        data["total_steps"] = json!(self.steps);
        event("info", &numbers.line(self.steps), Some(data)).map(Some)
    }

    /// Checkpoints that are new.
    fn find_checkpoints(&mut self, news: &mut JobNews) -> Result<(), Fault> {
        // Step 0 is the model as it was. One whose numbers have not been read yet is taken up with them. An older one may
        // stay in the run because it was the best.
        let known = |step: &i64| (1..=self.job.last_step).contains(step);
        let newest = self.folder.checkpoints()?.into_iter().rev().filter(|(step, _)| known(step));
        let mut newest: Vec<_> = newest.take(KEPT_CHECKPOINTS).collect();
        newest.retain(|(step, _)| !self.listed.contains(step));
        for (step, path) in newest.into_iter().rev() {
            match self.folder.keep_checkpoint(step, &path) {
                Ok(true) => news.events.push(event("info", &format!("Checkpoint created at step {step}"), None)?),
                Ok(false) => {}
                // The run has deleted it meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            }
            self.listed.insert(step);
            let id = ids::new("ftckpt")?.replacen('_', "-", 1);
            let body = json!({
                "object": "fine_tuning.job.checkpoint", "id": id, "created_at": clock::now_s(),
                "fine_tuned_model_checkpoint": format!("{}:ckpt-step-{step}", self.model()),
                "fine_tuning_job_id": self.job.id, "step_number": step,
                "metrics": self.recent.get(&step).cloned().unwrap_or_else(|| json!({ "step": step })),
            });
            news.checkpoints.push(JobCheckpoint { step, entry: JobEntry { id, body: body.to_string() } });
        }
        while self.listed.len() > KEPT_CHECKPOINTS {
            if let Some(gone) = self.listed.pop_first() {
                folder::remove(&self.folder.checkpoint(gone))?;
                news.gone_before = Some(gone + 1);
            }
        }
        Ok(())
    }

    /// The adapter is there: it gets its name.
    async fn succeed(&mut self) -> Result<(), Fault> {
        let metrics = self.folder.path().join(folder::RUN).join("metrics.jsonl");
        if !self.folder.keep_adapter()? {
            return Ok(self.fail("training_failed", "The training process ended without an adapter.").await?);
        }
        let table = tokio::task::spawn_blocking(move || progress::table(&metrics)).await;
        let table = table.map_err(|_| ApiError::Internal)??;
        let (now, model) = (clock::now_s(), self.model());
        let file = StoredFile {
            id: ids::new("file")?.replacen('_', "-", 1),
            created_at: i64::try_from(now).unwrap_or(i64::MAX),
            expires_at: None,
            filename: "step_metrics.csv".to_owned(),
            purpose: "fine-tune-results".to_owned(),
            num_bytes: table.len() as i64,
        };
        self.body["fine_tuned_model"] = json!(model);
        self.body["result_files"] = json!([file.id]);
        self.body["estimated_finish"] = Value::Null;
        let events = vec![
            event("info", &format!("New fine-tuned model created: {model}"), None)?,
            event("info", "The job has successfully completed", None)?,
        ];
        let news = JobNews { events, file: Some((file, table)), model: Some(model), ..JobNews::default() };
        if !self.end("succeeded", news).await? {
            return self.leave().await;
        }
        // The job has ended: what is left here is tidied later.
        if let Err(error) = self.folder.clean() {
            tracing::error!(%error, job = self.job.id, "the folder of a job could not be tidied");
        }
        Ok(())
    }

    /// Ends the job with an error, unless it was moved meanwhile.
    async fn fail(&mut self, code: &str, message: &str) -> Result<(), ApiError> {
        let param = (code == "invalid_training_file").then_some("training_file");
        self.body["error"] = json!({ "code": code, "message": message, "param": param });
        self.body["estimated_finish"] = Value::Null;
        let events = vec![event("error", message, None)?];
        if self.end("failed", JobNews { events, ..JobNews::default() }).await?
            && let Err(error) = self.folder.delete()
        {
            tracing::error!(%error, job = self.job.id, "the folder of a job could not be deleted");
        }
        Ok(())
    }

    async fn end(&mut self, status: &str, news: JobNews) -> Result<bool, ApiError> {
        let from = std::mem::replace(&mut self.job.status, status.to_owned());
        self.job.finished_at = Some(i64::try_from(clock::now_s()).unwrap_or(i64::MAX));
        self.change(&from, news).await
    }

    /// Somebody has moved the job, or the server goes down.
    async fn leave(&mut self) -> Result<(), Fault> {
        let status = self.app.keeping.store.job_status(&self.job.id).await.map_err(lost)?;
        if status.is_some_and(|status| status == "cancelled") {
            self.folder.delete()?;
        }
        Ok(())
    }

    async fn change(&mut self, from: &str, news: JobNews) -> Result<bool, ApiError> {
        self.job.body = self.body.to_string();
        self.app.keeping.store.change_job(&self.job, from, news).await.map_err(lost)
    }

    fn text(&self, field: &str) -> String {
        self.body[field].as_str().unwrap_or_default().to_owned()
    }

    /// The name of the model that is made.
    fn model(&self) -> String {
        let base = self.app.model.id.rsplit('/').next().unwrap_or_default();
        let digits: String = self.job.id.chars().rev().take(8).collect();
        format!("ft:{base}:ossia:{}:{digits}", self.text("user_provided_suffix"))
    }
}

/// OpenAI's word for what is wrong.
fn code_of(message: &str) -> &'static str {
    if message.starts_with("training_file.jsonl") || message.starts_with(VALIDATION_FILE) {
        "invalid_training_file"
    } else {
        "training_failed"
    }
}
