//! One file from the server into the cache's blobs: resumed where an earlier attempt stopped, hashed as it arrives, and
//! given its name only when the hash is right. What is under a blob's name is therefore always whole.

use super::digest::{Digest, Hasher, hash_rest};
use super::error::HubError;
use super::http::{Client, header, is_transient, refused, shown};
use super::pull::Progress;
use super::remote::RemoteFile;
use super::settings::Settings;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The waits between attempts, doubling; progress starts them anew.
pub(super) struct Pauses {
    first: Duration,
    allowed: u32,
    used: u32,
}

impl Pauses {
    pub fn new(settings: &Settings) -> Self {
        Pauses { first: settings.pause, allowed: settings.retries, used: 0 }
    }

    /// Tells of `error` and waits before another attempt; false if there were enough.
    pub fn wait(&mut self, error: &HubError, progress: &mut dyn Progress) -> bool {
        if self.used == self.allowed {
            return false;
        }
        progress.retry(&error.reason());
        std::thread::sleep(self.first * (1 << self.used.min(6)));
        self.used += 1;
        true
    }
}

/// The file of a blob, and its place while it is being fetched.
pub(super) struct Blob {
    done: PathBuf,
    partial: PathBuf,
}

impl Blob {
    pub fn new(blobs: &Path, digest: &Digest) -> Self {
        let hex = digest.hex();
        Blob { done: blobs.join(hex), partial: blobs.join(format!("{hex}.incomplete")) }
    }

    /// How many of `size` bytes are already on disk.
    pub fn present(&self, size: u64) -> u64 {
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
        let partial = length(&self.partial);
        match (self.is_done(size), partial <= size) {
            (true, _) => size,
            (false, true) => partial,
            (false, false) => 0,
        }
    }

    fn is_done(&self, size: u64) -> bool {
        std::fs::metadata(&self.done).is_ok_and(|m| m.is_file() && m.len() == size)
    }
}

/// Brings `file` from `url` into `blobs`; returns the number of bytes that came over the network.
pub(super) fn fetch(
    client: &Client,
    url: &str,
    file: &RemoteFile,
    blobs: &Path,
    pauses: &mut Pauses,
    progress: &mut dyn Progress,
) -> Result<u64, HubError> {
    let blob = Blob::new(blobs, &file.digest);
    if blob.is_done(file.size) {
        return Ok(0);
    }
    let mut transfer = Transfer::open(&blob.partial, file)?;
    let mut farthest = transfer.have;
    loop {
        match transfer.attempt(client, url, progress) {
            Ok(()) => break,
            Err(error) if is_transient(&error) => {
                if transfer.have > farthest {
                    (farthest, pauses.used) = (transfer.have, 0);
                }
                if !pauses.wait(&error, progress) {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
    let received = transfer.received;
    transfer.finish(&blob)?;
    Ok(received)
}

/// Bytes of a write.
const PIECE: usize = 2 << 20;

/// Reads until `piece` is full, the body ends or fails: how much came, and the fault.
fn fill(body: &mut impl Read, piece: &mut [u8], progress: &mut dyn Progress) -> (usize, Option<std::io::Error>) {
    let mut have = 0;
    while have < piece.len() {
        match body.read(&mut piece[have..]) {
            Ok(0) => break,
            Ok(count) => {
                have += count;
                progress.add(count as u64);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return (have, Some(error)),
        }
    }
    (have, None)
}

/// A partial file, with the hash of what it holds.
struct Transfer<'f> {
    wanted: &'f RemoteFile,
    path: &'f Path,
    file: File,
    hasher: Hasher,
    /// Bytes on disk, all of them hashed.
    have: u64,
    /// Bytes that came over the network.
    received: u64,
}

impl<'f> Transfer<'f> {
    /// Opens or creates the partial file, locks it against other programs and hashes what it holds.
    fn open(path: &'f Path, wanted: &'f RemoteFile) -> Result<Self, HubError> {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = options.map_err(HubError::file(path, "opening"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(HubError::Busy { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(HubError::file(path, "locking")(error)),
        }
        if file.metadata().map_err(HubError::file(path, "reading"))?.len() > wanted.size {
            file.set_len(0).map_err(HubError::file(path, "shortening"))?;
        }
        let mut hasher = Hasher::new(&wanted.digest, wanted.size);
        let have = hash_rest(&mut file, path, &mut hasher, &mut |_| {})?;
        Ok(Transfer { wanted, path, file, hasher, have, received: 0 })
    }

    /// Fetches what is missing; after a transient error it can be called again.
    fn attempt(&mut self, client: &Client, url: &str, progress: &mut dyn Progress) -> Result<(), HubError> {
        if self.have == self.wanted.size {
            return Ok(());
        }
        let answer = client.get(url, self.have)?;
        match answer.status().as_u16() {
            206 if starts_at(header(&answer, "content-range"), self.have) => {}
            200 => self.start_over(progress)?,
            206 | 416 => {
                self.start_over(progress)?;
                return Err(HubError::Network {
                    url: shown(url),
                    reason: "the server does not resume here".to_owned(),
                });
            }
            status => return Err(refused(url, status)),
        }
        self.receive(answer.into_body().into_reader(), url, progress)
    }

    /// Writes pieces of 2 MB that begin at a multiple of it: the system then keeps them in pages of that size, and weights
    /// are read faster from those.
    fn receive(&mut self, mut body: impl Read, url: &str, progress: &mut dyn Progress) -> Result<(), HubError> {
        let broken = |reason: String| HubError::Network { url: shown(url), reason };
        let mut piece = vec![0; PIECE];
        while self.have < self.wanted.size {
            let left = usize::try_from(self.wanted.size - self.have).unwrap_or(usize::MAX);
            let room = left.min(PIECE - (self.have % PIECE as u64) as usize);
            let (count, fault) = fill(&mut body, &mut piece[..room], progress);
            self.file.write_all(&piece[..count]).map_err(HubError::file(self.path, "writing"))?;
            self.hasher.update(&piece[..count]);
            self.have += count as u64;
            self.received += count as u64;
            if let Some(fault) = fault {
                return Err(broken(fault.to_string()));
            }
            if count < room {
                return Err(broken(format!("the connection ended after {} of {} bytes", self.have, self.wanted.size)));
            }
        }
        Ok(())
    }

    fn start_over(&mut self, progress: &mut dyn Progress) -> Result<(), HubError> {
        self.file.set_len(0).map_err(HubError::file(self.path, "shortening"))?;
        self.file.seek(SeekFrom::Start(0)).map_err(HubError::file(self.path, "rewinding"))?;
        self.hasher = Hasher::new(&self.wanted.digest, self.wanted.size);
        progress.take_back(self.have);
        self.have = 0;
        Ok(())
    }

    /// Gives the file its name, or deletes it if it is not what was promised.
    fn finish(self, blob: &Blob) -> Result<(), HubError> {
        let found = self.hasher.finish();
        if found != self.wanted.digest {
            std::fs::remove_file(self.path).map_err(HubError::file(self.path, "deleting"))?;
            return Err(HubError::Hash { file: self.wanted.path.clone(), wanted: self.wanted.digest.clone(), found });
        }
        self.file.sync_all().map_err(HubError::file(self.path, "writing"))?;
        std::fs::rename(self.path, &blob.done).map_err(HubError::file(&blob.done, "renaming into place"))
    }
}

/// Whether a `Content-Range: bytes FIRST-LAST/SIZE` begins at `have`.
fn starts_at(range: Option<&str>, have: u64) -> bool {
    let first = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    first == Some(have)
}
