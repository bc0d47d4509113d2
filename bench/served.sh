#!/usr/bin/env bash
# A scan from a server of objects against one from disk and against a bare client of the same server. The server has the
# machine's last core to itself and the scans have the others, as a server is another machine: else one measures how much
# of the scan's cores it takes. Plain HTTP by nginx; S3 by MinIO where `minio` is on the PATH
# (`go install github.com/minio/minio@latest`), else by moto, in Python. Needs the corpus and ROOT/venv with moto.
#
#   bench/served.sh ROOT      2 minutes on 2 cores
set -euo pipefail
root=$(realpath "$1")
cd "$(dirname "$0")/.."
command -v nginx >/dev/null || apt-get install -y -qq nginx-light >/dev/null
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
disk=$work/warc
mkdir "$disk"
find "$root/corpus/warc" -name '*.warc.gz' | sort | head -2 | while read -r file; do ln "$file" "$disk/" || cp "$file" "$disk/"; done
cargo bench --quiet -p dragnet --all-features --bench figures --no-run

last=$(($(nproc) - 1))
serve() { taskset -c "$last" "$@" & }
bench() { taskset -c "0-$((last - 1))" cargo bench --quiet -p dragnet --all-features --bench figures -- served "$disk" "$@"; }

cat >"$work/nginx.conf" <<END
daemon off; master_process off; error_log stderr crit; pid $work/nginx.pid;
events {}
http {
  access_log off; sendfile on; client_body_temp_path $work; proxy_temp_path $work; fastcgi_temp_path $work;
  uwsgi_temp_path $work; scgi_temp_path $work;
  server { listen 127.0.0.1:5598; root $work; }
}
END
serve nginx -c "$work/nginx.conf" -p "$work"
export AWS_ENDPOINT_URL=http://127.0.0.1:5599 AWS_ACCESS_KEY_ID=dragnet AWS_SECRET_ACCESS_KEY=not-a-secret
export AWS_DEFAULT_REGION=us-east-1
if command -v minio >/dev/null; then
  export MINIO_ROOT_USER=$AWS_ACCESS_KEY_ID MINIO_ROOT_PASSWORD=$AWS_SECRET_ACCESS_KEY
  serve minio server --quiet --address 127.0.0.1:5599 "$work/minio" >/dev/null
else
  serve "$root/venv/bin/python" -m moto.server -p 5599 >/dev/null 2>&1
fi
until curl -s -o /dev/null 127.0.0.1:5599 && curl -s -o /dev/null 127.0.0.1:5598; do sleep 0.1; done
"$root/venv/bin/python" - "$disk" <<'END'
import boto3, glob, json, os, sys
s3 = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
s3.create_bucket(Bucket="crawl")
for file in glob.glob(sys.argv[1] + "/*"):
    s3.upload_file(file, "crawl", "warc/" + os.path.basename(file))
# The bare client signs nothing.
allow = {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::crawl/*"]}
s3.put_bucket_policy(Bucket="crawl", Policy=json.dumps({"Version": "2012-10-17", "Statement": [allow]}))
END

bench http://127.0.0.1:5598/warc http://127.0.0.1:5598/warc
bench s3://crawl/warc http://127.0.0.1:5599/crawl/warc
