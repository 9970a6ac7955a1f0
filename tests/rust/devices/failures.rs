//! What costs no request: a user who is gone, a table that fails; and what costs no statement.

use django_sessions::backends::SessionStore;
use django_sessions::backends::signed_cookies::SignedCookieStore;
use django_sessions::contrib::devices::{Client, Devices};
use django_sessions::crypto::SecretKeys;
use django_sessions::session::{Session, SessionKey};
use django_sessions::settings::Settings;
use serde_json::json;
use tracing::Level;

use crate::apps::{BOTH, Browser, Framework};
use crate::logged::Logged;
use crate::site::Site;

/// The row cannot be written, for there is nobody to point at.
pub(crate) async fn a_user_who_is_gone(site: &Site, framework: Framework) {
    let (username, mut browser) = (site.somebody(), Browser::new());
    framework.get(site, &mut browser, &format!("/login/{username}")).await;
    site.ask("delete_user", json!({"username": username}));
    site.wait(61);
    let log = Logged::default();
    let _listening = log.listen_to_records(Level::INFO);
    assert_eq!(framework.get(site, &mut browser, "/user").await, (200, "stranger".to_owned()));
    assert_eq!(log.text(), "", "{framework:?}: this is no failure");
}

async fn small() -> Option<(Site, tempfile::TempDir)> {
    let folder = tempfile::tempdir().unwrap();
    Some((Site::start(&crate::sqlite(&folder), "off").await?, folder))
}

#[tokio::test]
async fn a_table_that_fails_costs_the_row_alone() {
    let Some((site, _folder)) = small().await else { return };
    let sqlite = site.pool.sqlite().unwrap();
    sqlx::query("ALTER TABLE django_session_device RENAME TO away").execute(sqlite).await.unwrap();
    for framework in BOTH {
        let (username, mut browser, log) = (site.somebody(), Browser::new(), Logged::default());
        let listening = log.listen_to_records(Level::INFO);
        for (path, body) in
            [(&*format!("/login/{username}"), &*username), ("/user", &*username), ("/logout", "bye")]
        {
            let key = browser.cookie.clone();
            assert_eq!(
                framework.get(&site, &mut browser, path).await,
                (200, body.to_owned()),
                "{framework:?}"
            );
            let keys = [key, browser.cookie.clone()];
            assert!(keys.iter().flatten().all(|key| !log.text().contains(key)), "{}", log.text());
        }
        drop(listening);
        let said = log.text().matches("the device of a session was not recorded").count();
        // At the login, and twice at the logout; in between it is not due.
        assert_eq!(said, 3, "{framework:?}: {}", log.text());
    }
}

/// A pool that opens its first connection for its first statement.
#[tokio::test]
async fn no_statement_where_nobody_is_logged_in() {
    let Some((site, folder)) = small().await else { return };
    let username = site.somebody();
    for framework in BOTH {
        let url = format!("sqlite:{}", folder.path().join("site.sqlite3").display());
        let pool = sqlx::SqlitePool::connect_lazy(&url).unwrap();
        let devices = site.clocked(Devices::new(pool.clone(), site.settings.clone()));
        let mut anonymous = Browser::new();
        for path in ["/unused", "/user", "/cart", "/cart", "/user", "/unused"] {
            let answer = framework.get_with(&site, Some(devices.clone()), &mut anonymous, path).await;
            assert_eq!(answer.0, 200, "{framework:?} {path}");
        }
        assert!(anonymous.cookie.is_some());
        let mut browser = Browser::new();
        let login = format!("/login/{username}");
        framework.get_with(&site, None, &mut browser, &login).await;
        framework.get_with(&site, None, &mut browser, "/user").await;
        framework.get_with(&site, Some(devices.clone()), &mut browser, "/unused").await;
        assert_eq!(pool.size(), 0, "{framework:?}");
        assert_eq!(site.rows(&username).len(), 0, "without devices nothing is done");
        framework.get_with(&site, Some(devices.clone()), &mut browser, "/user").await;
        assert_ne!(pool.size(), 0, "{framework:?}: now there was one");
        assert_eq!(site.rows(&username).len(), 1);

        pool.close().await; // a statement would fail from now on, and be told of
        let log = Logged::default();
        let listening = log.listen_to_records(Level::INFO);
        site.wait(59);
        framework.get_with(&site, Some(devices.clone()), &mut browser, "/user").await;
        assert_eq!(log.text(), "", "{framework:?}: it was written within a minute");
        site.wait(2);
        framework.get_with(&site, Some(devices), &mut browser, "/user").await;
        assert!(log.text().contains("the device of a session was not recorded"), "{framework:?}");
        drop(listening);
        framework.get(&site, &mut browser, "/logout").await;
    }
}

/// There is nothing on the server that could be listed or ended.
#[tokio::test]
async fn no_statement_for_sessions_in_cookies() {
    let pool = sqlx::SqlitePool::connect_lazy("sqlite:nowhere").unwrap();
    let settings = Settings::new(SecretKeys::new("secret"));
    let (store, devices) = (SignedCookieStore::new(settings.clone()), Devices::new(pool.clone(), settings));
    let mut session = Session::new();
    session.insert("_auth_user_id", "1").unwrap();
    store.save(&mut session).await.unwrap();
    let client = Client::new(SessionKey::new("another cookie"), None, b"").logged_in();
    devices.record(&store, &session, &client).await.unwrap();
    devices.forget(&store, session.key().unwrap()).await.unwrap();
    assert_eq!(pool.size(), 0);
}
