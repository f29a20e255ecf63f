# The front door. A bare Debian 12 needs only `make` and `git` first; everything else is installed by `make setup`, which the other
# targets call and which does nothing the second time.
#
#   make demo      set up, build, make a real model light, show what it cost, talk to it
#   make test      set up, build, fetch the test models, run every test
#
# Variables: TORCH_INDEX=URL   pip index for torch (for the small CPU build where the default index brings CUDA's gigabytes)
#            CMAKE_ARGS=...    passed to cmake, e.g. -DCMAKE_PREFIX_PATH=/opt/libtorch
#            WERROR=1          warnings in Lighten's own code are errors (CI)
#            PREFIX=/usr/local where `make install` puts things
SHELL := /bin/bash
BUILD := build
PREFIX ?= /usr/local
PYTHON := .venv/bin/python
CMAKE_FLAGS := $(if $(WERROR),-DLIGHTEN_WERROR=ON,) $(CMAKE_ARGS)

.PHONY: bench-training all setup configure build demo test test-models unit interop interop-full end-to-end lint format bench docs sanitize neon bench-retrieval install clean distclean help
all: build

help:
	@sed -n '2,12s/^# \{0,1\}//p' Makefile

setup:
	@TORCH_INDEX="$(TORCH_INDEX)" tools/setup.sh

configure: setup
	@cmake --preset release $(CMAKE_FLAGS) > $(BUILD).log 2>&1 || { cat $(BUILD).log; exit 1; }; rm -f $(BUILD).log

build: configure
	@cmake --build --preset release

demo: build
	@$(BUILD)/lighten demo -o out/demo

# The models and texts that tests read; tests themselves never reach for the network.
test-models: build
	@for id in smollm2-135m gemma3-270m minilm-l6 prose deb-text fashion; do $(BUILD)/lighten data get $$id --path > /dev/null || exit 1; done
	@$(PYTHON) tests/interop/tokenizers_interop.py --fetch

test: build test-models
	@$(PYTHON) tools/run_tests.py --build $(BUILD)

unit: build
	@$(PYTHON) tools/run_tests.py --build $(BUILD) --only unit

interop: build test-models
	@$(PYTHON) tools/run_tests.py --build $(BUILD) --only interop

# Every token id on 100,000 lines of text in 21 languages: ten minutes.
interop-full: build test-models
	@$(PYTHON) tests/interop/tokenizers_interop.py --full

end-to-end: build test-models
	@$(PYTHON) tools/run_tests.py --build $(BUILD) --only end_to_end

# clang-tidy takes a few minutes the first time; clean files are remembered in .cache/tidy.
lint: configure
	@$(PYTHON) tools/check_floors.py
	@$(PYTHON) tools/lint.py --build $(BUILD)

format: setup
	@git ls-files -z '*.cpp' '*.h' | xargs -0 clang-format -i

# The shared nets trained by our loop and by Python PyTorch, by turns: five minutes on a quiet machine.
bench-training: build
	@$(PYTHON) bench/training/compare.py --build $(BUILD)

bench: build
	@$(BUILD)/kernels_bench
	@for bits in 2 3 4 8; do $(BUILD)/lighten bench --random smollm2-135m --bits $$bits --group-size 64 --limits; done
	@for bits in 2 4; do $(BUILD)/lighten bench --random llama-1b --bits $$bits --group-size 32 --prefill 256 --decode 64 --repeat 3 --limits; done

# Scans beside the machine's limits, and the index beside faiss-cpu by turns: Hamming distance, and SDC with recall on deb-pairs.
bench-retrieval: build
	@$(BUILD)/kernels_bench --benchmark_filter=scan/
	@$(PYTHON) bench/peers/vectors --build $(BUILD)

# The generated parts of the documents: the map of the 77 in README.md and the tables of the systems' READMEs.
docs: build
	@$(PYTHON) tools/generate_docs.py --build $(BUILD)

# The torch-free part under AddressSanitizer + UBSan and under ThreadSanitizer.
sanitize: setup
	@cmake --preset asan > /dev/null && cmake --build --preset asan && ctest --preset asan
	@cmake --preset tsan > /dev/null && cmake --build --preset tsan && ctest --preset tsan

# The torch-free part for AArch64: built by a cross compiler, its tests run by qemu: with every feature, then the kernels and the
# runtime on a processor without i8mm and on one without dotprod. Some twenty minutes on two cores.
neon: setup
	@tools/setup_neon.sh
	@cmake --preset neon $(CMAKE_FLAGS) > build-neon.log 2>&1 || { cat build-neon.log; exit 1; }; rm -f build-neon.log
	@cmake --build --preset neon
	@QEMU_CPU=max ctest --preset neon
	@for cpu in neoverse-n1 cortex-a53; do QEMU_CPU=$$cpu ctest --preset neon -R '^(kernels|runtime)$$' || exit 1; done

install: build
	@cmake --install $(BUILD) --prefix $(PREFIX)

clean:
	@rm -rf $(BUILD) build-debug build-asan build-tsan build-neon out

distclean: clean
	@rm -rf .venv .setup-stamp reproduce
