"""The table of the app django_rust_sessions.devices, if the project has it."""

from typing import Any

from django.apps import apps
from django.db import router


def export_devices() -> dict[str, Any] | None:
    if not apps.is_installed("django_rust_sessions.devices"):
        return None
    model = apps.get_model("session_devices", "Device")
    return {"database": router.db_for_write(model), "table": model._meta.db_table}
