//! Signed values, as in `django.core.signing`.
//!
//! A signed value is `value:signature`, where the signature is the URL-safe base64 of
//! `HMAC(key = hash(salt + "signer" + SECRET_KEY), value)`. [`TimestampSigner`] puts the time of signing, in base 62,
//! between the two, and signs objects: `[.]base64(payload):timestamp:signature`, where a leading `.` says that the
//! payload is a zlib stream. Formats: `django/core/signing.py` of Django 3.1 to 6.1; before 3.1 the hash is SHA-1.
//!
//! ```
//! use django_sessions::crypto::SecretKeys;
//! use django_sessions::signing::{self, MaxAge, TimestampSigner};
//! use jiff::{SignedDuration, Timestamp};
//!
//! let keys = SecretKeys::new("today's key").with_fallbacks(["yesterday's key"]);
//! let signer = TimestampSigner::new(&keys, "shop.basket");
//! let signed_at: Timestamp = "2026-11-23T12:00:00Z".parse()?;
//!
//! let token = signing::dumps(&signer, &["tea", "jam"], true, signed_at)?;
//!
//! let a_minute_later = MaxAge::new(SignedDuration::from_mins(5), signed_at + SignedDuration::from_mins(1));
//! let basket: Vec<String> = signing::loads(&signer, &token, Some(a_minute_later))?;
//! assert_eq!(basket, ["tea", "jam"]);
//!
//! let an_hour_later = MaxAge::new(SignedDuration::from_mins(5), signed_at + SignedDuration::from_hours(1));
//! assert!(signing::loads::<Vec<String>>(&signer, &token, Some(an_hour_later)).unwrap_err().is_bad_signature());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod b62;
pub(crate) mod zlib;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::binascii::Base64Error;
use crate::binascii::{urlsafe_decode, urlsafe_encode, urlsafe_encode_onto};
use crate::crypto::{Algorithm, SaltedHmac, SecretKeys, constant_time_compare};
use crate::serializers::json;

/// What inflated data may measure unless [`TimestampSigner::max_inflated`] says otherwise: 16 MiB.
pub const DEFAULT_MAX_INFLATED: usize = 16 << 20;

