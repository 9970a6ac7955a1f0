//! What every store must do, whatever it keeps sessions in.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use django_sessions::backends::{SessionStore, StoreError};
use django_sessions::crypto::SecretKeys;
use django_sessions::serializers::json::RawValue;
use django_sessions::session::{Expiry, Session, SessionKey};
use django_sessions::settings::SessionSettings;
use jiff::{SignedDuration, Timestamp};

pub(crate) fn settings() -> SessionSettings {
    SessionSettings::new(SecretKeys::new("conformance-test-key"))
}

/// A clock that stands still until the test moves it.
#[derive(Clone)]
pub(crate) struct Clock(Arc<Mutex<Timestamp>>);

impl Default for Clock {
    fn default() -> Self {
        let clock = Self(Arc::default());
        clock.set("2026-11-23T12:00:00.123456Z");
        clock
    }
}

impl Clock {
    pub(crate) fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    pub(crate) fn set(&self, moment: &str) {
        *self.0.lock().unwrap() = moment.parse().unwrap();
    }

    pub(crate) fn advance(&self, seconds: i64) {
        *self.0.lock().unwrap() += SignedDuration::from_secs(seconds);
    }
}

/// Runs every case over an empty store, which is empty afterwards.
pub(crate) async fn run<S: SessionStore + 'static>(store: Arc<S>, clock: Clock) {
    a_saved_session_is_loaded(&*store).await;
    an_unknown_key_gives_a_session_without_one(&*store).await;
    an_empty_session_is_one(&*store).await;
    a_taken_key_is_refused(&*store).await;
    a_deleted_session_stays_deleted(&*store).await;
    untouched_values_are_kept(&*store).await;
    a_cycled_key_keeps_the_values_and_ends_the_old_key(&*store).await;
    a_flush_leaves_nothing(&*store).await;
    odd_keys_find_nothing(&*store).await;
    sessions_end_on_time(&*store, &clock).await;
    only_what_is_over_is_cleared(&*store, &clock).await;
    a_large_session_is_kept(&*store).await;
    nobody_gets_the_session_of_another(store).await;
}

async fn saved(store: &dyn SessionStore, name: &str) -> (Session, SessionKey) {
    let mut session = Session::new();
    session.insert("name", name).unwrap();
    store.save(&mut session).await.unwrap();
    let key = session.key().expect("a saved session has a key").clone();
    (session, key)
}

async fn name(store: &dyn SessionStore, key: &SessionKey) -> Option<String> {
    store.load(key).await.unwrap().get("name").unwrap()
}

async fn a_saved_session_is_loaded(store: &dyn SessionStore) {
    let (mut session, key) = saved(store, "first").await;
    assert!(store.exists(&key).await.unwrap());
    let loaded = store.load(&key).await.unwrap();
    assert_eq!(loaded.key(), Some(&key));
    assert!(!loaded.accessed() && !loaded.modified(), "loading touches nothing");
    assert_eq!(loaded.get::<String>("name").unwrap().as_deref(), Some("first"));

    session.insert("name", "second").unwrap();
    store.save(&mut session).await.unwrap();
    assert_eq!(session.key(), Some(&key), "a save keeps the key");
    assert_eq!(name(store, &key).await.as_deref(), Some("second"));
    store.delete(&key).await.unwrap();
}

async fn an_unknown_key_gives_a_session_without_one(store: &dyn SessionStore) {
    let key = SessionKey::random().unwrap();
    assert!(!store.exists(&key).await.unwrap());
    let session = store.load(&key).await.unwrap();
    assert!(session.key().is_none() && session.is_empty(), "a key that a visitor made up is not adopted");
    store.delete(&key).await.unwrap();
}

async fn an_empty_session_is_one(store: &dyn SessionStore) {
    let mut session = Session::new();
    store.save(&mut session).await.unwrap();
    let key = session.key().unwrap().clone();
    let loaded = store.load(&key).await.unwrap();
    assert_eq!(loaded.key(), Some(&key));
    assert!(loaded.data().is_empty() && !loaded.is_empty());
    store.delete(&key).await.unwrap();
}

