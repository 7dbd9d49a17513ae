//! API keys: made with 256 random bits, shown once, kept as SHA-256 in a file that only its owner can read. The file is
//! small and read anew when it changes, so that a key revoked on the command line is refused at once.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::auth::Scope;
use crate::clock;

/// What every key begins with, so that people and scanners recognise one.
pub const PREFIX: &str = "sk-ossia-";
/// The file of the secret from which the server derives salts and the audit log's anchors.
pub const SERVER_SECRET: &str = "server.secret";
/// The longest name of a key, in characters.
const LONGEST_NAME: usize = 64;
/// The most keys of a server.
const MOST_KEYS: usize = 10_000;
/// The longest file that is read, in bytes.
const LONGEST_FILE: u64 = 16 << 20;

/// A key as it is kept: everything but the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Its public id; what is stored on the server belongs to one.
    pub id: String,
    /// For people.
    pub name: String,
    /// Of the whole key, as hexadecimal digits.
    pub sha256: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Seconds since 1970.
    pub created: u64,
    /// Seconds since 1970; it is refused from then on.
    pub expires: Option<u64>,
    /// Quota.
    pub requests_per_minute: Option<u64>,
    /// Quota.
    pub tokens_per_minute: Option<u64>,
}

/// What a new key is to be.
#[derive(Debug, Clone, Default)]
pub struct NewKey {
    /// For people.
    pub name: String,
    /// At least one.
    pub scopes: Vec<Scope>,
    /// Seconds from now.
    pub expires_in_s: Option<u64>,
    /// Quota.
    pub requests_per_minute: Option<u64>,
    /// Quota.
    pub tokens_per_minute: Option<u64>,
}

