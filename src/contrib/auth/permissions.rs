//! What a user may do, as `django.contrib.auth.backends.ModelBackend` reads it.

use std::collections::BTreeSet;

use super::{User, Users};
use crate::backends::StoreError;

/// The permissions of a user: the user's own and those of the user's groups.
///
/// ```no_run
/// # async fn example(users: django_sessions::contrib::auth::Users) -> Result<(), Box<dyn std::error::Error>> {
/// let user = users.by_id(42).await?.expect("somebody has it");
/// let permissions = users.permissions(&user).await?; // one query
/// if permissions.has_perm("shop.add_item") && permissions.has_module_perms("shop") {
///     println!("may add to the shop");
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Whether the user has each permission, whether it is there or not.
    all: bool,
    names: BTreeSet<String>,
}

impl Permissions {
    /// Whether `permission`, such as `shop.add_item`, is among them.
    pub fn has_perm(&self, permission: &str) -> bool {
        self.all || self.names.contains(permission)
    }

    /// Whether each of `permissions` is among them.
    pub fn has_perms<'a>(&self, permissions: impl IntoIterator<Item = &'a str>) -> bool {
        permissions.into_iter().all(|permission| self.has_perm(permission))
    }

    /// Whether any permission of the app `app_label` is among them.
    pub fn has_module_perms(&self, app_label: &str) -> bool {
        let is_of_app = |name: &String| name.split_once('.').is_some_and(|(app, _)| app == app_label);
        self.all || self.names.iter().any(is_of_app)
    }

    /// Their names, sorted (`get_all_permissions`).
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}

impl Users {
    /// What the user may do; nothing, if the account is not active. It is one query: keep the answer for the request.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn permissions(&self, user: &User) -> Result<Permissions, StoreError> {
        if !user.is_active {
            return Ok(Permissions::default());
        }
        let rows = match &self.statements.permissions {
            _ if user.is_superuser => self.pool.fetch_texts(&self.statements.all_permissions, &[]).await?,
            Some(statement) => {
                let Some(key) = self.key(&user.id) else { return Ok(Permissions::default()) };
                self.pool.fetch_texts(statement, &[&key, &key]).await?
            }
            None => Vec::new(),
        };
        let names = rows.into_iter().filter_map(|row| match &row[..] {
            [Some(app_label), Some(codename)] => Some(format!("{app_label}.{codename}")),
            _ => None,
        });
        Ok(Permissions { all: user.is_superuser, names: names.collect() })
    }

    /// Whether the user has `permission`, such as `shop.add_item` (`user.has_perm`). Nothing is read for superusers, who
    /// have every one, and for inactive users, who have none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn has_perm(&self, user: &User, permission: &str) -> Result<bool, StoreError> {
        self.has_perms(user, [permission]).await
    }

    /// Whether the user has each of `permissions` (`user.has_perms`).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn has_perms<'a>(
        &self,
        user: &User,
        permissions: impl IntoIterator<Item = &'a str>,
    ) -> Result<bool, StoreError> {
        if user.is_active && user.is_superuser {
            return Ok(true);
        }
        Ok(self.permissions(user).await?.has_perms(permissions))
    }

    /// Whether the user has any permission of the app `app_label` (`user.has_module_perms`).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn has_module_perms(&self, user: &User, app_label: &str) -> Result<bool, StoreError> {
        if user.is_active && user.is_superuser {
            return Ok(true);
        }
        Ok(self.permissions(user).await?.has_module_perms(app_label))
    }
}
