//! One-time notices, `django.contrib.messages`: what a page leaves for the next one to show.
//!
//! [`Messages`] reads what Django stored in the session or in the cookie `messages`, takes new ones, and stores what was
//! not shown, so that a page of either side shows the other's.
//!
//! ```
//! use django_sessions::contrib::messages::{CookieUpdate, Level, Messages, Storage};
//! use django_sessions::crypto::SecretKeys;
//! use django_sessions::session::Session;
//! # let now = "2026-11-23T12:00:00Z".parse()?;
//!
//! let keys = SecretKeys::new("the site's SECRET_KEY");
//! let mut session = Session::new();
//!
//! // A request that says something:
//! let mut messages = Messages::load(Storage::Session, &keys, None, &session);
//! messages.add(Level::SUCCESS, "Your order is placed.");
//! assert_eq!(messages.store(&keys, &mut session, now)?, CookieUpdate::None);
//!
//! // The next one, of Django or of Rust, shows it, once:
//! let mut messages = Messages::load(Storage::Session, &keys, None, &session);
//! let shown: Vec<String> = messages.take().iter().map(|message| message.text.clone()).collect();
//! assert_eq!(shown, ["Your order is placed."]);
//! messages.store(&keys, &mut session, now)?;
//! assert!(!session.contains_key("_messages"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::str::FromStr;

use jiff::Timestamp;

use crate::crypto::SecretKeys;
use crate::serializers::json::{self, RawValue};
use crate::session::{Session, SessionError};
use crate::signing::TimestampSigner;

/// Name of the cookie.
pub const COOKIE_NAME: &str = "messages";

/// Session value that holds the messages.
pub const SESSION_KEY: &str = "_messages";

/// What the value of the cookie may measure, in bytes; browsers keep 4 KiB for all that a cookie is.
pub const MAX_COOKIE_SIZE: usize = 2048;

const KEY_SALT: &str = "django.contrib.messages";
/// By this Django knows a message in JSON.
const MESSAGE_KEY: &str = "__json_message";
/// The last entry of a cookie that could not take them all: the rest is in the session.
const NOT_FINISHED: &str = "__messagesnotfinished__";

/// How important a message is: one of Django's five, or a number of your own between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(pub i64);

impl Level {
    /// For developers; not recorded unless [`Messages::set_level`] says so.
    pub const DEBUG: Self = Self(10);
    /// The level from which on messages are recorded.
    pub const INFO: Self = Self(20);
    /// Something worked.
    pub const SUCCESS: Self = Self(25);
    /// Something may go wrong.
    pub const WARNING: Self = Self(30);
    /// Something went wrong.
    pub const ERROR: Self = Self(40);

    /// The name for style sheets: `success` and so on; nothing for a level of your own.
    pub fn tag(self) -> &'static str {
        match self {
            Self::DEBUG => "debug",
            Self::INFO => "info",
            Self::SUCCESS => "success",
            Self::WARNING => "warning",
            Self::ERROR => "error",
            _ => "",
        }
    }
}

/// One notice.
///
/// ```
/// use django_sessions::contrib::messages::{Level, Message};
///
/// let message = Message {
///     level: Level::WARNING,
///     text: "<b>Last one</b>".to_owned(),
///     extra_tags: Some("stock".to_owned()),
///     is_safe: true,
/// };
/// assert_eq!(message.tags(), "stock warning");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// How important it is.
    pub level: Level,
    /// What it says.
    pub text: String,
    /// Names of your own for style sheets, separated by spaces.
    pub extra_tags: Option<String>,
    /// Whether the text is HTML (Django's `mark_safe`). If not, escape it.
    pub is_safe: bool,
}

