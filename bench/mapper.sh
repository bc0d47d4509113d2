#!/usr/bin/env bash
# The mapper that is shipped: builds it statically, shows its size and how fast it starts, and runs it in a chroot that
# holds it alone, where it finds its server of objects by name.
#
#   bench/mapper.sh ROOT     as root; ROOT has the corpus, and venv with moto (bench/peers.sh)
set -euo pipefail
root=$(realpath "$1")
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
# Of its own target folder, so that other builds keep their flags.
# A static program has no dlsym, by which getrandom would find the call instead of a device.
RUSTFLAGS='-C target-feature=+crt-static --cfg getrandom_backend="linux_getrandom"' \
  cargo build --quiet --release -p dragnet-mapper --all-features --target "$host" --target-dir target/static
mapper=target/static/dragnet-map
strip -o "$mapper" "target/static/$host/release/dragnet-map"
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT

file -b "$mapper" | cut -d, -f1-4
printf 'size     %d bytes\n' "$(stat -c %s "$mapper")"
python3 - "$mapper" <<'PY'
import subprocess, sys, time
def start():
    begun = time.perf_counter()
    subprocess.run([sys.argv[1]], stdin=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - begun) * 1000
starts = sorted(start() for _ in range(101))
print(f'start    {starts[50]:.1f} ms in the median of 101, {starts[-1]:.1f} ms at most, end included')
PY

# A name server that knows every name as this machine: in the chroot there is no /etc to ask.
python3 - <<'PY' &
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(('127.0.0.1', 53))
while True:
    question, asker = server.recvfrom(512)
    end = question.index(b'\0', 12) + 5
    is_a = question[end - 4:end - 2] == b'\0\1'
    answer = b'\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1' if is_a else b''
    head = question[:2] + b'\x81\x80\0\1' + (b'\0\1' if is_a else b'\0\0') + b'\0\0\0\0'
    server.sendto(head + question[12:end] + answer, asker)
PY
# Moto would take the server's name for a bucket's.
S3_IGNORE_SUBDOMAIN_BUCKETNAME=true "$root/venv/bin/python" -m moto.server -p 5599 >/dev/null 2>&1 &
until curl -s -o /dev/null 127.0.0.1:5599; do sleep 0.1; done
s3=http://127.0.0.1:5599/crawl
curl -s -X PUT $s3 >/dev/null
object=$(find "$root/corpus/warc" -name '*.warc.gz' | sort | head -1)
curl -s -T "$object" $s3/in/a.warc.gz
etag=$(curl -sI $s3/in/a.warc.gz | tr -d '\r' | sed -n 's/^[Ee][Tt]ag: //p')
size=$(stat -c %s "$object")
python3 - "$size" "$etag" >"$work/plan.json" <<'PY'
import json, sys
size, etag = int(sys.argv[1]), sys.argv[2]
print(json.dumps({'mapper': 'bench', 'skipped': [], 'shards': [{'range': {'object': 0, 'start': 0, 'end': size}}],
    'search': {'patterns': [{'name': 'match', 'regex': 'Rust'}], 'layers': ['body']},
    'objects': [{'uri': 's3://crawl/in/a.warc.gz', 'size': size, 'version': etag,
                 'kind': {'format': 'warc', 'codec': 'gzip'}}]}))
PY
curl -s -T "$work/plan.json" $s3/out/plan.json
mkdir "$work/jail"
cp "$mapper" "$work/jail/dragnet-map"
printf 'chroot   holds: %s\n' "$(cd "$work/jail" && echo *)"
echo '{"output":"s3://crawl/out","shard":0,"begin":{"offset":0,"skip":0}}' |
  env -i AWS_ENDPOINT_URL=http://objects.test:5599 AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b AWS_DEFAULT_REGION=us-east-1 \
    "$(command -v chroot)" "$work/jail" /dragnet-map map 2>"$work/said" | tee "$work/outcome" || { cat "$work/said"; exit 1; }
grep -q committed "$work/outcome"
