"""Goes right before Django's SessionMiddleware: when it sees a response, the session is saved."""

from collections.abc import Awaitable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from . import recording


class DevicesMiddleware:
    """Writes when a session is new, has a new key, or was not seen for a minute."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        request._device_note = recording.Note(self.get_ip(request))  # type: ignore[attr-defined]
        if self._is_async:
            return self._acall(request)
        response: HttpResponseBase = self.get_response(request)
        if visit := self._look(request, response):
            recording.record(visit)
        return response

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase = await self.get_response(request)
        if visit := self._look(request, response):
            await sync_to_async(recording.record)(visit)
        return response

    def get_ip(self, request: HttpRequest) -> str | None:
        """For a site behind a proxy to override, with a header that its proxy sets."""
        return recording.get_ip(request)

    def _look(self, request: HttpRequest, response: HttpResponseBase) -> recording.Visit | None:
        if response.status_code >= 500:
            return None  # Django saves no session then
        return recording.look(request, request._device_note.ip)  # type: ignore[attr-defined]
