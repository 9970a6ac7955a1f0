//! Django's own tests of `auth_tests`, one for one, under their names; see `docs/auth-tests.md`.

use django_sessions::contrib::auth::{AuthError, User};
use django_sessions::session::Session;
use serde_json::json;

use crate::site::{ALLOW_ALL, MODEL_BACKEND, Site, logged_in};

const PASSWORD: &str = "a password";

/// A user of this name and the site; the tests share its table.
async fn site_with(username: &str) -> Option<(Site, String)> {
    let site = Site::small().await?;
    let pk = site.create(username, Some(PASSWORD), json!({"email": format!("{username}@example.com")}));
    Some((site, pk))
}

async fn logged_in_session(site: &Site, user: &mut User) -> Session {
    let mut session = Session::new();
    let _ = site.users.login(&site.store, &mut session, user).await.unwrap();
    session
}

mod test_basic {
    use super::*;

    #[tokio::test]
    async fn test_user() {
        let Some((site, pk)) = site_with("testuser").await else { return };
        let mut user = site.users.by_username("testuser").await.unwrap().unwrap();
        assert_eq!((user.id.to_string(), &*user.email), (pk, "testuser@example.com"));
        assert!(user.has_usable_password() && !user.is_staff && user.is_active && !user.is_superuser);
        assert!(!site.users.check_password(&mut user, "bad").await.unwrap());
        assert!(site.users.check_password(&mut user, PASSWORD).await.unwrap());
    }

    #[tokio::test]
    async fn test_unicode_username() {
        let Some((site, _)) = site_with("jörg").await else { return };
        for (name, is_there) in [("jörg", true), ("JÖRG", false), ("jorg", false), ("jo\u{308}rg", false)] {
            assert_eq!(site.users.by_username(name).await.unwrap().is_some(), is_there, "{name}");
        }
    }

    #[tokio::test]
    async fn test_user_no_email() {
        let Some(site) = Site::small().await else { return };
        site.create("noemail", None, json!({}));
        let user = site.users.by_username("noemail").await.unwrap().unwrap();
        assert!(user.email.is_empty() && !user.has_usable_password());
    }

    #[tokio::test]
    async fn test_superuser() {
        let Some(site) = Site::small().await else { return };
        let more = json!({"is_superuser": true, "is_staff": true});
        let user = site.user(&site.create("super", Some("super"), more)).await;
        assert!(user.is_superuser && user.is_active && user.is_staff);
    }

    #[tokio::test]
    async fn test_get_user_anonymous() {
        let Some(site) = Site::small().await else { return };
        let mut session = Session::new();
        assert!(site.users.get_user(&site.store, &mut session).await.unwrap().is_none());
        assert!(session.key().is_none() && !session.modified());
    }

    #[tokio::test]
    async fn test_get_user() {
        let Some((site, pk)) = site_with("get_user").await else { return };
        let mut session = logged_in_session(&site, &mut site.user(&pk).await).await;
        let user = site.users.get_user(&site.store, &mut session).await.unwrap().unwrap();
        assert_eq!(user.username, "get_user");
    }

    #[tokio::test]
    async fn test_get_user_fallback_secret() {
        let Some((site, pk)) = site_with("fallback").await else { return };
        let mut session = site.session(Some(&logged_in(&pk, &site.hashes(&pk)[1]))).await;
        let before = session.key().cloned();
        let user = site.users.get_user(&site.store, &mut session).await.unwrap().unwrap();
        assert_eq!(user.username, "fallback");
        assert_ne!(session.key(), before.as_ref());
        // Without the former key it is good still.
        let mut settings = site.settings.clone();
        settings.secret_keys = django_sessions::crypto::SecretKeys::new("the child's key");
        let users = django_sessions::contrib::auth::Users::new(site.store.pool().clone(), settings);
        assert!(users.get_user(&site.store, &mut session).await.unwrap().is_some());
    }
}

mod test_login {
    use super::*;

    #[tokio::test]
    async fn test_user_login() {
        let Some((site, pk)) = site_with("user_login").await else { return };
        let session = logged_in_session(&site, &mut site.user(&pk).await).await;
        assert_eq!(session.get::<String>("_auth_user_id").unwrap(), Some(pk));
    }

