//! Sessions within the cookie itself, as Django's `django.contrib.sessions.backends.signed_cookies` keeps them (feature
//! `signed_cookies`).
//!
//! The cookie is the session, signed and not encrypted: its owner can read every value, and no server can end it. A
//! logout takes the cookie away from the browser; a copy of it is good for `SESSION_COOKIE_AGE`.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use django_sessions::backends::{SessionStore, signed_cookies::SignedCookieStore};
//! use django_sessions::crypto::SecretKeys;
//! use django_sessions::session::Session;
//! use django_sessions::settings::Settings;
//!
//! let store = SignedCookieStore::new(Settings::new(SecretKeys::new("the site's SECRET_KEY")));
//! let mut session = Session::new();
//! session.insert("cart", &["tea"])?;
//! store.save(&mut session).await?;
//!
//! let cookie = session.key().expect("a saved session has a key");
//! assert_eq!(store.load(cookie).await?.get::<Vec<String>>("cart")?.unwrap(), ["tea"]);
//! # Ok(()) }
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::{SessionStore, StoreError};
use crate::session::{Data, DecodeError, Session, SessionError, SessionKey};
use crate::settings::Settings;
use crate::signing::{MaxAge, SigningError, TimestampSigner};

/// What the cookies are signed with. Unlike [`Settings::key_salt`] it does not depend on the name of the engine's class.
pub const SALT: &str = "django.contrib.sessions.backends.signed_cookies";

/// Bytes of a cookie, its name and `=` counted, that every browser keeps.
///
/// RFC 6265bis and most browsers allow 4096 bytes of name and value together, some count the `=` too, and Safari has been
/// seen to stop at 4093. A browser says nothing when it drops a cookie: to the site, the session is as it was before.
pub const MAX_COOKIE: usize = 4093;

/// The signed_cookies engine: the key of a session is the session.
///
/// It is saved under a new key each time, which the response must hand to the browser: [`Session::modified`] says so.
/// Nothing is kept here, so nothing is ever deleted or found ([`exists`](SessionStore::exists) is always `false`), and a
/// key cannot be chosen ([`insert`](SessionStore::insert) and [`update`](SessionStore::update) are refused).
///
/// A cookie that is longer than [`MAX_COOKIE`] is logged as a warning with its largest keys, once a store for each
/// doubling of the size. Cheap to clone; clones share that.
#[derive(Clone)]
pub struct SignedCookieStore {
    settings: Arc<Settings>,
    signer: TimestampSigner,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// A bit for each size that was warned of.
    warned: Arc<AtomicU32>,
}

