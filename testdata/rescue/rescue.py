#!/usr/bin/env python3
"""Restore a Lifeboat backup and its WAL with nothing of Lifeboat's.

    rescue.py REPOSITORY KEYFILE OUT [LABEL]

REPOSITORY  a directory that holds the repository (a bucket, copied to disk)
KEYFILE     the recovery key, or any age identity file the data is sealed to
OUT         a directory to make: OUT/data, OUT/tablespaces/<oid>, OUT/wal
LABEL       which backup; the newest if not given

It needs Python 3.7, and the tools age (1.3 or later for keys that begin with
AGE-SECRET-KEY-PQ-) and zstd. With openssl 3 it checks the signatures as well;
without, it says so. Every byte is compared with the sums that are signed.
repo/FORMAT.md describes what it reads.
"""
import array
import base64
import functools
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

# What a reader takes at most; see "Limits" in repo/FORMAT.md. Who has taken a cluster's
# key signs whatever they like.
MAX_WAL = 1 << 30
MAX_INFO, MAX_FILE, MAX_PACK = 2 << 20, 8 << 20, 32 << 20  # bytes of a record
MAX_FILES, MAX_FRAMES, MAX_RAW = 3500000, 4096, 1 << 20


def fail(text):
    sys.exit("rescue: " + text)


def run(command, data):
    done = subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise ValueError(command[0] + ": " + done.stderr.decode(errors="replace").strip())
    return done.stdout


