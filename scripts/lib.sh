# Shared by the scripts beside it; sourced, not run.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"

TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
[[ $TARGET_DIR == /* ]] || TARGET_DIR=$ROOT/$TARGET_DIR
export CARGO_TARGET_DIR=$TARGET_DIR
TOOLS_DIR=$TARGET_DIR/tools
export PATH=$PATH:$TOOLS_DIR/bin

# say TEXT: one line about what happens.
say() {
  printf '==> %s\n' "$*"
}

# die SENTENCE: ends with what to do.
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# step NAME ADVICE COMMAND…: runs the command, says how long it took, and on failure what to do about it.
step() {
  local name=$1 advice=$2 began=$SECONDS status=0
  shift 2
  say "$name"
  # Not in a condition: inside the functions called here an error must still end them.
  set +e
  (
    set -e
    "$@"
  )
  status=$?
  set -e
  ((status == 0)) || die "\"$name\" failed after $((SECONDS - began)) s. $advice"
  say "$name: done in $((SECONDS - began)) s"
}

# has COMMAND…: whether all of them can be called.
has() {
  command -v "$@" >/dev/null 2>&1
}

as_root() {
  if ((EUID == 0)); then
    "$@"
  elif has sudo; then
    sudo "$@"
  else
    die "This needs root: run \"$*\" as root, or install sudo, then try again."
  fi
}

# require_toolchain: Rust and Node are the two things nobody installs for you.
require_toolchain() {
  has cargo || die "Cargo is not there. Install Rust (rustup), then try again."
  { has node npm && node -e 'const [a, b] = process.versions.node.split(".").map(Number);
    process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)'; } ||
    die "Node 20.19 or newer with npm is needed. Install it, then try again."
}

# install_packages NAME…: Debian packages, with their services kept from starting: tests run private ones.
install_packages() {
  has apt-get || die "apt-get is not there. Install the equivalents of $* by hand, then try again."
  local policy=/usr/sbin/policy-rc.d guarded=no status=0
  mkdir -p "$TARGET_DIR"
  if [[ ! -e $policy ]]; then
    guarded=yes
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod +x "$policy"
  fi
  { as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"; } \
    >"$TARGET_DIR/apt.log" 2>&1 || status=$?
  [[ $guarded == no ]] || as_root rm -f "$policy"
  ((status == 0)) || {
    tail -n 20 "$TARGET_DIR/apt.log" >&2
    return "$status"
  }
}

# install_node_packages FOLDER: what its lock file says, unless that is what is there.
install_node_packages() {
  local stamp=$1/node_modules/.installed
  cmp -s "$1/package-lock.json" "$stamp" || {
    npm --prefix "$1" ci --no-progress --loglevel=error
    cp "$1/package-lock.json" "$stamp"
  }
}

# cargo_tool COMMAND VERSION: a Cargo subcommand, built once into the target folder unless it is there.
# Built without optimisation: it runs for seconds, and so does not earn minutes of building.
cargo_tool() {
  local command=$1 version=$2
  ! has "$command" || return 0
  cargo install --quiet --locked --debug --root "$TOOLS_DIR" --target-dir "$TOOLS_DIR/build" \
    --version "$version" "$command"
  rm -rf "$TOOLS_DIR/build"
}

# find_chromium: puts the browser of the tests into CHROMIUM, unless it is named there already.
find_chromium() {
  CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
  export CHROMIUM
}

# free_port: a TCP port of the loopback address nobody listens on.
free_port() {
  node -e 'const s = require("net").createServer().listen(0, "127.0.0.1",
    () => { console.log(s.address().port); s.close(); })'
}
