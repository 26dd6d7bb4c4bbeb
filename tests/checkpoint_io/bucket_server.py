"""A bucket for tests: the few calls of Cloud Storage's JSON interface that TensorStore makes."""

import contextlib
import http.server
import json
import pathlib
import threading
import urllib.parse
from collections.abc import Iterator

BUCKET = "bucket"
_OBJECTS = f"/storage/v1/b/{BUCKET}/o"
_UPLOAD = f"/upload/storage/v1/b/{BUCKET}/o"


@contextlib.contextmanager
def serve(root: pathlib.Path) -> Iterator[str]:
    """Serves a folder's files as the objects of gs://bucket, at the address that is yielded."""
    handler = type("Handler", (_Handler,), {"root": root})
    server = http.server.ThreadingHTTPServer(("localhost", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    root: pathlib.Path
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # answers of two writes would wait for each other

    def do_GET(self):
        place, _, query = self.path.partition("?")
        if place == _OBJECTS:
            self._answer(200, self._list(urllib.parse.parse_qs(query)))
            return
        if not place.startswith(_OBJECTS + "/"):
            self._answer(404, b"{}")
            return
        path = self.root / urllib.parse.unquote(place.removeprefix(_OBJECTS + "/"))
        if not path.is_file():
            self._answer(404, b"{}")
        elif "alt=media" in query:
            self._send(path.read_bytes())
        else:
            self._answer(200, self._metadata(path))

    def do_POST(self):
        place, _, query = self.path.partition("?")
        name = urllib.parse.parse_qs(query).get("name")
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if place != _UPLOAD or not name:
            self._answer(404, b"{}")
            return
        path = self.root / name[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self._answer(200, self._metadata(path))

    def _send(self, content: bytes) -> None:
        span = self.headers.get("Range", "")
        if not span:
            self._answer(200, content)
            return
        first, _, last = span.removeprefix("bytes=").partition("-")
        begin, end = int(first), min(int(last or len(content) - 1), len(content) - 1)
        extra = {"Content-Range": f"bytes {begin}-{end}/{len(content)}"}
        self._answer(206, content[begin : end + 1], extra)

    def _list(self, query: dict[str, list[str]]) -> bytes:
        names = sorted(
            path.relative_to(self.root).as_posix()
            for path in self.root.rglob("*")
            if path.is_file()
        )
        begin = query.get("startOffset", [""])[0]
        end = query.get("endOffset", ["\U0010ffff"])[0]
        kept = [name for name in names if begin <= name < end]
        items = [json.loads(self._metadata(self.root / name)) | {"name": name} for name in kept]
        return json.dumps({"items": items}).encode()

    def _metadata(self, path: pathlib.Path) -> bytes:
        size = str(path.stat().st_size)
        return json.dumps({"name": path.name, "generation": "1", "size": size}).encode()

    def _answer(self, code: int, content: bytes, extra: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"x-goog-generation": "1", **(extra or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        """Says nothing."""
