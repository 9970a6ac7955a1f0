"""Optional: INSTALLED_APPS += ["django_rust_sessions"] adds checks of the session settings."""

from django.apps import AppConfig


class SessionsConfig(AppConfig):
    name = "django_rust_sessions"
    verbose_name = "Sessions in Rust"

    def ready(self) -> None:
        from . import checks

        checks.register_all()
