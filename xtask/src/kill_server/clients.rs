//! Clients that work until the server is gone, and write down what it has acknowledged.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ledger::{Gone, KeptBatch, KeptConversation, KeptFile, KeptResponse, Ledger};
use crate::client::{Answer, Connection, NoAnswer, request};
use crate::json::Json;
use crate::rng::Rng;

/// What clients do, one client for each.
pub const KINDS: [&str; 7] = ["stream", "upload", "items", "response", "told", "talk", "batch"];
/// Batches that are under way at most.
const OPEN_BATCHES: usize = 3;
/// A conversation gets no longer: a page of its list holds all of it.
const LONGEST: usize = 60;

/// How many requests of each kind are under way.
#[derive(Default)]
pub struct InFlight {
    counts: [AtomicU64; KINDS.len()],
    problem: Mutex<Option<String>>,
}

impl InFlight {
    /// The kinds that are under way now.
    pub fn now(&self) -> Vec<&'static str> {
        let is_busy = |(kind, count): (&'static str, &AtomicU64)| (count.load(Ordering::Relaxed) > 0).then_some(kind);
        KINDS.into_iter().zip(&self.counts).filter_map(is_busy).collect()
    }

    /// The first thing that went wrong before the kill.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A client.
pub struct Client<'c> {
    /// Where the server listens.
    pub at: SocketAddr,
    /// A key.
    pub key: &'c str,
    /// Its own dice.
    pub rng: Rng,
    /// The kill that will end it.
    pub kill: u64,
    /// What it does.
    pub kind: &'static str,
    /// Where it writes down.
    pub ledger: &'c Mutex<Ledger>,
    /// Set when the server was killed.
    pub stop: &'c AtomicBool,
    /// Where it says that it waits.
    pub in_flight: &'c InFlight,
}

/// Why a client ends: the server is gone, or has done something wrong.
enum End {
    Gone,
    Wrong(String),
}

type Done = Result<(), End>;