def unzstd(data, size, sink):
    """Writes what data decompresses to into sink, which must be size bytes, and returns their
    SHA-256. It stops where there are more."""
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as errors:
        source.write(data)
        source.seek(0)
        tool = subprocess.Popen(["zstd", "-d", "-q", "-c", "-M8MiB"], stdin=source, stdout=subprocess.PIPE, stderr=errors)
        total, digest = 0, hashlib.sha256()
        while total <= size:
            piece = tool.stdout.read(min(1 << 20, size + 1 - total))
            if not piece:
                break
            total += len(piece)
            digest.update(piece)
            if total <= size:
                sink.write(piece)
        tool.stdout.close()
        if total > size:
            tool.kill()
        if tool.wait() != 0 and total <= size:
            errors.seek(0)
            raise ValueError("zstd: " + errors.read(1000).decode(errors="replace").strip())
        if total != size:
            raise ValueError("the plain bytes are not the signed ones: there are %s than %d" % ("more" if total > size else "fewer", size))
        return digest.hexdigest()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def unbase64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Repository:
    def __init__(self, root, keyfile):
        self.root, self.keyfile = root, keyfile
        with open(keyfile) as f:
            self.signers = re.findall(r"^# lifeboat-signer: ed25519:(\S+)\s*$", f.read(), re.M)
        self.verify = bool(self.signers) and shutil.which("openssl") is not None
        if not self.verify:
            print("rescue: SIGNATURES ARE NOT CHECKED: %s" % (
                "openssl is missing" if self.signers else "the key file names no signer"), file=sys.stderr)
        text = self.read("lifeboat.json")
        outer = json.loads(text)
        # What is signed is the text of the marker as it stands there.
        marker = text[text.index(b'{"marker":') + len(b'{"marker":'):text.rindex(b',"signature":')]
        self.check_signature("lifeboat.json", b"lifeboat-marker-1\n" + marker, outer["signature"])
        self.marker = outer["marker"]
        self.follow_signers()
        if self.marker["format"] != 1:
            fail("this script knows format 1, the repository has %s" % self.marker["format"])

    def follow_signers(self):
        """Trusts also those whom a trusted signer has added. It does not look at
        retirements: whoever uses this script wants the bytes."""
        for key in self.list("keys"):
            text = self.read(key)
            try:
                outer = json.loads(text)
                statement = text[text.index(b'{"statement":') + len(b'{"statement":'):text.rindex(b',"signature":')]
                said = outer["statement"]
                known = said["signer"].replace("ed25519:", "") in self.signers
            except (ValueError, KeyError, TypeError):
                continue  # junk
            if not known or "adds" not in said or said["repository"] != self.marker["repository"]:
                continue
            if self.signed_by_known(b"lifeboat-keys-1\n" + statement, outer["signature"]):
                self.signers.append(said["adds"].replace("ed25519:", ""))

    def exists(self, key):
        return os.path.exists(os.path.join(self.root, *key.split("/")))

    def read(self, key):
        with open(os.path.join(self.root, *key.split("/")), "rb") as f:
            return f.read()

    def list(self, prefix):
        top = os.path.join(self.root, prefix)
        return sorted(os.path.relpath(os.path.join(d, n), self.root).replace(os.sep, "/")
                      for d, _, names in os.walk(top) for n in names)

    def check_signature(self, key, message, signature):
        """Accepts what any signer that the key file trusts has signed."""
        if self.verify and not self.signed_by_known(message, signature):
            fail("%s is not signed by a key that %s trusts" % (key, self.keyfile))

    def signed_by_known(self, message, signature):
        if not self.verify:
            return True
        with tempfile.TemporaryDirectory() as tmp:
            def put(name, data):
                with open(os.path.join(tmp, name), "wb") as f:
                    f.write(data)
                return os.path.join(tmp, name)
            message, signature = put("message", message), put("signature", unbase64(signature))
            for signer in self.signers:
                der = bytes.fromhex("302a300506032b6570032100") + unbase64(signer)
                done = subprocess.run(
                    ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", put("key", der),
                     "-rawin", "-in", message, "-sigfile", signature],
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                if done.returncode == 0:
                    return True
        return False

    def age(self, sealed):
        return run(["age", "--decrypt", "--identity", self.keyfile], sealed)

    def envelope(self, key, kind, sink, most=1 << 40):
        """Writes the plain bytes of any object that is not a pack into sink."""
        if not self.exists(key) and self.exists(key + ".next"):
            key += ".next"  # it was just being sealed again
        data = self.read(key)
        line, _, sealed = data.partition(b"\n")
        if not re.fullmatch(rb"lifeboat/1 kind=[a-z0-9]+ sha256=[0-9a-f]{64} size=[0-9]+ sealed=[0-9a-f]{64} "
                            rb"host=[A-Za-z0-9._-]+ signer=[0-9a-f]{16} sig=[A-Za-z0-9_-]+", line):
            fail("%s has no header line" % key)
        unsigned, _, signature = line.decode().rpartition(" sig=")
        head = dict(field.split("=", 1) for field in unsigned.split(" ")[1:])
        message = "lifeboat-envelope-1\n%s\n%s\n%s\n" % (self.marker["repository"], key, unsigned)
        self.check_signature(key, message.encode(), signature)
        if head["kind"] != kind:
            fail("%s is of kind %s, not %s" % (key, head["kind"], kind))
        if sha256(sealed) != head["sealed"]:
            fail("%s: the sealed bytes are not the signed ones" % key)
        if int(head["size"]) > most:
            fail("%s is said to hold %s bytes" % (key, head["size"]))
        if unzstd(self.age(sealed), int(head["size"]), sink) != head["sha256"]:
            fail("%s: the plain bytes are not the signed ones" % key)
        return sink

    def pack(self, entry):
        """The frames of a pack, one after another, not decompressed yet."""
        key = "packs/" + entry["pack"]
        sealed = self.read(key)
        if sha256(sealed) != entry["pack"] or len(sealed) != entry["size"]:
            fail("%s is damaged: its bytes are not those of its name" % key)
        return self.age(sealed)


def path_of(record):
    """The path in a file record, as bytes: a name need not be UTF-8."""
    path = bytes.fromhex(record["path_hex"]) if "path_hex" in record else record["path"].encode()
    parts = path.split(b"/")
    if b"" in parts or b"." in parts or b".." in parts or b"\0" in path:
        fail("the path %r leads out of the directory" % path)
    if path.startswith(b"pg_tblspc/") and not re.fullmatch(rb"[1-9][0-9]{0,9}(/PG_[1-9][0-9]*_[1-9][0-9]*(/.*)?)?", path[10:], re.DOTALL):
        fail("the path %r is none that a tablespace has" % path)
    return path


