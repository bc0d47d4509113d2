"""How far the layer `text` agrees with another maker's plain text of the same pages, word by word.

usage: python text.py DRAGNET ARCHIVE PAGES      needs `pip install fastwarc resiliparse`

The other maker is resiliparse (Chatnoir), which parses HTML with lexbor. What remains apart: `title`, which
WET files have and it leaves out; values of form fields, which it has; pages whose charset stands in <meta>,
which it is told is UTF-8.
"""
import collections
import json
import re
import subprocess
import sys

from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

dragnet, archive, pages = sys.argv[1], sys.argv[2], int(sys.argv[3])
theirs = {}
for record in ArchiveIterator(open(archive, "rb"), record_types=WarcRecordType.response, parse_http=True):
    tree = HTMLTree.parse_from_bytes(record.reader.read(), "utf-8")
    text = extract_plain_text(tree, preserve_formatting=False, main_content=False, alt_texts=False, noscript=True)
    theirs[record.headers["WARC-Target-URI"]] = collections.Counter(re.findall(r"\w+", text))
    if len(theirs) == pages:
        break

ours = collections.defaultdict(collections.Counter)
command = [dragnet, "scan", "--json", "--layer", "text", "--type", "response", r"\w+", archive]
scan = subprocess.Popen(command, stdout=subprocess.PIPE)
for line in scan.stdout:
    hit = json.loads(line)
    if hit["url"] not in theirs:
        break
    ours[hit["url"]][hit["match"]] += 1
scan.kill()

both, apart = 0, []
for url, words in theirs.items():
    both += sum((ours[url] & words).values())
    only_ours, only_theirs = ours[url] - words, words - ours[url]
    apart.append((sum(only_ours.values()), sum(only_theirs.values()), url))
only_ours, only_theirs = sum(a[0] for a in apart), sum(a[1] for a in apart)
share = both / (both + only_ours + only_theirs)
print(f"{both} words in both, {only_ours} only in ours, {only_theirs} only in theirs: {share:.2%} agree")
for row in sorted(apart, key=lambda row: -row[0] - row[1])[:5]:
    print("apart:", *row)
