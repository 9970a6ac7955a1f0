"""64 threads on one process, each with sessions of its own."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from django.core.management.base import BaseCommand
from django.db import connections

from shop.stores import STORES, new, use

THREADS, TIMES = 64, 25


class Command(BaseCommand):
    def handle(self, **options):
        barrier = Barrier(THREADS)

        def work(number):
            barrier.wait(timeout=30)
            try:
                for engine, store in STORES.items():
                    name = f"{engine} {number}"
                    key = new(store, name)
                    counts = [use(store, key, name) for _ in range(TIMES)]
                    assert counts == list(range(1, TIMES + 1)), counts
            finally:
                connections.close_all()
            return number

        with ThreadPoolExecutor(THREADS) as pool:
            assert sum(pool.map(work, range(THREADS))) == sum(range(THREADS))
        self.stdout.write("all kept their sessions")
