from typing import Any

from django.core.management.base import BaseCommand

from ...api import clear_stale


class Command(BaseCommand):
    help = "Removes the devices whose sessions are gone. For cron, after clearsessions."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(f"{clear_stale()} removed")
