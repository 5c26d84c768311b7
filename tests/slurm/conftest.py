"""The cluster that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Slurm, running


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Slurm]:
    with running(tmp_path_factory.mktemp("slurm"), environment) as cluster:
        yield cluster
