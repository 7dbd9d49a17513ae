//! Fine-tuning jobs, with a small script in the place of the program that trains (`trainer.sh`): what the training file's
//! first line says is how it behaves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{Answer, TestServer};
use ossia_serve::auth::Scope;
use ossia_serve::keys::NewKey;
use ossia_serve::store::StoredFile;
use ossia_serve::training::{self, Times, TrainingOptions};
use serde_json::{Value, json};

/// A server that trains, and where the script notes what it was asked.
struct School {
    server: TestServer,
    answers: PathBuf,
}

fn options(data: &Path, silence: Duration) -> TrainingOptions {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/trainer.sh");
    let answers = data.join("answers");
    std::fs::create_dir_all(&answers).unwrap();
    let times = Times {
        look: Duration::from_millis(20),
        pause: Duration::from_secs(2),
        down: Duration::from_millis(600),
        silence,
    };
    let arguments = vec![script.into_os_string(), answers.into_os_string()];
    TrainingOptions { program: "/bin/sh".into(), arguments, folder: data.join("fine-tuning"), times }
}

impl School {
    async fn open() -> Self {
        Self::open_in(tempfile::tempdir().unwrap(), Duration::from_secs(60)).await
    }

    async fn open_in(folder: tempfile::TempDir, silence: Duration) -> Self {
        let server = TestServer::start_in(folder).await;
        let options = options(server.folder.path(), silence);
        training::start(&server.app, options);
        let answers = server.folder.path().join("answers");
        Self { server, answers }
    }

    /// A file of the server's own key.
    async fn file(&self, purpose: &str, text: &str) -> String {
        file_of(&self.server, &self.server.owner, purpose, text).await
    }

    async fn create(&self, play: &str, more: Value) -> Answer {
        let file = self.file("fine-tune", &format!("{{\"play\":\"{play}\"}}\n")).await;
        let mut body = json!({ "model": "nano", "training_file": file });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        self.server.send("POST", "/v1/fine_tuning/jobs", Some(&body)).await
    }

