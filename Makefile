# hydit: `make` lists the targets. Every one can be run again; what is done already is not done twice.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

TARGET := $(or $(CARGO_TARGET_DIR),target)
# With the dev profile the dependencies are optimised all the same (Cargo.toml): tests, lints and checks share it.
DEV := $(TARGET)/debug
RELEASE := $(TARGET)/release

PROMPT ?= 蓝色背景上的猫
SAMPLER ?= dpmms
STEPS ?= 25
GAP ?= 3
ROUNDS ?= 5

say = @printf '== %s\n'

.PHONY: help setup setup-test tools lint-tools build export-emoji demo test check fmt clippy doc check-docs check-features check-unused \
	cargo-test check-onnx check-triton check-client check-page check-release check-deploy check-tensorrt test-hosts package test-packages reference cache-table sheet soak bench rivals fuzz supply-chain reproducible clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: tools ## look for cargo and Python 3, fetch libonnxruntime into .runtime/
	$(say) 'ONNX Runtime'
	@scripts/setup-ort

build: tools ## build hydit-export and hydit-serve (release)
	$(say) 'building $(RELEASE)/hydit-export and hydit-serve (minutes at first)'
	@cargo build --quiet --release --locked --workspace --bins

demo: setup export-emoji ## draw demo/cat.png with the small model, with and without the cache
	$(say) 'drawing $(PROMPT)'
	@mkdir -p demo
	@$(RELEASE)/hydit-serve generate --model artifacts/emoji --prompt '$(PROMPT)' --sampler $(SAMPLER) \
		--infer-steps $(STEPS) --use-cache --cache-step $(GAP) --compare -o demo/cat.png
	$(say) 'the pictures:'
	@ls -1 demo/*.png

export-emoji: build
	$(say) 'exporting models/emoji to artifacts/emoji'
	@$(RELEASE)/hydit-export --checkpoint models/emoji --out artifacts/emoji >/dev/null

# Set-up alone uses the network. Each part says how long it took.
test: ## all that must hold: format, lints, documents, features, tests, exported files, Triton, clients, the page
	@scripts/part --begin
	@scripts/part 'set-up' $(MAKE) --no-print-directory setup-test
	@CARGO_NET_OFFLINE=true $(MAKE) --no-print-directory check cargo-test check-onnx check-triton \
		check-client check-page check-deploy
	$(say) 'time of each part:'
	@scripts/part --table
	$(say) 'all tests passed'

setup-test: tools lint-tools ## fetch what the tests need
	@scripts/setup-test

check: fmt clippy doc check-docs check-release check-features check-unused ## format, lints, documents, features, dependencies

fmt: lint-tools
	@scripts/part 'format' cargo fmt --all --check

clippy: lint-tools
	@scripts/part 'lints (minutes at first)' cargo clippy --quiet --locked --workspace --all-targets -- -D warnings

doc: tools
	@RUSTDOCFLAGS='-D warnings' scripts/part 'documentation of the crates' \
		cargo doc --quiet --locked --workspace --no-deps

check-docs: tools
	@scripts/part 'documents: links, widths' python3 tests/python/check_docs.py

check-release: tools
	@scripts/part 'versions, changelog, metadata of the crates' python3 tests/python/check_release.py

check-features: lint-tools
	@scripts/part 'without GPU providers' \
		cargo clippy --quiet --locked -p hydit-serve --no-default-features -- -D warnings

check-unused: tools
	@scripts/part 'unused dependencies' scripts/check-unused

cargo-test: tools
	@scripts/part 'building the tests (minutes at first)' \
		cargo build --quiet --locked --workspace --all-targets
	@scripts/part 'tests' scripts/run-tests
	@scripts/part 'examples in the documentation' cargo test --quiet --locked --workspace --doc

# Fresh exports, read by the onnx package and run by it or the onnxruntime package.
check-onnx: tools
	@scripts/part 'exported files' scripts/check-onnx $(DEV)

check-triton: tools
	@scripts/part 'a true Triton' scripts/test-triton $(DEV)

check-client: tools
	@HYDIT_BIN=$(DEV) scripts/part "OpenAI's own client" scripts/test-clients --light

check-page: tools
	@scripts/part 'the page in Chromium' scripts/test-page $(DEV)

check-deploy: tools
	@scripts/part 'containers, clusters, a rolling restart' scripts/test-deploy $(DEV)

package: tools ## make a wheel, a Debian package and an archive of this machine's kind in target/package/
	@scripts/package

test-packages: package ## install each in a clean Debian and draw there (as root; minutes)
	@scripts/test-packages

# All forms in all precisions for three GPUs take 15 minutes.
check-tensorrt: build ## NVIDIA's compiler takes every graph, for GPUs that need not be here: layers, bytes, seconds
	@scripts/check-tensorrt $(RELEASE)

test-hosts: tools ## the same in short, after make test: the plain form, one GPU for each precision
	@cargo build --quiet --locked --workspace --all-targets
	@scripts/part "NVIDIA's compiler" scripts/check-tensorrt --short $(DEV)

reference: tools ## make the reference files of the tests again, with diffusers
	$(say) 'Python packages of the reference (torch is large)'
	@scripts/setup-python .venv-reference tests/reference/requirements.txt
	@.venv-reference/bin/python tests/reference/make_all.py

cache-table: setup export-emoji ## measure cache policies on this machine, as Markdown tables
	@$(RELEASE)/hydit-serve bench --model artifacts/emoji --prompt '$(PROMPT)' --sampler $(SAMPLER) \
		--infer-steps $(STEPS) --rounds $(ROUNDS) $(addprefix --policy ,off N1 N2 N3 N4 N5 N6)

sheet: setup export-emoji ## calibrate the small model, then demo/sheet.html, .svg and .csv: policies beside each other
	@test -f artifacts/emoji/calibration-dpmms-linspace-25.yaml || \
		$(RELEASE)/hydit-serve calibrate --model artifacts/emoji --sampler dpmms --infer-steps 25 \
			--prompts bench/cache/prompts/emoji-calibrate.txt --batch-size 2 --runs 6,8,11,14,17
	@mkdir -p demo
	@$(RELEASE)/hydit-serve sheet --model artifacts/emoji --sampler dpmms --infer-steps 25 \
		--prompts bench/cache/prompts/emoji-heldout.txt --show 5 --fewer-steps 6,8,11,14,17 \
		--policy N2,N3,N4,N6,auto:17runs,auto:14runs,auto:11runs,auto:8runs,auto:6runs \
		-o demo/sheet.html --plot demo/sheet.svg --csv demo/sheet.csv

bench: build setup ## measure hydit beside diffusers, cache-dit, ONNX Runtime and OpenVINO: demo/peers.md and .png
	$(say) 'Python packages of the peers (torch is large)'
	@scripts/setup-python .venv-bench bench/peers/requirements.txt
	$(say) 'exporting models/emoji to artifacts/peers/'
	@$(RELEASE)/hydit-export --checkpoint models/emoji --out artifacts/peers/fp32-portable --full >/dev/null
	@$(RELEASE)/hydit-export --checkpoint models/emoji --out artifacts/peers/fp32-ort-cpu \
		--optimize-for ort-cpu >/dev/null
	@$(RELEASE)/hydit-export --checkpoint models/emoji --out artifacts/peers/int8-ort-cpu \
		--optimize-for ort-cpu --dtype int8 >/dev/null
	$(say) 'measuring (minutes)'
	@.venv-bench/bin/python bench/peers/run.py --serve $(RELEASE)/hydit-serve --checkpoint models/emoji \
		--artifacts artifacts/peers/fp32-portable artifacts/peers/fp32-ort-cpu artifacts/peers/int8-ort-cpu --prompt '$(PROMPT)' --steps $(STEPS) --policy N$(GAP)-700-50 \
		--rounds $(ROUNDS) --table demo/peers.md --json demo/peers.json --plot demo/peers.png
	$(say) 'table, data and plot:'
	@ls -1 demo/peers.*

# Hours on two cores for all of it; what is measured already is kept. RIVALS='--models emoji --prompts 10' is shorter.
rivals: build setup ## set other caching methods beside hydit's, in PyTorch: demo/rivals/rivals.md, .csv and .png (hours)
	$(say) 'Python packages of the comparison (torch is large)'
	@scripts/setup-python .venv-rivals bench/rivals/requirements.txt
	$(say) 'checking the comparison itself'
	@.venv-rivals/bin/python bench/rivals/run.py --check
	$(say) 'exporting models/emoji and models/badges to artifacts/rivals/'
	@for model in emoji badges; do \
		$(RELEASE)/hydit-export --checkpoint models/$$model --out artifacts/rivals/$$model >/dev/null; done
	$(say) 'calibrating, searching and judging (hours)'
	@.venv-rivals/bin/python bench/rivals/run.py --serve $(RELEASE)/hydit-serve --artifacts artifacts/rivals \
		--out demo/rivals $(RIVALS)
	$(say) 'table, data and plot:'
	@ls -1 demo/rivals/rivals.*

# Release builds: what is measured is what users run.
soak: setup ## the server and the files for long: load, kills, signals, lost writes (SOAK=kill: one part)
	@scripts/soak $(SOAK)

FUZZ_SECONDS ?= 600

fuzz: setup ## give forged files and requests to every reader, FUZZ_SECONDS each (600)
	@scripts/fuzz $(FUZZ_SECONDS)

supply-chain: tools ## check licences and sources of all crates, write bills of materials to target/sbom/
	@scripts/supply-chain

reproducible: tools ## build the programs in two folders, and compare their bytes (two release builds)
	@scripts/reproducible

clean: ## remove what was built, exported and drawn; .runtime/ stays
	@cargo clean --quiet
	@rm -rf artifacts demo .debian .tools .triton .venv-*

tools:
	@command -v cargo >/dev/null || { \
		echo 'cargo is missing: install Rust 1.95 or newer, https://rustup.rs' >&2; exit 1; }
	@command -v python3 >/dev/null || { \
		echo 'python3 is missing (on Debian: apt-get install python3)' >&2; exit 1; }

lint-tools: tools
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || { \
		echo 'rustfmt or clippy is missing: rustup component add rustfmt clippy' >&2; exit 1; }
