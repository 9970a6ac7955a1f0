//! Two stores while sessions move from one to the other: each pair conforms, sessions move, and a logout wins.

use std::sync::Arc;

use django_sessions::backends::cache::CacheStore;
use django_sessions::backends::fallback::FallbackStore;
use django_sessions::backends::file::FileStore;
use django_sessions::backends::hashed_keys::HashedKeys;
use django_sessions::backends::{SessionStore, StoreError};
use django_sessions::caches::KeyLayout;
use django_sessions::caches::format::Format;
use django_sessions::caches::locmem::{LocMemCache, LocMemSettings};
use django_sessions::conformance::{Capabilities, Clock};
use django_sessions::session::{Session, SessionKey};
use django_sessions::settings::{Engine, FallbackSettings, HashKeys};
use tempfile::TempDir;

use super::hashed_keys::{cart, saved};
use super::{caches, conforms, options, settings};

/// Files, then a table.
struct Site {
    old: Arc<dyn SessionStore>,
    new: Arc<dyn SessionStore>,
    store: FallbackStore,
    _folders: [TempDir; 2],
}

impl Site {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let old: Arc<dyn SessionStore> =
            Arc::new(FileStore::in_directory(folder.path(), settings()).unwrap());
        let (db, of_db) = caches::db().await;
        let new: Arc<dyn SessionStore> = Arc::new(db);
        let store = FallbackStore::new(new.clone(), old.clone());
        Self { old, new, store, _folders: [folder, of_db] }
    }

    /// Where the session is: in the old store, in the new one.
    async fn places(&self, key: &SessionKey) -> (bool, bool) {
        (self.old.exists(key).await.unwrap(), self.new.exists(key).await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conforms_over_each_pair() {
    let clock = Clock::manual();
    let folder = tempfile::tempdir().unwrap();
    let reader = clock.clone();
    let files = FileStore::in_directory(folder.path(), settings()).unwrap();
    let files: Arc<dyn SessionStore> = Arc::new(files.with_clock(move || reader.now()));
    let reader = clock.clone();
    let mut cache = LocMemSettings::default();
    cache.max_entries = 100_000;
    let cache = LocMemCache::open(&cache).unwrap().with_clock(move || reader.now());
    let reader = clock.clone();
    let cache = CacheStore::new(Arc::new(cache), KeyLayout::default(), Format::django(), settings());
    let cache: Arc<dyn SessionStore> = Arc::new(cache.with_clock(move || reader.now()));
    let reader = clock.clone();
    let (db, _db_folder) = caches::db().await;
    let db: Arc<dyn SessionStore> = Arc::new(db.with_clock(move || reader.now()));
    let hashed = |store: &Arc<dyn SessionStore>| -> Arc<dyn SessionStore> {
        Arc::new(HashedKeys::new(store.clone(), HashKeys::Sha256))
    };
    for (store, capabilities) in [
        (FallbackStore::new(db.clone(), files.clone()), Capabilities::ALL),
        (FallbackStore::new(files.clone(), cache.clone()), Capabilities::FILE),
        (FallbackStore::new(hashed(&cache), hashed(&db)), Capabilities::CACHE),
    ] {
        let skipped = conforms(store, options(clock.clone(), capabilities)).await;
        assert!(skipped.len() <= 2, "{skipped:?}");
    }
}

#[tokio::test]
async fn a_session_moves_at_its_next_save() {
    let site = Site::new().await;
    let key = saved(&*site.old).await;
    assert!(site.store.exists(&key).await.unwrap());
    assert!(!site.store.insert(&key, &Session::new()).await.unwrap(), "it is taken");
    let mut session = site.store.load(&key).await.unwrap();
    assert_eq!(session.key(), Some(&key));
    assert_eq!(site.places(&key).await, (true, false), "it was only read");
    session.insert("more", "jam").unwrap();
    site.store.save(&mut session).await.unwrap();
    assert_eq!(site.places(&key).await, (false, true));
    assert_eq!(cart(&*site.new, &key).await.as_deref(), Some("tea"));
    assert_eq!(cart(&site.store, &key).await.as_deref(), Some("tea"));
    site.store.flush(&mut session).await.unwrap();
    assert_eq!(site.places(&key).await, (false, false));

    let key = saved(&site.store).await;
    assert_eq!(site.places(&key).await, (false, true), "new ones are made in the new store");
}

#[tokio::test]
async fn what_is_in_the_new_store_wins() {
    let site = Site::new().await;
    let key = saved(&*site.old).await;
    let mut newer = Session::new();
    newer.insert("cart", "jam").unwrap();
    assert!(site.new.insert(&key, &newer).await.unwrap());
    assert_eq!(cart(&site.store, &key).await.as_deref(), Some("jam"));
}

#[tokio::test]
async fn a_login_gives_a_new_key_and_ends_the_old_one_in_both() {
    let site = Site::new().await;
    let key = saved(&*site.old).await;
    let mut session = site.store.load(&key).await.unwrap();
    site.store.cycle_key(&mut session).await.unwrap();
    assert_eq!(site.places(&key).await, (false, false));
    assert_eq!(site.places(session.key().unwrap()).await, (false, true));
}

#[tokio::test]
async fn a_key_that_no_file_can_have() {
    let site = Site::new().await;
    for key in ["../../etc/passwd", "A_key_with_other_letters"] {
        let key = SessionKey::new(key).unwrap();
        assert!(site.store.load(&key).await.unwrap().key().is_none());
        assert!(!site.store.exists(&key).await.unwrap());
        site.store.delete(&key).await.unwrap();
        assert!(site.store.insert(&key, &Session::new()).await.unwrap(), "a table can have it");
        assert!(site.store.update(&key, &Session::new()).await.unwrap());
        site.store.delete(&key).await.unwrap();
        assert!(!site.store.update(&key, &Session::new()).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_logout_wins_while_many_move() {
    let site = Arc::new(Site::new().await);
    for round in 0..100 {
        let key = saved(&*site.old).await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..3 {
            let (site, mut session) = (site.clone(), site.store.load(&key).await.unwrap());
            tasks.spawn(async move {
                match site.store.save(&mut session).await {
                    Ok(()) | Err(StoreError::Deleted) => {}
                    Err(error) => panic!("{error}"),
                }
            });
        }
        let (ending, ended) = (site.clone(), key.clone());
        tasks.spawn(async move {
            ending.store.delete(&ended).await.unwrap();
        });
        tasks.join_all().await;
        assert_eq!(site.places(&key).await, (false, false), "round {round}");
    }
}

#[tokio::test]
async fn the_settings_open_both_or_say_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings.session_file_path = Some(folder.path().to_owned());
    for (new, old, why) in [
        (Engine::File, Engine::File, "this is where session_engine keeps sessions"),
        (Engine::CachedDb, Engine::Db, "share their table"),
        (Engine::File, Engine::SignedCookies, "signed_cookies keeps sessions in the browser"),
        (Engine::SignedCookies, Engine::File, "signed_cookies keeps sessions in the browser"),
        (Engine::File, Engine::Cache, "this cache is missing"),
    ] {
        settings.session_engine = new;
        let mut fallback = FallbackSettings::default();
        fallback.session_engine = old;
        settings.fallback = Some(fallback);
        let Err(error) = settings.connect().await else { panic!("{new:?} and {old:?}") };
        assert!(error.to_string().contains(why), "{error}");
    }
}
