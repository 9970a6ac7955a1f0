"""Lists, inspects and ends sessions. Who may delete devices may end sessions."""

import json
import re
from collections.abc import Iterable
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth import get_permission_codename
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from .api import end_session, read_session
from .models import Device

MASK = "••••••"
SECRET = re.compile(
    r"pass(word|wd|phrase|code)?$|passw|secret|token|hash|csrf|api_?key|private_?key|credential|"
    r"session_?(id|key)|otp|nonce|signature|auth(orization)?$",
    re.IGNORECASE,
)
MAX_TEXT, MAX_ITEMS, MAX_DEPTH = 500, 200, 8


def mask(value: Any, depth: int = 0) -> Any:
    """Plain data to show: values whose name sounds secret are hidden, whatever they are."""
    if depth > MAX_DEPTH:
        return "…"
    if isinstance(value, dict):
        items = list(value.items())[:MAX_ITEMS]
        return {str(k): MASK if SECRET.search(str(k)) else mask(v, depth + 1) for k, v in items}
    if isinstance(value, list | tuple):
        return [mask(item, depth + 1) for item in value[:MAX_ITEMS]]
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + "…"
    if value is None or isinstance(value, bool | int | float):
        return value
    return f"<{type(value).__name__}>"  # not its repr(), which may say anything


@admin.register(Device)
class DeviceAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("summary", "user", "ip", "created", "last_seen")
    list_filter = ("last_seen", "created")
    list_select_related = ("user",)
    # No session key: nobody takes over a session from this page.
    fields = ("user", "summary", "user_agent", "ip", "created", "last_seen", "session")
    readonly_fields = fields
    # By this name it takes the place of Django's, which would ask once more.
    actions = ("delete_selected",)

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        from django.contrib.auth import get_user_model

        return (f"user__{get_user_model().USERNAME_FIELD}", "ip", "user_agent")

    @admin.display(description=_("device"), ordering="user_agent")
    def summary(self, device: Device) -> str:
        return device.summary

    @admin.display(description=_("session"))
    def session(self, device: Device) -> str:
        data = read_session(device)
        if not data:
            return str(_("The store has no such session: it has expired, or was ended."))
        text = json.dumps(mask(data), indent=2, ensure_ascii=False)
        return format_html('<pre style="white-space: pre-wrap; margin: 0">{}</pre>', text)

    @admin.action(permissions=["delete"], description=_("End selected sessions"))
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[Device]) -> None:
        devices = list(queryset)
        self.log_ends(request, devices)
        self.delete_queryset(request, devices)
        count = len(devices)
        text = ngettext("%(count)d session ended.", "%(count)d sessions ended.", count)
        self.message_user(request, text % {"count": count}, messages.SUCCESS)

    def log_ends(self, request: HttpRequest, devices: list[Device]) -> None:
        if hasattr(self, "log_deletions"):  # since Django 5.1
            self.log_deletions(request, devices)  # type: ignore[arg-type]
            return
        for device in devices:
            self.log_deletion(request, device, str(device))  # type: ignore[attr-defined]

    def delete_model(self, request: HttpRequest, obj: Device) -> None:
        end_session(obj)

    def delete_queryset(self, request: HttpRequest, queryset: Iterable[Device]) -> None:
        for device in queryset:
            end_session(device)

    def has_delete_permission(self, request: HttpRequest, obj: Device | None = None) -> bool:
        return super().has_delete_permission(request, obj) or (
            obj is not None and self._goes_with_user(request)
        )

    def _goes_with_user(self, request: HttpRequest) -> bool:
        """In another model's admin, which asks here since a user's rows go when the user does."""
        from django.contrib.auth import get_user_model

        match = request.resolver_match
        own = f"{self.opts.app_label}_{self.opts.model_name}_"
        if match is None or (match.url_name or "").startswith(own):
            return False
        who: Any = request.user
        users = get_user_model()._meta
        codename = get_permission_codename("delete", users)
        return bool(who.has_perm(f"{users.app_label}.{codename}"))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Device | None = None) -> bool:
        return False
