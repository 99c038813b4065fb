# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Notifying a webhook: one HTTP POST of JSON for each configured event."""

from __future__ import annotations

import http.client
import json
import socket
import urllib.error
import urllib.request
from typing import Any, Optional
from urllib.parse import urlsplit

from ..base.errors import BackstopError
from ..base.progress import timestamp
from .configuration import Configuration

TIMEOUT_SECONDS = 10


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is reported, not followed: the event would arrive as a GET without content, or at another host."""

    def redirect_request(self, *_arguments: Any, **_keywords: Any) -> None:
        return None


def notify(configuration: Configuration, event: str, **facts: Any) -> bool:
    """Post an event, if it is configured; True when it was posted.

    :param facts: JSON, free of secrets
    :raises BackstopError: the receiver could not be reached or did not accept it
    """
    webhook = configuration.webhook
    if webhook is None or event not in webhook.events:
        return False
    content = {
        "event": event,
        "configuration": configuration.name,
        "database": configuration.database,
        "host": socket.gethostname(),
        "at": timestamp(),
        **facts,
    }
    request = urllib.request.Request(
        webhook.url,
        data=json.dumps(content, sort_keys=True).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "backstop"},
        method="POST",
    )
    said = _post(request)
    if said is not None:
        raise BackstopError(
            "The webhook did not take the event %s" % event,
            found="%s: %s" % (urlsplit(webhook.url).hostname, said),
            hint="check webhook.url in " + configuration.path,
        )
    return True


def _post(request: urllib.request.Request) -> Optional[str]:
    """Why it was not accepted; None when it was."""
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        with error:
            return "status %d" % error.code
    except (OSError, http.client.HTTPException, ValueError) as error:
        # Its text may hold the URL, which may hold a token.
        reason = getattr(error, "reason", error)
        return str(getattr(reason, "strerror", None) or type(reason).__name__)
