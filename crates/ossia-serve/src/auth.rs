//! Who asks: from the key in a request to an identity, what it may do, and how much.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use ring::hmac;
use subtle::ConstantTimeEq;

use crate::audit::Trail;
use crate::clock;
use crate::error::ApiError;
use crate::keys::{self, KeyError, KeyFile, KeyRecord};

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Generate, list models, keep responses and conversations.
    Infer,
    /// Store and read files.
    Files,
    /// Run batches.
    Batch,
    /// Fine-tune models, which takes the machine for hours.
    Train,
    /// Change the server.
    Admin,
    /// Read the metrics.
    Metrics,
}

impl Scope {
    /// All of them.
    pub const ALL: [Scope; 6] = [Scope::Infer, Scope::Files, Scope::Batch, Scope::Train, Scope::Admin, Scope::Metrics];

    /// The word on the command line and in errors.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Infer => "infer",
            Scope::Files => "files",
            Scope::Batch => "batch",
            Scope::Train => "train",
            Scope::Admin => "admin",
            Scope::Metrics => "metrics",
        }
    }
}

/// Who a request is from. Handlers get it as `Extension<Identity>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The key's public id. Everything that is stored belongs to one.
    pub key_id: Arc<str>,
    /// The key's name, for people.
    pub name: Arc<str>,
    /// Requests are scheduled fairly between clients.
    pub client: u64,
    /// The prefix cache is separate for each salt. The server derives it; no request can choose it.
    pub salt: u64,
    /// How much.
    pub quota: Quota,
    /// What the audit log learns of the request that this identity belongs to.
    pub trail: Trail,
}

/// What a key may use; None: as much as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Requests of any kind.
    pub requests_per_minute: Option<u64>,
    /// Tokens of prompts and answers.
    pub tokens_per_minute: Option<u64>,
}

/// The keys of a running server.
pub struct Auth {
    file: KeyFile,
    secret: hmac::Key,
    /// What may be done without a key; only for a server that nobody but this machine reaches.
    without_key: Vec<Scope>,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    stamp: Option<Stamp>,
    keys: Vec<Entry>,
}

/// When the file was written, and how long it is: enough to see that it has changed.
type Stamp = (Option<SystemTime>, u64);

struct Entry {
    record: KeyRecord,
    identity: Identity,
}

impl Auth {
    /// Over the keys in a data folder. `without_key` is what requests without a key may do.
    pub fn open(folder: &Path, without_key: Vec<Scope>) -> Result<Self, KeyError> {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &keys::secret(folder, keys::SERVER_SECRET)?);
        let auth = Self { file: KeyFile::of(folder), secret, without_key, known: RwLock::default() };
        auth.file.read()?;
        auth.refresh();
        Ok(auth)
    }

    /// Who sends these headers, if he may use `scope` (None: any key may).
    pub fn check(&self, headers: &HeaderMap, scope: Option<Scope>) -> Result<Identity, ApiError> {
        // Where none is needed, what is no key of ours counts as none: OpenAI's clients cannot but send something.
        let is_key = |key: &&str| self.without_key.is_empty() || key.starts_with(keys::PREFIX);
        let Some(key) = bearer(headers).filter(is_key) else {
            let allowed = scope.map_or(!self.without_key.is_empty(), |scope| self.without_key.contains(&scope));
            return if allowed { Ok(self.identity("local", "", Quota::default())) } else { Err(ApiError::NoKey) };
        };
        self.refresh();
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let entry = find(&known.keys, key).ok_or(ApiError::WrongKey)?;
        if entry.record.expires.is_some_and(|expires| expires <= clock::now_s()) {
            return Err(ApiError::WrongKey);
        }
        match scope.filter(|scope| !entry.record.scopes.contains(scope)) {
            Some(scope) => Err(ApiError::Forbidden(scope.name())),
            None => Ok(entry.identity.clone()),
        }
    }

    /// The identity of a key by its id, while it may use `scope`: for work that goes on when its request is over.
    pub fn by_id(&self, key_id: &str, scope: Scope) -> Option<Identity> {
        if key_id == "local" && self.without_key.contains(&scope) {
            return Some(self.identity("local", "", Quota::default()));
        }
        self.refresh();
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let may = |entry: &&Entry| {
            let lives = entry.record.expires.is_none_or(|expires| expires > clock::now_s());
            entry.record.id == key_id && entry.record.scopes.contains(&scope) && lives
        };
        known.keys.iter().find(may).map(|entry| entry.identity.clone())
    }

    /// True where there is a key to come in with.
    pub fn has_keys(&self) -> bool {
        !self.known.read().unwrap_or_else(PoisonError::into_inner).keys.is_empty()
    }

    /// Reads the file again if it has changed. A file that became unreadable leaves no key: closed rather than stale.
    fn refresh(&self) {
        let metadata = std::fs::metadata(self.file.path()).ok();
        let stamp: Option<Stamp> = metadata.map(|metadata| (metadata.modified().ok(), metadata.len()));
        if stamp == self.known.read().unwrap_or_else(PoisonError::into_inner).stamp {
            return;
        }
        let records = self.file.read().unwrap_or_default();
        let entry = |record: KeyRecord| {
            let quota =
                Quota { requests_per_minute: record.requests_per_minute, tokens_per_minute: record.tokens_per_minute };
            Entry { identity: self.identity(&record.id, &record.name, quota), record }
        };
        let keys = records.into_iter().map(entry).collect();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known { stamp, keys };
    }

    fn identity(&self, key_id: &str, name: &str, quota: Quota) -> Identity {
        let number = |what: &str| {
            let tag = hmac::sign(&self.secret, format!("{what}\0{key_id}").as_bytes());
            let first: [u8; 8] = tag.as_ref().first_chunk().copied().unwrap_or_default();
            u64::from_le_bytes(first)
        };
        Identity {
            key_id: key_id.into(),
            name: name.into(),
            client: number("client"),
            salt: number("prefix cache"),
            quota,
            trail: Trail::default(),
        }
    }
}

