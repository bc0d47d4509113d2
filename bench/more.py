"""Adds to a corpus of corpus.sh what only the benchmark of the scan needs: one large WARC.gz and its halves,
WARC.zst with a frame per record, and WARC.gz whose pages are coded by gzip and br inside.
usage: more.py CORPUS"""
import glob, gzip, io, os, re, sys, zlib
import brotli, zstandard

root = sys.argv[1]
files = sorted(glob.glob(f'{root}/warc/*.warc.gz'))


def members(path):
    """The decoded gzip members of a file."""
    data, at = memoryview(open(path, 'rb').read()), 0
    while at < len(data):
        d, parts = zlib.decompressobj(31), []
        while not d.eof:
            piece = data[at:at + (64 << 10)]
            parts.append(d.decompress(piece))
            at += len(piece) - len(d.unused_data)
        yield b''.join(parts)


for folder in ('one/half', 'zst', 'coded'):
    os.makedirs(f'{root}/{folder}', exist_ok=True)
for n, path in enumerate(files[:2]):
    os.link(path, f'{root}/one/half/{n}.warc.gz')
with open(f'{root}/one/big.warc.gz', 'wb') as big:
    for path in files[:2]:
        big.write(open(path, 'rb').read())
for n, path in enumerate(files):
    compressor = zstandard.ZstdCompressor(level=3)
    with open(f'{root}/zst/{n}.warc.zst', 'wb') as out:
        for member in members(path):
            out.write(compressor.compress(member))
for n, path in enumerate(files[:2]):
    with open(f'{root}/coded/{n}.warc.gz', 'wb') as out:
        for k, member in enumerate(members(path)):
            head, _, block = member.partition(b'\r\n\r\n')
            if b'WARC-Type: response' in head and len(member) < 1 << 20:
                http, _, body = block[:-4].partition(b'\r\n\r\n')
                coding, coded = ((b'gzip', gzip.compress(body, 6)), (b'br', brotli.compress(body, quality=5)))[k // 3 % 2]
                http = re.sub(rb'\r\nContent-Length: \d+', b'', http) + b'\r\nContent-Encoding: ' + coding
                block = http + b'\r\n\r\n' + coded
                head = re.sub(rb'(?i)\r\nWARC-(Payload|Block)-Digest: [^\r]*', b'', head)
                head = re.sub(rb'Content-Length: \d+', b'Content-Length: %d' % len(block), head)
                member = head + b'\r\n\r\n' + block + b'\r\n\r\n'
            compress = zlib.compressobj(6, zlib.DEFLATED, 31)
            out.write(compress.compress(member) + compress.flush())
