"""What the local Hub answers to each call: the client's side of the Hub's API, as far as hfexport uses it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

from local_hub.faults import Fault
from local_hub.store import Comment, Entry, Publisher, PullRequest, Rejected, Repository, User, below

if TYPE_CHECKING:
    from local_hub.server import LocalHub

__all__ = ["Answers"]

EPOCH = "2026-01-01T00:00:00.000Z"


class Answers(BaseHTTPRequestHandler):
    """A method for each call, named as in `server.ROUTES`: gets the parts of the path by keyword, returns JSON.

    One that sends its answer itself returns `None`.
    """

    hub: ClassVar[LocalHub]
    body: bytes
    query: dict[str, str]
    queries: dict[str, list[str]]
    fault: Fault | None

    def send_bytes(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        """Send an answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_json(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        """Send an answer in JSON."""
        self.send_bytes(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _json(self) -> Any:
        return json.loads(self.body)

    # Who asks, and for what.

    def user(self, *, quiet: bool = False) -> User | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        user = self.hub.tokens.get(token)
        if token and user is None and not quiet:
            raise Rejected(401, "Invalid credentials in Authorization header")
        return user

    def _repository(self, name: str, *, content: bool = False, write: bool = False) -> Repository:
        user = self.user()
        repository = self.hub.repositories.get(name)
        reads = (
            repository is not None
            and user is not None
            and (name.startswith(f"{user.name}/") or user.may_write(name) or user.name in repository.readers)
        )
        if repository is None or (repository.private and not reads):
            raise Rejected(404 if user else 401, "Repository not found", "RepoNotFound")
        if content and repository.gated and not reads:
            message = f"Access to model {name} is restricted. You must have access to it and be authenticated."
            raise Rejected(403 if user else 401, message, "GatedRepo")
        if write and user is None:
            raise Rejected(401, "Unauthorized")
        if write and user is not None and not user.may_write(name):
            raise Rejected(403, "You don't have the rights to write to this repository")
        return repository

    def _author(self) -> str:
        user = self.user()
        return user.name if user else "anonymous"

    # Reading.

    def answer_whoami(self) -> Any:
        user = self.user()
        if user is None:
            raise Rejected(401, "Invalid username or password.")
        return {"type": "user", "name": user.name, "orgs": [], "auth": {"type": "access_token"}}

    def answer_info(self, repo: str, revision: str | None = None) -> Any:
        repository = self._repository(repo)
        commit = repository.resolve(revision or "main")
        return {
            **{"_id": repo, "id": repo, "modelId": repo, "sha": commit.sha, "private": repository.private},
            **{"gated": "auto" if repository.gated else False, "tags": [], "downloads": 0, "likes": 0},
            "siblings": [{"rfilename": path} for path in sorted(commit.tree)],
        }

    def answer_models(self) -> Any:
        """Models of a search, in pages of two."""
        author, text, tags = self.query.get("author"), self.query.get("search", ""), self.queries.get("filter", [])
        found = [
            name
            for name, repository in sorted(self.hub.repositories.items())
            if not repository.private
            and (author is None or name.startswith(f"{author}/"))
            and text.lower() in name.lower()
            and set(tags) <= set(self.hub.model_tags.get(name, []))
        ]
        start = int(self.query.get("cursor", "0"))
        if start + 2 < len(found):
            query = "&".join(
                f"{key}={one}" for key, values in self.queries.items() if key != "cursor" for one in values
            )
            self.send_json(
                200,
                [_model(name) for name in found[start : start + 2]],
                {"Link": f'<{self.hub.url}/api/models?{query}&cursor={start + 2}>; rel="next"'},
            )
            return None
        return [_model(name) for name in found[start:]]

    def answer_collections(self) -> Any:
        owner = self.query.get("owner", "")
        return [self._collection(slug) for slug in sorted(self.hub.collections) if slug.startswith(f"{owner}/")]

    def answer_collection(self, slug: str) -> Any:
        if slug not in self.hub.collections:
            raise Rejected(404, "Collection not found")
        return {**self._collection(slug), "position": 0}

    def _collection(self, slug: str) -> dict[str, Any]:
        items = [
            {"_id": f"{number:024x}", "id": name, "type": "model", "position": number}
            for number, name in enumerate(self.hub.collections[slug])
        ]
        items.append({"_id": "f" * 24, "id": "org/data", "type": "dataset", "position": len(items)})
        return {
            **{
                "slug": slug,
                "title": slug,
                "owner": {"name": slug.split("/", maxsplit=1)[0]},
                "items": items,
                "upvotes": 0,
            },
            **{"lastUpdated": EPOCH, "private": False, "theme": "blue"},
        }

    def answer_tree(self, repo: str, revision: str, path: str | None = None) -> Any:
        commit = self._repository(repo, content=True).resolve(revision)
        names = below(commit.tree, path or "")
        if path and not names:
            raise Rejected(404, f"{path} does not exist on {revision!r}", "EntryNotFound")
        return [self._described(name, commit.tree[name]) for name in names]

    def _described(self, path: str, entry: Entry) -> dict[str, Any]:
        described: dict[str, Any] = {"type": "file", "path": path, "oid": entry.oid, "size": entry.size}
        if entry.large:
            described["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": 130}
        return described

    def answer_refs(self, repo: str) -> Any:
        repository = self._repository(repo)
        refs = [(name, sha) for name, sha in repository.refs.items() if not name.startswith("refs/pr/")]
        listed: dict[str, list[dict[str, str]]] = {"branches": [], "tags": []}
        for name, sha in refs:
            kind = "tags" if name in repository.tags else "branches"
            prefix = "refs/tags/" if kind == "tags" else "refs/heads/"
            listed[kind].append({"name": name, "ref": prefix + name, "targetCommit": sha})
        return {**listed, "converts": [], "pullRequests": []}

    def answer_commits(self, repo: str, revision: str) -> Any:
        return [
            {"id": one.sha, "title": one.title, "message": one.description, "date": EPOCH, "authors": [{"user": "x"}]}
            for one in self._repository(repo).history(revision)
        ]

    def answer_head(self, repo: str, revision: str, path: str) -> None:
        self.answer_resolve(repo, revision, path)

    def answer_resolve(self, repo: str, revision: str, path: str) -> None:
        commit = self._repository(repo, content=True).resolve(revision)
        entry = commit.tree.get(path)
        if entry is None:
            raise Rejected(404, "Entry not found", "EntryNotFound")
        content = self.hub.blobs[entry.sha256]
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{entry.oid}"', "Accept-Ranges": "bytes"}
        if entry.large:
            headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
        if self.fault is not None and self.fault.kind == "wrong-bytes":
            content = content[:-1] + bytes([content[-1] ^ 1])
        status = 200
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(found[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content, status = content[start:], 206
        if self.fault is not None and self.fault.kind == "truncated" and self.command == "GET":
            headers["Content-Length"] = str(len(content))
            self.send_bytes(status, content[: len(content) // 2], headers)
            self.close_connection = True
            return
        if self.fault is not None and self.fault.kind == "stalled" and self.command == "GET":
            headers["Content-Length"] = str(len(content))
            self.send_bytes(status, content[: len(content) // 2], headers)
            self.fault.held.reached.set()
            self.fault.held.released.wait()
            self.wfile.write(content[len(content) // 2 :])
            return
        self.send_bytes(status, content, headers)

    # Writing.

    def answer_validate_yaml(self) -> Any:
        """A part of the Hub's own check: front matter that parses, and the fields that hfexport touches."""
        found = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", self._json()["content"], flags=re.DOTALL)
        if found is None:
            return {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]}
        try:
            metadata = yaml.safe_load(found[1])
        except yaml.YAMLError as error:
            raise bad_yaml(str(error)) from error
        if not isinstance(metadata, dict):
            raise bad_yaml("metadata must be a mapping")
        tags = metadata.get("tags", [])
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise bad_yaml('"tags" must be an array of strings')
        if not isinstance(metadata.get("library_name", ""), str):
            raise bad_yaml('"library_name" must be a string')
        if metadata.get("base_model_relation", "finetune") not in ("adapter", "finetune", "merge", "quantized"):
            raise bad_yaml('"base_model_relation" must be one of adapter, finetune, merge, quantized')
        for base in [metadata.get("base_model") or []]:
            names = base if isinstance(base, list) else [base]
            if not all(isinstance(name, str) and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) for name in names):
                raise bad_yaml('"base_model" with value is not valid: use a model id from https://hf.co/models')
        return {"errors": [], "warnings": []}

    def answer_create_repo(self) -> Any:
        asked = self._json()
        user = self.user()
        name = f"{asked.get('organization') or (user.name if user else '')}/{asked['name']}"
        if user is None or not user.may_write(name):
            raise Rejected(403 if user else 401, "You don't have the rights to create a model under this namespace")
        if name in self.hub.repositories:
            body = {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}
            raise Rejected(409, "You already created this model repo", body=body)
        content = b"*.onnx filter=lfs diff=lfs merge=lfs -text\n"
        self.hub.add(name, {".gitattributes": content}, private=asked.get("visibility") == "private")
        return {"url": f"{self.hub.url}/{name}", "name": name, "id": name}

    def answer_create_branch(self, repo: str, branch: str) -> Any:
        repository = self._repository(repo, write=True)
        with repository.lock:
            if branch in repository.refs:
                raise Rejected(409, "Reference already exists")
            repository.refs[branch] = repository.resolve(self._json().get("startingPoint", "main")).sha
        return {}

    def answer_delete_repo(self) -> Any:
        asked = self._json()
        name = f"{asked['organization']}/{asked['name']}"
        self._repository(name, write=True)
        del self.hub.repositories[name]
        return {}

    def answer_delete_branch(self, repo: str, branch: str) -> Any:
        repository = self._repository(repo, write=True)
        with repository.lock:
            if branch == "main" or branch not in repository.refs:
                raise Rejected(404, f"Invalid rev id: {branch}", "RevisionNotFound")
            del repository.refs[branch]
        return {}

    def answer_preupload(self, repo: str, revision: str) -> Any:
        repository = self._repository(repo, write="create_pr" not in self.query)
        tree = repository.resolve(revision).tree
        files = []
        for file in self._json()["files"]:
            mode = repository.upload_mode(file["path"], file["size"])
            entry = tree.get(file["path"])
            oid = None if entry is None else entry.sha256 if entry.large else entry.oid
            ignored = repository.is_ignored(file["path"])
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": ignored, "oid": oid})
        return {"files": files}

    def answer_lfs_batch(self, repo: str) -> Any:
        self._repository(repo)
        return {"transfer": "basic", "objects": [self._lfs_object(one) for one in self._json()["objects"]]}

    def _lfs_object(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        oid, size = asked["oid"], asked["size"]
        if oid in self.hub.blobs:
            return {"oid": oid, "size": size}
        url = f"{self.hub.url}/storage/{oid}"
        upload: dict[str, Any] = {"href": url}
        if self.hub.part_bytes and size > self.hub.part_bytes:
            count = -(-size // self.hub.part_bytes)
            parts = {str(number): f"{url}/{number}" for number in range(1, count + 1)}
            upload = {"href": f"{url}/complete", "header": {"chunk_size": str(self.hub.part_bytes), **parts}}
        return {
            **{"oid": oid, "size": size, "authenticated": True},
            "actions": {"upload": upload, "verify": {"href": f"{self.hub.url}/storage/verify"}},
        }

    def answer_lfs_upload(self, sha256: str) -> None:
        self._keep(sha256, self.body)
        self.send_bytes(200, b"", {})

    def answer_lfs_part(self, sha256: str, part: str) -> None:
        self.hub.parts.setdefault(sha256, {})[int(part)] = self.body
        self.send_bytes(200, b"", {"ETag": f'"{hashlib.sha256(self.body).hexdigest()}"'})

    def answer_lfs_complete(self, sha256: str) -> Any:
        parts = self.hub.parts.pop(sha256, {})
        wanted = [one["partNumber"] for one in self._json()["parts"]]
        if sorted(parts) != wanted:
            raise Rejected(400, f"parts {wanted} were named, {sorted(parts)} were uploaded")
        self._keep(sha256, b"".join(parts[number] for number in wanted))
        return {"success": True}

    def _keep(self, sha256: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != sha256:
            raise Rejected(400, "the content does not have this SHA-256")
        self.hub.blobs[sha256] = content

    def answer_lfs_verify(self) -> Any:
        asked = self._json()
        if len(self.hub.blobs.get(asked["oid"], b"")) != asked["size"]:
            raise Rejected(404, "no such object")
        return {}

    def answer_xet_token(self, repo: str, kind: str, revision: str) -> None:
        self._repository(repo).resolve(revision if revision != "None" else "main")
        if not self.hub.xet_folder:
            raise Rejected(404, "this Hub has no Xet store")
        expires = str(int(time.time()) + 3600)
        headers = {"X-Xet-Access-Token": f"xet-{kind}", "X-Xet-Token-Expiration": expires}
        url = f"local://{self.hub.xet_folder}"
        body = {"accessToken": f"xet-{kind}", "exp": int(expires), "casUrl": url}
        self.send_json(200, body, {**headers, "X-Xet-Cas-Url": url})

    def answer_commit(self, repo: str, revision: str) -> Any:
        opens = "create_pr" in self.query
        repository = self._repository(repo, write=not opens)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        made, request = repository.commit(
            revision,
            dict(self._change(line) for line in lines if line["key"] != "header"),
            title=header["summary"],
            description=header.get("description", ""),
            parent=header.get("parentCommit"),
            author=self._author(),
            pull_request=opens,
        )
        answer = {"success": True, "commitOid": made.sha, "commitUrl": f"{self.hub.url}/{repo}/commit/{made.sha}"}
        if request is not None:
            answer["pullRequestUrl"] = f"{self.hub.url}/{repo}/discussions/{request.number}"
        return answer

    def _change(self, line: Mapping[str, Any]) -> tuple[str, Entry | None]:
        key, value = line["key"], line["value"]
        if key in ("deletedFile", "deletedFolder"):
            return value["path"].rstrip("/") + ("/" if key == "deletedFolder" else ""), None
        if key == "file":
            content = base64.b64decode(value["content"])
            sha256 = hashlib.sha256(content).hexdigest()
            self.hub.blobs[sha256] = content
            return value["path"], Entry.of(len(content), sha256, content)
        if value["oid"] not in self.hub.blobs and not self.hub.xet_folder:
            raise Rejected(400, f"LFS pointer of {value['path']} names an object that was not uploaded")
        return value["path"], Entry.of(value["size"], value["oid"], None)

    # Pull requests.

    def answer_discussions(self, repo: str) -> Any:
        repository = self._repository(repo)
        status = self.query.get("status", "all")
        listed = [one for one in repository.pull_requests if status in ("all", one.status)]
        start = int(self.query.get("p", "0")) * 2  # small pages, so that there is more than one
        found = [_discussion(repo, one) for one in reversed(listed)][start : start + 2]
        return {"count": len(listed), "start": start, "discussions": found}

    def answer_discussion(self, repo: str, number: str) -> Any:
        request = self._repository(repo).pull_request(int(number))
        return {
            **_discussion(repo, request),
            "changes": {"base": f"refs/heads/{request.base}"},
            "filesWithConflicts": False,
            "events": [_event(comment) for comment in request.comments],
        }

    def answer_rename(self, repo: str, number: str) -> Any:
        request = self._repository(repo).pull_request(int(number))
        if self._author() not in (request.author, repo.split("/", 1)[0]):
            raise Rejected(403, "Only its author renames a pull request")
        before, request.title = request.title, self._json()["title"]
        data = {"from": before, "to": request.title}
        event = {"id": "0" * 24, "type": "title-change", "createdAt": EPOCH, "author": {"name": self._author()}}
        return {"newTitle": {**event, "data": data}}

    def answer_edit_comment(self, repo: str, number: str, comment: str) -> Any:
        request = self._repository(repo).pull_request(int(number))
        found = next((one for one in request.comments if one.id == comment), None)
        if found is None:
            raise Rejected(404, "Comment not found")
        if self._author() not in (found.author, repo.split("/", 1)[0]):
            raise Rejected(403, "Only its author edits a comment")
        found.content, found.edited = self._json()["content"], True
        return {"updatedComment": _event(found)}

    # Keyless.

    def answer_id_token(self) -> Any:
        if self.headers.get("Authorization") != "Bearer runner-secret":
            raise Rejected(401, "not this job's request token")
        return {"value": f"id-token:{self.hub.oidc_job}:{self.query['audience']}"}

    def answer_oauth(self) -> Any:
        asked = self._json()
        if asked["subject_token"] != f"id-token:{self.hub.oidc_job}:{self.hub.url}":
            raise Rejected(401, "invalid_grant", body={"error": "invalid_grant", "error_description": "bad id token"})
        trusted = Publisher(self.hub.oidc_job, asked["resource"])
        if trusted not in self.hub.publishers:
            text = f"no trusted publisher of {asked['resource']} fits this workflow"
            raise Rejected(403, text, body={"error": "access_denied", "error_description": text})
        token = "hf_jwt_" + hashlib.sha256(asked["resource"].encode()).hexdigest()
        owner = asked["resource"].split("/", 1)[0]
        self.hub.tokens[token] = User(owner, frozenset([asked["resource"]]))
        return {"access_token": token, "token_type": "bearer", "expires_in": 3600}


def bad_yaml(message: str) -> Rejected:
    return Rejected(400, "invalid metadata", body={"errors": [{"message": message}], "warnings": []})


def _model(name: str) -> dict[str, Any]:
    return {"_id": name, "id": name, "modelId": name, "private": False, "tags": [], "downloads": 0, "likes": 0}


def _discussion(repo: str, request: PullRequest) -> dict[str, Any]:
    return {
        **{"num": request.number, "title": request.title, "status": request.status, "isPullRequest": True},
        **{"author": {"name": request.author}, "createdAt": EPOCH, "repo": {"name": repo, "type": "model"}},
    }


def _event(comment: Comment) -> dict[str, Any]:
    data = {"edited": comment.edited, "hidden": False, "latest": {"raw": comment.content}}
    return {
        **{"id": comment.id, "type": "comment", "createdAt": EPOCH},
        **{"author": {"name": comment.author}, "data": data},
    }
