//! The process that trains. Its standard input is the lock file of its job's folder, locked: the lock is held for exactly
//! as long as the process lives, by whomever it was started, and nothing else can take it for another process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, Stdio};

use super::TrainingOptions;

const LOCK: &str = "lock";
const PID: &str = "pid";
/// What the child says, one JSON object a line.
pub const SAID: &str = "said.jsonl";
/// What it says to people.
pub const COMPLAINED: &str = "stderr.txt";
/// How much sooner than the server a child is ended where memory runs out, of 1000.
#[cfg(target_os = "linux")]
const DISPENSABLE: &str = "500";

/// A child of this server, or one of a server before it.
pub struct Child {
    /// Ours; it must be waited for.
    process: Option<Process>,
    /// Unknown where a server died between starting it and writing this down: then it ends by itself.
    pid: Option<u32>,
    lock: PathBuf,
}

impl Child {
    /// Starts the program in `folder`; an error where one is there already.
    pub fn spawn(options: &TrainingOptions, folder: &Path, arguments: &[&str]) -> io::Result<Self> {
        let lock = folder.join(LOCK);
        let held = open(&lock)?;
        held.try_lock().map_err(|_| io::Error::other("a process is at work in the job's folder"))?;
        let mut command = Command::new(&options.program);
        command.args(&options.arguments).args(arguments).current_dir(folder);
        command.stdin(Stdio::from(held)).stdout(File::create(folder.join(SAID))?);
        command.stderr(File::create(folder.join(COMPLAINED))?);
        // It has no business there, and the URL may hold a password.
        command.env_remove("OSSIA_DATABASE_URL");
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let process = command.spawn()?;
        // The command holds the lock file too.
        drop(command);
        let pid = process.id();
        std::fs::write(folder.join(PID), pid.to_string())?;
        #[cfg(target_os = "linux")]
        // Where that is not allowed the system chooses for itself.
        let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), DISPENSABLE);
        Ok(Self { process: Some(process), pid: Some(pid), lock })
    }

    /// The child that a server before this one has left in `folder`, if it lives.
    pub fn left_in(folder: &Path) -> io::Result<Option<Self>> {
        let lock = folder.join(LOCK);
        if !lock.exists() || !is_held(&lock)? {
            return Ok(None);
        }
        let pid = std::fs::read_to_string(folder.join(PID)).ok().and_then(|text| text.trim().parse().ok());
        Ok(Some(Self { process: None, pid, lock }))
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> io::Result<bool> {
        match &mut self.process {
            Some(process) => Ok(process.try_wait()?.is_some()),
            None => Ok(!is_held(&self.lock)?),
        }
    }

    /// How it ended, for people, where it was ours.
    pub fn how_it_ended(&mut self) -> String {
        let status = self.process.as_mut().and_then(|process| process.try_wait().ok().flatten());
        status.map_or_else(|| "unknown".to_owned(), |status| status.to_string())
    }

    /// Asks it to save and end.
    pub fn ask_to_end(&mut self) {
        #[cfg(unix)]
        self.signal(rustix::process::Signal::TERM);
    }

    /// Ends it and what it has started; what it has saved is whole all the same.
    pub fn kill(&mut self) {
        #[cfg(unix)]
        self.signal(rustix::process::Signal::KILL);
        #[cfg(not(unix))]
        if let Some(process) = &mut self.process {
            // It has ended by itself then.
            let _ = process.kill();
        }
    }

    #[cfg(unix)]
    fn signal(&mut self, signal: rustix::process::Signal) {
        // A number of one that has ended may be another's by now.
        if self.has_ended().unwrap_or(true) {
            return;
        }
        let pid = self.pid.and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid
            && let Err(error) = rustix::process::kill_process_group(pid, signal)
        {
            tracing::warn!(%error, "a training process could not be signalled");
        }
    }
}

fn open(lock: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(lock)
}

fn is_held(lock: &Path) -> io::Result<bool> {
    match open(lock)?.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
