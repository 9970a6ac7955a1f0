//! `request.user`, for the extractors of each framework.

use std::fmt;

use super::Session;
use crate::backends::StoreError;
#[cfg(any(feature = "axum", feature = "actix"))]
use crate::contrib::auth::login_redirect;
use crate::contrib::auth::{AuthError, HASH_SESSION_KEY, Login, Permissions, User, Users};
use crate::contrib::csrf::{CSRF_SESSION_KEY, CsrfSecret};

/// What is known of the one who makes the request: `request.user`, read when it is asked for and kept for the request.
#[derive(Default)]
pub(super) struct Visitor {
    user: Option<Option<User>>,
    permissions: Option<Permissions>,
}

impl Visitor {
    fn of(user: Option<User>) -> Self {
        Self { user: Some(user), permissions: None }
    }
}

/// Who makes the request, what they may do, and logging in and out: an extractor, where the session layer has users.
///
/// Cheap to clone. The user is read once a request. While you hold a [`SessionGuard`](super::SessionGuard), these wait
/// for you to drop it.
///
/// ```
/// use django_sessions::contrib::auth::AuthError;
/// use django_sessions::web::{Auth, Refusal};
///
/// async fn greet(auth: Auth) -> Result<String, Refusal> {
///     Ok(match auth.user().await? {
///         Some(user) => format!("Hello, {}!", user.username),
///         None => "Hello, stranger!".to_owned(),
///     })
/// }
///
/// async fn restock(auth: Auth) -> Result<String, Refusal> {
///     let user = auth.require_perm("shop.change_item").await?; // else 401, or 403
///     Ok(format!("{} restocked", user.username))
/// }
///
/// # #[cfg(feature = "hashers")]
/// async fn log_in(auth: Auth, username: String, password: String) -> Result<bool, AuthError> {
///     match auth.users().authenticate(&username, &password).await? {
///         Some(user) => auth.login(user).await.map(|()| true),
///         None => Ok(false),
///     }
/// }
///
/// async fn log_out(auth: Auth) -> Result<(), Refusal> {
///     Ok(auth.logout().await?)
/// }
/// ```
#[derive(Clone)]
pub struct Auth {
    session: Session,
    users: Users,
}

impl Auth {
    /// That of a request, by the [`Session`] among its extensions; `None` if the session's layer has no users. axum and
    /// actix-web extract it.
    pub fn of(session: Session) -> Option<Self> {
        let users = session.site().users.clone()?;
        Some(Self { session, users })
    }

    /// The request's session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The users of the site.
    pub fn users(&self) -> &Users {
        &self.users
    }

    /// Who is logged in, as [`Users::get_user`] finds it (`request.user`).
    ///
    /// If the login was made under a former secret key, the session gets a new key, which is sent whatever the response is;
    /// the old one is good until then, so that no failure logs anybody out.
    ///
    /// # Errors
    /// When the database or the session's store fails.
    pub async fn user(&self) -> Result<Option<User>, StoreError> {
        let mut visitor = self.session.visitor().lock().await;
        if let Some(user) = &visitor.user {
            return Ok(user.clone());
        }
        let user = self.find_user().await?;
        *visitor = Visitor::of(user.clone());
        Ok(user)
    }

    async fn find_user(&self) -> Result<Option<User>, StoreError> {
        let mut session = self.session.lock().await?;
        let store = self.session.store();
        match self.users.login_of(&session).await? {
            Login::Nobody => Ok(None),
            Login::Good(user) => Ok(Some(user)),
            Login::Over => {
                store.flush(&mut session).await?;
                Ok(None)
            }
            Login::ToRenew(user, hash) => {
                let old = session.key().cloned();
                session.insert(HASH_SESSION_KEY, &hash)?;
                store.create(&mut session).await?;
                self.session.replaces(old);
                Ok(Some(user))
            }
        }
    }

    /// What the user may do; nothing, for nobody. Read once a request.
    ///
    /// # Errors
    /// When the database or the session's store fails.
    pub async fn permissions(&self) -> Result<Permissions, StoreError> {
        let Some(user) = self.user().await? else { return Ok(Permissions::default()) };
        let mut visitor = self.session.visitor().lock().await;
        if let Some(permissions) = &visitor.permissions {
            return Ok(permissions.clone());
        }
        let permissions = self.users.permissions(&user).await?;
        visitor.permissions = Some(permissions.clone());
        Ok(permissions)
    }

    /// Whether the user has `permission`, such as `shop.add_item` (`request.user.has_perm`).
    ///
    /// # Errors
    /// When the database or the session's store fails.
    pub async fn has_perm(&self, permission: &str) -> Result<bool, StoreError> {
        match self.user().await? {
            // For whom nothing needs to be read.
            Some(user) if user.is_superuser => Ok(user.is_active),
            _ => Ok(self.permissions().await?.has_perm(permission)),
        }
    }

    /// The user, or the refusal that says 401.
    ///
    /// # Errors
    /// [`Refusal::Unauthorized`], and as [`user`](Self::user).
    pub async fn require_user(&self) -> Result<User, Refusal> {
        self.user().await?.ok_or(Refusal::Unauthorized)
    }

    /// The user, if they have `permission`; a refusal otherwise, which says 401 to nobody and 403 to everybody else.
    ///
    /// # Errors
    /// [`Refusal::Unauthorized`] and [`Refusal::Forbidden`], and as [`user`](Self::user).
    pub async fn require_perm(&self, permission: &str) -> Result<User, Refusal> {
        let user = self.require_user().await?;
        match self.has_perm(permission).await? {
            true => Ok(user),
            false => Err(Refusal::Forbidden),
        }
    }

