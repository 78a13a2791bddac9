"""Judges: a language model on this machine, or one behind a URL that speaks OpenAI's chat completions.

vLLM, llama.cpp, Ollama and the paid services speak it.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import httpx2
import torch

from pmpo_offline.evaluation.language.drift import batches, measuring
from pmpo_offline.evaluation.language.questions import Judge, Question
from pmpo_offline.policies.language.model import LanguageModel, open_model
from pmpo_offline.policies.language.scoring import log_probs, states
from pmpo_offline.policies.language.tokens import Tokens, tokenize, with_prefix
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.files import interruptible
from pmpo_offline.tasks.language import model_directory

BATCH = 8
"""Questions that a local judge reads at once; their answers are kept after each batch."""
KEY = "PMPO_OFFLINE_JUDGE_KEY"
"""The environment variable that holds the API key. A variable of its own, so that no other service's key goes out."""
LONGEST_WAIT = 60.0
"""Seconds of a server's Retry-After that are respected."""


def open_judge(name: str, model: str | None, options: Mapping[str, Any], home: str | Path | None) -> Judge:
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
            plain = with_prefix(tokenizer, "")  # `tokenize` writes the text of a model that has one
            text = str(plain.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
            lead = ""
        else:
            text, lead = f"{question.text}\n\nAnswer:", " "
        one, other = (tokenize(tokenizer, text, lead + answer, ends=False) for answer in question.answers)
        pairs = enumerate(zip(one.completion, other.completion, strict=False))
        shared, rivals = next(((place, pair) for place, pair in pairs if pair[0] != pair[1]), (0, None))
        if rivals is None:
            raise UserError(f"judge {self.name} cannot tell its answers {' and '.join(question.answers)} apart")
        row = Tokens(one.prompt, one.completion[: shared + 1])
        longest = self.model.context
        if longest and len(row.prompt) + shared > longest:
            raise UserError(
                f"judge {self.name}: a question has {len(row.prompt)} tokens and its context {longest}: "
                "take a judge with a longer context"
            )
        return row, rivals


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
        self.url = url.rstrip("/").removesuffix("/chat/completions")
        self.options, self.limits = dict(options or {}), limits
        self._key = _key()
        self._stopped = threading.Event()
        headers = {"User-Agent": "pmpo-offline"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        # Requests to this machine's own ports bypass any proxy. A redirect would carry the key to another server.
        proxied = _host(self.url) not in ("localhost", "127.0.0.1", "::1")
        self._client = httpx2.Client(headers=headers, timeout=limits.timeout, trust_env=proxied, follow_redirects=False)
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
            running = {
                pool.submit(self._complete, question): i for i, question in islice(waiting, self.limits.parallel)
            }
            try:
                while running:
                    interruptible()
                    for done in wait(running, return_when=FIRST_COMPLETED).done:
                        i = running.pop(done)
                        try:
                            yield i, done.result()
                        except PmpoOfflineError as error:
                            failure = failure or error
                        if failure is None:
                            running |= {pool.submit(self._complete, question): i for i, question in islice(waiting, 1)}
            except BaseException:  # Ctrl-C: requests in flight are not repeated
                self._stopped.set()
                raise
        if failure:
            raise failure

    def _complete(self, question: Question) -> str:
        content = {"model": self.model, "messages": [{"role": "user", "content": question.text}], **self.options}
        reply = self._request("POST", "/chat/completions", content)
        try:
            text = reply["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            quoted = self._quote(json.dumps(reply))
            raise PmpoOfflineError(f"judge {self.name}: its reply is no chat completion: {quoted}") from None
        return text if isinstance(text, str) else ""  # null for a refusal

    def _only_model(self) -> str:
        reply = self._request("GET", "/models")
        try:
            names = [str(model["id"]) for model in reply["data"]]
        except (KeyError, TypeError):
            raise PmpoOfflineError(f"judge {self.url}: it lists no models: name one with --judge-model") from None
        if len(names) != 1:
            listed = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
            raise UserError(f"judge {self.url} has {len(names)} models: name one with --judge-model ({listed})")
        return names[0]

    def _request(self, method: str, path: str, content: dict[str, Any] | None = None) -> Any:
        """Return the JSON reply of the server; temporary failures are repeated."""
        for pause in (*self.limits.waits, None):
            seconds = pause
            try:
                reply = self._client.request(method, self.url + path, json=content)
            except httpx2.HTTPError as error:
                problem = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
                temporary = not isinstance(error, httpx2.ConnectError)  # connection refused, unknown host
            else:
                if reply.is_success:
                    return self._json(reply)
                quoted = self._quote(reply.text[:2000])
                problem = f"HTTP {reply.status_code} {reply.reason_phrase}{f': {quoted}' if quoted else ''}"
                temporary = reply.status_code in (408, 425, 429) or reply.status_code >= 500
                if (retry_after := reply.headers.get("Retry-After", "")).isdigit():
                    seconds = min(float(retry_after), LONGEST_WAIT)
            if not temporary or pause is None or self._stopped.is_set():
                break
            self._stopped.wait(seconds)
        tries = f" ({len(self.limits.waits) + 1} tries)" if temporary and self.limits.waits else ""
        raise PmpoOfflineError(f"judge {self.url}{path}: {problem}{tries}{self._advice(problem)}")

    def _json(self, reply: httpx2.Response) -> Any:
        try:
            return reply.json()
        except ValueError:
            quoted = self._quote(reply.text)
            raise PmpoOfflineError(
                f"judge {self.url}: its reply is no JSON: {quoted}; give the URL up to /v1"
            ) from None

    def _advice(self, problem: str) -> str:
        if problem.startswith(("HTTP 401", "HTTP 403")):
            return f"; is the key in ${KEY} right?"
        if problem.startswith(("HTTP 404", "HTTP 405", "HTTP 30")):
            return "; give the URL up to /v1, and a model that it has"
        return "" if problem.startswith("HTTP") else "; is the server running?"

    def _quote(self, reply: str) -> str:
        """Return the beginning of a server's reply, on one line and without the key, which some repeat."""
        text = " ".join(reply.split())
        return (text.replace(self._key, "…") if self._key else text)[:200]


def _host(url: str) -> str:
    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL:
        parts = httpx2.URL()
    if parts.scheme not in ("http", "https") or not parts.host:
        raise UserError(f"judge {url}: no URL; write it as in http://localhost:8000/v1")
    if parts.userinfo or parts.query:
        # The URL is not repeated: it may hold a key.
        raise UserError(f"judge at {parts.host}: a URL with a name, a key or a query; the key belongs in ${KEY}")
    return parts.host


def _key() -> str:
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"${KEY} holds characters that no key has: copy it again")
    return key
