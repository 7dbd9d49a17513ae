//! Anchors: an HMAC under the server's secret over the number and the hash of an entry. They stand in the chain, and the
//! newest also in a file of its own, which is how a log that was cut short is found out.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ring::hmac;
use serde::{Deserialize, Serialize};

use super::entry::{Hash, unhex};
use super::{AuditError, Broken};
use crate::keys::{hex, write_private};

/// The file of the newest anchor.
const FILE: &str = "anchor.json";

/// Makes and checks anchors; derived from the server's secret.
#[derive(Clone)]
pub struct AnchorKey(hmac::Key);

impl AnchorKey {
    /// From the server's secret.
    pub fn new(secret: &[u8]) -> Self {
        let server = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let own = hmac::sign(&server, b"ossia audit anchor 1");
        Self(hmac::Key::new(hmac::HMAC_SHA256, own.as_ref()))
    }

    /// The HMAC, as hexadecimal digits.
    pub fn sign(&self, seq: u64, hash: &Hash) -> String {
        hex(hmac::sign(&self.0, text(seq, hash).as_bytes()).as_ref())
    }

    /// Whether this is the HMAC; in a time that says nothing.
    pub fn is_signed(&self, seq: u64, hash: &Hash, mac: &str) -> bool {
        unhex(mac).is_some_and(|mac| hmac::verify(&self.0, text(seq, hash).as_bytes(), &mac).is_ok())
    }
}

fn text(seq: u64, hash: &Hash) -> String {
    format!("{seq} {}", hex(hash))
}

/// An entry that must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Its number; 0: the beginning.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    seq: u64,
    sha256: String,
    mac: String,
}

/// Where the newest anchor of a log is.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// The newest anchor, if there is one; checked where there is a key.
pub fn read(folder: &Path, key: Option<&AnchorKey>) -> Result<Option<Anchor>, AuditError> {
    let path = path(folder);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| AuditError::io(&path, "read", error))?,
    };
    let broken = |problem: &str| Broken::of_log(&path, problem);
    let kept: Kept = serde_json::from_str(&text).map_err(|_| broken("not an anchor"))?;
    let hash = unhex(&kept.sha256).ok_or_else(|| broken("not an anchor"))?;
    if key.is_some_and(|key| !key.is_signed(kept.seq, &hash, &kept.mac)) {
        return Err(broken("not made with this server's secret").into());
    }
    Ok(Some(Anchor { seq: kept.seq, hash }))
}

/// Keeps the newest anchor, in place of the one before.
pub fn write(folder: &Path, key: &AnchorKey, anchor: &Anchor) -> std::io::Result<()> {
    let kept = Kept { seq: anchor.seq, sha256: hex(&anchor.hash), mac: key.sign(anchor.seq, &anchor.hash) };
    write_private(&path(folder), serde_json::to_string(&kept)?.as_bytes())
}
