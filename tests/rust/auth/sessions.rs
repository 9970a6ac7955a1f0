//! Who is logged in, for a systematic set of sessions.

use django_sessions::backends::db::Vendor;
use django_sessions::contrib::auth::Users;
use django_sessions::settings::{FileFormat, Settings};
use serde_json::{Value, json};

use crate::site::{ALLOW_ALL, MODEL_BACKEND, Site};

/// Every id with every backend and every hash that a session can have.
fn sessions(site: &Site) -> Vec<Value> {
    let active = site.create("active@shop.example", Some("correct horse"), json!({}));
    let inactive = site.create("inactive@shop.example", Some("correct horse"), json!({"is_active": false}));
    let unknown = match site.model.as_str() {
        "accounts.Customer" => "0d8a0f0c-5b8d-4b0f-8a3c-6a1f2e3d4c5b",
        _ => "4711",
    };
    let mut ids: Vec<(Option<Value>, &str)> = vec![
        (None, &active),
        (Some(json!(active)), &active),
        (Some(json!(inactive)), &inactive),
        (Some(json!(unknown)), &active),
        (Some(json!("no such thing")), &active),
        (Some(json!("")), &active),
        (Some(json!("9".repeat(30))), &active),
        (Some(json!(format!(" {active}"))), &active),
        (Some(json!(active.to_uppercase())), &active),
        (Some(json!(active.replace('-', ""))), &active),
        (Some(json!(format!("{{{active}}}"))), &active),
    ];
    if let Ok(number) = active.parse::<i64>() {
        ids.push((Some(json!(number)), &active));
        ids.push((Some(json!(format!("{number}.0"))), &active));
    }
    let backends = [Some(MODEL_BACKEND), Some(ALLOW_ALL), Some("shop.backends.Retired"), None];
    let mut sessions = Vec::new();
    for (id, owner) in &ids {
        let hashes = site.hashes(owner);
        let wrong = format!("{}0", &hashes[0][..hashes[0].len() - 1]);
        let mut given: Vec<Option<Value>> = hashes.iter().map(|hash| Some(json!(hash))).collect();
        given.extend([Some(json!(wrong)), Some(json!("")), Some(json!(null)), Some(json!(5)), None]);
        for backend in backends {
            for hash in &given {
                let mut session = json!({"cart": ["tea"]});
                for (key, value) in [
                    ("_auth_user_id", id.clone()),
                    ("_auth_user_backend", backend.map(Into::into)),
                    ("_auth_user_hash", hash.clone()),
                ] {
                    if let Some(value) = value {
                        session[key] = value;
                    }
                }
                sessions.push(session);
            }
        }
    }
    sessions
}

pub(crate) async fn get_user_as_django(site: &Site) {
    let (mut somebody, mut renewed, mut flushed, mut raised) = (0, 0, 0, 0);
    let all = [MODEL_BACKEND, ALLOW_ALL];
    // The same questions go to each database; on servers, some of them.
    let step = if site.store.pool().vendor() == Vendor::Sqlite { 1 } else { 5 };
    for (number, content) in sessions(site).iter().enumerate().step_by(step) {
        // Each list of backends has its turn with each combination.
        let backends = &all[..1 + number / 5 % 2];
        let users = site.with_backends(backends);
        let mut expected = site.ask("get_user", json!({"session": content, "backends": backends}));
        let mut session = site.session(Some(content)).await;
        let before = session.key().cloned();
        let user = users.get_user(&site.store, &mut session).await.unwrap();
        let mut found = site.after(&session, before.as_ref()).await;
        found.insert("user".to_owned(), json!(user.map(|user| user.id.to_string())));
        if expected.get("raised").is_some() {
            // Django answers 500 to an id that is none; here nobody is logged in.
            raised += 1;
            expected = json!({
                "user": null, "key": "kept", "content": content, "old": true, "modified": false,
            });
        }
        assert_eq!(Value::from(found), expected, "{}, {backends:?}: {content}", site.model);
        somebody += usize::from(!expected["user"].is_null());
        renewed += usize::from(expected["key"] == "new");
        flushed += usize::from(expected["key"] == "none");
    }
    let model = &site.model;
    let least = if step == 1 { 8 } else { 1 };
    assert!(
        somebody > least && renewed > least / 2 && flushed > least,
        "{model}: {somebody}, {renewed}, {flushed}"
    );
    assert!(raised > 0 || model == "accounts.Member", "every text is a key of text only");
}

/// Columns that `User` has not, by name; a row that is missing; a column that is missing.
pub(crate) async fn rows_become_structs(site: &Site) {
    #[derive(sqlx::FromRow)]
    struct Customer {
        credit: i64,
        password: String,
    }
    #[derive(sqlx::FromRow)]
    struct Clerk {
        desk: String,
        first_name: String,
        is_active: bool,
    }
    #[derive(Debug, sqlx::FromRow)]
    struct Other {
        #[allow(dead_code)]
        no_such_column: String,
    }
    let pk = site.create(
        "row@shop.example",
        Some("x"),
        json!({"credit": 12, "desk": "left", "first_name": "Ada"}),
    );
    let user = site.user(&pk).await;
    if site.model != "auth.User" {
        let customer: Customer = site.users.fetch_as(&user).await.unwrap().unwrap();
        assert_eq!(
            (customer.credit, &*customer.password),
            (12, site.ask("row", json!({"pk": pk}))["password"].as_str().unwrap())
        );
    }
    if site.model == "accounts.Clerk" {
        let clerk: Clerk = site.users.fetch_as(&user).await.unwrap().unwrap();
        assert_eq!((&*clerk.desk, &*clerk.first_name, clerk.is_active), ("left", "Ada", true));
    }
    assert!(site.users.fetch_as::<Other>(&user).await.is_err());
    let nobody = site.users.fetch_as::<Customer>("0d8a0f0c-5b8d-4b0f-8a3c-6a1f2e3d4c5b").await.unwrap();
    assert!(nobody.is_none());
    if site.model != "accounts.Member" {
        assert!(site.users.by_id("nothing that could be a key").await.unwrap().is_none());
    }
    let shown = format!("{user:?} {:?}", site.users);
    assert!(!shown.contains("pbkdf2") && !shown.contains("child's key"), "{shown}");
}

/// MySQL, and MariaDB before 10.7 or of an older Django, keep a UUID as 32 digits.
pub(crate) async fn uuids_as_text(site: &Site) {
    let Some(pool) = site.store.pool().mysql() else { return };
    let table =
        "CREATE TABLE old_customer (id char(32) PRIMARY KEY, username varchar(20), password varchar(128))";
    sqlx::query(table).execute(pool).await.unwrap();
    let row = "INSERT INTO old_customer VALUES ('0d8a0f0c5b8d4b0f8a3c6a1f2e3d4c5b', 'ada', 'x')";
    sqlx::query(row).execute(pool).await.unwrap();
    let text = json!({"version": 1, "secret_key": "x", "auth": {
        "table": "old_customer", "pk_type": "uuid", "is_active_column": false, "is_staff_column": false,
        "is_superuser_column": false, "email_column": false, "last_login_column": false, "permissions": false,
    }});
    let settings = Settings::from_str(&text.to_string(), FileFormat::Json).unwrap();
    let users = Users::new(pool.clone(), settings);
    let id = "0d8a0f0c-5b8d-4b0f-8a3c-6a1f2e3d4c5b";
    assert_eq!(users.by_id(id).await.unwrap().unwrap().username, "ada");
    assert_eq!(users.by_username("ada").await.unwrap().unwrap().id.to_string(), id);
}
