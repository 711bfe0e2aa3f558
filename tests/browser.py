"""Drives a real Chromium over its DevTools protocol: real mouse events, files, downloads, screenshots."""

import asyncio
import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiohttp

from tests.waiting import WAIT, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
MORE = "--disable-component-update --disable-sync --hide-scrollbars --remote-debugging-port=0 about:blank"


class Browser:
    """A Chromium of its own profile with one page.

    Args:
        profile: an empty folder.
    """

    def __init__(self, profile: Path) -> None:
        self.profile, self.requests = profile, []
        command = [CHROMIUM, *QUIET.split(), f"--user-data-dir={profile}", *MORE.split()]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._loop, self._number = asyncio.new_event_loop(), 0
        port = profile / "DevToolsActivePort"
        until(lambda: port.exists() and port.read_text().count("\n"))
        self._run(self._connect(int(port.read_text().split()[0])))
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(profile / "saved"))
        self.look(1280, 1000, "light")

    def look(self, width: int, height: int, scheme: str) -> None:
        """Set the size of the window in pixels, and the colour scheme, light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._session.close())
        self._loop.close()
        self.process.kill()  # It has nothing to save, and may take long to end by itself.
        self.process.wait(WAIT)

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol and return its result."""
        return self._run(self._call(method, parameters))

    def open(self, url: str) -> None:
        """Open a page."""
        self.call("Page.navigate", url=url)

    def value(self, script: str) -> Any:
        """Return the value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until a JavaScript expression is true."""
        until(lambda: self.value(f"Boolean({script})"), lambda: f"never so: {script}")

    def click(self, selector: str) -> None:
        """Click the middle of an element."""
        x, y = self.middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self._mouse(kind, x, y)

    def middle(self, selector: str) -> tuple[float, float]:
        """Scroll an element into view and return its middle."""
        left, top, width, height = self.box(selector)
        return left + width / 2, top + height / 2

    def box(self, selector: str) -> list[float]:
        """Scroll an element into view and return left, top, width and height."""
        return self.value(
            f"(() => {{ const found = document.querySelector({json.dumps(selector)});"
            "found.scrollIntoView({block: 'center'}); const box = found.getBoundingClientRect();"
            "return [box.left, box.top, box.width, box.height]; })()"
        )

    def drag(self, selector: str, places: list[tuple[float, float]]) -> None:
        """Press at the first place of an element, in shares of its sides, move along the others, and let go."""
        left, top, width, height = self.box(selector)
        points = [(left + x * width, top + y * height) for x, y in places]
        self._mouse("mousePressed", *points[0])
        for point in points[1:]:
            self._mouse("mouseMoved", *point)
        self._mouse("mouseReleased", *points[-1])

    def choose(self, selector: str, file: Path) -> None:
        """Choose a file of an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(file)], nodeId=node)

    def screenshot(self) -> bytes:
        """Return the whole page as a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def _mouse(self, kind: str, x: float, y: float) -> None:
        held = 0 if kind == "mouseReleased" else 1
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=held, clickCount=1)

    def _run(self, what: Any) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(what, WAIT))

    async def _connect(self, port: int) -> None:
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            (page,) = [each for each in await answer.json(content_type=None) if each["type"] == "page"]
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)

    async def _call(self, method: str, parameters: dict[str, Any]) -> Any:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            found = await self._socket.receive_json()
            if found.get("method") == "Network.requestWillBeSent":
                self.requests.append(found["params"]["request"]["url"])
            if found.get("id") == self._number:
                if "error" in found:
                    raise AssertionError(f"{method}: {found['error']}")
                return found["result"]
