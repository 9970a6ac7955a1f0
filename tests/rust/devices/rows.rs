//! What becomes of the rows, at each thing that a browser does in Rust or in Django.

use std::sync::Arc;
use std::time::Duration;

use django_sessions::backends::StoreError;
use django_sessions::backends::cache::CacheStore;
use django_sessions::caches::KeyLayout;
use django_sessions::caches::format::Format;
use django_sessions::caches::memcached::{MemcachedCache, MemcachedSettings};
use django_sessions::session::{Expiry, Session, SessionKey};
use serde_json::{Value, json};

use crate::apps::{Browser, FIREFOX, Framework, IP};
use crate::site::Site;

const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/140.0.0.0 Safari/537.36";

async fn logged_in(site: &Site, framework: Framework) -> (String, Browser) {
    let (username, mut browser) = (site.somebody(), Browser::new());
    let answer = framework.get(site, &mut browser, &format!("/login/{username}")).await;
    assert_eq!(answer, (200, username.clone()), "{framework:?}");
    (username, browser)
}

/// A visit to Django, with a browser's cookie.
fn visit(site: &Site, browser: &mut Browser, path: &str) -> String {
    let question = json!({"where": path, "cookie": browser.cookie, "agent": browser.agent, "ip": browser.ip});
    let answer = site.ask("visit", question);
    if let Some(cookie) = answer["cookie"].as_str() {
        browser.cookie = Some(cookie.to_owned());
    }
    answer["body"].as_str().unwrap().to_owned()
}

/// What the row has of a key, which with hashed keys is not the key.
fn stored_name(site: &Site, browser: &Browser) -> String {
    let key = SessionKey::new(browser.cookie.clone().unwrap()).unwrap();
    site.store.stored_names(&key)[0].as_str().to_owned()
}

fn only(mut rows: Vec<Value>) -> Value {
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.remove(0)
}

pub(crate) async fn a_login_makes_a_row_that_django_lists(site: &Site, framework: Framework) {
    let (username, mut browser) = (site.somebody(), Browser::new());
    framework.get(site, &mut browser, "/cart").await;
    assert_eq!(framework.get(site, &mut browser, &format!("/login/{username}")).await.0, 200);
    let row = only(site.listed(&username));
    assert_eq!(row["summary"], "Firefox on Linux", "{framework:?}");
    assert_eq!((&row["agent"], &row["ip"]), (&FIREFOX.into(), &IP.into()));
    assert_eq!(row["key"], stored_name(site, &browser));
    assert_eq!(row["created"], row["last_seen"]);
    assert_eq!(site.listed_by_rust(&username).await, [row], "{framework:?}");
    let session = site.load(browser.cookie.as_deref().unwrap()).await;
    assert!(site.sessions(&username).await[0].is_of(&*site.store, &session));
}

pub(crate) async fn a_login_in_django_is_listed(site: &Site, framework: Framework) {
    let (username, mut browser) = (site.somebody(), Browser::new());
    visit(site, &mut browser, &format!("login/{username}"));
    let mut phone = Browser { ip: "192.0.2.7", agent: CHROME, ..Browser::new() };
    framework.get(site, &mut phone, &format!("/login/{username}")).await;
    let listed = site.listed(&username);
    assert_eq!(listed.len(), 2);
    assert_eq!(site.listed_by_rust(&username).await, listed, "{framework:?}: the last seen first");
    // Each knows its own.
    let session = site.load(browser.cookie.as_deref().unwrap()).await;
    let found = site.sessions(&username).await;
    let mine: Vec<_> = found.iter().filter(|device| device.is_of(&*site.store, &session)).collect();
    assert_eq!(mine.len(), 1);
    assert_eq!(mine[0].user_agent, FIREFOX);
}

