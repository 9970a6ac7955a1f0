"""Forks while threads and an event loop use the sessions; then both sides go on."""

import asyncio
import multiprocessing
import os
import threading
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor

from django.core.management.base import BaseCommand
from django.db import connections

from shop.stores import STORES, ause, new, use

TIMES = 30


def go_on(keys):
    for _ in range(TIMES):
        for name, key in keys.items():
            use(STORES[name], key, name)
    asyncio.run(go_on_async(keys))
    connections.close_all()
    return os.getpid()


async def go_on_async(keys):
    for _ in range(TIMES):
        await ause(STORES["cache"], keys["cache"], "cache")


def new_keys():
    # Called in threads, too, whose connections to SQLite would stay open over a fork: the child's
    # SQLite would then take the parent's locks for its own.
    try:
        return {name: new(store, name) for name, store in STORES.items()}
    finally:
        connections.close_all()


def fork(keys, function=go_on):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function(keys)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


class Command(BaseCommand):
    def handle(self, **options):
        # Python says that forking with threads is dangerous. It is what is tested here.
        warnings.simplefilter("ignore", DeprecationWarning)
        self.ended = threading.Event()
        threads = [threading.Thread(target=self.read_on) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            own = new_keys()
            children = []
            for _ in range(3):
                keys = new_keys()
                # Whoever forks must not share a connection to a database. Redis's may be open.
                connections.close_all()
                children.append(fork(keys))
                for name, key in own.items():
                    use(STORES[name], key, name)
            for pid in children:
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            connections.close_all()
            asyncio.run(self.fork_on_a_loop())
        finally:
            self.ended.set()
            for thread in threads:
                thread.join()
        keys = [new_keys() for _ in range(4)]
        connections.close_all()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            result = pool.map_async(go_on, keys)
            go_on(own)
            pids = result.get(timeout=30)
        assert os.getpid() not in pids
        self.stdout.write("all went on")

    def read_on(self):
        key = new(STORES["cache"], "reader")
        while not self.ended.is_set():
            use(STORES["cache"], key, "reader")
        connections.close_all()

    async def fork_on_a_loop(self):
        """While other tasks of the loop wait for Redis."""
        keys = await asyncio.to_thread(new_keys)
        others = await asyncio.to_thread(lambda: [new_keys() for _ in range(5)])
        tasks = [asyncio.create_task(go_on_async(other)) for other in others]
        await asyncio.sleep(0.005)
        # The loop is the parent's. The child makes its own, in a thread that has none.
        pid = fork(keys, lambda keys: ThreadPoolExecutor(1).submit(go_on, keys).result())
        await asyncio.gather(*tasks)
        status = await asyncio.to_thread(lambda: os.waitpid(pid, 0)[1])
        assert os.waitstatus_to_exitcode(status) == 0
