//! The SQL for the users' table that the settings describe.

use jiff::tz::TimeZone;

use super::{User, UserId};
use crate::backends::db::{Pool, Vendor};
use crate::settings::{AuthSettings, PermissionTables, PkType};

/// The statements, made once.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) by_id: String,
    pub(super) by_username: String,
    /// Every column of a user, for the caller's own struct.
    pub(super) all_columns: String,
    #[cfg(feature = "hashers")]
    pub(super) set_password: String,
    /// The same if the password is still the one that was read.
    #[cfg(feature = "hashers")]
    pub(super) replace_password: String,
    pub(super) set_last_login: Option<String>,
    /// Names of the permissions of one user; none where the model has no permissions.
    pub(super) permissions: Option<String>,
    pub(super) all_permissions: String,
}

impl Statements {
    pub(super) fn new(pool: &Pool, auth: &AuthSettings) -> Self {
        let quote = |name: &str| pool.quote_name(name);
        let column = |name: &str| format!("u.{}", pool.quote_name(name));
        let (table, pk) = (quote(&auth.table), column(&auth.pk_column));
        let from =
            auth.derived_tables.iter().enumerate().fold(format!("{table} u"), |from, (number, derived)| {
                let (table, pk_column) = (quote(&derived.table), quote(&derived.pk_column));
                format!("{from} INNER JOIN {table} d{number} ON d{number}.{pk_column} = {pk}")
            });
        let key = |number| key_parameter(pool, number, auth.pk_type);
        let text = |number| pool.parameter(number, None);
        let columns = columns(pool, auth).join(", ");
        let own_pk = quote(&auth.pk_column);
        #[cfg(feature = "hashers")]
        let password = quote(&auth.password_column);
        #[cfg(feature = "hashers")]
        let set_password = format!("UPDATE {table} SET {password} = {} WHERE {own_pk} = {}", text(1), key(2));
        Self {
            by_id: format!("SELECT {columns} FROM {from} WHERE {pk} = {}", key(1)),
            by_username: format!(
                "SELECT {columns} FROM {from} WHERE {} = {}",
                column(&auth.username_column),
                text(1)
            ),
            all_columns: format!("SELECT * FROM {from} WHERE {pk} = {}", key(1)),
            #[cfg(feature = "hashers")]
            replace_password: format!("{set_password} AND {password} = {}", text(3)),
            #[cfg(feature = "hashers")]
            set_password,
            set_last_login: auth.last_login_column.as_deref().map(|last_login| {
                let moment = pool.parameter(1, Some("timestamptz"));
                format!("UPDATE {table} SET {} = {moment} WHERE {own_pk} = {}", quote(last_login), key(2))
            }),
            permissions: auth.permissions.as_ref().map(|tables| permissions(pool, auth.pk_type, tables)),
            all_permissions: format!("{PERMISSION_NAMES} FROM auth_permission p {CONTENT_TYPES}"),
        }
    }
}

const PERMISSION_NAMES: &str = "SELECT ct.app_label, p.codename";
const CONTENT_TYPES: &str = "INNER JOIN django_content_type ct ON ct.id = p.content_type_id";

/// What `ModelBackend` reads in two queries: the user's own permissions and those of the user's groups.
fn permissions(pool: &Pool, pk_type: PkType, tables: &PermissionTables) -> String {
    let quote = |name: &str| pool.quote_name(name);
    let (own, own_user) = (quote(&tables.user_permissions_table), quote(&tables.user_permissions_column));
    let (groups, groups_user) = (quote(&tables.user_groups_table), quote(&tables.user_groups_column));
    let (first, second) = (key_parameter(pool, 1, pk_type), key_parameter(pool, 2, pk_type));
    format!(
        "{PERMISSION_NAMES} FROM (SELECT o.permission_id FROM {own} o WHERE o.{own_user} = {first} \
         UNION SELECT gp.permission_id FROM {groups} g \
         INNER JOIN auth_group_permissions gp ON gp.group_id = g.group_id WHERE g.{groups_user} = {second}) granted \
         INNER JOIN auth_permission p ON p.id = granted.permission_id {CONTENT_TYPES}"
    )
}

/// A primary key, given as text.
pub(crate) fn key_parameter(pool: &Pool, number: usize, pk_type: PkType) -> String {
    match (pool.vendor(), pk_type) {
        // It compares texts and numbers as floating-point numbers, which large keys do not fit into.
        (Vendor::MySql, PkType::Integer) => "CAST(? AS SIGNED)".to_owned(),
        (_, PkType::Integer) => pool.parameter(number, Some("bigint")),
        (_, PkType::Uuid) => pool.parameter(number, Some("uuid")),
        (_, PkType::Text) => pool.parameter(number, None),
    }
}

/// What a [`User`] is made of, each as text, in the order in which [`read`] takes them.
fn columns(pool: &Pool, auth: &AuthSettings) -> Vec<String> {
    let column = |name: &str| format!("u.{}", pool.quote_name(name));
    let text = |name: &str| match pool.vendor() {
        Vendor::MySql => format!("CAST({} AS CHAR)", column(name)),
        Vendor::Sqlite | Vendor::Postgres => format!("CAST({} AS TEXT)", column(name)),
    };
    let or = |name: &Option<String>, default: &str| name.as_deref().map_or(default.to_owned(), text);
    vec![
        text(&auth.pk_column),
        text(&auth.username_column),
        text(&auth.password_column),
        or(&auth.is_active_column, "'1'"),
        or(&auth.is_staff_column, "'0'"),
        or(&auth.is_superuser_column, "'0'"),
        or(&auth.email_column, "''"),
        match &auth.last_login_column {
            Some(last_login) => pool.read_moment(&column(last_login)),
            None => "''".to_owned(),
        },
    ]
}

/// The user in a row of [`columns`]; `None` if the primary key is not of the kind that the settings say.
pub(super) fn read(row: Vec<Option<String>>, pool: &Pool, pk_type: PkType, zone: &TimeZone) -> Option<User> {
    let mut row = row.into_iter();
    let mut next = || row.next().flatten();
    let id = UserId::parse(&next()?, pk_type)?;
    let (username, password) = (next().unwrap_or_default(), next().unwrap_or_default());
    let mut flag = || next().is_some_and(|text| !matches!(&*text, "" | "0" | "f" | "false"));
    let (is_active, is_staff, is_superuser) = (flag(), flag(), flag());
    let email = next().unwrap_or_default();
    let last_login = next().and_then(|text| pool.parse_moment(&text, zone));
    Some(User { id, username, email, is_staff, is_superuser, is_active, last_login, password, backend: None })
}
