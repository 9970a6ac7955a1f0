import uuid

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import AbstractUser, PermissionsMixin
from django.db import models

MODEL = settings.AUTH_USER_MODEL

if MODEL == "accounts.Customer":

    class Customer(AbstractBaseUser, PermissionsMixin):
        """Names that need quotes, an address to log in with, no staff."""

        number = models.UUIDField(primary_key=True, default=uuid.uuid4, db_column="Number")
        email = models.EmailField(unique=True, db_column="e-mail address")
        is_active = models.BooleanField(default=True, db_column="in use")
        credit = models.BigIntegerField(default=7)
        nickname = models.CharField(max_length=20, null=True)
        objects = BaseUserManager()
        USERNAME_FIELD = "email"

        class Meta:
            db_table = "Shop customer"


if MODEL == "accounts.Member":

    class Member(AbstractBaseUser):
        """No more than a name and a password."""

        last_login = None
        code = models.CharField(primary_key=True, max_length=40)
        credit = models.BigIntegerField(default=7)
        objects = BaseUserManager()
        USERNAME_FIELD = "code"


if MODEL == "accounts.Clerk":

    class Person(AbstractUser):
        credit = models.BigIntegerField(default=7)

    class Clerk(Person):
        """Multi-table inheritance."""

        desk = models.CharField(max_length=20)
