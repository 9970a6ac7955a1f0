//! A session: its key, its values and their expiry, as in `django.contrib.sessions.backends.base`.
//!
//! ```
//! use django_sessions::crypto::SecretKeys;
//! use django_sessions::session::{Codec, Session};
//! use django_sessions::settings::Settings;
//! use jiff::Timestamp;
//!
//! let codec = Codec::new(&Settings::new(SecretKeys::new("the site's SECRET_KEY")));
//! let mut session = Session::new();
//! session.insert("cart", &["tea", "jam"])?;
//!
//! // What the db engine keeps in the column `session_data`:
//! let session_data = codec.encode(&session, Timestamp::now())?;
//! let read = Session::with_data(None, codec.decode(&session_data)?);
//! assert_eq!(read.get::<Vec<String>>("cart")?.unwrap(), ["tea", "jam"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod data;
#[cfg(feature = "_async")]
#[allow(dead_code, reason = "for stores that merge, which are features")]
pub(crate) mod merge;

pub use data::{Data, Key, Value, ValueError};

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::{SignedDuration, Timestamp, civil, fmt::temporal::DateTimeParser, tz::TimeZone};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Digest;

use crate::crypto::{RandomError, get_random_string};
use crate::serializers::json::{self, RawValue};
use crate::settings::Settings;
use crate::signing::{SigningError, TimestampSigner};

/// The alphabet of session keys: one case only, since some file systems know no other.
pub const VALID_KEY_CHARS: &str = "abcdefghijklmnopqrstuvwxyz0123456789";

const EXPIRY_KEY: &str = "_session_expiry";
const TEST_COOKIE_NAME: &str = "testcookie";
const TEST_COOKIE_VALUE: &str = "worked";

/// A session key that Django would accept: at least 8 characters, of any kind.
///
/// Whoever knows it is logged in, so `Debug` shows the first characters of its SHA-256 in its place.
///
/// ```
/// use django_sessions::session::SessionKey;
///
/// assert!(SessionKey::new("short").is_none());
/// let key = SessionKey::new("jf8x0zq3a7k2").expect("8 characters or more");
/// assert_eq!(key.as_str(), "jf8x0zq3a7k2");
/// assert!(!format!("{key:?}").contains("jf8x"));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionKey(String);

impl SessionKey {
    /// `key` if it has at least 8 characters (`SessionBase._validate_session_key`), and is not what a store with
    /// [hashed keys](crate::settings::HashKeys) has in place of one: with that a thief of the store would come.
    pub fn new(key: impl Into<String>) -> Option<Self> {
        let key = Self(key.into());
        (key.0.chars().nth(7).is_some() && !key.is_stored_name()).then_some(key)
    }

    /// What a store with hashed keys knows a session by, to look at it there or to end it. Never from a visitor.
    pub fn from_stored_name(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Whether this is what a store with hashed keys has in place of a key: `sha256$...`, and without the `$` in files.
    pub fn is_stored_name(&self) -> bool {
        let is_base32 = |c: char| matches!(c, 'a'..='z' | '2'..='7');
        self.0
            .strip_prefix("sha256")
            .is_some_and(|rest| rest.starts_with('$') || (rest.len() == 32 && rest.chars().all(is_base32)))
    }

    /// A new key of 32 characters from the operating system's randomness.
    ///
    /// # Errors
    /// [`RandomError`] when there is none to be had.
    pub fn random() -> Result<Self, RandomError> {
        get_random_string(32, VALID_KEY_CHARS).map(Self)
    }

    /// The key itself, for a cookie or a store.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = sha2::Sha256::digest(self.0.as_bytes());
        write!(f, "SessionKey(sha256:{:02x}{:02x}{:02x}{:02x})", hash[0], hash[1], hash[2], hash[3])
    }
}

/// When a session ends.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Expiry {
    /// So many seconds after it was last saved.
    Seconds(i64),
    /// When the browser closes; in the store, after `SESSION_COOKIE_AGE` (Django's `set_expiry(0)`).
    BrowserClose,
    /// At a moment, whatever happens until then.
    At(Timestamp),
}