impl fmt::Debug for SignedCookieStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedCookieStore").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl SignedCookieStore {
    /// A store with the keys and the `SESSION_COOKIE_AGE` of these settings.
    pub fn new(settings: impl Into<Arc<Settings>>) -> Self {
        let settings = settings.into();
        let signer = TimestampSigner::new(&settings.secret_keys, SALT).max_inflated(settings.max_inflated);
        Self { settings, signer, clock: Arc::new(Timestamp::now), warned: Arc::default() }
    }

    /// Takes the time from `clock` in place of the system's, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The settings that this store was made with.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// How many bytes of the browser's limit the cookie of `key` takes: those of its name, the `=` and its value. More
    /// than [`MAX_COOKIE`] may be dropped without a word.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use django_sessions::backends::{SessionStore, signed_cookies::{MAX_COOKIE, SignedCookieStore}};
    /// # use django_sessions::session::Session;
    /// # let settings = django_sessions::settings::Settings::new(django_sessions::crypto::SecretKeys::new("secret"));
    /// let store = SignedCookieStore::new(settings);
    /// let mut session = Session::new();
    /// store.save(&mut session).await?;
    /// assert!(store.cookie_size(session.key().unwrap()) < MAX_COOKIE);
    /// # Ok(()) }
    /// ```
    pub fn cookie_size(&self, key: &SessionKey) -> usize {
        self.settings.session_cookie_name.len() + "=".len() + key.as_str().len()
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    fn sign(&self, session: &Session) -> Result<SessionKey, SessionError> {
        let payload = session.values_to_store(self.settings.naive_time_zone()).to_json()?;
        let signed = self.signer.sign_object(&payload, true, self.now());
        let key = SessionKey::new(signed).expect("a signature alone has more than 8 characters");
        let size = self.cookie_size(&key);
        if size > MAX_COOKIE && self.is_first_of(size) {
            tracing::warn!(
                size,
                "The session cookie is {size} bytes, and browsers drop one of more than {MAX_COOKIE}: the user's \
                 session does not change. Largest keys, before compression: {}.",
                largest_keys(session.values())
            );
        }
        Ok(key)
    }

    /// Whether no cookie as large as this was warned of: up to twice the limit, up to four times, and so on. A site
    /// where every cookie is too large fills no log.
    fn is_first_of(&self, size: usize) -> bool {
        let bit = 1 << (size / MAX_COOKIE).ilog2().min(31);
        self.warned.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    fn read(&self, key: &SessionKey) -> Result<Data, DecodeError> {
        let max_age = SignedDuration::from_secs(self.settings.session_cookie_age);
        let payload = self.signer.unsign_object(key.as_str(), Some(MaxAge::new(max_age, self.now())))?;
        Ok(Data::from_json(&payload)?)
    }
}

/// The names and sizes of the three largest values.
fn largest_keys(data: &Data) -> String {
    let size = |value: &crate::session::Value| value.to_json().map_or(0, |text| text.as_bytes().len());
    let mut sizes: Vec<_> = data.iter().map(|(key, value)| (size(value), key)).collect();
    sizes.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    let shown = sizes.iter().take(3).map(|(size, key)| {
        let start: String = key.chars().take(50).collect();
        format!("{start:?} ({size} bytes)")
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// No operation waits for anything, so none can be cancelled halfway.
#[async_trait]
impl SessionStore for SignedCookieStore {
    fn stored_names(&self, _key: &SessionKey) -> Vec<SessionKey> {
        Vec::new()
    }

    /// `false`, as in Django: what a browser holds, nobody knows.
    async fn exists(&self, _: &SessionKey) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// [`StoreError::KeyNotChosen`].
    async fn insert(&self, _: &SessionKey, _: &Session) -> Result<bool, StoreError> {
        Err(StoreError::KeyNotChosen)
    }

    /// [`StoreError::KeyNotChosen`].
    async fn update(&self, _: &SessionKey, _: &Session) -> Result<bool, StoreError> {
        Err(StoreError::KeyNotChosen)
    }

    /// The session in the cookie. A cookie older than `SESSION_COOKIE_AGE`, whatever expiry is in it, gives a session
    /// without a key.
    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn load(&self, key: &SessionKey) -> Result<Session, StoreError> {
        match self.read(key) {
            Ok(data) => Ok(Session::with_data(Some(key.clone()), data)),
            Err(DecodeError::Signing(SigningError::SignatureExpired { .. })) => Ok(Session::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// As in Django, a cookie that is over, forged or unreadable is an empty session under the same key that is to be
    /// saved, which then replaces the cookie. Django logs none of these.
    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn load_or_empty(&self, key: &SessionKey) -> Result<Session, StoreError> {
        Ok(match self.read(key) {
            Ok(data) => Session::with_data(Some(key.clone()), data),
            Err(_) => {
                let mut session = Session::with_data(Some(key.clone()), Data::new());
                session.mark_modified();
                session
            }
        })
    }

    /// Nothing is here to be deleted: the response takes the cookie away.
    async fn delete(&self, _: &SessionKey) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// 0: browsers drop what is over.
    async fn clear_expired(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// Signs the session, which is its key from then on. Django's `create` leaves the signing to a later `save`.
    #[tracing::instrument(level = "debug", skip_all)]
    async fn create(&self, session: &mut Session) -> Result<(), StoreError> {
        session.set_key(Some(self.sign(session)?));
        session.mark_modified();
        Ok(())
    }

    /// As [`create`](Self::create): every save makes a new key.
    async fn save(&self, session: &mut Session) -> Result<(), StoreError> {
        self.create(session).await
    }

    /// As [`create`](Self::create). The old cookie stays good for whoever has a copy.
    async fn cycle_key(&self, session: &mut Session) -> Result<(), StoreError> {
        self.create(session).await
    }
}
