"""Writes manifest.json: test vectors of the manifest, version 1.

Run as `python3 manifest.py > manifest.json`. It shares no code with the crate:
hashes, trees, walk and proofs are written once more from their definition.
Forged trees are hashed consistently, so that the one clause that a vector
names is all that stands between it and acceptance.
"""

import base64
import hashlib
import json

NONE = 2**64 - 1
MIB = 1 << 20


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def head(prefix, domain=b"pinfold/manifest/1"):
    return domain + b"\0" + bytes([prefix])


def u64(number):
    return number.to_bytes(8, "big")


def split(count):
    return 1 << ((count - 1).bit_length() - 1)


# Trees

def chunk_leaf(chunk):
    return sha(head(0), u64(len(chunk)), chunk)


def chunk_tree(chunks):
    if not chunks:
        return sha(head(1))
    if len(chunks) == 1:
        return chunk_leaf(chunks[0])
    k = split(len(chunks))
    return sha(head(1), chunk_tree(chunks[:k]), chunk_tree(chunks[k:]))


def chunks_of(block):
    return [block[at:at + 1024] for at in range(0, len(block), 1024)]


def chunk_path(chunks, index):
    if len(chunks) <= 1:
        return []
    k = split(len(chunks))
    if index < k:
        return chunk_path(chunks[:k], index) + [chunk_tree(chunks[k:])]
    return chunk_path(chunks[k:], index - k) + [chunk_tree(chunks[:k])]


def leaf_hash(leaf, domain=b"pinfold/manifest/1"):
    return sha(head(2, domain), u64(len(leaf["multihash"])), leaf["multihash"], u64(leaf["codec"]),
               u64(leaf["length"]), leaf["chunk_root"], u64(leaf["parent"]))


def node_hash(left, right, domain=b"pinfold/manifest/1"):
    """left and right are (hash, sum)."""
    return sha(head(3, domain), left[0], u64(left[1]), right[0], u64(right[1]))


def tree(leaves, domain=b"pinfold/manifest/1", lie=None, lo=0):
    """(hash, sum) of a list of leaves; lie maps (lo, count) to a forged sum."""
    count = len(leaves)
    if count == 0:
        return sha(head(3, domain)), 0
    if count == 1:
        found = leaf_hash(leaves[0], domain), leaves[0]["length"]
    else:
        k = split(count)
        left = tree(leaves[:k], domain, lie, lo)
        right = tree(leaves[k:], domain, lie, lo + k)
        found = node_hash(left, right, domain), (left[1] + right[1]) % 2**64
    return found[0], (lie or {}).get((lo, count), found[1])


def path(leaves, index, lie=None, lo=0):
    """From the root down."""
    if len(leaves) <= 1:
        return []
    k = split(len(leaves))
    left, right = tree(leaves[:k], lie=lie, lo=lo), tree(leaves[k:], lie=lie, lo=lo + k)
    if index < k:
        rest, sibling = path(leaves[:k], index, lie, lo), right
    else:
        rest, sibling = path(leaves[k:], index - k, lie, lo + k), left
    return [{"left": left[1], "right": right[1], "sibling": sibling[0]}] + rest


def manifest(leaves, **forged):
    root, total = tree(leaves)
    return {"version": 1, "root": root, "bytes": total, "blocks": len(leaves)} | forged


def multihash(block):
    return b"\x12\x20" + hashlib.sha256(block).digest()


def leaf(block, parent, codec=0x55, **forged):
    return {"multihash": multihash(block), "codec": codec, "length": len(block),
            "chunk_root": chunk_tree(chunks_of(block)), "parent": parent} | forged


