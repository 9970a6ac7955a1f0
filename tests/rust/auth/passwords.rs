//! Names and passwords, checked and set.

use std::time::{Duration, Instant};

use django_sessions::contrib::auth::hashers::{Hasher, HasherError, Hashers};
use django_sessions::contrib::auth::{AuthError, Users};
use serde_json::{Value, json};

use crate::site::{ALLOW_ALL, MODEL_BACKEND, Site};

pub(crate) async fn authenticate_as_django(site: &Site) {
    let password = "pässwörd 🦀";
    site.create("Ada@shop.example", Some(password), json!({}));
    site.create("idle@shop.example", Some(password), json!({"is_active": false}));
    site.create("unusable@shop.example", None, json!({}));
    let nul = "with\0nul";
    site.create("nul@shop.example", Some(nul), json!({}));
    let long = "x".repeat(5000);
    site.create("long@shop.example", Some(&long), json!({}));
    site.create("empty@shop.example", Some(""), json!({}));
    let broken = site.create("broken@shop.example", Some(password), json!({}));
    site.ask("update", json!({"pk": broken, "password": "gibberish"}));

    let names = [
        "Ada@shop.example",
        "ada@shop.example",
        " Ada@shop.example",
        "idle@shop.example",
        "unusable@shop.example",
        "nul@shop.example",
        "long@shop.example",
        "empty@shop.example",
        "broken@shop.example",
        "nobody",
        "",
        "'; --",
        "Ａda@shop.example",
        "Ada@shop.example\0",
    ];
    let mut names: Vec<String> = names.map(str::to_owned).into();
    names.push("n".repeat(100_000));
    let passwords = [password, "wrong", "", nul, &long, "with", "PÄSSWÖRD 🦀"];
    let mut accepted = 0;
    for (number, name) in names.iter().enumerate() {
        for (other, password) in passwords.iter().enumerate() {
            let both = [MODEL_BACKEND, ALLOW_ALL];
            let backends = match (number + other) % 3 {
                0 => &both[..1],
                1 => &both[1..],
                _ => &both[..],
            };
            let expected = site
                .ask("authenticate", json!({"username": name, "password": password, "backends": backends}));
            let found = site.with_backends(backends).authenticate(name, password).await.unwrap();
            let found = found.map(|user| user.id.to_string());
            if expected["raised"] == "ValueError" || expected["raised"] == "DataError" {
                // Django answers 500 to a NUL in a name, on PostgreSQL.
                assert!(name.contains('\0') && found.is_none(), "{expected} {name:?}");
                continue;
            }
            // The second of two backends is asked where the first refused; this crate asks one.
            if backends.len() == 2 && name.starts_with("idle") {
                continue;
            }
            assert_eq!(json!(found), expected["user"], "{}, {backends:?}: {name:?} {password:?}", site.model);
            accepted += usize::from(found.is_some());
        }
    }
    assert!(accepted >= 4, "{accepted}");
    passwords_of_other_hashers(site).await;
}

/// Of a hasher that is not here: Django lets them in, and here it is said why not.
async fn passwords_of_other_hashers(site: &Site) {
    let pk = site.create("md5@shop.example", Some("x"), json!({}));
    let hash = site.ask("make_hash", json!({"password": "correct horse", "hasher": "md5"}));
    site.ask("update", json!({"pk": pk, "password": hash}));
    let refused = site.users.authenticate("md5@shop.example", "correct horse").await.unwrap_err();
    assert!(matches!(refused, AuthError::Hasher(HasherError::Unknown { .. })), "{refused:?}");
    let text = format!("{refused:?} {}", std::error::Error::source(&refused).unwrap());
    assert!(text.contains("MD5PasswordHasher") && !text.contains(hash.as_str().unwrap()), "{text}");
    assert_eq!(
        site.ask("authenticate", json!({"username": "md5@shop.example", "password": "correct horse"}))["user"],
        json!(pk)
    );
}

/// A weaker hash is renewed at login, and the session's hash is of the new one.
pub(crate) async fn hashes_are_renewed(site: &Site) {
    let renewing =
        Hashers::new([Hasher::Pbkdf2Sha256 { iterations: 2000 }, Hasher::Pbkdf2Sha1 { iterations: 1 }]);
    let renewing = site.users.clone().with_hashers(renewing);
    for (name, hasher) in [("sha1@shop.example", "pbkdf2_sha1"), ("fewer@shop.example", "pbkdf2_sha256")] {
        let pk = site.create(name, Some("x"), json!({"is_active": true}));
        let hash = site.ask("make_hash", json!({"password": "correct horse", "hasher": hasher}));
        site.ask("update", json!({"pk": pk, "password": hash}));
        assert!(renewing.authenticate(name, "wrong").await.unwrap().is_none());
        assert_eq!(site.ask("row", json!({"pk": pk}))["password"], hash, "only the right one renews it");

        let mut user = renewing.authenticate(name, "correct horse").await.unwrap().unwrap();
        let now = site.ask("row", json!({"pk": pk}))["password"].clone();
        assert!(now.as_str().unwrap().starts_with("pbkdf2_sha256$2000$"), "{now}");
        let mut session = site.session(Some(&json!({}))).await;
        let _ = renewing.login(&site.store, &mut session, &mut user).await.unwrap();
        let expected: Value = site.hashes(&pk)[0].clone().into();
        assert_eq!(json!(session.get::<String>("_auth_user_hash").unwrap()), expected);
        assert_eq!(site.ask("check_password", json!({"pk": pk, "password": "correct horse"})), json!(true));
    }
    both_of_two_logins_at_once_stay(site, &renewing).await;
    not_over_a_new_password(site).await;
}

