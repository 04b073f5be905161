"""A stand-in for Hugging Face's hub on loopback: what its client was seen to ask, answered from memory."""

import base64
import hashlib
import http.server
import json
import urllib.parse
from typing import Any

COMMIT = "a" * 40


class Hub(http.server.BaseHTTPRequestHandler):
    """Repositories by name, each a dict of files; ``asked`` is a list of what was asked for.

    Files whose names end in one of ``large`` go to a store beside, as Git LFS has it; the hub's newer store, Xet, has a
    server of its own, for which there is no stand-in.
    """

    protocol_version = "HTTP/1.1"
    repositories: dict[str, dict[str, bytes]]
    private: dict[str, bool]
    asked: list[str]
    large: list[str]
    store: dict[str, bytes]

    def log_message(self, *arguments: Any) -> None:
        pass

    def answer(self, value: Any = None, status: int = 200, body: bytes | None = None, **headers: str) -> None:
        body = json.dumps(value).encode() if body is None else body
        self.send_response(status)
        for name, text in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path).strip("/")
        self.asked.append(path)
        if path.startswith("api/models/"):
            repo = "/".join(path.split("/")[2:4])
            if repo not in self.repositories:
                return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            siblings = [{"rfilename": name} for name in self.repositories[repo]]
            return self.answer({"id": repo, "sha": COMMIT, "siblings": siblings})
        repo, _, name = path.partition(f"/resolve/{COMMIT}/")
        if name not in self.repositories.get(repo, {}):
            return self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
        body = self.repositories[repo][name]
        etag = f'"{hashlib.sha1(body).hexdigest()}"'
        return self.answer(body=body, ETag=etag, X_Repo_Commit=COMMIT)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = urllib.parse.urlparse(self.path).path
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != "Bearer hf_token" and path != "/api/validate-yaml":
            return self.answer({"error": "Unauthorized"}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            self.repositories.setdefault(repo, {})
            self.private.setdefault(repo, asked.get("private") or asked.get("visibility") == "private")
            return self.answer({"url": f"http://{self.headers['Host']}/{repo}"})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        repo = "/".join(path.split("/")[3:5])
        if path.endswith("/preupload/main"):
            found = json.loads(body)["files"]
            told = [{"path": one["path"], "uploadMode": self.mode(one["path"]), "shouldIgnore": False} for one in found]
            return self.answer({"files": told})
        if path.endswith("/info/lfs/objects/batch"):
            return self.answer(
                {"transfer": "basic", "objects": [self.place(one) for one in json.loads(body)["objects"]]}
            )
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.repositories[repo][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.repositories[repo][value["path"]] = self.store[value["oid"]]
        url = f"http://{self.headers['Host']}/{repo}/commit/{COMMIT}"
        return self.answer({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})

    def mode(self, name: str) -> str:
        return "lfs" if name.endswith(tuple(self.large)) else "regular"

    def place(self, one: dict[str, Any]) -> dict[str, Any]:
        upload = {"upload": {"href": f"http://{self.headers['Host']}/store/{one['oid']}"}}
        return {"oid": one["oid"], "size": one["size"], "authenticated": True, "actions": upload}

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.store[self.path.rpartition("/")[2]] = body
        self.answer({})
