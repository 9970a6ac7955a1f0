//! Session data of Django before 3.1, and of 3.1 with `DEFAULT_HASHING_ALGORITHM = "sha1"` (feature `legacy`).
//!
//! The text is the standard base64 of `hash:payload`: the hash is a hexadecimal HMAC-SHA1 of the payload, salted with
//! `django.contrib.sessions` and the name of the engine's class, without a dot between them. Django 3.x reads it
//! beside today's format, 4.0 no longer does. Source: `SessionBase._legacy_encode` of Django 3.1.
//!
//! ```
//! use django_sessions::crypto::SecretKeys;
//! use django_sessions::serializers::legacy::LegacyCodec;
//!
//! let codec = LegacyCodec::new(&SecretKeys::new("the site's SECRET_KEY"), "SessionStore");
//! let text = codec.encode(br#"{"cart":["tea"]}"#);
//! assert_eq!(codec.decode(&text)?, br#"{"cart":["tea"]}"#);
//! # Ok::<(), django_sessions::serializers::legacy::LegacyError>(())
//! ```

pub use crate::binascii::Base64Error;
use crate::binascii::{standard_decode, standard_encode};
use crate::crypto::{Algorithm, SaltedHmac, SecretKeys, constant_time_compare};

/// Why session data in the old format was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LegacyError {
    /// Not base64. Django: `binascii.Error`.
    #[error("the session data is not base64")]
    Base64(#[from] Base64Error),
    /// There is no colon between hash and payload. Django: `ValueError`.
    #[error("the session data carries no hash")]
    NoHash,
    /// What stands before the colon is not even text. Django: `UnicodeDecodeError`.
    #[error("the hash is not text")]
    HashNotText,
    /// No key gives this hash. Django: `SuspiciousSession`.
    #[error("the hash does not match: made with another key or class name, or changed since")]
    BadHash,
}

/// Reads and writes session data of Django before 3.1.
#[derive(Clone, Debug)]
pub struct LegacyCodec {
    /// The current key's first; never empty.
    macs: Vec<SaltedHmac>,
}

impl LegacyCodec {
    /// A codec for the engine class `class_name`, which is `SessionStore` in all of Django's engines.
    pub fn new(keys: &SecretKeys, class_name: &str) -> Self {
        let salt = format!("django.contrib.sessions{class_name}");
        Self { macs: keys.all().map(|key| SaltedHmac::new(salt.as_bytes(), key, Algorithm::Sha1)).collect() }
    }

    /// Signs what a serializer wrote.
    pub fn encode(&self, payload: &[u8]) -> String {
        let hash = self.macs[0].digest(payload).to_hex();
        standard_encode(&[hash.as_bytes(), b":", payload].concat())
    }

    /// The payload that [`encode`](Self::encode) was given.
    ///
    /// # Errors
    /// Each [`LegacyError`]; Django goes on with an empty session.
    pub fn decode(&self, session_data: &str) -> Result<Vec<u8>, LegacyError> {
        let decoded = standard_decode(session_data.as_bytes())?;
        let colon = decoded.iter().position(|byte| *byte == b':').ok_or(LegacyError::NoHash)?;
        let (hash, payload) = (&decoded[..colon], &decoded[colon + 1..]);
        str::from_utf8(hash).map_err(|_| LegacyError::HashNotText)?;
        let matches = |mac: &SaltedHmac| constant_time_compare(mac.digest(payload).to_hex().as_bytes(), hash);
        if self.macs.iter().any(matches) { Ok(payload.to_vec()) } else { Err(LegacyError::BadHash) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_by_name() {
        let codec = LegacyCodec::new(&SecretKeys::new("secret"), "SessionStore");
        let text = codec.encode(b"{}");
        assert_eq!(codec.decode(&text).unwrap(), b"{}");
        assert!(matches!(codec.decode("A"), Err(LegacyError::Base64(_))));
        assert!(matches!(codec.decode(&standard_encode(b"no colon")), Err(LegacyError::NoHash)));
        for other in [
            LegacyCodec::new(&SecretKeys::new("other"), "SessionStore"),
            LegacyCodec::new(&SecretKeys::new("secret"), "Other"),
        ] {
            assert!(matches!(other.decode(&text), Err(LegacyError::BadHash)));
        }
        let rotated = LegacyCodec::new(&SecretKeys::new("new").with_fallbacks(["secret"]), "SessionStore");
        assert_eq!(rotated.decode(&text).unwrap(), b"{}");
    }
}
