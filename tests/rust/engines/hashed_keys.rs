//! Sessions under hashes of their keys: every store conforms, sessions move, and what is stored lets nobody in.

use std::fs;
use std::sync::Arc;

use django_sessions::backends::file::FileStore;
use django_sessions::backends::hashed_keys::{HashedKeys, hashed_name};
use django_sessions::backends::{SessionStore, StoreError};
use django_sessions::conformance::{Capabilities, Clock};
use django_sessions::session::{Session, SessionKey};
use django_sessions::settings::HashKeys;
use tempfile::TempDir;

use super::{conforms, options, settings};

struct Site {
    files: Arc<FileStore>,
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { files: Arc::new(FileStore::in_directory(folder.path(), settings()).unwrap()), folder }
    }

    fn store(&self, mode: HashKeys) -> HashedKeys {
        HashedKeys::new(self.files.clone(), mode)
    }

    /// Without what stands before each.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.map(|name| name.trim_start_matches("sessionid").to_owned()).collect()
    }
}

pub(crate) async fn saved(store: &dyn SessionStore) -> SessionKey {
    let mut session = Session::new();
    session.insert("cart", "tea").unwrap();
    store.save(&mut session).await.unwrap();
    session.key().unwrap().clone()
}

pub(crate) async fn cart(store: &dyn SessionStore, key: &SessionKey) -> Option<String> {
    store.load(key).await.unwrap().get("cart").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_mode_conforms() {
    for mode in [HashKeys::Off, HashKeys::Sha256, HashKeys::Plain] {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::manual());
        let reader = clock.clone();
        let files = FileStore::in_directory(folder.path(), settings()).unwrap();
        let store = HashedKeys::new(Arc::new(files.with_clock(move || reader.now())), mode);
        assert_eq!(conforms(store, options(clock, Capabilities::FILE)).await, [""; 0], "{mode:?}");
    }
}

/// Names of files have no `$`.
fn of_a_file(key: &SessionKey) -> SessionKey {
    SessionKey::from_stored_name(hashed_name(key).as_str().replace('$', ""))
}

#[tokio::test]
async fn the_store_never_sees_the_key() {
    let site = Site::new();
    let store = site.store(HashKeys::Sha256);
    let key = saved(&store).await;
    let [name] = &site.names()[..] else { panic!("one file") };
    assert!(SessionKey::from_stored_name(name).is_stored_name(), "{name}");
    // As the rows of devices have it, which Python reads too.
    assert_eq!(store.stored_names(&key)[0].as_str(), name);
    assert_eq!(of_a_file(&key).as_str(), name);
    assert!(!name.contains(key.as_str()));
    assert!(SessionKey::new(name.clone()).is_none(), "a thief comes with it");
    assert_eq!(cart(&store, &key).await.as_deref(), Some("tea"));
    store.delete(&SessionKey::from_stored_name(name)).await.unwrap();
    assert_eq!(cart(&store, &key).await, None);
}

/// With the collations of MySQL a name is found in other letters, too: the Python package's test asks MariaDB.
#[tokio::test]
async fn what_a_database_takes_for_a_stored_name_is_looked_for_by_its_hash() {
    let site = Site::new();
    for mode in [HashKeys::Sha256, HashKeys::Plain] {
        for odd in ["SHA256$qsdxewnmwem4j67hhaithn6dii4xfd6p", "\u{15b}ha256", "a-key-with-$"] {
            let odd = SessionKey::new(format!("{odd}-for-{mode:?}")).unwrap();
            let store = site.store(mode);
            assert_eq!(store.stored_names(&odd), [of_a_file(&odd)]);
            let mut session = Session::new();
            session.insert("cart", "tea").unwrap();
            assert!(store.insert(&odd, &session).await.unwrap());
            assert!(store.update(&odd, &session).await.unwrap());
            assert_eq!(cart(&store, &odd).await.as_deref(), Some("tea"));
            assert!(store.delete(&odd).await.unwrap());
            assert!(!store.update(&odd, &session).await.unwrap());
        }
    }
}

#[tokio::test]
async fn sessions_move_at_their_next_save() {
    let site = Site::new();
    for (one, other) in [(HashKeys::Off, HashKeys::Sha256), (HashKeys::Sha256, HashKeys::Plain)] {
        let key = saved(&site.store(one)).await;
        let before = site.names();
        let store = site.store(other);
        let mut session = store.load(&key).await.unwrap();
        assert_eq!(session.key(), Some(&key));
        assert_eq!(site.names(), before, "it was only read");
        session.insert("cart", "jam").unwrap();
        store.save(&mut session).await.unwrap();
        assert_ne!(site.names(), before);
        assert_eq!(site.names().len(), 1);
        assert_eq!(cart(&store, &key).await.as_deref(), Some("jam"));
        store.save(&mut session).await.unwrap();
        store.flush(&mut session).await.unwrap();
        assert_eq!(site.names(), [""; 0]);
    }
}

#[tokio::test]
async fn a_logout_wins_over_a_move() {
    let site = Site::new();
    let key = saved(&*site.files).await;
    let store = site.store(HashKeys::Sha256);
    let mut late = store.load(&key).await.unwrap();
    store.delete(&key).await.unwrap();
    assert!(matches!(store.save(&mut late).await, Err(StoreError::Deleted)));
    assert_eq!(site.names(), [""; 0]);

    let key = saved(&*site.files).await;
    let (mut late, mut other) = (store.load(&key).await.unwrap(), store.load(&key).await.unwrap());
    store.save(&mut other).await.unwrap();
    store.save(&mut late).await.unwrap();
    store.delete(&key).await.unwrap();
    assert!(matches!(store.save(&mut late).await, Err(StoreError::Deleted)));
    assert_eq!(site.names(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_logout_wins_while_many_move() {
    let site = Site::new();
    let store = Arc::new(site.store(HashKeys::Sha256));
    for round in 0..200 {
        let key = saved(&*site.files).await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..3 {
            let (store, mut session) = (store.clone(), store.load(&key).await.unwrap());
            tasks.spawn(async move {
                match store.save(&mut session).await {
                    Ok(()) | Err(StoreError::Deleted) => {}
                    Err(error) => panic!("{error}"),
                }
            });
        }
        let (store, ended) = (store.clone(), key.clone());
        tasks.spawn(async move {
            store.delete(&ended).await.unwrap();
        });
        tasks.join_all().await;
        assert_eq!(site.names(), [""; 0], "round {round}");
    }
}
