//! Checking and setting passwords, as `ModelBackend` and `AbstractBaseUser` do.

use std::sync::Arc;

use super::hashers::{HasherError, Hashers};
use super::{AuthError, MODEL_BACKENDS, REMOTE_USER_BACKENDS, User, Users, lets_inactive_in};

impl Users {
    /// Uses these hashers in place of those of [`AuthSettings`](crate::settings::AuthSettings).
    #[must_use]
    pub fn with_hashers(mut self, hashers: Hashers) -> Self {
        self.hashers = Some(Arc::new(hashers));
        self
    }

    /// The user whose name and password these are (`django.contrib.auth.authenticate`), to be handed to
    /// [`login`](Self::login). `None` for an unknown name, a wrong password and an inactive user: which of them it was, the
    /// time does not tell either.
    ///
    /// A password whose hash is of another hasher or cost than the settings ask for is hashed anew and stored. Hashing is
    /// done on a thread for it. An event loop with few such threads, or a flood of logins, wants a limit of your own.
    ///
    /// Django's login form, before it calls `authenticate`, normalizes the name (NFKC); this does not.
    ///
    /// # Errors
    /// When the database fails, a stored hash is damaged, or `PASSWORD_HASHERS` or `AUTHENTICATION_BACKENDS` name none that
    /// this crate knows.
    pub async fn authenticate(&self, username: &str, password: &str) -> Result<Option<User>, AuthError> {
        let backend = self.password_backend()?.to_owned();
        let Some(mut user) = self.by_username(username).await? else {
            let password = password.to_owned();
            self.hash(move |hashers| hashers.make_password(&password)).await?;
            return Ok(None);
        };
        let is_correct = self.check_password(&mut user, password).await?;
        let is_let_in = is_correct && (user.is_active || lets_inactive_in(&backend));
        Ok(is_let_in.then(|| user.with_backend(backend)))
    }

    /// Whether this is the user's password (`user.check_password`); renews its hash if that is due.
    ///
    /// # Errors
    /// As [`authenticate`](Self::authenticate).
    pub async fn check_password(&self, user: &mut User, password: &str) -> Result<bool, AuthError> {
        let (given, encoded) = (password.to_owned(), user.password.clone());
        let (is_correct, renewed) = self
            .hash(move |hashers| {
                let verified = hashers.verify_password(&given, &encoded)?;
                let is_due = verified.is_correct && verified.must_update;
                Ok((verified.is_correct, is_due.then(|| hashers.make_password(&given)).transpose()?))
            })
            .await?;
        if let (Some(renewed), Some(key)) = (renewed, self.key(&user.id)) {
            // Not over a password that was set meanwhile, which Django would undo.
            let parameters = [&*renewed, &key, &user.password];
            if self.pool.execute(&self.statements.replace_password, &parameters).await? == 0 {
                return self.check_password_of_now(user, password).await;
            }
            user.password = renewed;
        }
        Ok(is_correct)
    }

    /// The stored hash is not the one that was checked: another login has renewed it, or the password was changed. A session
    /// is signed with the hash, so the user gets the one of now.
    async fn check_password_of_now(&self, user: &mut User, password: &str) -> Result<bool, AuthError> {
        let Some(now) = self.by_id(user.id.clone()).await? else { return Ok(false) };
        let (password, encoded) = (password.to_owned(), now.password.clone());
        let verified = self.hash(move |hashers| hashers.verify_password(&password, &encoded)).await?;
        if verified.is_correct {
            user.password = now.password;
        }
        Ok(verified.is_correct)
    }

    /// Gives the user a new password and stores it (`user.set_password` and `save`). Every session of the user is over then,
    /// but for one that [`update_session_auth_hash`](Self::update_session_auth_hash) keeps. `AUTH_PASSWORD_VALIDATORS` are
    /// not asked.
    ///
    /// # Errors
    /// As [`authenticate`](Self::authenticate).
    pub async fn set_password(&self, user: &mut User, password: &str) -> Result<(), AuthError> {
        let password = password.to_owned();
        let encoded = self.hash(move |hashers| hashers.make_password(&password)).await?;
        if let Some(key) = self.key(&user.id) {
            self.pool.execute(&self.statements.set_password, &[&encoded, &key]).await?;
        }
        user.password = encoded;
        Ok(())
    }

    /// Hashes on a thread where that keeps nobody waiting.
    async fn hash<T: Send + 'static>(
        &self,
        hash: impl FnOnce(&Hashers) -> Result<T, HasherError> + Send + 'static,
    ) -> Result<T, AuthError> {
        let hashers = match &self.hashers {
            Some(hashers) => hashers.clone(),
            None => Arc::new(Hashers::from_settings(&self.auth().password_hashers)?),
        };
        match tokio::task::spawn_blocking(move || hash(&hashers)).await {
            Ok(hashed) => Ok(hashed?),
            Err(stopped) => Err(AuthError::Stopped(stopped.to_string())),
        }
    }

    /// The first of `AUTHENTICATION_BACKENDS` that checks passwords as `ModelBackend` does; a single one of the project's own
    /// is taken for such.
    fn password_backend(&self) -> Result<&str, AuthError> {
        let backends = &self.settings.authentication_backends;
        let known = backends.iter().find(|backend| MODEL_BACKENDS.contains(&backend.as_str()));
        let mut others = backends.iter().filter(|backend| !REMOTE_USER_BACKENDS.contains(&backend.as_str()));
        match (known, others.next(), others.next()) {
            (Some(known), _, _) => Ok(known),
            (None, Some(own), None) => Ok(own),
            _ => Err(AuthError::PasswordBackend),
        }
    }
}
