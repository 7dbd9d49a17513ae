//! The release build of the program as a server, on a free port of this machine with a data folder: started, watched by
//! its log, killed or ended.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A start takes no longer.
const START: Duration = Duration::from_secs(60);
/// Lines of the log that are kept to be shown.
const LINES_KEPT: usize = 50;

/// A running server.
pub struct Served {
    child: Child,
    /// Where it listens.
    pub at: SocketAddr,
    /// The key that it made, at the first start with a data folder.
    pub key: Option<String>,
    log: Arc<Mutex<Log>>,
}

/// What the log has said.
#[derive(Debug, Default, Clone)]
pub struct Log {
    /// Lines in all.
    pub num_lines: u64,
    /// Lines that tell of a fault of the program: panics and errors.
    pub faults: Vec<String>,
    last: VecDeque<String>,
}

impl Served {
    /// Starts `program` with the model that it carries, and waits until it is ready.
    pub fn start(program: &Path, data: &Path, more: &[&str]) -> Result<Self, String> {
        let mut command = Command::new(program);
        command.args(["serve", "-m", "nano", "--port", "0", "--data"]).arg(data).args(more);
        for variable in ["OSSIA_MODEL", "OSSIA_DATABASE_URL", "OSSIA_DATA", "RUST_LOG", "RUST_BACKTRACE"] {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
        let log = Arc::new(Mutex::new(Log::default()));
        if let Some(stderr) = child.stderr.take() {
            let log = Arc::clone(&log);
            std::thread::spawn(move || listen(BufReader::new(stderr), &log));
        }
        let greeting = greeting(&mut child).map_err(|problem| format!("{problem}; its log: {:?}", last(&log)))?;
        let part = |before: &str| {
            let rest = greeting.split_once(before)?.1;
            rest.split(|c: char| c.is_whitespace() || c == '/').next().map(str::to_owned)
        };
        let at = part("http://").and_then(|at| at.parse().ok()).ok_or("the server's greeting has no address")?;
        Ok(Self { child, at, key: part("#key="), log })
    }

    /// What the log has said so far.
    pub fn log(&self) -> Log {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last lines of the log.
    pub fn last_words(&self) -> String {
        Vec::from(self.log().last).join("\n")
    }

    /// Resident memory in MiB; 0 where the system does not tell.
    pub fn resident_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) >> 10
    }

    /// True while it runs.
    pub fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL: it has no time for a last word.
    pub fn kill(mut self) -> Result<(), String> {
        self.child.kill().and_then(|()| self.child.wait()).map(drop).map_err(|e| format!("cannot kill the server: {e}"))
    }

    /// SIGTERM, and how it ended.
    pub fn end(mut self) -> Result<ExitStatus, String> {
        let sent = Command::new("kill").arg(self.child.id().to_string()).status();
        sent.map_err(|error| format!("cannot send a signal: {error}"))?;
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if start.elapsed() < START => std::thread::sleep(Duration::from_millis(10)),
                Ok(None) => return Err(format!("the server has not ended after {} s", START.as_secs())),
                Err(error) => return Err(format!("cannot wait for the server: {error}")),
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It has ended already, unless a check failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What it prints when it is ready, up to the last line of it.
fn greeting(child: &mut Child) -> Result<String, String> {
    let stdout = child.stdout.take().ok_or("the server's output is not there")?;
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut reader, mut greeting) = (BufReader::new(stdout), String::new());
        while !greeting.contains("env_key") && reader.read_line(&mut greeting).is_ok_and(|len| len > 0) {}
        // Nobody waits any more where the start took too long.
        let _ = sender.send(greeting);
        // The pipe stays open as long as the server does.
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
    });
    match receiver.recv_timeout(START) {
        Ok(greeting) if greeting.contains("env_key") => Ok(greeting),
        Ok(_) => Err("the server did not start".to_owned()),
        Err(_) => Err(format!("the server was not ready after {} s", START.as_secs())),
    }
}

fn listen(stderr: impl BufRead, log: &Mutex<Log>) {
    for line in stderr.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.num_lines += 1;
        if line.contains("panicked") || line.contains("ERROR") {
            log.faults.push(line.clone());
        }
        log.last.push_back(line);
        if log.last.len() > LINES_KEPT {
            log.last.pop_front();
        }
    }
}

fn last(log: &Mutex<Log>) -> Vec<String> {
    // What it said last may still be on its way.
    std::thread::sleep(Duration::from_millis(100));
    log.lock().unwrap_or_else(PoisonError::into_inner).last.iter().cloned().collect()
}

/// The release build below `root`, or how to make it.
pub fn program(root: &Path) -> Result<(PathBuf, PathBuf), String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let program = target.join("release").join("ossia");
    match program.is_file() {
        true => Ok((program, target)),
        false => Err("there is no release build: cargo build --release -p ossia".to_owned()),
    }
}

/// Makes a folder, empty.
pub fn empty(folder: &Path) -> Result<(), String> {
    let said = |error: std::io::Error| format!("{}: {error}", folder.display());
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(said)?;
    }
    std::fs::create_dir_all(folder).map_err(said)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::{Log, listen};

    #[test]
    fn faults_are_told_from_other_lines() {
        let log = Mutex::new(Log::default());
        let lines = "INFO request\nERROR ossia: a part of the program panicked place=x\nWARN slow\nERROR y\n";
        listen(lines.as_bytes(), &log);
        let log = log.into_inner().unwrap();
        assert_eq!((log.num_lines, log.faults.len(), log.last.len()), (4, 2, 4));
    }
}
