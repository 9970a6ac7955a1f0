"""Redis or Valkey without a client library in between: each operation is one round trip.

Connections are opened as redis-py would open them, from its own reading of the settings. Threads
take them from a pool; an event loop has one of its own, over which all its tasks talk at once.
Nothing is opened before it is needed, and no connection is used on both sides of a fork.
"""

import asyncio
import contextlib
import os
import select
import socket
import ssl
import struct
import sys
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from hashlib import sha1
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from .resp import AuthenticationWrongNumberOfArgsError, new_reader, pack

READ_SIZE = 64 * 1024

# One step for Redis. The whole value would say the same as its digest, and be sent twice.
SWAP = b"""\
local now = redis.call("GET", KEYS[1])
if not now or redis.sha1hex(now) ~= ARGV[1] then return now end
if ARGV[4] and tonumber(ARGV[4]) <= 0 then
    redis.call("DEL", KEYS[1])
else
    redis.call("SET", KEYS[1], ARGV[2], unpack(ARGV, 3))
end
return 1"""


class LostConnection(RedisConnectionError):
    """The server ended a connection that had worked before, as it does when it starts anew."""


class Address:
    """Where a server is and how it greets: what redis-py read from a URL and its options."""

    def __init__(self, parsed: Any, connect_timeout: float | None, timeout: float | None) -> None:
        self.path: str | None = getattr(parsed, "path", None)
        self.host: str = getattr(parsed, "host", "")
        self.port = int(getattr(parsed, "port", 0))
        self.tls = _tls_context(parsed) if hasattr(parsed, "ca_certs") else None
        self.connect_timeout, self.timeout = connect_timeout, timeout
        self.greeting = [pack(*words) for words in _greeting(parsed)]
        self.old_login = pack(b"AUTH", (parsed.password or "").encode())

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    def knows_no_users(self, reply: Any) -> bool:
        """Whether this is the answer of a server before Redis 6, which takes a password alone."""
        return isinstance(reply, AuthenticationWrongNumberOfArgsError)

    def open(self) -> socket.socket:
        if self.path:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.settimeout(self.connect_timeout)
                connection.connect(self.path)
            except BaseException:
                connection.close()
                raise
        else:
            connection = socket.create_connection((self.host, self.port), self.connect_timeout)
            prepare(connection)
        if self.tls:
            # It closes the socket if that fails.
            connection = self.tls.wrap_socket(connection, server_hostname=self.host)
            connection.settimeout(self.timeout)
        else:
            limit(connection, self.timeout)
        return connection


