# To begin with: `make demo` and `make test`.
# `make install` installs the program with its manual pages and completions under PREFIX, and under DESTDIR if it is set.

export PATH := $(HOME)/.cargo/bin:$(PATH)
SPHEREFACE := target/release/sphereface
PREFIX ?= /usr/local
INSTALLED = $(DESTDIR)$(PREFIX)

PYTHON_ENV := target/python
MATURIN := $(PYTHON_ENV)/bin/maturin

.PHONY: demo serve test install uninstall lint cuda clean

# Installs missing packages, builds, enrols the three people of the bundled sample and
# writes the sample with their names on it.
demo: build
	$(SPHEREFACE) enroll --dir samples/people --gallery gallery
	$(SPHEREFACE) label samples/sample.mp4 -o named.mp4 --gallery gallery
	@echo "The annotated video is $(CURDIR)/named.mp4"

# Shows the service with the bundled sample as a camera; Ctrl-C ends it.
serve: build
	$(SPHEREFACE) enroll --dir samples/people --gallery target/serve/gallery
	$(SPHEREFACE) serve --source sample=samples/sample.mp4 --repeat \
	    --gallery target/serve/gallery --data target/serve/data

.PHONY: build
build:
	@tools/setup.sh run
	cargo build --release

# Formatting, lints, documentation, every combination of features, then the tests.
test:
	@tools/setup.sh test
	@tools/check.sh

# Builds only if there is no program yet, because `make install` runs as root: run `make build` first without root.
$(SPHEREFACE):
	$(MAKE) build

install: $(SPHEREFACE)
	install -d "$(INSTALLED)/bin" "$(INSTALLED)/share/man/man1" \
	    "$(INSTALLED)/share/bash-completion/completions" "$(INSTALLED)/share/zsh/site-functions" \
	    "$(INSTALLED)/share/fish/vendor_completions.d"
	install -m 755 $(SPHEREFACE) "$(INSTALLED)/bin/sphereface"
	$(SPHEREFACE) man "$(INSTALLED)/share/man/man1"
	$(SPHEREFACE) completions bash >"$(INSTALLED)/share/bash-completion/completions/sphereface"
	$(SPHEREFACE) completions zsh >"$(INSTALLED)/share/zsh/site-functions/_sphereface"
	$(SPHEREFACE) completions fish >"$(INSTALLED)/share/fish/vendor_completions.d/sphereface.fish"

# A Debian package, target/debian/sphereface_*.deb, for the release of Debian on which it is built, with the program and
# the plugin; test-deb installs and runs it in a bare Debian (as root).
.PHONY: deb test-deb
CARGO_DEB := target/tools/bin/cargo-deb
deb: $(SPHEREFACE) $(CARGO_DEB)
	rm -rf target/deb target/debian
	mkdir -p target/deb/man
# With the program, so that both are made of the same objects.
	cargo build --release -p sphereface -p gst-plugin-sphereface
	install -D -m 644 target/release/libgstsphereface.so \
	    "target/deb/root$$(pkg-config --variable=pluginsdir gstreamer-1.0)/libgstsphereface.so"
	$(SPHEREFACE) man target/deb/man
	$(SPHEREFACE) completions bash >target/deb/sphereface.bash
	$(SPHEREFACE) completions zsh >target/deb/_sphereface
	$(SPHEREFACE) completions fish >target/deb/sphereface.fish
	sed 's,/usr/local/bin/,/usr/bin/,' packaging/sphereface.service >target/deb/sphereface.service
	$(CARGO_DEB) --no-build --output target/debian/

test-deb:
	tools/deb/try.sh

$(CARGO_DEB):
	cargo install -q cargo-deb --version "^3" --locked --root target/tools

uninstall:
	rm -f "$(INSTALLED)/bin/sphereface" "$(INSTALLED)"/share/man/man1/sphereface.1 \
	    "$(INSTALLED)"/share/man/man1/sphereface-*.1 \
	    "$(INSTALLED)/share/bash-completion/completions/sphereface" \
	    "$(INSTALLED)/share/zsh/site-functions/_sphereface" \
	    "$(INSTALLED)/share/fish/vendor_completions.d/sphereface.fish"

lint:
	@tools/check.sh lint

# The program with support for NVIDIA GPUs. The machine that builds it needs no GPU.
cuda:
	@tools/setup.sh run
	tools/cuda.sh

# The wheel for Python, target/wheels/sphereface-*.whl, and its tests. maturin is installed in a folder of its own.
.PHONY: wheel test-wheel python-tools plugin test-plugin
wheel: python-tools
	@tools/setup.sh run
	$(MATURIN) build --release --manifest-path bindings/python/Cargo.toml --out target/wheels

test-wheel:
	@tools/setup.sh test
	@tools/check.sh python

# Tools that build and test the wheel, from the registry of Python packages.
python-tools: $(PYTHON_ENV)/made
$(PYTHON_ENV)/made: bindings/python/tests/requirements.txt
	python3 -m venv $(PYTHON_ENV)
	$(PYTHON_ENV)/bin/pip install -q --disable-pip-version-check -r $<
	touch $@

# The plugin for GStreamer, target/release/libgstsphereface.so, and its tests.
plugin:
	@tools/setup.sh run
	cargo build --release -p gst-plugin-sphereface

test-plugin:
	@tools/setup.sh test
	cargo test -p gst-plugin-sphereface

# Parsers of editing formats for tests/timeline.rs, in a folder of their own.
.PHONY: editing-parsers
editing-parsers:
	python3 -m venv target/editing
	target/editing/bin/pip install -q "opentimelineio>=0.18,<0.19" "otio-cmx3600-adapter>=1,<2" "otio-fcp-adapter>=1,<2" \
	    "otio-fcpx-xml-adapter>=1,<2" "pympi-ling>=1.71,<2"

# Tests the API of the service with a client that knows only the OpenAPI document, for SECONDS.
.PHONY: api-client
SECONDS ?= 120
api-client: target/schemathesis/bin/schemathesis
	cargo build --release
	benches/api.py --seconds $(SECONDS)

target/schemathesis/bin/schemathesis:
	python3 -m venv target/schemathesis
	target/schemathesis/bin/pip install -q "schemathesis>=4,<5"

# Checks of the parsers of untrusted input, of memory and of threads (docs/fuzzing.md). Each fuzz target runs for SECONDS.
.PHONY: fuzz address memcheck thread miri deny
fuzz:
	tools/fuzz.sh $(SECONDS) $(TARGETS)

address memcheck thread miri:
	tools/memory.sh $@

# Checks licences, sources and known vulnerabilities of dependencies against deny.toml.
deny:
	cargo deny check

clean:
	cargo clean
	rm -f named.mp4
