use serde::Deserialize;

use super::{SameSite, none_or};

/// Users and logins: the user model and the settings of `django.contrib.auth`.
///
/// ```
/// use django_sessions::settings::{FileFormat, PkType, Settings};
///
/// let text = r#"{"version": 1, "secret_key": "x", "auth": {"table": "shop_customer", "pk_type": "uuid"}}"#;
/// let auth = Settings::from_str(text, FileFormat::Json)?.auth;
/// assert_eq!((&*auth.table, auth.pk_type), ("shop_customer", PkType::Uuid));
/// assert_eq!(auth.username_column, "username", "Django's default");
/// # Ok::<(), django_sessions::settings::SettingsError>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AuthSettings {
    /// `AUTH_USER_MODEL`: `auth.User`.
    pub user_model: String,
    /// Alias of the database that holds the users: `default`.
    pub database: String,
    /// Table of the users: `auth_user`.
    pub table: String,
    /// Tables that are derived from it, and hold a row for each user too (multi-table inheritance): none.
    pub derived_tables: Vec<DerivedTable>,
    /// Column of the primary key: `id`.
    pub pk_column: String,
    /// What the primary key is: an integer.
    pub pk_type: PkType,
    /// Column of the name to log in with (`USERNAME_FIELD`): `username`.
    pub username_column: String,
    /// Column of the hashed password: `password`.
    pub password_column: String,
    /// Column that says whether the account is in use: `is_active`. None (`false` in a file): all accounts are.
    #[serde(deserialize_with = "none_or")]
    pub is_active_column: Option<String>,
    /// Column of the moment of the last login: `last_login`; or none (`false` in a file).
    #[serde(deserialize_with = "none_or")]
    pub last_login_column: Option<String>,
    /// Column that says whether the user may use the admin: `is_staff`; or none (`false` in a file).
    #[serde(deserialize_with = "none_or")]
    pub is_staff_column: Option<String>,
    /// Column that says whether the user has every permission: `is_superuser`; or none (`false` in a file).
    #[serde(deserialize_with = "none_or")]
    pub is_superuser_column: Option<String>,
    /// Column of the email address (`EMAIL_FIELD`): `email`; or none (`false` in a file).
    #[serde(deserialize_with = "none_or")]
    pub email_column: Option<String>,
    /// Tables of groups and permissions; none (`false` in a file) for a model without `PermissionsMixin`.
    #[serde(deserialize_with = "none_or")]
    pub permissions: Option<PermissionTables>,
    /// `LOGIN_URL`: `/accounts/login/`.
    pub login_url: String,
    /// `LOGIN_REDIRECT_URL`: `/accounts/profile/`.
    pub login_redirect_url: String,
    /// `LOGOUT_REDIRECT_URL`: none.
    pub logout_redirect_url: Option<String>,
    /// `PASSWORD_HASHERS`, the preferred one first.
    pub password_hashers: Vec<PasswordHasher>,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            user_model: "auth.User".to_owned(),
            database: "default".to_owned(),
            table: "auth_user".to_owned(),
            derived_tables: Vec::new(),
            pk_column: "id".to_owned(),
            pk_type: PkType::Integer,
            username_column: "username".to_owned(),
            password_column: "password".to_owned(),
            is_active_column: Some("is_active".to_owned()),
            last_login_column: Some("last_login".to_owned()),
            is_staff_column: Some("is_staff".to_owned()),
            is_superuser_column: Some("is_superuser".to_owned()),
            email_column: Some("email".to_owned()),
            permissions: Some(PermissionTables::default()),
            login_url: "/accounts/login/".to_owned(),
            login_redirect_url: "/accounts/profile/".to_owned(),
            logout_redirect_url: None,
            password_hashers: ["PBKDF2", "PBKDF2SHA1", "Argon2", "BCryptSHA256", "Scrypt"]
                .map(|name| PasswordHasher {
                    class: format!("django.contrib.auth.hashers.{name}PasswordHasher"),
                    ..PasswordHasher::default()
                })
                .into(),
        }
    }
}

/// What kind of value the primary key of a user is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PkType {
    /// `AutoField`, `BigAutoField` and other integers.
    #[default]
    Integer,
    /// `UUIDField`. Databases without such a type hold 32 hexadecimal digits.
    Uuid,
    /// `CharField` and the like.
    Text,
}

/// A table that is derived from the users' table.
///
/// ```
/// use django_sessions::settings::{FileFormat, Settings};
///
/// let text = r#"{"version": 1, "secret_key": "x", "auth": {
///     "table": "shop_person", "derived_tables": [{"table": "shop_clerk", "pk_column": "person_ptr_id"}]
/// }}"#;
/// let auth = Settings::from_str(text, FileFormat::Json)?.auth;
/// assert_eq!(auth.derived_tables[0].table, "shop_clerk");
/// # Ok::<(), django_sessions::settings::SettingsError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DerivedTable {
    /// The table.
    pub table: String,
    /// Its primary key, which is that of the users' table.
    pub pk_column: String,
}

