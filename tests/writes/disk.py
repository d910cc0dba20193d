"""What may be on a disk after a power loss, given the operations that a program made before it.

Data that was not synced may be gone: all of a file's, half of it, or none. A change of a folder's entries may be
missing until that folder is synced, whatever the order in which changes were made; but a rename is done or not. A file
system may do better; this is the least that POSIX promises.
"""

import itertools
import os
from dataclasses import dataclass


@dataclass(eq=False)
class Node:
    """A file or a folder."""

    name: str
    entries: dict | None = None  # of a folder: those that are on the disk
    seen: dict | None = None  # and those that programs see
    size: int = 0
    durable: int = 0


@dataclass(eq=False)
class Change:
    """Entries that change together: (folder, name, node or nothing)."""

    entries: list


class Disk:
    """Everything below a folder, as it is on the disk and as it is seen."""

    def __init__(self, root):
        self.root_path = str(root)
        self.root = self.read(root)
        self.changes = []

    def read(self, path):
        if not os.path.isdir(path):
            size = os.path.getsize(path)
            return Node(str(path), size=size, durable=size)
        entries = {name: self.read(os.path.join(path, name)) for name in os.listdir(path)}
        return Node(str(path), entries=entries, seen=dict(entries))

    def find(self, path):
        """The folder that holds `path`, its name in there, and what it is, as programs see it."""
        relative = os.path.relpath(path, self.root_path)
        if relative == ".":
            return None, "", self.root
        *above, name = relative.split("/")
        folder = self.root
        for part in above:
            folder = folder.seen[part]
        return folder, name, folder.seen.get(name)

    def change(self, *entries):
        for folder, name, node in entries:
            if node is None:
                folder.seen.pop(name, None)
            else:
                folder.seen[name] = node
        self.changes.append(Change(list(entries)))

    def do(self, operation):
        folder, name, node = self.find(operation.paths[0])
        match operation.kind:
            case "create" if node is None:
                made = {"entries": {}, "seen": {}} if operation.directory else {}
                self.change((folder, name, Node(operation.paths[0], **made)))
            case "write":
                node.size += operation.size
            case "sync" if node.entries is None:
                node.durable = node.size
            case "sync":
                self.sync(node)
            case "remove":
                self.change((folder, name, None))
            case "link":
                to, new, _ = self.find(operation.paths[1])
                self.change((to, new, node))
            case "rename":
                to, new, other = self.find(operation.paths[1])
                self.change((folder, name, other if operation.exchange else None), (to, new, node))

    def sync(self, folder):
        """Puts the changes of a folder's entries on the disk."""
        synced = [change for change in self.changes if any(entry[0] is folder for entry in change.entries)]
        for change in synced:
            apply(change, lambda place: place.entries)
        self.changes = [change for change in self.changes if change not in synced]

    def files(self):
        """The files that programs see, by path."""
        found = {}

        def walk(folder, path):
            for name, node in folder.seen.items():
                if node.entries is None:
                    found[path + name] = node
                else:
                    walk(node, f"{path}{name}/")

        walk(self.root, "")
        return found

    def losses(self):
        """Trees that may be found after a power loss now: which changes are there, and how much of unsynced data."""
        for kept in some(self.changes):
            for part in (0, 0.5, 1):
                yield self.tree(kept, part)

    def tree(self, kept, part):
        """Paths below the root, each with a file and the size of what is left of it, or nothing for a folder."""
        entries = {}

        def of(folder):
            return entries.setdefault(folder, dict(folder.entries))

        for change in kept:
            apply(change, of)
        found = {}

        def walk(folder, path):
            for name, node in of(folder).items():
                if node.entries is None:
                    size = node.durable + int(part * (node.size - node.durable))
                    found[path + name] = (node, size)
                else:
                    found[path + name] = None
                    walk(node, f"{path}{name}/")

        walk(self.root, "")
        return found


def apply(change, entries_of):
    for folder, name, node in change.entries:
        if node is None:
            entries_of(folder).pop(name, None)
        else:
            entries_of(folder)[name] = node


def some(changes):
    """None of the changes, all, each alone, all but each, and all up to and from each on; all subsets of a few."""
    if len(changes) <= 6:
        for count in range(len(changes) + 1):
            yield from itertools.combinations(changes, count)
        return
    yield from ([], changes)
    for at, one in enumerate(changes):
        yield [one]
        yield changes[:at] + changes[at + 1:]
        yield changes[:at]
        yield changes[at:]
