//! Sessions that move to hashes of their keys, and their rows with them.

use django_sessions::settings::HashKeys;
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