impl Message {
    /// All names for style sheets: its own, then its level's.
    pub fn tags(&self) -> String {
        let tags = [self.extra_tags.as_deref().unwrap_or_default(), self.level.tag()];
        tags.into_iter().filter(|tag| !tag.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// `["__json_message", safe, level, text, extra tags]`; the last only if there are any, empty ones included.
    fn to_json(&self, separator: &str) -> Result<String, json::Error> {
        let mut parts = vec![
            to_text(MESSAGE_KEY)?,
            u8::from(self.is_safe).to_string(),
            self.level.0.to_string(),
            to_text(&self.text)?,
        ];
        if let Some(tags) = &self.extra_tags {
            parts.push(to_text(tags)?);
        }
        Ok(format!("[{}]", parts.join(separator)))
    }

    fn from_json(entry: &RawValue) -> Option<Self> {
        let parts: Vec<RawValue> = entry.to().ok()?;
        let [key, is_safe, level, text, rest @ ..] = &parts[..] else { return None };
        if key.to::<String>().ok()? != MESSAGE_KEY {
            return None;
        }
        Some(Self {
            is_safe: !matches!(is_safe.as_bytes(), b"0" | b"false" | b"null" | b"\"\"" | b"0.0"),
            level: Level(level.to().ok()?),
            text: text.to().ok()?,
            extra_tags: rest.first().and_then(|tags| tags.to().ok()).flatten(),
        })
    }
}

fn to_text(text: &str) -> Result<String, json::Error> {
    json::to_vec(text).map(|bytes| bytes.into_iter().map(char::from).collect())
}

/// `MESSAGE_STORAGE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// In the cookie as far as they fit, the rest in the session: Django's default.
    #[default]
    Fallback,
    /// In the signed cookie `messages`; the oldest are dropped when they do not fit.
    Cookie,
    /// In the session.
    Session,
}

impl FromStr for Storage {
    type Err = UnknownStorage;

    /// One of Django's three, by the path of its class.
    ///
    /// ```
    /// use django_sessions::contrib::messages::Storage;
    /// use django_sessions::settings::MessagesSettings;
    ///
    /// let settings = MessagesSettings::default();
    /// assert_eq!(settings.storage.parse(), Ok(Storage::Fallback));
    /// assert!("shop.messages.Storage".parse::<Storage>().is_err());
    /// ```
    fn from_str(path: &str) -> Result<Self, UnknownStorage> {
        match path.strip_prefix("django.contrib.messages.storage.") {
            Some("fallback.FallbackStorage") => Ok(Self::Fallback),
            Some("cookie.CookieStorage") => Ok(Self::Cookie),
            Some("session.SessionStorage") => Ok(Self::Session),
            _ => Err(UnknownStorage(path.to_owned())),
        }
    }
}

/// `MESSAGE_STORAGE` is none of Django's three.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "MESSAGE_STORAGE is {0}, which this crate does not know: say which of Django's `Storage`s it works like"
)]
pub struct UnknownStorage(String);

/// What is to become of the cookie `messages`, which has the session cookie's domain, Secure, HttpOnly and SameSite,
/// the path `/`, and no age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CookieUpdate {
    /// It stays as it is.
    None,
    /// It gets this value.
    Set(String),
    /// It is deleted.
    Delete,
}

/// The messages of one request.
#[derive(Debug)]
pub struct Messages {
    storage: Storage,
    level: Level,
    loaded: Vec<Message>,
    queued: Vec<Message>,
    is_used: bool,
    has_new: bool,
    /// Where something was found, so that it is taken away again.
    in_cookie: bool,
    in_session: bool,
}

impl Messages {
    /// The messages that were left for this request. `cookie` is the value of the cookie `messages`.
    ///
    /// What cannot be read, or is not signed with one of `keys`, is no message, as in Django. Reading the session counts
    /// as access: call this when a page asks for its messages, not for every request.
    pub fn load(storage: Storage, keys: &SecretKeys, cookie: Option<&str>, session: &Session) -> Self {
        let mut messages = Self::new(storage);
        if messages.load_cookie(keys, cookie) {
            messages.load_session(session);
        }
        messages
    }