/// What can be wrong with keys, for the person at the command line.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file or its folder.
    #[error("{path}: cannot {action}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is not what this program wrote.
    #[error("{path}: not a file of keys ({problem}); restore it from a copy, or move it away and add new keys")]
    Broken {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Others can read it.
    #[error("{path}: others than its owner can read or write it; do `chmod 600` and add new keys if it was seen")]
    Open {
        /// Which.
        path: PathBuf,
    },
    /// No such key.
    #[error("no key {0:?}; `ossia keys list` shows them")]
    Unknown(String),
    /// A new key that cannot be.
    #[error("{0}")]
    New(&'static str),
    /// No random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// The file.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    version: u32,
    keys: Vec<KeyRecord>,
}

impl KeyFile {
    /// The file of a data folder; it need not exist yet.
    pub fn of(folder: &Path) -> Self {
        Self { path: folder.join("keys.json") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All keys; none where there is no file.
    pub fn read(&self) -> Result<Vec<KeyRecord>, KeyError> {
        let metadata = match std::fs::metadata(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| self.io("read", error))?,
        };
        if is_open(&metadata) {
            return Err(KeyError::Open { path: self.path.clone() });
        }
        let broken = |problem: String| KeyError::Broken { path: self.path.clone(), problem };
        if metadata.len() > LONGEST_FILE {
            return Err(broken(format!("{} bytes", metadata.len())));
        }
        let text = std::fs::read_to_string(&self.path).map_err(|error| self.io("read", error))?;
        let contents: Contents = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
        match contents.version {
            1 => Ok(contents.keys),
            other => Err(broken(format!("version {other}, wanted 1"))),
        }
    }

    /// Makes a key: its record, which is kept, and the key itself, which is not.
    pub fn add(&self, new: NewKey) -> Result<(KeyRecord, String), KeyError> {
        if new.scopes.is_empty() {
            return Err(KeyError::New("a key needs at least one scope"));
        }
        if new.name.chars().count() > LONGEST_NAME || new.name.chars().any(char::is_control) {
            return Err(KeyError::New("a key's name has at most 64 characters, none of them a control character"));
        }
        let mut random = [0_u8; 38];
        SystemRandom::new().fill(&mut random).map_err(|_| KeyError::Random)?;
        let (id, secret) = random.split_at(6);
        let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
        let created = clock::now_s();
        let record = KeyRecord {
            id: format!("key_{}", hex(id)),
            name: new.name,
            sha256: hash(&key),
            scopes: new.scopes,
            created,
            expires: new.expires_in_s.map(|seconds| created.saturating_add(seconds)),
            requests_per_minute: new.requests_per_minute,
            tokens_per_minute: new.tokens_per_minute,
        };
        let kept = record.clone();
        self.change(|keys| match keys.len() < MOST_KEYS {
            true => {
                keys.push(kept);
                Ok(())
            }
            false => Err(KeyError::New("there are 10000 keys already: revoke some")),
        })?;
        Ok((record, key))
    }

    /// Removes the key with this id or, if there is only one, this name.
    pub fn revoke(&self, which: &str) -> Result<KeyRecord, KeyError> {
        let mut gone = None;
        self.change(|keys| {
            let by_id = keys.iter().position(|key| key.id == which);
            let mut named = keys.iter().enumerate().filter(|(_, key)| key.name == which).map(|(at, _)| at);
            let by_name = named.next().filter(|_| named.next().is_none());
            let at = by_id.or(by_name).ok_or_else(|| KeyError::Unknown(which.to_owned()))?;
            gone = Some(keys.remove(at));
            Ok(())
        })?;
        gone.ok_or_else(|| KeyError::Unknown(which.to_owned()))
    }

    /// Reads, changes and writes the file; whoever else wants to waits.
    fn change(&self, change: impl FnOnce(&mut Vec<KeyRecord>) -> Result<(), KeyError>) -> Result<(), KeyError> {
        if let Some(folder) = self.path.parent() {
            private_folder(folder).map_err(|error| self.io("make the folder of", error))?;
        }
        let lock = self.path.with_extension("lock");
        let lock = private_file(&lock).and_then(|file| file.lock().map(|()| file));
        let _lock = lock.map_err(|error| self.io("lock", error))?;
        let mut keys = self.read()?;
        change(&mut keys)?;
        let text = serde_json::to_string_pretty(&Contents { version: 1, keys });
        let text = text.map_err(|error| KeyError::Broken { path: self.path.clone(), problem: error.to_string() })?;
        write_private(&self.path, text.as_bytes()).map_err(|error| self.io("write", error))
    }

    fn io(&self, action: &'static str, error: std::io::Error) -> KeyError {
        KeyError::Io { path: self.path.clone(), action, error }
    }
}

/// SHA-256 of a key, as hexadecimal digits.
pub(crate) fn hash(key: &str) -> String {
    hex(digest::digest(&digest::SHA256, key.as_bytes()).as_ref())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A random secret of the server, made when it is first asked for. 0600, like the keys.
pub fn secret(folder: &Path, name: &str) -> Result<[u8; 32], KeyError> {
    let path = folder.join(name);
    let io = |action, error| KeyError::Io { path: path.clone(), action, error };
    match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io("read", error)),
        Ok(bytes) => {
            let problem = format!("{} bytes, wanted 32", bytes.len());
            return bytes.try_into().map_err(|_| KeyError::Broken { path: path.clone(), problem });
        }
    }
    private_folder(folder).map_err(|error| io("make the folder of", error))?;
    let mut secret = [0_u8; 32];
    SystemRandom::new().fill(&mut secret).map_err(|_| KeyError::Random)?;
    write_private(&path, &secret).map_err(|error| io("write", error))?;
    Ok(secret)
}

pub(crate) fn private_folder(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.write(true).create(true).truncate(false).open(path)
}

/// Writes a file beside its place and moves it there: a reader sees the old or the new one, whole.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = private_file(&new)?;
    file.set_len(0)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

#[cfg(unix)]
fn is_open(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0
}

#[cfg(not(unix))]
fn is_open(_: &std::fs::Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::{KeyError, KeyFile, NewKey, hash, secret};
    use crate::auth::Scope;

    fn new(name: &str) -> NewKey {
        NewKey { name: name.into(), scopes: vec![Scope::Infer], ..NewKey::default() }
    }

    #[test]
    fn keys_are_kept_as_hashes() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::of(folder.path());
        assert_eq!(file.read().unwrap(), []);
        let (record, key) = file.add(new("me")).unwrap();
        assert!(key.starts_with("sk-ossia-") && key.len() == 9 + 43, "{key}");
        assert_eq!(file.read().unwrap(), std::slice::from_ref(&record));
        assert_eq!(record.sha256, hash(&key));
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert!(!text.contains(&key[9..]), "the key itself is nowhere");
        assert_ne!(file.add(new("me")).unwrap().1, key);
    }

    #[test]
    fn revoked_by_id_or_a_name_that_is_one_keys() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::of(folder.path());
        let first = file.add(new("twice")).unwrap().0;
        file.add(new("twice")).unwrap();
        assert!(matches!(file.revoke("twice"), Err(KeyError::Unknown(_))));
        assert_eq!(file.revoke(&first.id).unwrap(), first);
        file.revoke("twice").unwrap();
        assert_eq!(file.read().unwrap(), []);
        assert!(matches!(file.revoke("twice"), Err(KeyError::Unknown(_))));
    }

    #[test]
    fn wrong_ones_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::of(folder.path());
        assert!(file.add(NewKey::default()).is_err(), "no scope");
        assert!(file.add(new(&"x".repeat(65))).is_err());
        assert!(file.add(new("a\nb")).is_err());
        file.add(new("me")).unwrap();
        for text in ["", "{}", r#"{"version":2,"keys":[]}"#, "\u{0}"] {
            std::fs::write(file.path(), text).unwrap();
            assert!(matches!(file.read(), Err(KeyError::Broken { .. })), "{text:?}");
            assert!(file.add(new("me")).is_err(), "a broken file is not written over");
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_them() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("a/b");
        let file = KeyFile::of(&data);
        file.add(new("me")).unwrap();
        secret(&data, "secret").unwrap();
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(file.path()), mode(&data), mode(&data.join("secret"))), (0o600, 0o700, 0o600));
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(file.read(), Err(KeyError::Open { .. })));
    }

    #[test]
    fn a_secret_stays() {
        let folder = tempfile::tempdir().unwrap();
        let first = secret(folder.path(), "secret").unwrap();
        assert_eq!(secret(folder.path(), "secret").unwrap(), first);
        assert_ne!(secret(folder.path(), "other").unwrap(), first);
        std::fs::write(folder.path().join("secret"), "short").unwrap();
        assert!(secret(folder.path(), "secret").is_err());
    }

    /// Two programs at once: no key is lost.
    #[test]
    fn many_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::of(folder.path());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5).for_each(|_| drop(file.add(new("me")).unwrap())));
            }
        });
        assert_eq!(file.read().unwrap().len(), 20);
    }
}