/// Tables between users, groups and permissions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PermissionTables {
    /// Table of the groups of each user: `auth_user_groups`.
    pub user_groups_table: String,
    /// Its column that points at the user: `user_id`.
    pub user_groups_column: String,
    /// Table of the permissions of each user: `auth_user_user_permissions`.
    pub user_permissions_table: String,
    /// Its column that points at the user: `user_id`.
    pub user_permissions_column: String,
}

impl Default for PermissionTables {
    fn default() -> Self {
        Self {
            user_groups_table: "auth_user_groups".to_owned(),
            user_groups_column: "user_id".to_owned(),
            user_permissions_table: "auth_user_user_permissions".to_owned(),
            user_permissions_column: "user_id".to_owned(),
        }
    }
}

/// One of `PASSWORD_HASHERS`, with the costs that its class has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PasswordHasher {
    /// Dotted path of the class.
    pub class: String,
    /// The word before the first `$` of a hash, as `pbkdf2_sha256`.
    pub algorithm: Option<String>,
    /// Rounds of PBKDF2.
    pub iterations: Option<u32>,
    /// Logarithm of the rounds of bcrypt.
    pub rounds: Option<u32>,
    /// Passes of Argon2.
    pub time_cost: Option<u32>,
    /// KiB of Argon2.
    pub memory_cost: Option<u32>,
    /// Cost of scrypt.
    pub work_factor: Option<u32>,
    /// Block size of scrypt.
    pub block_size: Option<u32>,
    /// Lanes of Argon2 and scrypt.
    pub parallelism: Option<u32>,
    /// Bits of randomness of a new salt.
    pub salt_entropy: Option<u32>,
}

/// The table of the app `django_rust_sessions.devices`, for `contrib::devices`.
///
/// ```
/// use django_sessions::settings::{FileFormat, Settings};
///
/// let text = r#"{"version": 1, "secret_key": "x", "devices": {"database": "users"}}"#;
/// let devices = Settings::from_str(text, FileFormat::Json)?.devices.expect("the site has the app");
/// assert_eq!((&*devices.database, &*devices.table), ("users", "django_session_device"));
/// # Ok::<(), django_sessions::settings::SettingsError>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DevicesSettings {
    /// Alias of the database that holds the table: `default`.
    pub database: String,
    /// The table: `django_session_device`.
    pub table: String,
}

impl Default for DevicesSettings {
    fn default() -> Self {
        Self { database: "default".to_owned(), table: "django_session_device".to_owned() }
    }
}

/// The settings of Django's protection against forged requests: `CSRF_*`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CsrfSettings {
    /// `CSRF_COOKIE_NAME`: `csrftoken`.
    pub cookie_name: String,
    /// `CSRF_COOKIE_AGE` in seconds: a year. None (`false` in a file): until the browser closes.
    #[serde(deserialize_with = "none_or")]
    pub cookie_age: Option<i64>,
    /// `CSRF_COOKIE_DOMAIN`: none.
    pub cookie_domain: Option<String>,
    /// `CSRF_COOKIE_PATH`: `/`.
    pub cookie_path: String,
    /// `CSRF_COOKIE_SECURE`: no.
    pub cookie_secure: bool,
    /// `CSRF_COOKIE_HTTPONLY`: no.
    pub cookie_httponly: bool,
    /// `CSRF_COOKIE_SAMESITE`: `Lax`; none (`false` in a file) leaves the attribute out.
    #[serde(deserialize_with = "none_or")]
    pub cookie_samesite: Option<SameSite>,
    /// `CSRF_HEADER_NAME` as it stands in a request: `X-CSRFToken`.
    pub header_name: String,
    /// `CSRF_TRUSTED_ORIGINS`: none.
    pub trusted_origins: Vec<String>,
    /// `CSRF_USE_SESSIONS`: no. Otherwise the secret is in the session, and there is no cookie.
    pub use_sessions: bool,
}

impl Default for CsrfSettings {
    fn default() -> Self {
        Self {
            cookie_name: "csrftoken".to_owned(),
            cookie_age: Some(60 * 60 * 24 * 7 * 52),
            cookie_domain: None,
            cookie_path: "/".to_owned(),
            cookie_secure: false,
            cookie_httponly: false,
            cookie_samesite: Some(SameSite::Lax),
            header_name: "X-CSRFToken".to_owned(),
            trusted_origins: Vec::new(),
            use_sessions: false,
        }
    }
}

/// The settings of `django.contrib.messages`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MessagesSettings {
    /// `MESSAGE_STORAGE`: Django's `FallbackStorage`.
    pub storage: String,
}

impl Default for MessagesSettings {
    fn default() -> Self {
        Self { storage: "django.contrib.messages.storage.fallback.FallbackStorage".to_owned() }
    }
}
