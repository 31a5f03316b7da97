#!/usr/bin/env python3
"""Restores a disk of an image from a store in a folder to a file.

    restore.py STORE BOX ID DISK FILE

Written from docs/format.md alone, to prove that it is exact. It uses Python's
standard library and the program zstd, checks every hash, and is slow. What is
unused becomes zeros.
"""

import json
import os
import re
import struct
import subprocess
import sys

CHUNK, PAGE, ROOT = 1, 2, 3
LIMIT = {CHUNK: 1 << 20, PAGE: 1 << 20, ROOT: 32 << 20}
REGION = 256 << 20
DATA, ZERO, UNUSED = 0, 1, 2


class Damaged(Exception):
    pass


def want(true, what):
    if not true:
        raise Damaged(what)


# BLAKE3, from its paper: chunks of 1024 bytes, blocks of 64, a binary tree.

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
      0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, TOP = 1, 2, 4, 8
MIX = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
       (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
M32 = 0xFFFFFFFF


def compress(cv, m, counter, length, flags):
    v = list(cv + IV[:4]) + [counter & M32, counter >> 32, length, flags]
    for turn in range(7):
        for i, (a, b, c, d) in enumerate(MIX):
            va = (v[a] + v[b] + m[2 * i]) & M32
            x = v[d] ^ va
            vd = (x >> 16 | x << 16) & M32
            vc = (v[c] + vd) & M32
            x = v[b] ^ vc
            vb = (x >> 12 | x << 20) & M32
            va = (va + vb + m[2 * i + 1]) & M32
            x = vd ^ va
            vd = (x >> 8 | x << 24) & M32
            vc = (vc + vd) & M32
            x = vb ^ vc
            v[a], v[b], v[c], v[d] = va, (x >> 7 | x << 25) & M32, vc, vd
        if turn < 6:
            m = [m[i] for i in PERMUTATION]
    return tuple(v[i] ^ v[i + 8] for i in range(8))


def blake3(data):
    size = len(data)

    def chunk(start, flags):
        end = min(size, start + 1024)
        cv = IV
        for off in range(start, max(end, start + 1), 64):
            block = data[off:min(end, off + 64)]
            f = (CHUNK_START if off == start else 0)
            if off + 64 >= end:
                f |= CHUNK_END | flags
            words = struct.unpack("<16I", block.ljust(64, b"\0"))
            cv = compress(cv, words, start // 1024, len(block), f)
        return cv

    def tree(start, end, flags):
        n = max(1, -(-(end - start) // 1024))
        if n == 1:
            return chunk(start, flags)
        left = start + 1024 * (1 << (n - 1).bit_length() - 1)
        both = tree(start, left, 0) + tree(left, end, 0)
        return compress(IV, both, 0, 64, PARENT | flags)

    return struct.pack("<8I", *tree(0, size, TOP))


# The files of a store.

def small_file(path, what):
    """A small text file: a line with its hash, then JSON."""
    with open(path, "rb") as f:
        line, _, rest = f.read().partition(b"\n")
    want(line == b"testbox-%s 1 %s" % (what, blake3(rest).hex().encode()),
         path + " is not what was written")
    return json.loads(rest)


def pack_table(path):
    """The entries of a pack: (kind, name, place, codec, stored, raw)."""
    size = os.path.getsize(path)
    want(size >= 104, path + " is cut off")
    with open(path, "rb") as f:
        magic, number, reserved = struct.unpack("<8sII", f.read(16))
        want(magic == b"TBXPACK1" and reserved == 0 and number == int(path[-8:], 16),
             path + " is no pack, or one of another number")
        f.seek(size - 64)
        magic, count, off, hash = struct.unpack("<8sII32s16x", f.read(64))
        want(magic == b"TBXTABLE" and off + count * 48 + 64 == size, path + " has no table")
        f.seek(off)
        table = f.read(count * 48)
    want(blake3(table) == hash, path + " has a damaged table")
    for kind, codec, reserved, place, stored, raw, name in struct.iter_unpack("<BBHIII32s", table):
        yield kind, name, place, codec, stored, raw


class Store:
    def __init__(self, folder):
        self.folder = folder
        small_file(os.path.join(folder, "store"), b"store")
        self.places = {}
        packs = os.path.join(folder, "packs")
        for file in sorted(os.listdir(packs)):
            if re.fullmatch(r"(data|tree)-[0-9a-f]{8}", file):
                path = os.path.join(packs, file)
                for kind, name, *place in pack_table(path):
                    self.places.setdefault((kind, name), []).append((path, *place))

    def get(self, kind, name):
        """The bytes of an object: of its first copy that is whole."""
        for place in self.places.get((kind, name), []):
            try:
                return self.copy(kind, name, *place)
            except Damaged as e:
                print(e, file=sys.stderr)
        raise Damaged("object %d %s is not there" % (kind, name.hex()))

    def copy(self, kind, name, path, place, codec, stored, raw):
        with open(path, "rb") as f:
            f.seek(place)
            header, data = f.read(64), f.read(stored)
        want(header[:48] == struct.pack("<4sBBHII32s", b"TBXO", kind, codec, 0, stored, raw, name),
             "%s, byte %d: another object than the table says" % (path, place))
        want(0 < raw <= LIMIT[kind] and codec in (0, 1), "an object that cannot be")
        if codec == 1:
            unpacked = subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE)
            want(unpacked.returncode == 0, "%s, byte %d: zstd failed" % (path, place))
            data = unpacked.stdout
        want(len(data) == raw and blake3(data) == name, "%s, byte %d: damaged" % (path, place))
        return data

    def record(self, box, id):
        r = small_file(os.path.join(self.folder, "records", box, id), b"record")
        want(r["format"] == 1 and r["box"] == box and r["id"] == id, "a record of something else")
        return r


def uvarint(b, at):
    value = shift = 0
    while True:
        value |= (b[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if b[at - 1] < 128:
            return value, at


def parse_root(b):
    magic, size, sector, pages = struct.unpack_from("<8sQII", b)
    want(magic == b"TBXROOT1" and pages == -(-size // REGION), "a root that cannot be")
    return size, [b[24 + 32 * i:56 + 32 * i] for i in range(pages)]


def parse_page(b):
    want(b[:8] == b"TBXPAGE1", "a page that is none")
    extents, chunks = [], []
    n, at = uvarint(b, 8)
    for _ in range(n):
        v, at = uvarint(b, at)
        extents.append((v & 3, v >> 2))
    n, at = uvarint(b, at)
    for _ in range(n):
        length, end = uvarint(b, at + 32)
        chunks.append((b[at:at + 32], length))
        at = end
    want(at == len(b), "a page with something after it")
    return extents, chunks


def restore_region(store, page, off, length, out):
    extents, chunks = parse_page(store.get(PAGE, page))
    want(sum(n for _, n in extents) == length, "a page of another region")
    chunks = iter(chunks)
    data = memoryview(b"")
    for content, n in extents:
        want(content in (DATA, ZERO, UNUSED) and n > 0, "an extent that cannot be")
        while content == DATA and n > 0:
            if not data:
                name, size = next(chunks)
                data = memoryview(store.get(CHUNK, name))
                want(len(data) == size, "a chunk of another length")
            part = data[:n]
            out.seek(off)
            out.write(part)
            data, n, off = data[len(part):], n - len(part), off + len(part)
        off += n
    want(not data and next(chunks, None) is None, "chunks that are longer than the data")


def main(folder, box, id, disk, path):
    store = Store(folder)
    disks = {d["name"]: d for d in store.record(box, id)["disks"]}
    size, pages = parse_root(store.get(ROOT, bytes.fromhex(disks[disk]["root"])))
    want(size == disks[disk]["disk"]["size"], "record and root have different sizes")
    with open(path, "wb") as out:
        out.truncate(size)
        for i, page in enumerate(pages):
            restore_region(store, page, i * REGION, min(REGION, size - i * REGION), out)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Damaged as e:
        sys.exit("restore.py: %s" % e)
