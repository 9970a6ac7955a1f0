"""Our session middleware, once for each engine: the first word of the path chooses."""

from asgiref.sync import iscoroutinefunction
from django.utils.decorators import sync_and_async_middleware
from django_rust_sessions.middleware import SessionMiddleware

from .stores import STORES


@sync_and_async_middleware
def session_middleware(get_response):
    engines = {}
    for name, store in STORES.items():
        engines[name] = SessionMiddleware(get_response)
        engines[name].SessionStore = store

    def of(request):
        return engines[request.path.split("/")[1]]

    if iscoroutinefunction(get_response):

        async def middleware(request):
            return await of(request)(request)

    else:

        def middleware(request):
            return of(request)(request)

    return middleware