def block(fill, length):
    return bytes((fill + 7 * at + at // 256) % 256 for at in range(length))


# DAGs

def varint(number):
    out = b""
    while number >= 128:
        out, number = out + bytes([number % 128 + 128]), number // 128
    return out + bytes([number])


def cid(codec, mh):
    return b"\x01" + varint(codec) + mh


def text(binary):
    return "b" + base64.b32encode(binary).decode().lower().rstrip("=")


def identity(codec, data):
    return cid(codec, b"\0" + varint(len(data)) + data)


def cbor(salt, links):
    """A list of a number and links."""
    out = bytes([0x98, 1 + len(links), 0x18, salt])
    for link in links:
        out += b"\xd8\x2a\x58" + bytes([len(link) + 1]) + b"\0" + link
    return out


def pb(data, links):
    field = lambda number, value: bytes([number << 3 | 2]) + varint(len(value)) + value
    return b"".join(field(2, field(1, link) + field(2, name) + b"\x18\x05") for name, link in links) + field(1, data)


def dag_json(links):
    return json.dumps({str(at): {"/": text(link)} for at, link in enumerate(links)}).encode()


class Dag:
    def __init__(self):
        self.blocks, self.links = {}, {}

    def put(self, codec, data, links=()):
        name = cid(codec, multihash(data))
        self.blocks[multihash(data)] = data
        self.links[name] = list(links)
        return name

    def inline(self, codec, data, links=()):
        name = identity(codec, data)
        self.links[name] = list(links)
        return name

    def walk(self, root, reverse=False, wide=False, repeat=False, list_inline=False,
             direct_parent=False, by_multihash=False, last_codec=False):
        """The leaves; each flag breaks one rule."""
        leaves, index, seen, inline_index = [], {}, set(), {}
        queue = [(root, NONE)]
        while queue:
            name, parent = queue.pop(0)
            codec, mh = parse(name)
            key = mh if by_multihash else name
            if key in seen and not repeat:
                continue
            seen.add(key)
            if mh[0] == 0 and not list_inline:
                here = parent if not direct_parent else NONE
            else:
                data = mh[2:] if mh[0] == 0 else self.blocks[mh]
                if mh not in index or repeat:
                    index[mh] = len(leaves)
                    leaves.append(leaf(data, parent, codec, multihash=mh))
                elif last_codec:
                    leaves[index[mh]]["codec"] = codec
                here = index[mh]
            children = [(link, here) for link in self.links.get(name, [])]
            if reverse:
                children.reverse()
            queue = queue + children if wide else children + queue
        return leaves


def parse(name):
    at, codec, shift = 1, 0, 0
    while True:
        byte = name[at]
        codec |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return codec, name[at:]


def dags():
    out = []

    def add(name, dag, root, **broken):
        leaves = dag.walk(root)
        right = manifest(leaves)
        wrong = {}
        for rule, flags in broken.items():
            forged = manifest(dag.walk(root, **flags))
            assert forged["root"] != right["root"], (name, rule)
            wrong[rule] = forged
        used = {text(cid(0x55, mh)): data for mh, data in dag.blocks.items()}
        out.append({"name": name, "root": text(root), "blocks": used, "leaves": leaves,
                    "manifest": right, "wrong": wrong})

    dag = Dag()
    a, b = dag.put(0x55, b"a"), dag.put(0x55, b"b")
    left = dag.put(0x71, cbor(1, [a, b]), [a, b])
    right = dag.put(0x71, cbor(2, [b, a]), [b, a])
    root = dag.put(0x71, cbor(3, [right, left, right]), [right, left, right])
    add("pre-order, each multihash once", dag, root, links_in_reverse_order=dict(reverse=True),
        breadth_first=dict(wide=True), blocks_listed_again=dict(repeat=True))

    dag = Dag()
    deep = dag.put(0x55, b"deep")
    inner = dag.put(0x71, cbor(4, [deep]), [deep])
    raw = cid(0x55, inner[2:])
    dag.links[raw] = []
    root = dag.put(0x71, cbor(5, [raw, inner]), [raw, inner])
    add("one multihash under two codecs", dag, root, walk_by_multihash_alone=dict(by_multihash=True),
        codec_of_the_last_visit=dict(last_codec=True))

    dag = Dag()
    deep = dag.put(0x55, b"below an identity CID")
    one = dag.inline(0x71, cbor(6, [deep]), [deep])
    two = dag.inline(0x71, cbor(7, [one]), [one])
    note = dag.inline(0x55, b"inline")
    root = dag.put(0x71, cbor(8, [note, two]), [note, two])
    add("identity CIDs are followed and not listed", dag, root, identity_cids_listed=dict(list_inline=True),
        parent_is_not_the_nearest_leaf=dict(direct_parent=True))
    add("an identity CID as the root", dag, two, identity_cids_listed=dict(list_inline=True))
    add("an identity CID without links", dag, note, identity_cids_listed=dict(list_inline=True))

    dag = Dag()
    file = dag.put(0x55, block(9, 3000))
    empty = dag.put(0x55, b"")
    listing = dag.put(0x0129, dag_json([empty, file]), [empty, file])
    links = [(b"a", empty), (b"b", listing), (b"c", file)]
    root = dag.put(0x70, pb(b"\x08\x01", links), [link for _, link in links])
    add("dag-pb, dag-json and an empty block", dag, root, links_in_reverse_order=dict(reverse=True))

    dag = Dag()
    foreign = dag.put(0x72, b"foreign")
    root = dag.put(0x71, cbor(10, [foreign]), [foreign])
    add("an unknown codec is a leaf", dag, root)
    return out


def dags_refused():
    """DAGs without a manifest. Beside `blocks`, `zeros` gives the lengths of blocks of zeros."""
    out = []

    def add(name, error, root, blocks, zeros=()):
        used = {text(cid(0x55, multihash(data))): data for data in blocks}
        out.append({"name": name, "error": error, "root": text(root), "blocks": used,
                    "zeros": {text(cid(0x55, multihash(bytes(n)))): n for n in zeros}})

    here = b"here"
    missing = cid(0x55, multihash(b"missing"))
    root = cbor(1, [cid(0x55, multihash(here)), missing])
    add("a block is missing", "Missing", cid(0x71, multihash(root)), [root, here])
    add("the root is missing", "Missing", missing, [])
    swapped = {text(missing): b"other bytes"}
    add("a block has other bytes", "Hash", cid(0x71, multihash(root)), [root, here])
    out[-1]["blocks"] |= swapped
    large = cid(0x55, multihash(bytes(2 * MIB + 1)))
    root = cbor(2, [large])
    add("a block has more than 2 MiB", "Block", cid(0x71, multihash(root)), [root], [2 * MIB + 1])
    broken = b"\x82\x01"
    root = cbor(3, [cid(0x71, multihash(broken))])
    add("a block is not of its codec", "Block", cid(0x71, multihash(root)), [root, broken])
    foreign = cid(0x55, b"\x22\x08" + bytes(8))
    root = cbor(4, [foreign])
    add("a link with a hash function that is refused", "Block", cid(0x71, multihash(root)), [root])
    out[-1]["blocks"] |= {text(foreign): b"anything"}
    add("a root with a hash function that is refused", "Root", foreign, [])
    add("a root with a codec that is not followed", "Root", cid(0x72, multihash(here)), [here])
    return out


# Proofs

def proofs():
    lengths = [3000, 0, 1024, 5000, 1, 2048, 700]
    blocks = [block(fill, length) for fill, length in enumerate(lengths)]
    leaves = [leaf(data, NONE if at == 0 else at - 1) for at, data in enumerate(blocks)]
    good = manifest(leaves)
    out = []

    def prove(leaves, blocks, index, chunk, lie=None, chunks=None):
        chunks = chunks or chunks_of(blocks[index])
        return {"chunk": chunks[chunk], "chunk_path": chunk_path(chunks, chunk), "leaf": leaves[index],
                "path": path(leaves, index, lie)}

    def add(name, result, manifest, draw, proof):
        out.append({"name": name, "manifest": manifest, "draw": draw, "proof": proof, "result": result})

    def at(index, chunk=0):
        return {"block": index, "chunk": chunk}

    # Accepted: every chunk by index, the last byte of each by offset.
    start = 0
    for index, data in enumerate(blocks):
        for chunk, part in enumerate(chunks_of(data)):
            proof = prove(leaves, blocks, index, chunk)
            add(f"chunk {chunk} of block {index}", "accept", good, at(index, chunk), proof)
            last = start + 1024 * chunk + len(part) - 1
            add(f"byte {last}", "accept", good, {"offset": last}, proof)
        start += len(data)
    single = [leaf(blocks[0], NONE)]
    add("a content of one block", "accept", manifest(single), {"offset": 2999}, prove(single, blocks, 0, 2))
    largest = [block(3, 2 * MIB), block(4, 10)]
    wide = [leaf(data, NONE) for data in largest]
    add("the largest block", "accept", manifest(wide), at(0, 2047), prove(wide, largest, 0, 2047))

    # A node's sums are its entry in the parent.
    lie = {(2, 2): 7000}
    forged = manifest(leaves, root=tree(leaves, lie=lie)[0], bytes=tree(leaves, lie=lie)[1])
    add("the entry in the parent is more than a node's sums", "Sum", forged, at(3), prove(leaves, blocks, 3, 0, lie))
    lie = {(2, 2): 6023}
    forged = manifest(leaves, root=tree(leaves, lie=lie)[0], bytes=tree(leaves, lie=lie)[1])
    add("the entry in the parent is less than a node's sums", "Sum", forged, at(3), prove(leaves, blocks, 3, 0, lie))
    # Overflow: sums that meet the entry modulo 2^64.
    lie = {(2, 1): 2**64 - 100, (3, 1): 6124}
    wrapped = tree(leaves, lie=lie)
    assert wrapped[1] == good["bytes"]
    forged = manifest(leaves, root=wrapped[0])
    add("sums that meet the entry by overflow", "Overflow", forged, at(2), prove(leaves, blocks, 2, 0, lie))
    # The root's sums are the committed total.
    for delta in (1, -1):
        forged = manifest(leaves, bytes=good["bytes"] + delta)
        add(f"the committed total is {delta:+} bytes off", "Sum", forged, at(0), prove(leaves, blocks, 0, 0))
    add("the committed total of one block is off", "LeafLength", manifest(single, bytes=4000), at(0),
        prove(single, blocks, 0, 0))
    # The lowest entry is the leaf's length: else one stored KiB answers for any offset.
    lie = {(3, 1): 5 * MIB}
    forged = manifest(leaves, root=tree(leaves, lie=lie)[0], bytes=tree(leaves, lie=lie)[1])
    for draw in (at(3), {"offset": 4024 + 4 * MIB}):
        add("the entry above a leaf is more than its length", "LeafLength", forged, draw,
            prove(leaves, blocks, 3, 0, lie))
    # 0 < length <= 2 MiB.
    add("an empty block", "BlockLength", good, at(1), prove(leaves, blocks, 1, 0, chunks=[b""]))
    large = [block(5, 2 * MIB + 1)]
    forged = [leaf(large[0], NONE)]
    add("a block of more than 2 MiB", "BlockLength", manifest(forged), at(0), prove(forged, large, 0, 0))
    # Chunk size.
    for name, cut in (("short", [block(0, 1023), block(1, 1024), block(2, 953)]),
                      ("long", [block(0, 1025), block(1, 1024), block(2, 951)])):
        data = b"".join(cut)
        forged = [leaf(data, NONE, chunk_root=chunk_tree(cut))]
        add(f"a chunk that is too {name}", "ChunkLength", manifest(forged), at(0), prove(forged, [data], 0, 0, chunks=cut))
    cut = [block(0, 1024), block(1, 1024), block(2, 100)]
    forged = [leaf(blocks[0], NONE, chunk_root=chunk_tree(cut))]
    add("a last chunk that is too short", "ChunkLength", manifest(forged), at(0, 2),
        prove(forged, blocks, 0, 2, chunks=cut))
    # Exact path lengths, up to the chunk root and down from the manifest root.
    cut = chunks_of(blocks[0])[:2]
    forged = [leaf(blocks[0], NONE, chunk_root=chunk_tree(cut))]
    add("a chunk path that is too short", "ChunkPathLength", manifest(forged), at(0), prove(forged, blocks, 0, 0, chunks=cut))
    cut = chunks_of(blocks[0]) + [b""] * 2
    forged = [leaf(blocks[0], NONE, chunk_root=chunk_tree(cut))]
    add("a chunk path that is too long", "ChunkPathLength", manifest(forged), at(0), prove(forged, blocks, 0, 0, chunks=cut))
    for count in (1, 2, 8, 9):
        index = 6 if count == 8 else 0
        forged = manifest(leaves, blocks=count)
        add(f"a path of a tree of 7 where {count} are committed", "PathLength", forged, at(index), prove(leaves, blocks, index, 0))
    proof = prove(leaves, blocks, 3, 0)
    add("a path without its lowest node", "PathLength", good, at(3), proof | {"path": proof["path"][:-1]})
    add("a path with a node more", "PathLength", good, at(3), proof | {"path": proof["path"] + proof["path"][-1:]})
    # Shape and direction come from the draw.
    same = [block(1, 1024)] * 2
    twins = [leaf(data, NONE, codec=codec) for data, codec in zip(same, (0x55, 0x70))]
    for draw in (at(1), {"offset": 1024}):
        add("the neighbour's proof", "Root", manifest(twins), draw, prove(twins, same, 0, 0))
    add("the neighbour's proof, of another length", "LeafLength", good, {"offset": 4024}, prove(leaves, blocks, 2, 0))
    add("another chunk of the block", "ChunkRoot", good, at(3, 1), prove(leaves, blocks, 3, 0))
    # The draw lies in the content.
    add("an offset at the end", "Draw", good, {"offset": good["bytes"]}, prove(leaves, blocks, 6, 0))
    add("a block at the end", "Draw", good, at(7), prove(leaves, blocks, 6, 0))
    add("a chunk at the end", "Draw", good, at(6, 1), prove(leaves, blocks, 6, 0))
    add("nothing is in an empty content", "Draw", manifest([]), {"offset": 0}, prove(single, blocks, 0, 0))
    # Everything is hashed.
    proof = prove(leaves, blocks, 3, 1)
    flip = lambda data: bytes([data[0] ^ 1]) + data[1:]
    add("another chunk", "ChunkRoot", good, at(3, 1), proof | {"chunk": flip(proof["chunk"])})
    add("another chunk sibling", "ChunkRoot", good, at(3, 1), proof | {"chunk_path": [flip(h) for h in proof["chunk_path"]]})
    for field, value in (("multihash", multihash(b"other")), ("codec", 0x70), ("parent", 1)):
        add(f"another {field}", "Root", good, at(3, 1), proof | {"leaf": proof["leaf"] | {field: value}})
    steps = [dict(step) for step in proof["path"]]
    steps[0]["sibling"] = flip(steps[0]["sibling"])
    add("another sibling", "Root", good, at(3, 1), proof | {"path": steps})
    steps = [dict(step) for step in proof["path"]]
    steps[-1]["left"], steps[-2]["right"] = steps[-1]["left"] + 1, steps[-2]["right"] + 1
    steps[0]["left"], steps[0]["right"] = steps[0]["left"] + 1, steps[0]["right"] - 1
    add("other sums that add up", "Root", good, at(3, 1), proof | {"path": steps})
    # Prefixes and version separate.
    cut = chunks_of(blocks[5])
    inner = chunk_leaf(cut[0]) + chunk_leaf(cut[1])
    forged = [leaf(blocks[5], NONE)]
    add("a chunk node shown as a chunk", "ChunkLength", manifest(forged), at(0),
        prove(forged, [blocks[5]], 0, 0) | {"chunk": inner, "chunk_path": []})
    other = tree(leaves, domain=b"pinfold/manifest/2")[0]
    add("a root of another version", "Root", manifest(leaves, root=other), at(3), prove(leaves, blocks, 3, 0))
    add("a manifest of another version", "Version", manifest(leaves, version=2), at(3),
        prove(leaves, blocks, 3, 0))
    return out


def trees():
    lengths = [0, 1, 1023, 1024, 1025, 2048, 2049, 5000, 262144]
    roots = [{"length": n, "root": chunk_tree(chunks_of(block(n % 256, n)))} for n in lengths]
    lists = []
    for count in (0, 1, 2, 3, 4, 5, 7, 8, 9):
        leaves = [leaf(block(at, 100 * at), NONE if at == 0 else at // 2) for at in range(count)]
        lists.append({"leaves": leaves, "manifest": manifest(leaves)})
    return {"chunk_roots": roots, "manifests": lists}


def depths():
    """Chains of `links` dag-cbor nodes above a raw leaf, so that the leaf's depth is `links`; with
    `again`, its root also links to the leaf first, which is then no new block at the end."""
    case = lambda limit, links, again, accepted: {
        "limit": limit, "links": links, "again": again, "accepted": accepted}
    return [case(0, 0, False, True), case(0, 1, False, False), case(9, 9, False, True),
            case(9, 10, False, False), case(9, 10, True, True), case(9, 11, True, False)]


def plain(value):
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def lines(name, items):
    return f'"{name}": [\n' + ",\n".join(json.dumps(plain(item)) for item in items) + "\n]"


if __name__ == "__main__":
    about = ("Manifest version 1. Bytes are hexadecimal. Block n of chunk_roots has the bytes "
             "(n + 7 i + floor(i / 256)) mod 256. Blocks of DAGs are keyed by their CID with the codec raw. "
             "Of depths, chains of so many links are accepted where no new block lies below the limit. "
             "A wrong manifest is what breaking the named rule gives. Made by manifest.py.")
    parts = trees() | {"dags": dags(), "dags_refused": dags_refused(), "depths": depths(), "proofs": proofs()}
    print("{\n" + ",\n".join([f'"about": {json.dumps(about)}'] + [lines(*part) for part in parts.items()]) + "\n}")
