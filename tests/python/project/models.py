"""The custom session of Django's documentation, once over Django's engine and once over ours."""

from django.contrib.sessions.backends.db import SessionStore as DjangoStore
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models
from django_rust_sessions.backends.db import SessionStore as RustStore


class CustomSession(AbstractBaseSession):
    account_id = models.IntegerField(null=True, db_index=True)

    @classmethod
    def get_session_store_class(cls):
        return CustomRustStore


class _Custom:
    @classmethod
    def get_model_class(cls):
        return CustomSession

    def create_model_instance(self, data):
        obj = super().create_model_instance(data)
        try:
            account_id = int(data.get("_auth_user_id"))
        except (ValueError, TypeError):
            account_id = None
        obj.account_id = account_id
        return obj


class CustomDjangoStore(_Custom, DjangoStore):
    key_salt = "custom"


class CustomRustStore(_Custom, RustStore):
    key_salt = "custom"
