from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Makes the demo's user, or gives it back its password and its active flag."

    def add_arguments(self, parser):
        parser.add_argument("username")
        parser.add_argument("password")

    def handle(self, *, username, password, **options):
        user, created = get_user_model().objects.get_or_create(
            username=username, defaults={"first_name": "Ada", "last_name": "Lovelace"}
        )
        # A new hash logs every session out: leave it alone when the password is still the same.
        if not user.check_password(password):
            user.set_password(password)
        user.is_active = True
        user.save()
        self.stdout.write(f"{'made' if created else 'found'} user {username}")
