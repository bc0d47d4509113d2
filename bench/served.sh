#!/usr/bin/env bash
# A scan from a server of objects against one from disk and a bare client of the same server: a plain HTTP server (nginx),
# the S3 client against the same nginx, which knows ranges and ETags and looks at no signature, and S3 by moto, which takes
# more of the two cores than the scan. Needs the corpus and ROOT/venv with moto.
#
#   bench/served.sh ROOT      5 minutes on 2 cores
set -euo pipefail
root=$(realpath "$1")
cd "$(dirname "$0")/.."
command -v nginx >/dev/null || apt-get install -y -qq nginx-light >/dev/null
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
disk=$work/warc
mkdir "$disk" "$work/crawl"
ln -s ../warc "$work/crawl/warc"
find "$root/corpus/warc" -name '*.warc.gz' | sort | head -2 | while read -r file; do ln "$file" "$disk/" || cp "$file" "$disk/"; done

cat >"$work/nginx.conf" <<END
daemon off; master_process off; error_log stderr crit; pid $work/nginx.pid;
events {}
http {
  access_log off; sendfile on; client_body_temp_path $work; proxy_temp_path $work; fastcgi_temp_path $work;
  uwsgi_temp_path $work; scgi_temp_path $work;
  server { listen 127.0.0.1:5598; root $work; }
}
END
nginx -c "$work/nginx.conf" -p "$work" &
"$root/venv/bin/python" -m moto.server -p 5599 >/dev/null 2>&1 &
until curl -s -o /dev/null 127.0.0.1:5599 && curl -s -o /dev/null 127.0.0.1:5598; do sleep 0.1; done
curl -s -X PUT http://127.0.0.1:5599/crawl >/dev/null
for file in "$disk"/*; do curl -s -H "x-amz-acl: public-read" -T "$file" "http://127.0.0.1:5599/crawl/warc/${file##*/}"; done

bench() { cargo bench --quiet -p dragnet --all-features --bench figures -- served "$disk" "$@"; }
bench http://127.0.0.1:5598/warc http://127.0.0.1:5598/warc
export AWS_ENDPOINT_URL=http://127.0.0.1:5598 AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b AWS_DEFAULT_REGION=us-east-1
bench s3://crawl/warc http://127.0.0.1:5598/crawl/warc
export AWS_ENDPOINT_URL=http://127.0.0.1:5599
bench s3://crawl/warc http://127.0.0.1:5599/crawl/warc