class Manifest:
    """The records of a manifest, in a file. All of them are checked before anything is
    written; of each file record only where it stands and its size are held."""

    def __init__(self, repo, label):
        self.file = repo.envelope("backups/%s/manifest" % label, "manifest", tempfile.TemporaryFile())
        self.file.seek(0)
        self.info = self.record(MAX_INFO)
        if self.info["format"] != 1:
            fail("this script knows format 1, the manifest is of format %r" % self.info["format"])
        if self.info["label"] != label or self.info["repository"] != repo.marker["repository"]:
            fail("the manifest is of another backup")
        if not 0 <= self.info["files"] <= MAX_FILES:
            fail("the manifest has %d files" % self.info["files"])
        self.spaces = {b"%d" % space["oid"] for space in self.info.get("tablespaces", [])}
        self.at, self.size, self.filled = array.array("Q"), array.array("q"), array.array("Q")
        self.check_files()
        self.packs_at = self.file.tell()
        self.check_packs()

    def record(self, most):
        line = self.file.readline(most + 1)
        if len(line) > most or not line.endswith(b"\n"):
            fail("a record of the manifest is too long, or cut off")
        return json.loads(line)

    def check_files(self):
        seen = set()
        for _ in range(self.info["files"]):
            self.at.append(self.file.tell())
            record = self.record(MAX_FILE)
            path, mode, size = path_of(record), record["mode"], record.get("size", 0)
            if record["type"] not in ("file", "dir"):
                fail("a file record of type %r" % record["type"])
            if path.startswith(b"pg_tblspc/") and path.split(b"/")[1] not in self.spaces:
                fail("the path %r is in no tablespace of the backup" % path)
            if not 0 <= mode <= 0o777 or not 0 <= size < 1 << 63 or record["type"] == "dir" and size:
                fail("%r has mode %o and size %d" % (path, mode, size))
            if hash(path) in seen:
                fail("%r is there twice" % path)
            seen.add(hash(path))
            self.size.append(size if record["type"] == "file" else -1)
        self.filled.extend([0] * len(self.size))

    def check_packs(self):
        """The spans must fill each byte once: what their ends and begins leave, as hashes, is
        the end and the begin of the file."""
        salt = os.urandom(8)

        def point(off):
            return hash((salt, off)) & 0xFFFFFFFFFFFFFFFF
        for entry in self.packs():
            if not re.fullmatch("[0-9a-f]{64}", entry["pack"]) or not 1 <= len(entry["frames"]) <= MAX_FRAMES:
                fail("a pack record is not valid")
            for frame in entry["frames"]:
                if not 0 < frame["raw"] <= MAX_RAW or frame["at"] < 0 or not 0 < frame["len"] <= MAX_RAW + 1024:
                    fail("pack %s: the frame at %d is not valid" % (entry["pack"], frame["at"]))
                for number, off, at, length in frame["to"]:
                    if not 0 <= number < len(self.size) or length <= 0 or off < 0 or off + length > self.size[number] or at < 0 or at + length > frame["raw"]:
                        fail("pack %s: a span of the frame at %d fits no file" % (entry["pack"], frame["at"]))
                    self.filled[number] = (self.filled[number] + point(off + length) - point(off)) & 0xFFFFFFFFFFFFFFFF
        end = self.record(MAX_INFO)
        if not end.get("end") or end["files"] != self.info["files"] or end["packs"] != self.info["packs"] or self.file.read(1):
            fail("the manifest is not complete")
        for number, size in enumerate(self.size):
            if self.filled[number] != (point(max(size, 0)) - point(0)) & 0xFFFFFFFFFFFFFFFF:
                fail("%r is not whole: packs do not fill each of its %d bytes once" % (self.path(number), size))

    def files(self):
        for at in self.at:
            self.file.seek(at)
            record = self.record(MAX_FILE)
            yield path_of(record), record

    def packs(self):
        self.file.seek(self.packs_at)
        for _ in range(self.info["packs"]):
            entry = self.record(MAX_PACK)
            at = self.file.tell()
            yield entry
            self.file.seek(at)

    @functools.lru_cache(maxsize=4096)
    def path(self, number):
        self.file.seek(self.at[number])
        return path_of(self.record(MAX_FILE))


