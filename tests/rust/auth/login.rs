//! Logging in and out, and staying logged in.

use django_sessions::backends::SessionStore;
use django_sessions::contrib::auth::{AuthError, Users};
use django_sessions::session::Session;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::site::{ALLOW_ALL, MODEL_BACKEND, Site, logged_in};

/// Sessions in which somebody may want to log in as `pk`; none for a visitor who has none.
fn sessions(site: &Site, pk: &str, other: &str) -> Vec<Option<Value>> {
    let (hashes, others) = (site.hashes(pk), site.hashes(other));
    let mut number = logged_in(pk, &hashes[0]);
    number["_auth_user_id"] = pk.parse::<i64>().map_or(json!(pk), |number| json!(number));
    let mut without_hash = logged_in(pk, "");
    without_hash.as_object_mut().unwrap().remove("_auth_user_hash");
    vec![
        None,
        Some(json!({})),
        Some(json!({"cart": ["tea"], "_csrftoken": "a".repeat(32)})),
        Some(logged_in(pk, &hashes[0])),
        Some(logged_in(pk, &hashes[1])),
        Some(logged_in(pk, "of another password")),
        Some(logged_in(pk, "")),
        Some(without_hash),
        Some(number),
        Some(logged_in(other, &others[0])),
        Some(logged_in(other, &hashes[0])),
        Some(json!({"_auth_user_hash": hashes[0], "cart": ["tea"]})),
    ]
}

pub(crate) async fn login_as_django(site: &Site) {
    let pk = site.create("login@shop.example", Some("correct horse"), json!({}));
    let other = site.create("other@shop.example", Some("correct horse"), json!({}));
    for content in sessions(site, &pk, &other) {
        let mut expected = site.ask("login", json!({"session": content, "pk": pk}));
        let mut session = site.session(content.as_ref()).await;
        let before = session.key().cloned();
        let mut user = site.user(&pk).await;
        let logged_in = site.users.login(&site.store, &mut session, &mut user).await.unwrap();
        let found = site.after(&session, before.as_ref()).await;
        let rotated = expected.as_object_mut().unwrap().remove("rotated").unwrap();
        assert_eq!(rotated, json!(logged_in.csrf_cookie.is_some()));
        assert_eq!(Value::from(found), expected, "{}: {content:?}", site.model);

        site.store.save(&mut session).await.unwrap();
        let again = site.store.load(session.key().unwrap()).await.unwrap();
        let values: serde_json::Map<_, _> =
            site.after(&again, before.as_ref()).await["content"].as_object().unwrap().clone();
        assert_eq!(site.ask("get_user", json!({"session": values}))["user"], json!(pk));
        assert_login_noted(site, &pk, user.last_login).await;
    }
    which_backend(site, &pk).await;
    csrf_secret_in_the_session(site, &pk).await;
}

/// The moment of the login, as Django reads it and as we do.
async fn assert_login_noted(site: &Site, pk: &str, noted: Option<Timestamp>) {
    let seen = site.ask("row", json!({"pk": pk}))["last_login"].as_f64();
    let stored = site.user(pk).await.last_login;
    if site.model == "accounts.Member" {
        assert_eq!((seen, stored), (None, None), "it has no such column");
        return;
    }
    let near = |moment: Timestamp| (moment.as_microsecond() as f64 / 1e6 - seen.unwrap()).abs() < 0.001;
    assert!(near(noted.unwrap()) && near(stored.unwrap()), "{noted:?} {stored:?} {seen:?}");
    assert!(Timestamp::now().as_second() - stored.unwrap().as_second() < 60);
}

