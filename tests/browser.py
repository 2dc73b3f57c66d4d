"""Headless Chromium, driven over its DevTools protocol: pages that want a cookie and draw themselves."""

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--remote-debugging-port=0"),
)
START_S = 60
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One tab; use it as an asynchronous context manager.

    Args:
        profile: a new folder, for this browser alone.
        size: of the page, in pixels.
    """

    def __init__(self, profile: Path, size: tuple[int, int] = (1600, 1100)) -> None:
        self._profile, self._size = profile, size
        self._numbers = itertools.count(1)
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "Browser":
        command = [str(CHROMIUM), *FLAGS, f"--window-size={self._size[0]},{self._size[1]}"]
        self._process = subprocess.Popen(
            [*command, f"--user-data-dir={self._profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        session = await self._stack.enter_async_context(aiohttp.ClientSession())
        tab = self._tab()
        self._socket = await self._stack.enter_async_context(
            session.ws_connect(tab, max_msg_size=0)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        self._process.terminate()
        self._process.wait(10)

    def _tab(self) -> str:
        """The address of the only tab's socket."""
        port, until = self._profile / "DevToolsActivePort", time.monotonic() + START_S
        while time.monotonic() < until:
            with contextlib.suppress(OSError, StopIteration, ValueError):
                where = f"http://127.0.0.1:{int(port.read_text().split()[0])}/json/list"
                tabs = json.load(urllib.request.urlopen(where, timeout=5))
                return next(t["webSocketDebuggerUrl"] for t in tabs if t["type"] == "page")
            time.sleep(0.1)
        raise TimeoutError(f"Chromium did not start in {START_S} s")

    async def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": arguments})
        while True:
            answer = await self._socket.receive_json(timeout=60)
            if answer.get("id") == number:
                return answer["result"]

    async def open(self, url: str, cookies: dict[str, str] | None = None) -> None:
        for name, value in (cookies or {}).items():
            await self._call("Network.setCookie", name=name, value=value, url=url)
        await self._call("Page.navigate", url=url)

    async def text(self) -> str:
        """What a person reads there now."""
        found = await self._call("Runtime.evaluate", expression="document.body.innerText")
        return str(found["result"].get("value", ""))

    async def wait_for(self, *words: str, seconds: float = 60) -> str:
        """The page's text, once it has all these words."""
        until = time.monotonic() + seconds
        while True:
            text = await self.text()
            if all(word in text for word in words):
                return text
            assert time.monotonic() < until, f"{words} are not on the page:\n{text}"
            await asyncio.sleep(0.1)

    async def click(self, words: str) -> None:
        """On the innermost element with exactly this text."""
        everything = "[...document.querySelectorAll('*')]"
        await self._click(
            f"{everything}.filter(e => e.textContent.trim() == {json.dumps(words)}).pop()"
        )

    async def unfold(self, words: str) -> None:
        """By the arrow of the table's row with this text in it."""
        rows = "[...document.querySelectorAll('tr')]"
        await self._click(
            f"{rows}.find(e => e.innerText.includes({json.dumps(words)})).querySelector('svg')"
        )

    async def _click(self, element: str) -> None:
        event = "new MouseEvent('click', {bubbles: true})"
        await self._call("Runtime.evaluate", expression=f"{element}.dispatchEvent({event})")

    async def picture(self, target: Path) -> None:
        """The whole page, as a PNG."""
        shot = await self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        target.write_bytes(base64.b64decode(shot["data"]))
