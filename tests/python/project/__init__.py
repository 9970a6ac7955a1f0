"""The project under test: views that use the session, and urls."""

from importlib import import_module

from django.conf import settings
from django.http import HttpResponse, JsonResponse
from django.urls import path


def show(request):
    return JsonResponse(dict(request.session.items()))


def store(request):
    request.session.update(request.GET.items())
    return HttpResponse()


def flush(request):
    request.session.flush()
    return HttpResponse()


def cycle(request):
    request.session.cycle_key()
    return HttpResponse()


def interrupted(request):
    request.session["jam"] = 1
    import_module(settings.SESSION_ENGINE).SessionStore(request.session.session_key).delete()
    return HttpResponse()


def fail(request):
    request.session["failed"] = True
    return HttpResponse(status=500)


urlpatterns = [
    path("show", show),
    path("store", store),
    path("flush", flush),
    path("cycle", cycle),
    path("interrupted", interrupted),
    path("fail", fail),
]
