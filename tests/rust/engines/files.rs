use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use django_sessions::backends::file::FileStore;
use django_sessions::backends::{SessionStore, StoreError};
use django_sessions::conformance::{Capabilities, Clock};
use django_sessions::session::{Expiry, Session, SessionKey};
use tempfile::TempDir;

use super::{conforms, options, settings};

/// A store in a folder that goes with the test, and its clock.
fn store() -> (FileStore, Clock, TempDir) {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::manual());
    let reader = clock.clone();
    let store = FileStore::in_directory(folder.path(), settings()).unwrap();
    (store.with_clock(move || reader.now()), clock, folder)
}

fn names(folder: &TempDir) -> Vec<String> {
    let names = fs::read_dir(folder.path()).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

async fn saved(store: &FileStore, expiry: Option<Expiry>) -> SessionKey {
    let mut session = Session::new();
    session.set_expiry(expiry);
    store.save(&mut session).await.unwrap();
    session.key().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conform() {
    let (store, clock, folder) = store();
    assert_eq!(conforms(store, options(clock, Capabilities::FILE)).await, [""; 0]);
    assert_eq!(names(&folder), [""; 0], "nothing is left");
}

#[tokio::test]
async fn seconds_never_end_but_negative_ones_are_over() {
    let (store, clock, folder) = store();
    let key = saved(&store, Some(Expiry::Seconds(1))).await;
    clock.advance(Duration::from_secs(10_000_000)).await;
    assert_eq!(store.load(&key).await.unwrap().key(), Some(&key), "as in Django");
    let over = saved(&store, Some(Expiry::Seconds(-1))).await;
    assert_eq!(store.clear_expired().await.unwrap(), 1);
    assert!(!store.exists(&over).await.unwrap() && store.exists(&key).await.unwrap());
    let over = saved(&store, Some(Expiry::Seconds(-1))).await;
    assert!(store.load(&over).await.unwrap().key().is_none());
    assert_eq!(names(&folder).len(), 1, "loading it deletes its file, and makes no other");
}

#[tokio::test]
async fn an_empty_file_is_an_empty_session() {
    let (store, clock, folder) = store();
    let key = SessionKey::new("placeholder").unwrap();
    File::create(folder.path().join("sessionidplaceholder")).unwrap();
    clock.advance(Duration::from_secs(10_000_000_000)).await;
    let mut session = store.load(&key).await.unwrap();
    assert!(session.key() == Some(&key) && session.data().is_empty(), "it is never over either");
    assert_eq!(store.clear_expired().await.unwrap(), 0);
    session.insert("a", &1).unwrap();
    store.save(&mut session).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap().get("a").unwrap(), Some(1));
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_ends_by_its_age() {
    let (store, clock, folder) = store();
    for content in [&b"tampered:with:it"[..], b"\xff\xfe", "é".as_bytes(), b"\0"] {
        let key = SessionKey::new("corrupted").unwrap();
        let path = folder.path().join("sessionidcorrupted");
        fs::write(&path, content).unwrap();
        let now = SystemTime::from(clock.now());
        File::options().write(true).open(&path).unwrap().set_modified(now).unwrap();
        let error = store.load(&key).await.unwrap_err();
        assert!(matches!(&error, StoreError::Decode(error) if error.is_suspicious()), "{error:?}");
        let session = store.load_or_empty(&key).await.unwrap();
        assert!(session.key() == Some(&key) && session.data().is_empty());
        clock.advance(Duration::from_secs(1_209_600)).await;
        assert!(store.load(&key).await.unwrap().key().is_none());
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn keys_of_other_characters_are_refused() {
    let (store, _clock, folder) = store();
    let outside = folder.path().parent().unwrap().join("sessionid-outside");
    for key in ["../sessionid-outside", "UPPERCASE", "with_underscore", "ключ-ключ-ключ"] {
        let key = SessionKey::new(key).unwrap();
        assert!(matches!(store.insert(&key, &Session::new()).await, Err(StoreError::InvalidKey)));
        assert!(matches!(store.update(&key, &Session::new()).await, Err(StoreError::InvalidKey)));
        assert!(!store.exists(&key).await.unwrap() && store.load(&key).await.unwrap().key().is_none());
        store.delete(&key).await.unwrap();
    }
    assert!(!outside.exists() && names(&folder).is_empty());
    let long = SessionKey::new("a".repeat(300)).unwrap();
    assert!(!store.exists(&long).await.unwrap() && store.load(&long).await.unwrap().key().is_none());
    store.delete(&long).await.unwrap();
    let error = store.insert(&long, &Session::new()).await.unwrap_err();
    assert!(matches!(&error, StoreError::File(_)) && !format!("{error:?}").contains("aaaa"), "{error:?}");
}

#[tokio::test]
async fn a_file_beyond_all_measure_is_not_read() {
    let (store, _clock, folder) = store();
    let path = folder.path().join("sessionidhugehuge");
    File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let key = SessionKey::new("hugehuge").unwrap();
    assert!(matches!(store.load(&key).await, Err(StoreError::FileTooLarge { .. })));
    assert_eq!(store.clear_expired().await.unwrap(), 0);
    assert!(path.exists());
}

#[tokio::test]
async fn a_failing_file_system_is_reported() {
    let (store, _clock, folder) = store();
    assert!(matches!(
        FileStore::in_directory(folder.path().join("missing"), settings()),
        Err(StoreError::File(_))
    ));
    let mut session = Session::new();
    store.save(&mut session).await.unwrap();
    let key = session.key().unwrap().clone();
    fs::remove_dir_all(folder.path()).unwrap();
    assert!(matches!(store.create(&mut Session::new()).await, Err(StoreError::File(_))));
    assert!(matches!(store.clear_expired().await, Err(StoreError::File(_))));
    assert!(matches!(store.save(&mut session).await, Err(StoreError::Deleted)));
    assert!(store.load(&key).await.unwrap().key().is_none());
}

#[cfg(unix)]
#[tokio::test]
async fn files_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (store, _clock, folder) = store();
    let key = saved(&store.with_fsync(true), None).await;
    let path = folder.path().join(format!("sessionid{}", key.as_str()));
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}
