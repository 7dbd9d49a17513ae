//! `cargo xtask kill-server`: a server that is killed at any time has kept all that it said that it has.
//!
//! The release build serves the model that it carries. Clients stream, upload, batch, write conversations and responses
//! until the server is killed with SIGKILL after a time that a seed gives. After each kill the database and the audit log
//! are checked as they lie there; then the same data folder is served again, and everything that was acknowledged must be
//! there, whole, and nothing half done. In the end every line of every batch has one result. A heavy check, so no part of
//! `cargo xtask check`. Needs `python3`, whose SQLite judges the database.

mod check;
mod clients;
mod database;
mod ledger;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::rng::Rng;
use crate::served::{Served, empty, program};
use clients::{Client, InFlight, KINDS};
use ledger::Ledger;

const USAGE: &str = "usage: cargo xtask kill-server [KILLS [SEED]]   (50 kills, seed 1; needs cargo build --release -p ossia, and python3)";
/// A server that is killed has worked for no longer.
const LONGEST_LIFE: Duration = Duration::from_millis(1500);
/// Batches must be done so long after the last start.
const BATCHES: Duration = Duration::from_secs(60);
/// What was acknowledged so many kills ago is looked at after a kill; in the end everything is.
const RECENT: u64 = 2;

/// Kills until `args`' number of kills is reached.
pub fn run(root: &Path, args: &[&str]) -> Result<(), String> {
    let number = |at: usize, or: u64| args.get(at).map_or(Ok(or), |text| text.parse().map_err(|_| USAGE.to_owned()));
    let (kills, seed) = (number(0, 50)?, number(1, 1)?);
    let (program, target) = program(root)?;
    if kills == 0 || args.len() > 2 {
        return Err(USAGE.to_owned());
    }
    let place = target.join("kill-server");
    empty(&place)?;
    let mut killing = Killing { program, data: place.join("data"), place, rng: Rng(seed), key: String::new() };
    let ledger = Mutex::new(Ledger::default());
    let begun = Instant::now();
    for kill in 1..=kills {
        let told = killing.once(kill, &ledger).map_err(|problem| format!("kill {kill} of seed {seed}: {problem}"))?;
        println!("{kill}/{kills} {told}");
    }
    let told = killing.last(&ledger)?;
    let ledger = ledger.into_inner().map_err(|_| "a client panicked")?;
    println!("in the end: {told}\n{}", ledger.summary());
    println!("{kills} kills in {:.0} s, nothing lost, nothing doubled", begun.elapsed().as_secs_f64());
    Ok(())
}

struct Killing {
    program: PathBuf,
    place: PathBuf,
    data: PathBuf,
    rng: Rng,
    key: String,
}

impl Killing {
    /// Starts, checks what was kept, lets clients work, kills, checks what lies there; in a word what was hit.
    fn once(&mut self, kill: u64, ledger: &Mutex<Ledger>) -> Result<String, String> {
        if kill > 1 && self.rng.once_in(10) {
            self.kill_a_start()?;
            return Ok("hit: a start".to_owned());
        }
        let served = self.start()?;
        check::recent(&served, &self.key, ledger, kill.saturating_sub(RECENT))?;
        let life = self.rng.time(LONGEST_LIFE);
        let (stop, in_flight) = (AtomicBool::new(false), InFlight::default());
        let at = served.at;
        let hit = std::thread::scope(|scope| {
            for kind in KINDS {
                let (rng, key, stop, in_flight) = (Rng(self.rng.next()), self.key.as_str(), &stop, &in_flight);
                scope.spawn(move || Client { at, key, rng, kill, kind, ledger, stop, in_flight }.work());
            }
            std::thread::sleep(life);
            let hit = in_flight.now();
            let faults = served.log().faults;
            let killed = served.kill();
            stop.store(true, Ordering::Relaxed);
            match faults.first() {
                None => killed.map(|()| hit),
                Some(fault) => Err(format!("the log says: {fault}")),
            }
        })?;
        if let Some(problem) = in_flight.problem() {
            return Err(problem);
        }
        self.check_folder(false)?;
        Ok(format!("after {:.2} s, hit: {}", life.as_secs_f64(), hit.join(" ")))
    }

    fn start(&mut self) -> Result<Served, String> {
        let served = Served::start(&self.program, &self.data, &["--parallel", "16"])?;
        if let Some(key) = &served.key {
            key.clone_into(&mut self.key);
        }
        Ok(served)
    }

    /// Kills a server that has just been started, before or after it is ready.
    fn kill_a_start(&mut self) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command.args(["serve", "-m", "nano", "--port", "0", "--log", "off", "--data"]).arg(&self.data);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", self.program.display()))?;
        std::thread::sleep(self.rng.time(Duration::from_millis(400)));
        child.kill().and_then(|()| child.wait()).map_err(|error| format!("cannot kill the server: {error}"))?;
        self.check_folder(false).map(drop)
    }

    /// The last start: all batches are done, everything is there; then an orderly end.
    fn last(&mut self, ledger: &Mutex<Ledger>) -> Result<String, String> {
        let served = self.start()?;
        check::recent(&served, &self.key, ledger, 0)?;
        let lines = check::batches(&served, &self.key, ledger, BATCHES)?;
        let faults = served.log().faults;
        let ended = served.end()?;
        if !ended.success() || !faults.is_empty() {
            return Err(format!("the server ended with {ended}; its log says {faults:?}"));
        }
        let audit = self.check_folder(true)?;
        Ok(format!("{lines} lines of batches with one result each; audit log: {audit}"))
    }

    /// The database and the audit log, as they lie there.
    fn check_folder(&self, ended: bool) -> Result<String, String> {
        database::check(&self.data, &self.place.join("copy"), ended)?;
        let mut command = Command::new(&self.program);
        command.args(["audit", "--data"]).arg(&self.data).arg("verify");
        let output = command.output().map_err(|error| format!("{}: {error}", self.program.display()))?;
        let said = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
        match output.status.success() {
            true => Ok(said.lines().next().unwrap_or_default().to_owned()),
            false => Err(format!("audit verify: {said}")),
        }
    }
}
