//! A command of the user's that grades: item and answer as JSON on its standard input, a number on its standard output.
//!
//! The command may run what a model wrote, so it is kept apart as far as the system allows: a process group that is ended
//! as a whole at the wall-clock limit; limits on processor time, memory and the size of files, set by the shell before it
//! becomes the command; an environment without the user's secrets; and on Linux, where namespaces may be made, no network
//! and a process namespace that nothing outlives. What was found to be possible is said by [`Command::isolation`]. It sees
//! the user's files: it is the user's own command.

use std::io::{Read, Write};
use std::process::{Child, Command as Process, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::description::Description;
use super::error::{Error, Result};
use super::{Sample, Score};

/// What is read of a command's output at most, bytes.
const MOST_OUTPUT: u64 = 1 << 16;
/// How long the output may take after the command has ended: a child that it left may hold it open.
const AFTER_END: Duration = Duration::from_millis(500);
/// Variables that a command is given, where they are set.
const VARIABLES: [&str; 8] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH"];
/// Sets the limits, then runs the command as a child: the first process of a namespace is spared some signals.
const LIMITS: &str =
    "ulimit -c 0 && ulimit -t \"$1\" && ulimit -v \"$2\" && ulimit -f \"$3\" && shift 3 && { \"$@\"; exit; }";
/// No network, and processes that end with the first of them.
const APART: [&str; 7] = ["--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--"];

/// `{"type": "command", "command": ["python3", "grade.py"], "seconds": 5, "memory_mb": 512, "file_mb": 16}`.
#[derive(Debug)]
pub(super) struct Command {
    arguments: Vec<String>,
    time: Duration,
    memory_mb: u64,
    file_mb: u64,
    /// Whether namespaces can be made here.
    apart: bool,
}

/// How a command ended.
struct Ended {
    /// Nothing where it was ended at its limit.
    success: Option<bool>,
    output: String,
    errors: String,
}

impl Command {
    pub fn read(fields: &Description) -> Result<Self> {
        fields.only(&["command", "seconds", "memory_mb", "file_mb"])?;
        let wanted = "a list of the program and its arguments, as [\"python3\", \"grade.py\"]";
        let list = fields.need("command", wanted)?.as_array().filter(|list| !list.is_empty());
        let texts = list.into_iter().flatten().map(|part| part.as_str().filter(|part| !part.contains('\0')));
        let arguments: Vec<String> = match texts.map(|part| part.map(str::to_owned)).collect::<Option<Vec<_>>>() {
            Some(arguments) if !arguments.is_empty() => arguments,
            _ => return fields.wrong("command", wanted),
        };
        let time = Duration::from_secs_f64(fields.number("seconds", 5.0, 0.01..=3600.0)?);
        let memory_mb = fields.number("memory_mb", 512.0, 1.0..=1e6)? as u64;
        let file_mb = fields.number("file_mb", 16.0, 0.0..=1e6)? as u64;
        if !cfg!(unix) {
            let problem = "commands are limited by a Unix shell, which is not there: use another grader".to_owned();
            return Err(Error::Machine { at: fields.at("command"), problem });
        }
        let command = Self { arguments, time, memory_mb, file_mb, apart: can_be_apart() };
        command.try_limits(&fields.at("command"))?;
        Ok(command)
    }

    /// How the command is kept apart, in one line.
    pub fn isolation(&self) -> String {
        let Self { time, memory_mb, file_mb, .. } = self;
        let network = match self.apart {
            true => "without a network, in a process namespace of its own",
            false => "WITH the network (this system makes no namespaces: unshare --user --net fails)",
        };
        let limits = format!("at most {} s, {memory_mb} MB of memory, files of {file_mb} MB", time.as_secs_f64());
        format!("grader command {:?}: {network}; {limits}", self.arguments.join(" "))
    }

    /// Fails where the limits cannot be set: then nothing would hold a command.
    fn try_limits(&self, at: &str) -> Result<()> {
        let probe = Self { arguments: vec!["true".to_owned()], ..*self };
        let ended = probe.run(Vec::new()).map_err(|problem| Error::Machine { at: at.to_owned(), problem })?;
        match ended.success {
            Some(true) => Ok(()),
            _ => {
                let said = ended.errors.lines().next().unwrap_or("it ended at once").to_owned();
                let problem = format!("the limits of memory, time and file size cannot be set here: {said}");
                Err(Error::Machine { at: at.to_owned(), problem })
            }
        }
    }

    /// What the command says of an answer.
    pub fn grade(&self, item: &Value, sample: &Sample) -> std::result::Result<Score, String> {
        let input = json!({"item": item, "sample": sample.value()}).to_string();
        let ended = self.run(input.into_bytes())?;
        let said = || ended.errors.lines().next_back().unwrap_or_default().chars().take(200).collect::<String>();
        match ended.success {
            None => Err(format!("the command took more than {} s", self.time.as_secs_f64())),
            Some(false) => Err(format!("the command failed: {}", said())),
            Some(true) => {
                let line = ended.output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim();
                let object = || serde_json::from_str::<Value>(line).ok()?.get("score")?.as_f64();
                let number = line.parse::<f64>().ok().or_else(object);
                let shown: String = line.chars().take(60).collect();
                number.map(Score::of).ok_or_else(|| {
                    format!("the command's last line is no number and no {{\"score\": number}}: {shown:?}")
                })
            }
        }
    }

    fn run(&self, input: Vec<u8>) -> std::result::Result<Ended, String> {
        let mut process = self.process();
        let mut child = process.spawn().map_err(|error| format!("the command cannot be started: {error}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command need not read what it is given: then this fails, which is no matter.
            std::thread::spawn(move || stdin.write_all(&input));
        }
        let (output, errors) = (reader(child.stdout.take()), reader(child.stderr.take()));
        let in_time = wait(&child, self.time);
        // While the child is not waited for its number is its own.
        end_group(&child);
        let status = child.wait().map_err(|error| format!("the command was lost: {error}"))?;
        let text = |receiver: Receiver<Vec<u8>>| {
            String::from_utf8_lossy(&receiver.recv_timeout(AFTER_END).unwrap_or_default()).into_owned()
        };
        Ok(Ended { success: in_time.then(|| status.success()), output: text(output), errors: text(errors) })
    }

    fn process(&self) -> Process {
        let mut process = if self.apart { Process::new("unshare") } else { Process::new("sh") };
        if self.apart {
            process.args(APART).arg("sh");
        }
        let cpu_s = self.time.as_secs() + 1;
        // The shell counts memory in kibibytes and files in blocks of 512 bytes.
        let limits = [cpu_s, self.memory_mb * 1024, self.file_mb * 2048].map(|limit| limit.to_string());
        process.args(["-c", LIMITS, "sh"]).args(limits).args(&self.arguments);
        process.env_clear().envs(VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut process, 0);
        process
    }
}

/// Whether this system lets an ordinary program make namespaces.
fn can_be_apart() -> bool {
    if !cfg!(target_os = "linux") {
        return false;
    }
    let mut probe = Process::new("unshare");
    probe.args(APART).arg("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// What comes out of a pipe, as far as it is wanted, read by a thread of its own.
fn reader(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What was read before an error counts.
            let _ = pipe.take(MOST_OUTPUT).read_to_end(&mut bytes);
        }
        sender.send(bytes)
    });
    receiver
}

/// Whether the child ends before `time` is over; it still has to be waited for.
fn wait(child: &Child, time: Duration) -> bool {
    let start = Instant::now();
    let mut pause = Duration::from_micros(200);
    while !has_ended(child) {
        let left = time.saturating_sub(start.elapsed());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(pause.min(left));
        pause = (2 * pause).min(Duration::from_millis(10));
    }
    true
}

#[cfg(unix)]
fn has_ended(child: &Child) -> bool {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    // An error means that there is nothing to wait for.
    !matches!(waitid(WaitId::Pid(Pid::from_child(child)), options), Ok(None))
}

/// Ends the child and all that it has started and that is still in its group.
#[cfg(unix)]
fn end_group(child: &Child) {
    use rustix::process::{Pid, Signal, kill_process_group};
    // It fails where all have ended, which is what is wanted.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
}

// Nowhere else is a command started.
#[cfg(not(unix))]
fn has_ended(_: &Child) -> bool {
    true
}

#[cfg(not(unix))]
fn end_group(_: &Child) {}