/// The key of a request: OpenAI's header, or the one that clients of other APIs send.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = value.and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    bearer.or_else(|| headers.get("x-api-key").and_then(|value| value.to_str().ok())).filter(|key| !key.is_empty())
}

/// Looks at every key, and at every byte of each, so that the time says nothing.
fn find<'k>(keys: &'k [Entry], key: &str) -> Option<&'k Entry> {
    let hash = keys::hash(key);
    let mut found = None;
    for entry in keys {
        if bool::from(entry.record.sha256.as_bytes().ct_eq(hash.as_bytes())) {
            found = Some(entry);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};

    use super::{Auth, Scope};
    use crate::error::ApiError;
    use crate::keys::{KeyFile, NewKey};

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(axum::http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
    }

    fn bearer(key: &str) -> HeaderMap {
        headers("authorization", &format!("Bearer {key}"))
    }

    #[test]
    fn a_key_opens_what_its_scopes_say() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::of(folder.path());
        let auth = Auth::open(folder.path(), Vec::new()).unwrap();
        assert_eq!(auth.check(&HeaderMap::new(), None), Err(ApiError::NoKey));
        let new = NewKey { scopes: vec![Scope::Infer, Scope::Files], ..NewKey::default() };
        let (record, key) = file.add(new).unwrap();
        let identity = auth.check(&bearer(&key), Some(Scope::Infer)).unwrap();
        assert_eq!(&*identity.key_id, record.id);
        assert_eq!(auth.check(&headers("x-api-key", &key), None).unwrap(), identity);
        assert_eq!(auth.by_id(&record.id, Scope::Files).unwrap(), identity);
        assert_eq!(auth.by_id(&record.id, Scope::Admin), None);
        assert_eq!(auth.check(&bearer(&key), Some(Scope::Metrics)), Err(ApiError::Forbidden("metrics")));
        for wrong in [&key[..key.len() - 1], "sk-ossia-", "x", &format!("{key}x")] {
            assert_eq!(auth.check(&bearer(wrong), None), Err(ApiError::WrongKey), "{wrong}");
        }
        for wrong in ["", "Bearer", "Bearer ", "Basic abc"] {
            assert_eq!(auth.check(&headers("authorization", wrong), None), Err(ApiError::NoKey), "{wrong:?}");
        }
        file.revoke(&record.id).unwrap();
        assert_eq!(auth.check(&bearer(&key), None), Err(ApiError::WrongKey));
    }

    #[test]
    fn keys_expire() {
        let folder = tempfile::tempdir().unwrap();
        let new = NewKey { scopes: vec![Scope::Infer], expires_in_s: Some(0), ..NewKey::default() };
        let (record, key) = KeyFile::of(folder.path()).add(new).unwrap();
        let auth = Auth::open(folder.path(), Vec::new()).unwrap();
        assert_eq!(auth.check(&bearer(&key), None), Err(ApiError::WrongKey));
        assert_eq!(auth.by_id(&record.id, Scope::Infer), None);
    }

    #[test]
    fn without_a_key_only_what_was_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let auth = Auth::open(folder.path(), vec![Scope::Infer]).unwrap();
        assert_eq!(&*auth.check(&HeaderMap::new(), Some(Scope::Infer)).unwrap().key_id, "local");
        assert!(auth.check(&HeaderMap::new(), Some(Scope::Admin)).is_err());
        assert_eq!(&*auth.check(&bearer("none"), Some(Scope::Infer)).unwrap().key_id, "local");
        assert_eq!(auth.check(&bearer("none"), Some(Scope::Admin)), Err(ApiError::NoKey));
        assert_eq!(auth.check(&bearer("sk-ossia-gone"), Some(Scope::Infer)), Err(ApiError::WrongKey));
    }

    #[test]
    fn each_key_has_its_own_salt_and_each_server_too() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let salts: Vec<u64> = folders
            .iter()
            .flat_map(|folder| {
                let auth = Auth::open(folder.path(), Vec::new()).unwrap();
                ["key_1", "key_2"].map(|id| auth.identity(id, "", super::Quota::default()).salt)
            })
            .collect();
        let distinct: std::collections::HashSet<&u64> = salts.iter().collect();
        assert_eq!(distinct.len(), 4);
        let again = Auth::open(folders[0].path(), Vec::new()).unwrap();
        assert_eq!(again.identity("key_1", "", super::Quota::default()).salt, salts[0], "it survives a restart");
    }
}
