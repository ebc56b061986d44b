#!/usr/bin/env python3
"""Several hosts on one machine: runs a program by mpirun over network namespaces that shaped links join.

    cluster/hosts.py --hosts 2 --rate 1gbit --delay 1ms build/bin/train_classifier --synthetic

Each host is a network namespace (trireme-h1, ...) with a host name (h1, ...), a /dev/shm and System V memory of its own,
and one link to a bridge. Rates and losses are the kernel's (tc, nftables), in each direction of each link; a delay is that of a wire in
user space, since many kernels have no netem. Needs root, iproute2, and nftables for --loss. Everything it makes is removed
again, also when it is stopped: then mpirun has some seconds to stop the ranks. Where the kernel makes no namespaces it
says so and runs all ranks on this host.
"""
import argparse
import contextlib
import fcntl
import os
import pathlib
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

NETWORK = "10.77.0"
BRIDGE = "trireme0"
PREFIX = "trireme-"
PATIENCE = 15  # seconds, for mpirun to end once it was told to
LEAST_BURST = 70_000  # bytes: a packet as the kernel hands it on
MOMENT = 200e-6  # seconds that the kernel may be late
LONG_FRAME = 65000  # of a wire, so that a wire of some Gbit/s is few frames
TAP, NO_PACKET_INFO = 0x0002, 0x1000
SET_INTERFACE = 0x400454CA

AGENT = """#!/bin/sh
# Stands in for ssh: options, then the host's name, then the command.
while [ "${1#-}" != "$1" ]; do shift; done
host=$1; shift
exec ip netns exec "trireme-$host" unshare --uts --mount --ipc /bin/sh -c \\
  "hostname $host; mount -t tmpfs tmpfs /dev/shm; $*"
"""


class Refused(Exception):
    """The kernel, or what is installed, does not allow it."""


