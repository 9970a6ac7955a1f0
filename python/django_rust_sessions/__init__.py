"""Django's sessions, implemented in Rust: SESSION_ENGINE = "django_rust_sessions.backends.db"."""

from ._native import __version__

__all__ = ["__version__"]
