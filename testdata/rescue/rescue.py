#!/usr/bin/env python3
"""Restore a Lifeboat backup and its WAL with nothing of Lifeboat's.

    rescue.py REPOSITORY KEYFILE OUT [LABEL]

REPOSITORY  a folder that holds the repository (a bucket, copied to disk)
KEYFILE     the recovery key, or any age identity file the data is sealed to
OUT         a folder to make: OUT/data, OUT/tablespaces/<oid>, OUT/wal
LABEL       which backup; the newest if not given

It needs Python 3.7, and the tools age (1.3 or later for keys that begin with
AGE-SECRET-KEY-PQ-) and zstd. With openssl 3 it checks the signatures as well;
without, it says so. Every byte is compared with the sums that are signed.
repo/FORMAT.md describes what it reads.
"""
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile


def fail(text):
    sys.exit("rescue: " + text)


def run(command, data):
    done = subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise ValueError(command[0] + ": " + done.stderr.decode(errors="replace").strip())
    return done.stdout


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

    def envelope(self, key, kind):
        """The plain bytes of any object that is not a pack."""
        if not self.exists(key) and self.exists(key + ".next"):
            key += ".next"  # it was just being sealed anew
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
        plain = run(["zstd", "-d", "-q", "-c"], self.age(sealed))
        if sha256(plain) != head["sha256"] or len(plain) != int(head["size"]):
            fail("%s: the plain bytes are not the signed ones" % key)
        return plain

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
        fail("the path %r leads out of the folder" % path)
    if path.startswith(b"pg_tblspc/") and not re.fullmatch(rb"[1-9][0-9]{0,9}(/PG_[1-9][0-9]*_[1-9][0-9]*(/.*)?)?", path[10:], re.DOTALL):
        fail("the path %r is none that a tablespace has" % path)
    return path


def restore(repo, label, out):
    lines = repo.envelope("backups/%s/manifest" % label, "manifest").decode().split("\n")
    info = json.loads(lines[0])
    if info["label"] != label or info["repository"] != repo.marker["repository"]:
        fail("the manifest is of another backup")
    end = json.loads(lines[1 + info["files"] + info["packs"]])
    if not end.get("end") or len(lines) != info["files"] + info["packs"] + 3:
        fail("the manifest is not complete")
    data = os.path.join(out, "data").encode()
    os.mkdir(data, 0o700)
    os.mkdir(os.path.join(data, b"pg_tblspc"), 0o700)
    for space in info.get("tablespaces", []):
        if not space.get("in_place"):
            folder = os.path.abspath(os.path.join(out, "tablespaces", str(space["oid"]))).encode()
            os.makedirs(folder, 0o700)
            os.symlink(folder, os.path.join(data, b"pg_tblspc", str(space["oid"]).encode()))
    files, filled = [], []
    for record in map(json.loads, lines[1:1 + info["files"]]):
        path = os.path.join(data, path_of(record))
        if record["type"] == "dir":
            os.makedirs(path, 0o700, exist_ok=True)
        elif record["type"] == "file":
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            with open(path, "xb") as f:
                f.truncate(record.get("size", 0))
            os.chmod(path, record["mode"])
        else:
            fail("a file record of type %r" % record["type"])
        files.append((path, record))
        filled.append(0)
    for entry in map(json.loads, lines[1 + info["files"]:1 + info["files"] + info["packs"]]):
        stored = repo.pack(entry)
        for frame in entry["frames"]:
            piece = stored[frame["at"]:frame["at"] + frame["len"]]
            if hashlib.sha256(piece).hexdigest()[:32] != frame["sum"]:
                fail("pack %s: the frame at %d is not the signed one" % (entry["pack"], frame["at"]))
            raw = run(["zstd", "-d", "-q", "-c"], piece)
            if len(raw) != frame["raw"]:
                fail("pack %s: the frame at %d has another size" % (entry["pack"], frame["at"]))
            for number, off, at, length in frame["to"]:
                with open(files[number][0], "r+b") as f:
                    f.seek(off)
                    f.write(raw[at:at + length])
                filled[number] += length
    for (path, record), n in zip(files, filled):
        if n != record.get("size", 0):
            fail("%r is not whole: %d bytes of %d" % (path, n, record.get("size", 0)))
    # No tablespace_map: it would make PostgreSQL link the tablespaces to where
    # they were. They are linked to OUT/tablespaces above instead.
    with open(os.path.join(data, b"backup_label"), "x") as f:
        f.write(info["backup_label"])
    return info


def rescue_wal(repo, system, out):
    folder = os.path.join(out, "wal")
    os.mkdir(folder, 0o700)
    count = 0
    slices = {}
    for key in repo.list("wal/%s" % system):
        name = key.split("/")[-1]
        part = re.fullmatch(r".*/([0-9A-F]{24})\.d/([0-9A-F]{8})-([0-9A-F]{8})", key)
        if part:
            slices.setdefault(part[1], []).append((int(part[2], 16), int(part[3], 16), key))
        if key.count("/") != 3 or not re.fullmatch(r"[0-9A-F]{8}\.history|[0-9A-F]{24}(\.partial|\.[0-9A-F]{8}\.backup)?", name):
            continue
        with open(os.path.join(folder, name), "xb") as f:
            f.write(repo.envelope(key, "wal"))
        count += 1
    for name, parts in slices.items():
        if not os.path.exists(os.path.join(folder, name)):
            count += rescue_slices(repo, folder, name, parts)
    return count


def rescue_slices(repo, folder, name, parts):
    """Puts a segment together that was never complete; zeros follow what there is."""
    data = b""
    for begin, end, key in sorted(parts):
        if begin > len(data):
            break  # a hole: what comes after it is of no use
        if end > len(data):
            data += repo.envelope(key, "wal")[len(data) - begin:]
    if len(data) < 40:
        return 0
    size = int.from_bytes(data[32:36], "little")  # xlp_seg_size of its first page
    with open(os.path.join(folder, name), "xb") as f:
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
    print("To recover: own the folder as the user postgres, add to data/postgresql.auto.conf\n"
          "    restore_command = 'cp \"%s/%%f\" \"%%p\"'\n    archive_mode = off\n"
          "make the empty file data/recovery.signal, and start PostgreSQL." % wal)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as e:
        fail("%s: %s" % (type(e).__name__, e))
