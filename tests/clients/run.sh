#!/usr/bin/env bash
# Runs real clients against `ossia serve` with nano: tests/clients/run.sh [NAME…], all of them without a name.
#
#   OSSIA          the program; built when not given
#   CLIENTS_HOME   where the clients' packages are put and found again (target/clients; 1 GB with Codex)
#   CODEX          a `codex` that is there already
#
# A client that cannot be installed is skipped, and said to be. Ends with 1 if any check failed.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
export CLIENTS_HOME=${CLIENTS_HOME:-$root/target/clients} PYTHONDONTWRITEBYTECODE=1
# name, package, scripts
clients=(
  "openai-python openai openai_chat.py openai_responses.py openai_kept.py openai_tuning.py"
  "openai-node openai openai_node.mjs"
  "openai-agents openai-agents openai_agents.py"
  "langchain-openai langchain-openai langchain_chat.py"
  "litellm litellm litellm_sdk.py"
  "ollama-python ollama ollama_python.py"
  "codex @openai/codex codex.py"
)

for name in "$@"; do
  if ! printf '%s\n' "${clients[@]%% *}" | grep -qx -- "$name"; then
    echo "no client $name; there are: ${clients[*]%% *}" >&2
    exit 2
  fi
done

if [ -z "${OSSIA:-}" ]; then
  cargo build --quiet --locked --manifest-path "$root/Cargo.toml" --package ossia || exit 1
  OSSIA=$root/target/debug/ossia
fi
mkdir -p "$CLIENTS_HOME"
data=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2>/dev/null; wait; rm -rf "$data"' EXIT

# serve NAME ARGS…: a server with a data folder of its own. Sets OSSIA_URL and, to a key that may do all that clients do, OPENAI_API_KEY.
serve() {
  local folder=$data/$1
  mkdir -p "$folder"
  OPENAI_API_KEY=$("$OSSIA" keys add --name clients --scope infer --scope files --scope batch --scope train --data "$folder" --json |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["key"])') || exit 1
  "$OSSIA" serve --port 0 --data "$folder" "${@:2}" >"$folder/out" 2>"$folder/log" &
  servers+=($!)
  for _ in $(seq 300); do
    OSSIA_URL=$(grep -o 'http://[0-9.:]*' "$folder/out" 2>/dev/null | head -1)
    [ -n "$OSSIA_URL" ] && break
    kill -0 "${servers[-1]}" 2>/dev/null || break
    sleep 0.1
  done
  if [ -z "$OSSIA_URL" ]; then
    cat "$folder/log" >&2
    exit 1
  fi
  export OSSIA_URL OPENAI_API_KEY OPENAI_BASE_URL=$OSSIA_URL/v1
}

# nano with more positions than it was trained for: Codex' prompt has 17,000 tokens. What it says there has no sense.
long_nano() {
  mkdir -p "$data/nano-long"
  cp "$root"/models/nano/* "$data/nano-long/"
  sed -i.old 's/"max_position_embeddings": [0-9]*/"max_position_embeddings": 65536/' "$data/nano-long/config.json"
}

with_python() { # NAME PACKAGE: a virtual environment
  local venv=$CLIENTS_HOME/$1
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv" || return 1
  "$venv/bin/python" -c "import importlib.metadata as m; m.version('$2')" 2>/dev/null ||
    "$venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "$2" pydantic || return 1
  python=$venv/bin/python
}

with_node() { # PACKAGES…: in one folder
  export CLIENT_HOME=$CLIENTS_HOME/node
  mkdir -p "$CLIENT_HOME"
  local package
  for package in "$@"; do
    [ -d "$CLIENT_HOME/node_modules/$package" ] ||
      npm install --silent --no-audit --no-fund --prefix "$CLIENT_HOME" "$package" || return 1
  done
}

prepare() { # NAME PACKAGE
  case $1 in
  openai-node) with_node openai zod ;;
  codex)
    python=python3
    [ -n "${CODEX:-}" ] || { with_node @openai/codex && CODEX=$CLIENT_HOME/node_modules/.bin/codex; }
    export CODEX
    ;;
  *) with_python "$1" "$2" ;;
  esac
}

serve nano -m nano
nano=("$OSSIA_URL" "$OPENAI_API_KEY")
declare -A result=()
for client in "${clients[@]}"; do
  read -r name package scripts <<<"$client"
  [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
  echo "$name"
  if ! prepare "$name" "$package"; then
    result[$name]="skipped: $package cannot be installed here"
    continue
  fi
  if [ "$name" = codex ]; then
    long_nano
    serve codex -m "$data/nano-long" --no-key --alias gpt-oss:20b --alias openai/gpt-oss-20b --alias gpt-oss-20b
  else
    export OSSIA_URL=${nano[0]} OPENAI_BASE_URL=${nano[0]}/v1 OPENAI_API_KEY=${nano[1]}
  fi
  result[$name]=passed
  for script in $scripts; do
    case $script in
    *.mjs) node "$here/$script" ;;
    *) "$python" "$here/$script" ;;
    esac || result[$name]=FAILED
  done
done

echo
failed=0
for name in "${!result[@]}"; do
  echo "$name: ${result[$name]}"
  [ "${result[$name]}" != FAILED ] || failed=1
done
grep -h ' ERROR \|panicked' "$data"/*/log && failed=1
exit $failed
