//! What a request says of its session, and when that is worth a write.

use std::net::IpAddr;

use super::agents::clean;
use super::{MAX_AGENT, MAX_KEY};
use crate::backends::SessionStore;
use crate::contrib::auth::{UserId, user_id_of};
use crate::session::{Session, SessionKey};
use crate::settings::PkType;

/// What a request says of the one who makes it, beside its session.
///
/// ```
/// use django_sessions::contrib::devices::Client;
/// use django_sessions::session::SessionKey;
///
/// let cookie = SessionKey::new("k2v0mbgj1z6d5kq0vw1cyq3uox5a2s9e");
/// let client = Client::new(cookie, "2001:db8::7".parse().ok(), b"curl/8.5.0");
/// assert!(!format!("{client:?}").contains("k2v0"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Client {
    cookie: Option<SessionKey>,
    ip: Option<IpAddr>,
    user_agent: String,
    logged_in: bool,
}

impl Client {
    /// `cookie` is the session key that the request brought, `user_agent` the header of that name as it came.
    pub fn new(cookie: Option<SessionKey>, ip: Option<IpAddr>, user_agent: &[u8]) -> Self {
        Self { cookie, ip, user_agent: clean(user_agent, MAX_AGENT), logged_in: false }
    }

    /// Says that somebody logged in with this request: what the session was before is over, and gets a row of its own.
    #[must_use]
    pub fn logged_in(mut self) -> Self {
        self.logged_in = true;
        self
    }

    /// What is kept of the header `User-Agent`: without control characters, and at most 255 characters.
    ///
    /// ```
    /// use django_sessions::contrib::devices::Client;
    ///
    /// assert_eq!(Client::new(None, None, b" curl/8.5.0\t").user_agent(), "curl/8.5.0");
    /// ```
    pub fn user_agent(&self) -> &str {
        &self.user_agent
    }

    #[cfg(feature = "_layer")]
    pub(crate) fn cookie(&self) -> Option<&SessionKey> {
        self.cookie.as_ref()
    }
}

/// What is to be written.
pub(crate) struct Visit {
    /// None: nobody is logged in any more.
    pub(super) user: Option<UserId>,
    pub(super) name: SessionKey,
    /// Another name of the same session, with hashed keys.
    pub(super) former: Vec<SessionKey>,
    /// Of the row that becomes this one.
    pub(super) old_names: Vec<SessionKey>,
    pub(super) logged_in: bool,
    ip: Option<IpAddr>,
    pub(super) user_agent: String,
}

impl Visit {
    pub(super) fn of<S>(
        store: &S,
        session: &Session,
        client: &Client,
        pk_type: PkType,
        is_due: impl FnOnce(&str, &UserId) -> bool,
    ) -> Option<Self>
    where
        S: SessionStore + ?Sized,
    {
        let old = client.cookie.as_ref().filter(|key| session.modified() && session.key() != Some(*key));
        let old = old.filter(|key| is_told_apart(key));
        let old_names = old.map(|key| names(store, key)).unwrap_or_default();
        let user = user_id_of(session).and_then(|id| UserId::parse(&id, pk_type));
        let (Some(user), Some(name)) = (user, stored_name(store, session)) else {
            return old_names.first().cloned().map(|name| Self::of_nobody(name, old_names));
        };
        // Also when the store has another name for it by now.
        let is_due = is_due(name.as_str(), &user);
        if !(is_due || !old_names.is_empty() || client.logged_in) {
            return None;
        }
        let all = session.key().map(|key| names(store, key)).unwrap_or_default();
        Some(Self {
            user: Some(user),
            former: all.into_iter().filter(|other| *other != name).collect(),
            name,
            old_names,
            logged_in: client.logged_in,
            ip: client.ip,
            user_agent: client.user_agent.clone(),
        })
    }

    fn of_nobody(name: SessionKey, old_names: Vec<SessionKey>) -> Self {
        let (former, user_agent) = (Vec::new(), String::new());
        Self { user: None, name, former, old_names, logged_in: false, ip: None, user_agent }
    }

    #[cfg(feature = "_layer")]
    pub(crate) fn is_of_nobody(&self) -> bool {
        self.user.is_none()
    }

    /// For a parameter: an empty one becomes NULL.
    pub(super) fn ip(&self) -> String {
        self.ip.map(|ip| ip.to_string()).unwrap_or_default()
    }
}

/// What the row keeps to find the session again, if that is on a server.
pub(super) fn stored_name<S>(store: &S, session: &Session) -> Option<SessionKey>
where
    S: SessionStore + ?Sized,
{
    let names = names(store, session.key()?);
    let found = session.stored_name().filter(|found| names.contains(found));
    found.or(names.first()).cloned()
}

/// Whether no database takes this for another key. A cookie is what a visitor wants it to be: with his own key in capitals,
/// a thief would take his row out of the list that MySQL keeps, and not be signed out with the others.
pub(super) fn is_told_apart(key: &SessionKey) -> bool {
    key.as_str().bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase())
}

/// Whether a row of that name is the session's: under another of its names, until its next visit.
pub(super) fn is_named<S>(store: &S, session: &Session, name: &SessionKey) -> bool
where
    S: SessionStore + ?Sized,
{
    session.key().is_some_and(|key| names(store, key).contains(name))
}

/// All names that a row may have for the session with that key; none for what no row can hold.
pub(super) fn names<S>(store: &S, key: &SessionKey) -> Vec<SessionKey>
where
    S: SessionStore + ?Sized,
{
    let fits = |name: &SessionKey| {
        let name = name.as_str();
        !name.contains('\0') && name.chars().nth(MAX_KEY).is_none()
    };
    store.stored_names(key).into_iter().filter(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mysql_takes_for_another_key_names_no_row() {
        let key = |text: &str| SessionKey::new(text).unwrap();
        assert!(is_told_apart(&key("k2v0mbgj1z6d5kq0vw1cyq3uox5a2s9e")));
        for other in
            ["K2v0mbgj1z6d5kq0", "\u{212a}2v0mbgj1z6d5kq0", "k2v0mbgj1z6d5kq0 ", "\0k2v0mbgj1z6d5kq0"]
        {
            assert!(!is_told_apart(&key(other)), "{other:?}");
        }
    }
}
