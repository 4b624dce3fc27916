# The doors.  What is behind them is CMake (CMakePresets.json) and tests/.
#
#   make run    see Postern work, in front of a Postfix that stands in for Exchange
#   make test   build it, and run every test
#   make asan   the same with address and undefined behaviour sanitizers
#   make lint   read the source: format, clang-tidy, cppcheck, shellcheck, rules of its own
#   make clean  remove what was built
#
# Missing Debian packages are installed first (tests/packages/).

JOBS ?= $(shell nproc)
PACKAGES = tests/packages/install

.DEFAULT_GOAL = test
.PHONY: run test asan lint clean

run:
	$(PACKAGES) build test run
	cmake --preset release
	cmake --build --preset release -j $(JOBS) --target postern
	tests/demo/run build/release/postern

test:
	$(PACKAGES) build test run
	cmake --preset release
	cmake --build --preset release -j $(JOBS)
	ctest --preset release -j $(JOBS)

asan:
	$(PACKAGES) build test run
	cmake --preset asan
	cmake --build --preset asan -j $(JOBS)
	ctest --preset asan -j $(JOBS)

lint:
	$(PACKAGES) build lint
	cmake --preset dev
	JOBS=$(JOBS) tests/lint/run build/dev

clean:
	rm -rf build
