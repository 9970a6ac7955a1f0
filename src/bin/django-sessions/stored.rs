//! A session as it is shown.

use django_sessions::backends::manage::StoredSession;
use django_sessions::contrib::auth::SESSION_KEY;
use django_sessions::session::{Data, Expiry, Session, SessionKey};
use django_sessions::settings::Settings;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::report::sentence;

/// What a session is called here: who reads it cannot use it.
pub(crate) fn id(name: &SessionKey) -> String {
    Sha256::digest(name.as_str()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Shown {
    pub(crate) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    pub(crate) user: Option<String>,
    #[serde(serialize_with = "moment")]
    pub(crate) saved: Option<Timestamp>,
    #[serde(serialize_with = "moment")]
    pub(crate) ends: Option<Timestamp>,
    pub(crate) is_over: bool,
    /// Bytes, as stored.
    pub(crate) size: u64,
    /// How many values it has.
    pub(crate) values: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

fn moment<S: serde::Serializer>(moment: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    moment.map(|moment| moment.to_string()).serialize(serializer)
}

impl Shown {
    pub(crate) fn new(stored: &StoredSession, settings: &Settings, now: Timestamp) -> Self {
        let data = stored.data.as_ref();
        Self {
            id: id(&stored.name),
            key: None,
            user: data.ok().and_then(user_of),
            saved: stored.saved.or_else(|| saved(data.ok()?, stored.ends?, settings)),
            ends: stored.ends,
            is_over: stored.ends.is_some_and(|ends| ends <= now),
            size: stored.size,
            values: data.map_or(0, Data::len),
            error: data.err().map(|error| sentence(error)),
        }
    }
}

/// The primary key of the user whom the session says to be logged in.
pub(crate) fn user_of(data: &Data) -> Option<String> {
    let id = data.get(SESSION_KEY)?;
    id.to::<String>().or_else(|_| id.to::<i64>().map(|id| id.to_string())).ok()
}

/// Caches do not say when a session was saved; the time that it has left does, if it was given no other.
fn saved(data: &Data, ends: Timestamp, settings: &Settings) -> Option<Timestamp> {
    let session = Session::with_data(None, data.clone());
    let life = match session.expiry(settings).ok()? {
        None | Some(Expiry::BrowserClose) => settings.session_cookie_age,
        Some(Expiry::Seconds(seconds)) => seconds,
        _ => return None,
    };
    ends.checked_sub(SignedDuration::from_secs(life)).ok()
}
