"""A remote judge against a server here; a local one compares the probabilities of its two answers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch

from pmpo_offline.evaluation.language.judges import KEY, Limits, LocalJudge, RemoteJudge
from pmpo_offline.evaluation.language.questions import Answers, Question
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError

SECRET = "sk-very-secret"


class Server(ThreadingHTTPServer):
    """Answers by `reply(text) -> (status, content)`; remembers what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.requests: list[dict[str, Any]] = []
        self.models = ["judge-1"]
        self.headers: dict[str, str] = {}
        self.reply = lambda text: (200, completion("A"))

    def handle_error(self, *_: Any) -> None: ...  # a client that lost its patience


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        known = self.path == "/v1/models"
        self.send(200 if known else 404, {"data": [{"id": name} for name in self.server.models]} if known else "no")

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append({"path": self.path, "key": self.headers.get("Authorization"), **sent})
        if self.path != "/v1/chat/completions":
            return self.send(404, {"error": "no such page"})
        return self.send(*self.server.reply(sent["messages"][0]["content"]))

    def send(self, status: int, content: Any) -> None:
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


def completion(text: str | None) -> dict[str, Any]:
    return {"object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # none of its business
    monkeypatch.delenv(KEY, raising=False)
    running = Server()
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def judge(server: Server, model: str | None = None, options: Any = None, **limits: Any) -> RemoteJudge:
    return RemoteJudge(server.url, model, options, Limits(**{"waits": (0, 0), "timeout": 60, **limits}))


def questions(count: int) -> list[Question]:
    return [Question(f"question {i}", ("A", "B")) for i in range(count)]


def test_asks_and_understands(server, monkeypatch):
    monkeypatch.setenv(KEY, f" {SECRET}\n")
    server.reply = lambda text: (200, completion(f"{text}: ä"))
    asked = judge(server, options={"temperature": 0.0, "max_tokens": 8})
    assert asked.model == "judge-1"  # the only one
    assert dict(asked.answer(questions(12))) == {i: f"question {i}: ä" for i in range(12)}
    first = server.requests[0]
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("judge-1", 0.0, 8)
    assert first["key"] == f"Bearer {SECRET}"
    assert SECRET not in asked.name + asked.identity


def test_addresses(server):
    for url in (server.url + "/", server.url + "/chat/completions"):
        assert RemoteJudge(url, "m").url == server.url
    assert dict(RemoteJudge(server.url + "/", "m").answer(questions(1))) == {0: "A"}
    server.models = ["one", "two"]
    with pytest.raises(UserError, match=r"has 2 models: name one with --judge-model \(one, two\)"):
        judge(server)
    assert judge(server, model="two").model == "two"
    with pytest.raises(PmpoOfflineError, match=r"404.*up to /v1"):
        RemoteJudge(server.url.removesuffix("/v1"), "m", limits=Limits(waits=()))._complete(questions(1)[0])
    for url in ("localhost:80/v1", "ftp://a/v1", "http:///v1"):
        with pytest.raises(UserError, match="write it as in"):
            RemoteJudge(url)


def test_keys_stay_secret(server, monkeypatch):
    monkeypatch.setenv(KEY, SECRET)
    server.reply = lambda text: (401, {"error": {"message": f"Incorrect API key provided: {SECRET}"}})
    with pytest.raises(PmpoOfflineError, match=f"401.*Incorrect API key provided: ….*{KEY}") as error:
        list(judge(server).answer(questions(3)))
    assert SECRET not in str(error.value)
    with pytest.raises(UserError, match=f"belongs in .{KEY}") as error:
        RemoteJudge(f"http://me:{SECRET}@localhost/v1")
    assert SECRET not in str(error.value)
    monkeypatch.setenv(KEY, f"{SECRET}\nX-Other: 1")
    with pytest.raises(UserError, match="no key has") as error:
        RemoteJudge(server.url)
    assert SECRET not in str(error.value)


def test_a_redirect_does_not_take_the_key_along(server, monkeypatch):
    monkeypatch.setenv(KEY, SECRET)
    other = Server()
    server.headers = {"Location": f"{other.url}/chat/completions"}
    server.reply = lambda text: (302, {})
    with pytest.raises(PmpoOfflineError, match="302"):
        list(judge(server, model="m").answer(questions(1)))
    other.server_close()
    assert other.requests == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(server, status):
    seen: dict[str, int] = {}

    def busy(text):
        seen[text] = seen.get(text, 0) + 1
        return (status, {"error": "busy"}) if seen[text] < 3 else (200, completion("B"))

    server.reply, server.headers = busy, {"Retry-After": "0"}
    assert dict(judge(server).answer(questions(3))) == {0: "B", 1: "B", 2: "B"}
    assert set(seen.values()) == {3}
    server.reply = lambda text: (status, {"error": "always busy"})
    with pytest.raises(PmpoOfflineError, match=rf"HTTP {status}.*always busy.*3 tries") as error:
        list(judge(server).answer(questions(1)))
    assert "\n" not in str(error.value)


def test_what_does_not_pass_is_not(server):
    server.reply = lambda text: (400, {"error": {"message": "max_tokens\nis not supported"}})
    with pytest.raises(PmpoOfflineError, match=r"HTTP 400.*is not supported") as error:
        list(judge(server, parallel=1).answer(questions(9)))
    assert "\n" not in str(error.value)
    assert len(server.requests) < 4  # the others are not even asked


def test_nonsense(server):
    server.reply = lambda text: (200, b"<html>hello</html>")
    with pytest.raises(PmpoOfflineError, match="no JSON: <html>hello"):
        list(judge(server, model="m").answer(questions(1)))
    for content in ({"choices": []}, [], {"choices": [{"text": "A"}]}, 3):
        server.reply = lambda text, content=content: (200, content)
        with pytest.raises(PmpoOfflineError, match="no chat completion"):
            list(judge(server, model="m").answer(questions(1)))
    server.reply = lambda text: (200, completion(None))
    assert dict(judge(server, model="m").answer(questions(1))) == {0: ""}


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(PmpoOfflineError, match=r"Connection refused; is the server running\?"):
        RemoteJudge(f"http://127.0.0.1:{port}/v1")


def test_one_that_never_answers(server):
    patience = threading.Event()
    server.reply = lambda text: (patience.wait(10), (200, completion("A")))[1]
    with pytest.raises(PmpoOfflineError, match=r"timed out \(2 tries\)"):
        list(judge(server, timeout=0.1, waits=(0,)).answer(questions(1)))
    patience.set()


def test_a_judging_that_broke_off_goes_on(server, tmp_path):
    def broken(text):
        return (400, {}) if text == "question 5" else (200, completion("B"))

    server.reply = broken
    path = tmp_path / "judge.jsonl"
    with pytest.raises(PmpoOfflineError, match="HTTP 400"):
        Answers(judge(server, parallel=2), path).ask(questions(12))
    kept = len(path.read_text().splitlines())
    assert 5 <= kept < 12
    server.reply, server.requests = (lambda text: (200, completion("B"))), []
    assert Answers(judge(server), path).ask(questions(12)) == ["B"] * 12
    assert len(server.requests) == 12 - kept


TEMPLATE = "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}{% endfor %}<me>"


def lettered(count: int) -> list[Question]:
    return [Question(f"{'Which? ' * (i % 3)}{i}", (chr(65 + i), chr(66 + i))) for i in range(count)]


def plainly(model, text: str, one: str, other: str) -> str:
    """The likelier next byte."""
    ids = torch.tensor([model.tokenizer(text).input_ids])
    with torch.no_grad():
        logits = model.model(input_ids=ids, use_cache=False).logits[0, -1]
    letters = [model.tokenizer(each).input_ids[-1] for each in (one, other)]
    return one if logits[letters[0]] > logits[letters[1]] else other


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_takes_the_likelier_answer(byte_model, template):
    model = byte_model(3, spread=1.0)
    model.tokenizer.chat_template = template
    asked = lettered(19)
    found = dict(LocalJudge(model).answer(asked))
    assert sorted(found) == list(range(19))
    for i, question in enumerate(asked):
        text = f"<user>{question.text}<me>" if template else f"{question.text}\n\nAnswer: "
        assert found[i] == plainly(model, text, *question.answers)
    assert {question.answers.index(found[i]) for i, question in enumerate(asked)} == {0, 1}


def test_answers_that_begin_alike_are_compared_where_they_part(byte_model):
    model = byte_model(0, spread=1.0)
    asked = [Question(f"Number {i}?", ("better", "best")) for i in range(20)]
    for i, answer in LocalJudge(model).answer(asked):
        letter = plainly(model, f"Number {i}?\n\nAnswer: be", "t", "s")
        assert answer == {"t": "better", "s": "best"}[letter]


def test_a_tie_is_no_answer(byte_model):
    model = byte_model(0)
    torch.nn.init.zeros_(model.model.lm_head.weight)
    assert dict(LocalJudge(model).answer(lettered(2))) == {0: "", 1: ""}


def test_what_it_cannot_judge(byte_model):
    with pytest.raises(UserError, match="longer context"):
        list(LocalJudge(byte_model(0, max_position_embeddings=8)).answer(lettered(1)))
    with pytest.raises(UserError, match="apart"):
        list(LocalJudge(byte_model(0)).answer([Question("?", ("A", "A"))]))
    judge = LocalJudge(byte_model(4))
    assert (judge.name, judge.identity) == ("random-4", "digest-4")
