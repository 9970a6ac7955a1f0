//! Users, logins, passwords and permissions beside a real Django, with its own user model and with others, on each
//! database. Which of Django's own tests each mirrors is told in `docs/auth-tests.md`.

#[allow(dead_code, reason = "each test uses what it needs of it")]
mod django;
#[path = "auth/login.rs"]
mod login;
#[path = "auth/mirrored.rs"]
mod mirrored;
#[path = "auth/passwords.rs"]
mod passwords;
#[path = "auth/permissions.rs"]
mod permissions;
#[allow(dead_code, reason = "as above")]
mod servers;
#[path = "auth/sessions.rs"]
mod sessions;
#[path = "auth/site.rs"]
mod site;
#[path = "auth/web.rs"]
mod web;

use serde_json::{Value, json};
use site::Site;

/// Django's own model; UUIDs, an address to log in with, names that need quotes; text and no flags; inheritance.
const MODELS: [&str; 4] = ["auth.User", "accounts.Customer", "accounts.Member", "accounts.Clerk"];

async fn play(database: impl Fn(&str) -> Value) {
    for model in MODELS {
        let Some(site) = Site::start(&database(model), model).await else { return };
        sessions::get_user_as_django(&site).await;
        sessions::rows_become_structs(&site).await;
        login::login_as_django(&site).await;
        login::logout_as_django(&site).await;
        login::update_session_auth_hash_as_django(&site).await;
        passwords::authenticate_as_django(&site).await;
        passwords::hashes_are_renewed(&site).await;
        passwords::set_password(&site).await;
        permissions::permissions_as_django(&site).await;
        if model == "accounts.Customer" {
            sessions::uuids_as_text(&site).await;
        }
    }
}

#[tokio::test]
async fn on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    play(|model| {
        json!({"ENGINE": "django.db.backends.sqlite3", "NAME": folder.path().join(format!("{model}.sqlite3"))})
    })
    .await;
}

async fn on_server(name: &'static str, engine: &str) {
    let Some(servers) = servers::Servers::start(&[name]) else { return };
    play(|model| {
        json!({
            "ENGINE": format!("django.db.backends.{engine}"),
            "NAME": model.replace('.', "_").to_lowercase(),
            "HOST": "127.0.0.1",
            "PORT": servers.number(name, "port"),
            "USER": servers.text(name, "user"),
            "PASSWORD": servers.text(name, "password"),
        })
    })
    .await;
}

#[tokio::test]
async fn on_postgres() {
    on_server("postgres", "postgresql").await;
}

#[tokio::test]
async fn on_mariadb() {
    on_server("mariadb", "mysql").await;
}
