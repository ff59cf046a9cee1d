"""An S3 server on loopback (moto's), which writes down its requests and can be made to misbehave."""

from __future__ import annotations

import itertools
import logging
import threading
import urllib.request
from dataclasses import dataclass, field

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

# What moto takes for whoever owns the bucket: nothing is checked, but without it nothing is public.
SIGNED = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
FAILURES = {403: "AccessDenied", 500: "InternalError"}


@dataclass
class Request:
    method: str
    path: str
    query: str
    range: str | None

    @property
    def kind(self):
        """What a request is for, such as ``PUT part``."""
        marks = {
            "partNumber=": "part",
            "uploads": "upload",
            "uploadId=": "upload",
            "list-type=": "list",
            "delete": "delete",
        }
        what = next((what for mark, what in marks.items() if mark in self.query), None)
        return f"{self.method} {what or self.path.rpartition('/')[2].partition('-')[0]}"


@dataclass
class ObjectServer:
    """Serves until `stop`.

    Attributes:
        requests: All since they were last cleared.
        before: Asked with each request; returns a status to answer with, or None to go on.
        after: The same, once the request was carried out.
    """

    requests: list = field(default_factory=list)
    before: object = staticmethod(lambda request: None)
    after: object = staticmethod(lambda request: None)

    def __post_init__(self):
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self._numbers = itertools.count()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def make_bucket(self):
        """Return the name of a bucket that nothing is in."""
        name = f"bucket-{next(self._numbers)}"
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT")).close()
        return name

    def kinds(self):
        return [request.kind for request in self.requests]

    def behave(self):
        """Forget what was written down, and every misbehaviour."""
        self.requests.clear()
        self.before = self.after = lambda request: None

    def stop(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ, start_response):
        request = Request(
            environ["REQUEST_METHOD"],
            environ["PATH_INFO"],
            environ["QUERY_STRING"],
            environ.get("HTTP_RANGE"),
        )
        self.requests.append(request)
        environ.setdefault("HTTP_AUTHORIZATION", SIGNED)
        if status := self.before(request):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return self._fail(status, start_response)
        answer = self._moto(environ, start_response)
        if status := self.after(request):
            return self._fail(status, start_response)
        return answer

    def _fail(self, status, start_response):
        start_response(f"{status} {FAILURES[status]}", [("Content-Type", "application/xml")])
        return [f"<Error><Code>{FAILURES[status]}</Code></Error>".encode()]
