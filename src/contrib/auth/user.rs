//! A user and the primary key of one.

use std::fmt;

use jiff::Timestamp;

use crate::settings::PkType;

/// Primary key of a user. `Display` is the text that Django keeps in the session.
///
/// ```
/// use django_sessions::contrib::auth::UserId;
/// use django_sessions::settings::PkType;
///
/// assert_eq!(UserId::from(42).to_string(), "42");
/// let id = UserId::parse("{0d8a0f0c5b8d4b0f8a3c6a1f2e3d4c5b}", PkType::Uuid).unwrap();
/// assert_eq!(id.to_string(), "0d8a0f0c-5b8d-4b0f-8a3c-6a1f2e3d4c5b");
/// assert_eq!(UserId::parse("ada", PkType::Integer), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum UserId {
    /// Of an `AutoField`, `BigAutoField` or another integer.
    Integer(i64),
    /// Of a `UUIDField`.
    Uuid(u128),
    /// Of a `CharField` or the like.
    Text(String),
}

impl UserId {
    /// Reads what Django's field of this kind reads (`to_python`); `None` for what it refuses.
    pub fn parse(text: &str, pk_type: PkType) -> Option<Self> {
        match pk_type {
            PkType::Integer => python_int(text).map(Self::Integer),
            PkType::Uuid => python_uuid(text).map(Self::Uuid),
            PkType::Text => Some(Self::Text(text.to_owned())),
        }
    }

    /// The number, if it is one.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Integer(id) => Some(*id),
            _ => None,
        }
    }

    /// As a parameter of SQL: a UUID as 32 digits, which every database takes, be its column a text or not.
    pub(crate) fn to_parameter(&self) -> String {
        match self {
            Self::Uuid(id) => format!("{id:032x}"),
            id => id.to_string(),
        }
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(id) => write!(f, "{id}"),
            Self::Uuid(id) => {
                let digits = format!("{id:032x}");
                let (a, b, c) = (&digits[..8], &digits[8..12], &digits[12..16]);
                write!(f, "{a}-{b}-{c}-{}-{}", &digits[16..20], &digits[20..])
            }
            Self::Text(id) => f.write_str(id),
        }
    }
}

impl From<i64> for UserId {
    fn from(id: i64) -> Self {
        Self::Integer(id)
    }
}

/// So that a number may stand in code as it is.
impl From<i32> for UserId {
    fn from(id: i32) -> Self {
        Self::Integer(id.into())
    }
}

impl From<u128> for UserId {
    fn from(id: u128) -> Self {
        Self::Uuid(id)
    }
}

impl From<&str> for UserId {
    fn from(id: &str) -> Self {
        Self::Text(id.to_owned())
    }
}

impl From<String> for UserId {
    fn from(id: String) -> Self {
        Self::Text(id)
    }
}

impl From<&UserId> for UserId {
    fn from(id: &UserId) -> Self {
        id.clone()
    }
}

impl From<&User> for UserId {
    fn from(user: &User) -> Self {
        user.id.clone()
    }
}

/// Python's `int(text)`, as far as it fits.
fn python_int(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_good =
        digits.split('_').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    if is_good { text.replace('_', "").parse().ok() } else { None }
}

/// Python's `uuid.UUID(text)`.
fn python_uuid(text: &str) -> Option<u128> {
    let text = text.replace("urn:", "").replace("uuid:", "");
    let digits = text.trim_matches(['{', '}']).replace('-', "");
    let is_good = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_good { u128::from_str_radix(&digits, 16).ok() } else { None }
}

/// A row of the users' table. `Debug` shows no password, and there is no way to its hash but the checks of
/// [`Users`](super::Users).
///
/// What a table has no column for is as in Django: everybody is active, nobody is staff or superuser. Further columns are
/// had with [`Users::fetch_as`](super::Users::fetch_as).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// Primary key.
    pub id: UserId,
    /// The name to log in with (`USERNAME_FIELD`), which may be an address.
    pub username: String,
    /// Email address; empty where there is none.
    pub email: String,
    /// Whether the user may use Django's admin.
    pub is_staff: bool,
    /// Whether the user has every permission.
    pub is_superuser: bool,
    /// Whether the account is in use. Who is not is never logged in.
    pub is_active: bool,
    /// When the user logged in last, if ever.
    pub last_login: Option<Timestamp>,
    pub(super) password: String,
    /// Dotted path of the backend that let the user in, as `authenticate` notes it.
    pub(super) backend: Option<String>,
}

impl User {
    /// Says which of `AUTHENTICATION_BACKENDS` lets the user in: for a login without a password, where there are several.
    #[must_use]
    pub fn with_backend(mut self, path: impl Into<String>) -> Self {
        self.backend = Some(path.into());
        self
    }

    /// Whether anybody can log in with this user's password (`has_usable_password`).
    #[cfg(feature = "hashers")]
    pub fn has_usable_password(&self) -> bool {
        super::hashers::is_password_usable(&self.password)
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("id", &self.id).field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_python_reads_them() {
        for (text, number) in [("42", 42), (" 42\n", 42), ("+4_2", 42), ("-1", -1), ("007", 7)] {
            assert_eq!(UserId::parse(text, PkType::Integer), Some(UserId::Integer(number)), "{text:?}");
        }
        for text in ["", "4__2", "_42", "42_", "4.0", "0x2a", "+", "9223372036854775808", "--1"] {
            assert_eq!(UserId::parse(text, PkType::Integer), None, "{text:?}");
        }
        for text in ["", "42", "0d8a0f0c5b8d4b0f8a3c6a1f2e3d4c5", "+d8a0f0c5b8d4b0f8a3c6a1f2e3d4c5b"] {
            assert_eq!(UserId::parse(text, PkType::Uuid), None, "{text:?}");
        }
        let id = UserId::parse("urn:uuid:0D8A0F0C-5b8d-4b0f-8a3c-6a1f2e3d4c5b", PkType::Uuid).unwrap();
        assert_eq!(id.to_parameter(), "0d8a0f0c5b8d4b0f8a3c6a1f2e3d4c5b");
    }
}
