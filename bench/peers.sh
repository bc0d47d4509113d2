#!/bin/bash
# Installs what the scan is measured against: ripgrep from crates.io, ugrep and libdeflate's tools from Debian.
# usage: peers.sh ROOT      programs that are built go to ROOT/peers/bin; 2 minutes on 2 cores
set -euo pipefail
ROOT=$(mkdir -p "${1:?usage: peers.sh ROOT}" && cd "$1" && pwd)
command -v ugrep libdeflate-gunzip >/dev/null || apt-get install -y -qq ugrep libdeflate-tools brotli
[ -x "$ROOT/peers/bin/rg" ] || cargo install ripgrep --locked --root "$ROOT/peers"
"$ROOT/peers/bin/rg" --version | head -1
ugrep --version | head -1