/// A double click on "log in": one of them renews the hash, and the sessions of both are of the new one.
async fn both_of_two_logins_at_once_stay(site: &Site, renewing: &Users) {
    let pk = site.create("twice@shop.example", Some("x"), json!({}));
    let hash = site.ask("make_hash", json!({"password": "correct horse", "hasher": "pbkdf2_sha256"}));
    site.ask("update", json!({"pk": pk, "password": hash}));
    let authenticate = || renewing.authenticate("twice@shop.example", "correct horse");
    let (one, other) = tokio::join!(authenticate(), authenticate());
    for user in [one, other] {
        let mut session = site.session(Some(&json!({}))).await;
        let _ = renewing.login(&site.store, &mut session, &mut user.unwrap().unwrap()).await.unwrap();
        let found = renewing.get_user(&site.store, &mut session).await.unwrap();
        assert_eq!(found.map(|user| user.id.to_string()), Some(pk.clone()), "{}", site.model);
    }
}

/// Somebody sets another password between the check and the renewal: then what was checked is not the password any more.
async fn not_over_a_new_password(site: &Site) {
    let pk = site.create("race@shop.example", Some("correct horse"), json!({}));
    let hashers = Hashers::new([Hasher::Pbkdf2Sha256 { iterations: 2000 }]);
    let mut user = site.user(&pk).await;
    let other = site.ask("make_hash", json!({"password": "battery staple", "hasher": "default"}));
    site.ask("update", json!({"pk": pk, "password": other}));
    let users = site.users.clone().with_hashers(hashers);
    assert!(!users.check_password(&mut user, "correct horse").await.unwrap());
    assert_eq!(site.ask("row", json!({"pk": pk}))["password"], other);
}

pub(crate) async fn set_password(site: &Site) {
    let pk = site.create("set@shop.example", Some("correct horse"), json!({}));
    let mut user = site.user(&pk).await;
    site.users.set_password(&mut user, "battery staple").await.unwrap();
    for (password, is_right) in [("battery staple", true), ("correct horse", false)] {
        assert_eq!(site.ask("check_password", json!({"pk": pk, "password": password})), json!(is_right));
        assert_eq!(site.users.check_password(&mut user, password).await.unwrap(), is_right);
    }
    assert!(user.has_usable_password());
    let unusable = site.create("unset@shop.example", None, json!({}));
    assert!(!site.user(&unusable).await.has_usable_password());
}

/// The quickest of some: others use these cores too.
async fn shortest(run: impl AsyncFn()) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        run().await;
        shortest = shortest.min(began.elapsed());
    }
    shortest
}

/// An unknown name costs a hashing, as a wrong password does, and as an account without a password.
#[tokio::test]
async fn time_does_not_tell_who_is_there() {
    let Some(site) = Site::small().await else { return };
    let users = site.users.clone().with_hashers(Hashers::new([Hasher::Pbkdf2Sha256 { iterations: 300_000 }]));
    let pk = site.create("timed", Some("x"), json!({}));
    let mut user = site.user(&pk).await;
    users.set_password(&mut user, "correct horse").await.unwrap();
    site.create("unusable", None, json!({}));
    site.create("fewer", Some("x"), json!({})); // 1000 rounds
    let refuse = async |name: &str| assert!(users.authenticate(name, "wrong").await.unwrap().is_none());
    let wrong = shortest(async || refuse("timed").await).await;
    for name in ["nobody", "unusable", "fewer"] {
        let took = shortest(async || refuse(name).await).await;
        let ratio = took.as_secs_f64() / wrong.as_secs_f64();
        assert!((0.4..2.5).contains(&ratio), "{name}: {took:?}, and {wrong:?} for a wrong password");
    }
    assert!(wrong > Duration::from_millis(5), "{wrong:?} is too short to tell anything");
}

/// Which of the backends checks passwords, and whom it lets in.
#[tokio::test]
async fn backends_that_check_passwords() {
    let Some(site) = Site::small().await else { return };
    site.create("backends", Some("correct horse"), json!({}));
    let remote = "django.contrib.auth.backends.RemoteUserBackend";
    for (backends, expected) in [
        (&[MODEL_BACKEND][..], Some(MODEL_BACKEND)),
        (&["shop.backends.Own", MODEL_BACKEND], Some(MODEL_BACKEND)),
        (&["shop.backends.Own"], Some("shop.backends.Own")),
        (&[remote, "shop.backends.Own"], Some("shop.backends.Own")),
        (&["shop.backends.Own", "shop.backends.Other"], None),
        (&[remote], None),
        (&[], None),
    ] {
        let users = site.with_backends(backends);
        let mut session = site.session(Some(&json!({}))).await;
        match users.authenticate("backends", "correct horse").await {
            Ok(user) => {
                let _ = users.login(&site.store, &mut session, &mut user.unwrap()).await.unwrap();
                assert_eq!(session.get::<String>("_auth_user_backend").unwrap().as_deref(), expected);
                assert!(users.get_user(&site.store, &mut session).await.unwrap().is_some());
            }
            Err(error) => {
                assert!(matches!(error, AuthError::PasswordBackend) && expected.is_none(), "{error:?}")
            }
        }
    }
}
