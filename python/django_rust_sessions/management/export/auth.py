"""The user model and what django.contrib.auth, csrf and messages are told by settings."""

from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.hashers import get_hashers
from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured
from django.db import connections, models, router
from django.db.models.manager import BaseManager
from django.shortcuts import resolve_url

from .common import Refused, Report, as_text, dotted_path, same_site

COSTS = (
    *("iterations", "rounds", "time_cost", "memory_cost", "work_factor", "block_size"),
    *("parallelism", "salt_entropy"),
)


def user_database() -> str | None:
    """Alias of the database that holds the users."""
    if not apps.is_installed("django.contrib.auth"):
        return None
    alias = router.db_for_write(_user_model())
    # Django's word for a project without DATABASES.
    is_there = connections.settings[alias]["ENGINE"] != "django.db.backends.dummy"
    return alias if is_there else None


def export_auth(report: Report) -> dict[str, Any]:
    return {
        **(_users(report) if apps.is_installed("django.contrib.auth") else {}),
        "login_url": _url("LOGIN_URL", report),
        "login_redirect_url": _url("LOGIN_REDIRECT_URL", report),
        "logout_redirect_url": _url("LOGOUT_REDIRECT_URL", report),
        "password_hashers": [_hasher(hasher) for hasher in get_hashers()],
    }


def export_csrf() -> dict[str, Any]:
    return {
        "cookie_name": settings.CSRF_COOKIE_NAME,
        "cookie_age": False if settings.CSRF_COOKIE_AGE is None else settings.CSRF_COOKIE_AGE,
        "cookie_domain": settings.CSRF_COOKIE_DOMAIN,
        "cookie_path": settings.CSRF_COOKIE_PATH,
        "cookie_secure": bool(settings.CSRF_COOKIE_SECURE),
        "cookie_httponly": bool(settings.CSRF_COOKIE_HTTPONLY),
        "cookie_samesite": same_site(settings.CSRF_COOKIE_SAMESITE),
        "header_name": _header(settings.CSRF_HEADER_NAME),
        "trusted_origins": [
            as_text(each, "CSRF_TRUSTED_ORIGINS") for each in settings.CSRF_TRUSTED_ORIGINS
        ],
        "use_sessions": bool(settings.CSRF_USE_SESSIONS),
    }


def export_messages() -> dict[str, Any]:
    return {"storage": settings.MESSAGE_STORAGE}


def _header(name: str) -> str:
    """The name in request.META as it stands in a request: `HTTP_X_CSRFTOKEN`."""
    if name == "HTTP_X_CSRFTOKEN":
        return "X-CSRFToken"
    return name.removeprefix("HTTP_").replace("_", "-").title()


def _url(setting: str, report: Report) -> str | None:
    value = getattr(settings, setting)
    if value is None:
        return None
    # Most are paths; for any other, all of the site's URL patterns are imported.
    if not (isinstance(value, str) and ("://" in value or value.startswith("/"))):
        try:
            value = resolve_url(value)
        except Exception as error:
            report.note(
                f"{setting} is {value!r}, and the export leaves it out: it is neither a path nor "
                f"the name of a URL pattern ({type(error).__name__}: {error})."
            )
            return None
    return as_text(value, setting)


def _user_model() -> Any:
    from django.contrib.auth import get_user_model

    try:
        return get_user_model()
    except ImproperlyConfigured as error:
        raise Refused(str(error)) from None


def _users(report: Report) -> dict[str, Any]:
    model = _user_model()
    meta = model._meta
    column = {field.name: field.column for field in meta.concrete_fields}
    owner = _owner(model)
    _note_own_code(model, report)
    return {
        "user_model": meta.label,
        "database": router.db_for_write(model),
        "table": owner._meta.db_table,
        **_derived_tables(model, owner),
        "pk_column": owner._meta.pk.column,
        "pk_type": _pk_type(meta.pk),
        "username_column": column[model.USERNAME_FIELD],
        "password_column": column["password"],
        "is_active_column": column.get("is_active", False),
        "last_login_column": column.get("last_login", False),
        "is_staff_column": column.get("is_staff", False),
        "is_superuser_column": column.get("is_superuser", False),
        "email_column": column.get(getattr(model, "EMAIL_FIELD", "email"), False),
        "permissions": _permissions(model),
    }


COLUMNS = ("password", "is_active", "last_login", "is_staff", "is_superuser")


def _owner(model: Any) -> Any:
    """The model whose table holds the columns: another one with multi-table inheritance."""
    names = {model.USERNAME_FIELD, getattr(model, "EMAIL_FIELD", "email"), *COLUMNS}
    owners = {field.model for field in model._meta.concrete_fields if field.name in names}
    if len(owners) > 1:
        tables = ", ".join(sorted(owner._meta.db_table for owner in owners))
        raise Refused(
            f"{model._meta.label} keeps its login in several tables ({tables}). The Rust crate "
            f"reads one: move {', '.join(sorted(names))} to one model, or log in with Django only."
        )
    return owners.pop()


def _derived_tables(model: Any, owner: Any) -> dict[str, Any]:
    tables = []
    while model is not owner:
        link = model._meta.get_ancestor_link(owner)
        tables.append({"table": model._meta.db_table, "pk_column": model._meta.pk.column})
        model = link.remote_field.model
    return {"derived_tables": tables} if tables else {}


def _note_own_code(model: Any, report: Report) -> None:
    """Says what the model decides in Python, which Rust does not run."""
    label = model._meta.label
    if "is_active" not in {field.name for field in model._meta.concrete_fields} and (
        getattr(model, "is_active", True) is not True
    ):
        report.note(f"{label}.is_active is no column: to Rust, every user is active.")
    if model.get_session_auth_hash is not AbstractBaseUser.get_session_auth_hash:
        report.note(
            f"{label} has a get_session_auth_hash of its own: to Rust, its sessions are over."
        )
    if type(model._default_manager).get_queryset is not BaseManager.get_queryset:
        report.note(
            f"The manager of {label} has a get_queryset of its own: whom it leaves out, Rust finds."
        )
    natural = getattr(type(model._default_manager), "get_by_natural_key", None)
    if natural not in (None, BaseUserManager.get_by_natural_key):
        report.note(
            f"The manager of {label} has a get_by_natural_key of its own: to Rust, a user has the "
            "name that is stored, letter for letter."
        )


def _pk_type(field: Any) -> str:
    while field.remote_field:
        field = field.target_field
    if isinstance(field, models.UUIDField):
        return "uuid"
    if isinstance(field, models.IntegerField):
        return "integer"
    return "text"


def _permissions(model: Any) -> Any:
    try:
        groups, permissions = (
            model._meta.get_field(name) for name in ("groups", "user_permissions")
        )
    except FieldDoesNotExist:
        return False
    return {
        "user_groups_table": groups.m2m_db_table(),
        "user_groups_column": groups.m2m_column_name(),
        "user_permissions_table": permissions.m2m_db_table(),
        "user_permissions_column": permissions.m2m_column_name(),
    }


def _hasher(hasher: Any) -> dict[str, Any]:
    costs = {name: getattr(hasher, name, None) for name in COSTS}
    return {
        "class": dotted_path(type(hasher)),
        "algorithm": hasher.algorithm,
        **{name: cost for name, cost in costs.items() if isinstance(cost, int)},
    }