    #[tokio::test]
    async fn test_inactive_user() {
        let Some((site, pk)) = site_with("inactive_login").await else { return };
        site.ask("update", json!({"pk": pk, "is_active": false}));
        let session = logged_in_session(&site, &mut site.user(&pk).await).await;
        assert_eq!(session.get::<String>("_auth_user_id").unwrap(), Some(pk));
    }
}

mod test_auth_backends {
    use super::*;

    #[tokio::test]
    async fn test_has_perm() {
        let Some((site, pk)) = site_with("has_perm").await else { return };
        for (is_staff, is_superuser, is_active, has) in [
            (false, false, true, false),
            (true, false, true, false),
            (true, true, true, true),
            (true, true, false, false),
        ] {
            let fields =
                json!({"pk": pk, "is_staff": is_staff, "is_superuser": is_superuser, "is_active": is_active});
            site.ask("update", fields);
            let user = site.user(&pk).await;
            assert_eq!(site.users.has_perm(&user, "auth.test").await.unwrap(), has, "{user:?}");
            assert_eq!(site.users.has_module_perms(&user, "auth").await.unwrap(), has, "{user:?}");
        }
    }

    #[tokio::test]
    async fn test_custom_perms() {
        let Some(site) = Site::small().await else { return };
        let more = json!({
            "permissions": ["auth.add_user", "auth.change_user"],
            "groups": [["auth.view_group"], ["auth.view_group", "sessions.view_session"]],
        });
        let user = site.user(&site.create("custom_perms", None, more)).await;
        let permissions = site.users.permissions(&user).await.unwrap();
        let all = ["auth.add_user", "auth.change_user", "auth.view_group", "sessions.view_session"];
        assert!(permissions.iter().eq(all));
        assert!(!permissions.has_module_perms("Group") && permissions.has_module_perms("auth"));
        assert!(!permissions.has_perm("add_user") && permissions.has_perm("auth.add_user"));
        assert!(permissions.has_perms(["auth.add_user", "sessions.view_session"]));
        assert!(!permissions.has_perms(["auth.add_user", "sessions.add_session"]));
    }

    #[tokio::test]
    async fn test_inactive_has_no_permissions() {
        let Some(site) = Site::small().await else { return };
        let more =
            json!({"permissions": ["auth.add_user"], "groups": [["auth.view_group"]], "is_active": false});
        let user = site.user(&site.create("inactive_perms", None, more)).await;
        assert_eq!(site.users.permissions(&user).await.unwrap().iter().count(), 0);
        assert!(!site.users.has_perm(&user, "auth.add_user").await.unwrap());
        assert!(!site.users.has_module_perms(&user, "auth").await.unwrap());
    }

    #[tokio::test]
    async fn test_get_all_superuser_permissions() {
        let Some(site) = Site::small().await else { return };
        let pk = site.create("all_perms", None, json!({"is_superuser": true}));
        let all = site.ask("perms", json!({"pk": pk, "names": [], "modules": []}));
        let permissions = site.users.permissions(&site.user(&pk).await).await.unwrap();
        assert!(permissions.iter().count() > 15);
        assert_eq!(json!(permissions.iter().collect::<Vec<_>>()), all["all"]);
    }