/// Why a value of a session could not be read or written.
///
/// ```
/// use django_sessions::session::Session;
///
/// let mut session = Session::new();
/// session.insert("name", "ada")?;
/// assert_eq!(session.get::<u8>("name").unwrap_err().to_string(), "session value \"name\"");
/// # Ok::<(), django_sessions::session::SessionError>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The value under `key` is not what was asked for, or has no form in the format of the store.
    #[error("session value {key:?}")]
    Value {
        /// The key of the value.
        key: String,
        /// What is wrong with it.
        source: ValueError,
    },
    /// `_session_expiry` is neither a number nor the ISO 8601 text of a moment. Django raises `ValueError`.
    #[error("_session_expiry is neither a number of seconds nor the ISO 8601 text of a moment")]
    Expiry,
}

/// A session, as `request.session` is in Django.
///
/// Values stay what the store holds until [`get`](Self::get) asks for them, and go back unchanged if nobody replaces them.
/// `accessed` and `modified` turn true where Django turns them. `Debug` shows keys, never values.
///
/// ```
/// use django_sessions::session::Session;
///
/// let mut session = Session::new();
/// assert!(!session.accessed() && !session.modified());
/// session.get::<u32>("visits")?;
/// assert!(session.accessed() && !session.modified());
/// session.insert("visits", &1)?;
/// assert!(session.modified());
/// # Ok::<(), django_sessions::session::SessionError>(())
/// ```
#[derive(Default)]
pub struct Session {
    key: Option<SessionKey>,
    data: Data,
    /// Reading sets it too, and a session must be `Sync`.
    accessed: AtomicBool,
    modified: bool,
    /// The keys of values that are no reason to store the session.
    lazy_defaults: Vec<String>,
    stored_name: Option<SessionKey>,
    /// What it was when it was loaded, if saves are merged.
    #[cfg(feature = "_async")]
    base: Option<Box<merge::Base>>,
}

impl Session {
    /// A session without a key, for a visitor who has none yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A session as a store holds it.
    pub fn with_data(key: Option<SessionKey>, data: impl Into<Data>) -> Self {
        Self { key, data: data.into(), ..Self::default() }
    }

    /// The key, once the session was stored.
    pub fn key(&self) -> Option<&SessionKey> {
        self.key.as_ref()
    }

    /// Gives the session another key, or takes it away. For stores: a request calls `cycle_key` or `flush` of its store.
    pub fn set_key(&mut self, key: Option<SessionKey>) {
        self.key = key;
        self.stored_name = None;
    }

    /// What the store knows this session by, if it is one with [hashed keys](crate::settings::HashKeys) that said so: it may
    /// have found the session under another name than it would give it today.
    ///
    /// ```
    /// # use django_sessions::session::{Session, SessionKey};
    /// let mut session = Session::new();
    /// session.set_stored_name(Some(SessionKey::from_stored_name("its name in the store")));
    /// assert_eq!(session.stored_name().unwrap().as_str(), "its name in the store");
    /// ```
    pub fn stored_name(&self) -> Option<&SessionKey> {
        self.stored_name.as_ref()
    }

    /// Says under which name the session was found or saved. For stores, after [`set_key`](Self::set_key), which forgets it.
    pub fn set_stored_name(&mut self, name: Option<SessionKey>) {
        self.stored_name = name;
    }

    /// All values, in order. Counts as access.
    pub fn data(&self) -> &Data {
        self.accessed.store(true, Ordering::Relaxed);
        &self.data
    }

    /// All values, for stores, which do not access them in Django's sense.
    #[cfg(feature = "signed_cookies")]
    pub(crate) fn values(&self) -> &Data {
        &self.data
    }

