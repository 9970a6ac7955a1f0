from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DevicesConfig(AppConfig):
    name = "django_rust_sessions.devices"
    label = "session_devices"
    verbose_name = _("Devices")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django.core import checks

        from . import recording
        from .checks import check_devices

        recording.connect()
        checks.register(check_devices)