    #[tokio::test]
    async fn test_authenticate_inactive() {
        let Some((site, pk)) = site_with("authenticate_inactive").await else { return };
        let found = site.users.authenticate("authenticate_inactive", PASSWORD).await.unwrap().unwrap();
        assert_eq!(found.id.to_string(), pk);
        site.ask("update", json!({"pk": pk, "is_active": false}));
        assert!(site.users.authenticate("authenticate_inactive", PASSWORD).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn test_changed_backend_settings() {
        let Some((site, pk)) = site_with("changed_backend").await else { return };
        let mut session = logged_in_session(&site, &mut site.user(&pk).await).await;
        let users = site.with_backends(&["shop.backends.NewModelBackend"]);
        assert!(users.get_user(&site.store, &mut session).await.unwrap().is_none());
        assert!(session.contains_key("_auth_user_id"), "Django leaves it there");
    }

    #[tokio::test]
    async fn test_backend_path() {
        let Some((site, _)) = site_with("backend_path").await else { return };
        let mut user = site.users.authenticate("backend_path", PASSWORD).await.unwrap().unwrap();
        let session = logged_in_session(&site, &mut user).await;
        assert_eq!(session.get::<String>("_auth_user_backend").unwrap().as_deref(), Some(MODEL_BACKEND));
    }

    #[tokio::test]
    async fn test_backend_path_login_without_authenticate_single_backend() {
        let Some((site, pk)) = site_with("single_backend").await else { return };
        let users = site.with_backends(&["shop.backends.CustomModelBackend"]);
        let (mut session, mut user) = (Session::new(), site.user(&pk).await);
        let _ = users.login(&site.store, &mut session, &mut user).await.unwrap();
        let backend = session.get::<String>("_auth_user_backend").unwrap();
        assert_eq!(backend.as_deref(), Some("shop.backends.CustomModelBackend"));
    }

    #[tokio::test]
    async fn test_backend_path_login_without_authenticate_multiple_backends() {
        let Some((site, pk)) = site_with("multiple_backends").await else { return };
        let users =
            site.with_backends(&["shop.backends.CustomModelBackend", "shop.backends.OtherModelBackend"]);
        let (mut session, mut user) = (Session::new(), site.user(&pk).await);
        let refused = users.login(&site.store, &mut session, &mut user).await.unwrap_err();
        assert!(matches!(refused, AuthError::Backend) && refused.to_string().contains("with_backend"));
    }

    #[tokio::test]
    async fn test_backend_path_login_with_explicit_backends() {
        let Some((site, pk)) = site_with("explicit_backend").await else { return };
        let users =
            site.with_backends(&["shop.backends.CustomModelBackend", "shop.backends.OtherModelBackend"]);
        let mut user = site.user(&pk).await.with_backend("shop.backends.OtherModelBackend");
        let mut session = Session::new();
        let _ = users.login(&site.store, &mut session, &mut user).await.unwrap();
        let backend = session.get::<String>("_auth_user_backend").unwrap();
        assert_eq!(backend.as_deref(), Some("shop.backends.OtherModelBackend"));
    }

    mod allow_all_users_model_backend {
        use super::*;

        #[tokio::test]
        async fn test_authenticate() {
            let Some((site, pk)) = site_with("allow_all").await else { return };
            site.ask("update", json!({"pk": pk, "is_active": false}));
            let users = site.with_backends(&[ALLOW_ALL]);
            assert!(!users.authenticate("allow_all", PASSWORD).await.unwrap().unwrap().is_active);
        }

        #[tokio::test]
        async fn test_get_user() {
            let Some((site, pk)) = site_with("allow_all_get").await else { return };
            site.ask("update", json!({"pk": pk, "is_active": false}));
            let users = site.with_backends(&[ALLOW_ALL]);
            let (mut session, mut user) = (Session::new(), site.user(&pk).await);
            let _ = users.login(&site.store, &mut session, &mut user).await.unwrap();
            assert_eq!(
                users.get_user(&site.store, &mut session).await.unwrap().map(|user| user.id.to_string()),
                Some(pk)
            );
        }
    }
}

mod test_middleware {
    use super::*;

    #[tokio::test]
    async fn test_no_password_change_doesnt_invalidate_session() {
        let Some((site, pk)) = site_with("no_change").await else { return };
        let mut session = logged_in_session(&site, &mut site.user(&pk).await).await;
        for _ in 0..2 {
            assert!(site.users.get_user(&site.store, &mut session).await.unwrap().is_some());
        }
    }

    #[tokio::test]
    async fn test_changed_password_invalidates_session() {
        let Some((site, pk)) = site_with("change").await else { return };
        let mut user = site.user(&pk).await;
        let mut session = logged_in_session(&site, &mut user).await;
        site.users.set_password(&mut user, "new_password").await.unwrap();
        assert!(site.users.get_user(&site.store, &mut session).await.unwrap().is_none());
        assert!(session.is_empty() && session.key().is_none());
    }
}
