//! The clients of a run, what they find, and how far they are.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::cases::{Cases, Ids};
use super::judge::Judge;
use super::wire::LAST_WORD;
use super::{Case, End};
use crate::client::{Answer, Connection, NoAnswer};
use crate::json::Json;
use crate::served::Served;

/// After so many requests of one client a good one must be answered as ever.
const GOOD_EVERY: u64 = 25;
/// A run ends after so many failures.
const MOST_FAILURES: usize = 10;
/// No trick asks for more answers.
const MOST_ANSWERS: usize = 40;

/// How far a run is, and what it has found.
pub struct Progress {
    from: u64,
    end: u64,
    next: AtomicU64,
    stop: AtomicBool,
    running: AtomicU64,
    place: PathBuf,
    good: (Vec<u8>, Json),
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    statuses: BTreeMap<u16, u64>,
    kinds: BTreeMap<&'static str, u64>,
    closed: u64,
    good: u64,
    slowest: (Duration, u64),
    failures: Vec<String>,
    memory: Vec<u64>,
}

impl Progress {
    /// Of a run of `requests` cases; `good` is a request, and what is answered to it at any time.
    pub fn new(from: u64, requests: u64, place: PathBuf, good: (Vec<u8>, Json)) -> Self {
        Self {
            from,
            end: from + requests,
            next: AtomicU64::new(from),
            stop: AtomicBool::new(false),
            running: AtomicU64::new(super::CLIENTS as u64),
            place,
            good,
            found: Mutex::default(),
        }
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next case's number; None at the end.
    fn take(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.end && !self.stop.load(Ordering::Relaxed)).then_some(number)
    }

