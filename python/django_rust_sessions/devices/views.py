"""The page "Where you are signed in"."""

from typing import Any

from django.conf import settings
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render, resolve_url
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST, require_safe

from . import recording
from .api import end_all_sessions, end_session, user_sessions
from .models import Device

TEMPLATE = "session_devices/devices.html"


@never_cache
@require_safe
@login_required
@csrf_protect
def devices(request: HttpRequest) -> HttpResponse:
    here = recording.stored_key(request.session)
    # The session may be older than its row: then this request makes it, and shows it.
    if here and not Device.objects.filter(session_key=here).exists():
        recording.record_now(request)
    rows = user_sessions(request.user)
    current = next((row for row in rows if row.session_key == here), None)
    context: dict[str, Any] = {
        "current": current,
        "others": [row for row in rows if row is not current],
        "done": request.GET.get("done"),
    }
    return render(request, TEMPLATE, context)


@never_cache
@require_POST
@login_required
@csrf_protect
def end(request: HttpRequest, pk: int) -> HttpResponse:
    device = get_object_or_404(Device, pk=pk, user_id=request.user.pk)
    if device.session_key == recording.stored_key(request.session):
        logout(request)
        return redirect(resolve_url(settings.LOGOUT_REDIRECT_URL or settings.LOGIN_URL))
    end_session(device)
    return redirect(reverse("session_devices:list") + "?done=one")


@never_cache
@require_POST
@login_required
@csrf_protect
def end_others(request: HttpRequest) -> HttpResponse:
    end_all_sessions(request.user, keep=request.session)
    return redirect(reverse("session_devices:list") + "?done=others")
