//! What a session was when it was loaded, so that a save can keep what others have changed since
//! ([`Settings::merge`](crate::settings::Settings::merge)).

use super::{Data, Session};

/// How often a save is tried, each time after somebody else was quicker: so often all of them together get on.
#[cfg(feature = "_cache")]
pub(crate) const TRIES: u32 = 200;

const USER: &str = "_auth_user_id";

/// A value as [`Cache::look`](crate::caches::Cache::look) found it, for [`Cache::swap`](crate::caches::Cache::swap).
///
/// ```
/// # #[cfg(feature = "locmem")] {
/// use django_sessions::caches::Seen;
///
/// let seen = Seen::from(b"1".to_vec());
/// assert_eq!(seen.value, b"1");
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(unreachable_pub, reason = "for caches, which are features")]
pub struct Seen {
    /// What is stored.
    pub value: Vec<u8>,
    /// memcached's, by which it knows the value again.
    pub(crate) version: Option<Version>,
}

/// memcached numbers all values of a server, whatever their key, and each write anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) server: usize,
    pub(crate) number: u64,
}

impl From<Vec<u8>> for Seen {
    fn from(value: Vec<u8>) -> Self {
        Self { value, version: None }
    }
}

/// What a session was when it was loaded or last saved.
#[derive(Clone)]
pub(crate) struct Base {
    data: Data,
    /// As the store has it; nothing if only the values are known.
    stored: Option<Seen>,
    /// Of cached_db: what its cache has.
    cached: Option<Seen>,
}

impl Session {
    /// Remembers the values of now, and how they are stored.
    pub(crate) fn note(&mut self, stored: Option<Seen>) {
        let cached = self.base.take().and_then(|base| base.cached);
        self.base = Some(Box::new(Base { data: self.data.clone(), stored, cached }));
    }

    /// Remembers the values of now, which are stored elsewhere than where they will be saved.
    pub(crate) fn note_values(&mut self) {
        self.base = Some(Box::new(Base { data: self.data.clone(), stored: None, cached: None }));
    }

    /// Remembers what the cache of cached_db has.
    #[cfg(feature = "_sql")]
    pub(crate) fn note_cached(&mut self, cached: Option<Seen>) {
        if let Some(base) = &mut self.base {
            base.cached = cached;
        }
    }

    #[cfg(feature = "_sql")]
    pub(crate) fn cached(&self) -> Option<&Seen> {
        self.base.as_ref()?.cached.as_ref()
    }

    /// Whether there is something to compare a save with.
    pub(crate) fn has_base(&self) -> bool {
        self.base.is_some()
    }

    pub(crate) fn stored(&self) -> Option<&Seen> {
        self.base.as_ref()?.stored.as_ref()
    }

    /// The values of this session and what they were, to be saved elsewhere.
    pub(crate) fn draft(&self) -> Self {
        Self { data: self.data.clone(), base: self.base.clone(), ..Self::default() }
    }

    /// Takes over what was saved.
    #[cfg(feature = "file")]
    pub(crate) fn take_draft(&mut self, draft: Self) {
        self.data = draft.data;
        self.base = draft.base;
    }

    /// [`put_over`](Self::put_over) what is stored so.
    pub(crate) fn rebase(&mut self, now: Data, stored: Seen) -> bool {
        let goes_on = self.put_over(now);
        if let (true, Some(base)) = (goes_on, &mut self.base) {
            base.stored = Some(stored);
        }
        goes_on
    }

    /// The session without our changes.
    pub(crate) fn as_loaded(&self) -> Option<Self> {
        let base = self.base.clone()?;
        Some(Self { key: self.key.clone(), data: base.data.clone(), base: Some(base), ..Self::default() })
    }

    /// [`put_over`](Self::put_over) what this has become.
    pub(crate) fn catch_up(&mut self, loaded: Self) {
        self.put_over(loaded.data);
    }

    /// The session becomes what is stored now, with our changes over it. `false` if it is another's now, or nobody's: a
    /// logout wins.
    fn put_over(&mut self, now: Data) -> bool {
        let Some(base) = &mut self.base else { return false };
        let user = now.get(USER);
        let is_ours = same(user, self.data.get(USER));
        if !is_ours && !same(user, base.data.get(USER)) {
            return false;
        }
        // Else we log in or out under the same key: nothing of the one before is kept.
        if is_ours {
            self.data.keep_changes_of_others(&base.data, &now);
        }
        base.data = now;
        base.stored = None;
        true
    }
}

