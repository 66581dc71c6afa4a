"""A Hugging Face compatible hub with one repository, on two ports of this machine, for `check_cache.py`."""

import hashlib
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REPOSITORY = "acme/tiny-model"
COMMIT = hashlib.sha1(b"the only commit").hexdigest()
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = {"metadata": {}, "weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}
SMALL = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "README.md": b"# Tiny\n",
    "config.json": b'{"model_type": "deepseek_v4"}\n',
    "inference/config.json": b"{}",
    "model.safetensors.index.json": json.dumps(INDEX).encode(),
    "tokenizer.json": b'{"version": "1.0"}',
}
LARGE = {name: hashlib.shake_256(name.encode()).digest(3_000_000 + at) for at, name in enumerate(SHARDS)}
FILES = SMALL | LARGE


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def blob_name(name: str) -> str:
    return hashlib.sha256(LARGE[name]).hexdigest() if name in LARGE else git_hash(SMALL[name])


def lfs(name: str) -> dict:
    """The entry that makes a file a large one in listings."""
    if name not in LARGE:
        return {}
    size = len(LARGE[name])
    return {"lfs": {"sha256": blob_name(name), "oid": blob_name(name), "size": size, "pointerSize": 135}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.hub.requests.append((self.command, self.path, dict(self.headers)))
        path = unquote(urlsplit(self.path).path)
        api = f"/api/models/{REPOSITORY}"
        if path in (f"{api}/revision/main", f"{api}/revision/{COMMIT}", api):
            siblings = [
                {"rfilename": name, "size": len(content), "blobId": git_hash(content)} | lfs(name)
                for name, content in FILES.items()
            ]
            self.answer_json({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings})
        elif path == f"{api}/tree/{COMMIT}":
            self.answer_json([
                {"type": "file", "path": name, "size": len(content), "oid": git_hash(content)} | lfs(name)
                for name, content in FILES.items()
            ])
        elif path.startswith(f"/{REPOSITORY}/resolve/"):
            self.answer_file(path.split("/", 5)[5])
        elif path.startswith("/store/"):
            self.answer_bytes(next(LARGE[name] for name in LARGE if blob_name(name) == path[7:]), {})
        else:
            self.answer(404, {"X-Error-Code": "RepoNotFound"}, b"")

    def answer_file(self, name: str):
        if name not in FILES:
            return self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b"")
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{blob_name(name)}"'}
        if name in SMALL:
            return self.answer_bytes(SMALL[name], headers)
        headers |= {"X-Linked-ETag": f'"{blob_name(name)}"', "X-Linked-Size": str(len(LARGE[name]))}
        location = f"{self.server.hub.store_url}/store/{blob_name(name)}?Signature=secret"
        return self.answer(302, headers | {"Location": location}, b"")

    def answer_bytes(self, content: bytes, headers: dict):
        start = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0]
        start = int(start)
        if start == 0:
            return self.answer(200, headers, content)
        span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        return self.answer(206, headers | span, content[start:])

    def answer_json(self, value):
        self.answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def answer(self, status: int, headers: dict, body: bytes):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class FakeHub:
    """Serves the repository at `url` and its large files at `store_url`, another port."""

    def __init__(self, certificate: tuple[str, str] | None = None):
        self.requests = []
        servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
        for server in servers:
            server.hub = self
            if certificate:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*certificate)
                server.socket = context.wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever, daemon=True).start()
        scheme = "https" if certificate else "http"
        self.url, self.store_url = (f"{scheme}://localhost:{server.server_port}" for server in servers)
