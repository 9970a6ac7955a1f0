use django_sessions::backends::signed_cookies::{MAX_COOKIE, SignedCookieStore};
use django_sessions::backends::{SessionStore, StoreError};
use django_sessions::conformance::{Capabilities, Clock};
use django_sessions::crypto::{SecretKeys, get_random_string};
use django_sessions::session::{Expiry, Session, SessionKey};
use jiff::SignedDuration;

use super::{conforms, options, settings};

fn store() -> (SignedCookieStore, Clock) {
    let clock = Clock::manual();
    let reader = clock.clone();
    (SignedCookieStore::new(settings()).with_clock(move || reader.now()), clock)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conform() {
    let (store, clock) = store();
    let skipped = conforms(store, options(clock, Capabilities::COOKIE)).await;
    assert!(!skipped.contains(&"sessions_end_on_time") && skipped.len() < 9, "{skipped:?}");
}

async fn saved(store: &SignedCookieStore, session: &mut Session) -> SessionKey {
    store.save(session).await.unwrap();
    session.key().unwrap().clone()
}

#[tokio::test]
async fn every_save_makes_a_key_and_the_old_one_stays_good() {
    let (store, clock) = store();
    let mut session = Session::new();
    session.insert("cart", "tea").unwrap();
    let first = saved(&store, &mut session).await;
    assert!(session.modified(), "or the response sends no cookie");
    clock.advance(std::time::Duration::from_secs(1)).await;
    store.cycle_key(&mut session).await.unwrap();
    let second = session.key().unwrap().clone();
    assert_ne!(first, second, "the time is signed too");
    store.flush(&mut session).await.unwrap();
    assert!(session.key().is_none() && session.is_empty());
    for copy in [first, second] {
        let loaded = store.load(&copy).await.unwrap();
        assert_eq!(loaded.get::<String>("cart").unwrap().as_deref(), Some("tea"));
        assert!(!store.exists(&copy).await.unwrap());
    }
}

#[tokio::test]
async fn only_the_cookie_age_ends_it() {
    let (store, clock) = store();
    let mut session = Session::new();
    session.set_expiry(Some(Expiry::Seconds(60)));
    let key = saved(&store, &mut session).await;
    let age = |seconds| clock.set(conformance_start() + SignedDuration::from_secs(seconds));
    age(1_209_599);
    assert!(store.load(&key).await.unwrap().key().is_some(), "Django's ticket 19201");
    age(1_209_600);
    let over = store.load(&key).await.unwrap();
    assert!(over.key().is_none() && over.is_empty());
    // As Django's engine has it: the response replaces the cookie.
    let over = store.load_or_empty(&key).await.unwrap();
    assert!(over.key() == Some(&key) && over.data().is_empty() && over.modified());
}

fn conformance_start() -> jiff::Timestamp {
    Clock::manual().now()
}

#[tokio::test]
async fn what_was_changed_is_refused_and_replaced() {
    let (store, _clock) = store();
    let key = saved(&store, &mut Session::new()).await;
    let other = SignedCookieStore::new(django_sessions::settings::Settings::new(SecretKeys::new("another")));
    let forged = saved(&other, &mut Session::new()).await;
    let cut = SessionKey::new(&key.as_str()[1..]).unwrap();
    for key in [forged, cut, SessionKey::new("nothing of the kind").unwrap()] {
        let error = store.load(&key).await.unwrap_err();
        assert!(matches!(&error, StoreError::Decode(error) if error.is_suspicious()), "{error:?}");
        assert!(!format!("{error:?} {error}").contains(key.as_str()));
        let session = store.load_or_empty(&key).await.unwrap();
        assert!(session.key() == Some(&key) && session.data().is_empty() && session.modified());
    }
}

#[tokio::test]
async fn keys_are_not_chosen() {
    let (store, _clock) = store();
    let key = SessionKey::random().unwrap();
    assert!(matches!(store.insert(&key, &Session::new()).await, Err(StoreError::KeyNotChosen)));
    assert!(matches!(store.update(&key, &Session::new()).await, Err(StoreError::KeyNotChosen)));
    store.delete(&key).await.unwrap();
    assert_eq!(store.clear_expired().await.unwrap(), 0);
}

#[tokio::test]
async fn large_cookies_are_measured_and_warned_of_once_a_doubling() {
    let logged = crate::logged::Logged::default();
    let _guard = logged.listen();
    let (store, _clock) = store();
    let mut measured = Vec::new();
    for size in [1000, 3800, 4100, 4200, 9000, 9000, 20_000] {
        let mut session = Session::new();
        // Random, so that compression gains little but what base64 adds.
        let secret =
            get_random_string(size, "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_")
                .unwrap();
        session.insert("large", &secret).unwrap();
        session.insert("small", &1).unwrap();
        let key = saved(&store, &mut session).await;
        assert_eq!(store.cookie_size(&key), "sessionid=".len() + key.as_str().len());
        measured.push(store.cookie_size(&key));
        assert!(!logged.text().contains(&secret[..20]) && !logged.text().contains(key.as_str()));
    }
    let doublings: std::collections::HashSet<u32> =
        measured.iter().filter(|size| **size > MAX_COOKIE).map(|size| (size / MAX_COOKIE).ilog2()).collect();
    assert!(doublings.len() > 2, "{measured:?}");
    let text = logged.text();
    assert_eq!(text.matches("browsers drop one of more than 4093").count(), doublings.len(), "{text}");
    assert!(text.contains("Largest keys, before compression: \"large\" ("), "{text}");
}
