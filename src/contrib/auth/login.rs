//! Logging in and out, `django.contrib.auth.login` and `logout`.

use super::{
    AuthError, BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, User, UserId, Users, claimed_user_id,
    session_auth_hash, user_id_of,
};
use crate::backends::{SessionStore, StoreError};
use crate::contrib::csrf::{CSRF_SESSION_KEY, CsrfSecret};
use crate::crypto::{Algorithm, constant_time_compare};
use crate::session::Session;

/// What is left to do after [`Users::login`].
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "the browser's CSRF cookie is to be replaced"]
pub struct LoggedIn {
    /// The browser's new CSRF secret, to send as the CSRF cookie. None with `CSRF_USE_SESSIONS`: it is in the session.
    pub csrf_cookie: Option<CsrfSecret>,
}

impl Users {
    /// Logs `user` in to the session, as `django.contrib.auth.login` does; save the session afterwards, and send its key.
    ///
    /// The session gets a new key, so that nobody who planted the old one is logged in with it. What is in it stays, unless
    /// somebody else was logged in, or the same user with another password: then it is flushed. The moment is noted as the
    /// user's last login.
    ///
    /// ```no_run
    /// # #[cfg(feature = "hashers")]
    /// # async fn example(
    /// #     users: django_sessions::contrib::auth::Users,
    /// #     store: std::sync::Arc<dyn django_sessions::backends::SessionStore>,
    /// #     mut session: django_sessions::session::Session,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// if let Some(mut user) = users.authenticate("ada", "correct horse").await? {
    ///     let logged_in = users.login(&*store, &mut session, &mut user).await?;
    ///     store.save(&mut session).await?;
    ///     if let Some(secret) = logged_in.csrf_cookie {
    ///         println!("Set-Cookie: csrftoken={}", secret.expose());
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When the store or the database fails, and [`AuthError::Backend`] for a user whom `authenticate` did not let in, where
    /// there are several `AUTHENTICATION_BACKENDS`.
    pub async fn login<S>(
        &self,
        store: &S,
        session: &mut Session,
        user: &mut User,
    ) -> Result<LoggedIn, AuthError>
    where
        S: SessionStore + ?Sized,
    {
        // Django finds out later, with the session flushed already.
        let backend = self.backend_of(user)?.to_owned();
        let hash = self.session_hash(user);
        if session.contains_key(SESSION_KEY) {
            let present = session.get::<String>(HASH_SESSION_KEY).ok().flatten().unwrap_or_default();
            if self.session_user(session).as_ref() != Some(&user.id)
                || !constant_time_compare(present.as_bytes(), hash.as_bytes())
            {
                store.flush(session).await?;
            }
        } else {
            store.cycle_key(session).await?;
        }
        session.insert(SESSION_KEY, &user.id.to_string()).map_err(StoreError::from)?;
        session.insert(BACKEND_SESSION_KEY, &backend).map_err(StoreError::from)?;
        session.insert(HASH_SESSION_KEY, &hash).map_err(StoreError::from)?;
        let csrf_cookie = self.rotate_csrf(session)?;
        self.update_last_login(user).await?;
        Ok(LoggedIn { csrf_cookie })
    }

    /// Logs out: the session's values, what is stored and its key are gone (`django.contrib.auth.logout`).
    ///
    /// # Errors
    /// When the store fails.
    pub async fn logout<S>(&self, store: &S, session: &mut Session) -> Result<(), StoreError>
    where
        S: SessionStore + ?Sized,
    {
        store.flush(session).await
    }

    /// Keeps a user logged in whose password was just changed: the session gets a new key and the hash of the new password
    /// (`update_session_auth_hash`). Save it afterwards. The user's other sessions are over.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn update_session_auth_hash<S>(
        &self,
        store: &S,
        session: &mut Session,
        user: &User,
    ) -> Result<(), StoreError>
    where
        S: SessionStore + ?Sized,
    {
        // Before the session is stored under its new key.
        if claimed_user_id(session, &self.settings).is_some()
            && self.session_user(session).as_ref() == Some(&user.id)
        {
            session.insert(HASH_SESSION_KEY, &self.session_hash(user))?;
        }
        store.cycle_key(session).await
    }

    pub(super) fn session_hash(&self, user: &User) -> String {
        session_auth_hash(&user.password, self.settings.secret_keys.current(), Algorithm::Sha256)
    }

    /// Whom the session names, whether that holds or not.
    fn session_user(&self, session: &Session) -> Option<UserId> {
        UserId::parse(&user_id_of(session)?, self.auth().pk_type)
    }

    /// `_get_backend_from_user`.
    fn backend_of<'a>(&'a self, user: &'a User) -> Result<&'a str, AuthError> {
        match (&user.backend, &self.settings.authentication_backends[..]) {
            (Some(backend), _) => Ok(backend),
            (None, [backend]) => Ok(backend),
            (None, _) => Err(AuthError::Backend),
        }
    }

    /// `django.middleware.csrf.rotate_token`.
    fn rotate_csrf(&self, session: &mut Session) -> Result<Option<CsrfSecret>, StoreError> {
        let secret = CsrfSecret::random()?;
        if !self.settings.csrf.use_sessions {
            return Ok(Some(secret));
        }
        session.insert(CSRF_SESSION_KEY, secret.expose())?;
        Ok(None)
    }

    /// The receiver of Django's signal `user_logged_in`.
    async fn update_last_login(&self, user: &mut User) -> Result<(), StoreError> {
        let (Some(statement), Some(key)) = (&self.statements.set_last_login, self.key(&user.id)) else {
            return Ok(());
        };
        let now = (self.clock)();
        self.pool.execute(statement, &[&self.pool.moment(now, &self.zone), &key]).await?;
        user.last_login = Some(now);
        Ok(())
    }
}
