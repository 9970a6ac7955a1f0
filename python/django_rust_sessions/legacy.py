"""What RUST_SESSIONS["LEGACY"] adds: logins of Django before 3.1 stay logins.

Their sessions hold a sha1 hash of the user's password, which Django from 4.0 on takes for that of
another password. The users' get_session_auth_fallback_hash(), which Django asks when the hash of
today does not fit, then names it too; and Django writes today's hash into the session.
"""

from collections.abc import Iterator
from functools import cache, wraps
from typing import Any

from django.apps import apps
from django.conf import settings
from django.utils.crypto import salted_hmac

from .conf import option


@cache
def accept_old_logins() -> None:
    """Once a process; without effect when the option is off again."""
    if not apps.is_installed("django.contrib.auth"):
        return
    from django.contrib.auth.base_user import AbstractBaseUser

    django_hashes = AbstractBaseUser.get_session_auth_fallback_hash

    @wraps(django_hashes)
    def get_session_auth_fallback_hash(user: Any) -> Iterator[str]:
        yield from django_hashes(user)
        if option("LEGACY"):
            yield from _old_hashes(user.password)

    user_class: Any = AbstractBaseUser
    user_class.get_session_auth_fallback_hash = get_session_auth_fallback_hash


def _old_hashes(password: str) -> Iterator[str]:
    salt = "django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash"
    for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        yield salted_hmac(salt, password, secret=key, algorithm="sha1").hexdigest()
