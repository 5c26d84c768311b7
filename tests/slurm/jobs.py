"""Jobs that ``mpidvc job slurm`` renders and submits."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mpidvc.main import main
from tests.outputs import outputs
from tests.slurm.cluster import Slurm
from tests.survival.jobs import marks
from tests.waiting import LONGEST

__all__ = ["LINE", "Job"]

#: Some ten CPU seconds.
LINE = ["ldic", "a.tif", "b.tif", "-ns", "4", "-hws", "6", "-o", "3", "-dp", "1e-5"]


class Job:
    """A submitted job in a folder of its own."""

    def __init__(
        self,
        slurm: Slurm,
        folder: Path,
        images: Path,
        *options: str,
        line: Sequence[str] = LINE,
        results: str = "a-b-ldic.h5",
        longest: float = LONGEST,
    ) -> None:
        self.slurm, self.folder, self._longest = slurm, folder, longest
        for image in images.iterdir():
            (folder / image.name).symlink_to(image)
        out = io.StringIO()
        before = dict(os.environ)
        with _chdir(folder):
            os.environ.update(slurm.environment)
            try:
                with contextlib.redirect_stdout(out):
                    status = main(["job", "slurm", "--submit", "--nodes", "2", *options, "--", *line, "-od", "out"])
            finally:
                os.environ.clear()
                os.environ.update(before)
        assert status == 0
        self.id = out.getvalue().split("Submitted batch job ")[1].split()[0]
        self.log = folder / f"mpidvc-{line[0]}.{self.id}.out"
        self.results = folder / "out" / results

    @property
    def output(self) -> str:
        """What the job has printed."""
        return self.log.read_text() if self.log.exists() else ""

    def measuring(self) -> None:
        """Wait until some of the points are measured."""

        def begun() -> bool:
            found = marks(self.results)
            return found is not None and 0 < found[0] < found[1]

        self.slurm.until(begun, "measured points", self.log, self._longest)

    def ends(self, expected: dict[str, bytes], but: Sequence[str] = ()) -> dict[str, str]:
        """Wait for the end, and compare the files, except those of these names."""
        state = self.slurm.end(self.id, self.log, self._longest)
        assert state["JobState"] == "COMPLETED", self.log.read_text()
        ours = {name: content for name, content in outputs(self.folder / "out").items() if name not in but}
        assert sorted(ours) == sorted(expected)
        assert [name for name, content in expected.items() if ours[name] != content] == []
        return state

    def ranks(self) -> list[int]:
        """Ids of the processes that correlate, on both nodes."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                lines = path.read_bytes().split(b"\0")
                ranked = any(line.startswith((b"OMPI_COMM_WORLD_RANK=", b"PMI_RANK=")) for line in lines)
                program = (path.parent / "comm").read_text()
                if f"SLURM_JOB_ID={self.id}".encode() in lines and ranked and program.startswith("python"):
                    found.append(int(path.parent.name))
        return sorted(found)


@contextlib.contextmanager
def _chdir(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
