# The doors.  What is behind them is CMake (CMakePresets.json) and tests/.
#
#   make run    see Postern work, in front of a Postfix that stands in for Exchange
#   make test   build it, and run every test
#   make asan   the same with address and undefined behaviour sanitizers
#   make tsan   with the thread sanitizer, the tests in which threads meet
#   make valgrind  the tests from outside under valgrind, which sees uninitialized memory
#   make lint   read the source: format, clang-tidy, cppcheck, shellcheck, rules of its own
#   make bench  measure it beside Postfix, nginx and HAProxy (ten minutes of a quiet machine)
#   make month  a month of a company's mail on its harvest rules and on those of others
#   make fuzz   every fuzzer for a minute
#   make soak   an hour of mixed mail with faults, then the books and the memory (MINUTES=60)
#   make deb    make the Debian package: build/deb/*.deb        (make deb-test: try it in a root of its own)
#   make image  make the container image with what is there: docker, podman, buildah   (make image-test: try it)
#   make clean  remove what was built
#
# Missing Debian packages are installed first (tests/packages/).

JOBS ?= $(shell nproc)
MINUTES ?= 60
PACKAGES = tests/packages/install

.DEFAULT_GOAL = test
.PHONY: run test asan tsan valgrind lint bench month fuzz soak deb deb-test image image-test clean

run:
	$(PACKAGES) build test run
	cmake --preset release
	cmake --build --preset release -j $(JOBS) --target postern posternctl
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

# Several workers, the log's and the spool's writers, the directory's threads, the tables that all share.
TSAN_UNIT = unit/test_(log|mailbox|metrics|ledger|memo|mark|delivered|dir_client|dir_cache|snapshot|policy)
TSAN_REGRESS = regress/test_(end_to_end|pool|harvest|tls_strength|drain|reload)$$
tsan:
	$(PACKAGES) build test run
	cmake --preset tsan
	cmake --build --preset tsan -j $(JOBS)
	ctest --preset tsan -j $(JOBS) -R '$(TSAN_UNIT)|$(TSAN_REGRESS)'

# Each test of a file once, with the first of its parameters (conftest.py), a file for each job: a start takes 2 s.  Left
# out: what counts on times that are too short there (bounds, directory_lies, operation, pool), what has 10,000
# connections, a preloaded clock or namespaces (disasters, clock_steps, network), what hardly starts the daemon (check,
# control, documents), where libldap loses memory of its own (directory_live), and for the time it takes, samba, greeting,
# harvest, harvest_clients, laws, order_of_judgement, refusals and start.
VALGRIND = backscatter content control_effects damaged_state directories_together dns_policy downstream_tls drain \
    end_to_end faults hostile http injection learnt_verdicts limits log pipelining proxied_client recipients \
    redis_fleet reload smuggling snapshot_looks spool starttls syslog tls_strength
valgrind:
	$(PACKAGES) build test run valgrind
	cmake --preset release
	cmake --build --preset release -j $(JOBS)
	cd tests/regress && printf 'test_%s.py\n' $(VALGRIND) | \
	    UNDER_VALGRIND=$(CURDIR)/build/release/postern POSTERN=$(CURDIR)/tests/regress/valgrind \
	    POSTERNCTL=$(CURDIR)/build/release/posternctl SOURCE_DIR=$(CURDIR) PYTHONDONTWRITEBYTECODE=1 \
	    xargs -P $(JOBS) -n 1 /usr/bin/python3 -m pytest -q --tb=short

lint:
	$(PACKAGES) build lint
	cmake --preset dev
	JOBS=$(JOBS) tests/lint/run build/dev

bench:
	$(PACKAGES) build bench
	cmake --preset release
	cmake --build --preset release -j $(JOBS)
	tests/bench/run build/release

month:
	$(PACKAGES) build test
	cmake --preset release
	cmake --build --preset release -j $(JOBS) --target month
	build/release/tests/month

fuzz:
	$(PACKAGES) build test fuzz
	cmake --preset fuzz
	cmake --build --preset fuzz -j $(JOBS)
	tests/fuzz/run $(CURDIR)/build/fuzz

soak:
	$(PACKAGES) build test
	cmake --preset release
	cmake --build --preset release -j $(JOBS)
	cd build/release && $(CURDIR)/tests/soak/run postern tests/bench_load tests/bench_sink tests/libsoak_heap.so --minutes $(MINUTES)

# From a copy of the source, where debhelper finds docs/debian as it wants it.
deb:
	$(PACKAGES) build deb
	rm -rf build/deb
	mkdir -p build/deb/postern
	tar -cf - --exclude='./build*' --exclude=./.git . | tar -C build/deb/postern -xf -
	mv build/deb/postern/docs/debian build/deb/postern/debian
	cp docs/postern.service build/deb/postern/debian/
	cd build/deb/postern && dpkg-buildpackage -b -us -uc -j$(JOBS)
	rm -rf build/deb/postern
	lintian --fail-on error,warning --allow-root build/deb/*.changes

deb-test: deb
	tests/packages/deb-test build/deb/postern_*.deb

image:
	docker/build postern:latest

image-test:
	$(PACKAGES) image
	docker/test

clean:
	rm -rf build