    /// None, until what was left is loaded.
    pub(crate) fn new(storage: Storage) -> Self {
        Self {
            storage,
            level: Level::INFO,
            loaded: Vec::new(),
            queued: Vec::new(),
            is_used: false,
            has_new: false,
            in_cookie: false,
            in_session: false,
        }
    }

    /// Loads what is in the cookie, and says whether there may be more, in the session.
    pub(crate) fn load_cookie(&mut self, keys: &SecretKeys, cookie: Option<&str>) -> bool {
        match self.storage {
            Storage::Session => true,
            Storage::Cookie => {
                self.read_cookie(keys, cookie);
                false
            }
            Storage::Fallback => !self.read_cookie(keys, cookie),
        }
    }

    /// Whether the cookie held all there is. Without a readable cookie nothing else is looked at.
    fn read_cookie(&mut self, keys: &SecretKeys, cookie: Option<&str>) -> bool {
        let Some(cookie) = cookie.filter(|cookie| !cookie.is_empty()) else { return true };
        let Some(mut entries) = unsign(keys, cookie) else {
            // Only Django's `CookieStorage` takes a cookie away that is worth nothing.
            self.is_used |= self.storage == Storage::Cookie;
            return true;
        };
        let is_finished =
            !entries.last().is_some_and(|last| last.to::<String>().is_ok_and(|text| text == NOT_FINISHED));
        if !is_finished {
            entries.pop();
        }
        self.in_cookie = !entries.is_empty();
        self.loaded.extend(entries.iter().filter_map(Message::from_json));
        is_finished
    }

    pub(crate) fn load_session(&mut self, session: &Session) {
        let Ok(Some(text)) = session.get::<String>(SESSION_KEY) else { return };
        let Ok(entries) = json::from_slice::<Vec<RawValue>>(text.as_bytes()) else { return };
        self.in_session = !entries.is_empty();
        self.loaded.extend(entries.iter().filter_map(Message::from_json));
    }

    /// Records only messages of this level and above (`messages.set_level`); [`Level::INFO`] by default.
    pub fn set_level(&mut self, level: Level) {
        self.level = level;
    }

    /// Leaves a message for the next page that shows them, this one included.
    pub fn add(&mut self, level: Level, text: impl Into<String>) {
        self.push(Message { level, text: text.into(), extra_tags: Some(String::new()), is_safe: false });
    }

    /// Leaves a message made by hand: with tags, or with HTML.
    pub fn push(&mut self, message: Message) {
        if !message.text.is_empty() && message.level >= self.level {
            self.has_new = true;
            self.queued.push(message);
        }
    }

