//! "Where you are signed in", beside a real Django with the app of devices: the same rows, whoever writes them.

#[path = "devices/agents.rs"]
mod agents;
#[path = "devices/apps.rs"]
mod apps;
mod django;
#[path = "devices/failures.rs"]
mod failures;
#[path = "devices/hashed_keys.rs"]
mod hashed_keys;
#[allow(dead_code, reason = "each test uses what it needs of it")]
mod logged;
#[path = "devices/rows.rs"]
mod rows;
#[allow(dead_code, reason = "each test uses what it needs of it")]
mod servers;
#[path = "devices/site.rs"]
mod site;

use serde_json::{Value, json};
use site::Site;

async fn play(database: Value, hash_keys: &str) {
    let Some(site) = Site::start(&database, hash_keys).await else { return };
    for framework in apps::BOTH {
        rows::a_login_makes_a_row_that_django_lists(&site, framework).await;
        rows::a_login_in_django_is_listed(&site, framework).await;
        rows::no_second_row(&site, framework).await;
        rows::once_a_minute(&site, framework).await;
        rows::a_new_key_keeps_the_row(&site, framework).await;
        rows::a_new_key_with_an_error_of_the_server(&site, framework).await;
        rows::a_logout_deletes(&site, framework).await;
        rows::a_session_that_django_ends_is_over(&site, framework).await;
        rows::a_new_password(&site, framework).await;
        rows::at_once(&site, framework).await;
        rows::all_but_one(&site, framework).await;
        rows::stale_ones(&site, framework).await;
        failures::a_user_who_is_gone(&site, framework).await;
    }
}

fn sqlite(folder: &tempfile::TempDir) -> Value {
    json!({"ENGINE": "django.db.backends.sqlite3", "NAME": folder.path().join("site.sqlite3")})
}

#[tokio::test]
async fn on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    play(sqlite(&folder), "off").await;
}

#[tokio::test]
async fn on_sqlite_with_hashed_keys() {
    let folder = tempfile::tempdir().unwrap();
    play(sqlite(&folder), "sha256").await;
}

#[tokio::test]
async fn many_stale_rows() {
    let folder = tempfile::tempdir().unwrap();
    let Some(site) = Site::start(&sqlite(&folder), "off").await else { return };
    rows::more_than_a_batch(&site).await;
    rows::what_does_not_answer_is_not_gone(&site).await;
}

async fn on_server(name: &'static str, engine: &str, hash_keys: &str) {
    let Some(servers) = servers::Servers::start(&[name]) else { return };
    let database = json!({
        "ENGINE": format!("django.db.backends.{engine}"),
        "NAME": "devices",
        "HOST": "127.0.0.1",
        "PORT": servers.number(name, "port"),
        "USER": servers.text(name, "user"),
        "PASSWORD": servers.text(name, "password"),
    });
    play(database, hash_keys).await;
}

#[tokio::test]
async fn on_postgres() {
    on_server("postgres", "postgresql", "sha256").await;
}

#[tokio::test]
async fn on_mariadb() {
    on_server("mariadb", "mysql", "off").await;
}
