//! Two stores, while sessions move: the pair conforms, and a logout wins.

use std::sync::Arc;

use django_sessions::backends::fallback::FallbackStore;
use django_sessions::backends::file::FileStore;
use django_sessions::backends::{SessionStore, StoreError};
use django_sessions::conformance::{Capabilities, Clock};
use django_sessions::session::{Session, SessionKey};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::caches::db;
use super::{conforms, options, settings};

fn files(clock: Option<&Clock>) -> (FileStore, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::in_directory(folder.path(), settings()).unwrap();
    let store = match clock.cloned() {
        Some(clock) => store.with_clock(move || clock.now()),
        None => store,
    };
    (store, folder)
}

async fn saved(store: &dyn SessionStore) -> (Session, SessionKey) {
    let mut session = Session::new();
    session.insert("cart", "tea").unwrap();
    store.save(&mut session).await.unwrap();
    let key = session.key().unwrap().clone();
    (session, key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_pair_conforms() {
    let clock = Clock::manual();
    let ((new, _one), (old, _other)) = (files(Some(&clock)), files(Some(&clock)));
    let store = FallbackStore::new(Arc::new(new), Arc::new(old));
    assert_eq!(conforms(store, options(clock, Capabilities::FILE)).await, [""; 0]);
}

#[tokio::test]
async fn a_session_moves_at_its_next_save() {
    let ((new, _folder), (old, _table)) = (files(None), db().await);
    let (new, old) = (Arc::new(new), Arc::new(old));
    let store = FallbackStore::new(new.clone(), old.clone());
    let (_, key) = saved(&*old).await;
    let mut session = store.load(&key).await.unwrap();
    assert_eq!(session.get::<String>("cart").unwrap().as_deref(), Some("tea"));
    assert!(old.exists(&key).await.unwrap(), "who only reads moves nothing");
    assert!(!store.insert(&key, &session).await.unwrap(), "its key is taken");
    session.insert("cart", "jam").unwrap();
    store.save(&mut session).await.unwrap();
    assert!(new.exists(&key).await.unwrap() && !old.exists(&key).await.unwrap());
    assert!(store.delete(&key).await.unwrap());
    assert!(matches!(store.save(&mut session).await, Err(StoreError::Deleted)));
    assert!(!store.exists(&key).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_logout_wins_while_many_move() {
    let ((new, _one), (old, _other)) = (files(None), files(None));
    let (new, old) = (Arc::new(new), Arc::new(old));
    let store = FallbackStore::new(new.clone(), old.clone());
    for _ in 0..200 {
        let (_, key) = saved(&*old).await;
        let session = store.load(&key).await.unwrap();
        let mut tasks = JoinSet::new();
        for _ in 0..3 {
            let (store, mut session) =
                (store.clone(), Session::with_data(Some(key.clone()), session.data().clone()));
            tasks.spawn(async move {
                match store.save(&mut session).await {
                    Ok(()) | Err(StoreError::Deleted) => {}
                    Err(error) => panic!("{error}"),
                }
            });
        }
        let (ended, by) = (key.clone(), store.clone());
        tasks.spawn(async move {
            by.delete(&ended).await.unwrap();
        });
        tasks.join_all().await;
        assert!(!new.exists(&key).await.unwrap() && !old.exists(&key).await.unwrap());
    }
}