def prepare(connection: socket.socket) -> None:
    """What redis-py sets on every TCP socket."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def limit(connection: socket.socket, timeout: float | None) -> None:
    """How long each read and write may take."""
    if timeout is None or not sys.platform.startswith("linux"):
        connection.settimeout(timeout)
        return
    # The kernel watches the time. Python would ask it before each read and write whether they are
    # possible, which takes a fifth of the whole round trip.
    connection.settimeout(None)
    value = struct.pack("ll", int(timeout), max(1, int(timeout % 1 * 1_000_000)))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def _tls_context(parsed: Any) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = parsed.check_hostname
    context.verify_mode = parsed.cert_reqs
    for flag in getattr(parsed, "ssl_include_verify_flags", None) or ():
        context.verify_flags |= flag
    for flag in getattr(parsed, "ssl_exclude_verify_flags", None) or ():
        context.verify_flags &= ~flag
    if parsed.certfile or parsed.keyfile:
        context.load_cert_chain(
            parsed.certfile, parsed.keyfile, password=parsed.certificate_password
        )
    if parsed.ca_certs or parsed.ca_path or parsed.ca_data:
        context.load_verify_locations(parsed.ca_certs, parsed.ca_path, parsed.ca_data)
    if getattr(parsed, "ssl_min_version", None) is not None:
        context.minimum_version = parsed.ssl_min_version
    if getattr(parsed, "ssl_ciphers", None):
        context.set_ciphers(parsed.ssl_ciphers)
    return context


def _greeting(parsed: Any) -> list[tuple[bytes, ...]]:
    """The commands that begin a connection."""
    commands: list[tuple[str, ...]] = []
    if parsed.username or parsed.password:
        # As redis-py greets: a password alone is refused where there is none to tell.
        commands.append(("AUTH", parsed.username or "default", parsed.password or ""))
    if parsed.client_name:
        commands.append(("CLIENT", "SETNAME", parsed.client_name))
    if parsed.db:
        commands.append(("SELECT", str(parsed.db)))
    return [tuple(word.encode() for word in command) for command in commands]


@contextlib.contextmanager
def redis_errors(doing: str, address: Address) -> Iterator[None]:
    """Errors of sockets as redis-py's, which is what callers of Django's cache expect."""
    try:
        yield
    except (TimeoutError, BlockingIOError) as error:
        raise RedisTimeoutError(f"Redis at {address} took too long {doing}") from error
    except OSError as error:
        kind = LostConnection if doing == "to answer" else RedisConnectionError
        raise kind(f"Redis at {address} failed {doing}: {error}") from error


# ------------------------------------------------------------------------------------ for threads


class Connection:
    """One socket, used by one thread at a time."""

    def __init__(self, address: Address, at_end: Callable[[], None]) -> None:
        self.address = address
        self.reader = new_reader()
        try:
            with redis_errors("to connect", address):
                self.socket = address.open()
        except BaseException:
            at_end()
            raise
        # Not __del__: of a cycle the garbage collector may take the socket first, and complain.
        # Once, whether it is closed or forgotten.
        self.close = weakref.finalize(self, _end, self.socket, at_end)
        try:
            for command in address.greeting:
                reply = self.call(command)
                if address.knows_no_users(reply):
                    reply = self.call(address.old_login)
                if isinstance(reply, Exception):
                    raise reply
        except BaseException:
            self.close()
            raise
        self.is_readable = _watch(self.socket)

    def call(self, *commands: bytes) -> Any:
        """The server's reply, or a list of them. After an exception the connection must be closed.

        Several commands go out together.
        """
        replies: list[Any] = []
        try:
            self.socket.sendall(commands[0] if len(commands) == 1 else b"".join(commands))
            while len(replies) < len(commands):
                data = self.socket.recv(READ_SIZE)
                if not data:
                    raise LostConnection(f"Redis at {self.address} closed the connection")
                replies += self.reader.feed(data)
        except OSError as error:
            with redis_errors("to answer", self.address):
                raise error
        if len(replies) > len(commands) or not self.reader.is_empty:
            # Whose answer is it? Nobody must get it.
            raise InvalidResponse(f"Redis at {self.address} answers more than it was asked")
        return replies[0] if len(commands) == 1 else replies

    def is_silent(self) -> bool:
        """Whether nothing came since the last answer. It would be taken for the next one."""
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return False
        return not self.is_readable()


def _end(connection: socket.socket, at_end: Callable[[], None]) -> None:
    connection.close()
    at_end()


def _watch(connection: socket.socket) -> Callable[[], Any]:
    """What says whether there is something to read."""
    if not hasattr(select, "poll"):  # on Windows, where select() takes any socket
        return lambda: select.select([connection], [], [], 0)[0]
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return lambda: poll.poll(0)


# -------------------------------------------------------------------------------- for event loops


class AsyncConnection(asyncio.Protocol):
    """One connection of an event loop: questions go out together, answers come in their order."""

    def __init__(self, address: Address, loop: asyncio.AbstractEventLoop) -> None:
        self.address, self.loop = address, loop
        self.reader = new_reader()
        self.transport: Any = None
        self.is_closed = False
        # One a question, with the time when it was sent. A task that was cancelled leaves its
        # place: the answer still comes, and must not reach the next one in the line.
        self.waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self.unsent: list[tuple[asyncio.Future[Any], bytes]] = []
        self.heard = 0.0  # when something last came
        self.timer: asyncio.TimerHandle | None = None

    def call(self, command: bytes) -> asyncio.Future[Any]:
        """The server's reply, to be awaited."""
        if self.is_closed:
            raise LostConnection(f"Redis at {self.address} closed the connection")
        future: asyncio.Future[Any] = self.loop.create_future()
        if not self.unsent:
            # What other tasks ask in this turn of the loop goes with it.
            self.loop.call_soon(self._send)
        self.unsent.append((future, command))
        return future

    def _send(self) -> None:
        unsent, self.unsent = self.unsent, []
        if self.is_closed:
            return
        # Not before: what keeps the event loop busy until then is not Redis's time.
        now = self.loop.time()
        self.waiting.extend([(future, now) for future, _ in unsent])
        self.transport.write(b"".join([command for _, command in unsent]))
        if self.timer is None and self.address.timeout is not None:
            self.timer = self.loop.call_later(self.address.timeout, self._check_time)

    def _check_time(self, again: bool = False) -> None:
        self.timer = None
        timeout = self.address.timeout
        if not self.waiting or timeout is None:
            return
        late = max(self.waiting[0][1], self.heard) + timeout
        if late > self.loop.time():
            self.timer = self.loop.call_at(late, self._check_time)
        elif not again:
            # The loop may have been busy, and not have read what has come: first it does that.
            self.timer = self.loop.call_later(0.001, self._check_time, True)
        else:
            error = RedisTimeoutError(f"Redis at {self.address} took too long to answer")
            self.close(error)

    def close(self, error: Exception | None = None) -> None:
        """Ends it at once; whoever waits gets the error."""
        self.is_closed = True
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        waiting, self.waiting = [*self.waiting, *self.unsent], deque()
        self.unsent = []
        for future, _ in waiting:
            if not future.done():
                future.set_exception(
                    error or LostConnection(f"Redis at {self.address} closed the connection")
                )
        if self.transport is not None:
            self.transport.abort()

    # Called by the loop.

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard = self.loop.time()
        try:
            replies = self.reader.feed(data)
            if len(replies) > len(self.waiting):
                # Which are the answers? Nobody must get any.
                raise InvalidResponse(f"Redis at {self.address} answers more than it was asked")
            for reply in replies:
                future, _ = self.waiting.popleft()
                if not future.done():
                    future.set_result(reply)
        except InvalidResponse as error:
            self.close(error)

    def connection_lost(self, error: Exception | None) -> None:
        self.close()


