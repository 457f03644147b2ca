"""The directory of a collection: its manifest, its checkpoints, and how they come into being.

::

    LOCK                    empty; the one writer holds an flock on it; never replaced
    MANIFEST                what the collection is; without it there is none
    log/                    see `upvec.log`
    checkpoint-<seq>/       the state after commit <seq> (20 digits; "-2" and so on follow if
                            there is another one of the same commit)
    BACKUP.tmp              there is a backup under way, or one that was interrupted
    *.tmp                   unfinished; removed by the next writer

``MANIFEST`` is UTF-8 text: a JSON object, a line feed, and a last line ``crc32 xxxxxxxx`` (hex)
with the CRC-32 of every byte before that line. The object::

    format          1
    collection      the id, 32 hex digits
    extra           what the collection has to know before all else: its schema
    checkpoints     the newest, and the one kept beside it, newest first; each:
        directory       its name
        seq             the commit
        extra           as it was then
        files           name -> [size in bytes, CRC-32 as 8 hex digits]

Everything here changes by one atomic step, with all it needs on the disk before:

- A *collection* exists from the moment when MANIFEST does. A creation that was interrupted leaves
  nothing that is looked at, and is begun again.
- A *checkpoint* counts from the moment when MANIFEST names it. Its files are synced, then its
  directory, which is then renamed, and the parent synced; the log is synced up to its commit; and
  MANIFEST is written beside, synced, and renamed. Only then is anything removed.
- The checkpoint before it stays, with the log after it, until the next one is written: if a file
  of the newest turns out to be damaged, the older one and the log give the same state. Once that
  has happened, the older one is what stays beside the next, and the damaged one goes.

All functions that write require that the caller holds the lock. Thread safety: no state; one
writing call at a time.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import CorruptionError, LockedError
from .log import Log
from .segment import SEGMENT_HEADER_BYTES, segment_name

if TYPE_CHECKING:
    from .codec import Buffer
    from .files import Files

__all__ = [
    "BACKUP",
    "LOCK",
    "LOG",
    "MANIFEST",
    "Checkpoint",
    "Contents",
    "Found",
    "Manifest",
    "Piece",
    "create_collection",
    "find_checkpoint",
    "lock_collection",
    "parse_anyway",
    "read_manifest",
    "remove_leftovers",
    "verify_file",
    "write_checkpoint",
    "write_manifest",
]

FORMAT = 1
MAX_MANIFEST_BYTES = 64 << 20
LOCK, MANIFEST, LOG = "LOCK", "MANIFEST", "log"
# In a backup that is not complete.
BACKUP = "BACKUP.tmp"
_CHECKPOINT = re.compile(r"checkpoint-[0-9]{20}(-[0-9]{1,9})?")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")

# A file is synced as it is written, so that never much is left to be written at once: a sync of
# the log may have to wait for it.
_SYNC_BYTES = 8 << 20

Piece: TypeAlias = "tuple[int, Buffer]"
"""Where in a file, and what to put there. Pieces may come in any order."""
Contents: TypeAlias = "Mapping[str, Iterable[Piece]]"
"""What to put in a checkpoint, by file name."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as the manifest describes it; ``files`` is name -> (bytes, CRC-32)."""

    directory: str
    seq: int
    files: Mapping[str, tuple[int, int]]
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What a collection is. ``checkpoints``: the newest first."""

    collection_id: bytes
    extra: Mapping[str, Any]
    checkpoints: tuple[Checkpoint, ...] = ()

    @property
    def durable_seq(self) -> int:
        """The newest commit of which the manifest proves that it was on the disk."""
        return self.checkpoints[0].seq if self.checkpoints else 0


@dataclass(frozen=True)
class Found:
    """A checkpoint that has been verified.

    Attributes
    ----------
    checkpoint : Checkpoint
    path : str
        Its directory.
    damaged : tuple of str
        What is wrong with newer ones, that were passed over. Tell the user.
    pin : int
        If asked for: a descriptor that keeps writers from removing the directory; else -1.
    """

    checkpoint: Checkpoint
    path: str
    damaged: tuple[str, ...] = ()
    pin: int = -1


# The collection


def lock_collection(root: str, files: Files, *, create: bool = False) -> int:
    """Become the writer of the collection at ``root``; return the descriptor of the lock.

    Parameters
    ----------
    create : bool
        Make the directory if it is absent (its parent must exist).

    Raises
    ------
    LockedError
        If there is a writer already.
    CorruptionError
        If the directory is something else than a collection. Nothing was written.
    FileNotFoundError
        If it is absent, and is not to be made.
    """
    if create and not files.exists(root):
        with suppress(FileExistsError):  # somebody else is about to create it: see who locks it
            files.make_directory(root)
    if not files.exists(os.path.join(root, MANIFEST)):
        _refuse_unless_beginning(root, files)
    try:
        return files.lock(os.path.join(root, LOCK))
    except LockedError:
        raise LockedError(f"another handle is the writer of {root}", path=root) from None


def read_manifest(root: str, files: Files) -> Manifest | None:
    """Read MANIFEST; None if there is no collection yet, at most the beginning of one.

    Raises
    ------
    CorruptionError
        If it is damaged or of a newer version, or absent from a directory that has data, or
        foreign files.
    FileNotFoundError
        If there is no directory.
    """
    path = os.path.join(root, MANIFEST)
    try:
        raw = files.read_all(path, limit_bytes=MAX_MANIFEST_BYTES)
    except FileNotFoundError:
        _refuse_unless_beginning(root, files)
        return None
    except ValueError as error:
        raise _corrupt(path, str(error)) from None
    return _parse_manifest(raw, path)


def create_collection(
    root: str, files: Files, collection_id: bytes, extra: Mapping[str, Any]
) -> Manifest:
    """Make an empty collection in a directory that has none; nothing of it is there before all is.

    Raises
    ------
    CorruptionError
        If the directory has data, or foreign files, or is a collection already.
    """
    if files.exists(os.path.join(root, MANIFEST)):
        raise _corrupt(root, "is a collection already")
    _refuse_foreign(root, files)
    # Also if the directory was there: whoever made it may have died before this, or be the user.
    files.sync_directory(os.path.dirname(root) or ".")
    Log.create(os.path.join(root, LOG), files, collection_id).close()
    manifest = Manifest(collection_id, extra)
    write_manifest(root, files, manifest)
    return manifest


def write_manifest(root: str, files: Files, manifest: Manifest) -> None:
    """Replace MANIFEST, durably: after a crash it is the old one or this one."""
    body = {
        "format": FORMAT,
        "collection": manifest.collection_id.hex(),
        "extra": dict(manifest.extra),
        "checkpoints": [
            {
                "directory": checkpoint.directory,
                "seq": checkpoint.seq,
                "extra": dict(checkpoint.extra),
                "files": {
                    name: [size, f"{checksum:08x}"]
                    for name, (size, checksum) in checkpoint.files.items()
                },
            }
            for checkpoint in manifest.checkpoints
        ],
    }
    text = json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    last_line = f"crc32 {zlib.crc32(text):08x}\n".encode()
    files.replace_contents(os.path.join(root, MANIFEST), [text, last_line])


# Checkpoints


def write_checkpoint(
    root: str,
    files: Files,
    seq: int,
    collection_id: bytes,
    contents: Contents,
    manifest_extra: Mapping[str, Any],
    *,
    log: Log | None = None,
    rests_on: str | None = None,
) -> Manifest:
    """Write the state after commit ``seq`` and make it the one that opening begins with.

    Parameters
    ----------
    contents : mapping
        File name to the pieces of its contents. What their making raises is raised.
    manifest_extra : mapping
        What the manifest is to say from now on; must be JSON.
    log : Log
        Is synced up to ``seq`` before the checkpoint counts, and loses the segments that not even
        the checkpoint which stays beside this one needs.
    rests_on : str
        The directory of the checkpoint that stays beside this one, known to be sound: the state was
        made of it and the log. None: the newest.

    Raises
    ------
    OSError
        The checkpoint was not made, or is not known to have been; the one before it is intact.
        What can be removed of the attempt was removed.
    PoisonedError
        If the log cannot be synced.
    CorruptionError, ValueError
        If this is not the collection of that id, or ``seq`` is before the last checkpoint.
    """
    manifest = read_manifest(root, files)
    if manifest is None or manifest.collection_id != collection_id:
        raise _corrupt(root, f"is not collection {collection_id.hex()}")
    if seq < manifest.durable_seq:
        raise ValueError(f"checkpoint of commit {seq}; there is one of {manifest.durable_seq}")
    for name in contents:
        if not _FILE.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a file in a checkpoint")
    remove_leftovers(root, files, manifest)
    directory = _free_name(root, files, seq)
    path = os.path.join(root, directory)
    try:
        entries = _write_files(path + ".tmp", files, contents)
        files.replace(path + ".tmp", path)
        files.sync_directory(root)
        if log is not None:
            log.flush(seq)
        checkpoint = Checkpoint(directory, seq, entries, manifest_extra)
        kept = (checkpoint, *_beside(manifest, rests_on))
        manifest = replace(manifest, extra=manifest_extra, checkpoints=kept)
        write_manifest(root, files, manifest)
    except BaseException:
        # Above all for a full disk: what failed for want of space must not keep what it took.
        # The manifest may have been replaced by now, but is then not known to stay: so nothing
        # goes that either of the two names.
        with suppress(OSError, CorruptionError):
            _remove_attempt(root, files, directory)
        raise
    remove_leftovers(root, files, manifest)
    if log is not None and len(kept) > 1:
        log.drop_before(kept[-1].seq)
    return manifest


def _beside(manifest: Manifest, rests_on: str | None) -> tuple[Checkpoint, ...]:
    """Return the checkpoint that a new one is not to replace yet, if there is one."""
    known = tuple(one for one in manifest.checkpoints if one.directory == rests_on)
    return known or manifest.checkpoints[:1]


def find_checkpoint(
    root: str,
    files: Files,
    manifest: Manifest,
    *,
    verify: bool = True,
    pin: bool = False,
    until: int | None = None,
) -> Found | None:
    """Return the newest checkpoint that is intact; None if the manifest names none.

    Open the log with ``after_seq=found.checkpoint.seq`` and ``durable_seq=manifest.durable_seq``.

    Parameters
    ----------
    verify : bool
        Compare the checksums; otherwise only names and sizes.
    until : int
        Only those of this commit or earlier ones.
    pin : bool
        Keep writers from removing it until ``Found.pin`` is closed. For readers without the lock.

    Raises
    ------
    CorruptionError
        If none is intact: names the first file that is missing or damaged.
    FileNotFoundError
        With ``pin``: a writer has replaced the manifest meanwhile. Read it again.
    """
    damaged: list[CorruptionError] = []
    for checkpoint in manifest.checkpoints:
        if until is not None and checkpoint.seq > until:
            continue
        path = os.path.join(root, checkpoint.directory)
        descriptor = -1
        try:
            if pin:
                descriptor = _pin(path, files)
            _verify(path, files, checkpoint, checksums=verify)
        except CorruptionError as error:
            if descriptor >= 0:
                files.close(descriptor)
            if pin and read_manifest(root, files) != manifest:
                raise FileNotFoundError(f"{path} was removed by the writer") from None
            damaged.append(error)
        else:
            return Found(checkpoint, path, tuple(str(error) for error in damaged), descriptor)
    if damaged:
        raise damaged[0]
    return None


def remove_leftovers(root: str, files: Files, manifest: Manifest) -> None:
    """Remove what is unfinished or no longer named by the manifest, unless a reader has pinned it.

    Only files of our own kind are touched. Failures to remove are of no consequence.
    """
    kept = {checkpoint.directory for checkpoint in manifest.checkpoints}
    for name in files.list(root):
        path = os.path.join(root, name)
        base = name.removesuffix(".tmp")
        with suppress(OSError, LockedError):
            if name == MANIFEST + ".tmp":
                files.unlink(path)
            elif _CHECKPOINT.fullmatch(base) and name not in kept and files.is_directory(path):
                pin = files.lock(path)
                try:
                    files.remove_tree(path)
                finally:
                    files.close(pin)


def _remove_attempt(root: str, files: Files, directory: str) -> None:
    manifest = read_manifest(root, files)
    if manifest is None or directory in {c.directory for c in manifest.checkpoints}:
        return
    for name in (directory + ".tmp", directory):
        if files.is_directory(path := os.path.join(root, name)):
            files.remove_tree(path)
    if files.exists(path := os.path.join(root, MANIFEST + ".tmp")):
        files.unlink(path)


def _free_name(root: str, files: Files, seq: int) -> str:
    """Return a name for a checkpoint; one of the same commit may be in use, or pinned."""
    name = f"checkpoint-{seq:020}"
    taken = set(files.list(root))
    number = 1
    while (free := name if number == 1 else f"{name}-{number}") in taken or free + ".tmp" in taken:
        number += 1
    return free


def _write_files(path: str, files: Files, contents: Contents) -> dict[str, tuple[int, int]]:
    """Make a directory with these files, all of it synced; return their sizes and checksums."""
    files.make_directory(path)
    entries = {}
    for name, pieces in contents.items():
        fd = files.create(os.path.join(path, name))
        try:
            _write_pieces(files, fd, pieces)
            files.sync(fd)
            entries[name] = _measure(files, fd)
        finally:
            files.close(fd)
    files.sync_directory(path)
    return entries


def _write_pieces(files: Files, fd: int, pieces: Iterable[Piece]) -> None:
    unsynced = 0
    for offset, data in pieces:
        unsynced += files.write(fd, (data,), offset) - offset
        if unsynced >= _SYNC_BYTES:
            files.sync_data(fd)
            unsynced = 0


def _measure(files: Files, fd: int) -> tuple[int, int]:
    """Return the size and the checksum of what is in a file."""
    size = checksum = 0
    for block in files.blocks(fd):
        size += len(block)
        checksum = zlib.crc32(block, checksum)
    return size, checksum


def _pin(path: str, files: Files) -> int:
    try:
        return files.lock(path, shared=True)
    except (FileNotFoundError, LockedError):  # gone, or going
        raise _corrupt(path, "is missing") from None


def _verify(path: str, files: Files, checkpoint: Checkpoint, *, checksums: bool) -> None:
    for name, (size, checksum) in checkpoint.files.items():
        verify_file(os.path.join(path, name), files, size, checksum, checksums=checksums)


def verify_file(path: str, files: Files, size: int, checksum: int, *, checksums: bool) -> None:
    """Compare a file of a checkpoint with what the manifest says of it.

    Raises
    ------
    CorruptionError
    """
    try:
        fd = files.open(path)
    except FileNotFoundError:
        raise _corrupt(path, "is missing from the checkpoint") from None
    try:
        if (found := files.size(fd)) != size:
            raise _corrupt(path, f"has {found} bytes; the manifest says {size}")
        if checksums and _measure(files, fd) != (size, checksum):
            raise _corrupt(path, "does not match the checksum in the manifest")
    finally:
        files.close(fd)


# Reading what may be damaged or foreign


def _refuse_unless_beginning(root: str, files: Files) -> None:
    """Refuse what is foreign, but not what another process is making a collection of just now."""
    try:
        _refuse_foreign(root, files)
    except CorruptionError:
        if not files.exists(os.path.join(root, MANIFEST)):
            raise


def _refuse_foreign(root: str, files: Files) -> None:
    """Check that a directory without MANIFEST holds nothing but an interrupted creation."""
    names = files.list(root)
    if BACKUP in names:
        raise _corrupt(root, "is a backup that was not completed: make it again, to the same place")
    for name in names:
        path = os.path.join(root, name)
        if name in {LOCK, MANIFEST + ".tmp"}:
            continue
        if name == LOG and files.is_directory(path) and not _has_commits(path, files):
            continue
        if name == LOG or _CHECKPOINT.fullmatch(name.removesuffix(".tmp")):
            raise _corrupt(os.path.join(root, MANIFEST), f"is missing, although there is {name}")
        raise _corrupt(root, f"is not a collection: it holds {name!r} and no MANIFEST")


def _has_commits(path: str, files: Files) -> bool:
    """Tell whether a log holds more than an interrupted `create_collection` leaves there."""
    for name in files.list(path):
        if name.removesuffix(".tmp") != segment_name(1):
            return True
        fd = files.open(os.path.join(path, name))
        try:
            if files.size(fd) > SEGMENT_HEADER_BYTES:
                return True
        finally:
            files.close(fd)
    return False


def _parse_manifest(raw: bytes, path: str) -> Manifest:
    end = raw.rfind(b"\n", 0, -1) + 1
    last_line = f"crc32 {zlib.crc32(raw[:end]):08x}\n".encode()
    if raw[end:] != last_line:
        raise _corrupt(path, "does not match its checksum")
    try:
        return _manifest_of(json.loads(raw[:end]), path)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _corrupt(path, f"is not a manifest: {error!r}") from None


def parse_anyway(root: str, files: Files) -> Manifest | None:
    """Return what MANIFEST says, although it may be damaged; None if it says nothing."""
    path = os.path.join(root, MANIFEST)
    try:
        text = files.read_all(path, limit_bytes=MAX_MANIFEST_BYTES).decode()
        return _manifest_of(json.JSONDecoder().raw_decode(text)[0], path)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        CorruptionError,
    ):
        return None


def _manifest_of(body: Any, path: str) -> Manifest:
    version = body["format"]
    if version != FORMAT:
        raise _corrupt(path, f"format version {version}; this build reads {FORMAT}")
    manifest = Manifest(
        bytes.fromhex(body["collection"]),
        dict(body["extra"]),
        tuple(_parse_checkpoint(entry) for entry in body["checkpoints"]),
    )
    if len(manifest.collection_id) != 16:
        raise _corrupt(path, f"the id has {len(manifest.collection_id)} bytes; want 16")
    return manifest


def _parse_checkpoint(entry: dict[str, Any]) -> Checkpoint:
    entries = {}
    for name, (size, checksum) in entry["files"].items():
        if not _FILE.fullmatch(name) or type(size) is not int or size < 0:
            raise ValueError(f"file {name!r} of {size!r} bytes")
        entries[name] = (size, int(checksum, 16))
    if not _CHECKPOINT.fullmatch(entry["directory"]):
        raise ValueError(f"directory {entry['directory']!r}")
    if type(entry["seq"]) is not int or entry["seq"] < 0:
        raise ValueError(f"seq {entry['seq']!r}")
    return Checkpoint(entry["directory"], entry["seq"], entries, dict(entry["extra"]))


def _corrupt(path: str, message: str) -> CorruptionError:
    return CorruptionError(f"{path}: {message}", path=path)
