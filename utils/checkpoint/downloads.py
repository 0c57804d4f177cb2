"""How does a file come from the network: with its progress shown, whole, and the right one?"""

from __future__ import annotations

import hashlib
import re
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.parse import urlsplit

from utils.console.progress import Wait, say
from utils.files.writing import alone, growing, part_of
from utils.version import VERSION

TIMEOUT = 20.0  # seconds without a byte
ATTEMPTS = 3  # at each address, where it stops in the middle
MB = 10**6
CHUNK = 2**18  # bytes
# Some servers answer Python's own name with 403.
HEADERS = {"User-Agent": f"yolov3/{VERSION}"}


class Unreachable(Exception):
    """A server does not answer, refuses, or sends something else; the message says which."""


class CutOff(Unreachable):
    """It stopped in the middle."""


def fetch(addresses: Sequence[str], path: Path, size: int, sha256: str = "") -> None:
    """Download a file that is not there yet; it is at `path` only once it is whole.

    What was cut off is kept beside and gone on with, by this call and by a later one, where
    `sha256` can tell whether both parts are of one file; otherwise each attempt starts anew.

    Args:
        addresses: where the file is, the first one first.
        path: where to put it.
        size: of the file in bytes.
        sha256: of the file; empty where it is not known.

    Raises:
        Unreachable: no address gave the file; the message has a reason for each.
        InputError: `path` cannot be written.
    """
    with alone(path, lambda: say(f"{path}: another process fetches it; waiting")):
        if path.exists():
            return
        problems = []
        for address in addresses:
            try:
                _download_patiently(address, path, size, sha256)
            except Unreachable as problem:
                problems.append(f"{urlsplit(address).netloc}: {problem}")
            else:
                return
    raise Unreachable("; ".join(problems))


def sha256_of(path: Path) -> str:
    """A file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download_patiently(address: str, path: Path, size: int, sha256: str) -> None:
    """Some attempts, where it stops in the middle."""
    for _ in range(ATTEMPTS - 1):
        with suppress(CutOff):
            _download(address, path, size, sha256)
            return
    _download(address, path, size, sha256)


def _download(address: str, path: Path, size: int, sha256: str) -> None:
    """One attempt."""
    part = part_of(path)
    there = part.stat().st_size if sha256 and part.exists() else 0
    start = there if there < size else 0
    with growing(path, keep=bool(sha256)) as file:
        with _open(address, start) as reply:
            if reply.status != 206 or _first_byte(reply) != start:
                start = 0  # the server sends all of it again
            if reply.length not in (None, size - start):
                raise Unreachable(f"another file, of {reply.length} bytes instead of {size}")
            file.truncate(start)
            _copy(reply, file, path.name, start, size)
        file.flush()
        if sha256 and (got := sha256_of(part)) != sha256:
            file.truncate(0)
            raise Unreachable(f"another file, with SHA-256 {got}")


@contextmanager
def _open(address: str, start: int) -> Iterator[HTTPResponse]:
    """The reply to a request for a file from the byte `start` on."""
    headers = HEADERS | ({"Range": f"bytes={start}-"} if start else {})
    try:
        reply = urllib.request.urlopen(
            urllib.request.Request(address, headers=headers), timeout=TIMEOUT
        )
    except (OSError, HTTPException, ValueError) as error:
        raise Unreachable(_reason(error)) from error
    with reply:
        if "html" in reply.headers.get("Content-Type", ""):  # a hotel's log-in page, say
            raise Unreachable("a web page instead of the file")
        yield reply


def _reason(error: Exception) -> str:
    """What went wrong, without the words around it: `URLError` holds what the system says."""
    cause = getattr(error, "reason", error)
    status = f"{error.code} " if isinstance(error, HTTPError) else ""
    return f"{status}{getattr(cause, 'strerror', None) or cause}"


def _first_byte(reply: HTTPResponse) -> int:
    """Where the part of a file begins that a server sends."""
    offset = re.match(r"bytes (\d+)-", reply.headers.get("Content-Range", ""))
    return int(offset[1]) if offset else -1


def _copy(reply: HTTPResponse, file: IO[bytes], name: str, start: int, size: int) -> None:
    with Wait(f"{name}, MB", max(1, size // MB)) as wait:
        while start < size:
            try:
                chunk = reply.read1(min(CHUNK, size - start))
            except (OSError, HTTPException) as error:
                raise CutOff(f"cut off after {start} of {size} bytes ({_reason(error)})") from error
            if not chunk:
                raise CutOff(f"cut off after {start} of {size} bytes")
            file.write(chunk)
            start += len(chunk)
            wait.done = start // MB
    if reply.read1(1):
        file.truncate(0)
        raise Unreachable(f"another file, of more than {size} bytes")