    /// Logs `user` in, as [`Users::login`] does, and `request.user` is that user from then on. A CSRF layer inside of the
    /// session's hands the browser its new secret; without one, do so with [`Session::new_csrf_secret`].
    ///
    /// # Errors
    /// As [`Users::login`].
    pub async fn login(&self, mut user: User) -> Result<(), AuthError> {
        let mut visitor = self.session.visitor().lock().await;
        let mut session = self.session.lock().await?;
        let logged_in = self.users.login(&**self.session.store(), &mut session, &mut user).await?;
        // With `CSRF_USE_SESSIONS` it is in the session.
        let secret = match logged_in.csrf_cookie {
            Some(secret) => Some(secret),
            None => session
                .get::<String>(CSRF_SESSION_KEY)
                .map_err(StoreError::from)?
                .and_then(|text| CsrfSecret::parse(&text).ok()),
        };
        *self.session.csrf_secret() = secret;
        self.session.note_login();
        *visitor = Visitor::of(Some(user));
        Ok(())
    }

    /// Logs out, and ends the session (`django.contrib.auth.logout`).
    ///
    /// # Errors
    /// When the session's store fails.
    pub async fn logout(&self) -> Result<(), StoreError> {
        let mut visitor = self.session.visitor().lock().await;
        let key = self.session.key().await;
        self.session.flush().await?;
        self.session.forget_device(key).await;
        *visitor = Visitor::of(None);
        Ok(())
    }

    /// Keeps this session, and no other of the user's, after the password was changed
    /// ([`Users::update_session_auth_hash`]).
    ///
    /// # Errors
    /// When the session's store fails.
    pub async fn update_session_auth_hash(&self, user: &User) -> Result<(), StoreError> {
        let mut visitor = self.session.visitor().lock().await;
        let mut session = self.session.lock().await?;
        self.users.update_session_auth_hash(&**self.session.store(), &mut session, user).await?;
        if visitor.user.iter().flatten().any(|present| present.id == user.id) {
            *visitor = Visitor::of(Some(user.clone()));
        }
        Ok(())
    }

    /// The user, or the redirection to the login page (`login_required`).
    #[cfg(any(feature = "axum", feature = "actix"))]
    pub(super) async fn login_required(
        &self,
        scheme: &str,
        host: &str,
        target: &str,
    ) -> Result<User, Refusal> {
        let settings = self.users.settings();
        // Without a scheme in the request: a site whose cookies are for HTTPS only is on HTTPS.
        let scheme = match (scheme, settings.session_cookie_secure) {
            ("", true) => "https",
            ("", false) => "http",
            (scheme, _) => scheme,
        };
        match self.user().await? {
            Some(user) => Ok(user),
            None => Err(Refusal::Redirect(login_redirect(scheme, host, target, &settings.auth.login_url))),
        }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("users", &self.users).finish_non_exhaustive()
    }
}

impl Session {
    /// The CSRF secret that a login in this request made (`rotate_token`), unless a CSRF layer took it: it is to be sent as
    /// the CSRF cookie, or with `CSRF_USE_SESSIONS` is in the session already.
    pub fn new_csrf_secret(&self) -> Option<CsrfSecret> {
        self.csrf_secret().clone()
    }
}

/// A user, or 401 where nobody is logged in: an extractor.
///
/// It is the same as [`User`], which is an extractor too, and says so where it stands. For pages of a browser,
/// [`LoginRequired`] leads to the login page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequireUser(pub User);

/// A user, or a redirection to `LOGIN_URL?next=...` where nobody is logged in, as Django's `login_required`: an extractor.
///
/// The whole address is handed on if the login page is on another host. Its scheme is taken from the request, or from
/// `SESSION_COOKIE_SECURE` where the request has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRequired(pub User);

/// Why there is no user for the handler, or none who may do it. As a response: 401, 302, 403 or 500.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Nobody is logged in: 401.
    #[error("nobody is logged in")]
    Unauthorized,
    /// Nobody is logged in: 302 to this address.
    #[error("nobody is logged in")]
    Redirect(String),
    /// The user lacks a permission: 403.
    #[error("the user lacks the permission")]
    Forbidden,
    /// The session layer, or its users, are missing: 500.
    #[error("no users: give the session layer or middleware of this app some, `.with_users(users)`")]
    NoUsers,
    /// The database of the users or the session's store failed: 500.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody could be looked up, checked or logged in: 500.
    #[error(transparent)]
    Auth(AuthError),
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Store(error) => Self::Store(error),
            error => Self::Auth(error),
        }
    }
}

impl Refusal {
    /// Status, and the text of the response.
    #[cfg(any(feature = "axum", feature = "actix"))]
    pub(super) fn status(&self) -> (u16, &'static str) {
        match self {
            Self::Unauthorized => (401, "Unauthorized"),
            Self::Redirect(_) => (302, ""),
            Self::Forbidden => (403, "Forbidden"),
            Self::NoUsers => {
                tracing::error!("{self}");
                (500, "")
            }
            Self::Store(error) => super::failure(error),
            Self::Auth(error) => login_failure(error),
        }
    }

    /// The header `Location`.
    #[cfg(any(feature = "axum", feature = "actix"))]
    pub(super) fn location(&self) -> Option<&str> {
        match self {
            Self::Redirect(location) => Some(location),
            _ => None,
        }
    }
}

/// Status and text for an error of a login.
#[cfg(any(feature = "axum", feature = "actix"))]
pub(super) fn login_failure(error: &AuthError) -> (u16, &'static str) {
    match error {
        AuthError::Store(error) => super::failure(error),
        error => {
            tracing::error!(error = error as &dyn std::error::Error, "nobody could be logged in");
            (500, "Nobody could be logged in.")
        }
    }
}
