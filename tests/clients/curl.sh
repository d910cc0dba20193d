#!/usr/bin/env bash
# curl against a server: curl.sh URL KEY
set -euo pipefail
url=$1 key=$2

fail() {
    echo "curl: $1" >&2
    exit 1
}
ask() {
    curl --silent --show-error --max-time 60 -H "Authorization: Bearer $key" "$@"
}
draw() {
    ask "$url/v1/images/generations" -H 'Content-Type: application/json' "$@"
}
status() {
    "$@" --output /dev/null --write-out '%{http_code}'
}
# The PNG in a JSON answer: its first bytes, its width and its height.
png() {
    sed 's/.*"b64_json":"\([^"]*\)".*/\1/' | base64 --decode | od -An -v -t x1 | tr -d ' \n' | cut -c 1-48
}

curl --silent --fail "$url/health" >/dev/null || fail 'not alive'
curl --silent --fail "$url/ready" >/dev/null || fail 'not ready'
head=$(draw --fail --data '{"prompt": "蓝色背景上的猫", "size": "192x128", "steps": 3, "seed": 7}' | png)
[[ $head == 89504e470d0a1a0a0000000d49484452000000c000000080 ]] || fail "no PNG of 192x128: $head"
echo 'generate: a 192x128 PNG'

cat='{"prompt": "蓝色背景上的猫", "size": "192x128", "steps": 3, "seed": 7'
file=$(draw --fail --data "$cat, \"response_format\": \"file\"}" | sha256sum)
lent=$(draw --fail --data "$cat, \"response_format\": \"url\"}" | sed 's/.*"url":"\([^"]*\)".*/\1/')
[[ $(curl --silent --fail "$lent" | sha256sum) == "$file" ]] || fail "not the picture: $lent"
echo 'the picture as a file, and by an address without the key'

events=$(draw --fail --no-buffer --data '{"prompt": "a cat", "steps": 3, "stream": true, "partial_images": 1}' |
    sed -n 's/^event: //p' | tr '\n' ' ')
[[ $events == 'image_generation.partial_image image_generation.completed ' ]] || fail "events: $events"
echo 'stream: a picture on the way, then the picture'

for case in '400 {"prompt": "a cat", "size": "1x1"}' '400 {' '404 {"prompt": "a cat", "model": "other"}'; do
    got=$(status draw --data "${case#* }")
    [[ $got == "${case%% *}" ]] || fail "${case#* }: $got"
done
[[ $(status ask "$url/v1/images/generations" -H 'Content-Type: text/plain' --data '{}') == 415 ]] || fail 'plain text was taken'
[[ $(status curl --silent "$url/v1/models") == 401 ]] || fail 'no key was taken'
[[ $(status ask -X PUT "$url/v1/models") == 405 ]] || fail 'PUT was taken'
echo 'errors: 400, 401, 404, 405, 415'

infer='{"inputs": [{"name": "prompt", "shape": [1], "datatype": "BYTES", "data": ["a cat"]},
    {"name": "steps", "shape": [1], "datatype": "INT32", "data": [2]}], "outputs": [{"name": "image"}]}'
ask --fail "$url/v2/models/emoji/infer" --data "$infer" | grep '"data":\["iVBORw0KGgo' >/dev/null || fail 'no inference'
ask --fail "$url/openapi.json" | grep '"openapi":"3' >/dev/null || fail 'no document'
echo 'inference and the OpenAPI document'
curl --version | sed -n '1s/^\(curl [^ ]*\).*/\1 passed/p'
