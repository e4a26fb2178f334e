"""Headless Chromium for tests of pages, controlled through a pipe by the DevTools protocol, without any package."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from foundations import json_text

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 120.0  # seconds; machines that run tests may be busy
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe")

# The browser reads from file 3 and writes to file 4.
START = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"


def missing() -> str | None:
    """Why no browser can be started; None if one is installed."""
    return None if _program() else f"no Chromium is installed: {', '.join(NAMES)}"


def _program() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A tab, and the errors and warnings that it reports (`complaints`)."""

    def __init__(self, to_browser: int, from_browser: int):
        self._pipes, self._buffer, self._number, self._session = (to_browser, from_browser), b"", 0, None
        self._loaded = False
        self.complaints: list[str] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")

    def open(self, path: str) -> None:
        """Opens a file and waits until it and its pictures are loaded."""
        self._loaded = False
        self._ask("Page.navigate", url=pathlib.Path(path).absolute().as_uri())
        while not self._loaded:
            self._note(self._read())

    def evaluate(self, expression: str) -> object:
        """The value of a JavaScript expression in the page."""
        found = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise AssertionError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def show(self, width: int, height: int = 900, dark: bool = False) -> None:
        """Sets the size of the window in pixels, and its colour scheme."""
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])

    def _ask(self, method: str, **parameters: object) -> dict:
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": parameters} | session
        os.write(self._pipes[0], json_text.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _note(self, event: dict) -> None:
        """Records the load event, errors, warnings and network requests among the events of the browser."""
        method, about = event.get("method"), event.get("params", {})
        self._loaded = self._loaded or method == "Page.loadEventFired"
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(about["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(about["args"]))
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.complaints.append(about["entry"]["text"])
        elif method == "Network.requestWillBeSent" and not about["request"]["url"].startswith(("file:", "data:")):
            self.complaints.append(f"requests {about['request']['url']}")

    def _read(self) -> dict:
        """The next message of the browser; an AssertionError if none comes or the browser has ended."""
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            if not select.select([self._pipes[1]], [], [], max(0, end - time.monotonic()))[0]:
                raise AssertionError(f"the browser has sent nothing for {PATIENCE:.0f} s")
            content = os.read(self._pipes[1], 2**20)
            if not content:
                raise AssertionError("the browser has ended")
            self._buffer += content
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@contextlib.contextmanager
def running() -> Iterator[Page]:
    """A context with a running browser and an empty page."""
    ours, theirs = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        ends = ours[0], theirs[1]
        command = [sys.executable, "-c", START, *map(str, ends), _program(), *FLAGS, f"--user-data-dir={home}"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        browser = subprocess.Popen(command, pass_fds=ends, env=os.environ | {"HOME": home}, **quiet)
        for end in ends:
            os.close(end)
        try:
            yield Page(ours[1], theirs[0])
        finally:
            for end in (ours[1], theirs[0]):
                os.close(end)
            browser.terminate()
            browser.wait(PATIENCE)
