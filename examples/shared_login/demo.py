"""The demo: a Django site and a Rust service that share one login.

    demo.py run      starts both, for you to look at; Ctrl-C stops them
    demo.py check    plays the same story without a person, in headless Chromium

Either takes --store: where the sessions are kept.

Standard library only. `make demo` and `make demo-check` build what is needed and call this.
"""

import argparse
import importlib.util
import signal
import sys
import time
from pathlib import Path

from servers import CHECKOUT, PASSWORD, USERNAME, DemoError, Servers, find_service, free_port
from stores import STORES
from story import check_all

WELCOME = f"""
Two doors are open. Ctrl-C closes both.

  Django    {{django}}/
  Rust      {{rust}}/
  User      {USERNAME}
  Password  {PASSWORD}
  Sessions  {{kept}}

What to try
  1. Log in on Django, then open the Rust address: it greets you by name.
  2. Put something into the cart on one side, and look at the other.
  3. Log out in Rust: Django knows nobody any more.
  4. Log in from two browsers and change the password in one: both servers refuse the other.

Their logs are .demo/{{store}}/django.log and .demo/{{store}}/rust.log.
"""


def run(store):
    """Until Ctrl-C, or until a server stops."""
    service = find_service()
    ports = free_port(8000), free_port(8001)
    with Servers(CHECKOUT / ".demo" / store, service, *ports, store) as servers:
        print(f"Preparing the database and the user in .demo/{store}/", flush=True)
        servers.prepare()
        print("Starting both servers", flush=True)
        servers.start()
        kept = servers.store.kept
        print(
            WELCOME.format(django=servers.django, rust=servers.rust, kept=kept, store=store),
            flush=True,
        )
        while True:
            servers.check_alive()
            time.sleep(0.3)


def interrupt(*_):
    # Once is enough: while both servers are stopped, nothing interrupts that.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run_parser = commands.add_parser("run", help="start both servers")
    check_parser = commands.add_parser("check", help="play the story without a person")
    check_parser.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="save the README's pictures there"
    )
    run_parser.add_argument("--store", default="sqlite", help=f"one of {', '.join(STORES)}")
    check_parser.add_argument(
        "--store", default="all", help=f"all, or one of {', '.join(STORES)}; default: all"
    )
    arguments = parser.parse_args()

    # `kill` ends the demo as Ctrl-C does, and so it does where a shell made us deaf to Ctrl-C.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, interrupt)
    sys.stdout.reconfigure(errors="replace")
    if not importlib.util.find_spec("django"):
        print(f"Django is missing in {sys.executable}. Run `make demo`.", file=sys.stderr)
        return 2
    try:
        if arguments.command == "check":
            names = list(STORES) if arguments.store == "all" else [arguments.store]
            return check_all(names, arguments.pictures)
        run(arguments.store)
    except DemoError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nBoth doors are closed.")
        return 0 if arguments.command == "run" else 130


if __name__ == "__main__":
    sys.exit(main())
