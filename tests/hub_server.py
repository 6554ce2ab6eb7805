"""A server that speaks as much of the Hugging Face hub's protocol as downloading a repository takes."""

import contextlib
import hashlib
import http.server
import json
import threading
from urllib.parse import unquote

COMMIT = "c0ffee" * 6 + "beef"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repositories: dict  # {id: {file name: bytes}}
    asked: list  # paths of all requests

    def log_message(self, *what):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = unquote(self.path.partition("?")[0])
        self.asked.append(f"{self.command} {path}")
        api = path.startswith("/api/models/")
        parts = path.removeprefix("/api/models" if api else "").strip("/").split("/")
        files = self.repositories.get("/".join(parts[:2]))
        if files is None:
            return self.send(401, b'{"error": "Repository not found"}', body, {"X-Error-Code": "RepoNotFound"})
        if not api:
            return self.file(files, "/".join(parts[4:]), body)
        if "tree" in parts:
            return self.send(200, json.dumps([entry(name, data) for name, data in files.items()]).encode(), body)
        siblings = [{"rfilename": name} for name in files]
        about = {"id": "/".join(parts[:2]), "sha": COMMIT, "private": False, "siblings": siblings, "tags": []}
        return self.send(200, json.dumps(about).encode(), body)

    def file(self, files, name, body):
        if name not in files:
            return self.send(404, b"", body, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        data = files[name]
        if body and (asked := self.headers.get("Range")):
            data = data[int(asked.removeprefix("bytes=").partition("-")[0]) :]
        return self.send(200, data, body, {"ETag": f'"{oid(files[name])}"', "X-Repo-Commit": COMMIT})

    def send(self, status, data, body, headers=()):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


def oid(data: bytes) -> str:
    """The name that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def entry(name: str, data: bytes) -> dict:
    return {"type": "file", "path": name, "size": len(data), "oid": oid(data)}


@contextlib.contextmanager
def serving(repositories: dict):
    """`(address, requests so far)` of a server of these repositories; it stops when the block ends."""
    handler = type("Repositories", (Handler,), {"repositories": repositories, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler.asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
