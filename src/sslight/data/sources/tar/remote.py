"""Files in a store, over HTTP or any file system that fsspec knows (S3, GCS, ...), read by ranges."""

import os
import random
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

import fsspec

MAX_RETRIES = 5  # Times that a request is made
FIRST_PAUSE = 0.5  # Seconds between the first two attempts, give or take half; twice as long each further time
FIRST_READ = 2**16  # Bytes of a file beside another that are read before it is known to be wanted
_HTTP = ("http", "https")
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_TIMEOUTS = {"sock_connect": 20.0, "sock_read": 60.0}  # Seconds until a server that does not answer counts as failed

_chance = random.SystemRandom()  # spreads the requests of many processes; the global stream is the run's

_T = TypeVar("_T")


class StoreUnavailable(RuntimeError):
    """A file in a store that cannot be read now. No image is to blame, so none is replaced: the run stops.

    The text is a whole sentence that names the file.
    """


class _Refused(StoreUnavailable):
    """The store answers, but does not have the file or does not give it."""


def is_remote(path: str) -> bool:
    """Whether the path is an address such as ``https://host/shard.tar`` or ``s3://bucket/shard.tar``."""
    return "://" in path


def shown_address(url: str) -> str:
    """The address without what may be secret: user and password, and all from ``?`` or ``#`` on."""
    protocol, mark, rest = re.split(r"[?#]", url, maxsplit=1)[0].partition("://")
    host, slash, path = rest.partition("/")
    return protocol + mark + host.rpartition("@")[2] + slash + path


class RemoteFile:
    """A file in a store, of which any part can be read; ``size`` in bytes.

    Every process makes connections of its own, also a forked one, and keeps them open. Raises
    StoreUnavailable if the store does not have the file, refuses it, does not answer after several
    attempts or gives no parts of files, and ValueError if there is no reader for such addresses.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = str(self).rpartition("/")[2]
        info = self._ask("opened", lambda fs: fs.info(url))
        if info.get("size") is None or info.get("partial") is False:
            raise StoreUnavailable(
                f"{self} cannot be read in parts: its server gives no size or does not support Range requests."
            )
        self.size = int(info["size"])
        # What changes with the content. Servers differ in the times that they give, so these are the second choice.
        etag = info.get("ETag") or info.get("etag")
        version = etag or info.get("Last-Modified") or info.get("LastModified")
        self.version = None if version is None else str(version)
        # Weak tags (W/) are no ground for If-Match: RFC 9110, 13.1.1.
        is_strong = etag is not None and url.startswith(_HTTP) and not etag.startswith("W/")
        self._unchanged = {"If-Match": etag} if is_strong else {}

    def __str__(self) -> str:
        return shown_address(self.url)

    def read_at(self, offset: int, count: int) -> bytes:
        """So many bytes, fewer at the end of the file; one request."""
        end = min(offset + count, self.size)
        if end <= offset:
            return b""
        headers = {"Accept-Encoding": "identity", **self._unchanged}
        options = {"headers": headers} if self.url.startswith(_HTTP) else {}
        content: bytes = self._ask("read", lambda fs: fs.cat_file(self.url, start=offset, end=end, **options))
        if len(content) > end - offset:
            raise StoreUnavailable(f"{self} cannot be read in parts: its server does not support Range requests.")
        if len(content) < end - offset:
            raise StoreUnavailable(f"{self} has changed: it ends before byte {end:,}; start again.")
        return content

    def beside(self, suffix: str, is_wanted: Callable[[bytes], bool]) -> bytes | None:
        """The whole file beside this one whose name ends with ``suffix`` instead; None if there is none.

        Or if its first bytes are not wanted: then the rest is not read.
        """
        address, mark, query = self.url.partition("?")
        other = address.removesuffix(".tar") + suffix + mark + query
        try:
            content: bytes = self._ask("read", lambda fs: fs.cat_file(other, start=0, end=FIRST_READ))
            if not is_wanted(content):
                return None
            if len(content) == FIRST_READ:
                content += self._ask("read", lambda fs: fs.cat_file(other, start=FIRST_READ))
        except _Refused:
            return None
        return content

    def _ask(self, done: str, request: Callable[[Any], _T]) -> _T:
        try:
            file_system = _file_system(self.url)
        except (ImportError, ValueError) as error:
            raise ValueError(f"{self} cannot be read: {error}; install a package that reads such addresses.") from None
        for attempt in range(MAX_RETRIES):
            if attempt:
                time.sleep(FIRST_PAUSE * 2 ** (attempt - 1) * _chance.uniform(0.5, 1.5))
            try:
                return request(file_system)
            except Exception as error:  # each file system raises what its library does
                reason, passing = _reason(error)
                if not passing:
                    raise _Refused(f"{self} cannot be {done} ({reason}).") from error
                if attempt + 1 == MAX_RETRIES:
                    raise StoreUnavailable(f"{self} cannot be {done} in {MAX_RETRIES} attempts ({reason}).") from error
        raise AssertionError


_file_systems: dict[tuple[int, str], Any] = {}
"""By process and protocol: connections do not cross a fork, and all threads of a process share them."""


def _file_system(url: str) -> Any:
    protocol = url.partition("://")[0]
    key = os.getpid(), protocol
    if key not in _file_systems:
        options: dict[str, Any] = {}
        if protocol in _HTTP:
            import aiohttp

            timeout = aiohttp.ClientTimeout(total=None, **_TIMEOUTS)
            options["client_kwargs"] = {"timeout": timeout, "trust_env": True}
        _file_systems[key] = fsspec.filesystem(protocol, **options)
    return _file_systems[key]


def _reason(error: Exception) -> tuple[str, bool]:
    """Why a request failed, in words, and whether the same request may succeed later."""
    cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ is not None else error
    status = getattr(cause, "status", None)
    if status is not None:
        words = {
            401: "401: it requires a login",
            403: "403: access is refused; has a signed address expired?",
            404: "404: it does not exist",
            412: "412: it has changed since it was opened; start again",
        }
        return words.get(status, f"status {status}"), status in _PASSING
    if isinstance(cause, FileNotFoundError):
        return "it does not exist", False
    if isinstance(cause, PermissionError):
        return "access is refused", False
    text = " ".join(str(cause).split()) or type(cause).__name__
    return text, isinstance(cause, OSError | TimeoutError) or type(cause).__module__.partition(".")[0] == "aiohttp"
