# A private PostgreSQL that lives as long as the script that sources this; not run by itself.
# shellcheck shell=bash

# The newest installed major version's programs; Debian keeps them out of the PATH.
postgres_bin() {
  local newest
  newest=$(find /usr/lib/postgresql -mindepth 3 -maxdepth 3 -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1)
  [[ -n $newest ]] || newest=$(command -v initdb || true)
  [[ -n $newest ]] && dirname "$newest"
}

# PostgreSQL refuses to run as root.
as_postgres() {
  if ((EUID == 0)); then
    runuser -u postgres -- "$@"
  else
    "$@"
  fi
}

# start_postgres FOLDER: starts a server in FOLDER and exports QUARTERDECK_TEST_POSTGRES_URL.
start_postgres() {
  local folder=$1 port
  POSTGRES_BIN=$(postgres_bin)
  POSTGRES_DATA=$folder/postgres
  port=$(free_port)
  mkdir "$POSTGRES_DATA"
  if ((EUID == 0)); then
    chmod 711 "$folder"
    chown postgres "$POSTGRES_DATA"
  fi
  # Loopback only, thrown away at the end, and so neither guarded by a password nor safe against power loss.
  (
    cd "$POSTGRES_DATA"
    as_postgres "$POSTGRES_BIN/initdb" -D "$POSTGRES_DATA/data" -U postgres -A trust -E UTF8 --locale=C --no-sync
    as_postgres "$POSTGRES_BIN/pg_ctl" -D "$POSTGRES_DATA/data" -w -l "$POSTGRES_DATA/log" -o "-p $port \
      -c listen_addresses=127.0.0.1 -c unix_socket_directories=$POSTGRES_DATA -c max_connections=300 \
      -c fsync=off -c synchronous_commit=off -c full_page_writes=off" start
  ) >"$folder/postgres-start.log" 2>&1 || {
    cat "$folder/postgres-start.log" "$POSTGRES_DATA/log" >&2 2>/dev/null || true
    die "The private PostgreSQL did not start. Its output is above."
  }
  export QUARTERDECK_TEST_POSTGRES_URL=postgres://postgres@127.0.0.1:$port/postgres
}

stop_postgres() {
  [[ -n ${POSTGRES_DATA:-} ]] || return 0
  as_postgres "$POSTGRES_BIN/pg_ctl" -D "$POSTGRES_DATA/data" -m immediate stop >/dev/null 2>&1 || true
}