    /// All values as they are to be stored. Without `USE_TZ`, whose [`Settings::naive_time_zone`] is given, Django cannot
    /// read the end of a session that has a time zone.
    pub(crate) fn values_to_store(&self, naive: Option<&TimeZone>) -> Cow<'_, Data> {
        let end = naive.and_then(|zone| Some(self.end_with_time_zone()?.to_zoned(zone.clone())));
        let Some(end) = end else { return Cow::Borrowed(&self.data) };
        let text = end.strftime(isoformat_of(end.timestamp())).to_string();
        let mut data = self.data.clone();
        data.insert(EXPIRY_KEY, RawValue::new(&text).expect("text has a JSON form"));
        Cow::Owned(data)
    }

    fn end_with_time_zone(&self) -> Option<Timestamp> {
        let text: String = self.data.get(EXPIRY_KEY)?.to().ok()?;
        PARSER.parse_timestamp(&text).ok()
    }

    #[cfg(feature = "file")]
    pub(crate) fn into_data(self) -> Data {
        self.data
    }

    /// Whether any value was read or written (Django's `accessed`): the response then varies on the cookie.
    pub fn accessed(&self) -> bool {
        self.accessed.load(Ordering::Relaxed)
    }

    /// Whether any value was written (Django's `modified`): the session is to be saved then.
    pub fn modified(&self) -> bool {
        self.modified
    }

    /// Says that the session is to be saved whether a value was written or not.
    pub fn mark_modified(&mut self) {
        self.modified = true;
    }

    /// Whether there is neither a key nor a value (Django's `is_empty`). An empty session with a key is one. Values of
    /// [`set_default_lazily`](Self::set_default_lazily) do not count while nothing else was changed.
    pub fn is_empty(&self) -> bool {
        let is_lazy = |key: Cow<'_, str>| self.lazy_defaults.iter().any(|lazy| *lazy == key);
        self.key.is_none()
            && (self.data.is_empty() || !self.modified && self.data.iter().all(|(key, _)| is_lazy(key)))
    }

    /// The value under `key` as a `T`; `None` when there is none.
    ///
    /// ```
    /// # use django_sessions::session::Session;
    /// let mut session = Session::new();
    /// session.insert("visits", &3)?;
    /// assert_eq!(session.get::<u32>("visits")?, Some(3));
    /// assert_eq!(session.get::<u32>("orders")?, None);
    /// assert!(session.get::<String>("visits").is_err());
    /// # Ok::<(), django_sessions::session::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`SessionError::Value`] when the value is no `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, SessionError> {
        self.get_value(key).map(Value::to).transpose().map_err(|source| value_error(key, source))
    }

    /// The value under `key`, whatever it is, in the format that it was read in.
    pub fn get_value(&self, key: &str) -> Option<&Value> {
        self.data().get(key)
    }

    /// The JSON text of the value under `key`, whatever it is.
    ///
    /// # Errors
    /// [`SessionError::Value`] when the value has no JSON form, as some that Python pickled.
    pub fn get_raw(&self, key: &str) -> Result<Option<Cow<'_, RawValue>>, SessionError> {
        self.get_value(key).map(Value::to_json).transpose().map_err(|source| value_error(key, source))
    }

    /// Whether there is a value under `key`.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get_value(key).is_some()
    }

    /// The keys, in order, as [`Data::iter`] shows them.
    pub fn keys(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.data().iter().map(|(key, _)| key)
    }

    /// Puts `value` under `key`: in its place if the key is there, else at the end.
    ///
    /// # Errors
    /// [`SessionError::Value`] when `value` has no JSON form; the session is unchanged then.
    pub fn insert<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), SessionError> {
        let value = RawValue::new(value).map_err(|source| value_error(key, source.into()))?;
        self.insert_raw(key, value);
        Ok(())
    }

    /// Puts `value` under `key` if there is none, for as long as this request, or until the session is saved for another
    /// reason: alone it is none, so that visitors who leave nothing get no session. The Python engines have the same.
    ///
    /// ```
    /// # use django_sessions::session::Session;
    /// let mut session = Session::new();
    /// session.set_default_lazily("lang", "en")?;
    /// assert_eq!(session.get::<String>("lang")?.as_deref(), Some("en"));
    /// assert!(session.is_empty() && !session.modified(), "nothing to save");
    /// session.insert("cart", &[7])?;
    /// assert!(!session.is_empty() && session.modified(), "both are saved");
    /// # Ok::<(), django_sessions::session::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn set_default_lazily<T: Serialize + ?Sized>(
        &mut self,
        key: &str,
        value: &T,
    ) -> Result<(), SessionError> {
        if self.contains_key(key) {
            return Ok(());
        }
        let value = RawValue::new(value).map_err(|source| value_error(key, source.into()))?;
        if self.is_empty() {
            // After a flush, for instance. What was changed is gone and needs no saving.
            self.modified = false;
        }
        self.data.insert(key, value);
        self.lazy_defaults.push(key.to_owned());
        Ok(())
    }

    /// Puts JSON text under `key`. Returns the value that it replaces.
    pub fn insert_raw(&mut self, key: &str, value: RawValue) -> Option<Value> {
        self.insert_value(key, value)
    }

    /// Puts a value of any format under `key`. Returns the value that it replaces.
    ///
    /// A store converts it to its own format. What has no form there is refused when the session is saved.
    ///
    /// ```
    /// use django_sessions::serializers::pickle::Value;
    /// use django_sessions::session::Session;
    ///
    /// let mut session = Session::new();
    /// session.insert_value("total", Value::decimal("19.90")?); // for caches, which hold pickles
    /// assert_eq!(session.get::<String>("total")?.as_deref(), Some("19.90"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn insert_value(&mut self, key: &str, value: impl Into<Value>) -> Option<Value> {
        self.touch();
        self.data.insert(key, value)
    }

    /// Takes the value under `key` out. Sets `modified` only if there was one, as Django's `pop`.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        *self.accessed.get_mut() = true;
        let removed = self.data.remove(key);
        self.modified |= removed.is_some();
        removed
    }

    /// Takes all values out; the key stays. To end a session, use its store's `flush`.
    pub fn clear(&mut self) {
        self.touch();
        self.data = Data::new();
    }

    /// Sets a value by which a later request knows that the browser accepts cookies.
    pub fn set_test_cookie(&mut self) {
        self.insert(TEST_COOKIE_NAME, TEST_COOKIE_VALUE).expect("text has a JSON form");
    }

    /// Whether the value of [`set_test_cookie`](Self::set_test_cookie) came back.
    pub fn test_cookie_worked(&self) -> bool {
        matches!(self.get::<String>(TEST_COOKIE_NAME), Ok(Some(value)) if value == TEST_COOKIE_VALUE)
    }

    /// Takes the value of [`set_test_cookie`](Self::set_test_cookie) out.
    pub fn delete_test_cookie(&mut self) {
        self.remove(TEST_COOKIE_NAME);
    }

    /// Sets when this session ends; `None` leaves it to the settings. A moment is stored as UTC, in ISO 8601.
    ///
    /// ```
    /// # use django_sessions::{crypto::SecretKeys, session::{Expiry, Session}, settings::Settings};
    /// let settings = Settings::new(SecretKeys::new("the site's SECRET_KEY"));
    /// let now = "2026-11-23T12:00:00Z".parse()?;
    ///
    /// let mut session = Session::new();
    /// assert_eq!(session.expiry_age(&settings, now)?, 1_209_600, "SESSION_COOKIE_AGE");
    /// session.set_expiry(Some(Expiry::Seconds(300)));
    /// assert_eq!(session.expiry_age(&settings, now)?, 300);
    /// session.set_expiry(Some(Expiry::At("2026-11-24T12:00:00Z".parse()?)));
    /// assert_eq!(session.expiry_age(&settings, now)?, 86_400);
    /// session.set_expiry(Some(Expiry::BrowserClose));
    /// assert!(session.expires_at_browser_close(&settings)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_expiry(&mut self, expiry: Option<Expiry>) {
        let value = match expiry {
            None => {
                self.remove(EXPIRY_KEY);
                return;
            }
            Some(Expiry::Seconds(seconds)) => RawValue::new(&seconds),
            Some(Expiry::BrowserClose) => RawValue::new(&0),
            Some(Expiry::At(moment)) => RawValue::new(&isoformat(moment)),
        };
        self.insert_raw(EXPIRY_KEY, value.expect("numbers and text have a JSON form"));
    }

    /// What [`set_expiry`](Self::set_expiry) or Django's set. A moment without an offset is one in
    /// [`Settings::time_zone`].
    ///
    /// # Errors
    /// [`SessionError::Expiry`] when the value is of another kind.
    pub fn expiry(&self, settings: &Settings) -> Result<Option<Expiry>, SessionError> {
        let Some(value) = self.get_value(EXPIRY_KEY) else { return Ok(None) };
        // To Python, true and false are 1 and 0.
        if let Ok(seconds) = value.to::<f64>().or_else(|_| value.to::<bool>().map(f64::from)) {
            return seconds_of(seconds);
        }
        match value.to::<Option<String>>().map_err(|_| SessionError::Expiry)? {
            None => Ok(None),
            // Which a cache keeps as it is: to Python it is a number of seconds.
            Some(number) if value.is_decimal() => match number.parse::<f64>() {
                Ok(seconds) => seconds_of(seconds),
                Err(_) => Err(SessionError::Expiry),
            },
            Some(text) => parse_moment(&text, settings)
                .map(|moment| Some(Expiry::At(moment)))
                .ok_or(SessionError::Expiry),
        }
    }

    /// Seconds until the session ends, at `now` (Django's `get_expiry_age`). Negative once it is over.
    ///
    /// # Errors
    /// As [`expiry`](Self::expiry).
    pub fn expiry_age(&self, settings: &Settings, now: Timestamp) -> Result<i64, SessionError> {
        Ok(match self.expiry(settings)? {
            None | Some(Expiry::BrowserClose) => settings.session_cookie_age,
            Some(Expiry::Seconds(seconds)) => seconds,
            // Whole seconds downwards, as Python's `delta.days * 86400 + delta.seconds`.
            Some(Expiry::At(moment)) => {
                moment.duration_since(now).as_nanos().div_euclid(1_000_000_000) as i64
            }
        })
    }

    /// When the session ends if it is saved at `now` (Django's `get_expiry_date`).
    ///
    /// # Errors
    /// As [`expiry`](Self::expiry), also when the moment is beyond the calendar.
    pub fn expiry_date(&self, settings: &Settings, now: Timestamp) -> Result<Timestamp, SessionError> {
        let life = match self.expiry(settings)? {
            Some(Expiry::At(moment)) => return Ok(moment),
            // Here Django has a use for fractions of a second.
            Some(Expiry::Seconds(seconds)) => {
                let exact = self.get(EXPIRY_KEY).ok().flatten().unwrap_or(seconds as f64);
                SignedDuration::try_from_secs_f64(exact).map_err(|_| SessionError::Expiry)?
            }
            None | Some(Expiry::BrowserClose) => SignedDuration::from_secs(settings.session_cookie_age),
        };
        now.checked_add(life).map_err(|_| SessionError::Expiry)
    }

    /// Whether the cookie is to end with the browser (Django's `get_expire_at_browser_close`).
    ///
    /// # Errors
    /// As [`expiry`](Self::expiry).
    pub fn expires_at_browser_close(&self, settings: &Settings) -> Result<bool, SessionError> {
        Ok(match self.expiry(settings)? {
            None => settings.session_expire_at_browser_close,
            Some(expiry) => expiry == Expiry::BrowserClose,
        })
    }

    fn touch(&mut self) {
        *self.accessed.get_mut() = true;
        self.modified = true;
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("key", &self.key)
            .field("data", &self.data)
            .field("accessed", &self.accessed)
            .field("modified", &self.modified)
            .finish()
    }
}