pub(crate) async fn no_second_row(site: &Site, framework: Framework) {
    let (username, mut browser) = logged_in(site, framework).await;
    let row = only(site.rows(&username));
    assert_eq!(visit(site, &mut browser, "user"), username);
    assert_eq!(only(site.rows(&username)), row);

    let (username, mut browser) = (site.somebody(), Browser::new());
    visit(site, &mut browser, &format!("login/{username}"));
    let row = only(site.rows(&username));
    assert_eq!(framework.get(site, &mut browser, "/user").await, (200, username.clone()));
    assert_eq!(only(site.rows(&username)), row);

    // The same user again, in the same session.
    framework.get(site, &mut browser, &format!("/login/{username}")).await;
    assert_eq!(only(site.rows(&username))["id"], row["id"]);
    // Somebody else.
    let other = site.somebody();
    framework.get(site, &mut browser, &format!("/login/{other}")).await;
    assert_eq!(site.rows(&username), [json!(null); 0]);
    assert_eq!(only(site.rows(&other))["key"], stored_name(site, &browser));
}

pub(crate) async fn once_a_minute(site: &Site, framework: Framework) {
    let (username, mut browser) = logged_in(site, framework).await;
    let row = only(site.rows(&username));
    browser.agent = CHROME; // by which a write would show
    site.wait(30);
    framework.get(site, &mut browser, "/user").await;
    assert_eq!(only(site.rows(&username)), row, "{framework:?}: this process knows");
    framework.get_with(site, Some(site.other_process()), &mut browser, "/user").await;
    assert_eq!(only(site.rows(&username)), row, "another asks the database");
    site.wait(31);
    framework.get(site, &mut browser, "/unused").await;
    assert_eq!(only(site.rows(&username)), row, "the session was not used");
    framework.get(site, &mut browser, "/user").await;
    let seen = only(site.rows(&username));
    assert_eq!(
        (&seen["id"], &seen["created"], &seen["agent"]),
        (&row["id"], &row["created"], &CHROME.into())
    );
    let passed = seen["last_seen"].as_i64().unwrap() - row["last_seen"].as_i64().unwrap();
    assert!((61_000_000..90_000_000).contains(&passed), "{passed}");
    browser.agent = FIREFOX;
    framework.get_with(site, Some(site.other_process()), &mut browser, "/user").await;
    assert_eq!(only(site.rows(&username)), seen);
}

pub(crate) async fn a_new_key_keeps_the_row(site: &Site, framework: Framework) {
    let (username, mut browser) = logged_in(site, framework).await;
    let (row, before) = (only(site.rows(&username)), browser.cookie.clone());
    framework.get(site, &mut browser, "/cycle_key").await;
    assert_ne!(browser.cookie, before);
    let now = only(site.listed(&username));
    assert_eq!((&now["id"], &now["created"]), (&row["id"], &row["created"]), "{framework:?}");
    assert_eq!(now["key"], stored_name(site, &browser));
}

/// A login under a former secret key, with an answer that saves nothing: the browser is told the new key all the same.
pub(crate) async fn a_new_key_with_an_error_of_the_server(site: &Site, framework: Framework) {
    let (username, mut browser) = logged_in(site, framework).await;
    let row = only(site.rows(&username));
    let hashes = site.ask("hashes", json!({"username": username}));
    let mut session = site.load(browser.cookie.as_deref().unwrap()).await;
    session.insert("_auth_user_hash", &hashes[1]).unwrap();
    site.store.save(&mut session).await.unwrap();
    let before = browser.cookie.clone();
    assert_eq!(framework.get(site, &mut browser, "/fails").await, (500, username.clone()));
    assert_ne!(browser.cookie, before);
    let now = only(site.listed(&username));
    assert_eq!((&now["id"], &now["key"]), (&row["id"], &stored_name(site, &browser).into()), "{framework:?}");
}

pub(crate) async fn a_logout_deletes(site: &Site, framework: Framework) {
    for path in ["/logout", "/flush"] {
        let (username, mut browser) = logged_in(site, framework).await;
        assert_eq!(site.rows(&username).len(), 1);
        assert_eq!(framework.get(site, &mut browser, path).await.1, "bye");
        assert_eq!(site.rows(&username).len(), 0, "{framework:?} {path}");
    }
}

