"""Publish an export to one destination: find an earlier export there, or push this one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hfexport.backends.formats import FORMATS
from hfexport.checkpoint import sha256
from hfexport.checkpoint.local import goes_along
from hfexport.errors import PublishError, ValidationError
from hfexport.hub.client import Hub
from hfexport.hub.publish.answered import Place, difference, published_manifest
from hfexport.hub.publish.card import Metadata, section, updated_card
from hfexport.hub.publish.commit import Moved, Request, commit, operations_of, upload
from hfexport.hub.publish.destination import Base, Destination, created, head_of, look
from hfexport.hub.publish.plan import (
    CARD,
    Change,
    LocalFile,
    Plan,
    changed_paths,
    holds_weights,
    made_files,
    make_plan,
)
from hfexport.hub.publish.pull_request import describe, find_own, marker_of, update_texts
from hfexport.hub.snapshot import BESIDE, HubModel
from hfexport.hub.source import Source, SourceIdentity
from hfexport.manifest.entries import MANIFEST_FILE, source_of
from hfexport.manifest.model import Manifest, PublicationEntry, PublicationState

if TYPE_CHECKING:
    from hfexport.hub.publish.commit import Operations

__all__ = ["Publisher", "open_publisher"]


class Publisher:
    """Publish an export to one destination, and detect changes made there since the run began.

    Args:
        hub: creates a client. It is called again before the push, since tokens of trusted publishers expire.
        destination: repository, branch and mode to publish with.
        source: model that is exported.
        note: called with messages about progress.
        warn: called with a message when a step fails that does not affect the published files.
    """

    def __init__(
        self,
        hub: Callable[[], Hub],
        destination: Destination,
        source: Source,
        note: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self._make_hub = hub
        self._hub = hub()
        if self._hub.offline:
            raise PublishError("HF_HUB_OFFLINE is set, so nothing can be published", remedy="Unset it.")
        self._to = destination
        self._source = source
        self._note = note
        self._warn = warn
        model = source.model
        own = model is not None and model.repository == destination.repository
        self._prefix = f"{model.subfolder}/" if own and model is not None and model.subfolder else ""
        self._base = look(self._hub, destination)
        self._refuse_other_checkpoint()

    def answered(
        self,
        wanted: Manifest,
        deciding: Mapping[str, str],
        source: SourceIdentity,
        base: Callable[[], SourceIdentity | None],
    ) -> Manifest | None:
        """Return the manifest of a published export that already satisfies this request; `None` if there is none.

        Args:
            wanted: new manifest with the requested inputs and the versions that would be used.
            deciding: see `answered.difference`, as for the two below.
            source: description of the model that would be exported.
            base: returns the description of an adapter's base model; called only if an adapter was published.
        """
        for ref, at in self._places(source):
            place = Place(self._hub, self._to.repository, at.commit, at.tree, self._prefix)
            found = published_manifest(place)
            if found is None:
                continue
            reason = difference(found, wanted, deciding, self._as_published(found, source, place), base, place)
            if reason is None:
                number = int(ref.rsplit("/", 1)[-1]) if ref.startswith("refs/pr/") else 0
                self._describe(number, found)
                found["publication"] = self._publication("nothing_to_do", at.commit, number, ())
                return found
            self._note(f"{self._to.repository}, {ref}: holds an export, but {reason}")
        return None

    def publish(self, output: Path, manifest: Manifest) -> PublicationEntry:
        """Push the files of the output folder.

        Args:
            output: folder with the manifest and all files that it lists.
            manifest: manifest in that folder.

        Returns:
            The manifest's `publication`: the changes and their URLs.

        Raises:
            PublishError: the push failed; the destination is unchanged.
        """
        self._hub = self._make_hub()
        marker = marker_of(source_of(manifest)["hub"])
        with tempfile.TemporaryDirectory(prefix="hfexport-") as folder:
            number, base = self._target(marker)
            for last_try in (False, True):
                plan = self._plan(output, manifest, base, Path(folder))
                if self._to.dry_run:
                    return self._tell(plan, base, manifest)
                if not plan.changes:
                    self._describe(number, manifest)
                    return self._publication("nothing_to_do", base.commit, number, ())
                operations = operations_of(plan)
                if base.repository_exists and not base.commit:
                    # Upload large files before the branch is created, so that it lacks its commit only for a moment.
                    upload(self._hub, self._to.repository, self._start or "main", operations)
                try:
                    with created(self._hub, self._to, base, self._start, self._note) as base:
                        return self._commit(plan, operations, base, number, manifest, marker)
                except Moved:
                    base = self._moved(base, plan, manifest, last_try=last_try)
        raise AssertionError("unreachable")

    def _refuse_other_checkpoint(self) -> None:
        """Raise an error if a model's own repository has another checkpoint on the branch than the exported one."""
        model = self._source.model
        if model is None or model.repository != self._to.repository or self._base.commit in ("", model.commit):
            return
        exported = self._hub.files(model.repository, model.commit)
        if other := self._read_by_export(changed_paths(exported, self._base.tree)):
            raise PublishError(
                f"{model.repository}: {self._to.branch} has another {', '.join(other[:5])} than commit "
                f"{model.commit[:12]}, which is exported",
                remedy=f"Export the revision {self._to.branch}, or publish to a branch of that commit.",
            )

    def _as_published(self, found: Manifest, source: SourceIdentity, place: Place) -> SourceIdentity:
        """Return `source` at the commit of a published export, if no file that an export reads has changed since.

        Pushing to the model's own repository creates such a commit. Beside an adapter, the push adds files that an
        export would otherwise read from the adapter's base.
        """
        model = self._source.model
        try:
            hub = source_of(found)["hub"]
            before = HubModel(**hub) if hub is not None else None
        except (KeyError, TypeError, ValidationError):
            return source
        if model is None or before is None or model.repository != self._to.repository or model.commit == before.commit:
            return source
        if (model.repository, model.subfolder) != (before.repository, before.subfolder):
            return source
        try:
            then, now = (self._hub.files(model.repository, one.commit) for one in (before, model))
        except PublishError:
            return source  # the old commit is gone: history was rewritten
        listed = {place.prefix + file["path"] for file in found["files"]} - then.keys()
        ours = {path for path in listed & now.keys() & place.tree.keys() if now[path] == place.tree[path]}
        changed = changed_paths(then, now) - ours
        return source if self._read_by_export(changed) else {"hub": before.to_dict()}

    def _read_by_export(self, paths: Iterable[str]) -> list[str]:
        """Return those of `paths` that belong to the checkpoint: config, tokenizer and weights."""
        names = {path: path.removeprefix(self._prefix) for path in paths if path.startswith(self._prefix)}
        return sorted(
            path
            for path, name in names.items()
            if goes_along(name) or name in BESIDE or holds_weights([path], self._prefix)
        )

    def _places(self, source: SourceIdentity) -> list[tuple[str, Base]]:
        """List the refs that may hold a published export: the branch, and our open pull request against it."""
        base = self._base
        places = [(base.ref, base)] if base.commit else []
        if self._to.create_pr:
            number, own = self._target(marker_of(source["hub"]))
            places += [(own.ref, own)] if number else []
        return places

    def _target(self, marker: str) -> tuple[int, Base]:
        """Return the ref to commit to: the branch, or our open pull request for this source (its number; 0 if none)."""
        if not self._to.create_pr:
            return 0, self._base
        number = find_own(self._hub, self._to.repository, self._to.branch, marker)
        if number is None:
            return 0, self._base
        return number, head_of(self._hub, self._to.repository, f"refs/pr/{number}")

    def _plan(self, output: Path, manifest: Manifest, base: Base, folder: Path) -> Plan:
        """Plan the changes on top of `base`. The updated model card is written into `folder`."""
        files = made_files(manifest, output, self._prefix)
        path = output / MANIFEST_FILE
        files.append(LocalFile(self._prefix + MANIFEST_FILE, path, path.stat().st_size, sha256(path)))
        files.append(self._card(manifest, base, folder))
        self._refuse_other_weights(manifest, base)
        earlier = published_manifest(Place(self._hub, self._to.repository, base.commit, base.tree, self._prefix))
        where = f"{self._to.repository}, {base.ref}"
        return make_plan(files, base.tree, earlier=earlier, prefix=self._prefix, place=where)

    def _refuse_other_weights(self, manifest: Manifest, base: Base) -> None:
        """Raise an error if the repository holds other weights under the same file name."""
        other = [
            file["path"]
            for file in source_of(manifest)["files"]
            if (entry := base.tree.get(self._prefix + file["path"])) is not None
            and entry.sha256 not in (None, file["sha256"])
        ]
        if other:
            raise PublishError(
                f"{self._to.repository}, {base.ref}: holds another {other[0]} than the one that was exported",
                remedy="Publish to this checkpoint's own repository, or to a new one; nothing was changed.",
            )

    def _card(self, manifest: Manifest, base: Base, folder: Path) -> LocalFile:
        to = self._to.repository
        present = b""
        if CARD in base.tree:
            present = (self._hub.download(to, base.commit, [CARD]) / CARD).read_bytes()
        try:
            card = present.decode()
        except UnicodeDecodeError as error:
            raise PublishError(f"{to}: {CARD} is not UTF-8", remedy="Save it as UTF-8.") from error
        text = updated_card(card, section(manifest, to, self._prefix), self._metadata(manifest, base))
        path = folder / CARD
        path.write_bytes(text.encode())
        return LocalFile(CARD, path, path.stat().st_size, sha256(path))

    def _metadata(self, manifest: Manifest, base: Base) -> Metadata:
        formats = [artifact["format"] for artifact in manifest["artifacts"]]
        tags = tuple(dict.fromkeys([*formats, "hfexport"]))
        model = self._source.model
        if holds_weights(base.tree, self._prefix):
            return Metadata(tags, "transformers")
        other = model.repository if model is not None and model.repository != self._to.repository else ""
        return Metadata(tags, "onnx" if "onnx" in formats else "", other)

    @property
    def _start(self) -> str | None:
        """The commit that a new branch starts from: the exported commit, or `None` for the head of `main`."""
        model = self._source.model
        return model.commit if model is not None and model.repository == self._to.repository else None

    def _commit(
        self, plan: Plan, operations: Operations, base: Base, number: int, manifest: Manifest, marker: str
    ) -> PublicationEntry:
        to = self._to
        opens = to.create_pr and not number
        message = self._message(manifest)
        description = _description(manifest)
        if opens:
            description = describe(manifest, to.repository, self._prefix, 0, marker)
        request = Request(to.repository, base.ref, base.commit, plan, operations, message, description, opens, marker)
        made = commit(self._hub, request)
        number = number or made.pull_request
        self._describe(number, manifest)
        return self._publication("pull_request" if number else "committed", made.oid, number, plan.changes)

    def _describe(self, number: int, manifest: Manifest) -> None:
        """Update the title and description of a pull request. Its number is known only after it was opened."""
        if number and not self._to.dry_run:
            text = describe(manifest, self._to.repository, self._prefix, number, marker_of(source_of(manifest)["hub"]))
            try:
                update_texts(self._hub, self._to.repository, number, self._message(manifest), text)
            except PublishError as error:  # the commit is complete, so this failure is only a warning
                self._warn(
                    f"the title and the description of pull request {number} could not be updated: {error.message}"
                )

    def _message(self, manifest: Manifest) -> str:
        """Return the commit's first line, which is also the pull request's title."""
        if self._to.message:
            return self._to.message
        made = [FORMATS[artifact["format"]].label for artifact in manifest["artifacts"]]
        listed = " and ".join(filter(None, (", ".join(made[:-1]), made[-1])))
        return f"Add {listed} exports"

    def _moved(self, base: Base, plan: Plan, manifest: Manifest, *, last_try: bool) -> Base:
        """Return the new head of the branch if the commits since `base` changed only unrelated files."""
        now = head_of(self._hub, self._to.repository, base.ref)
        changed = changed_paths(base.tree, now.tree)
        related = {change.path for change in plan.changes} | {file.path for file in plan.unchanged}
        related |= {self._prefix + file["path"] for file in source_of(manifest)["files"]}
        related -= {CARD}  # the push keeps everything in the card except its own section
        conflicts = sorted(changed & related)
        if conflicts or last_try:
            what = f"changed {', '.join(conflicts[:5])}" if conflicts else "moved again"
            raise PublishError(
                f"{self._to.repository}: {base.ref} {what} while this ran ({base.commit[:12]} to {now.commit[:12]})",
                remedy="Run it again; nothing was changed.",
            )
        self._note(
            f"{self._to.repository}: {base.ref} moved, but only in {', '.join(sorted(changed)[:5])}; commits again"
        )
        return now

    def _tell(self, plan: Plan, base: Base, manifest: Manifest) -> PublicationEntry:
        """Report what a push would do."""
        to = self._to
        how = f"a pull request against {to.branch}" if to.create_pr else f"one commit to {to.branch}"
        how = f"one more commit to {base.ref}" if base.ref.startswith("refs/pr/") else how
        self._note(f"dry run: {to.repository} would get {how}, {self._message(manifest)!r}:")
        if not base.repository_exists:
            self._note(f"  create   the repository{', private' if to.private else ''}")
        if not base.commit and to.branch != "main":
            self._note(f"  create   the branch {to.branch}")
        for change in plan.changes:
            size = "" if change.file is None else f"  {change.file.size_bytes} bytes, sha256 {change.file.sha256}"
            self._note(f"  {change.operation:<7}  {change.path}{size}")
        for file in plan.unchanged:
            self._note(f"  keep     {file.path}")
        return self._publication("dry_run", "", 0, plan.changes)

    def _publication(
        self, state: PublicationState, commit_id: str, number: int, changes: tuple[Change, ...]
    ) -> PublicationEntry:
        url = f"{self._hub.endpoint}/{self._to.repository}"
        return {
            "state": state,
            "repository": self._to.repository,
            "branch": self._to.branch,
            "commit": commit_id or None,
            "commit_url": f"{url}/commit/{commit_id}" if commit_id else None,
            "pull_request_url": f"{url}/discussions/{number}" if number else None,
            "operations": [change.to_dict() for change in changes],
        }


def open_publisher(
    hub: Callable[[], Hub],
    destination: Destination,
    source: Source,
    note: Callable[[str], None],
    warn: Callable[[str], None] | None = None,
) -> Publisher:
    """Check the destination before the export starts, and return a publisher for it.

    Raises:
        PublishError: the destination cannot be published to; the message says why.
    """
    return Publisher(hub, destination, source, note, warn or note)


def _description(manifest: Manifest) -> str:
    hub = source_of(manifest)["hub"]
    made_from = f"of {hub['repository']} at {hub['commit']}" if hub else "of a checkpoint folder"
    verdict = manifest["verdict"].replace("_", " ")
    return f"Made by hfexport {manifest['producer']['version']}, {made_from}; verdict: {verdict}. See {MANIFEST_FILE}."