fn value_error(key: &str, source: ValueError) -> SessionError {
    SessionError::Value { key: key.to_owned(), source }
}

/// Python's `datetime.isoformat()` of a moment in UTC: microseconds only if there are any.
fn isoformat(moment: Timestamp) -> String {
    format!("{}+00:00", moment.strftime(isoformat_of(moment)))
}

fn isoformat_of(moment: Timestamp) -> &'static str {
    let whole = moment.subsec_microsecond() == 0 && moment.subsec_millisecond() == 0;
    if whole { "%FT%T" } else { "%FT%T.%6f" }
}

fn seconds_of(seconds: f64) -> Result<Option<Expiry>, SessionError> {
    match seconds.is_finite() {
        true if seconds == 0.0 => Ok(Some(Expiry::BrowserClose)),
        // Fractions of a second are cut: no cookie can carry them.
        true => Ok(Some(Expiry::Seconds(seconds as i64))),
        false => Err(SessionError::Expiry),
    }
}

const PARSER: DateTimeParser = DateTimeParser::new();

fn parse_moment(text: &str, settings: &Settings) -> Option<Timestamp> {
    if let Ok(moment) = PARSER.parse_timestamp(text) {
        return Some(moment);
    }
    // Here a moment at the ends of Python's calendar, too, whatever its offset.
    let local = text.strip_suffix('Z').unwrap_or(text).parse().ok()?;
    Some(moment_of(local, &settings.time_zone))
}

