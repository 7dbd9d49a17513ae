//! The task that writes the log: takes what has gathered, writes it in one go, waits for the disk, and takes again. Where
//! the disk refuses it keeps what it has, says so, and tries until it can.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::chain::{Chain, Place};
use super::entry::Event;
use super::{AuditError, CLOSING, State};

/// Entries that are written in one go.
const MOST_AT_ONCE: usize = 1024;
/// What was written is anchored after so long at the latest.
const ANCHOR_AFTER: Duration = Duration::from_secs(10);
/// Between two tries.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until `closing`, or nobody is left who could send.
pub(super) async fn run(
    chain: Chain,
    mut entries: mpsc::Receiver<Event>,
    state: Arc<State>,
    mut closing: watch::Receiver<bool>,
) {
    let mut writer = Writer { place: chain.place().clone(), chain: Some(chain), state };
    let mut batch = Vec::new();
    let mut tick = tokio::time::interval(ANCHOR_AFTER);
    loop {
        let (goes_on, anchor) = tokio::select! {
            got = entries.recv_many(&mut batch, MOST_AT_ONCE) => (got > 0, false),
            _ = tick.tick() => (true, true),
            _ = closing.wait_for(|closing| *closing) => (false, false),
        };
        if !goes_on {
            break;
        }
        writer.write(std::mem::take(&mut batch), anchor, &mut closing).await;
    }
    entries.close();
    // Those that still run have their place, and may come.
    while let Ok(1..) = tokio::time::timeout(CLOSING, entries.recv_many(&mut batch, MOST_AT_ONCE)).await {
        writer.write(std::mem::take(&mut batch), false, &mut closing).await;
    }
    writer.write(vec![Event::Stop], true, &mut closing).await;
}

struct Writer {
    place: Place,
    /// None: to be opened anew.
    chain: Option<Chain>,
    state: Arc<State>,
}

/// Entries that are to be written, and what came of the last try.
#[derive(Default)]
struct Batch {
    events: Vec<Event>,
    /// The numbers that they were given in a try that failed: some may be on the disk.
    tried: Vec<u64>,
    /// An anchor is to follow.
    anchor: bool,
}

impl Writer {
    /// Writes entries, and tries until it can; at the end of the server once.
    async fn write(&mut self, events: Vec<Event>, anchor: bool, closing: &mut watch::Receiver<bool>) {
        let num_requests = events.iter().filter(|event| matches!(event, Event::Request(_))).count();
        let num_bytes: usize = events.iter().map(content_bytes).sum();
        let mut batch = Batch { events, anchor, ..Batch::default() };
        loop {
            let (place, chain) = (self.place.clone(), self.chain.take());
            let tried = tokio::task::spawn_blocking(move || attempt(place, chain, batch)).await;
            let (left, error) = match tried {
                Ok(Ok(chain)) => {
                    self.chain = Some(chain);
                    self.state.failing.store(false, Ordering::Relaxed);
                    self.state.written.fetch_add(num_requests as u64, Ordering::Relaxed);
                    self.state.waiting_bytes.fetch_sub(num_bytes, Ordering::Relaxed);
                    return;
                }
                Ok(Err(failed)) => *failed,
                // The writer itself is broken: nothing is logged, so nothing is done, until the next start.
                Err(_) => return self.state.failing.store(true, Ordering::Relaxed),
            };
            self.state.failing.store(true, Ordering::Relaxed);
            let waiting = left.events.len();
            tracing::error!(%error, waiting, "the audit log cannot be written: requests are refused until it can");
            batch = left;
            if *closing.borrow() || closing.has_changed().is_err() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
        }
    }
}

/// Writes a batch, or gives it back with what was in the way.
fn attempt(place: Place, chain: Option<Chain>, mut batch: Batch) -> Result<Chain, Box<(Batch, AuditError)>> {
    let folder = place.folder.clone();
    let mut chain = match chain.map_or_else(|| Chain::open(place), Ok) {
        Ok(chain) => chain,
        Err(error) => return Err(Box::new((batch, error))),
    };
    // An earlier try may have got further than it knew.
    let there = batch.tried.iter().take_while(|seq| **seq <= chain.last()).count();
    batch.events.drain(..there);
    batch.tried.clear();
    let mut all = || {
        chain.mend()?;
        chain.append(&batch.events)?;
        if batch.anchor { chain.anchor() } else { Ok(()) }
    };
    match all() {
        Ok(()) => Ok(chain),
        Err(error) => {
            batch.tried = chain.given().to_vec();
            Err(Box::new((batch, AuditError::io(&folder, "write to", error))))
        }
    }
}

fn content_bytes(event: &Event) -> usize {
    let Event::Request(request) = event else { return 0 };
    request.content.as_ref().map_or(0, |content| content.request.len() + content.answer.len())
}
