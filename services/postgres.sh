#!/usr/bin/env bash
# A real PostgreSQL on the loopback, from the Debian package's programs: one cluster, durable as in production.
#
#   postgres.sh start DIR     starts it unless it runs and waits until it answers; repeat it after `kill`
#   postgres.sh stop DIR      stops it; the data stay
#   postgres.sh env DIR       prints the address, for `eval "$(postgres.sh env DIR)"`; also in DIR/ports.env
#   postgres.sh kill DIR      SIGKILL to the postmaster and all of its backends

# shellcheck disable=SC1091   # ports.env is written by a start.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1)
[[ -x $bin/initdb ]] || bin=$(dirname "$(command -v initdb || echo /none/initdb)")

# It refuses to run as root.
as=()
[[ $(id -u) != 0 ]] || as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
pg() { (cd "$dir/data" && "${as[@]}" "$@"); }

write_conf() {
  local port
  [[ -f $dir/ports.env ]] && return
  port=$(free_ports 1)
  printf 'POSTGRES_PORT=%s\nPOSTGRES_URL=postgres://dragnet@127.0.0.1:%s/postgres\n' "$port" "$port" >"$dir/ports.env"
}

start() {
  need flock
  [[ -x $bin/initdb ]] || die 'no initdb: install the package `postgresql`'
  write_conf
  source "$dir/ports.env"
  # Its user must reach the folder.
  chmod a+x "$dir"
  [[ $(id -u) != 0 ]] || chown postgres: "$dir/data"
  [[ -f $dir/data/db/PG_VERSION ]] || pg "$bin/initdb" -D db -U dragnet -A trust --locale=C.UTF-8 >"$dir/logs/initdb.log"
  pg "$bin/pg_ctl" -D db status >/dev/null && return
  pg "$bin/pg_ctl" -D db -w -l "$dir/data/log" \
    -o "-h 127.0.0.1 -p $POSTGRES_PORT -k $dir/data -c max_connections=400" start >/dev/null 9>&- || die "see $dir/data/log"
}

case ${1:-}:$# in
  start:2) open_dir "$2"; start ;;
  stop:2) [[ ! -d $2 ]] || { open_dir "$2"; pg "$bin/pg_ctl" -D db -m immediate stop >/dev/null || true; } ;;
  env:2) [[ -f $2/ports.env ]] || die "no PostgreSQL was started in \`$2\`"; sed 's/^/export /' "$2/ports.env" ;;
  kill:2)
    open_dir "$2"
    postmaster=$(head -1 "$dir/data/db/postmaster.pid")
    # Stopped first, so that it can't clean up behind its backends.
    kill -STOP "$postmaster"
    pkill -KILL -P "$postmaster" || true
    kill -KILL "$postmaster"
    while kill -0 "$postmaster" 2>/dev/null; do sleep 0.05; done
    ;;
  *) sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