pub(crate) async fn a_session_that_django_ends_is_over(site: &Site, framework: Framework) {
    let (username, mut browser) = logged_in(site, framework).await;
    let row = only(site.listed(&username));
    site.ask("end_session", json!({"id": row["id"]}));
    site.wait(61);
    assert_eq!(framework.get(site, &mut browser, "/user").await, (200, "stranger".to_owned()));
    assert_eq!(site.rows(&username).len(), 0);

    let (username, mut browser) = (site.somebody(), Browser::new());
    visit(site, &mut browser, &format!("login/{username}"));
    let device = site.sessions(&username).await.remove(0);
    site.devices.end_session(&*site.store, &device).await.unwrap();
    assert_eq!(visit(site, &mut browser, "user"), "stranger", "{framework:?}");
    assert_eq!(site.rows(&username).len(), 0);
}

/// Sessions of before a new password are nobody's, and do not show.
pub(crate) async fn a_new_password(site: &Site, framework: Framework) {
    let (username, _) = logged_in(site, framework).await;
    assert_eq!(site.listed_by_rust(&username).await.len(), 1);
    site.ask("set_password", json!({"username": username}));
    assert_eq!(site.listed(&username).len(), 0);
    assert_eq!(site.listed_by_rust(&username).await.len(), 0, "{framework:?}");
    assert_eq!(site.rows(&username).len(), 1);
    let user = site.user(&username).await;
    assert_eq!(site.devices.end_all_sessions(&*site.store, &user, None).await.unwrap(), 1, "those, too");
}

/// Requests of a session that has no row yet, in several processes.
pub(crate) async fn at_once(site: &Site, framework: Framework) {
    let (username, mut browser) = (site.somebody(), Browser::new());
    framework.get_with(site, None, &mut browser, &format!("/login/{username}")).await;
    let visit = async || {
        let mut browser = browser.clone();
        framework.get_with(site, Some(site.other_process()), &mut browser, "/user").await
    };
    let answers = tokio::join!(visit(), visit(), visit(), visit());
    let good = (200, username.clone());
    assert_eq!(answers, (good.clone(), good.clone(), good.clone(), good), "{framework:?}");
    only(site.rows(&username));
}

pub(crate) async fn all_but_one(site: &Site, framework: Framework) {
    let (username, mut here) = logged_in(site, framework).await;
    let mut others = [Browser::new(), Browser::new()];
    framework.get(site, &mut others[0], &format!("/login/{username}")).await;
    visit(site, &mut others[1], &format!("login/{username}"));
    let user = site.user(&username).await;
    let refused = site.devices.end_all_sessions(&*site.store, &user, Some(&Session::new())).await;
    assert!(matches!(refused, Err(StoreError::NothingToKeep)));
    assert_eq!(site.listed(&username).len(), 3, "nothing was ended");

    assert_eq!(framework.get(site, &mut here, "/end_others").await, (200, "2".to_owned()), "{framework:?}");
    assert_eq!(only(site.listed(&username))["key"], stored_name(site, &here));
    for browser in &mut others {
        assert_eq!(framework.get(site, &mut browser.clone(), "/user").await.1, "stranger");
        assert_eq!(visit(site, browser, "user"), "stranger");
    }
    assert_eq!(framework.get(site, &mut here, "/user").await.1, username);
    assert_eq!(site.devices.end_all_sessions(&*site.store, &user, None).await.unwrap(), 1);
    assert_eq!(visit(site, &mut here, "user"), "stranger");
    assert_eq!(site.rows(&username).len(), 0);
}

const DAY: Duration = Duration::from_secs(86_400);

/// Lets time pass until every row is stale, of which none is left but those of live sessions.
async fn cleared(site: &Site) -> u64 {
    site.wait(2 * 86_400);
    site.devices.clear_stale(&*site.store, DAY).await.unwrap()
}

