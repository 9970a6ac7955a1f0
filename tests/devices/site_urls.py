from django.contrib import admin
from django.contrib.auth import authenticate, login, logout, update_session_auth_hash
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.urls import include, path


def enter(request):
    login(request, authenticate(request, username=request.GET["name"], password="tea"))
    return HttpResponse()


def leave(request):
    logout(request)
    return HttpResponse()


def new_password(request):
    request.user.set_password("jam")
    request.user.save()
    update_session_auth_hash(request, request.user)
    return HttpResponse()


def put(request):
    request.session.update(request.GET.items())
    return HttpResponse()


def fail(request):
    enter(request)
    return HttpResponse(status=500)


async def enter_async(request):
    from django.contrib.auth import aauthenticate, alogin

    user = await aauthenticate(request, username=request.GET["name"], password="tea")
    await alogin(request, user)
    return HttpResponse()


async def leave_async(request):
    from django.contrib.auth import alogout

    await alogout(request)
    return HttpResponse()


async def new_password_async(request):
    from django.contrib.auth import aupdate_session_auth_hash

    # Else Django 5.2 itself loads it here, which it may not.
    request.user = await request.auser()
    user = await User.objects.aget(pk=request.user.pk)
    user.set_password("jam")
    await user.asave()
    await aupdate_session_auth_hash(request, user)
    return HttpResponse()


async def whoami_async(request):
    return HttpResponse(str(await request.auser()))


async def unused_async(request):
    return HttpResponse()


urlpatterns = [
    path("admin/", admin.site.urls),
    path("devices/", include("django_rust_sessions.devices.urls")),
    path("sync/enter/", enter),
    path("sync/leave/", leave),
    path("sync/new-password/", new_password),
    path("sync/whoami/", lambda request: HttpResponse(str(request.user))),
    path("sync/unused/", lambda request: HttpResponse()),
    path("put/", put),
    path("fail/", fail),
    path("async/enter/", enter_async),
    path("async/leave/", leave_async),
    path("async/new-password/", new_password_async),
    path("async/whoami/", whoami_async),
    path("async/unused/", unused_async),
]
