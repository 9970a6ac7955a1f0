"""As gunicorn --preload and uWSGI without lazy-apps load it: in the master, which then forks."""

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

from django.db import connections  # noqa: E402

from .stores import STORES, new, use  # noqa: E402

for name, store in STORES.items():
    assert use(store, new(store, name), name) == 1
# Django's own rule for a database; Redis is to take care of itself.
connections.close_all()
