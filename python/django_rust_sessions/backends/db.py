"""django.contrib.sessions.backends.db with its codec in Rust."""

from django.contrib.sessions.backends.db import SessionStore as DjangoSessionStore

from ..codec import CodecMixin


class SessionStore(CodecMixin, DjangoSessionStore):
    """Database session store. Custom session models subclass it as they would Django's."""
