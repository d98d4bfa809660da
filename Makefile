# The only two commands a newcomer needs: `make demo` and `make test`.

export PATH := $(HOME)/.cargo/bin:$(PATH)
SPHEREFACE := target/release/sphereface

.PHONY: demo test lint cuda clean

# Installs what is missing, builds, enrols the three people of the bundled sample and
# writes the sample with their names on it.
demo: build
	$(SPHEREFACE) enroll --dir samples/people --gallery gallery
	$(SPHEREFACE) label samples/sample.mp4 -o named.mp4 --gallery gallery
	@echo "The annotated video is $(CURDIR)/named.mp4"

.PHONY: build
build:
	@tools/setup.sh run
	cargo build --release

test:
	@tools/setup.sh test
	cargo test

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

# The program with NVIDIA GPUs in it, on a machine with or without one.
cuda:
	@tools/setup.sh run
	tools/cuda.sh

clean:
	cargo clean
	rm -f named.mp4
