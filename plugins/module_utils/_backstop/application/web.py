# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One HTTP request to the application, and waiting until it is healthy."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Callable, Mapping, NoReturn, Optional
from urllib.parse import urlsplit

from ..base.errors import BackstopError, Refused

#: A longer answer is cut off.
LARGEST_ANSWER = 1 << 20
#: How much of an answer an error shows, in characters.
SHOWN = 200
_POLL_SECONDS = 0.25


@dataclass
class Answer:
    """The application's answer."""

    status: int
    text: str
    seconds: float
    whole: bool = True

    @property
    def json(self) -> Any:
        """:raises ValueError: it is not JSON"""
        return json.loads(self.text)

    def short(self) -> str:
        """One line for a message."""
        text = " ".join(self.text.split())
        if len(text) > SHOWN:
            text = text[:SHOWN] + "..."
        return "status %d%s" % (self.status, ": " + text if text else ", no text")


class NoAnswer(BackstopError):
    """The application could not be reached or did not finish its answer."""


class NotHealthy(BackstopError):
    """The application answered, but is not healthy."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Does not follow redirections: each is an answer like any other."""

    def redirect_request(self, *_arguments: Any, **_keywords: Any) -> None:
        return None


# No proxy: the application is asked directly, whatever proxy the environment sets.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)


def check_url(url: str) -> str:
    """Refuse anything but the address of a web server; returns the address without a final slash."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or any(sign <= " " for sign in url):
        raise Refused("This is not the address of an application", found=repr(url), expected="http://host:port")
    return url.rstrip("/")


def request(
    url: str,
    method: str = "GET",
    *,
    headers: Optional[Mapping[str, str]] = None,
    body: Optional[Any] = None,
    timeout: float = 10,
) -> Answer:
    """Send one request; any status is an answer.

    :param body: sent as JSON
    :raises NoAnswer: there was no answer in time
    """
    check_url(url)
    sent = {"Accept": "application/json, */*;q=0.5", **(headers or {})}
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        if not any(name.lower() == "content-type" for name in sent):
            sent["Content-Type"] = "application/json"
    started = time.monotonic()
    try:
        asked = urllib.request.Request(url, data=data, headers=sent, method=method)
        try:
            response = _OPENER.open(asked, timeout=timeout)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            content = _read(response, started + timeout)
            status = response.status if isinstance(response, http.client.HTTPResponse) else response.code
    except (OSError, http.client.HTTPException, ValueError) as error:
        _no_answer(method, url, error)
    text = content[:LARGEST_ANSWER].decode(errors="replace")
    return Answer(status, text, time.monotonic() - started, whole=len(content) <= LARGEST_ANSWER)


def _read(response: Any, deadline: float) -> bytes:
    """The body up to the maximum size; a slow server cannot exceed the timeout."""
    content = b""
    while len(content) <= LARGEST_ANSWER:
        block = response.read1(65536)
        if not block:
            break
        content += block
        if time.monotonic() > deadline:
            raise TimeoutError("the answer was not finished in time")
    return content


def _no_answer(method: str, url: str, error: Exception) -> NoReturn:
    reason = getattr(error, "reason", None) or error
    text = str(getattr(reason, "strerror", None) or reason) or type(reason).__name__
    raise NoAnswer("The application did not answer", found="%s %s: %s" % (method, shown(url), text)) from error


def shown(url: str) -> str:
    """An address for a message, without a password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def difference(expected: Any, found: Any, path: str = "") -> Optional[str]:
    """The first place where an answer lacks an expected value; None when it has all.

    A dictionary must have the expected keys and may have more; a list must contain each expected item.
    """
    where = path or "the answer"
    if isinstance(expected, dict):
        if not isinstance(found, dict):
            return "%s is %s, not an object" % (where, shorten(found))
        for key, value in expected.items():
            inner = "%s.%s" % (path, key) if path else str(key)
            if key not in found:
                return inner + " is missing"
            wrong = difference(value, found[key], inner)
            if wrong:
                return wrong
        return None
    if isinstance(expected, list):
        if not isinstance(found, list):
            return "%s is %s, not a list" % (where, shorten(found))
        for item in expected:
            if all(difference(item, other) for other in found):
                return "%s has no item %s" % (where, shorten(item))
        return None
    # True equals 1 in Python, but not in JSON.
    same = expected == found and isinstance(expected, bool) == isinstance(found, bool)
    return None if same else "%s is %s, not %s" % (where, shorten(found), shorten(expected))


def shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


@dataclass
class Health:
    """The result of a successful health check."""

    seconds: float
    attempts: int
    answer: Answer


def check_health(url: str, expect: Optional[Any] = None, *, timeout: float = 5) -> Answer:
    """Send one request.

    :param expect: what the JSON answer must contain; by default any status from 200 to 299 is healthy
    :raises NoAnswer, NotHealthy: with what was found
    """
    answer = request(url, timeout=timeout)
    said = "GET %s: %s" % (shown(url), answer.short())
    if not 200 <= answer.status <= 299:
        raise NotHealthy("The application is not healthy", found=said, expected="a status from 200 to 299")
    if expect:
        try:
            wrong = difference(expect, answer.json)
        except ValueError:
            wrong = "the answer is not JSON"
        if wrong:
            raise NotHealthy("The application is not healthy", found="%s; %s" % (wrong, said), expected=shorten(expect))
    return answer


def wait_healthy(
    url: str,
    expect: Optional[Any] = None,
    *,
    timeout: float = 60,
    alive: Optional[Callable[[], None]] = None,
) -> Health:
    """Repeat the request until the application is healthy.

    :param timeout: timeout in seconds
    :param alive: called before each request; raises when it makes no sense to wait any longer
    """
    check_url(url)
    started = time.monotonic()
    deadline = started + timeout
    attempts = 0
    while True:
        if alive:
            alive()
        attempts += 1
        try:
            answer = check_health(url, expect, timeout=max(0.5, min(5.0, deadline - time.monotonic())))
        except (NoAnswer, NotHealthy) as error:
            last = error
        else:
            return Health(time.monotonic() - started, attempts, answer)
        if time.monotonic() + _POLL_SECONDS > deadline:
            raise NotHealthy(
                "The application did not become healthy in %g seconds" % timeout,
                found=last.found,
                expected=last.expected or "an answer",
                hint="look at the application's log, or correct the URL of its health check",
                details={"attempts": attempts},
            )
        time.sleep(_POLL_SECONDS)
