# A private PostgreSQL that lives as long as the script that sources this; not run by itself.
# shellcheck shell=bash

# The newest installed major version's programs; Debian keeps them out of the PATH.
postgres_bin() {
  local newest
  newest=$(find /usr/lib/postgresql -mindepth 3 -maxdepth 3 -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1)
  [[ -n $newest ]] || newest=$(command -v initdb || true)
  [[ -n $newest ]] && dirname "$newest"
}

# start_postgres FOLDER: starts a server in FOLDER and exports QUARTERDECK_TEST_POSTGRES_URL.
start_postgres() {
  local bin port data=$1/postgres log=$1/postgres.log
  bin=$(postgres_bin)
  port=$(free_port)
  # Ends with this script, even when the script is killed.
  local as=(setpriv --pdeathsig INT)
  mkdir "$data"
  if ((EUID == 0)); then
    # PostgreSQL refuses to run as root.
    as+=(--reuid postgres --regid postgres --init-groups)
    chmod 711 "$1"
    chown postgres: "$data"
  fi
  # Loopback only and thrown away at the end, so neither guarded by a password nor safe against power loss.
  (cd "$data" && "${as[@]}" "$bin/initdb" -D "$data" -U postgres -A trust -E UTF8 --locale=C --no-sync) \
    >"$log" 2>&1 || postgres_failed "$log"
  "${as[@]}" "$bin/postgres" -D "$data" -p "$port" -c listen_addresses=127.0.0.1 \
    -c "unix_socket_directories=$data" -c max_connections=300 \
    -c fsync=off -c synchronous_commit=off -c full_page_writes=off >>"$log" 2>&1 &
  POSTGRES_PID=$!
  until "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" -U postgres; do
    kill -0 "$POSTGRES_PID" 2>/dev/null || postgres_failed "$log"
    sleep 0.1
  done
  export QUARTERDECK_TEST_POSTGRES_URL=postgres://postgres@127.0.0.1:$port/postgres
}

postgres_failed() {
  cat "$1" >&2
  die "The private PostgreSQL did not start; it said why above."
}

stop_postgres() {
  [[ -n ${POSTGRES_PID:-} ]] || return 0
  kill -INT "$POSTGRES_PID" 2>/dev/null || true
  wait "$POSTGRES_PID" 2>/dev/null || true
}