impl Client<'_> {
    /// Works until the server is gone.
    pub fn work(mut self) {
        let place = KINDS.iter().position(|kind| *kind == self.kind).unwrap_or_default();
        for number in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            self.in_flight.counts[place].fetch_add(1, Ordering::Relaxed);
            let done = self.once(number);
            self.in_flight.counts[place].fetch_sub(1, Ordering::Relaxed);
            match done {
                Ok(()) => {}
                Err(End::Gone) => return,
                Err(End::Wrong(problem)) => {
                    let mut first = self.in_flight.problem.lock().unwrap_or_else(PoisonError::into_inner);
                    first.get_or_insert(format!("{}: {problem}", self.kind));
                    return;
                }
            }
        }
    }

    fn once(&mut self, number: u64) -> Done {
        match self.kind {
            "stream" => self.stream(),
            "upload" => self.upload(number),
            "items" => self.items(number),
            "response" => self.response(),
            "told" => self.told(),
            "talk" => self.talk(number),
            _ => self.batch(number),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<Connection, End> {
        Connection::open(self.at).map_err(|_| End::Gone)
    }

    /// The answer to bytes; anything but 200 is wrong.
    fn send(&self, bytes: &[u8]) -> Result<Answer, End> {
        match self.open()?.ask(bytes) {
            Ok(answer) if answer.status == 200 => Ok(answer),
            Ok(answer) => Err(End::Wrong(format!("{}: {}", answer.status, answer.text()))),
            Err(NoAnswer::Closed | NoAnswer::Cut(_)) => Err(End::Gone),
            Err(none) => Err(End::Wrong(none.to_string())),
        }
    }

    fn ask(&self, method: &str, target: &str, body: Option<&str>) -> Result<Json, End> {
        let answer = self.send(&request(method, target, self.at, self.key, body.map(str::as_bytes)))?;
        Json::read(&answer.body).ok_or_else(|| End::Wrong(format!("{target}: not JSON: {}", answer.text())))
    }

    /// Chat, streamed: nothing is kept of it, but it is what most clients do.
    fn stream(&mut self) -> Done {
        let seed = self.rng.below(1000);
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":"Count to 30."}}],"stream":true,"max_tokens":60,"temperature":1,"seed":{seed}}}"#
        );
        let answer = self.send(&request("POST", "/v1/chat/completions", self.at, self.key, Some(body.as_bytes())))?;
        if !answer.body.ends_with(b"data: [DONE]\n\n") {
            return Err(End::Wrong(format!("a stream without an end: {}", answer.text())));
        }
        self.ledger().num_streams += 1;
        Ok(())
    }

    fn upload(&mut self, number: u64) -> Done {
        if number % 4 == 3 {
            return self.delete_file();
        }
        let len = [100, 5_000, 300_000, 3_000_000][self.rng.below(4)] + self.rng.below(1000);
        let content: Vec<u8> = std::iter::repeat_with(|| b'a' + self.rng.below(26) as u8).take(len).collect();
        let id = self.uploaded(&content, "user_data")?;
        let kill = self.kill;
        self.ledger().files.push(KeptFile { id, content, kill, gone: Gone::No });
        Ok(())
    }

    fn delete_file(&mut self) -> Done {
        let id = {
            let mut ledger = self.ledger();
            let there = ledger.files.iter_mut().filter(|file| file.gone == Gone::No);
            let Some(file) = there.max_by_key(|file| file.kill) else { return Ok(()) };
            file.gone = Gone::Perhaps;
            file.id.clone()
        };
        self.ask("DELETE", &format!("/v1/files/{id}"), None)?;
        let mut ledger = self.ledger();
        ledger.files.iter_mut().filter(|file| file.id == id).for_each(|file| file.gone = Gone::Yes);
        Ok(())
    }

    fn uploaded(&self, content: &[u8], purpose: &str) -> Result<String, End> {
        let head = "--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
        let tail = format!("\r\n--x\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n--x--\r\n");
        let form = [head.as_bytes(), content, tail.as_bytes()].concat();
        let first = format!(
            "POST /v1/files HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\
             content-type: multipart/form-data; boundary=x\r\n\r\n",
            self.at,
            self.key,
            form.len()
        );
        id(&Json::read(&self.send(&[first.as_bytes(), &form].concat())?.body).unwrap_or(Json::Raw(Vec::new())))
    }

    /// The place in the ledger of a conversation that goes on; a new one where the last is long.
    fn conversation(&self, has_answers: bool) -> Result<String, End> {
        let is_mine = |kept: &&KeptConversation| kept.has_answers == has_answers;
        let last = self.ledger().conversations.iter().rfind(is_mine).cloned();
        if let Some(last) = last.filter(|last| last.texts.len() < LONGEST) {
            return Ok(last.id);
        }
        let id = id(&self.ask("POST", "/v1/conversations", Some(r#"{"metadata":{"of":"kill"}}"#))?)?;
        let kept = KeptConversation { id: id.clone(), has_answers, kill: self.kill, ..KeptConversation::default() };
        self.ledger().conversations.push(kept);
        Ok(id)
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut KeptConversation)) {
        if let Some(kept) = self.ledger().conversations.iter_mut().find(|kept| kept.id == id) {
            kept.kill = self.kill;
            change(kept);
        }
    }

    /// Some items at once.
    fn items(&mut self, number: u64) -> Done {
        let id = self.conversation(false)?;
        let texts: Vec<String> =
            (0..1 + self.rng.below(5)).map(|item| format!("k{}-{number}-{item}", self.kill)).collect();
        let items: Vec<String> = texts.iter().map(|text| format!(r#"{{"role":"user","content":"{text}"}}"#)).collect();
        self.change(&id, |kept| kept.pending.clone_from(&texts));
        self.ask(
            "POST",
            &format!("/v1/conversations/{id}/items"),
            Some(&format!(r#"{{"items":[{}]}}"#, items.join(","))),
        )?;
        self.change(&id, |kept| {
            let texts = std::mem::take(&mut kept.pending);
            kept.texts.extend(texts);
        });
        Ok(())
    }

    /// A response in a conversation: question and answer are added together.
    fn talk(&mut self, number: u64) -> Done {
        let id = self.conversation(true)?;
        let text = format!("k{}-{number}", self.kill);
        self.change(&id, |kept| kept.pending = vec![text.clone()]);
        let body = format!(r#"{{"model":"nano","input":"{text}","conversation":"{id}","max_output_tokens":8}}"#);
        let body = self.ask("POST", "/v1/responses", Some(&body))?;
        self.keep(&body)?;
        let found = super::check::texts(&self.ask("GET", &super::check::items_target(&id), None)?);
        let mut taken = Ok(());
        self.change(&id, |kept| {
            taken =
                if found.len() > kept.texts.len() { kept.take(found) } else { Err(format!("{id}: nothing was added")) };
        });
        taken.map_err(End::Wrong)
    }

    fn keep(&self, body: &Json) -> Done {
        let (id, kill) = (id(body)?, self.kill);
        let mut ledger = self.ledger();
        ledger.responses.retain(|response| response.id != id);
        ledger.responses.push(KeptResponse { id, body: Some(body.clone()), kill });
        Ok(())
    }

    fn begun(&self, id: &str) {
        let known = self.ledger().responses.iter().any(|response| response.id == id);
        if !known {
            self.ledger().responses.push(KeptResponse { id: id.to_owned(), body: None, kill: self.kill });
        }
    }

    /// A response at once, or one in the background.
    fn response(&mut self) -> Done {
        let (seed, background) = (self.rng.below(1000), self.rng.once_in(3));
        let body = format!(
            r#"{{"model":"nano","input":"What is 2 + 3?","max_output_tokens":{},"seed":{seed},"background":{background}}}"#,
            8 + self.rng.below(60)
        );
        let body = self.ask("POST", "/v1/responses", Some(&body))?;
        match background {
            true => self.begun(&id(&body)?),
            false => self.keep(&body)?,
        }
        Ok(())
    }

    /// A response event by event: from the first on it exists.
    fn told(&mut self) -> Done {
        let body = format!(
            r#"{{"model":"nano","input":"Count.","stream":true,"max_output_tokens":60,"temperature":1,"seed":{}}}"#,
            self.rng.below(1000)
        );
        let mut connection = self.open()?;
        connection.send(&request("POST", "/v1/responses", self.at, self.key, Some(body.as_bytes())));
        loop {
            let line = match connection.line() {
                Ok(line) => line,
                Err(NoAnswer::Late(so_far)) => return Err(End::Wrong(format!("a stream stands still: {so_far}"))),
                Err(_) => return Err(End::Gone),
            };
            let Some((_, data)) = line.split_once("data: ") else { continue };
            let Some(event) = Json::read(data.trim_end().as_bytes()) else {
                return Err(End::Wrong(format!("an event is not JSON: {line}")));
            };
            let Some(response) = event.get("response") else { continue };
            match event.text("type").unwrap_or_default() {
                "response.created" => self.begun(&id(response)?),
                "response.completed" | "response.incomplete" => return self.keep(response),
                "response.failed" => return Err(End::Wrong(format!("a response failed: {line}"))),
                _ => {}
            }
        }
    }

    fn batch(&mut self, number: u64) -> Done {
        let open = self.ledger().batches.iter().filter(|batch| !batch.done).count();
        if open >= OPEN_BATCHES {
            return self.look_at_batches();
        }
        let custom_ids: Vec<String> =
            (0..10 + self.rng.below(60)).map(|line| format!("k{}-{number}-{line}", self.kill)).collect();
        let line = |id: &String| {
            let (model, seed) = if self.rng.once_in(9) { ("none", 0) } else { ("nano", self.rng.below(1000)) };
            format!(
                r#"{{"custom_id":"{id}","method":"POST","url":"/v1/responses","body":{{"model":"{model}","input":"What is 2 + 3?","max_output_tokens":9,"seed":{seed}}}}}"#
            )
        };
        let lines: Vec<String> = custom_ids.iter().map(line).collect();
        let file = self.uploaded(lines.join("\n").as_bytes(), "batch")?;
        let body = format!(r#"{{"input_file_id":"{file}","endpoint":"/v1/responses","completion_window":"24h"}}"#);
        let id = id(&self.ask("POST", "/v1/batches", Some(&body))?)?;
        self.ledger().batches.push(KeptBatch { id, custom_ids, done: false });
        Ok(())
    }

    fn look_at_batches(&self) -> Done {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let open: Vec<String> =
            self.ledger().batches.iter().filter(|batch| !batch.done).map(|batch| batch.id.clone()).collect();
        for id in open {
            let batch = self.ask("GET", &format!("/v1/batches/{id}"), None)?;
            match batch.text("status").unwrap_or_default() {
                "validating" | "in_progress" | "finalizing" => {}
                "completed" => {
                    self.ledger().batches.iter_mut().filter(|kept| kept.id == id).for_each(|kept| kept.done = true);
                }
                other => return Err(End::Wrong(format!("batch {id} is {other}"))),
            }
        }
        Ok(())
    }
}

fn id(value: &Json) -> Result<String, End> {
    value.text("id").map(str::to_owned).ok_or_else(|| End::Wrong(format!("no id in {value:?}")))
}