    fn failed(&self, number: u64, case: &Case, why: &str) {
        let file = self.place.join(format!("case-{number}.bin"));
        let kept = match std::fs::write(&file, &case.bytes) {
            Ok(()) => file.display().to_string(),
            Err(error) => format!("not kept: {error}"),
        };
        let shown: String = String::from_utf8_lossy(&case.bytes).chars().take(1500).collect();
        let text = format!("case {number} ({}): {why}\n  request: {shown:?}\n  whole: {kept}", case.kind);
        eprintln!("{text}");
        let mut found = self.found();
        found.failures.push(text);
        if found.failures.len() >= MOST_FAILURES {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    /// Watches until all clients have ended: says how far they are, and measures memory.
    pub fn watch(&self, served: &Served, most_growth: u64) {
        let tenth = ((self.end - self.from) / 10).max(1);
        let mut told = 0;
        while self.running.load(Ordering::Relaxed) > 0 {
            std::thread::sleep(Duration::from_millis(50));
            let done = self.next.load(Ordering::Relaxed).min(self.end) - self.from;
            if done / tenth > told {
                told = done / tenth;
                let memory = served.resident_mib();
                println!("  {done} done, {memory} MiB, {} faults in the log", served.log().faults.len());
                let mut found = self.found();
                found.memory.push(memory);
                let growth = memory.saturating_sub(found.memory[0]);
                if growth > most_growth {
                    found.failures.push(format!("memory has grown by {growth} MiB, more than {most_growth}"));
                    self.stop.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    /// What there is to tell.
    pub fn summary(&self, took_s: f64) -> String {
        let found = self.found();
        let counts = |counts: Vec<String>| counts.join(", ");
        let statuses = counts(found.statuses.iter().map(|(status, num)| format!("{status}: {num}")).collect());
        let kinds = counts(found.kinds.iter().map(|(kind, num)| format!("{kind} {num}")).collect());
        let memory = counts(found.memory.iter().map(u64::to_string).collect());
        let requests: u64 = found.kinds.values().sum();
        format!(
            "{requests} cases in {took_s:.0} s ({:.0} a second), {} failures\nanswers {statuses}; closed without one {}\n\
             kinds {kinds}\ngood requests in between {}; slowest {:.2} s (case {}); resident MiB {memory}",
            requests as f64 / took_s,
            found.failures.len(),
            found.closed,
            found.good,
            found.slowest.0.as_secs_f64(),
            found.slowest.1,
        )
    }

    /// What went wrong.
    pub fn failures(&self) -> Vec<String> {
        self.found().failures.clone()
    }
}

/// One client: case after case on one connection, as long as it lives.
pub fn work(served: &Served, cases: &Cases, judge: &Judge, ids: Ids, progress: &Progress) {
    let mut client = Client { served, judge, ids, progress, connection: None };
    let mut num_done = 0;
    while let Some(number) = progress.take() {
        let mut case = cases.make(number);
        case.bytes = client.ids.fill_request(&case.bytes);
        let begun = Instant::now();
        if let Err(why) = client.case(&case) {
            client.connection = None;
            progress.failed(number, &case, &why);
        }
        let took = begun.elapsed();
        num_done += 1;
        if num_done % GOOD_EVERY == 0
            && let Err(why) = client.good()
        {
            client.connection = None;
            progress.failed(number, &case, &format!("after it: {why}"));
        }
        let mut found = progress.found();
        *found.kinds.entry(case.kind).or_default() += 1;
        found.slowest = found.slowest.max((took, number));
    }
    progress.running.fetch_sub(1, Ordering::Relaxed);
}

struct Client<'c> {
    served: &'c Served,
    judge: &'c Judge,
    ids: Ids,
    progress: &'c Progress,
    /// One that an answer has left open.
    connection: Option<Connection>,
}

impl Client<'_> {
    fn open(&self) -> Result<Connection, String> {
        Connection::open(self.served.at).map_err(|error| format!("the server takes no connection: {error}"))
    }

    fn case(&mut self, case: &Case) -> Result<(), String> {
        match case.end {
            End::Reuse => self.reuse(case),
            End::Last | End::Cut => self.until_closed(case),
        }
    }

    fn judged(&self, bytes: &[u8], answer: &Answer) -> Result<(), String> {
        *self.progress.found().statuses.entry(answer.status).or_default() += 1;
        match self.judge.fault(bytes, answer) {
            None => Ok(()),
            Some(fault) => Err(fault),
        }
    }

    /// One answer on a connection that lives on.
    fn reuse(&mut self, case: &Case) -> Result<(), String> {
        let mut answer = match self.connection.take() {
            Some(mut connection) => {
                let answer = connection.ask(&case.bytes);
                self.connection = Some(connection);
                answer
            }
            None => Err(NoAnswer::Closed),
        };
        if answer == Err(NoAnswer::Closed) {
            // The server may end a connection between two requests.
            let mut connection = self.open()?;
            answer = connection.ask(&case.bytes);
            self.connection = Some(connection);
        }
        match answer {
            Ok(answer) => {
                if answer.closes {
                    self.connection = None;
                }
                if answer.status == 200 {
                    self.ids.learn(&answer.body);
                }
                self.judged(&case.bytes, &answer)
            }
            Err(NoAnswer::Closed) if case.may_close => {
                self.connection = None;
                self.progress.found().closed += 1;
                Ok(())
            }
            Err(none) => Err(none.to_string()),
        }
    }

    /// Answers up to the end of a connection of its own: the last one is that of the last request, or a refusal.
    fn until_closed(&mut self, case: &Case) -> Result<(), String> {
        let mut connection = self.open()?;
        connection.send(&case.bytes);
        if case.end == End::Cut {
            connection.end();
        }
        let mut last = None;
        for _ in 0..MOST_ANSWERS {
            match connection.answer(false) {
                Ok(answer) => {
                    self.judged(&case.bytes, &answer)?;
                    if last.as_ref().is_some_and(is_last_word) {
                        return Err("something was answered after the last request".to_owned());
                    }
                    last = Some(answer);
                }
                Err(NoAnswer::Closed) => break,
                // What the client has ended itself may end anywhere.
                Err(NoAnswer::Cut(_)) if case.end == End::Cut => break,
                Err(none) => return Err(none.to_string()),
            }
        }
        match last {
            Some(answer) if is_last_word(&answer) => Ok(()),
            // After a refusal the server need not read what it has refused.
            Some(answer) if case.may_close && (answer.closes || answer.status >= 400) => Ok(()),
            None if case.may_close => {
                self.progress.found().closed += 1;
                Ok(())
            }
            _ if case.end == End::Cut => Ok(()),
            _ => Err("the last request on the connection was not answered".to_owned()),
        }
    }

    /// A good request is answered as ever, on the connection that is there.
    fn good(&mut self) -> Result<(), String> {
        let (request, wanted) = &self.progress.good;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.open()?,
        };
        let mut answer = connection.ask(request);
        if answer == Err(NoAnswer::Closed) {
            connection = self.open()?;
            answer = connection.ask(request);
        }
        let answer = answer.map_err(|none| format!("a good request: {none}"))?;
        self.judged(request, &answer)?;
        let choices = Json::read(&answer.body).and_then(|answer| answer.get("choices").cloned());
        if choices.as_ref() != Some(wanted) {
            return Err(format!("a good request was answered with {}", answer.text()));
        }
        self.connection = (!answer.closes).then_some(connection);
        self.progress.found().good += 1;
        Ok(())
    }
}

fn is_last_word(answer: &Answer) -> bool {
    answer.text().contains(LAST_WORD)
}

#[cfg(test)]
mod tests {
    use super::Progress;
    use crate::json::Json;

    #[test]
    fn each_number_is_taken_once() {
        let progress = Progress::new(5, 3, "x".into(), (Vec::new(), Json::List(Vec::new())));
        assert_eq!([(); 4].map(|()| progress.take()), [Some(5), Some(6), Some(7), None]);
        assert!(progress.summary(1.0).starts_with("0 cases"));
    }
}
