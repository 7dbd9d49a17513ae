//! The server under load: started with a data folder of its own, looked at through /proc and its metrics, ended with it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::http::{self, Client};

/// Ticks of /proc in a second; so on every Linux.
const TICKS: f64 = 100.0;

/// A running server. Dropping it ends it and deletes its folder.
pub struct Server {
    child: Child,
    /// What it says; closed, it could say no more.
    _said: BufReader<ChildStdout>,
    program: PathBuf,
    data: PathBuf,
    /// Where it listens.
    pub at: SocketAddr,
    /// A key that may do everything.
    pub key: String,
}

impl Server {
    /// Starts `program` and waits until it says where it is. `log` takes its lines; without one they go nowhere.
    pub fn start(program: &Path, model: &str, more: &[&str], log: Option<&Path>) -> Result<Self, String> {
        let missing = |error| format!("{}: {error}; build it with cargo build --release -p ossia", program.display());
        let data = std::env::temp_dir().join(format!("ossia-load-{}", std::process::id()));
        let stderr = match log {
            None => Stdio::null(),
            Some(log) => File::create(log).map_err(|error| format!("{}: {error}", log.display()))?.into(),
        };
        let mut command = Command::new(program);
        command.args(["serve", "-m", model, "--port", "0", "--data"]).arg(&data).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().map_err(missing)?;
        let mut said = BufReader::new(child.stdout.take().ok_or("the server has no output")?);
        let (at, key) = greeting(&mut said)?;
        Ok(Self { child, _said: said, program: program.to_owned(), data, at, key })
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Another client's key.
    pub fn add_key(&self) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command.args(["keys", "add", "--name", "other", "--json", "--data"]).arg(&self.data);
        let output = command.output().map_err(|error| format!("keys add: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let key = text.split('"').find(|part| part.starts_with("sk-ossia-"));
        key.map(str::to_owned).ok_or_else(|| "keys add made no key".to_owned())
    }

    /// Megabytes that it holds.
    pub fn resident_mb(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
    }

    /// Seconds of CPU time by the kind of thread.
    pub fn cpu(&self) -> BTreeMap<&'static str, f64> {
        let mut all = BTreeMap::new();
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid()));
        for thread in threads.into_iter().flatten().flatten() {
            let Some((name, seconds)) = cpu_of(&thread.path().join("stat")) else { continue };
            let kind = match name.as_str() {
                "ossia-engine" => "engine",
                name if name.starts_with("ossia-") => "kernels",
                name if name.starts_with("tokio") => "http",
                _ => "other",
            };
            *all.entry(kind).or_insert(0.0) += seconds;
        }
        all
    }

    /// The server's own numbers, by name and labels.
    pub fn metrics(&self) -> Result<BTreeMap<String, f64>, String> {
        let mut client = Client::new(self.at);
        let outcome = client.ask(&http::get("/metrics", &self.key), None);
        if outcome.status != 200 {
            return Err(format!("GET /metrics: {outcome:?}"));
        }
        let text = String::from_utf8_lossy(client.body()).into_owned();
        let pair =
            |line: &str| line.rsplit_once(' ').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
        Ok(text.lines().filter(|line| line.starts_with("ossia_")).filter_map(pair).collect())
    }

    /// Waits until nothing runs or waits; the numbers then. An error where that takes longer than `most`.
    pub fn idle(&self, most: Duration) -> Result<BTreeMap<String, f64>, String> {
        let end = std::time::Instant::now() + most;
        loop {
            let metrics = self.metrics()?;
            let value = |name: &str| metrics.get(name).copied().unwrap_or(f64::NAN);
            if value("ossia_requests_running") + value("ossia_requests_waiting") == 0.0 {
                return Ok(metrics);
            }
            if std::time::Instant::now() > end {
                return Err(format!("requests still run {most:?} after the last client has gone"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Where a server says that it is, and the key that it shows.
fn greeting(said: &mut impl BufRead) -> Result<(SocketAddr, String), String> {
    let (mut at, mut line) = (None, String::new());
    loop {
        line.clear();
        if said.read_line(&mut line).map_err(|error| format!("the server's output: {error}"))? == 0 {
            return Err("the server ended before it was ready: run it by hand to see why".to_owned());
        }
        if let Some(url) = line.trim().strip_prefix("export OPENAI_BASE_URL=http://") {
            at = url.trim_end_matches("/v1").parse().ok();
        } else if let Some(key) = line.trim().strip_prefix("export OPENAI_API_KEY=") {
            let at = at.ok_or("the server does not say where it is")?;
            return Ok((at, key.to_owned()));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.data);
    }
}

/// Seconds of CPU time of everything on this machine, those of its host's other guests among them.
pub fn machine_cpu() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> =
        text.lines().next().unwrap_or("").split_whitespace().filter_map(|n| n.parse().ok()).collect();
    // user, nice, system, idle, waiting for disks, interrupts, more of them, taken by the host
    let idle: f64 = fields.iter().skip(3).take(2).sum();
    (fields.iter().take(8).sum::<f64>() - idle) / TICKS
}

/// This process' own CPU time, in seconds.
pub fn own_cpu() -> f64 {
    cpu_of(Path::new("/proc/self/stat")).map_or(f64::NAN, |(_, seconds)| seconds)
}

/// The name of a thread and its CPU time, from its `stat`.
fn cpu_of(stat: &Path) -> Option<(String, f64)> {
    let text = fs::read_to_string(stat).ok()?;
    let (before, after) = text.rsplit_once(") ")?;
    let name = before.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = after.split(' ').collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((name, (ticks(11)? + ticks(12)?) / TICKS))
}