def tool(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["failed"]
        raise Refused(f"{shlex.join(command)}: {said[-1]}")


def milliseconds(text):
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 500us or 1ms")
    return float(found[1]) * {"us": 1e-3, "ms": 1, "s": 1e3}[found[2]]


def rate(text):
    if not re.fullmatch(r"[1-9][0-9]*(\.[0-9]+)?[kmgt]?bit", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no rate such as 100mbit or 1gbit")
    return text


def burst(text):
    """Bytes that a link lets through at once after a pause: as few as keep it at its rate. A wire lets through none."""
    number, prefix = re.fullmatch(r"([0-9.]+)([kmgt]?)bit", text).groups()
    in_a_moment = float(number) * 1000 ** " kmgt".index(prefix or " ") / 8 * MOMENT
    return max(LEAST_BURST, round(in_a_moment))


def open_tap(name):
    """A network interface whose cable is a file."""
    cable = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(cable, SET_INTERFACE, struct.pack("16sH", name.encode(), TAP | NO_PACKET_INFO))
    return cable


def carry(cables, delay_ms, parent):
    """Frames from each of two cables to the other, each after a delay, until the parent ends."""
    queues = {cables[0]: [], cables[1]: []}
    other = {cables[0]: cables[1], cables[1]: cables[0]}
    while os.getppid() == parent:
        now = time.monotonic()
        for target, queue in queues.items():
            while queue and queue[0][0] <= now:
                try:
                    os.write(target, queue.pop(0)[1])
                except OSError:
                    pass  # a frame is lost, as on any wire
        due = min((queue[0][0] for queue in queues.values() if queue), default=now + 1)
        readable, _, _ = select.select(cables, [], [], max(0, due - time.monotonic()))
        for source in readable:
            try:
                while True:
                    frame = os.read(source, LONG_FRAME + 100)
                    queues[other[source]].append((time.monotonic() + delay_ms / 1e3, frame))
            except BlockingIOError:
                pass


class Hosts:
    """The namespaces h1, h2, ... and what joins them, for as long as the `with` lasts."""

    def __init__(self, options):
        self.options, self.names, self.wires = options, [f"h{i + 1}" for i in range(options.hosts)], []

    def __enter__(self):
        # Names are the same in every run, so one at a time.
        if os.geteuid() != 0:
            raise Refused("it needs root")
        self.lock = open("/run/trireme-hosts.lock", "w", encoding="utf-8")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("hosts.py: another run has its hosts on this machine; wait for its end")
        try:
            self.remove()  # what an earlier run left behind
            self.make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.remove()
        for wire in self.wires:
            os.kill(wire, signal.SIGKILL)
            os.waitpid(wire, 0)
        self.wires.clear()

    def make(self):
        tool("ip", "link", "add", BRIDGE, "type", "bridge")
        tool("ip", "addr", "add", f"{NETWORK}.254/24", "dev", BRIDGE)
        if self.options.delay:
            tool("ip", "link", "set", BRIDGE, "mtu", str(LONG_FRAME))
        tool("ip", "link", "set", BRIDGE, "up")
        for number, name in enumerate(self.names, 1):
            port = f"trireme{number}"
            tool("ip", "netns", "add", PREFIX + name)
            (self.join_by_wire if self.options.delay else self.join)(name, port)
            tool("ip", "link", "set", port, "master", BRIDGE)
            tool("ip", "-n", PREFIX + name, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            for where, device in ((["ip"], port), (["ip", "-n", PREFIX + name], "eth0"), (["ip", "-n", PREFIX + name], "lo")):
                tool(*where, "link", "set", device, "up")
            if self.options.rate:
                shape = ["root", "tbf", "rate", self.options.rate, "burst", str(burst(self.options.rate)), "latency", "50ms"]
                tool("tc", "qdisc", "add", "dev", port, *shape)
                tool("tc", "-n", PREFIX + name, "qdisc", "add", "dev", "eth0", *shape)
        if self.options.loss:
            lost = round(self.options.loss * 10**4)
            tool("nft", "add table bridge trireme; add chain bridge trireme forward "
                 "{ type filter hook forward priority 0; }; add rule bridge trireme forward "
                 f"numgen random mod 1000000 < {lost} drop")

    def join(self, name, port):
        tool("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", PREFIX + name)

    def join_by_wire(self, name, port):
        cables = [open_tap(port), open_tap(f"{port}w")]
        tool("ip", "link", "set", f"{port}w", "netns", PREFIX + name)
        tool("ip", "-n", PREFIX + name, "link", "set", f"{port}w", "name", "eth0", "mtu", str(LONG_FRAME))
        tool("ip", "link", "set", port, "mtu", str(LONG_FRAME))
        parent, wire = os.getpid(), os.fork()
        if wire == 0:
            try:
                self.lock.close()
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)  # it ends with its parent
                carry(cables, self.options.delay / 2, parent)
            finally:
                os._exit(0)
        self.wires.append(wire)
        for cable in cables:
            os.close(cable)

    def remove(self):
        """All hosts there are, also those that an earlier run left, with whatever runs in them."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
        for name in re.findall(rf"^({PREFIX}h\d+)\b", listed, re.M):
            for _ in range(50):
                pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
                if not pids:
                    break
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                time.sleep(0.1)
            subprocess.run(["ip", "netns", "del", name], **quiet)
        links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout
        for link in re.findall(r": (trireme\d+)[@:]", links):
            subprocess.run(["ip", "link", "del", link], **quiet)
        if shutil.which("nft"):
            subprocess.run(["nft", "delete", "table", "bridge", "trireme"], **quiet)

    def run(self, command, folder):
        agent = pathlib.Path(folder) / "agent"
        agent.write_text(AGENT)
        agent.chmod(0o755)
        slots = ",".join(f"{name}:{self.options.per_host}" for name in self.names)
        return run(["mpirun", "-np", str(self.options.hosts * self.options.per_host), "--host", slots, "--map-by",
                    "slot", "--bind-to", "none", *command],
                   plm="rsh", plm_rsh_agent=str(agent), oob_tcp_if_include=f"{NETWORK}.0/24",
                   btl_tcp_if_include=f"{NETWORK}.0/24", btl="self,vader,tcp")


def run(command, **mca):
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                       OMPI_MCA_mpi_yield_when_idle="1",
                       **{f"OMPI_MCA_{name}": value for name, value in mca.items()})
    # Apart from a terminal's ctrl-C, which comes by way of this program.
    started = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return started.wait()
    except BaseException:
        started.terminate()  # mpirun passes it on, so that jobs can end as they do
        try:
            started.wait(PATIENCE)
        except BaseException:  # too late, or the second ctrl-C
            started.kill()
            started.wait()
        raise


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=2, help="how many (2)")
    parser.add_argument("--per-host", type=int, default=1, help="ranks on each (1)")
    parser.add_argument("--rate", type=rate, help="of each link, as tc says it: 1gbit, 100mbit (unlimited)")
    parser.add_argument("--delay", type=milliseconds, default=0, help="from host to host: 1ms, 200us (none)")
    parser.add_argument("--loss", type=float, default=0, help="of packets between hosts, in percent (none)")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the program and its flags")
    options = parser.parse_args()
    if options.command[:1] == ["--"]:
        options.command = options.command[1:]
    if not options.command:
        parser.error("say which program to run")
    if not 1 <= options.hosts <= 200 or options.per_host < 1 or not 0 <= options.loss < 100:
        parser.error("needs 1 to 200 hosts, at least one rank on each, and a loss below 100")
    return options


def stop_by_signals():
    """Makes whatever stops this program leave by way of its `with`s."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _: sys.exit(128 + got))
    signal.signal(signal.SIGINT, signal.default_int_handler)


def main():
    options = parse()
    stop_by_signals()
    try:
        with tempfile.TemporaryDirectory() as folder, Hosts(options) as hosts:
            return hosts.run(options.command, folder)
    except (Refused, OSError) as refused:
        print(f"hosts.py: no emulated hosts here ({refused}); all ranks run on this host, over its loopback",
              file=sys.stderr)
        return run(["mpirun", "-np", str(options.hosts * options.per_host), "--oversubscribe", *options.command])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