/// What Django would remove, where each row is old enough.
fn cleared_by_django(site: &Site) -> Value {
    site.ask("clear_stale", json!({"days": -3}))
}

pub(crate) async fn stale_ones(site: &Site, framework: Framework) {
    site.somebody();
    cleared(site).await; // of the others
    assert_eq!(cleared_by_django(site), 0, "{framework:?}: Rust left nothing behind");

    let (username, _) = logged_in(site, framework).await;
    let mut others = [Browser::new(), Browser::new(), Browser::new()];
    for browser in &mut others {
        framework.get(site, browser, &format!("/login/{username}")).await;
    }
    let key = |browser: &Browser| SessionKey::new(browser.cookie.clone().unwrap()).unwrap();
    site.store.delete(&key(&others[0])).await.unwrap();
    let mut logged_out = site.store.load(&key(&others[1])).await.unwrap();
    logged_out.clear();
    site.store.save(&mut logged_out).await.unwrap();
    let mut expired = site.store.load(&key(&others[2])).await.unwrap();
    expired.set_expiry(Some(Expiry::Seconds(-60)));
    site.store.save(&mut expired).await.unwrap();

    assert_eq!(site.rows(&username).len(), 4);
    let fresh = site.devices.clear_stale(&*site.store, DAY).await.unwrap();
    assert_eq!(fresh, 0, "{framework:?}: they were seen a moment ago");
    assert_eq!(cleared(site).await, 3, "{framework:?}");
    assert_eq!(only(site.rows(&username)), only(site.listed(&username)), "the live one stays");
    assert_eq!(cleared_by_django(site), 0);

    // The other way round.
    let (_, browser) = logged_in(site, framework).await;
    site.store.delete(&key(&browser)).await.unwrap();
    assert_eq!(cleared_by_django(site), 1);
    assert_eq!(cleared(site).await, 0, "{framework:?}");
    let for_ever = site.devices.clear_stale(&*site.store, Duration::MAX).await.unwrap();
    assert_eq!(for_ever, 0, "nothing is so old");
}

/// Of 1,200 rows those of one live session stay, which is in the second of three batches.
pub(crate) async fn more_than_a_batch(site: &Site) {
    let (username, _) = logged_in(site, Framework::Axum).await;
    let live = only(site.rows(&username));
    let sqlite = site.pool.sqlite().unwrap();
    let many = format!(
        "WITH RECURSIVE number(n) AS (SELECT -599 UNION ALL SELECT n + 1 FROM number WHERE n < 600) \
         INSERT INTO django_session_device (id, user_id, session_key, created, last_seen, user_agent) \
         SELECT n + 1000, user_id, 'gone' || n, created, last_seen, '' FROM number, django_session_device \
         WHERE id = {} AND n <> 0",
        live["id"]
    );
    sqlx::query(sqlx::AssertSqlSafe(many)).execute(sqlite).await.unwrap();
    sqlx::query("UPDATE django_session_device SET id = 1000 WHERE session_key NOT LIKE 'gone%'")
        .execute(sqlite)
        .await
        .unwrap();
    assert_eq!(site.rows(&username).len(), 1_200);
    assert_eq!(cleared(site).await, 1_199);
    assert_eq!(only(site.rows(&username))["key"], live["key"]);
}

/// Every row stays, where the store is down.
pub(crate) async fn what_does_not_answer_is_not_gone(site: &Site) {
    let (username, _) = logged_in(site, Framework::Axum).await;
    let nobody = MemcachedCache::open(&MemcachedSettings::new(["127.0.0.1:1"])).unwrap();
    let store =
        CacheStore::new(Arc::new(nobody), KeyLayout::default(), Format::django(), site.settings.clone());
    site.wait(2 * 86_400);
    let failed = site.devices.clear_stale(&store, DAY).await;
    assert!(matches!(failed, Err(StoreError::Cache(_))), "{failed:?}");
    assert_eq!(site.rows(&username).len(), 1);
}
