//! Sessions that move to hashes of their keys, and their rows with them.

use std::sync::Arc;

use django_sessions::backends::fallback::FallbackStore;
use django_sessions::session::SessionKey;
use django_sessions::settings::{Engine, HashKeys};
use serde_json::json;

use crate::apps::{BOTH, Browser};
use crate::site::Site;

#[tokio::test]
async fn a_row_moves_with_its_session() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut site) = Site::start(&crate::sqlite(&folder), "sha256").await else { return };
    let hashed = site.store.clone();
    let mut settings = site.settings.clone();
    settings.hash_keys = HashKeys::Off;
    let plain = settings.connect().await.unwrap();
    for framework in BOTH {
        let (username, mut browser) = (site.somebody(), Browser::new());
        site.store = plain.clone();
        framework.get(&site, &mut browser, &format!("/login/{username}")).await;
        let key = browser.cookie.clone().unwrap();
        let row = site.rows(&username).remove(0);
        assert_eq!(row["key"], *key, "{framework:?}");

        site.store = hashed.clone();
        site.wait(61);
        framework.get(&site, &mut browser, "/user").await;
        let read = site.rows(&username);
        assert_eq!((read.len(), &read[0]["key"]), (1, &json!(key)), "{framework:?}: it was only read");
        assert_eq!(site.listed(&username).len(), 1);

        // The row of a session that has moved is still its own.
        let mut session = site.load(&key).await;
        site.store.save(&mut session).await.unwrap();
        let user = site.user(&username).await;
        assert_eq!(site.devices.end_all_sessions(&*site.store, &user, Some(&session)).await.unwrap(), 0);

        framework.get(&site, &mut browser, "/cart").await; // saves it, within the minute
        let saved = site.rows(&username);
        assert_eq!((saved.len(), &saved[0]["id"]), (1, &row["id"]), "{framework:?}");
        assert!(saved[0]["key"].as_str().unwrap().starts_with("sha256$"), "{saved:?}");
        assert_eq!(site.listed_by_rust(&username).await, site.listed(&username));
        let device = site.sessions(&username).await.remove(0);
        site.devices.end_session(&*site.store, &device).await.unwrap();
        assert_eq!(framework.get(&site, &mut browser, "/user").await.1, "stranger");
    }
}

/// From a store of another engine that knows keys as they are.
#[tokio::test]
async fn sessions_of_a_former_store_are_ended_there() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut site) = Site::start(&crate::sqlite(&folder), "sha256").await else { return };
    let mut settings = site.settings.clone();
    (settings.hash_keys, settings.session_engine) = (HashKeys::Off, Engine::File);
    settings.session_file_path = Some(folder.path().to_owned());
    let (old, new) = (settings.connect().await.unwrap(), site.store.clone());
    for framework in BOTH {
        let (username, mut browsers) = (site.somebody(), [Browser::new(), Browser::new(), Browser::new()]);
        let mut keys = Vec::new();
        for browser in &mut browsers {
            site.store = old.clone();
            framework.get(&site, browser, &format!("/login/{username}")).await;
            keys.push(SessionKey::new(browser.cookie.clone().unwrap()).unwrap());
            site.store = Arc::new(FallbackStore::new(new.clone(), old.clone()));
            site.wait(61);
            framework.get(&site, browser, "/user").await; // it was only read
        }
        let [one, moved, other] = &mut browsers;
        framework.get(&site, moved, "/cart").await;
        assert!(new.exists(&keys[1]).await.unwrap() && !old.exists(&keys[1]).await.unwrap());
        let names = site.rows(&username).into_iter().map(|row| row["key"].as_str().unwrap().to_owned());
        assert_eq!(names.filter(|name| name.starts_with("sha256$")).count(), 1, "{framework:?}");

        let devices = site.sessions(&username).await;
        assert_eq!(devices.len(), 3, "{framework:?}");
        let last = &devices[2]; // the one that was seen first
        site.devices.end_session(&*site.store, last).await.unwrap();
        assert_eq!(framework.get(&site, one, "/user").await.1, "stranger", "{framework:?}");
        let user = site.user(&username).await;
        assert_eq!(site.devices.end_all_sessions(&*site.store, &user, None).await.unwrap(), 2);
        for browser in [moved, other] {
            assert_eq!(framework.get(&site, browser, "/user").await.1, "stranger", "{framework:?}");
        }
        for key in &keys {
            assert!(!site.store.exists(key).await.unwrap(), "{framework:?}");
        }
    }
}
