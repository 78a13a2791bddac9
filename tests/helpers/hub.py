"""A Hugging Face hub on this machine: the part of its HTTP interface that pushes and pulls of datasets use.

Written from the requests of huggingface_hub 2.4 (`hf_api`, `_commit_api`, `lfs`, `file_download`). Repositories are
lists of commits, each a mapping from paths to contents; the licence of those whose name ends with `gated` has to be
accepted.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_test"
Files = dict[str, bytes]


class Hub:
    """What the hub holds."""

    def __init__(self) -> None:
        self.repositories: dict[str, list[Files]] = {}
        self.blobs: dict[str, bytes] = {}
        self.address = ""
        self.requests: list[str] = []

    def commit(self, repository: str, files: Files) -> None:
        self.repositories.setdefault(repository, []).append(files)

    def files(self, repository: str, revision: str) -> tuple[str, Files] | None:
        commits = self.repositories[repository]
        named = {_sha(repository, number): files for number, files in enumerate(commits)}
        newest = _sha(repository, len(commits) - 1)
        sha = {"main": newest, "first": _sha(repository, 0)}.get(revision, revision)
        return (sha, named[sha]) if sha in named else None


def _sha(repository: str, number: int) -> str:
    return sha256(f"{repository} {number}".encode()).hexdigest()[:40]


@contextmanager
def running() -> Iterator[Hub]:
    """Run a hub in a thread."""
    hub = Hub()

    class Handler(_Handler):
        held = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    held: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # which holds a body back for 40 ms, until its header is acknowledged

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, code: int, content: Any = None, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps({} if content is None else content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_one(self) -> None:
        hub = self.held
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path).strip("/")
        hub.requests.append(f"{self.command} /{path}")
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        match [self.command, *path.split("/")]:
            case ["PUT", "blobs", oid]:
                hub.blobs[oid] = body
                assert sha256(body).hexdigest() == oid
                self.answer(200)
            case ["POST", *_] if not allowed:
                self.answer(401, {"error": "Invalid credentials"})
            case ["POST", "api", "validate-yaml"]:
                front = yaml.safe_load(json.loads(body)["content"].split("---")[1])
                assert {"license", "configs", "tags"} <= set(front)
                self.answer(200, {"errors": [], "warnings": []})
            case ["POST", "api", "repos", "create"]:
                wanted = json.loads(body)
                name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
                assert wanted["type"] == "dataset"
                if name.startswith("others/"):
                    self.answer(403, {"error": "Forbidden"})
                elif name in hub.repositories:
                    there = {"error": "You already created this dataset repo", "url": f"{hub.address}/datasets/{name}"}
                    self.answer(409, there)
                else:
                    hub.commit(name, {".gitattributes": b""})
                    self.answer(200, {"url": f"{hub.address}/datasets/{name}", "name": name})
            case ["POST", "api", "datasets", _, _, "preupload", _]:
                files = json.loads(body)["files"]
                modes = [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(".arrow") else "regular",
                        "shouldIgnore": False,
                    }
                    for file in files
                ]
                self.answer(200, {"files": modes})
            case ["POST", "datasets", _, _, "info", "lfs", "objects", "batch"]:
                objects = [
                    {**wanted, "actions": {"upload": {"href": f"{hub.address}/blobs/{wanted['oid']}"}}}
                    for wanted in json.loads(body)["objects"]
                ]
                self.answer(200, {"transfer": "basic", "objects": objects})
            case ["POST", "api", "datasets", space, name, "commit", "main"]:
                self.answer(200, self.committed(f"{space}/{name}", body))
            case ["GET", "api", "datasets", space, name, *rest] if self.exists(f"{space}/{name}"):
                self.described(f"{space}/{name}", rest)
            case ["GET" | "HEAD", "datasets", space, name, "resolve", revision, *parts] if self.exists(
                f"{space}/{name}"
            ):
                self.resolved(f"{space}/{name}", revision, "/".join(parts))
            case ["GET" | "HEAD", "datasets", *_] | ["GET", "api", "datasets", *_]:
                pass  # `exists` has answered
            case _:
                self.answer(404)

    do_GET = do_HEAD = do_POST = do_PUT = handle_one

    def exists(self, repository: str) -> bool:
        if repository in self.held.repositories and not repository.endswith("gated"):
            return True
        code, name = (403, "GatedRepo") if repository.endswith("gated") else (401, "RepoNotFound")
        self.answer(code, {"error": name}, X_Error_Code=name, X_Error_Message=name)
        return False

    def committed(self, repository: str, body: bytes) -> dict[str, str]:
        hub = self.held
        files = dict(hub.repositories[repository][-1])
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                assert value["encoding"] == "base64"
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = hub.blobs[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        hub.commit(repository, files)
        sha = _sha(repository, len(hub.repositories[repository]) - 1)
        return {"commitUrl": f"{hub.address}/datasets/{repository}/commit/{sha}", "commitOid": sha}

    def described(self, repository: str, rest: list[str]) -> None:
        found = self.held.files(repository, rest[1] if len(rest) > 1 else "main")
        if found is None:
            self.answer(404, {"error": "no"}, X_Error_Code="RevisionNotFound", X_Error_Message="no such revision")
        elif rest[:1] == ["tree"]:
            tree = [
                {"type": "file", "path": path, "size": len(content), "oid": sha256(content).hexdigest()[:40]}
                for path, content in found[1].items()
            ]
            self.answer(200, tree)
        else:
            siblings = [{"rfilename": path} for path in found[1]]
            self.answer(200, {"id": repository, "sha": found[0], "siblings": siblings})

    def resolved(self, repository: str, revision: str, path: str) -> None:
        found = self.held.files(repository, revision)
        if found is None or path not in found[1]:
            self.answer(404, {"error": "no"}, X_Error_Code="EntryNotFound", X_Error_Message="no such file")
            return
        sha, files = found
        tag = f'"{sha256(files[path]).hexdigest()}"'
        self.answer(200, files[path], ETag=tag, X_Repo_Commit=sha, Accept_Ranges="none")
