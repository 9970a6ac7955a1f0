"""A database of a vendor that nobody knows (SQLite in truth)."""

from django.db.backends.sqlite3 import base


class DatabaseWrapper(base.DatabaseWrapper):
    vendor = "unknown"
    display_name = "Unknown"