def restore(repo, label, out):
    manifest = Manifest(repo, label)
    info = manifest.info
    data = os.path.join(out, "data").encode()
    os.mkdir(data, 0o700)
    os.mkdir(os.path.join(data, b"pg_tblspc"), 0o700)
    for space in info.get("tablespaces", []):
        if not space.get("in_place"):
            directory = os.path.abspath(os.path.join(out, "tablespaces", "%d" % space["oid"])).encode()
            os.makedirs(directory, 0o700)
            os.symlink(directory, os.path.join(data, b"pg_tblspc", b"%d" % space["oid"]))
    for path, record in manifest.files():
        path = os.path.join(data, path)
        if record["type"] == "dir":
            os.makedirs(path, 0o700, exist_ok=True)
            continue
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        with open(path, "xb") as f:
            f.truncate(record.get("size", 0))
        os.chmod(path, record["mode"] & ~0o002)
    for entry in manifest.packs():
        stored = repo.pack(entry)
        for frame in entry["frames"]:
            piece = stored[frame["at"]:frame["at"] + frame["len"]]
            if hashlib.sha256(piece).hexdigest()[:32] != frame["sum"]:
                fail("pack %s: the frame at %d is not the signed one" % (entry["pack"], frame["at"]))
            raw = io.BytesIO()
            unzstd(piece, frame["raw"], raw)
            raw = raw.getvalue()
            for number, off, at, length in frame["to"]:
                with open(os.path.join(data, manifest.path(number)), "r+b") as f:
                    f.seek(off)
                    f.write(raw[at:at + length])
    # No tablespace_map: it would make PostgreSQL link the tablespaces to where
    # they were. They are linked to OUT/tablespaces above instead.
    with open(os.path.join(data, b"backup_label"), "x") as f:
        f.write(info["backup_label"])
    return info


def rescue_wal(repo, system, out):
    directory = os.path.join(out, "wal")
    os.mkdir(directory, 0o700)
    count = 0
    slices = {}
    for key in repo.list("wal/%s" % system):
        name = key.split("/")[-1]
        part = re.fullmatch(r".*/([0-9A-F]{24})\.d/([0-9A-F]{8})-([0-9A-F]{8})", key)
        if part:
            slices.setdefault(part[1], []).append((int(part[2], 16), int(part[3], 16), key))
        if key.count("/") != 3 or not re.fullmatch(r"[0-9A-F]{8}\.history|[0-9A-F]{24}(\.partial|\.[0-9A-F]{8}\.backup)?", name):
            continue
        with open(os.path.join(directory, name), "xb") as f:
            repo.envelope(key, "wal", f, MAX_WAL)
        count += 1
    for name, parts in slices.items():
        if not os.path.exists(os.path.join(directory, name)):
            count += rescue_slices(repo, directory, name, parts)
    return count


def rescue_slices(repo, directory, name, parts):
    """Puts a segment together that was never complete; zeros follow what there is."""
    data = b""
    for begin, end, key in sorted(parts):
        if begin > len(data):
            break  # a hole: what comes after it is of no use
        if end > len(data):
            data += repo.envelope(key, "wal", io.BytesIO(), MAX_WAL).getvalue()[len(data) - begin:]
    if len(data) < 40:
        return 0
    size = int.from_bytes(data[32:36], "little")  # xlp_seg_size of its first page
    if not len(data) <= size <= MAX_WAL:
        fail("the segment %s is said to have %d bytes" % (name, size))
    with open(os.path.join(directory, name), "xb") as f:
        f.write(data + bytes(size - len(data)))
    return 1


def main(arguments):
    if len(arguments) not in (3, 4):
        fail("usage: rescue.py REPOSITORY KEYFILE OUT [LABEL]")
    root, keyfile, out = arguments[:3]
    for tool in ("age", "zstd"):
        if shutil.which(tool) is None:
            fail("the tool %s is missing" % tool)
    repo = Repository(root, keyfile)
    labels = [k.split("/")[1] for k in repo.list("backups") if re.fullmatch(r"backups/[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}/manifest(\.next)?", k)]
    if not labels:
        fail("there is no backup")
    label = arguments[3] if len(arguments) == 4 else labels[-1]
    if label not in labels:
        fail("there is no backup %s, but %s" % (label, " ".join(labels)))
    os.mkdir(out, 0o700)
    info = restore(repo, label, out)
    count = rescue_wal(repo, info["system"], out)
    wal = os.path.abspath(os.path.join(out, "wal"))
    print("Backup %s of cluster %s (PostgreSQL %d, timeline %d) is in %s/data, %d WAL files in %s." % (
        label, info["cluster"], info["pg_version"] // 10000, info["timeline"], out, count, wal))
    print("To recover: own the directory as the user postgres, add to data/postgresql.auto.conf\n"
          "    restore_command = 'cp \"%s/%%f\" \"%%p\"'\n    archive_mode = off\n"
          "make the empty file data/recovery.signal, and start PostgreSQL." % wal)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as e:
        fail("%s: %s" % (type(e).__name__, e))
