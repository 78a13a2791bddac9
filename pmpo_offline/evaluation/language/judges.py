"""Judges: a language model on this machine, or one behind a URL that speaks OpenAI's chat completions.

vLLM, llama.cpp, Ollama and the paid services speak it.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from pmpo_offline.evaluation.language.drift import batches, measuring
from pmpo_offline.evaluation.language.questions import Judge, Question
from pmpo_offline.policies.language.model import LanguageModel, open_model
from pmpo_offline.policies.language.scoring import log_probs, states
from pmpo_offline.policies.language.tokens import Tokens, tokenize
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.tasks.language import model_directory

BATCH = 8
"""Questions that a local judge reads at once; their answers are kept after each batch."""
KEY = "PMPO_OFFLINE_JUDGE_KEY"
"""The environment variable that holds the API key. A variable of its own, so that no other service's key goes out."""
LONGEST_REPLY = 1 << 22
"""Bytes of a reply that are read."""
LONGEST_WAIT = 60.0
"""Seconds of a server's Retry-After that are respected."""


def open_judge(name: str, model: str | None, options: Mapping[str, Any], home: Path | None) -> Judge:
    """Return the judge of this name, a URL or what `model_directory` finds; the errors are theirs.

    Args:
        name: of the judge.
        model: which of the models behind a URL.
        options: sent along with every request to a URL.
        home: where our own models are.
    """
    if "://" in name:
        return RemoteJudge(name, model, options)
    return LocalJudge(open_model(model_directory(name, home), name=name))


class LocalJudge:
    """Compares the probabilities of both answers at the first token where they differ.

    It generates no text: small models often write neither answer, and the next token's probabilities take a single,
    deterministic pass. It always decides, well or badly: see its agreement with labels and its position bias.
    """

    def __init__(self, model: LanguageModel) -> None:
        """Take any causal language model; its chat template is used if it has one."""
        self.model, self.name, self.identity = model, model.name, model.digest

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, str]]:
        """Yield answers, long questions first; an exact tie is the empty answer.

        Raises:
            UserError: a question is longer than the model's context.
        """
        rows, rivals = zip(*map(self._row, questions), strict=True)
        for members, batch in batches(self.model, rows, BATCH):
            with measuring(self.model.model):
                scores = log_probs(self.model.model, states(self.model.model, batch)).cpu()
            last = (batch.length.cumsum(0) - 1).cpu()
            for i, place in zip(members, last.tolist(), strict=True):
                pair = scores[place, torch.tensor(rivals[i])]
                yield i, "" if pair[0] == pair[1] else questions[i].answers[int(pair.argmax())]

    def _row(self, question: Question) -> tuple[Tokens, tuple[int, int]]:
        """Return the question with the common beginning of both answers, and the tokens at which they differ."""
        tokenizer = self.model.tokenizer
        if tokenizer.chat_template:
            turn = [{"role": "user", "content": question.text}]
            text = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
            lead = ""
        else:
            text, lead = f"{question.text}\n\nAnswer:", " "
        one, other = (tokenize(tokenizer, text, lead + answer, ends=False) for answer in question.answers)
        shared = 0
        while one.completion[shared : shared + 1] == other.completion[shared : shared + 1] != ():
            shared += 1
        apart = one.completion[shared : shared + 1] + other.completion[shared : shared + 1]
        if len(apart) < 2:
            raise UserError(f"judge {self.name} cannot tell its answers {' and '.join(question.answers)} apart")
        row = Tokens(one.prompt, one.completion[: shared + 1])
        longest = getattr(self.model.model.config, "max_position_embeddings", None)
        if longest and len(row.prompt) + shared > longest:
            raise UserError(
                f"judge {self.name}: a question has {len(row.prompt)} tokens and its context {longest}: "
                "take a judge with a longer context"
            )
        return row, (apart[0], apart[1])


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    # A redirect would carry the key to another server.
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass(frozen=True)
class Limits:
    """How patient a remote judge is."""

    timeout: float = 60.0
    """Seconds without a byte after which a request has failed."""
    waits: Sequence[float] = (1, 2, 4, 8, 16)
    """Seconds before each repetition after a temporary failure (busy, overloaded, too slow, cut off)."""
    parallel: int = 4
    """Requests at a time."""


class RemoteJudge:
    """Sends several questions at a time, and repeats those for which the server was busy.

    Args:
        url: up to and including /v1.
        model: which of its models; default its only one.
        options: sent along with every question, such as temperature.
        limits: of time, repetitions and parallel requests.

    Raises:
        UserError: not such a URL, no such model, or a choice between several.
        PmpoOfflineError: the server does not answer.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        options: Mapping[str, Any] | None = None,
        limits: Limits = Limits(),
    ) -> None:
        self.url, self.options, self.limits = _base(url), dict(options or {}), limits
        self._key = _key()
        self._stopped = threading.Event()
        # Requests to this machine's own ports bypass any proxy.
        local = urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")
        self._opener = urllib.request.build_opener(_NoRedirect, *([urllib.request.ProxyHandler({})] if local else []))
        self.model = model or self._only_model()
        self.name = f"{self.model} at {self.url}"
        self.identity = json.dumps([self.url, self.model, self.options], sort_keys=True)

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, str]]:
        """Yield answers as they come.

        Raises:
            PmpoOfflineError: a question failed for good; answers to requests in flight are still yielded.
        """
        failure: PmpoOfflineError | None = None
        waiting = iter(enumerate(questions))
        with ThreadPoolExecutor(self.limits.parallel) as pool:
            # Only as many are submitted as run at once, so that a failure or Ctrl-C cancels the rest.
            asked = {pool.submit(self._ask, each): i for i, each in islice(waiting, self.limits.parallel)}
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
            except BaseException:  # Ctrl-C: requests in flight are not repeated
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
        return text if isinstance(text, str) else ""  # null for a refusal

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
        """Return the JSON reply of the server; temporary failures are repeated."""
        headers = {"Content-Type": "application/json", "User-Agent": "pmpo-offline"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.url + path, body, headers)
        for pause in (*self.limits.waits, None):
            try:
                with self._opener.open(request, timeout=self.limits.timeout) as response:
                    return self._parsed(response.read(LONGEST_REPLY))
            except urllib.error.HTTPError as error:
                with error:
                    said = self._quote(error.read(2000).decode(errors="replace"))
                problem = f"HTTP {error.code} {error.reason}{f': {said}' if said else ''}"
                passing, asked = error.code in (408, 425, 429) or error.code >= 500, error.headers.get("Retry-After")
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                problem = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
                # Connection refused, unknown host: do not retry.
                passing, asked = isinstance(reason, TimeoutError | ConnectionError | http.client.HTTPException), None
                passing = passing and not isinstance(reason, ConnectionRefusedError)
            if not passing or pause is None or self._stopped.is_set():
                tries = f" ({len(self.limits.waits) + 1} tries)" if passing and self.limits.waits else ""
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
        """Return the beginning of a server's reply, on one line and without the key, which some repeat."""
        text = " ".join((said if isinstance(said, str) else json.dumps(said)).split())
        if self._key:
            text = text.replace(self._key, "…")
        return text[:200]


def _base(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"judge {url}: no URL; write it as in http://localhost:8000/v1")
    if parts.username or parts.password or parts.query:
        # The URL is not repeated: it may hold a key.
        raise UserError(f"judge at {parts.hostname}: a URL with a name, a key or a query; the key belongs in ${KEY}")
    return url.rstrip("/").removesuffix("/chat/completions")


def _key() -> str:
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"${KEY} holds characters that no key has: copy it again")
    return key