/// Why a signed value was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SigningError {
    /// There is no separator, so there is no signature. Django: `BadSignature`.
    #[error("no separator found in the value, so it carries no signature")]
    NoSignature,
    /// No key, current or fallback, gives this signature. Django: `BadSignature`.
    #[error("the signature does not match: signed with another key, salt or algorithm, or changed since")]
    BadSignature,
    /// Signed longer ago than allowed. Django: `SignatureExpired`.
    #[error("the signature is {age:#} old, more than the allowed {max_age:#}")]
    SignatureExpired {
        /// Time since signing.
        age: SignedDuration,
        /// The most that was allowed.
        max_age: SignedDuration,
    },
    /// Properly signed, but without a time of signing. Django: `ValueError`.
    #[error("the signed value carries no time of signing")]
    NoTimestamp,
    /// Properly signed, but the time of signing is not a base 62 number, or one beyond all bounds. Django:
    /// `ValueError`, `IndexError` or `OverflowError`.
    #[error("the time of signing is not a number of seconds in base 62")]
    InvalidTimestamp,
    /// Properly signed, but not base64. Django: `binascii.Error`.
    #[error("the signed payload is not base64")]
    Base64(#[from] Base64Error),
    /// Properly signed, but not a whole zlib stream; holds zlib's word for it. Django: `zlib.error`.
    #[error("the signed payload does not inflate: {0}")]
    Inflate(&'static str),
    /// Properly signed, but it inflates to more than [`TimestampSigner::max_inflated`]. Django has no such limit.
    #[error("the signed payload inflates to more than {max_size} bytes; raise `max_inflated` to accept it")]
    TooLarge {
        /// The limit, in bytes.
        max_size: usize,
    },
    /// Properly signed, but not the JSON that was asked for. Django: `json.JSONDecodeError`, `RecursionError`.
    #[error("the signed payload is not the JSON that was asked for")]
    Json(#[from] json::Error),
}

impl SigningError {
    /// Whether Django raises `BadSignature` (or its subclass `SignatureExpired`) here: the value was tampered with,
    /// is of another origin, or is too old. Other errors say that its signer put something unreadable into it.
    pub fn is_bad_signature(&self) -> bool {
        matches!(self, Self::NoSignature | Self::BadSignature | Self::SignatureExpired { .. })
    }
}

/// A separator that could occur in what it separates (empty, or only letters, digits and ``[ \ ] ^ _ ` - =``).
#[derive(Debug, thiserror::Error)]
#[error("unsafe separator {0:?}: it cannot be empty or consist of only A-z0-9-_=")]
pub struct UnsafeSeparator(String);

/// Signs text, and checks signatures under the current key and its fallbacks (`django.core.signing.Signer`).
///
/// ```
/// use django_sessions::crypto::SecretKeys;
/// use django_sessions::signing::Signer;
///
/// let signer = Signer::new(&SecretKeys::new("the site's SECRET_KEY"), "shop.coupon");
/// let signed = signer.sign("SAVE10");
/// assert_eq!(signer.unsign(&signed)?, "SAVE10");
/// assert!(signer.unsign(&signed.replace("10", "90")).is_err());
/// # Ok::<(), django_sessions::signing::SigningError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Signer {
    /// The current key's first; never empty.
    macs: Vec<SaltedHmac>,
    separator: String,
}

impl Signer {
    /// A signer with SHA-256 and `:` between value and signature. Any two salts give unrelated signatures.
    pub fn new(keys: &SecretKeys, salt: &str) -> Self {
        Self::with_algorithm(keys, salt, Algorithm::Sha256)
    }

    /// A signer over another hash function.
    pub fn with_algorithm(keys: &SecretKeys, salt: &str, algorithm: Algorithm) -> Self {
        let salt = format!("{salt}signer");
        let macs = keys.all().map(|key| SaltedHmac::new(salt.as_bytes(), key, algorithm)).collect();
        Self { macs, separator: ":".to_owned() }
    }

    /// Puts `separator` between value and signature.
    ///
    /// # Errors
    /// [`UnsafeSeparator`] when it could occur in base64 text.
    pub fn with_separator(mut self, separator: &str) -> Result<Self, UnsafeSeparator> {
        // Django's `^[A-z0-9-_=]*$`: `A-z` spans the six characters between `Z` and `a` too.
        let is_safe = |c: char| !matches!(c, 'A'..='z' | '0'..='9' | '-' | '=');
        if !separator.contains(is_safe) {
            return Err(UnsafeSeparator(separator.to_owned()));
        }
        self.separator = separator.to_owned();
        Ok(self)
    }

    /// The signature of `value` under the current key, without `value` itself.
    pub fn signature(&self, value: &str) -> String {
        urlsafe_encode(self.macs[0].digest(value.as_bytes()).as_ref())
    }

    /// `value`, the separator, and the signature.
    pub fn sign(&self, value: &str) -> String {
        self.finish(value.to_owned())
    }

    /// `signed` with its separator and signature at its end.
    fn finish(&self, mut signed: String) -> String {
        let signature = self.macs[0].digest(signed.as_bytes());
        signed.push_str(&self.separator);
        urlsafe_encode_onto(&mut signed, signature.as_ref());
        signed
    }

    /// The value that [`sign`](Self::sign) was given.
    ///
    /// # Errors
    /// [`SigningError::NoSignature`] or [`SigningError::BadSignature`].
    pub fn unsign<'a>(&self, signed: &'a str) -> Result<&'a str, SigningError> {
        let (value, signature) = signed.rsplit_once(&self.separator).ok_or(SigningError::NoSignature)?;
        let matches = |mac: &SaltedHmac| {
            let expected = urlsafe_encode(mac.digest(value.as_bytes()).as_ref());
            constant_time_compare(expected.as_bytes(), signature.as_bytes())
        };
        if self.macs.iter().any(matches) { Ok(value) } else { Err(SigningError::BadSignature) }
    }
}

/// How old a signature may be, and what time it is now.
#[derive(Clone, Copy, Debug)]
pub struct MaxAge {
    max_age: SignedDuration,
    now: Timestamp,
}

impl MaxAge {
    /// A signature of exactly `max_age` is still good, as in Django.
    pub fn new(max_age: SignedDuration, now: Timestamp) -> Self {
        Self { max_age, now }
    }

