"""A stand-in for the Hugging Face Hub on 127.0.0.1, in memory.

It has models, data sets, LFS uploads and commits. Clients need HF_ENDPOINT=hub.url,
HF_TOKEN=hub.token and HF_HUB_DISABLE_XET=1.

with Hub() as hub:
    hub.files["models", "user/name"] = {"config.json": b"{}"}
    hub.fault = ("/api/", 503)  # what it answers to requests whose path has this in it
"""

import base64
import hashlib
import json
import re
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serve ``files`` and keep in them what is pushed.

    ``files`` is {("models" or "datasets", repository): {path: bytes}}. ``private`` are the names of
    the private repositories. ``fault`` is None or a pattern and what a path with it is answered: a
    status, "garbage", "cut", "loop" or "silence".
    """

    token = "hf_stand_in"

    def __init__(self):
        self.files, self.uploads, self.commits, self.private = {}, {}, [], set()
        self.requests, self.fault = [], None
        self.server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self})
        )
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, body=b"", status=200, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content_Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else self.read_chunks()
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        if self.hub.fault and re.search(self.hub.fault[0], path):
            return self.answer_wrongly(self.hub.fault[1])
        reads = self.command not in ("POST", "PUT") or re.search("paths-info|validate-yaml", path)
        known = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if not reads and not known and not path.startswith("/lfs/"):
            return self.answer({"error": "Invalid username or password."}, 401)
        for pattern, method in ROUTES:
            if match := re.fullmatch(pattern, path):
                return getattr(self, method)(body, **match.groupdict())
        return self.answer({"error": f"no route for {path}"}, 404)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def answer_wrongly(self, fault):
        if fault == "silence":
            time.sleep(20)
        elif fault == "garbage":
            self.answer(b"<html>")
        elif fault == "loop":
            self.answer(status=302, Location=self.path)
        elif fault == "cut":
            self.answer(b"[{", Content_Length=1000)
        else:
            self.answer({"error": "not now"}, fault)
        self.close_connection = fault in ("silence", "cut")

    def read_chunks(self):
        body = b""
        while "chunked" in self.headers.get("Transfer-Encoding", "") and (
            size := int(self.rfile.readline(), 16)
        ):
            body += self.rfile.read(size)
            self.rfile.readline()
        return body

    def repository(self, kind, repo):
        files = self.hub.files.get((kind or "models", repo))
        if files is None:
            self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        return files

    def entry(self, path, content):
        return {
            "type": "file",
            "path": path,
            "size": len(content),
            "oid": hashlib.sha1(content).hexdigest(),
        }

    # ---- reading ----

    def whoami(self, body):
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.answer({"error": "Invalid username or password."}, 401)
        return self.answer(
            {"type": "user", "name": "user", "auth": {"accessToken": {"role": "write"}}, "orgs": []}
        )

    def info(self, body, kind, repo):
        if (files := self.repository(kind, repo)) is not None:
            siblings = [{"rfilename": path} for path in sorted(files)]
            numbers = {"downloads": 0, "likes": 0, "createdAt": "2026-01-01T00:00:00.000Z"}
            about = {"id": repo, "sha": REVISION, "tags": [], "private": False, **numbers}
            self.answer({**about, "siblings": siblings})

    def tree(self, body, kind, repo, folder=""):
        if (files := self.repository(kind, repo)) is None:
            return
        prefix = f"{folder.strip('/')}/" if folder and folder.strip("/") else ""
        inside = {path: content for path, content in files.items() if path.startswith(prefix)}
        entries = [self.entry(path, content) for path, content in sorted(inside.items())]
        if (
            "recursive" not in parse_qs(urlsplit(self.path).query)
            or "True" not in self.path.title()
        ):
            folders = {
                prefix + path[len(prefix) :].split("/")[0]
                for path in inside
                if "/" in path[len(prefix) :]
            }
            entries = [entry for entry in entries if "/" not in entry["path"][len(prefix) :]]
            entries += [
                {"type": "directory", "path": path, "oid": REVISION} for path in sorted(folders)
            ]
        self.answer(entries)

    def paths_info(self, body, kind, repo):
        if (files := self.repository(kind, repo)) is not None:
            paths = (
                json.loads(body)["paths"]
                if body[:1] == b"{"
                else parse_qs(body.decode()).get("paths", [])
            )
            found = [self.entry(path, files[path]) for path in paths if path in files]
            for path in paths:
                if any(name.startswith(path + "/") for name in files):
                    found.append({"type": "directory", "path": path, "oid": REVISION})
            self.answer(found)

    def resolve(self, body, kind, repo, path):
        if (files := self.repository(kind, repo)) is None:
            return
        if path not in files:
            return self.answer(
                {"error": "Entry not found"},
                404,
                X_Error_Code="EntryNotFound",
                X_Repo_Commit=REVISION,
            )
        content, status, headers = files[path], 200, {}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
            headers["Content_Range"] = f"bytes {first}-{last}/{len(content)}"
            content, status = content[first : last + 1], 206
        etag = f'"{hashlib.sha1(files[path]).hexdigest()}"'
        return self.answer(
            content, status, ETag=etag, X_Repo_Commit=REVISION, Accept_Ranges="bytes", **headers
        )

    # ---- writing ----

    def create(self, body):
        request = json.loads(body)
        repo = f"{request.get('organization') or 'user'}/{request['name']}"
        self.hub.files.setdefault((f"{request.get('type', 'model')}s", repo), {})
        if request.get("visibility") == "private":
            self.hub.private.add(repo)
        self.answer({"url": f"{self.hub.url}/{repo}", "name": repo})

    def validate(self, body):
        self.answer({"errors": [], "warnings": []})

    def preupload(self, body, kind, repo):
        files = json.loads(body)["files"]
        for file in files:
            file["uploadMode"] = "lfs" if file["size"] > 50_000 else "regular"
            file["shouldIgnore"] = False
        self.answer({"files": files})

    def lfs_batch(self, body, kind, repo):
        objects = json.loads(body)["objects"]
        for wanted in objects:
            wanted["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}}
        self.answer({"transfer": "basic", "objects": objects})

    def lfs_put(self, body, oid):
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.uploads[oid] = body
        self.answer()

    def commit(self, body, kind, repo):
        files = self.hub.files[kind, repo]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.hub.commits.append((repo, value["summary"]))
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
        self.answer(
            {"commitUrl": f"{self.hub.url}/{repo}/commit/{REVISION}", "commitOid": REVISION}
        )


REPO = r"(?P<repo>[^/]+/[^/]+)"
API = rf"/api/(?P<kind>models|datasets)/{REPO}"
ROUTES = [
    (r"/api/whoami-v2", "whoami"),
    (r"/api/repos/create", "create"),
    (r"/api/validate-yaml", "validate"),
    (rf"{API}(?:/revision/[^/]+)?", "info"),
    (rf"{API}/tree/[^/]+(?P<folder>/.*)?", "tree"),
    (rf"{API}/paths-info/[^/]+", "paths_info"),
    (rf"{API}/preupload/[^/]+", "preupload"),
    (rf"{API}/commit/[^/]+", "commit"),
    (rf"/(?:(?P<kind>datasets)/)?{REPO}\.git/info/lfs/objects/batch", "lfs_batch"),
    (r"/lfs/(?P<oid>[0-9a-f]+)", "lfs_put"),
    (rf"/(?:(?P<kind>datasets)/)?{REPO}/resolve/[^/]+/(?P<path>.+)", "resolve"),
]
