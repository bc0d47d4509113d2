#!/usr/bin/env python3
"""Recomputes a job's digest from its coverage and its hits: usage: digest.py COVERAGE.json HITS.jsonl

v1 is the sum modulo 2^256 of SHA-256 over each hit's canonical form, the hash read as a big-endian number.
The canonical form is, in this order, integers as 8 bytes big-endian and texts after their length as such:
place of the object in the coverage's list, offset, skip, pattern, layer, start, end, match.
"""
import base64, hashlib, json, sys

place = {o["object"]: n for n, o in enumerate(json.load(open(sys.argv[1]))["objects"])}
total = 0
for line in open(sys.argv[2], encoding="utf-8"):
    hit = json.loads(line)
    number = lambda n: n.to_bytes(8, "big")
    text = lambda b: number(len(b)) + b
    match = base64.b64decode(hit["match_base64"]) if "match_base64" in hit else hit["match"].encode()
    form = number(place[hit["object"]]) + number(hit["offset"]) + number(hit["skip"])
    form += text(hit["pattern"].encode()) + text(hit["layer"].encode())
    form += number(hit["start"]) + number(hit["end"]) + text(match)
    total += int.from_bytes(hashlib.sha256(form).digest(), "big")
print(f"v1:{total % 2**256:064x}")
