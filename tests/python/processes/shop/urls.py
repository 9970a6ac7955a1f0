import os

from django.conf import settings
from django.contrib.auth import alogin, login
from django.contrib.auth.models import User
from django.http import JsonResponse
from django.urls import path
from django_rust_sessions import caches


def answer(request, user, session):
    return JsonResponse(
        {
            "user": user.username,
            "session": session,
            "session_key": request.session.session_key,
            "pid": os.getpid(),
            "step_aside": caches.step_aside(settings.SESSION_CACHE_ALIAS),
        }
    )


def enter(request, engine, name):
    login(request, User.objects.get(username="ada"), "django.contrib.auth.backends.ModelBackend")
    request.session.update({"name": name, "key": request.session.session_key, "count": 0})
    return answer(request, request.user, dict(request.session.items()))


def more(request, engine):
    request.session["count"] += 1
    return answer(request, request.user, dict(request.session.items()))


async def aenter(request, engine, name):
    user = await User.objects.aget(username="ada")
    await alogin(request, user, "django.contrib.auth.backends.ModelBackend")
    await request.session.aupdate({"name": name, "key": request.session.session_key, "count": 0})
    return answer(request, user, dict(await request.session.aitems()))


async def amore(request, engine):
    await request.session.aset("count", await request.session.aget("count") + 1)
    return answer(request, await request.auser(), dict(await request.session.aitems()))


urlpatterns = [
    path("<engine>/sync/enter/<name>", enter),
    path("<engine>/sync/more", more),
    path("<engine>/async/enter/<name>", aenter),
    path("<engine>/async/more", amore),
]
