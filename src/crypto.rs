//! Keyed hashes, constant-time comparison and random strings, as in `django.utils.crypto`.
//!
//! ```
//! use django_sessions::crypto::{Algorithm, constant_time_compare, salted_hmac};
//!
//! let mac = salted_hmac(b"my.salt", b"value", b"secret key", Algorithm::Sha256);
//! assert_eq!(mac.to_hex(), "999f5b23e6197d3fd629a2e27b1e509e28c9cb40d663a1191c5daff1ba96220d");
//! assert!(constant_time_compare(mac.as_ref(), mac.as_ref()));
//! ```

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

/// The hash function under a signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// SHA-256: every signature since Django 3.1.
    #[default]
    Sha256,
    /// SHA-1: Django before 3.1, and 3.1 with `DEFAULT_HASHING_ALGORITHM = "sha1"`.
    #[cfg(feature = "legacy")]
    Sha1,
}

/// A message authentication code of 20 (SHA-1) or 32 (SHA-256) bytes.
///
/// `Debug` shows its length only, and there is no `==`: compare with [`constant_time_compare`].
#[derive(Clone, Copy)]
pub struct Digest {
    bytes: [u8; 32],
    len: usize,
}

impl Digest {
    fn new(mac: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes[..mac.len()].copy_from_slice(mac);
        Self { bytes, len: mac.len() }
    }

    /// Lower-case hexadecimal text, as Python's `hexdigest()`.
    pub fn to_hex(&self) -> String {
        hex(self.as_ref())
    }
}

/// Lower-case hexadecimal text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl AsRef<[u8]> for Digest {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({} bytes)", self.len)
    }
}

/// `salted_hmac` with the key derived and scheduled once, for use with many values.
///
/// The HMAC key is `hash(key_salt + secret)`, so that one secret gives unrelated keys for each salt
/// (`django.utils.crypto.salted_hmac`). Cheap to clone; `Debug` shows nothing of the key.
#[derive(Clone)]
pub struct SaltedHmac(Keyed);

#[derive(Clone)]
enum Keyed {
    Sha256(Hmac<Sha256>),
    #[cfg(feature = "legacy")]
    Sha1(Hmac<sha1::Sha1>),
}

impl SaltedHmac {
    /// Derives the key for `key_salt` from `secret`.
    pub fn new(key_salt: &[u8], secret: &[u8], algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => {
                let key = Sha256::new().chain_update(key_salt).chain_update(secret).finalize();
                Keyed::Sha256(Hmac::new_from_slice(&key).expect("HMAC takes a key of any length"))
            }
            #[cfg(feature = "legacy")]
            Algorithm::Sha1 => {
                let key = sha1::Sha1::new().chain_update(key_salt).chain_update(secret).finalize();
                Keyed::Sha1(Hmac::new_from_slice(&key).expect("HMAC takes a key of any length"))
            }
        })
    }

    /// The MAC of `value`.
    pub fn digest(&self, value: &[u8]) -> Digest {
        match &self.0 {
            Keyed::Sha256(keyed) => Digest::new(&keyed.clone().chain_update(value).finalize().into_bytes()),
            #[cfg(feature = "legacy")]
            Keyed::Sha1(keyed) => Digest::new(&keyed.clone().chain_update(value).finalize().into_bytes()),
        }
    }
}

impl fmt::Debug for SaltedHmac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaltedHmac(..)")
    }
}

/// The HMAC of `value` under a key made of `key_salt` and `secret` (`django.utils.crypto.salted_hmac`).
pub fn salted_hmac(key_salt: &[u8], value: &[u8], secret: &[u8], algorithm: Algorithm) -> Digest {
    SaltedHmac::new(key_salt, secret, algorithm).digest(value)
}

/// Whether `a` and `b` are equal, in a time that depends on their lengths only.
pub fn constant_time_compare(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Letters and digits: the alphabet of Django's `get_random_string` by default.
pub const RANDOM_STRING_CHARS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct RandomError(#[source] pub(crate) getrandom::Error);

/// `length` characters drawn evenly from `allowed_chars`, from the operating system's randomness.
///
/// ```
/// use django_sessions::crypto::{RANDOM_STRING_CHARS, get_random_string};
/// assert_eq!(get_random_string(32, RANDOM_STRING_CHARS)?.len(), 32);
/// # Ok::<(), django_sessions::crypto::RandomError>(())
/// ```
///
/// # Errors
/// [`RandomError`] when the operating system has no randomness to give.
///
/// # Panics
/// When `allowed_chars` is empty or has more than 256 characters.
pub fn get_random_string(length: usize, allowed_chars: &str) -> Result<String, RandomError> {
    let chars: Vec<char> = allowed_chars.chars().collect();
    assert!((1..=256).contains(&chars.len()), "allowed_chars needs 1 to 256 characters");
    // Bytes at or beyond the last whole multiple are thrown away: a plain remainder would favour the first characters.
    let fair = 256 - 256 % chars.len();
    let mut text = String::with_capacity(length);
    let mut left = length;
    let mut pool = [0u8; 64];
    while left > 0 {
        getrandom::fill(&mut pool).map_err(RandomError)?;
        for byte in pool.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < fair).take(left) {
            text.push(chars[byte % chars.len()]);
            left -= 1;
        }
    }
    Ok(text)
}

/// A `SECRET_KEY` and its `SECRET_KEY_FALLBACKS`: the first signs, all of them verify.
///
/// `Debug` shows how many there are and nothing else.
///
/// ```
/// use django_sessions::crypto::SecretKeys;
///
/// // SECRET_KEY = "today's key"; SECRET_KEY_FALLBACKS = ["yesterday's key"]
/// let keys = SecretKeys::new("today's key").with_fallbacks(["yesterday's key"]);
/// assert_eq!(keys.current(), b"today's key");
/// assert!(!format!("{keys:?}").contains("today"));
/// ```
#[derive(Clone)]
pub struct SecretKeys {
    keys: Vec<Box<[u8]>>,
}

impl SecretKeys {
    /// A `SECRET_KEY` without fallbacks. Text is taken as UTF-8, as Django does.
    pub fn new(secret_key: impl AsRef<[u8]>) -> Self {
        Self { keys: vec![secret_key.as_ref().into()] }
    }

    /// Adds `SECRET_KEY_FALLBACKS`, newest first.
    #[must_use]
    pub fn with_fallbacks<K: AsRef<[u8]>>(mut self, fallbacks: impl IntoIterator<Item = K>) -> Self {
        self.keys.extend(fallbacks.into_iter().map(|key| key.as_ref().into()));
        self
    }

    /// The key that signs.
    pub fn current(&self) -> &[u8] {
        &self.keys[0]
    }

    /// The keys that only verify.
    pub fn fallbacks(&self) -> impl Iterator<Item = &[u8]> {
        self.keys[1..].iter().map(AsRef::as_ref)
    }

    /// Other keys made of these: those of cookies that are not sessions (`django.core.signing.get_cookie_signer`).
    pub(crate) fn prefixed(&self, prefix: &[u8]) -> Self {
        Self { keys: self.keys.iter().map(|key| [prefix, key].concat().into()).collect() }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.iter().map(AsRef::as_ref)
    }
}

impl fmt::Debug for SecretKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKeys(1 current, {} fallbacks)", self.keys.len() - 1)
    }
}