    /// How many there are, shown or not.
    pub fn len(&self) -> usize {
        self.loaded.len() + self.queued.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All messages, to be shown now: they are not stored again.
    pub fn take(&mut self) -> &[Message] {
        self.is_used = true;
        self.loaded.append(&mut self.queued);
        &self.loaded
    }

    /// Stores what was not taken. Changes the session only if there is something to change.
    ///
    /// # Errors
    /// When a message has no JSON form; nothing is stored then.
    pub fn store(
        self,
        keys: &SecretKeys,
        session: &mut Session,
        now: Timestamp,
    ) -> Result<CookieUpdate, SessionError> {
        let Stored { cookie, for_session } = self.store_in_cookie(keys, now)?;
        if let Some(messages) = for_session {
            store_in_session(&messages, session)?;
        }
        Ok(cookie)
    }

    /// Whether there is anything to store: messages were added, or taken.
    #[cfg(feature = "_layer")]
    pub(crate) fn is_due(&self) -> bool {
        self.is_used || self.has_new
    }

    /// Stores what the cookie takes, and says what the session is to hold.
    pub(crate) fn store_in_cookie(self, keys: &SecretKeys, now: Timestamp) -> Result<Stored, SessionError> {
        let messages = match (self.is_used, self.has_new) {
            (true, _) => self.queued,
            (false, true) => [self.loaded, self.queued].concat(),
            (false, false) => return Ok(Stored { cookie: CookieUpdate::None, for_session: None }),
        };
        match self.storage {
            Storage::Session => Ok(Stored { cookie: CookieUpdate::None, for_session: Some(messages) }),
            Storage::Cookie => {
                let (cookie, _) = sign(&messages, keys, now, Keep::Newest).map_err(no_json)?;
                Ok(Stored { cookie, for_session: None })
            }
            Storage::Fallback => {
                let (cookie, unstored) = match messages.is_empty() && !self.in_cookie {
                    true => (CookieUpdate::None, &messages[..]),
                    false => sign(&messages, keys, now, Keep::Oldest).map_err(no_json)?,
                };
                let for_session = (!unstored.is_empty() || self.in_session).then(|| unstored.to_vec());
                Ok(Stored { cookie, for_session })
            }
        }
    }
}

/// Where messages are to go.
pub(crate) struct Stored {
    pub(crate) cookie: CookieUpdate,
    /// What the session holds from now on; if `None`, it is left alone.
    pub(crate) for_session: Option<Vec<Message>>,
}

fn no_json(source: json::Error) -> SessionError {
    SessionError::Value { key: SESSION_KEY.to_owned(), source: source.into() }
}

pub(crate) fn store_in_session(messages: &[Message], session: &mut Session) -> Result<(), SessionError> {
    if messages.is_empty() {
        session.remove(SESSION_KEY);
        return Ok(());
    }
    let entries: Vec<String> =
        messages.iter().map(|message| message.to_json(", ")).collect::<Result<_, _>>().map_err(no_json)?;
    let text = RawValue::new(&format!("[{}]", entries.join(", "))).map_err(no_json)?;
    session.insert_raw(SESSION_KEY, text);
    Ok(())
}

/// Which messages are kept when the cookie cannot take them all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Newest,
    Oldest,
}

/// The cookie for these messages, and those that did not fit into it.
fn sign<'a>(
    messages: &'a [Message],
    keys: &SecretKeys,
    now: Timestamp,
    keep: Keep,
) -> Result<(CookieUpdate, &'a [Message]), json::Error> {
    if messages.is_empty() {
        return Ok((CookieUpdate::Delete, messages));
    }
    let signer = signer(keys);
    let mut entries: Vec<String> =
        messages.iter().map(|message| message.to_json(",")).collect::<Result<_, _>>()?;
    let signed =
        |entries: &[String]| signer.sign_object(format!("[{}]", entries.join(",")).as_bytes(), true, now);
    let value = signed(&entries);
    if value.len() <= MAX_COOKIE_SIZE {
        return Ok((CookieUpdate::Set(value), &[]));
    }
    entries.push(to_text(NOT_FINISHED)?);
    let with_sentinel = |range: std::ops::Range<usize>| {
        let end = messages.len();
        signed(&[&entries[range], &entries[end..]].concat())
    };
    // A bisection as Django's, which takes a longer part to be a larger one.
    let (mut low, mut high) = (0, messages.len());
    while low < high {
        let middle = (low + high) / 2;
        let part = if keep == Keep::Newest { middle..messages.len() } else { 0..middle + 1 };
        match (with_sentinel(part).len() > MAX_COOKIE_SIZE, keep) {
            (true, Keep::Newest) | (false, Keep::Oldest) => low = middle + 1,
            _ => high = middle,
        }
    }
    let (kept, unstored) = match keep {
        Keep::Newest => (low..messages.len(), &messages[..low]),
        Keep::Oldest => (0..low, &messages[low..]),
    };
    Ok((CookieUpdate::Set(with_sentinel(kept)), unstored))
}

fn signer(keys: &SecretKeys) -> TimestampSigner {
    TimestampSigner::new(&keys.prefixed(b"django.http.cookies"), KEY_SALT)
}

fn unsign(keys: &SecretKeys, cookie: &str) -> Option<Vec<RawValue>> {
    json::from_slice(&signer(keys).unsign_object(cookie, None).ok()?).ok()
}