async fn a_taken_key_is_refused(store: &dyn SessionStore) {
    let (_, key) = saved(store, "owner").await;
    let mut thief = Session::new();
    thief.insert("name", "thief").unwrap();
    assert!(!store.insert(&key, &thief).await.unwrap());
    assert_eq!(name(store, &key).await.as_deref(), Some("owner"));
    store.delete(&key).await.unwrap();
    assert!(store.insert(&key, &thief).await.unwrap(), "free again");
    store.delete(&key).await.unwrap();
}

async fn a_deleted_session_stays_deleted(store: &dyn SessionStore) {
    let (mut session, key) = saved(store, "gone").await;
    store.delete(&key).await.unwrap();
    assert!(matches!(store.save(&mut session).await, Err(StoreError::Deleted)));
    assert!(!store.update(&key, &session).await.unwrap());
    assert!(!store.exists(&key).await.unwrap(), "a logout stays a logout");
    store.delete(&key).await.unwrap();
}

async fn untouched_values_are_kept(store: &dyn SessionStore) {
    let odd = [
        ("nan", "NaN"),
        ("big", "1180591620717411303424"),
        ("float", "1.0"),
        ("exponent", "1e+16"),
        ("surrogate", "\"\\ud800\""),
        ("nested", "{\"b\":[1,{\"a\":-Infinity}],\"a\":null}"),
        ("text", "\"\\u00e9\\ud83e\\udd80\""),
    ];
    let mut session = Session::new();
    for (key, text) in odd {
        session.insert_raw(key, RawValue::from_text(text).unwrap());
    }
    store.save(&mut session).await.unwrap();
    let key = session.key().unwrap().clone();
    let mut loaded = store.load(&key).await.unwrap();
    loaded.insert("added", &true).unwrap();
    store.save(&mut loaded).await.unwrap();
    let loaded = store.load(&key).await.unwrap();
    for (key, text) in odd {
        assert_eq!(loaded.get_raw(key).unwrap().as_bytes(), text.as_bytes(), "{key}");
    }
    let order: Vec<_> = loaded.keys().map(|key| key.into_owned()).collect();
    assert_eq!(order, ["nan", "big", "float", "exponent", "surrogate", "nested", "text", "added"]);
    store.delete(&key).await.unwrap();
}

async fn a_cycled_key_keeps_the_values_and_ends_the_old_key(store: &dyn SessionStore) {
    let (mut session, old) = saved(store, "cycled").await;
    store.cycle_key(&mut session).await.unwrap();
    let new = session.key().unwrap().clone();
    assert_ne!(new, old);
    assert!(!store.exists(&old).await.unwrap());
    assert_eq!(name(store, &new).await.as_deref(), Some("cycled"));
    assert!(session.modified(), "so that the new key is sent to the browser");
    store.delete(&new).await.unwrap();

    let mut fresh = Session::new();
    store.cycle_key(&mut fresh).await.unwrap();
    store.delete(&fresh.key().unwrap().clone()).await.unwrap();
}

async fn a_flush_leaves_nothing(store: &dyn SessionStore) {
    let (mut session, key) = saved(store, "flushed").await;
    store.flush(&mut session).await.unwrap();
    assert!(session.is_empty() && session.key().is_none() && session.modified());
    assert!(!store.exists(&key).await.unwrap());
    assert!(store.load(&key).await.unwrap().key().is_none());
    store.flush(&mut session).await.unwrap();
}

async fn odd_keys_find_nothing(store: &dyn SessionStore) {
    for key in
        ["'; DROP TABLE django_session; --", "../../../etc/passwd", "ключ-ключ-ключ", "%%%%%%%%", "        "]
    {
        let session = store.load(&SessionKey::new(key).unwrap()).await.unwrap();
        assert!(session.key().is_none(), "{key}");
    }
}

