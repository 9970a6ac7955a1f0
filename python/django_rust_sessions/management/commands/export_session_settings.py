"""manage.py export_session_settings: what Rust needs to know of this project's sessions."""

import os
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ..export import Report, export
from ..export.writers import WRITERS
from ..files import replace_file

COMMENT = """\
The settings of this Django project's sessions, for the Rust crate django-sessions:
Settings::from_file opens the store that they name.
Written by `manage.py export_session_settings`; export again when the settings change.
"""


class Command(BaseCommand):
    help = (
        "Writes what the settings say about sessions (engine, cookie, cache, database, users) to a "
        "file that the Rust crate django-sessions opens with Settings::from_file. Secrets are "
        "written as the names of environment variables, which are listed on standard error."
    )
    # An export is not to fail over a check of something else.
    requires_system_checks: Any = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "-o", "--output", metavar="FILE", help="The file to write. Default: standard output."
        )
        parser.add_argument(
            "--format",
            choices=sorted(WRITERS),
            help="Default: what the suffix of FILE says, else toml.",
        )
        parser.add_argument(
            "--engine",
            metavar="ENGINE",
            default="",
            help="As if this were SESSION_ENGINE: for a migration there, or from there.",
        )
        parser.add_argument(
            "--with-secrets",
            action="store_true",
            help="Write secrets themselves. FILE can then be read by its owner only.",
        )
        parser.add_argument(
            "--check",
            action="store_true",
            help="Write nothing; exit with 1 if FILE is not what would be written.",
        )

    def handle(
        self,
        *,
        output: str | None,
        format: str | None,
        engine: str,
        with_secrets: bool,
        check: bool,
        verbosity: int,
        **options: Any,
    ) -> None:
        if check and output is None:
            raise CommandError("--check needs --output, the file to compare with.")
        report = Report(with_secrets)
        tree = export(report, engine)
        text = WRITERS[format or _format_of(output)](tree, COMMENT)
        if check:
            self._check(Path(output or ""), text)
            return
        if output is None:
            self.stdout.write(text, ending="")
        else:
            write(Path(output), text, private=with_secrets)
        if verbosity > 0:
            self._tell(report)

    def _check(self, path: Path, text: str) -> None:
        try:
            found = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{path} cannot be read: {error}") from None
        if found != text:
            raise CommandError(
                f"{path} is not what this project's settings say. Run manage.py "
                f"export_session_settings --output {path} with the options that it was made with."
            )

    def _tell(self, report: Report) -> None:
        if report.variables:
            width = max(map(len, report.variables))
            self.stderr.write("The Rust service needs these environment variables:")
            for name, source in report.variables.items():
                self.stderr.write(f"  {name:{width}}  {source}")
        for sentence in report.notes:
            self.stderr.write(f"Note: {sentence}")


def _format_of(output: str | None) -> str:
    suffix = Path(output).suffix.removeprefix(".") if output else "toml"
    if suffix not in WRITERS:
        raise CommandError(
            f"{output!r} ends neither with .toml nor with .json, by which the Rust crate knows the "
            "format. Rename it."
        )
    return suffix


def write(path: Path, text: str, *, private: bool) -> None:
    try:
        replace_file(path, text, 0o600 if private else _mode_of(path))
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from None


def _mode_of(path: Path) -> int:
    """That of the file which is there; of a new one, what the user's umask leaves."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask
