//! Responses that are being made: each is a task that turns the engine's events into the API's, keeps the end, and lets
//! any number of readers follow. A response is told to be at its end only after it is on the disk.

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use tokio::sync::watch;

use super::machine::Machine;
use crate::app::Shared;
use crate::auth::Identity;
use crate::error::ApiError;
use crate::store::{Append, Finished, StoredItem};
use crate::turn::TurnStream;
use crate::types::responses::response::ResponseError;
use crate::types::responses::{Event, NumberedEvent, Response, Status};

/// What becomes of a run's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// Nobody reads them.
    None,
    /// One reader takes them as they come.
    Once,
    /// All are kept, to be read again.
    Again,
}

/// An event as it is sent.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its name.
    pub name: &'static str,
    /// The event as JSON.
    pub json: Arc<str>,
    /// Its number.
    pub number: u64,
}

/// A response that is being made.
pub struct Run {
    owner: Arc<str>,
    telling: Telling,
    log: Mutex<Log>,
    /// Counts changes of the log.
    changed: watch::Sender<u64>,
    cancel: watch::Sender<bool>,
}

struct Log {
    lines: VecDeque<Line>,
    /// The response as it is now, as JSON.
    response: Arc<str>,
    ended: bool,
}

/// The registry of all runs.
#[derive(Default)]
pub struct Runs {
    runs: Mutex<HashMap<String, Arc<Run>>>,
    /// Conversations that a response is being made in.
    taken: Mutex<HashSet<String>>,
    num_running: watch::Sender<usize>,
}

/// A place in the registry, and in a conversation; given back when dropped.
pub struct Place {
    app: Shared,
    id: String,
    conversation: Option<String>,
    /// The run.
    pub run: Arc<Run>,
}

/// Cancels a run when it is dropped: its only client has gone.
pub struct Client(pub Arc<Run>);

impl Drop for Client {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change below is whole before anything can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runs {
    /// Takes a place for a response, and its conversation for it alone.
    pub fn enter(app: &Shared, identity: &Identity, response: &Response, telling: Telling) -> Result<Place, ApiError> {
        let runs = &app.keeping.runs;
        let conversation = response.conversation.as_ref().and_then(|value| value["id"].as_str()).map(str::to_owned);
        if let Some(id) = &conversation
            && !lock(&runs.taken).insert(id.clone())
        {
            return Err(ApiError::ConversationLocked);
        }
        let log = Log { lines: VecDeque::new(), response: json(response).into(), ended: false };
        let run = Arc::new(Run {
            owner: Arc::clone(&identity.key_id),
            telling,
            log: Mutex::new(log),
            changed: watch::Sender::new(0),
            cancel: watch::Sender::new(false),
        });
        lock(&runs.runs).insert(response.id.clone(), Arc::clone(&run));
        runs.num_running.send_modify(|running| *running += 1);
        Ok(Place { app: Arc::clone(app), id: response.id.clone(), conversation, run })
    }

    /// The run of a response of this owner.
    pub fn find(&self, owner: &str, id: &str) -> Option<Arc<Run>> {
        lock(&self.runs).get(id).filter(|run| *run.owner == *owner).cloned()
    }

    /// Waits until nothing runs, for a server that is going down.
    pub async fn wait_idle(&self) {
        // The sender lives as long as the registry.
        let _ = self.num_running.subscribe().wait_for(|running| *running == 0).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let runs = &self.app.keeping.runs;
        lock(&self.run.log).ended = true;
        self.run.changed.send_modify(|changes| *changes += 1);
        lock(&runs.runs).remove(&self.id);
        if let Some(conversation) = &self.conversation {
            lock(&runs.taken).remove(conversation);
        }
        runs.num_running.send_modify(|running| *running = running.saturating_sub(1));
    }
}

impl Run {
    /// Ends the response within a step.
    pub fn cancel(&self) {
        self.cancel.send_replace(true);
    }

    /// The response as it is now, as JSON.
    pub fn response(&self) -> Arc<str> {
        Arc::clone(&lock(&self.log).response)
    }

