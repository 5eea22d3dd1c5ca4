"""A model behind an OpenAI-compatible server: JSON is sent, JSON comes back, passing failures are tried again."""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from retrieval.errors import ConfigError, TercetError

if TYPE_CHECKING:
    import httpx

KEY_VARIABLE = "OPENAI_API_KEY"
"""The environment variable that holds the key, unless another is named."""

_TRANSIENT = frozenset({408, 409, 429, 500, 502, 503, 504})
_LONGEST_WAIT = 30.0  # seconds between two attempts


class EndpointError(TercetError):
    """An endpoint cannot be reached, refuses, or answers something else than what was asked for."""


class Endpoint:
    """One address that requests are posted to, from any number of threads.

    Requests that fail for a passing reason are sent again after a growing pause, or after what Retry-After says. The
    key is read from the environment when a request is sent, and stands in no message.

    Attributes:
        url: the whole address.
    """

    def __init__(self, url: str, *, api_key_env: str = KEY_VARIABLE, timeout: float, retries: int) -> None:
        """Nothing is sent yet.

        Args:
            url: begins with http:// or https://.
            api_key_env: the environment variable that holds the key; without a value no key is sent.
            timeout: seconds that an answer may take.
            retries: attempts after the first.

        Raises:
            ConfigError: the address is of another protocol.
        """
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"the address of the endpoint is {url!r}; it must begin with http:// or https://"
            )
        self.url = url
        self._key = api_key_env
        self._timeout = timeout
        self._tries = retries + 1
        self._lock = threading.Lock()
        self._http: httpx.Client | None = None

    def post(self, body: Mapping[str, Any]) -> Any:
        """The JSON answer to a request, tried again as often as allowed.

        Raises:
            EndpointError: it cannot be reached, refuses, or does not answer with JSON.
        """
        for attempt in range(self._tries):
            answer, trouble, wait = self._send(body)
            if answer is not None:
                return answer
            if attempt + 1 < self._tries:
                pause = random.uniform(0.5, 1.0) * min(_LONGEST_WAIT, 0.5 * 2.0**attempt)
                time.sleep(min(_LONGEST_WAIT, wait) if wait is not None else pause)
        times = f"{self._tries} times" if self._tries > 1 else "once"
        raise EndpointError(f"{self.url}: {trouble}, {times}; is the server up and the address right?")

    def close(self) -> None:
        """Close idle connections; the next request opens new ones."""
        with self._lock:
            if self._http is not None:
                self._http.close()
                self._http = None

    def _send(self, body: Mapping[str, Any]) -> tuple[Any | None, str, float | None]:
        """One attempt: the JSON answer, or what went wrong and how many seconds the server asks to wait."""
        import httpx

        try:
            response = self._client().post(self.url, json=body, headers=self._headers())
        except httpx.TimeoutException:
            return None, f"no answer within {self._timeout:g} s", None
        except httpx.TransportError as error:
            return None, f"cannot be reached ({error or type(error).__name__})", None
        except httpx.InvalidURL as error:
            raise EndpointError(f"{self.url} is no address ({error})") from error
        if response.status_code in _TRANSIENT:
            return None, f"answered {response.status_code} ({_said(response)})", _retry_after(response)
        if not response.is_success:
            raise self._refusal(response, body.get("model"))
        try:
            answer = response.json()
        except ValueError as error:
            raise EndpointError(f"{self.url} did not answer with JSON ({_said(response)})") from error
        if answer is None:
            raise EndpointError(f"{self.url} answered with null")
        return answer, "", None

    def _refusal(self, response: httpx.Response, model: object) -> EndpointError:
        status, said = response.status_code, _said(response)
        if status in (401, 403):
            state = "is set" if os.environ.get(self._key) else "is not set"
            return EndpointError(
                f"{self.url} refused the key: {status} ({said}); the environment variable {self._key} {state}"
            )
        if status == 404:
            return EndpointError(
                f"{self.url} answered 404 ({said}); check the address and the model {model!r}"
            )
        return EndpointError(f"{self.url} answered {status} ({said})")

    def _client(self) -> httpx.Client:
        with self._lock:
            if self._http is None:
                import httpx

                self._http = httpx.Client(timeout=self._timeout)
            return self._http

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(self._key, "").strip()
        return {"Authorization": f"Bearer {key}"} if key else {}


def _said(response: httpx.Response) -> str:
    """The server's own reason, cut short."""
    try:
        error = response.json()["error"]
        text = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        text = response.text
    return " ".join(text.split())[:200] or response.reason_phrase


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date; None without one."""
    given = response.headers.get("retry-after", "")
    try:
        seconds = float(given)
    except ValueError:
        try:
            moment = parsedate_to_datetime(given)
        except (ValueError, TypeError):
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None
