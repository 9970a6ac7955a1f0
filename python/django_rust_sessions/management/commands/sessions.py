"""manage.py sessions: prune, migrate and resign what is stored."""

import argparse
from hashlib import sha256
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...conf import option
from ..sessions import migrate, prune, resign
from ..sessions.common import (
    INTERRUPTED,
    Interrupt,
    duration,
    positive,
    seconds,
    sentence,
    store_errors,
)
from ..sessions.progress import Progress
from ..sessions.stores import open_place
from ..sessions.stores.base import Place


class Command(BaseCommand):
    help = (
        "Deletes expired sessions in batches (prune), brings sessions to another store (migrate), "
        "and writes them anew under a new SECRET_KEY (resign), while the site runs. Exit codes: 0 "
        "when it is done, 1 when it could not be, 2 for a mistake in the options, 130 after Ctrl-C."
    )
    # It is to work while a setting of something else is wrong.
    requires_system_checks: Any = ()

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")

        sub = commands.add_parser("prune", help="Deletes sessions that are over, in batches.")
        _add_place(sub)
        _add_pace(sub, 500, "rows a batch deletes at most: fewer, where they take over 20 ms")
        sub.add_argument("--limit", type=positive, metavar="N", help="Stop after so many.")
        sub.add_argument(
            "--older-than",
            type=duration,
            default=duration("0s"),
            metavar="TIME",
            help="Only those that ended that long ago: 30d, 12h, 15m.",
        )
        sub.add_argument("--dry-run", action="store_true", help="Only say how many there are.")

        sub = commands.add_parser("migrate", help="Brings live sessions to another store.")
        sub.add_argument(
            "--from",
            dest="from_engine",
            required=True,
            metavar="ENGINE",
            help="db, cache, cached_db or file, or the name of a module.",
        )
        sub.add_argument("--to", dest="to_engine", required=True, metavar="ENGINE")
        for side in ("from", "to"):
            _add_aliases(sub, side)
        _add_pace(sub, 200, "sessions are brought at once")
        sub.add_argument(
            "--checkpoint",
            metavar="FILE",
            help="Go on from where this file says, and write there how far it is.",
        )

        sub = commands.add_parser("resign", help="Writes sessions anew under today's SECRET_KEY.")
        _add_place(sub)
        _add_pace(sub, 200, "sessions are read at once")
        sub.add_argument("--dry-run", action="store_true", help="Only say how many there are.")

    def handle(self, *, subcommand: str, **options: Any) -> None:
        interrupt = Interrupt()
        work = {"prune": self._prune, "migrate": self._migrate, "resign": self._resign}[subcommand]
        try:
            with interrupt.watch():
                report = work(options, interrupt)
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        except store_errors() as error:
            raise CommandError(
                f"A store failed: {sentence(error)}. What was done stays done; run the same "
                "command again when it works."
            ) from None
        self.stdout.write(report)
        if interrupt:
            raise SystemExit(INTERRUPTED)

    def _prune(self, options: dict[str, Any], interrupt: Interrupt) -> str:
        if _keeps_cookies(options["engine"]):
            return "Nothing to do: signed_cookies keeps sessions in browsers, which forget them."
        chosen = prune.Options(
            *(options[name] for name in ("batch", "sleep", "limit", "older_than", "dry_run"))
        )
        store = open_place(_place(options))
        return prune.prune(store, chosen, self._progress("Deleted", options), interrupt).sentence

    def _migrate(self, options: dict[str, Any], interrupt: Interrupt) -> str:
        source, target = _place(options, "from"), _place(options, "to")
        from_store, to_store = open_place(source), open_place(target)
        migrate.check_pair(from_store, to_store)
        move = migrate.is_on_the_move(from_store, to_store)
        verb = "Moved" if move else "Copied"
        if options["verbosity"] > 0:
            self.stdout.write(
                "The site reads both stores (FALLBACK_ENGINE): sessions are moved."
                if move
                else "The site does not read --from as its FALLBACK_ENGINE: sessions are copied, "
                "and stay in both."
            )
        # Hashed, for the LOCATION of a cache may have a password in it.
        between = [
            sha256(str(store.identity()).encode()).hexdigest() for store in (from_store, to_store)
        ]
        migration = migrate.Migration(
            from_store,
            to_store,
            move=move,
            batch=options["batch"],
            sleep=options["sleep"] or 0.0,
            checkpoint=migrate.Checkpoint(options["checkpoint"], between),
            progress=self._progress(verb, options),
            interrupt=interrupt,
        )
        migration.run()
        return migration.report()

    def _resign(self, options: dict[str, Any], interrupt: Interrupt) -> str:
        if not resign.has_fallbacks():
            raise CommandError(
                "SECRET_KEY_FALLBACKS is empty: there is no older key under which sessions could "
                "be read. Put the old SECRET_KEY there first."
            )
        if option("FALLBACK_ENGINE"):
            raise CommandError(
                "The site reads two stores (FALLBACK_ENGINE), and sessions move between them. "
                "Bring all to the new one first (sessions migrate), take FALLBACK_ENGINE out, "
                "restart the site, and then run this again. Keep SECRET_KEY_FALLBACKS until then."
            )
        resigning = resign.Resigning(
            open_place(_place(options)),
            batch=options["batch"],
            sleep=options["sleep"] or 0.0,
            dry_run=options["dry_run"],
            progress=self._progress("Read", options),
            interrupt=interrupt,
        )
        resigning.run()
        return resigning.report()

    def _progress(self, what: str, options: dict[str, Any]) -> Progress:
        quiet = options["no_progress"] or options["verbosity"] == 0
        return Progress(self.stderr, what, quiet=quiet)


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        default=None,
        metavar="ENGINE",
        help="db, cache, cached_db or file, or the name of a module. Default: SESSION_ENGINE.",
    )
    _add_aliases(parser)


def _add_aliases(parser: argparse.ArgumentParser, side: str = "") -> None:
    prefix = f"--{side}-" if side else "--"
    parser.add_argument(
        f"{prefix}cache", default="", metavar="ALIAS", help="Default: SESSION_CACHE_ALIAS."
    )
    parser.add_argument(
        f"{prefix}database", default="", metavar="ALIAS", help="Default: what your routers say."
    )
    parser.add_argument(
        f"{prefix}path", default="", metavar="FOLDER", help="Default: SESSION_FILE_PATH."
    )


def _add_pace(parser: argparse.ArgumentParser, batch: int, what: str) -> None:
    parser.add_argument(
        "--batch",
        type=positive,
        default=batch,
        metavar="N",
        help=f"How many {what}. Default: {batch}.",
    )
    parser.add_argument(
        "--sleep",
        type=seconds,
        default=None,
        metavar="SECONDS",
        help="How long to leave the store to others after each batch: 0.05, or 50ms.",
    )
    parser.add_argument("--no-progress", action="store_true", help="Only say at the end.")


def _place(options: dict[str, Any], side: str = "") -> Place:
    names = [f"{side}_{name}" if side else name for name in Place._fields]
    engine, *aliases = (options[name] for name in names)
    return Place(engine or settings.SESSION_ENGINE, *aliases)


def _keeps_cookies(engine: str | None) -> bool:
    return (engine or settings.SESSION_ENGINE).rpartition(".")[2] == "signed_cookies"
