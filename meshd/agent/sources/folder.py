"""A folder of manifests as a set of objects: which files are there, what each says, who says it first.

Blocking. Reads only files whose time, size or inode has changed. As long as a file has a problem, it adds and changes
objects but takes none away: a slip of the pen removes nothing from the mesh. A file that had a problem when it was
first seen may say anything: until it can be read the folder is not `whole`, and nothing that an earlier run has
published may be taken for gone. An object that two files define is the first file's, by name.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from identity.claims import Claims
from meshd.agent.objects import KubernetesObject, Ref
from meshd.agent.sources.documents import Content, Problem, parse_file
from meshd.agent.state import Changes

SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(slots=True)
class _File:
    stamp: tuple[int, int, int]
    digest: bytes
    content: Content


class ManifestFolder:
    """`scan` looks at some paths, or at all, and returns what is different now."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, _File] = {}
        self._claims: Claims[Ref, KubernetesObject] = Claims(lambda file: ())
        self._known: dict[Ref, KubernetesObject] = {}
        self._missing: Problem | None = None
        self._unsound: set[str] = set()
        """Files that have had a problem ever since they were first seen: what they would say is not known."""

    def scan(self, paths: Iterable[Path] | None = None) -> Changes:
        """Reads what has changed among these files; without paths, in the whole folder."""
        touched: set[Ref] = set()
        if paths is None:
            if not self.folder.is_dir():
                remedy = "create it: what was read from it is kept"
                self._missing = Problem(str(self.folder), 0, 1, "the folder is gone", remedy)
                return Changes(synced=False)
            self._missing = None
            names = {*self._files, *self._list()}
        else:
            names = {os.path.relpath(path, self.folder) for path in paths}
        for name in sorted(names):
            touched |= self._read(name)
        return self._changes(touched)

    def is_manifest(self, path: Path) -> bool:
        """Whether a path below the folder is a file that would be read."""
        parts = path.relative_to(self.folder).parts
        return path.suffix in SUFFIXES and not any(part.startswith(".") for part in parts)

    def problems(self) -> list[Problem]:
        """Everything that is wrong now."""
        found = [self._missing] if self._missing else []
        for name in sorted(self._files):
            found += self._files[name].content.problems
        for ref, (first, *others) in self._claims.conflicts():
            reason = f"{ref} is defined in {first} already"
            found += [Problem(other, 0, 1, reason, f"remove one: {first} is used") for other in others]
        return found

    def _list(self) -> Iterator[str]:
        for root, directories, files in os.walk(self.folder):
            directories[:] = [each for each in directories if not each.startswith(".")]
            for file in files:
                path = Path(root, file)
                if self.is_manifest(path):
                    yield os.path.relpath(path, self.folder)

    def _read(self, name: str) -> set[Ref]:
        """Takes one file in; returns the objects that it says or said."""
        path = self.folder / name
        before = self._files.get(name)
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if before and before.stamp == stamp:
                return set()
            data = path.read_bytes()
        except FileNotFoundError:
            return self._drop(name)
        except OSError as error:
            content = Content(problems=[Problem(name, 0, 1, f"cannot be read ({error.strerror})", "make it readable")])
            return self._take(name, (0, 0, 0), b"", content)
        digest = hashlib.blake2b(data, digest_size=16).digest()
        if before and before.digest == digest:
            before.stamp = stamp
            return set()
        return self._take(name, stamp, digest, parse_file(name, data))

    def _take(self, name: str, stamp: tuple[int, int, int], digest: bytes, content: Content) -> set[Ref]:
        before = self._files[name].content.objects if name in self._files else {}
        if content.problems:
            content.objects = before | content.objects
            if name not in self._files:
                self._unsound.add(name)
        else:
            self._unsound.discard(name)
        self._files[name] = _File(stamp, digest, content)
        for ref in before.keys() - content.objects.keys():
            self._claims.drop(ref, name)
        for ref, known in content.objects.items():
            self._claims.put(ref, name, known)
        return {*before, *content.objects}

    def _drop(self, name: str) -> set[Ref]:
        gone = self._files.pop(name, None)
        self._unsound.discard(name)
        if gone is None:
            return set()
        for ref in gone.content.objects:
            self._claims.drop(ref, name)
        return set(gone.content.objects)

    def _changes(self, touched: Iterable[Ref]) -> Changes:
        upserts: dict[Ref, KubernetesObject] = {}
        deletes: set[Ref] = set()
        for ref in touched:
            winner = self._claims.winner(ref)
            if winner is None:
                if self._known.pop(ref, None) is not None:
                    deletes.add(ref)
            elif self._known.get(ref) != winner[1]:
                self._known[ref] = upserts[ref] = winner[1]
        return Changes(upserts, deletes, synced=True, whole=not self._unsound)
