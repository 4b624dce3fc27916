"""The second table: what a directory, the tables of Postern and its scale cost.  Each row is a name, Postern's
figure, and what stands beside it."""

import contextlib
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import time

import peers
from harness.journal import poll
from harness.servers import Redis, program, write

HELD = (10, 1000, 10000)
MOST_HELD = 15000
HUNG = 1000


def rounded(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def children_cpu():
    """Seconds, of those that were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def commands_of(redis):
    lines = redis.ask("info", "stats").splitlines()
    return next(int(line.split(":")[1]) for line in lines if line.startswith("total_commands_processed:"))


class Scale:
    def __init__(self, bench):
        self.bench = bench
        self.turns = 1 if bench.is_quick else 3
        self.part = 4 if bench.is_quick else 1

    def micro(self, *words):
        done = subprocess.run([self.bench.micro_binary, *map(str, words)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)

    def medians(self, *words):
        """Of the turns' figures."""
        found = [self.micro(*(word() if callable(word) else word for word in words)) for _ in range(self.turns)]
        return {key: statistics.median(one[key] for one in found) for key in found[0]}

    @contextlib.contextmanager
    def postern(self, sink=None, **options):
        """A Postern of its own, started and warm."""
        bench = self.bench
        bench.sinks["scale"] = sink or bench.sink
        one = peers.Postern(bench.place("scale"), bench.postern, bench.sinks["scale"], bench.certificates,
                            bench.file, **options)
        bench.running["scale"] = one
        try:
            bench.wait_until_up("scale")
            yield one
        finally:
            del bench.running["scale"]
            one.stop()

    def cpu(self, one, count, options):
        """Median of CPU seconds per 1000 messages."""
        self.bench.load("scale", count // 10, options)
        found = []
        for _ in range(self.turns):
            before = one.cpu()
            self.bench.load("scale", count, options)
            found.append((one.cpu() - before) / count * 1000)
        return statistics.median(found)

    # --- the directory ---

    def conf(self, section):
        place = self.bench.place("conf")
        os.mkdir(os.path.join(place, "state"))
        return write(place, "postern.ini", f"[server]\nhostname = mx.example.test\nstate_dir = {place}/state\n"
                     "[log]\ntarget = stderr\nlevel = error\n"
                     f"[domain example.test]\ndownstream = sink\n[downstream sink]\nhosts = 127.0.0.1:9\n"
                     f"[directory]\n{section}\n")

    def postmap(self, count, at_once):
        """Look-ups a second, and CPU microseconds each, of Postfix's ldap_table in so many processes."""
        place = self.bench.place("postmap")
        write(place, "main.cf", "compatibility_level = 3.6\n")
        table = peers.postfix_ldap(place, self.bench.slapd)
        keys = [write(place, f"keys{i}", "".join(f"absent{n}@example.test\n" for n in range(i, count, at_once)))
                for i in range(at_once)]
        before, start = children_cpu(), time.monotonic()
        running = []
        for path in keys:
            with open(path, encoding="ascii") as names:
                # pylint: disable-next=consider-using-with
                running.append(subprocess.Popen([program("postmap"), "-c", place, "-q", "-", table], stdin=names,
                                                stdout=subprocess.DEVNULL))
        for one in running:
            one.wait()
        seconds = time.monotonic() - start
        return count / seconds, (children_cpu() - before) / count * 1e6

    def slapd_cpu(self):
        return sum(peers.process_tree(self.bench.slapd.process.pid).values())

    def live(self):
        count, slapd, alone = 40000 // self.part, [], None
        for at_once in (1, 100):
            n = count if at_once > 1 else count // 4
            ours, theirs = [], []
            for _ in range(self.turns):
                before = self.slapd_cpu()
                ours.append(self.micro("live", self.conf(peers.postern_ldap(self.bench.slapd)), n, at_once))
                slapd.append((self.slapd_cpu() - before) / n * 1e6)
                theirs.append(self.postmap(n, min(at_once, 10)))
            if any(one["absent"] != n for one in ours):
                raise AssertionError(f"not all are absent: {ours}")
            our, their = ({key: statistics.median(one[key] for one in ours) for key in ours[0]},
                          [statistics.median(column) for column in zip(*theirs)])
            beside = f"{min(at_once, 10)} × postmap" if at_once > 1 else "postmap"
            one = f"; one: {rounded(alone)}" if alone else ""
            name = f"look-ups live, {at_once} at a time"
            yield (f"{name} (a second)", f"{rounded(our['per_s'])}; p50 {rounded(our['p50_us'])} µs, "
                   f"p99 {rounded(our['p99_us'])} µs", f"{beside}: {rounded(their[0])}{one}")
            alone = their[0]
            yield (f"{name} (µs of CPU, without slapd's)", rounded(our["cpu_us"]), f"{beside}: {rounded(their[1])}")
        yield "slapd's own (µs of CPU a search)", rounded(statistics.median(slapd)), ""

    def digest(self):
        done = subprocess.run([program("openssl"), "speed", "-seconds", "1", "-bytes", "65536", "-evp", "sha256"],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        thousands = float(done.stdout.split()[-1].rstrip("k"))
        yield ("SHA-256 of 1 MiB (ms), by `openssl speed`: no body can cost less", f"{(1 << 20) / thousands:.3g}", "")

    def stored(self):
        yield "look-up in the cache, of 100,000 (ns)", rounded(self.medians("cache", 100000)["known_ns"]), ""
        few, many = (self.medians("snapshot", lambda: self.bench.place("snapshot"), n) for n in (1000, 1000000))
        yield ("look-up in a snapshot of 1,000,000, known / unknown (ns)",
               f"{rounded(many['known_ns'])} / {rounded(many['unknown_ns'])}",
               f"of 1,000: {rounded(few['known_ns'])} / {rounded(few['unknown_ns'])}")
        yield "a snapshot of 1,000,000 on disk (octets an address)", rounded(many["octets"]), ""
        look = self.medians("look", lambda: self.conf(
            peers.postern_ldap(self.bench.slapd) + "\nmode = snapshot\nsnapshot_filter = (mail=*)"))
        if look["entries"] != peers.KNOWN:
            raise AssertionError(f"the look: {look}")
        yield ("full look at 100,000 entries (s)", rounded(look["seconds"]),
               f"CPU without slapd's: {rounded(look['cpu_s'])}")

    def hang(self, one):
        """Connections whose RCPT waits for a server that never answers."""
        held = []
        for i in range(HUNG):
            client = socket.create_connection(("127.0.0.1", one.port), 30)
            client.recv(4096)
            client.sendall(f"HELO h\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<u{i}@hung.test>\r\nNOOP\r\n".encode())
            held.append(client)
        time.sleep(1)
        for client in held:
            said = client.recv(4096).split(b"\r\n")
            if len(said) != 3:  # HELO's reply and MAIL's
                raise AssertionError(f"not hung: {said}")
        return held

    def latency(self):
        """Medians of p50 and p99, as text."""
        found = [self.bench.load("scale", 1500 // self.part, {"rate": 300, "connections": 200}) for _ in range(3)]
        return " / ".join(f"{statistics.median(one[key] for one in found):.3g}" for key in ("p50_ms", "p99_ms"))

    def hung(self):
        slapd = peers.start_slapd(self.bench.place("slapd"), self.bench.certificates, 10)
        more = (f"[domain hung.test]\ndownstream = sink\ndirectory = hung\n[directory hung]\ntype = ldap\n"
                f"uri = {slapd.uri}\nbind = anonymous\nbase = {slapd.BASE}\nfilter = (mail=%u)\nattributes = mail\n"
                "timeout = 60s\n")
        with contextlib.ExitStack() as stack:
            stack.callback(slapd.stop)
            one = stack.enter_context(self.postern(more=more))
            stack.callback(slapd.process.send_signal, signal.SIGCONT)
            free = self.latency()
            slapd.freeze()
            for client in self.hang(one):
                stack.enter_context(client)
            hung = self.latency()
        yield f"a message beside {HUNG:,} hung look-ups, p50 / p99 (ms)", hung, f"beside none: {free}"

    # --- tables ---

    def tables(self):
        found = self.medians("ledger", 1000000)
        yield ("ledger: an unknown recipient of a new network, of a known one (ns)",
               f"{rounded(found['new_ns'])}, {rounded(found['again_ns'])}",
               f"once it is full: {rounded(found['full_ns'])}")
        yield ("ledger of 1,000,000 networks (octets each)", rounded(found["octets"]),
               f"{rounded(found['mib'])} MiB; after 1,000,000 others {rounded(found['full_mib'])} MiB")
        found = self.medians("log", lambda: os.path.join(self.bench.place("log"), "socket"), 200000 // self.part)
        if found["dropped"] != 0:
            raise AssertionError(f"the log: {found}")
        yield "lines of log to a syslog socket (a second)", rounded(found["per_s"]), ""

    def redis(self):
        redis = Redis(self.bench.place("redis"))
        harvest = f"ledger = redis\nredis = unix:{redis.socket_path}"
        count = 8000 // self.part
        try:
            with self.postern(harvest=harvest) as one:
                before = sum(peers.process_tree(redis.process.pid).values())
                asked = commands_of(redis)
                ours = self.cpu(one, count, {"connections": 20})
                time.sleep(1)
                messages = count * self.turns + count // 10
                theirs = (sum(peers.process_tree(redis.process.pid).values()) - before) / messages * 1000
                asked = (commands_of(redis) - asked) / messages
            yield ("4 KiB messages, the ledger in Redis (CPU-s per 1000)", rounded(ours),
                   f"Redis's own: {rounded(theirs)}, for {asked:.2g} commands a message")
        finally:
            redis.stop()

    # --- scale ---

    @contextlib.contextmanager
    def on_cores(self, n):
        """All that is started within, and the sink, which was before."""
        every = os.sched_getaffinity(0)
        pids = (0, self.bench.sink.process.pid)
        try:
            for pid in pids:
                os.sched_setaffinity(pid, sorted(every)[:n])
            yield
        finally:
            for pid in pids:
                os.sched_setaffinity(pid, every)

    def together(self, one, n, count, options):
        """N generators at once: messages a second, and CPU seconds per 1000 of Postern and of the generators."""
        bench, sink, total = self.bench, self.bench.sink, n * count
        before, cpu, theirs, start = sink.counters(), one.cpu(), children_cpu(), time.monotonic()
        argvs = [bench.load_argv(one, {**options, "transactions": count, "first_id": bench.next_id + i * count})
                 for i in range(n)]
        bench.next_id += total
        running = []
        for argv in argvs:
            # pylint: disable-next=consider-using-with
            running.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
        failed = any([each.wait() != 0 for each in running])
        seconds, cpu, theirs = time.monotonic() - start, one.cpu() - cpu, children_cpu() - theirs
        poll(lambda: failed or sink.counters()["messages"] - before["messages"] >= total, "all messages")
        after = sink.counters()
        if failed or (after["messages"] - before["messages"], after["bad"], after["twice"]) != (total, 0, 0):
            raise AssertionError(f"{total} sent; the sink: {before}, then {after}")
        return total / seconds, cpu / total * 1000, theirs / total * 1000

    def workers(self):
        """A worker, a generator and the sink's share on each core: what one core does, and two.  The generators share
        nothing but the machine, so what a message costs them more then, it costs Postern more, too."""
        found = []
        for n in (1, 2):
            with self.on_cores(n), self.postern(server=f"workers = {n}") as one:
                options = {"connections": 40, "starttls": 1}
                self.together(one, n, 300 // self.part, options)
                runs = [self.together(one, n, 3000 // self.part, options) for _ in range(self.turns)]
                found.append([statistics.median(column) for column in zip(*runs)])
        (rate, cost, their_cost), (rates, costs, their_costs) = found
        yield ("STARTTLS in, two workers and generators on two cores (messages a second)", rounded(rates),
               f"one on one: {rounded(rate)}; × {rates / rate:.2f}")
        yield ("the same (CPU-s per 1000 messages)", f"{rounded(costs)}; one on one: {rounded(cost)}",
               f"the generators: {rounded(their_costs)}; one on one: {rounded(their_cost)}")

    def outbound(self):
        """Each message over a connection of its own to the downstream."""
        bench, found = self.bench, []
        full = bench.keep(peers.Sink(bench.place("sink"), bench.sink_binary, bench.certificates.exchange,
                                     has_tickets=False))
        for sink in (bench.sink_tls, full):
            with self.postern(sink, out="required", downstream="connection_messages = 1") as one:
                found.append(self.cpu(one, 3000 // self.part, {"connections": 20}))
        yield ("STARTTLS out, a connection each, sessions resumed (CPU-s per 1000 messages)", rounded(found[0]),
               f"none resumed: {rounded(found[1])}")

    @contextlib.contextmanager
    def held(self, one, count):
        argv = self.bench.load_argv(one, {"connections": count, "hold": 1})
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as load:
            if json.loads(load.stdout.readline())["held"] != count:
                raise AssertionError("not all are held")
            yield
            load.stdin.close()
            load.wait()

    def many(self):
        figures = []
        with self.postern() as one:
            empty = one.pss()
            for count in (*HELD, MOST_HELD):
                with self.held(one, count):
                    figures.append(self.cpu(one, 4000 // self.part, {"connections": 20}))
                    memory = (one.pss() - empty) / 1024
        yield (f"4 KiB messages beside {', '.join(f'{n:,}' for n in HELD)} held connections (CPU-s per 1000)",
               ", ".join(rounded(each) for each in figures[:-1]), "")
        yield (f"the same beside {MOST_HELD:,}, in one process", rounded(figures[-1]),
               f"{rounded(memory)} MiB more than with none")

    def measure(self, wanted):
        """Print each row as it is there."""
        parts = [("digest", self.digest), ("live", self.live), ("stored", self.stored), ("hung", self.hung),
                 ("tables", self.tables), ("redis", self.redis), ("workers", self.workers), ("outbound", self.outbound),
                 ("held connections", self.many)]
        for name, part in parts:
            if wanted(name):
                for row in part():
                    print("| " + " | ".join(row) + " |", flush=True)