async def _connect(address: Address, loop: asyncio.AbstractEventLoop) -> AsyncConnection:
    def make() -> AsyncConnection:
        return AsyncConnection(address, loop)

    connection: AsyncConnection | None = None
    try:
        with redis_errors("to connect", address):
            async with asyncio.timeout(address.connect_timeout):
                if address.path:
                    _, connection = await loop.create_unix_connection(make, address.path)
                else:
                    hostname = address.host if address.tls else None
                    _, connection = await loop.create_connection(
                        *(make, address.host, address.port),
                        ssl=address.tls,
                        server_hostname=hostname,
                    )
        if not address.path:
            prepare(connection.transport.get_extra_info("socket"))
        for command in address.greeting:
            reply = await connection.call(command)
            if address.knows_no_users(reply):
                reply = await connection.call(address.old_login)
            if isinstance(reply, Exception):
                raise reply
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    return connection


class LoopConnections:
    """The connection of each event loop, made when one first asks and closed with the loop."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.connections: dict[asyncio.AbstractEventLoop, AsyncConnection] = {}
        self.connecting: dict[asyncio.AbstractEventLoop, asyncio.Task[AsyncConnection]] = {}
        # Held until its loop ends, which then runs the code after its yield.
        self.keepers: dict[asyncio.AbstractEventLoop, AsyncGenerator[None, None]] = {}

    async def get(self, loop: asyncio.AbstractEventLoop) -> AsyncConnection:
        task = self.connecting.get(loop)
        if task is None:
            task = self.connecting[loop] = loop.create_task(self._open(loop))
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        # One task's cancellation must not end what others wait for.
        return await asyncio.shield(task)

    async def _open(self, loop: asyncio.AbstractEventLoop) -> AsyncConnection:
        try:
            connection = self.connections[loop] = await _connect(self.address, loop)
        finally:
            del self.connecting[loop]
        if loop not in self.keepers:
            self._forget_closed_loops()
            keeper = self.keepers[loop] = self._keep(loop)
            await anext(keeper)
        return connection

    async def _keep(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            # Of asyncio.run(), through loop.shutdown_asyncgens(): the last moment to close in.
            self.keepers.pop(loop, None)
            if connection := self.connections.pop(loop, None):
                connection.close()
                await asyncio.sleep(0)

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in list(self.connections) if loop.is_closed()]:
            self.connections.pop(loop, None)
            self.keepers.pop(loop, None)


# ------------------------------------------------------------------------------------- the server


class Server:
    """A Redis server, as one process talks to it."""

    def __init__(self, address: Address, max_connections: int | None = None) -> None:
        self.address = address
        self.max_connections = max_connections
        self._start()

    def _start(self) -> None:
        self.pid = os.getpid()
        self.idle: list[Connection] = []
        # One for each connection that may be opened. A list, for the garbage collector may give one
        # back while this thread takes one, which no lock would bear.
        self.slots = [None] * (self.max_connections or 0)
        self.loops = LoopConnections(self.address)

    def _check_fork(self) -> None:
        if self.pid != os.getpid():
            # The parent's connections are left alone. To close those of its loops would take them
            # out of an epoll that the child shares with the parent.
            _parents.append(self.loops)
            self._start()

    def call(self, *commands: bytes) -> Any:
        """The reply to a command, in this thread; of several, which go together, a list."""
        self._check_fork()
        if connection := self._take_idle():
            try:
                return self._use(connection, *commands)
            except LostConnection:
                self.idle.clear()  # the others are as old
        with _lost_for_good():
            return self._use(self._open(), *commands)

    async def acall(self, *commands: bytes) -> Any:
        """The same, awaited on the running event loop."""
        self._check_fork()
        loop = asyncio.get_running_loop()
        connection = self.loops.connections.get(loop)
        if connection is not None and not connection.is_closed:
            try:
                return _or_raise(await _gather(connection, commands))
            except LostConnection:
                pass  # It is made again once; as in a thread.
        connection = await self.loops.get(loop)
        with _lost_for_good():
            return _or_raise(await _gather(connection, commands))

    def _open(self) -> Connection:
        if not self.max_connections:
            return Connection(self.address, lambda: None)
        slots = self.slots
        try:
            slots.pop()
        except IndexError:
            raise RedisConnectionError("Too many connections") from None
        return Connection(self.address, lambda: slots.append(None))

    def _take_idle(self) -> Connection | None:
        while True:
            try:
                connection = self.idle.pop()
            except IndexError:
                return None
            if connection.is_silent():
                return connection
            connection.close()

    def _use(self, connection: Connection, *commands: bytes) -> Any:
        try:
            reply = connection.call(*commands)
        except BaseException:
            # Its answer may still come, and must not be taken for the answer to the next question.
            connection.close()
            raise
        self.idle.append(connection)
        return _or_raise(reply)


_parents: list[Any] = []


@contextlib.contextmanager
def _lost_for_good() -> Iterator[None]:
    try:
        yield
    except LostConnection as error:
        raise RedisConnectionError(*error.args) from error


def _gather(connection: AsyncConnection, commands: tuple[bytes, ...]) -> asyncio.Future[Any]:
    if len(commands) == 1:
        return connection.call(commands[0])
    return asyncio.gather(*map(connection.call, commands))


def _or_raise(reply: Any) -> Any:
    for each in reply if type(reply) is list else (reply,):
        if isinstance(each, Exception):
            raise each
    return reply


# -------------------------------------------------------------------------------------- the cache


class RedisCache:
    """What a session engine asks of a cache, over Redis.

    Keys, values and times to live are those of the Django cache that it stands in for.
    """

    # The project has a function of its own for its keys or values, which belongs to threads.
    calls_project = False

    def __init__(
        self,
        *,
        write: Server,
        reads: list[Server],
        choose: Callable[[list[Server]], Server],
        make_key: Callable[[str], Any],
        encode: Callable[[Any], Any],
        decode: Callable[[bytes], Any],
        life: Callable[[Any], tuple[bytes, int] | None],
        forgive: Callable[[Exception], bool] | None = None,
    ) -> None:
        self.write, self.reads, self.choose = write, reads, choose
        self.make_key, self.encode, self.decode = make_key, encode, decode
        self.life, self.forgive = life, forgive

    def read(self, key: str) -> Any:
        """The value as Redis has it, for `decode`."""
        return _check_value(self._ask(self._reader(), pack(b"GET", self._key(key))))

    async def aread(self, key: str) -> Any:
        return _check_value(await self._aask(self._reader(), pack(b"GET", self._key(key))))

    def get(self, key: str) -> Any:
        return self._read_value(self._ask(self._reader(), pack(b"GET", self._key(key))))

    async def aget(self, key: str) -> Any:
        return self._read_value(await self._aask(self._reader(), pack(b"GET", self._key(key))))

    def add(self, key: str, value: Any, timeout: Any) -> bool:
        """False if the key is taken."""
        command, done = self._add(key, value, timeout)
        return bool(self._ask(self.write, command) in done)

    async def aadd(self, key: str, value: Any, timeout: Any) -> bool:
        command, done = self._add(key, value, timeout)
        return bool(await self._aask(self.write, command) in done)

    def replace(self, key: str, value: Any, timeout: Any) -> bool:
        """False if there is no such key."""
        command, done = self._set(key, value, timeout, b"XX")
        return bool(self._ask(self.write, command) in done)

    async def areplace(self, key: str, value: Any, timeout: Any) -> bool:
        command, done = self._set(key, value, timeout, b"XX")
        return bool(await self._aask(self.write, command) in done)

    def swap(self, key: str, before: bytes | None, value: bytes, timeout: Any) -> Any:
        """True if `value` has taken the place of `before`, None if there is no such key; or else
        what is there. All are bytes as Redis has them."""
        return _check_swap(self._ask(self.write, self._swap(key, before, value, timeout)))

    async def aswap(self, key: str, before: bytes | None, value: bytes, timeout: Any) -> Any:
        return _check_swap(await self._aask(self.write, self._swap(key, before, value, timeout)))

    def to_bytes(self, value: Any) -> bytes:
        return _to_bytes(self.encode(value))

    def set(self, key: str, value: Any, timeout: Any) -> None:
        self._ask(self.write, self._set(key, value, timeout)[0])

    async def aset(self, key: str, value: Any, timeout: Any) -> None:
        await self._aask(self.write, self._set(key, value, timeout)[0])

    def delete(self, key: str) -> None:
        self._ask(self.write, pack(b"DEL", self._key(key)))

    async def adelete(self, key: str) -> None:
        await self._aask(self.write, pack(b"DEL", self._key(key)))

    def has_key(self, key: str) -> bool:
        return bool(self._ask(self._reader(), pack(b"EXISTS", self._key(key))) == 1)

    async def ahas_key(self, key: str) -> bool:
        return bool(await self._aask(self._reader(), pack(b"EXISTS", self._key(key))) == 1)

    def rename(self, old: str, new: str) -> bool:
        """False if there is no such key. What is under the new one already is newer, and stays."""
        try:
            if self._ask(self.write, pack(b"RENAMENX", self._key(old), self._key(new))) == 0:
                self.delete(old)
        except ResponseError as error:
            _check_missing(error)
            return False
        return True

    async def arename(self, old: str, new: str) -> bool:
        command = pack(b"RENAMENX", self._key(old), self._key(new))
        try:
            if await self._aask(self.write, command) == 0:
                await self.adelete(old)
        except ResponseError as error:
            _check_missing(error)
            return False
        return True

    def _reader(self) -> Server:
        return self.reads[0] if len(self.reads) == 1 else self.choose(self.reads)

    def _key(self, key: str) -> bytes:
        return _to_bytes(self.make_key(key))

    def _read_value(self, reply: Any) -> Any:
        return None if _check_value(reply) is None else self.decode(reply)

    def _swap(self, key: str, before: bytes | None, value: bytes, timeout: Any) -> bytes:
        digest = b"" if before is None else sha1(before, usedforsecurity=False).hexdigest().encode()
        life = self.life(timeout)
        ends = () if life is None else (life[0], b"%d" % life[1])
        return pack(b"EVAL", SWAP, b"1", self._key(key), digest, value, *ends)

    def _add(self, key: str, value: Any, timeout: Any) -> tuple[bytes, tuple[Any, ...]]:
        life = self.life(timeout)
        if life is not None and life[1] <= 0:
            # Nothing would be kept: only whether the key is taken is of interest.
            return pack(b"EXISTS", self._key(key)), (0,)
        return self._set(key, value, timeout, b"NX")

    def _set(
        self, key: str, value: Any, timeout: Any, *condition: bytes
    ) -> tuple[bytes, tuple[Any, ...]]:
        """A command, and the replies that say that it was done."""
        life = self.life(timeout)
        if life is None:
            ends: tuple[bytes, ...] = ()
        elif life[1] <= 0:
            return pack(b"DEL", self._key(key)), (1,)
        else:
            ends = (life[0], b"%d" % life[1])
        words = (b"SET", self._key(key), _to_bytes(self.encode(value)), *ends, *condition)
        return pack(*words), (b"OK",)

    def _ask(self, server: Server, *commands: bytes) -> Any:
        try:
            return server.call(*commands)
        except Exception as error:
            if self.forgive and self.forgive(error):
                return None
            raise

    def _aask(self, server: Server, *commands: bytes) -> Coroutine[Any, Any, Any]:
        # Without a coroutine of its own where no error is forgiven.
        asked = server.acall(*commands)
        return _forgiving(asked, self.forgive) if self.forgive else asked


async def _forgiving(asked: Coroutine[Any, Any, Any], forgive: Callable[[Exception], bool]) -> Any:
    try:
        return await asked
    except Exception as error:
        if forgive(error):
            return None
        raise


def _check_value(reply: Any) -> Any:
    if reply is not None and not isinstance(reply, bytes):
        raise InvalidResponse("Redis's answer is no value")
    return reply


def _check_swap(reply: Any) -> Any:
    return True if reply == 1 else _check_value(reply)


def _check_missing(error: ResponseError) -> None:
    if "no such key" not in str(error):
        raise error


def _to_bytes(value: Any) -> bytes:
    """As redis-py encodes what it is given."""
    return value if isinstance(value, bytes) else str(value).encode()
