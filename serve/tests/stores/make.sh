#!/usr/bin/env bash
# Makes OUT.redb, a store with jobs in every state, and OUT.json, what the server then says of them. 692c81f.* are from
# the program of that commit:
#   BIN=target/release MODEL=artifacts/emoji OUT=692c81f serve/tests/stores/make.sh
set -euo pipefail
data=$(mktemp -d)
"$BIN/hydit-serve" serve --model "emoji=$MODEL" --listen 127.0.0.1:0 --data-dir "$data" --exact >"$data/out" &
server=$!
trap 'kill -9 $server 2>/dev/null || true; rm -rf "$data"' EXIT
until grep -q ready "$data/out"; do sleep 0.1; done
url=$(sed -n 's/listening on //p' "$data/out")
create() {
    curl -sf "$url/v1/jobs" -H 'content-type: application/json' -H "idempotency-key: $1" -d "$2" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])'
}
until_status() {
    until curl -sf "$url/v1/jobs/$1" | grep -q "\"status\":\"$2\""; do sleep 0.1; done
}

job=$(create done '{"prompt": "蓝色背景上的猫", "negative_prompt": "red", "seed": 7, "steps": 4, "n": 2, "size": "96x64",
    "sampler": "dpmms", "spacing": "trailing", "guidance": 3.3, "guidance_rescale": 0.7, "cache": "N2-1000-0",
    "output_format": "webp", "preview_every": 2, "deadline": 600}')
until_status "$job" done
for key in runs cancelled waits; do
    create "$key" '{"prompt": "a cat", "seed": 9007199254740991, "steps": 100, "size": "512x512",
        "cache": "probe:0.1+taylor1", "metadata": true}' >"$data/$key"
done
until_status "$(<"$data/runs")" running
curl -sf -X DELETE "$url/v1/jobs/$(<"$data/cancelled")" >/dev/null
curl -sf "$url/v1/jobs" | python3 -m json.tool --no-ensure-ascii --indent 1 >"$OUT.json"
kill -9 $server
cp "$data/jobs.redb" "$OUT.redb"