async fn sessions_end_on_time(store: &dyn SessionStore, clock: &Clock) {
    let in_a_minute = clock.now() + SignedDuration::from_secs(60);
    for (expiry, life) in [
        (Some(Expiry::Seconds(60)), 60),
        (Some(Expiry::At(in_a_minute)), 60),
        (Some(Expiry::BrowserClose), 1_209_600),
        (None, 1_209_600),
    ] {
        let start = clock.now();
        let expiry = match expiry {
            Some(Expiry::At(_)) => Some(Expiry::At(start + SignedDuration::from_secs(60))),
            other => other,
        };
        let mut session = Session::new();
        session.set_expiry(expiry);
        store.save(&mut session).await.unwrap();
        let key = session.key().unwrap().clone();
        clock.advance(life - 1);
        assert!(store.load(&key).await.unwrap().key().is_some(), "{expiry:?} lives");
        clock.advance(1);
        assert!(store.load(&key).await.unwrap().key().is_none(), "{expiry:?} is over");
        store.delete(&key).await.unwrap();
    }
}

async fn only_what_is_over_is_cleared(store: &dyn SessionStore, clock: &Clock) {
    let mut keys = Vec::new();
    for life in [10, 20, 1000] {
        let mut session = Session::new();
        session.set_expiry(Some(Expiry::Seconds(life)));
        store.save(&mut session).await.unwrap();
        keys.push(session.key().unwrap().clone());
    }
    clock.advance(100);
    assert_eq!(store.clear_expired().await.unwrap(), 2);
    assert_eq!(store.clear_expired().await.unwrap(), 0);
    assert!(store.load(&keys[2]).await.unwrap().key().is_some());
    store.delete(&keys[2]).await.unwrap();

    // More than one statement takes.
    for _ in 0..2100 {
        let mut session = Session::new();
        session.set_expiry(Some(Expiry::Seconds(1)));
        store.save(&mut session).await.unwrap();
    }
    clock.advance(100);
    assert_eq!(store.clear_expired().await.unwrap(), 2100);
}

async fn a_large_session_is_kept(store: &dyn SessionStore) {
    let mut session = Session::new();
    // Random, so that compression does not help.
    let large = django_sessions::crypto::get_random_string(1_000_000, "0123456789abcdefghijklmnopqrstuvwxyz")
        .unwrap();
    session.insert("large", &large).unwrap();
    store.save(&mut session).await.unwrap();
    let key = session.key().unwrap().clone();
    assert_eq!(store.load(&key).await.unwrap().get::<String>("large").unwrap(), Some(large));
    store.delete(&key).await.unwrap();
}

/// 64 visitors at once, a third of whose requests are cancelled: each answer carries the key that was asked for.
async fn nobody_gets_the_session_of_another<S: SessionStore + 'static>(store: Arc<S>) {
    let visitors = (0..64).map(|visitor: u64| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut session = Session::new();
            store.create(&mut session).await.unwrap();
            let key = session.key().unwrap().clone();
            session.insert("key", key.as_str()).unwrap();
            store.save(&mut session).await.unwrap();
            for round in 0..30 {
                let patience = std::time::Duration::from_micros((visitor * 37 + round * 211) % 900);
                if round % 3 == 0 {
                    let _cancelled = tokio::time::timeout(patience, store.load(&key)).await;
                    continue;
                }
                let loaded = store.load(&key).await.unwrap();
                assert_eq!(loaded.get::<String>("key").unwrap().as_deref(), Some(key.as_str()));
            }
            store.delete(&key).await.unwrap();
            key
        })
    });
    let mut keys = HashSet::new();
    for visitor in visitors.collect::<Vec<_>>() {
        assert!(keys.insert(visitor.await.unwrap()), "two visitors had one key");
    }
}
