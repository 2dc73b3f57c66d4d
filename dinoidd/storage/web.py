"""http(s):// addresses to read from: nothing is believed of a web server but what arrives."""

import asyncio
from typing import Any

import aiohttp
import fsspec.asyn

from dinoidd.storage.limits import refuse_changed, refuse_over
from dinoidd.storage.other import FsspecFiles
from dinoidd.storage.uri import ObjectInfo, shown

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 20
TOTAL_TIMEOUT_S = 180  # of one request, however slowly bytes trickle in
_PLAIN = {"Accept-Encoding": "identity"}  # or a small body may grow without end


class WebFiles(FsspecFiles):
    """Objects behind web addresses."""

    def __init__(self, scheme: str) -> None:
        timeout = aiohttp.ClientTimeout(
            total=TOTAL_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S
        )
        super().__init__(scheme, client_kwargs={"timeout": timeout})

    def read(
        self,
        uri: str,
        max_bytes: int | None = None,
        indexed: ObjectInfo | None = None,
        seconds: float | None = None,
    ) -> bytes:
        """The whole object, by one GET; it ends past the limit, whatever length the server told."""
        return fsspec.asyn.sync(self.fs.loop, self._get, uri, max_bytes, indexed, seconds)

    async def _get(
        self, uri: str, max_bytes: int | None, indexed: ObjectInfo | None, seconds: float | None
    ) -> bytes:
        session = await self.fs.set_session()
        body = bytearray()
        async with asyncio.timeout(seconds):
            async with session.get(self.fs.encode_url(uri), headers=_PLAIN) as answer:
                answer.raise_for_status()
                told = _length(answer)
                refuse_changed(shown(uri), indexed, told)
                refuse_over(shown(uri), told, max_bytes)
                async for piece in answer.content.iter_any():
                    body += piece
                    refuse_over(shown(uri), len(body), max_bytes)
        refuse_changed(shown(uri), indexed, len(body))
        return bytes(body)


def _length(answer: Any) -> int | None:
    """Bytes of the body; unknown where they come packed all the same."""
    return None if answer.headers.get("Content-Encoding") else answer.content_length