    /// Waits for the end; gives the response as JSON.
    pub async fn finished(&self) -> Arc<str> {
        let mut changes = self.changed.subscribe();
        loop {
            {
                let log = lock(&self.log);
                if log.ended {
                    return Arc::clone(&log.response);
                }
            }
            if changes.changed().await.is_err() {
                return self.response();
            }
        }
    }

    /// The events with numbers from `from`, waiting for new ones; None after the last.
    pub async fn next(&self, from: u64) -> Option<Vec<Line>> {
        let mut changes = self.changed.subscribe();
        loop {
            {
                let mut log = lock(&self.log);
                let lines: Vec<Line> = log.lines.iter().filter(|line| line.number >= from).cloned().collect();
                if self.telling == Telling::Once {
                    log.lines.clear();
                }
                if !lines.is_empty() {
                    return Some(lines);
                }
                if log.ended {
                    return None;
                }
            }
            changes.changed().await.ok()?;
        }
    }

    fn push(&self, event: &NumberedEvent, response: Option<&Response>) {
        {
            let mut log = lock(&self.log);
            if self.telling != Telling::None {
                let line = Line { name: event.event.name(), json: json(event).into(), number: event.sequence_number };
                log.lines.push_back(line);
            }
            if let Some(response) = response {
                log.response = json(response).into();
            }
        }
        self.changed.send_modify(|changes| *changes += 1);
    }
}

/// Our own types always become JSON.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// What is kept of a response.
pub struct Kept {
    /// Its own input items, for the conversation.
    pub input: Vec<StoredItem>,
}

/// Everything that a run needs.
pub struct Job {
    /// The server.
    pub app: Shared,
    /// Who asked.
    pub identity: Identity,
    /// Makes the events.
    pub machine: Machine,
    /// Makes the tokens.
    pub turn: TurnStream,
    /// None: nothing is kept.
    pub kept: Option<Kept>,
    /// Where it is registered.
    pub place: Place,
}

impl Job {
    /// Runs to the end.
    pub async fn drive(mut self) {
        let mut cancelled = self.place.run.cancel.subscribe();
        let begin = self.machine.begin();
        let mut ended = self.tell(begin).await;
        while !ended {
            let events = match select(pin!(cancelled.wait_for(|cancelled| *cancelled)), self.turn.next()).await {
                Either::Left(_) => self.machine.cancel(),
                Either::Right((Some(event), _)) => self.machine.take(event),
                Either::Right((None, _)) => self.machine.fail(fault()),
            };
            ended = self.tell(events).await;
        }
    }

    /// Sends events to the readers, the last one only after the response is kept; true where that was among them.
    async fn tell(&mut self, events: Vec<NumberedEvent>) -> bool {
        for mut event in events {
            if event.event.is_last() {
                if let Err(error) = self.keep(&event).await {
                    tracing::error!(%error, "a response could not be kept");
                    self.machine.unkept(fault());
                    event.event = Event::Failed { response: Box::new(self.machine.response().clone()) };
                }
                self.place.run.push(&event, Some(self.machine.response()));
                return true;
            }
            let changed = matches!(event.event, Event::ItemDone { .. } | Event::InProgress { .. });
            self.place.run.push(&event, changed.then(|| self.machine.response()));
        }
        false
    }

    async fn keep(&self, last: &NumberedEvent) -> Result<(), crate::store::StoreError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let response = self.machine.response();
        let run = &self.place.run;
        let events = (run.telling == Telling::Again).then(|| {
            let log = lock(&run.log);
            let lines = log.lines.iter().map(|line| line.json.to_string());
            lines.chain([json(last)]).collect::<Vec<_>>().join("\n")
        });
        let append = self.place.conversation.clone().filter(|_| response.status != Status::Failed).map(|id| {
            let output = response.output.iter().map(|item| StoredItem { id: item.id().to_owned(), body: json(item) });
            Append { conversation_id: id, items: kept.input.iter().cloned().chain(output).collect() }
        });
        let finished = Finished { status: response.status.as_str(), body: json(response), events, append };
        self.app.keeping.store.finish_response(&self.identity.key_id, &response.id, finished).await
    }
}

fn fault() -> ResponseError {
    ResponseError { code: "server_error".to_owned(), message: ApiError::Internal.to_string() }
}
