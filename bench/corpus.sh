#!/bin/bash
# Makes a benchmark corpus of real web pages (about 92,000 HTML documents, 2.3 GB) from Debian's documentation
# packages: four WARC.gz files with a gzip member per record, as Common Crawl writes them, and the same pages as
# WET, JSONL.gz, JSONL.zst and a tree of files. Deterministic for the same package versions.
# usage: corpus.sh ROOT      the corpus is ROOT/corpus; about 12 GB of disk, 8 minutes on 2 cores
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(mkdir -p "${1:?usage: corpus.sh ROOT}" && cd "$1" && pwd)
[ -e "$ROOT/corpus/stats.json" ] && { echo "corpus already at $ROOT/corpus"; exit 0; }
PKGS="rust-doc openjdk-17-doc python-pandas-doc ghc-doc erlang-doc linux-doc-6.1 sagemath-doc racket-doc
python-scipy-doc python-statsmodels-doc python-sklearn-doc python-astropy-doc python-matplotlib-doc python-numpy-doc
qtbase5-doc-html debian-handbook postgresql-doc-15 python3.11-doc python-django-doc
libreoffice-help-de libreoffice-help-fr libreoffice-help-en-us libreoffice-help-ja libreoffice-help-zh-cn libreoffice-help-ru libreoffice-help-es
cmake-doc installation-guide-amd64 gnucash-docs libboost1.81-doc libstdc++-12-doc cppreference-doc-en-html
scala-doc libgtkmm-3.0-doc opencv-doc libeigen3-doc llvm-14-doc lilypond-doc-html petsc3.18-doc libpcl-doc
debian-reference-en debian-reference-de debian-reference-fr debian-reference-ja debian-reference-it debian-reference-zh-cn
debian-faq debian-faq-de debian-faq-fr maint-guide r-doc-html ocaml-doc libghc-agda-doc dcmtk-doc wx3.2-doc
groovy-doc libapache-poi-java-doc libjogl2-java-doc aptitude-doc-en aptitude-doc-fr aptitude-doc-ja harden-doc
libgtk-3-doc python-sympy-doc octave-htmldoc mercurial git-doc subversion exim4-doc-html apache2-doc nginx-doc
asterisk-doc samba-doc bash-doc gawk-doc make-doc gdb-doc gcc-12-doc emacs-common-non-dfsg zsh-doc fpc-docs lazarus-doc-2.2"
mkdir -p "$ROOT/debs" "$ROOT/x"
apt-get update -qq
cd "$ROOT/debs"
for p in $PKGS; do
  ls "${p}"_*.deb >/dev/null 2>&1 || apt-get download "$p" >/dev/null 2>&1 || echo "skip $p"
done
for d in *.deb; do
  p=${d%%_*}; [ -d "$ROOT/x/$p" ] || dpkg-deb -x "$d" "$ROOT/x/$p"
done
[ -x "$ROOT/venv/bin/python" ] || python3 -m venv "$ROOT/venv"
"$ROOT/venv/bin/pip" install -q warcio zstandard
"$ROOT/venv/bin/python" "$HERE/corpus.py" "$ROOT"
