"""Memory available on a node, and types of file systems."""

from pathlib import Path

import pytest

from mpidvc.errors import UserError
from mpidvc.runtime.filesystems import network_file_system
from mpidvc.runtime.memory import memory_limit, memory_total, parse_size, size_text

GB = 10**9


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("500M", 500_000_000),
        ("16G", 16 * GB),
        ("1.5g", 1_500_000_000),
        ("123456", 123456),
        ("2GB", 2 * GB),
        ("1Gi", 2**30),
        ("1.5 TiB", 3 * 2**39),
        (".5k", 500),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert memory_limit(text) == (size, "--memory")


@pytest.mark.parametrize("text", ["", "much", "-1G", "1X", "0", "0M", "1e9", "5i", "nan", "1 G G"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UserError, match=r"^--memory"):
        parse_size(text)


def test_sizes_for_people() -> None:
    assert [size_text(n) for n in (190_400_000, 999_600_000, 18.24e9, 2.5e12)] == [
        "190 MB",
        "1.0 GB",
        "18.2 GB",
        "2.5 TB",
    ]


def write(root: Path, name: str, text: str | int) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "proc/meminfo", "MemTotal: 64000000 kB\nMemAvailable:   50000000 kB\nShmem: 1 kB")
    return tmp_path


def test_available(root: Path) -> None:
    assert memory_limit(None, {}, root) == (int(0.8 * 51_200_000_000), "80% of what is available")
    assert memory_total({}, root) == int(0.8 * 65_536_000_000)
    assert memory_total({"SLURM_MEM_PER_NODE": "1000"}, root) == int(0.8 * 1000 * 2**20)


def test_control_groups_of_version_2(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/job/step/task")
    write(root, "sys/fs/cgroup/job/step/task/memory.max", "max")
    write(root, "sys/fs/cgroup/job/step/memory.max", 10 * GB)
    write(root, "sys/fs/cgroup/job/step/memory.current", 4 * GB)
    # the page cache is given back
    write(root, "sys/fs/cgroup/job/step/memory.stat", f"anon 5\ninactive_file {GB}\nactive_file 7")
    write(root, "sys/fs/cgroup/job/memory.max", 8 * GB)
    write(root, "sys/fs/cgroup/job/memory.current", 5 * GB)
    assert memory_limit(None, {}, root) == (int(0.8 * 3 * GB), "80% of what the control group leaves")
    assert memory_total({}, root) == int(0.8 * 8 * GB)
    write(root, "sys/fs/cgroup/job/memory.current", 0)
    assert memory_limit(None, {}, root)[0] == int(0.8 * 7 * GB)


def test_control_groups_of_version_1(root: Path) -> None:
    write(root, "proc/self/cgroup", "5:cpu,cpuacct:/other\n3:memory:/slurm/job_1\n0::/")
    write(root, "sys/fs/cgroup/memory/slurm/job_1/memory.limit_in_bytes", 9223372036854771712)
    write(root, "sys/fs/cgroup/memory/slurm/memory.limit_in_bytes", 6 * GB)
    write(root, "sys/fs/cgroup/memory/slurm/memory.usage_in_bytes", 2 * GB)
    write(root, "sys/fs/cgroup/memory/slurm/memory.stat", f"inactive_file 1\ntotal_inactive_file {GB}")
    write(root, "sys/fs/cgroup/cpu/other/memory.limit_in_bytes", 5)
    assert memory_limit(None, {}, root) == (int(0.8 * 5 * GB), "80% of what the control group leaves")


def test_a_container_sees_its_own_group_as_the_root(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/docker/0123")
    write(root, "sys/fs/cgroup/memory.max", 2 * GB)
    write(root, "sys/fs/cgroup/memory.current", 3 * GB)
    assert memory_limit(None, {}, root)[0] == 0


@pytest.mark.parametrize(
    ("environ", "granted", "why"),
    [
        ({"SLURM_MEM_PER_NODE": "4096"}, 4096 * 2**20, "SLURM_MEM_PER_NODE"),
        ({"SLURM_MEM_PER_CPU": "2000", "SLURM_CPUS_ON_NODE": "8"}, 16000 * 2**20, "SLURM_MEM_PER_CPU"),
        ({"SLURM_MEM_PER_NODE": "0"}, 51_200_000_000, "what is available"),
        ({"SLURM_MEM_PER_NODE": "900000"}, 51_200_000_000, "what is available"),
    ],
)
def test_schedulers(root: Path, environ: dict[str, str], granted: int, why: str) -> None:
    assert memory_limit(None, environ, root) == (int(0.8 * granted), f"80% of {why}")


def test_this_host() -> None:
    assert memory_limit(None, {})[0] > 0


def test_network_file_systems(tmp_path: Path) -> None:
    data = tmp_path / "my data"
    data.mkdir()
    lines = [
        "22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda rw",
        f"30 22 0:30 / {str(data).replace(' ', chr(92) + '040')} rw - nfs4 server:/data rw",
        f"31 22 0:31 / {tmp_path}/lustre rw master:3 - lustre mgs:/scratch rw",
        f"32 31 0:32 / {tmp_path}/lustre/local rw - xfs /dev/sdb rw",
        f"33 22 0:33 / {tmp_path}/home rw - fuse.sshfs host: rw",
        f"34 22 0:34 / {tmp_path}/over rw - nfs host:/ rw",
        f"35 22 0:35 / {tmp_path}/over rw - tmpfs none rw",
        "broken line",
    ]
    write(tmp_path, "proc/self/mountinfo", "\n".join(lines))

    def kind(name: str) -> str | None:
        return network_file_system(str(tmp_path / name), tmp_path)

    assert kind("a.tif") is None
    assert kind("my data/a.tif") == "nfs4"
    assert kind("my database/a.tif") is None
    assert kind("lustre/run/a.h5") == "lustre"
    assert kind("lustre/local/a.h5") is None
    assert kind("home/a.tif") == "fuse.sshfs"
    assert kind("over/a.tif") is None
    (tmp_path / "link.tif").symlink_to(data / "a.tif")
    assert kind("link.tif") == "nfs4"
