//! Two stores while sessions move from one to the other: each pair conforms, sessions move, and a logout wins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use django_sessions::backends::cache::CacheStore;
use django_sessions::backends::fallback::FallbackStore;
use django_sessions::backends::file::FileStore;
use django_sessions::backends::hashed_keys::{HashedKeys, hashed_name};
use django_sessions::backends::{SessionStore, StoreError};
use django_sessions::caches::KeyLayout;
use django_sessions::caches::format::Format;
use django_sessions::caches::locmem::{LocMemCache, LocMemSettings};
use django_sessions::conformance::{Capabilities, Clock};
use django_sessions::session::{Session, SessionKey};
use django_sessions::settings::{Engine, FallbackSettings, HashKeys};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

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

/// A store on a network: it deletes a moment later than it is asked to, or fails.
struct Far {
    store: CacheStore,
    fails: AtomicBool,
}

#[async_trait::async_trait]
impl SessionStore for Far {
    async fn exists(&self, key: &SessionKey) -> Result<bool, StoreError> {
        self.store.exists(key).await
    }

    async fn insert(&self, key: &SessionKey, session: &Session) -> Result<bool, StoreError> {
        self.store.insert(key, session).await
    }

    async fn update(&self, key: &SessionKey, session: &Session) -> Result<bool, StoreError> {
        self.store.update(key, session).await
    }

    async fn load(&self, key: &SessionKey) -> Result<Session, StoreError> {
        self.store.load(key).await
    }

    async fn delete(&self, key: &SessionKey) -> Result<bool, StoreError> {
        sleep(Duration::from_millis(30)).await;
        match self.fails.swap(false, Ordering::Relaxed) {
            true => Err(StoreError::File(std::io::Error::other("out of reach"))),
            false => self.store.delete(key).await,
        }
    }

    async fn clear_expired(&self) -> Result<u64, StoreError> {
        self.store.clear_expired().await
    }
}

/// What moves sessions, and where from and to.
struct Move {
    store: Arc<dyn SessionStore>,
    old: Arc<Far>,
    new: Arc<Far>,
    new_name: fn(&SessionKey) -> SessionKey,
}

impl Move {
    fn each() -> [Self; 2] {
        let far = || {
            let cache = Arc::new(LocMemCache::open(&LocMemSettings::default()).unwrap());
            let store = CacheStore::new(cache, KeyLayout::default(), Format::django(), settings());
            Arc::new(Far { store, fails: false.into() })
        };
        let (one, old, new) = (far(), far(), far());
        let hashed = Arc::new(HashedKeys::new(one.clone(), HashKeys::Sha256));
        let fallback = Arc::new(FallbackStore::new(new.clone(), old.clone()));
        [
            Self { store: hashed, old: one.clone(), new: one, new_name: hashed_name },
            Self { store: fallback, old, new, new_name: SessionKey::clone },
        ]
    }

    /// Whether the session is in the old place, and in the new one.
    async fn places(&self, key: &SessionKey) -> (bool, bool) {
        let new_name = (self.new_name)(key);
        (self.old.exists(key).await.unwrap(), self.new.exists(&new_name).await.unwrap())
    }

    /// A session that is saved, but in the midst of its move the client hangs up.
    async fn begun(&self) -> SessionKey {
        let key = saved(&self.old.store).await;
        let mut session = self.store.load(&key).await.unwrap();
        assert!(timeout(Duration::from_millis(10), self.store.save(&mut session)).await.is_err());
        assert_eq!(self.places(&key).await, (true, true), "it is on its way");
        key
    }
}

#[tokio::test]
async fn a_move_that_is_begun_is_finished() {
    for site in Move::each() {
        let key = site.begun().await;
        sleep(Duration::from_millis(200)).await;
        assert_eq!(site.places(&key).await, (false, true));
        assert_eq!(cart(&*site.store, &key).await.as_deref(), Some("tea"));

        let key = site.begun().await;
        site.store.delete(&key).await.unwrap();
        sleep(Duration::from_millis(200)).await;
        assert_eq!(site.places(&key).await, (false, false), "it was logged out meanwhile");
    }
}

#[tokio::test]
async fn a_session_that_cannot_be_taken_out_stays_where_it_was() {
    for site in Move::each() {
        let key = saved(&site.old.store).await;
        let mut session = site.store.load(&key).await.unwrap();
        site.old.fails.store(true, Ordering::Relaxed);
        assert!(matches!(site.store.save(&mut session).await, Err(StoreError::File(_))));
        assert_eq!(site.places(&key).await, (true, false));
        site.store.save(&mut session).await.unwrap();
        assert_eq!(site.places(&key).await, (false, true));
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
