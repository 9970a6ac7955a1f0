from typing import Any

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from .agents import summarise

MAX_KEY = 128
MAX_AGENT = 255


class Device(models.Model):
    """One session in which somebody is logged in.

    Whoever reads session_key can take the session over: the table is as secret as the store.
    """

    user: Any = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="+", verbose_name=_("user")
    )
    session_key: Any = models.CharField(_("session key"), max_length=MAX_KEY, unique=True)
    created: Any = models.DateTimeField(_("signed in"))
    last_seen: Any = models.DateTimeField(_("last seen"))
    ip: Any = models.GenericIPAddressField(_("IP address"), null=True, blank=True)
    user_agent: Any = models.CharField(_("browser"), max_length=MAX_AGENT, blank=True)

    class Meta:
        db_table = "django_session_device"
        verbose_name = _("device")
        verbose_name_plural = _("devices")
        ordering = ("-last_seen", "-pk")

    def __str__(self) -> str:
        return self.summary

    @property
    def summary(self) -> str:
        """Firefox on Linux, for instance."""
        return summarise(self.user_agent)
