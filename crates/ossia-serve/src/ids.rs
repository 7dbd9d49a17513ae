//! Ids of everything that is kept or shown: a word for the kind, then 192 random bits, so that none can be guessed.

use std::fmt::Write;

use ring::rand::{SecureRandom, SystemRandom};

use crate::error::ApiError;

/// `prefix`, an underscore, 48 hexadecimal digits. Fails only where the system has no random bytes.
pub fn new(prefix: &str) -> Result<String, ApiError> {
    let mut bytes = [0_u8; 24];
    SystemRandom::new().fill(&mut bytes).map_err(|_| ApiError::Internal)?;
    let mut id = String::with_capacity(prefix.len() + 1 + 2 * bytes.len());
    id.push_str(prefix);
    id.push('_');
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    Ok(id)
}

/// True for what could be an id of ours: a word of letters, an underscore or hyphen, letters and digits; at most 128
/// characters. Anything else need not be looked up.
pub fn is_plausible(id: &str) -> bool {
    !id.is_empty() && id.len() <= 128 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_are_long_and_never_the_same() {
        let id = super::new("resp").unwrap();
        assert!(id.starts_with("resp_") && id.len() == 53 && super::is_plausible(&id), "{id}");
        assert_ne!(id, super::new("resp").unwrap());
        for bad in ["", "../x", "a b", "\u{0}", &"x".repeat(129)] {
            assert!(!super::is_plausible(bad), "{bad:?}");
        }
    }
}