    /// The id of a new job.
    async fn job(&self, play: &str) -> String {
        let answer = self.create(play, json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    async fn ask(&self, key: &str, method: &str, id: &str, what: &str) -> Answer {
        self.server.send_as(Some(key), method, &format!("/v1/fine_tuning/jobs/{id}{what}"), None).await
    }

    async fn get(&self, id: &str) -> Value {
        self.of(&self.server.key, id).await
    }

    async fn of(&self, key: &str, id: &str) -> Value {
        let answer = self.ask(key, "GET", id, "").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    /// The job when it is as wanted.
    async fn until(&self, key: &str, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..1500 {
            let job = self.of(key, id).await;
            if wanted(&job) {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{}\n{:#?}", self.of(key, id).await, self.messages(key, id).await);
    }

    async fn ended(&self, id: &str) -> Value {
        self.until(&self.server.key, id, |job| job["finished_at"].is_u64()).await
    }

    /// Events, oldest first.
    async fn events(&self, key: &str, id: &str) -> Vec<Value> {
        let list = self.ask(key, "GET", id, "/events?limit=1000&order=asc").await.json();
        list["data"].as_array().unwrap().clone()
    }

    async fn messages(&self, key: &str, id: &str) -> Vec<String> {
        let text = |event: &Value| event["message"].as_str().unwrap().to_owned();
        self.events(key, id).await.iter().map(text).collect()
    }

    /// The updates whose numbers are events, in order.
    async fn steps(&self, key: &str, id: &str) -> Vec<i64> {
        let events = self.events(key, id).await;
        let metrics = events.iter().filter(|event| event["type"] == "metrics");
        metrics.map(|event| event["data"]["step"].as_i64().unwrap()).collect()
    }

    fn num_starts(&self) -> usize {
        self.pids().len()
    }

    fn pids(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.answers.join("starts")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn folder(&self, id: &str) -> PathBuf {
        self.server.folder.path().join("fine-tuning").join(id)
    }

    /// Until the job's folder is gone, and the last process with it.
    async fn is_gone(&self, id: &str) {
        let pid = self.pids().pop();
        for _ in 0..1000 {
            let lives = pid.as_ref().is_some_and(|pid| lives(pid));
            if !self.folder(id).exists() && !lives {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?} is still there, or {pid:?}", self.folder(id));
    }
}

/// Whether a process runs; one that nobody has waited for does not.
fn lives(pid: &str) -> bool {
    if std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z")) {
        return false;
    }
    let status = std::process::Command::new("/bin/sh").args(["-c", "kill -0 \"$0\" 2>/dev/null", pid]).status();
    status.unwrap().success()
}

async fn file_of(server: &TestServer, owner: &str, purpose: &str, text: &str) -> String {
    let file = StoredFile {
        id: ossia_serve::ids::new("file").unwrap().replacen('_', "-", 1),
        created_at: 1,
        expires_at: None,
        filename: "train.jsonl".into(),
        purpose: purpose.into(),
        num_bytes: text.len() as i64,
    };
    let store = &server.app.keeping.store;
    assert!(store.begin_file(owner, &file, 1 << 30).await.unwrap());
    store.add_chunk(&file.id, 0, text.as_bytes().to_vec()).await.unwrap();
    store.complete_file(owner, &file).await.unwrap();
    file.id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_from_a_file_to_a_model() {
    let school = School::open().await;
    let numbers = json!({ "hyperparameters": { "learning_rate_multiplier": 2 } });
    let more = json!({ "suffix": "mine", "seed": 5, "metadata": { "a": "b" }, "validation_file": school.file("fine-tune", "{}").await,
        "method": { "type": "supervised", "supervised": numbers } });
    let new = school.create("well", more).await.json();
    assert_eq!(
        (&new["object"], &new["status"], &new["seed"]),
        (&json!("fine_tuning.job"), &json!("queued"), &json!(5))
    );
    let id = new["id"].as_str().unwrap();
    let job = school.ended(id).await;
    assert_eq!((&job["status"], &job["error"]), (&json!("succeeded"), &Value::Null), "{job}");
    assert_eq!((&job["trained_tokens"], &job["hyperparameters"]["n_epochs"]), (&json!(600), &json!(3)));
    let model = job["fine_tuned_model"].as_str().unwrap();
    assert!(model.starts_with("ft:nano:ossia:mine:"), "{model}");
    assert_eq!(job["metadata"], json!({ "a": "b" }));
    let key = &school.server.key;
    assert_eq!(school.steps(key, id).await, [1, 2, 3, 4, 5, 6]);
    let messages = school.messages(key, id).await;
    for (number, begin) in [
        (0, "Created fine-tuning job: ftjob-"),
        (1, "Validating training file: file-"),
        (2, "Files validated: 2 examples, 6 updates; training started"),
    ] {
        assert!(messages[number].starts_with(begin), "{messages:?}");
    }
    assert!(messages.contains(&"Step 2/6: training loss=1.2000".to_owned()), "{messages:?}");
    assert_eq!(messages.last().unwrap(), "The job has successfully completed");
    let newest = school.ask(key, "GET", id, "/events?limit=2").await.json();
    assert_eq!((&newest["data"][0]["message"], &newest["has_more"]), (&json!(messages.last().unwrap()), &json!(true)));
    let after = format!("/events?limit=1&after={}", newest["data"][1]["id"].as_str().unwrap());
    assert_eq!(school.ask(key, "GET", id, &after).await.json()["data"][0]["message"], messages[messages.len() - 3]);
    for list in ["events", "checkpoints"] {
        let unknown = school.ask(key, "GET", id, &format!("/{list}?after=ftevent-1")).await;
        assert_eq!((unknown.status, &unknown.json()["error"]["param"]), (400, &json!("after")), "{list}");
        let all = school.ask(key, "GET", id, &format!("/{list}?limit=1000")).await.json();
        let last = school.ask(key, "GET", id, &format!("/{list}?after={}", all["last_id"].as_str().unwrap())).await;
        assert_eq!((last.status, &last.json()["data"]), (200, &json!([])), "{list}");
    }
    let checkpoints = school.ask(key, "GET", id, "/checkpoints").await.json();
    let checkpoints = checkpoints["data"].as_array().unwrap();
    let steps: Vec<&Value> = checkpoints.iter().map(|checkpoint| &checkpoint["step_number"]).collect();
    assert_eq!(steps, [6, 5, 4]);
    assert_eq!(checkpoints[0]["metrics"]["train_loss"], 1.6);
    assert_eq!(checkpoints[0]["fine_tuned_model_checkpoint"], format!("{model}:ckpt-step-6"));
    let table = format!("/v1/files/{}/content", job["result_files"][0].as_str().unwrap());
    let table = school.server.send("GET", &table, None).await.text;
    assert_eq!(table.lines().count(), 7, "{table}");
    let config = std::fs::read_to_string(school.answers.join("config.toml")).unwrap();
    for part in ["[finetune]", "seed = 5", "lr_multiplier = 2", "file = \"validation_file.jsonl\""] {
        assert!(config.contains(part), "{config}");
    }
    assert!(!school.answers.join("leaked").exists());
    let left: Vec<_> = std::fs::read_dir(school.folder(id)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.len() == 2 && left.iter().all(|name| name == "adapter" || name == "checkpoints"), "{left:?}");
    assert_eq!(
        std::fs::read_to_string(school.folder(id).join("adapter/adapter_model.safetensors")).unwrap(),
        "step 6\n"
    );
    assert_eq!(std::fs::read_dir(school.folder(id).join("checkpoints")).unwrap().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_wait_in_line() {
    let school = School::open().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(school.job("well").await);
    }
    let mut ends = Vec::new();
    for id in &ids {
        let job = school.ended(id).await;
        assert_eq!(job["status"], "succeeded");
        let events = school.events(&school.server.key, id).await;
        let begun = events.iter().find(|event| event["message"].as_str().unwrap().starts_with("Validating")).unwrap();
        ends.push((begun["created_at"].as_u64().unwrap(), job["finished_at"].as_u64().unwrap()));
    }
    assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0), "one at a time: {ends:?}");
    let listed = school.server.send("GET", "/v1/fine_tuning/jobs?limit=2", None).await.json();
    let listed_ids: Vec<&str> =
        listed["data"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect();
    assert_eq!((listed_ids, &listed["has_more"]), (vec![&*ids[2], &*ids[1]], &json!(true)));
    let after = format!("/v1/fine_tuning/jobs?after={}", ids[1]);
    assert_eq!(school.server.send("GET", &after, None).await.json()["data"][0]["id"], json!(ids[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_said() {
    let school = School::open().await;
    for (play, message, num_starts, code) in [
        ("wrong", "training_file.jsonl: line 3: wanted JSON", 1, "invalid_training_file"),
        ("usage", "The training process ended unexpectedly, 3 times in a row.", 3, "training_failed"),
        ("fall", "The training process ended unexpectedly, 3 times in a row.", 3, "training_failed"),
        ("empty", "The training process ended without an adapter.", 1, "training_failed"),
    ] {
        let before = school.num_starts();
        let id = school.job(play).await;
        let job = school.ended(&id).await;
        assert_eq!((&job["status"], &job["error"]["message"]), (&json!("failed"), &json!(message)), "{play}");
        assert_eq!((&job["error"]["code"], &job["fine_tuned_model"]), (&json!(code), &Value::Null), "{play}");
        assert_eq!(school.num_starts() - before, num_starts, "{play}");
        let events = school.events(&school.server.key, &id).await;
        assert_eq!(
            (&events.last().unwrap()["level"], &events.last().unwrap()["message"]),
            (&json!("error"), &json!(message))
        );
        school.is_gone(&id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_costs_nothing_but_time() {
    let school = School::open().await;
    let id = school.job("crash").await;
    let job = school.ended(&id).await;
    assert_eq!((&job["status"], school.num_starts()), (&json!("succeeded"), 2), "{job}");
    assert_eq!(school.steps(&school.server.key, &id).await, [1, 2, 3, 4, 5, 6]);
    let messages = school.messages(&school.server.key, &id).await;
    assert!(messages.contains(&"Training goes on after step 3/6".to_owned()), "{messages:?}");
    let made = messages.iter().filter(|message| message.starts_with("Checkpoint created")).count();
    assert!(made <= 6, "{messages:?}");
}

fn is_under_way(job: &Value) -> bool {
    job["status"] == "running" && job["trained_tokens"].as_i64().is_some_and(|tokens| tokens >= 200)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_paused_and_goes_on() {
    let school = School::open().await;
    let key = school.server.key.clone();
    let id = school.job("slow").await;
    school.until(&key, &id, is_under_way).await;
    assert_eq!(school.ask(&key, "POST", &id, "/resume").await.status, 400, "it runs");
    let paused = school.ask(&key, "POST", &id, "/pause").await.json();
    assert_eq!(paused["status"], "paused");
    assert_eq!(school.ask(&key, "POST", &id, "/pause").await.status, 200, "asking twice is no error");
    for _ in 0..500 {
        if !school.pids().iter().any(|pid| lives(pid)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!school.pids().iter().any(|pid| lives(pid)), "it has saved and ended");
    let resumed = school.ask(&key, "POST", &id, "/resume").await.json();
    assert!(["queued", "validating_files", "running"].contains(&resumed["status"].as_str().unwrap()), "{resumed}");
    let job = school.ended(&id).await;
    assert_eq!((&job["status"], school.num_starts()), (&json!("succeeded"), 2));
    assert_eq!(school.steps(&key, &id).await, [1, 2, 3, 4, 5, 6]);
    for what in ["/cancel", "/pause", "/resume"] {
        let answer = school.ask(&key, "POST", &id, what).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text);
    }
    assert_eq!(school.get(&id).await, job, "what has ended stays as it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_does_not_listen_is_cancelled_all_the_same() {
    let school = School::open().await;
    let key = school.server.key.clone();
    let hanging = school.job("hang deaf").await;
    let waiting = school.job("well").await;
    let unborn = school.job("well").await;
    school.until(&key, &hanging, is_under_way).await;
    assert_eq!(school.get(&waiting).await["status"], "queued", "one at a time");
    assert_eq!(school.ask(&key, "POST", &unborn, "/cancel").await.json()["status"], "cancelled");
    let paused = school.ask(&key, "POST", &hanging, "/pause").await.json();
    assert_eq!(paused["status"], "paused");
    let job = school.ask(&key, "POST", &hanging, "/cancel").await.json();
    assert!(job["status"] == "cancelled" && job["finished_at"].is_u64(), "{job}");
    school.ended(&waiting).await;
    assert!(!school.folder(&hanging).exists());
    assert_eq!((school.num_starts(), &school.get(&unborn).await["status"]), (2, &json!("cancelled")));
    assert_eq!(school.messages(&key, &hanging).await.last().unwrap(), "Fine-tuning job was cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_hangs_fails() {
    let school = School::open_in(tempfile::tempdir().unwrap(), Duration::from_millis(500)).await;
    let id = school.job("hang deaf").await;
    let job = school.ended(&id).await;
    assert!(job["error"]["message"].as_str().unwrap().contains("no sign of life"), "{job}");
    school.is_gone(&id).await;
}

/// The server is told to stop: the child saves, and the next server goes on from there.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_after_a_restart() {
    for play in ["slow", "slow deaf"] {
        let school = School::open().await;
        let id = school.job(play).await;
        let School { server, .. } = &school;
        school.until(&server.key, &id, is_under_way).await;
        server.app.drain();
        server.app.keeping.close().await;
        assert!(!school.pids().iter().any(|pid| lives(pid)), "no process outlives the server that ends");
        let TestServer { folder, key, .. } = school.server;
        let again = School::open_in(folder, Duration::from_secs(60)).await;
        let job = again.until(&key, &id, |job| job["finished_at"].is_u64()).await;
        assert_eq!((&job["status"], again.num_starts()), (&json!("succeeded"), 2), "{play}");
        assert_eq!(again.steps(&key, &id).await, [1, 2, 3, 4, 5, 6], "{play}");
    }
}

/// A server that is gone at once, as if it were killed: its tasks stop where they are, its children live.
fn killed(play: &str) -> (tempfile::TempDir, String, String) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let left = runtime.block_on(async {
        let school = School::open().await;
        let id = school.job(play).await;
        school.until(&school.server.key, &id, is_under_way).await;
        let TestServer { folder, key, .. } = school.server;
        (folder, key, id)
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    left
}

#[test]
fn a_process_that_outlived_its_server_is_followed_further() {
    let (folder, key, id) = killed("slow");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let school = School::open_in(folder, Duration::from_secs(60)).await;
        let job = school.until(&key, &id, |job| job["finished_at"].is_u64()).await;
        assert_eq!(job["status"], "succeeded");
        assert_eq!(school.steps(&key, &id).await, [1, 2, 3, 4, 5, 6]);
        let ends = school.messages(&key, &id).await;
        assert_eq!(ends.iter().filter(|message| message.contains("successfully completed")).count(), 1);
    });
}

#[test]
fn a_process_that_outlived_its_server_can_be_cancelled() {
    for before in [true, false] {
        let (folder, key, id) = killed("hang deaf");
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let server = TestServer::start_in(folder).await;
            let path = format!("/v1/fine_tuning/jobs/{id}/cancel");
            if before {
                assert_eq!(server.send_as(Some(&key), "POST", &path, None).await.status, 200);
            }
            let options = options(server.folder.path(), Duration::from_secs(60));
            training::start(&server.app, options);
            let answers = server.folder.path().join("answers");
            let school = School { server, answers };
            assert_eq!(school.num_starts(), 1);
            if !before {
                tokio::time::sleep(Duration::from_millis(200)).await;
                assert_eq!((school.num_starts(), lives(&school.pids()[0])), (1, true), "it is followed");
                assert_eq!(school.server.send_as(Some(&key), "POST", &path, None).await.status, 200);
            }
            school.is_gone(&id).await;
            assert_eq!(school.of(&key, &id).await["status"], "cancelled");
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_jobs_are_refused() {
    let server = TestServer::start().await;
    let create = async |body: &Value| server.send("POST", "/v1/fine_tuning/jobs", Some(body)).await;
    let good = file_of(&server, &server.owner, "fine-tune", "{}\n").await;
    let body = json!({ "model": "nano", "training_file": good });
    assert_eq!(create(&body).await.status, 400, "this server does not train");
    training::start(&server.app, options(server.folder.path(), Duration::from_secs(60)));
    let other = file_of(&server, &server.owner, "batch", "{}\n").await;
    let strange = file_of(&server, "somebody", "fine-tune", "{}\n").await;
    let empty = file_of(&server, &server.owner, "fine-tune", "").await;
    for (field, value) in [
        ("model", json!("gpt-4o")),
        ("model", json!("")),
        ("training_file", json!("file-1")),
        ("training_file", json!("../../etc/passwd")),
        ("training_file", json!(other)),
        ("training_file", json!(strange)),
        ("training_file", json!(empty)),
        ("validation_file", json!(other)),
        ("metadata", json!({ "a": 1 })),
        ("suffix", json!("no good")),
        ("colour", json!("blue")),
        (
            "method",
            json!({ "type": "reinforcement", "reinforcement": { "grader": { "type": "string_check", "operation": "is" } } }),
        ),
    ] {
        let mut body = body.clone();
        body[field] = value.clone();
        let answer = create(&body).await;
        assert_eq!(answer.status, 400, "{field} {value}: {}", answer.text);
        let param = answer.json()["error"]["param"].as_str().unwrap_or_default().to_owned();
        assert!(param.starts_with(field), "{field} {value}: {}", answer.text);
    }
    let job = create(&body).await.json();
    let stranger = server.key(NewKey { name: "other".into(), scopes: Scope::ALL.to_vec(), ..NewKey::default() });
    let path = format!("/v1/fine_tuning/jobs/{}", job["id"].as_str().unwrap());
    for (method, what) in
        [("GET", ""), ("GET", "/events"), ("GET", "/checkpoints"), ("POST", "/cancel"), ("POST", "/pause")]
    {
        let answer = server.send_as(Some(&stranger), method, &format!("{path}{what}"), None).await;
        assert_eq!(answer.status, 404, "{what}: {}", answer.text);
    }
    let listed = server.send_as(Some(&stranger), "GET", "/v1/fine_tuning/jobs", None).await.json();
    assert_eq!(listed["data"], json!([]));
}