    /// In seconds as `f64`, which is how Django subtracts and compares.
    fn check(self, signed_at: f64) -> Result<(), SigningError> {
        if signed_at.is_infinite() {
            return Err(SigningError::InvalidTimestamp);
        }
        let age = self.now.as_second() as f64 + f64::from(self.now.subsec_nanosecond()) / 1e9 - signed_at;
        if age > self.max_age.as_secs_f64() {
            let age = SignedDuration::try_from_secs_f64(age).unwrap_or(SignedDuration::MAX);
            return Err(SigningError::SignatureExpired { age, max_age: self.max_age });
        }
        Ok(())
    }
}

/// A [`Signer`] that signs the time with the value (`django.core.signing.TimestampSigner`).
#[derive(Clone, Debug)]
pub struct TimestampSigner {
    signer: Signer,
    max_inflated: usize,
}

impl From<Signer> for TimestampSigner {
    fn from(signer: Signer) -> Self {
        Self { signer, max_inflated: DEFAULT_MAX_INFLATED }
    }
}

impl TimestampSigner {
    /// A signer with SHA-256 and `:` between value, time and signature.
    pub fn new(keys: &SecretKeys, salt: &str) -> Self {
        Signer::new(keys, salt).into()
    }

    /// Sets how many bytes a compressed payload may inflate to; [`DEFAULT_MAX_INFLATED`] otherwise.
    #[must_use]
    pub fn max_inflated(mut self, bytes: usize) -> Self {
        self.max_inflated = bytes;
        self
    }

    /// `value`, the time in whole seconds, and the signature of both.
    pub fn sign(&self, value: &str, now: Timestamp) -> String {
        self.finish(value.to_owned(), now)
    }

    fn finish(&self, mut value: String, now: Timestamp) -> String {
        value.push_str(&self.signer.separator);
        // Whole seconds as Python's `int(time.time())`, which cuts towards zero like `as_second`.
        value.push_str(&b62::encode(now.as_second()));
        self.signer.finish(value)
    }

    /// The value that [`sign`](Self::sign) was given; its age is checked if `max_age` is given.
    ///
    /// # Errors
    /// As [`Signer::unsign`], and [`SigningError::SignatureExpired`], [`SigningError::NoTimestamp`] or
    /// [`SigningError::InvalidTimestamp`].
    pub fn unsign<'a>(&self, signed: &'a str, max_age: Option<MaxAge>) -> Result<&'a str, SigningError> {
        let (value, signed_at) = self.split(signed)?;
        if let Some(max_age) = max_age {
            max_age.check(signed_at)?;
        }
        Ok(value)
    }

    /// When a value was signed, to the second. The signature is checked first.
    ///
    /// # Errors
    /// As [`unsign`](Self::unsign), and [`SigningError::InvalidTimestamp`] also for a time beyond the calendar.
    pub fn signed_at(&self, signed: &str) -> Result<Timestamp, SigningError> {
        let (_, signed_at) = self.split(signed)?;
        Timestamp::from_second(signed_at as i64).map_err(|_| SigningError::InvalidTimestamp)
    }

    /// The value and its time of signing in seconds, under a good signature.
    fn split<'a>(&self, signed: &'a str) -> Result<(&'a str, f64), SigningError> {
        let timed = self.signer.unsign(signed)?;
        let (value, timestamp) =
            timed.rsplit_once(&self.signer.separator).ok_or(SigningError::NoTimestamp)?;
        let signed_at = b62::decode(timestamp).ok_or(SigningError::InvalidTimestamp)?;
        Ok((value, signed_at))
    }

    /// Signs what a serializer wrote; `compress` lets zlib have it if that makes it shorter
    /// (`Signer.sign_object` after the serializer).
    pub fn sign_object(&self, payload: &[u8], compress: bool, now: Timestamp) -> String {
        let compressed = if compress { zlib::compress_if_shorter(payload) } else { None };
        let content = compressed.as_deref().unwrap_or(payload);
        // The time and the signature take 51 characters, with separators.
        let mut text = String::with_capacity(content.len().div_ceil(3) * 4 + 64);
        if compressed.is_some() {
            text.push('.');
        }
        urlsafe_encode_onto(&mut text, content);
        self.finish(text, now)
    }

    /// The payload that [`sign_object`](Self::sign_object) was given (`Signer.unsign_object` before the serializer).
    ///
    /// # Errors
    /// As [`unsign`](Self::unsign), and [`SigningError::Base64`], [`SigningError::Inflate`] or
    /// [`SigningError::TooLarge`].
    pub fn unsign_object(&self, signed: &str, max_age: Option<MaxAge>) -> Result<Vec<u8>, SigningError> {
        let value = self.unsign(signed, max_age)?.as_bytes();
        match value.strip_prefix(b".") {
            Some(compressed) => zlib::decompress(&urlsafe_decode(compressed)?, self.max_inflated),
            None => Ok(urlsafe_decode(value)?),
        }
    }
}

