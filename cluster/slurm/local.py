#!/usr/bin/env python3
"""A real Slurm on one machine, for as long as a command runs.

    cluster/slurm/local.py --nodes 2 -- sbatch -W cluster/slurm/train.sbatch build/bin/train_classifier ...
    cluster/slurm/local.py --nodes 4 -- bash           sinfo, srun, sbatch, scontrol work in there

Nodes are emulated hosts (cluster/hosts.py), each with a slurmd of its own in namespaces of its own: to kill the first
process of a node is to switch it off. Needs root and Debian's packages slurmctld, slurmd, slurm-client, munge. With
--nodes N the partition main has nodes h1 to hN. Everything that it makes is removed again.
"""
import argparse
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import hosts  # noqa: E402 (beside this folder)

PATIENCE = 60  # seconds, for nodes to come up

CONFIGURATION = """
ClusterName=trireme
SlurmctldHost={host}({network}.254)
SlurmctldPort=26817
SlurmdPort=26818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool.%n
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
TmpFS={folder}/tmp.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=pmix
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2
ReturnToService=1
SlurmdTimeout=10
KillWait=5
KillOnBadExit=1
JobRequeue=1
"""


class Slurm:
    """Running daemons; `configuration` is for SLURM_CONF."""

    def __init__(self, names, cpus):
        self.names, self.cpus, self.daemons = names, cpus, []
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="trireme-slurm-"))
        self.configuration = self.folder / "slurm.conf"

    def __enter__(self):
        try:
            self.configure()
            self.start_munge()
            self.start("slurmctld", ["slurmctld", "-D", "-f", str(self.configuration)])
            for name in self.names:
                self.start(f"slurmd of {name}", [
                    "nsenter", f"--net=/run/netns/{hosts.PREFIX}{name}", "unshare", "--uts", "--mount", "--ipc", "--pid", "--fork",
                    "--kill-child", "--mount-proc", "sh", "-c",
                    f"hostname {name}; mount -t tmpfs tmpfs /dev/shm; "
                    f"exec slurmd -D -N {name} -f {self.configuration}"])
            self.wait_for_nodes()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for daemon in reversed(self.daemons):
            try:
                os.killpg(daemon.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def configure(self):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        text = CONFIGURATION.format(host=socket.gethostname(), network=hosts.NETWORK, folder=self.folder)
        for number, name in enumerate(self.names, 1):
            text += (f"NodeName={name} NodeAddr={hosts.NETWORK}.{number} CPUs={self.cpus} "
                     f"RealMemory={memory // 2} State=UNKNOWN\n")
            (self.folder / f"spool.{name}").mkdir()
            (self.folder / f"tmp.{name}").mkdir()
        text += "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n"
        (self.folder / "state").mkdir()
        self.configuration.write_text(text)
        self.folder.chmod(0o755)

    def start(self, what, command):
        log = open(self.folder / f"{what}.out", "wb")
        self.daemons.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                             start_new_session=True))

    def start_munge(self):
        key = self.folder / "munge.key"
        with open(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(1024))
        self.start("munged", ["munged", "--foreground", "--force", f"--key-file={key}",
                              f"--socket={self.folder}/munge.socket", f"--pid-file={self.folder}/munge.pid",
                              f"--seed-file={self.folder}/munge.seed", f"--log-file={self.folder}/munge.log"])
        self.until(lambda: (self.folder / "munge.socket").exists(), "munged's socket")

    def wait_for_nodes(self):
        def states():
            done = subprocess.run(["sinfo", "-h", "-N", "-o", "%T"], capture_output=True, text=True,
                                  env=dict(os.environ, SLURM_CONF=str(self.configuration)))
            return done.stdout.split()
        self.until(lambda: states() == ["idle"] * len(self.names), "all nodes to be idle")

    def until(self, come, what):
        begin = time.monotonic()
        while not come():
            dead = [daemon.args for daemon in self.daemons if daemon.poll() is not None]
            if dead or time.monotonic() - begin > PATIENCE:
                said = "".join(log.read_text(errors="replace")[-600:] for log in self.folder.glob("*.out"))
                raise RuntimeError(f"waited for {what}{': ended: ' + ' '.join(dead[0]) if dead else ''}\n{said}")
            time.sleep(0.2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=2, help="how many (2)")
    parser.add_argument("--cpus", type=int, default=2, help="of each, as Slurm counts them: the most tasks it takes (2)")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run meanwhile")
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command or not 1 <= options.nodes <= 200 or options.cpus < 1:
        parser.error("needs a command, and 1 to 200 nodes with one CPU or more")
    if not shutil.which(command[0]):
        parser.error(f"cannot run {command[0]!r}")
    hosts.stop_by_signals()
    missing = [tool for tool in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(tool)]
    try:
        if missing:
            raise hosts.Refused(f"not installed: {' '.join(missing)}; apt-get install slurmctld slurmd slurm-client munge")
        network = argparse.Namespace(hosts=options.nodes, per_host=1, rate=None, delay=0, loss=0)
        with hosts.Hosts(network) as made, Slurm(made.names, options.cpus) as slurm:
            environment = dict(os.environ, SLURM_CONF=str(slurm.configuration))
            return subprocess.run(command, env=environment).returncode
    except hosts.Refused as refused:
        print(f"local.py: no Slurm here: {refused}", file=sys.stderr)
        return 69  # EX_UNAVAILABLE
    except RuntimeError as failed:
        print(f"local.py: Slurm did not start: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