/// With several backends, it must be known which of them lets the user in.
async fn which_backend(site: &Site, pk: &str) {
    let both = [MODEL_BACKEND, ALLOW_ALL];
    let users = site.with_backends(&both);
    let expected = site.ask("login", json!({"session": null, "pk": pk, "backends": both}));
    assert_eq!(expected["raised"], "ValueError");
    let mut session = Session::new();
    let mut user = site.user(pk).await;
    let refused = users.login(&site.store, &mut session, &mut user).await;
    assert!(matches!(refused, Err(AuthError::Backend)), "{refused:?}");
    assert!(session.is_empty() && session.key().is_none(), "nothing was done yet");

    let expected =
        site.ask("login", json!({"session": null, "pk": pk, "backends": both, "backend": ALLOW_ALL}));
    let mut user = user.with_backend(ALLOW_ALL);
    let _ = users.login(&site.store, &mut session, &mut user).await.unwrap();
    assert_eq!(session.get::<String>("_auth_user_backend").unwrap().as_deref(), Some(ALLOW_ALL));
    assert_eq!(expected["content"]["_auth_user_backend"], ALLOW_ALL);
}

/// `CSRF_USE_SESSIONS`: the secret is another one after the login.
async fn csrf_secret_in_the_session(site: &Site, pk: &str) {
    let mut settings = site.settings.clone();
    settings.csrf.use_sessions = true;
    let users = Users::new(site.store.pool().clone(), settings);
    let before = "a".repeat(32);
    let mut session = site.session(Some(&json!({"_csrftoken": before}))).await;
    let mut user = site.user(pk).await;
    let logged_in = users.login(&site.store, &mut session, &mut user).await.unwrap();
    assert!(logged_in.csrf_cookie.is_none(), "it is in no cookie then");
    let secret = session.get::<String>("_csrftoken").unwrap().unwrap();
    assert!(secret.len() == 32 && secret != before, "{secret}");
}

pub(crate) async fn logout_as_django(site: &Site) {
    let pk = site.create("logout@shop.example", Some("correct horse"), json!({}));
    for content in [json!({"cart": ["tea"]}), logged_in(&pk, &site.hashes(&pk)[0])] {
        let expected = site.ask("logout", json!({"session": content}));
        let mut session = site.session(Some(&content)).await;
        let before = session.key().cloned();
        site.users.logout(&site.store, &mut session).await.unwrap();
        assert_eq!(Value::from(site.after(&session, before.as_ref()).await), expected);
        assert_eq!(expected["old"], json!(false));
    }
}

pub(crate) async fn update_session_auth_hash_as_django(site: &Site) {
    let pk = site.create("changes@shop.example", Some("correct horse"), json!({}));
    let other = site.create("stays@shop.example", Some("correct horse"), json!({}));
    let contents = [
        logged_in(&pk, &site.hashes(&pk)[0]),
        logged_in(&other, &site.hashes(&other)[0]),
        json!({"cart": 1}),
    ];
    for content in contents {
        // Each password hash has a salt of its own: the two sides take turns with the same one.
        let expected = site.ask("update_session_auth_hash", json!({"session": content, "pk": pk}));
        let mut session = site.session(Some(&content)).await;
        let before = session.key().cloned();
        let user = site.user(&pk).await;
        site.users.update_session_auth_hash(&site.store, &mut session, &user).await.unwrap();
        assert_eq!(
            Value::from(site.after(&session, before.as_ref()).await),
            expected,
            "{}: {content}",
            site.model
        );
    }

    // A changed password ends every other session.
    let content = logged_in(&pk, &site.hashes(&pk)[0]);
    let (mut here, mut elsewhere) = (site.session(Some(&content)).await, site.session(Some(&content)).await);
    let mut user = site.users.get_user(&site.store, &mut here).await.unwrap().unwrap();
    site.users.set_password(&mut user, "battery staple").await.unwrap();
    site.users.update_session_auth_hash(&site.store, &mut here, &user).await.unwrap();
    assert!(site.users.get_user(&site.store, &mut elsewhere).await.unwrap().is_none());
    let kept = site.store.load(here.key().unwrap()).await.unwrap();
    let hash = kept.get::<String>("_auth_user_hash").unwrap().unwrap();
    assert_eq!(hash, site.hashes(&pk)[0], "stored already, and Django's");
}
