//! `metrics.jsonl`: one JSON object a line. A line is handed to the system whole as soon as its step is done, so a killed
//! run loses at most a torn last line. Opening the file to resume cuts that line and every record after the checkpoint,
//! so the file of a resumed run equals that of an unbroken one except for what the clock says.

use super::{Error, Record};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The log of a run, open for appending.
pub struct Log {
    file: File,
    path: PathBuf,
    last_step: Option<u64>,
}

impl Log {
    /// Opens the log at `path`, which is made if it is not there.
    ///
    /// `resume_step` is the number of steps that the checkpoint has done: later records are cut. None begins a new run.
    ///
    /// # Errors
    /// If the file cannot be read or written, if a line that is kept is not a record, or if a new run finds records.
    pub fn open(path: &Path, resume_step: Option<u64>) -> Result<Log, Error> {
        let bytes = read_bytes(path)?;
        let records = parse(&bytes, path, resume_step)?;
        if resume_step.is_none() && !records.is_empty() {
            return Err(Error::Occupied { path: path.to_owned(), num_records: records.len() });
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(Error::io("open the log", path))?;
        let end = records.last().map_or(0, |kept| kept.end);
        let mut log = Log { file, path: path.to_owned(), last_step: records.last().map(|kept| kept.record.step) };
        log.cut(&bytes[..end]).map_err(Error::io("cut the log", path))?;
        Ok(log)
    }

    /// Cuts the file after what is kept. A whole last record may lack its newline.
    fn cut(&mut self, kept: &[u8]) -> io::Result<()> {
        self.file.set_len(kept.len() as u64)?;
        self.file.seek(SeekFrom::End(0))?;
        if kept.last().is_some_and(|&byte| byte != b'\n') { self.file.write_all(b"\n") } else { Ok(()) }
    }

    /// Writes one record.
    ///
    /// # Errors
    /// If the file cannot be written.
    ///
    /// # Panics
    /// If the record's step is not after the last record's.
    pub fn append(&mut self, record: &Record) -> Result<(), Error> {
        let after = self.last_step.is_none_or(|last| record.step > last);
        assert!(after, "step {} is logged after step {:?}", record.step, self.last_step);
        let mut line = serde_json::to_vec(record)
            .map_err(|error| Error::io("write a record to", &self.path)(io::Error::other(error)))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(Error::io("write a record to", &self.path))?;
        self.last_step = Some(record.step);
        Ok(())
    }

    /// Waits until all records are on the disk: done before a checkpoint, so that no checkpoint is ahead of its log.
    ///
    /// # Errors
    /// If the system cannot keep them.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.file.sync_data().map_err(Error::io("save the log", &self.path))
    }

    /// The step of the last record, where there is one. Step 0 is what was measured before the first update.
    pub fn last_step(&self) -> Option<u64> {
        self.last_step
    }
}

/// Reads all records; a torn last line, such as a running or killed process leaves, is passed over.
///
/// # Errors
/// If the file cannot be read, or a line before the last is not a record or does not come after its predecessor.
pub fn read(path: &Path) -> Result<Vec<Record>, Error> {
    let bytes = std::fs::read(path).map_err(Error::io("read the log", path))?;
    let kept = parse(&bytes, path, None)?;
    Ok(kept.into_iter().map(|kept| kept.record).collect())
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, Error> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(Error::io("read the log", path)),
    }
}

/// A record and the byte of the file at which its line ends.
struct Kept {
    record: Record,
    end: usize,
}

/// The records up to `last_step`; a line that is not one ends them if it is the last, since it is torn.
fn parse(bytes: &[u8], path: &Path, last_step: Option<u64>) -> Result<Vec<Kept>, Error> {
    let mut kept: Vec<Kept> = Vec::new();
    let mut end = 0;
    for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        end += line.len();
        let wrong = |what: String| Error::Line { path: path.to_owned(), line: index + 1, what };
        let record: Record = match serde_json::from_slice(line) {
            Ok(record) => record,
            Err(_) if end == bytes.len() => return Ok(kept),
            Err(error) => return Err(wrong(error.to_string())),
        };
        if let Some(before) = kept.last().filter(|before| before.record.step >= record.step) {
            return Err(wrong(format!("step {} after step {}", record.step, before.record.step)));
        }
        if last_step.is_some_and(|last| record.step > last) {
            return Ok(kept);
        }
        kept.push(Kept { record, end });
    }
    Ok(kept)
}
