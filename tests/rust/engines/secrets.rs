//! No session key, value or secret shows in what is logged, in spans, in `Debug` or in errors.

use std::sync::Arc;

use django_sessions::backends::SessionStore;
use django_sessions::backends::cache::CacheStore;
use django_sessions::backends::file::FileStore;
use django_sessions::backends::signed_cookies::SignedCookieStore;
use django_sessions::caches::KeyLayout;
use django_sessions::caches::format::Format;
use django_sessions::caches::locmem::{LocMemCache, LocMemSettings};
use django_sessions::session::{Session, SessionKey};

use super::settings;
use crate::logged::Logged;

#[tokio::test]
async fn nothing_shows() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Arc::new(LocMemCache::open(&LocMemSettings::default()).unwrap());
    let stores: Vec<Arc<dyn Shown>> = vec![
        Arc::new(FileStore::in_directory(folder.path(), settings()).unwrap()),
        Arc::new(SignedCookieStore::new(settings())),
        Arc::new(CacheStore::new(cache, KeyLayout::default(), Format::django(), settings())),
    ];
    for store in stores {
        let logged = Logged::default();
        let guard = logged.listen();
        let mut session = Session::new();
        session.insert("name", "hush-hush").unwrap();
        store.save(&mut session).await.unwrap();
        let first = session.key().unwrap().clone();
        let mut loaded = store.load(&first).await.unwrap();
        store.save(&mut loaded).await.unwrap();
        store.cycle_key(&mut loaded).await.unwrap();
        let second = loaded.key().unwrap().clone();
        let made_up = SessionKey::new("made-up-by-a-visitor").unwrap();
        let mut errors = String::new();
        for key in [&first, &second, &made_up] {
            errors += &format!("{:?}", store.exists(key).await);
            errors += &format!("{:?}", store.load(key).await);
            errors += &format!("{:?}", store.insert(key, &session).await);
            errors += &format!("{:?}", store.update(key, &session).await);
            errors += &format!("{:?}", store.delete(key).await);
        }
        store.flush(&mut loaded).await.unwrap();
        store.clear_expired().await.unwrap();
        drop(guard);

        let text = format!("{}\n{errors}\n{store:?}\n{session:?}", logged.text());
        assert!(text.contains("load") && text.contains("sha256:"), "spans are there: {text}");
        for secret in [first.as_str(), second.as_str(), made_up.as_str(), "hush-hush", "a key for tests"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

trait Shown: SessionStore + std::fmt::Debug {}

impl<S: SessionStore + std::fmt::Debug> Shown for S {}