/// The moment of a local time. Python's calendar ends a day after [`Timestamp::MAX`], which then is that moment.
pub(crate) fn moment_of(local: civil::DateTime, zone: &TimeZone) -> Timestamp {
    let end = if local.year() > 0 { Timestamp::MAX } else { Timestamp::MIN };
    local.to_zoned(zone.clone()).map_or(end, |moment| moment.timestamp())
}

/// Why the stored text of a session was refused. Django takes all of these for an empty session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The signature, the encoding or the compression is wrong.
    #[error("the session data is corrupted")]
    Signing(#[from] SigningError),
    /// The content is not a JSON object.
    #[error("the session data is not a JSON object")]
    Json(#[from] json::Error),
}

impl DecodeError {
    /// Whether Django logs "Session data corrupted" to `django.security.SuspiciousSession` here, as for every bad
    /// signature.
    pub fn is_suspicious(&self) -> bool {
        matches!(self, Self::Signing(error) if error.is_bad_signature())
    }
}

/// Reads and writes the signed text of sessions that the db and file engines store
/// (`SessionBase.encode` and `decode`).
#[derive(Clone, Debug)]
pub struct Codec {
    signer: TimestampSigner,
    naive_time_zone: Option<TimeZone>,
}

impl Codec {
    /// A codec with the keys, salt and limits of `settings`.
    pub fn new(settings: &Settings) -> Self {
        let signer = TimestampSigner::new(&settings.secret_keys, &settings.key_salt);
        let naive_time_zone = settings.naive_time_zone().cloned();
        Self { signer: signer.max_inflated(settings.max_inflated), naive_time_zone }
    }

    /// The session's values as signed text, compressed where that makes it shorter. `now` becomes part of it.
    ///
    /// # Errors
    /// [`SessionError::Value`] names the key of a value that has no JSON form.
    pub fn encode(&self, session: &Session, now: Timestamp) -> Result<String, SessionError> {
        let values = session.values_to_store(self.naive_time_zone.as_ref());
        Ok(self.signer.sign_object(&values.to_json()?, true, now))
    }

    /// When that text was signed, if its signature is good.
    #[allow(dead_code, reason = "for stores of signed text, which are features")]
    pub(crate) fn signed_at(&self, session_data: &str) -> Option<Timestamp> {
        self.signer.signed_at(session_data).ok()
    }

    /// The values in signed text; how long ago it was signed does not matter, the store knows when a session ends.
    ///
    /// # Errors
    /// Each [`DecodeError`] says what is wrong; Django goes on with an empty session.
    pub fn decode(&self, session_data: &str) -> Result<Data, DecodeError> {
        Ok(Data::from_json(&self.signer.unsign_object(session_data, None)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SecretKeys;
    use crate::serializers::json::Object;

    fn settings() -> Settings {
        Settings::new(SecretKeys::new("secret"))
    }

    fn session(expiry: &str) -> Session {
        Session::with_data(
            None,
            Object::parse(format!("{{\"_session_expiry\":{expiry}}}").as_bytes()).unwrap(),
        )
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn flags_as_django() {
        let flags = |act: fn(&mut Session)| {
            let mut session =
                Session::with_data(SessionKey::new("12345678"), Object::parse(b"{\"a\":1}").unwrap());
            act(&mut session);
            (session.accessed(), session.modified())
        };
        assert_eq!(flags(|_| {}), (false, false));
        assert_eq!(flags(|s| assert!(!s.is_empty())), (false, false));
        assert_eq!(flags(|s| drop(s.get::<u8>("a"))), (true, false));
        assert_eq!(flags(|s| assert!(!s.contains_key("b"))), (true, false));
        assert_eq!(flags(|s| s.insert("b", &1).unwrap()), (true, true));
        assert_eq!(flags(|s| assert!(s.remove("a").is_some())), (true, true));
        assert_eq!(flags(|s| assert!(s.remove("b").is_none())), (true, false));
        assert_eq!(flags(|s| s.clear()), (true, true));
        assert_eq!(flags(|s| s.set_expiry(None)), (true, false));
        assert_eq!(flags(|s| s.set_test_cookie()), (true, true));
    }

    #[test]
    fn lazy_defaults_are_no_reason_to_store() {
        let flags = |act: fn(&mut Session)| {
            let mut session = Session::new();
            session.set_default_lazily("lang", "en").unwrap();
            act(&mut session);
            (session.modified(), session.is_empty())
        };
        assert_eq!(flags(|_| {}), (false, true));
        assert_eq!(flags(|s| s.set_default_lazily("lang", "de").unwrap()), (false, true));
        assert_eq!(flags(|s| s.set_default_lazily("size", &3).unwrap()), (false, true));
        assert_eq!(flags(|s| s.insert("lang", "en").unwrap()), (true, false));
        assert_eq!(flags(|s| s.insert("b", &1).unwrap()), (true, false));
        assert_eq!(flags(|s| s.mark_modified()), (true, false));
        assert_eq!(flags(|s| s.set_key(SessionKey::new("12345678"))), (false, false));
        assert_eq!(flags(|s| drop(s.remove("lang"))), (true, true));
        let cleared = |s: &mut Session| {
            s.clear();
            s.set_default_lazily("lang", "en").unwrap();
        };
        assert_eq!(flags(cleared), (false, true));

        let mut session = Session::new();
        session.set_default_lazily("lang", "en").unwrap();
        session.set_default_lazily("lang", "de").unwrap();
        assert_eq!(session.get::<String>("lang").unwrap().as_deref(), Some("en"));
        assert!(session.accessed());
    }

    #[test]
    fn expiry_of_each_kind() {
        let (settings, now) = (settings(), at("2026-11-23T12:00:00.5Z"));
        let read = |expiry: &str| {
            let session = session(expiry);
            (
                session.expiry_age(&settings, now).unwrap(),
                session.expires_at_browser_close(&settings).unwrap(),
            )
        };
        assert_eq!(read("300"), (300, false));
        assert_eq!(read("300.9"), (300, false));
        assert_eq!(read("-5"), (-5, false));
        assert_eq!(read("0"), (1_209_600, true));
        assert_eq!(read("null"), (1_209_600, false));
        assert_eq!(read("true"), (1, false));
        assert_eq!(read("false"), (1_209_600, true));
        assert_eq!(read("\"2026-11-23T12:01:00+00:00\""), (59, false));
        assert_eq!(read("\"2026-11-23T14:01:00.500000+02:00\""), (60, false));
        assert_eq!(read("\"2026-11-23 12:01:00.500000\""), (60, false), "no offset: the settings' time zone");
        assert_eq!(read("\"2026-11-23T12:00:00+00:00\""), (-1, false), "downwards, as Python");
        for wrong in ["[]", "\"soon\"", "NaN", "\"\"", "{}"] {
            assert!(session(wrong).expiry(&settings).is_err(), "{wrong}");
        }
    }

    #[test]
    fn expiry_at_the_ends_of_pythons_calendar() {
        let mut settings = settings();
        for zone in ["UTC", "Pacific/Kiritimati", "America/Adak"] {
            settings.time_zone = TimeZone::get(zone).unwrap();
            let read = |text: &str| {
                session(&format!("\"{text}\"")).expiry_date(&settings, at("2026-11-23T12:00:00Z"))
            };
            for end in ["", "+00:00", "Z", "-12:00"] {
                let date = read(&format!("9999-12-31T23:59:59.999999{end}")).unwrap();
                assert_eq!(date, Timestamp::MAX, "{end:?} in {zone}");
            }
            for start in ["", "+00:00", "Z", "+14:00"] {
                let date = read(&format!("0001-01-01T00:00:00{start}")).unwrap();
                assert!(date < at("0001-01-02T00:00:00Z"), "{start:?} in {zone}");
            }
            assert!(read("9999-12-31T24:60:00").is_err(), "no time at all");
        }
    }

    #[test]
    fn expiry_is_written_as_python_writes_it() {
        let written = |expiry| {
            let mut session = Session::new();
            session.set_expiry(Some(expiry));
            String::from_utf8(session.get_raw("_session_expiry").unwrap().unwrap().as_bytes().to_vec())
                .unwrap()
        };
        assert_eq!(written(Expiry::Seconds(60)), "60");
        assert_eq!(written(Expiry::BrowserClose), "0");
        assert_eq!(written(Expiry::At(at("2026-11-23T12:00:00Z"))), "\"2026-11-23T12:00:00+00:00\"");
        assert_eq!(
            written(Expiry::At(at("2026-11-23T12:00:00.25Z"))),
            "\"2026-11-23T12:00:00.250000+00:00\""
        );
    }

    #[test]
    fn keys() {
        assert!(SessionKey::new("1234567").is_none());
        assert!(SessionKey::new("ääääääää").is_some());
        let key = SessionKey::random().unwrap();
        assert_eq!(key.as_str().len(), 32);
        assert!(!format!("{key:?}").contains(key.as_str()));
    }

    #[test]
    fn debug_shows_no_value() {
        let mut session = Session::new();
        session.insert("_auth_user_hash", "hush").unwrap();
        assert!(!format!("{session:?}").contains("hush"));
    }
}
