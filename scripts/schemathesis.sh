#!/usr/bin/env bash
# Throws good and bad requests of every kind at a running server and holds each answer against its OpenAPI document.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

VENV=$TOOLS_DIR/schemathesis
QUESTIONS=scripts/schemathesis
BIN=${QUARTERDECK_BIN:-$TARGET_DIR/debug/quarterdeck}

SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/quarterdeck-schemathesis.XXXXXX")
SERVER=
clean_up() {
  [[ -z $SERVER ]] || { kill "$SERVER" && wait "$SERVER"; } 2>/dev/null || true
  rm -rf "$SCRATCH"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

install_schemathesis() {
  rm -rf "$VENV"
  python3 -m venv "$VENV"
  "$VENV/bin/pip" install --quiet --disable-pip-version-check -r "$QUESTIONS/requirements.txt"
  cp "$QUESTIONS/requirements.txt" "$VENV/"
}

# start_server: one whose limits let a flood pass, with somebody who may do everything.
start_server() {
  local port
  port=$(free_port)
  URL=http://127.0.0.1:$port
  env -i "PATH=$PATH" "HOME=$SCRATCH" \
    QUARTERDECK_API__RATE_LIMIT__FLOOR_MAX_REQUESTS=100000000 \
    QUARTERDECK_API__RATE_LIMIT__AUTH_MAX_REQUESTS=100000000 \
    QUARTERDECK_API__AUTH__MIN_PASSWORD_LENGTH=8 \
    QUARTERDECK_API__SERVER__TRUSTED_PROXIES='["127.0.0.1/32"]' \
    QUARTERDECK_API_PER_OP_RATE_LIMIT_ENABLED=false \
    QUARTERDECK_API_PER_OP_CONCURRENCY_ENABLED=false \
    "$BIN" serve --port "$port" --data-dir "$SCRATCH/data" >"$SCRATCH/stdout" 2>"$SCRATCH/log" &
  SERVER=$!
  until [[ -s $SCRATCH/stdout ]]; do
    kill -0 "$SERVER" 2>/dev/null || server_failed "The server did not start"
    sleep 0.1
  done
  QUARTERDECK_API_KEY=$(node "$QUESTIONS/prepare.mjs" "$URL")
  export QUARTERDECK_API_KEY
}

# server_failed SENTENCE: shows its last words first.
server_failed() {
  tail -n 20 "$SCRATCH/log" >&2
  die "$1; it said why above."
}

ask() {
  SCHEMATHESIS_HOOKS=hooks PYTHONPATH=$QUESTIONS PYTHONDONTWRITEBYTECODE=1 \
    "$VENV/bin/schemathesis" --config-file "$QUESTIONS/schemathesis.toml" run "$URL/docs/openapi.json" "$@"
  kill -0 "$SERVER" 2>/dev/null || server_failed "The server did not survive"
  curl -fsS -o /dev/null -H "Authorization: Bearer $QUARTERDECK_API_KEY" "$URL/api/v1/users" ||
    die "The caller has lost its rights on the way. Keep it, in $QUESTIONS/schemathesis.toml, from what it did to itself."
}

[[ -x $BIN ]] || die "There is no $BIN. Run \`cargo build\`, or name another with QUARTERDECK_BIN, then try again."
cmp -s "$QUESTIONS/requirements.txt" "$VENV/requirements.txt" ||
  step "Install Schemathesis (once)" "pip said why above; check that it reaches its registry." install_schemathesis
start_server
step "Question the server" "Mend the program or the document; run \`scripts/schemathesis.sh --include-path PATH\` for one." ask "$@"
