//! `encrypted_content`: chain of thought that a client holds and cannot read, change or use with another key.
//!
//! ChaCha20-Poly1305. Every text has a key of its own, derived by HKDF-SHA256 from a secret of the server, 32 random bytes and the id of the API key; so the nonce may be fixed. What was altered, cut, or
//! sealed for another key or by another server does not open, and which of these it was is not said.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

/// Stands before every sealed text and is authenticated with it: the version.
const PREFIX: &str = "ossia1.";
const SALT_BYTES: usize = 32;
const SECRET_BYTES: usize = 32;

/// What is sealed: the chain of thought of one item, and the date that its conversation began with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The whole text.
    pub text: String,
    /// As YYYY-MM-DD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// The ids that it was written with, where rendering would choose others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<u32>>,
}

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The system gave no random bytes, or the text is too long for the cipher.
    #[error("reasoning could not be encrypted")]
    Seal,
    /// Altered, of another key, of another server, or never sealed here.
    #[error("the encrypted content was not made for this key by this server, or it was altered")]
    Open,
}

/// Seals and opens. Cheap to share, holds only the secret.
pub struct Sealer {
    secret: [u8; SECRET_BYTES],
    random: SystemRandom,
}

impl Sealer {
    /// Over the server's secret. With another one, what was sealed before can no longer be opened.
    pub fn new(secret: [u8; SECRET_BYTES]) -> Self {
        Self { secret, random: SystemRandom::new() }
    }

    /// Seals for the API key `owner`.
    pub fn seal(&self, owner: &str, content: &Sealed) -> Result<String, SealError> {
        let mut salt = [0; SALT_BYTES];
        self.random.fill(&mut salt).map_err(|_| SealError::Seal)?;
        let mut text = serde_json::to_vec(content).map_err(|_| SealError::Seal)?;
        let key = self.key(owner, &salt).ok_or(SealError::Seal)?;
        key.seal_in_place_append_tag(nonce(), Aad::from(PREFIX), &mut text).map_err(|_| SealError::Seal)?;
        Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([salt.as_slice(), &text].concat())))
    }

    /// Opens what was sealed for the same key.
    pub fn open(&self, owner: &str, sealed: &str) -> Result<Sealed, SealError> {
        let encoded = sealed.strip_prefix(PREFIX).ok_or(SealError::Open)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| SealError::Open)?;
        let (salt, text) = bytes.split_at_checked(SALT_BYTES).ok_or(SealError::Open)?;
        let key = self.key(owner, salt).ok_or(SealError::Open)?;
        let mut text = text.to_vec();
        let plain = key.open_in_place(nonce(), Aad::from(PREFIX), &mut text).map_err(|_| SealError::Open)?;
        serde_json::from_slice(plain).map_err(|_| SealError::Open)
    }

    /// The key of one text: of `owner` and of the text's own random bytes.
    fn key(&self, owner: &str, salt: &[u8]) -> Option<LessSafeKey> {
        let secret = Salt::new(HKDF_SHA256, salt).extract(&self.secret);
        let info = [b"ossia reasoning".as_slice(), owner.as_bytes()];
        let key = secret.expand(&info, &CHACHA20_POLY1305).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(key)))
    }
}

/// Fixed: no key is ever used for a second text.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::{SealError, Sealed, Sealer};

    fn sample() -> Sealed {
        Sealed {
            text: "The user wants the weather, so I call the tool.".into(),
            date: Some("2026-11-25".into()),
            ids: None,
        }
    }

    #[test]
    fn opens_after_a_restart_and_hides_the_text() {
        let sealed = Sealer::new([7; 32]).seal("ada", &sample()).unwrap();
        assert!(!sealed.contains("weather"));
        assert_eq!(Sealer::new([7; 32]).open("ada", &sealed).unwrap(), sample());
    }

    #[test]
    fn the_same_text_is_never_sealed_alike() {
        let sealer = Sealer::new([7; 32]);
        assert_ne!(sealer.seal("ada", &sample()).unwrap(), sealer.seal("ada", &sample()).unwrap());
    }

    #[test]
    fn another_key_and_another_server_cannot_open_it() {
        let sealer = Sealer::new([7; 32]);
        let sealed = sealer.seal("ada", &sample()).unwrap();
        assert!(matches!(sealer.open("eve", &sealed), Err(SealError::Open)));
        assert!(matches!(Sealer::new([8; 32]).open("ada", &sealed), Err(SealError::Open)));
    }

    #[test]
    fn every_altered_or_missing_character_is_seen() {
        let sealer = Sealer::new([7; 32]);
        let sealed = sealer.seal("ada", &sample()).unwrap();
        for at in 0..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(bytes).unwrap();
            assert!(matches!(sealer.open("ada", &altered), Err(SealError::Open)), "{at}");
            assert!(matches!(sealer.open("ada", &sealed[..at]), Err(SealError::Open)), "{at}");
        }
        for nonsense in ["", "ossia1.", "gAAAAABo", "ossia1.AAAA", "ossia1.\u{fc}"] {
            assert!(matches!(sealer.open("ada", nonsense), Err(SealError::Open)), "{nonsense}");
        }
    }
}