fn same(one: Option<&super::Value>, other: Option<&super::Value>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.is_same(other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// Waits before another try; not at all where few are in the way, nor before each second try. Returns whether it did:
/// then what is there is not what it was.
#[cfg(feature = "_cache")]
pub(crate) async fn pause(attempt: u32) -> bool {
    use std::hash::{BuildHasher, Hasher, RandomState};

    let waits = attempt > 10 && attempt % 2 == 1;
    if waits {
        let random = RandomState::new().build_hasher().finish();
        let longest = (u64::from(attempt) * 500).min(30_000);
        tokio::time::sleep(std::time::Duration::from_micros(random % longest)).await;
    }
    waits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serializers::json::Object;
    use crate::serializers::pickle::{Limits, loads};

    fn data(text: &str) -> Data {
        Object::parse(text.as_bytes()).unwrap().into()
    }

    /// A session that was loaded as the first, became the second, and meets the third.
    fn met(base: &str, mine: &str, now: &str) -> Option<String> {
        let mut session = Session::with_data(None, data(base));
        session.note(None);
        session.data = data(mine);
        let goes_on = session.rebase(data(now), Vec::new().into());
        goes_on.then(|| String::from_utf8(session.data.to_json().unwrap()).unwrap())
    }

    #[test]
    fn what_others_changed_stays_where_we_changed_nothing() {
        let found = |base, mine, now| met(base, mine, now).unwrap();
        assert_eq!(found("{}", r#"{"a":1}"#, r#"{"b":2}"#), r#"{"a":1,"b":2}"#);
        assert_eq!(found(r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":3}"#), r#"{"a":2}"#, "the later wins");
        assert_eq!(found(r#"{"a":1}"#, r#"{"a":1}"#, r#"{"a":3}"#), r#"{"a":3}"#);
        assert_eq!(
            found(r#"{"a":1,"b":2}"#, r#"{"b":2}"#, r#"{"a":1,"b":3}"#),
            r#"{"b":3}"#,
            "we removed it"
        );
        assert_eq!(found(r#"{"a":1,"b":2}"#, r#"{"a":1,"b":3}"#, r#"{"b":2}"#), r#"{"b":3}"#, "they did");
        let nested = (r#"{"a":{"x":[1]}}"#, r#"{"a":{"x":[1,2]}}"#, r#"{"a":{"x":[1]},"b":0}"#);
        assert_eq!(found(nested.0, nested.1, nested.2), r#"{"a":{"x":[1,2]},"b":0}"#);
        assert_eq!(found(r#"{"a":1}"#, "{}", r#"{"a":1,"b":2}"#), r#"{"b":2}"#, "clear()");
    }

    #[test]
    fn a_logout_wins_and_so_does_another_user() {
        let (nobody, ada, bob) = ("{}", r#"{"_auth_user_id":"1"}"#, r#"{"_auth_user_id":"2"}"#);
        assert_eq!(met(ada, r#"{"_auth_user_id":"1","a":1}"#, nobody), None);
        assert_eq!(met(ada, ada, bob), None);
        assert_eq!(met(nobody, r#"{"a":1}"#, ada), None);
        // We log in: nothing of before is kept.
        assert_eq!(met(nobody, ada, r#"{"cart":1}"#).as_deref(), Some(ada));
        assert_eq!(met(ada, nobody, r#"{"_auth_user_id":"1","x":1}"#).as_deref(), Some(nobody));
    }

    #[test]
    fn values_of_pickles_and_keys_that_are_no_text() {
        let load = |text: &[u8]| Data::from_pickle(&loads(text, &Limits::default()).unwrap()).unwrap();
        // {7: 'x', 'b': b'1'}, and {7: 'y', 'b': b'1', 'c': 1}
        let before = load(b"\x80\x04}(K\x07\x8c\x01x\x8c\x01bC\x011u.");
        let now = load(b"\x80\x04}(K\x07\x8c\x01y\x8c\x01bC\x011\x8c\x01cK\x01u.");
        let mut session = Session::with_data(None, before.clone());
        session.note(None);
        session.insert("mine", &1).unwrap();
        assert!(session.rebase(now.clone(), Vec::new().into()));
        let shown = |session: &Session| {
            session
                .data
                .iter()
                .map(|(key, value)| (key.into_owned(), value.to::<String>().ok()))
                .collect::<Vec<_>>()
        };
        let key = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
        assert_eq!(shown(&session)[0], key("7", Some("y")));
        assert_eq!(session.keys().collect::<Vec<_>>(), ["7", "b", "mine", "c"]);

        let mut session = Session::with_data(None, before);
        session.note(None);
        session.clear();
        assert!(session.rebase(now, Vec::new().into()));
        assert_eq!(session.keys().collect::<Vec<_>>(), ["c"]);
    }
}
