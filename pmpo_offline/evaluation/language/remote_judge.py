"""A judge behind a URL that speaks OpenAI's chat completions, as vLLM, llama.cpp, Ollama and the paid services do."""

from __future__ import annotations

import http.client
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from pmpo_offline.evaluation.language.questions import Question
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError

KEY = "PMPO_OFFLINE_JUDGE_KEY"
"""The environment variable that holds the API key. A variable of its own, so that no other service's key goes out."""
LONGEST_REPLY = 1 << 22
"""Bytes of a reply that are read."""
LONGEST_WAIT = 60.0
"""Seconds that a server may ask to be left alone for."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    # A redirect would carry the key to another server.
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class RemoteJudge:
    """Asks a server several questions at a time, and again where it was busy.

    Args:
        url: up to and including /v1.
        model: which of its models; default the only one it has.
        options: sent along with every question, such as temperature.
        timeout: seconds without a byte after which a request has failed.
        waits: seconds before each repetition after a failure that may pass (busy, overloaded, too slow, cut off).
        parallel: questions at a time.

    Raises:
        UserError: not such a URL, no such model, or a choice between several.
        PmpoOfflineError: the server does not answer.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        timeout: float = 60.0,
        waits: Sequence[float] = (1, 2, 4, 8, 16),
        parallel: int = 4,
    ) -> None:
        self.url = _base(url)
        self.options = dict(options or {})
        self.timeout, self.waits, self.parallel = timeout, tuple(waits), parallel
        self._key = _key()
        self._stopped = threading.Event()
        # A proxy has no business with this machine's own ports.
        local = urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")
        self._opener = urllib.request.build_opener(_NoRedirect, *([urllib.request.ProxyHandler({})] if local else []))
        self.model = model or self._only_model()

    @property
    def name(self) -> str:
        """The model and where it is."""
        return f"{self.model} at {self.url}"

    @property
    def identity(self) -> str:
        """The address, the model and how it is asked: all that is known of it from here."""
        return json.dumps([self.url, self.model, self.options], sort_keys=True)

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, str]]:
        """Yield answers as they come.

        Raises:
            PmpoOfflineError: a question failed for good; the others that are under way are still answered.
        """
        failure: PmpoOfflineError | None = None
        waiting = iter(enumerate(questions))
        with ThreadPoolExecutor(self.parallel) as pool:
            # No more is handed out than is asked at once: whatever ends this, the rest is not asked.
            asked = {pool.submit(self._ask, each): i for i, each in islice(waiting, self.parallel)}
            try:
                while asked:
                    for done in wait(asked, return_when=FIRST_COMPLETED).done:
                        i = asked.pop(done)
                        try:
                            yield i, done.result()
                        except PmpoOfflineError as error:
                            failure = failure or error
                        if failure is None:
                            asked |= {pool.submit(self._ask, each): i for i, each in islice(waiting, 1)}
            except BaseException:  # Ctrl-C: what is under way is not repeated
                self._stopped.set()
                raise
        if failure:
            raise failure

    def _ask(self, question: Question) -> str:
        content = {"model": self.model, "messages": [{"role": "user", "content": question.text}], **self.options}
        reply = self._request("/chat/completions", json.dumps(content).encode())
        try:
            text = reply["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise PmpoOfflineError(
                f"judge {self.name}: its reply is no chat completion: {self._quote(reply)}"
            ) from None
        return text if isinstance(text, str) else ""  # a refusal says nothing

    def _only_model(self) -> str:
        reply = self._request("/models", None)
        try:
            names = [str(each["id"]) for each in reply["data"]]
        except (KeyError, TypeError):
            raise PmpoOfflineError(f"judge {self.url}: it lists no models: name one with --judge-model") from None
        if len(names) != 1:
            listed = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
            raise UserError(f"judge {self.url} has {len(names)} models: name one with --judge-model ({listed})")
        return names[0]

    def _request(self, path: str, body: bytes | None) -> Any:
        """Return the JSON that the server answers, repeating what failed for the moment."""
        headers = {"Content-Type": "application/json", "User-Agent": "pmpo-offline"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.url + path, body, headers)
        for pause in (*self.waits, None):
            try:
                with self._opener.open(request, timeout=self.timeout) as response:
                    return self._parsed(response.read(LONGEST_REPLY))
            except urllib.error.HTTPError as error:
                with error:
                    said = self._quote(error.read(2000).decode(errors="replace"))
                problem = f"HTTP {error.code} {error.reason}{f': {said}' if said else ''}"
                passing, asked = error.code in (408, 425, 429) or error.code >= 500, error.headers.get("Retry-After")
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                problem = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
                # Nobody is there, or nobody of this name: that does not pass by itself.
                passing, asked = isinstance(reason, TimeoutError | ConnectionError | http.client.HTTPException), None
                passing = passing and not isinstance(reason, ConnectionRefusedError)
            if not passing or pause is None or self._stopped.is_set():
                tries = f" ({len(self.waits) + 1} tries)" if passing and self.waits else ""
                raise PmpoOfflineError(f"judge {self.url}{path}: {problem}{tries}{self._advice(problem)}")
            self._stopped.wait(min(float(asked), LONGEST_WAIT) if asked and asked.isdigit() else pause)
        raise AssertionError  # the last turn returns or raises

    def _parsed(self, content: bytes) -> Any:
        try:
            return json.loads(content)
        except ValueError:
            said = self._quote(content.decode(errors="replace"))
            raise PmpoOfflineError(f"judge {self.url}: its reply is no JSON: {said}; give the URL up to /v1") from None

    def _advice(self, problem: str) -> str:
        if problem.startswith(("HTTP 401", "HTTP 403")):
            return f"; is the key in ${KEY} right?"
        if problem.startswith(("HTTP 404", "HTTP 405", "HTTP 30")):
            return "; give the URL up to /v1, and a model that it has"
        return "" if problem.startswith("HTTP") else "; is the server running?"

    def _quote(self, said: object) -> str:
        """Return the beginning of what a server said, on one line and without the key, which some repeat."""
        text = " ".join((said if isinstance(said, str) else json.dumps(said)).split())
        if self._key:
            text = text.replace(self._key, "…")
        return text[:200]


def _base(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"judge {url}: no URL; write it as in http://localhost:8000/v1")
    if parts.username or parts.password or parts.query:
        # Not repeated: it may hold a key.
        raise UserError(f"judge at {parts.hostname}: a URL with a name, a key or a query; the key belongs in ${KEY}")
    return url.rstrip("/").removesuffix("/chat/completions")


def _key() -> str:
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"${KEY} holds characters that no key has: copy it again")
    return key