/// Signs `value` as JSON (`django.core.signing.dumps`).
///
/// # Errors
/// When `value` has no JSON form, for example a map whose keys are sequences.
pub fn dumps<T>(
    signer: &TimestampSigner,
    value: &T,
    compress: bool,
    now: Timestamp,
) -> Result<String, json::Error>
where
    T: Serialize + ?Sized,
{
    Ok(signer.sign_object(&json::to_vec(value)?, compress, now))
}

/// Reads what [`dumps`] or Django's `signing.dumps` signed (`django.core.signing.loads`).
///
/// # Errors
/// Every [`SigningError`]; nothing is deserialized before the signature is found good.
pub fn loads<T: DeserializeOwned>(
    signer: &TimestampSigner,
    signed: &str,
    max_age: Option<MaxAge>,
) -> Result<T, SigningError> {
    Ok(json::from_slice(&signer.unsign_object(signed, max_age)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> TimestampSigner {
        TimestampSigner::new(&SecretKeys::new("secret"), "salt")
    }

    #[test]
    fn age_is_compared_as_django_does() {
        let signed_at = Timestamp::new(1_700_000_000, 900_000_000).unwrap();
        let token = signer().sign("value", signed_at);
        let unsign_at = |second, nanosecond| {
            let now = Timestamp::new(second, nanosecond).unwrap();
            signer().unsign(&token, Some(MaxAge::new(SignedDuration::from_secs(10), now))).map(str::to_owned)
        };
        assert_eq!(unsign_at(1_700_000_010, 0).unwrap(), "value");
        assert!(matches!(unsign_at(1_700_000_010, 1000), Err(SigningError::SignatureExpired { .. })));
        assert_eq!(unsign_at(1_600_000_000, 0).unwrap(), "value");
    }

    #[test]
    fn timestamps_beyond_every_calendar() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let max_age = Some(MaxAge::new(SignedDuration::from_secs(10), now));
        let unsign = |timestamp: &str| {
            signer().unsign(&signer().signer.sign(&format!("v:{timestamp}")), max_age).is_ok()
        };
        assert!(unsign("zzzzzzzzzzzzzzzz"));
        assert!(!unsign("-zzzzzzzzzzzzzzzz"));
        assert!(!unsign(&"z".repeat(200)));
    }

    #[test]
    fn signed_at() {
        let moment = Timestamp::new(1_700_000_000, 900_000_000).unwrap();
        let token = signer().sign("value", moment);
        assert_eq!(signer().signed_at(&token).unwrap().as_second(), 1_700_000_000);
        assert!(matches!(
            signer().signed_at(&token.replace("value", "Value")),
            Err(SigningError::BadSignature)
        ));
        let beyond = signer().signer.sign("value:zzzzzzzzzzzzzzzz");
        assert!(matches!(signer().signed_at(&beyond), Err(SigningError::InvalidTimestamp)));
    }

    #[test]
    fn separators() {
        let signer = || Signer::new(&SecretKeys::new("secret"), "salt");
        for unsafe_separator in ["", "-", "abc", "=", "_", "^"] {
            assert!(signer().with_separator(unsafe_separator).is_err(), "{unsafe_separator}");
        }
        let signer = signer().with_separator("::").unwrap();
        assert_eq!(signer.unsign(&signer.sign("a:b")).unwrap(), "a:b");
    }

    #[test]
    fn debug_shows_no_key() {
        let shown = format!("{:?} {:?}", signer(), SecretKeys::new("secret"));
        assert!(!shown.contains("secret") && !shown.contains("115"), "{shown}");
    }
}
