"""For all tests: one thread for torch, as in every job, so that bits can be compared; and the order of long ones."""

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

TESTS = Path(__file__).parent
FIRST = ("workflow/test_pipeline.py", "workflow/test_report_page.py", "workflow", "unit")  # the rest: short ones


def _place(item: pytest.Item) -> int:
    file = item.path.relative_to(TESTS).as_posix()
    return next((at for at, start in enumerate(FIRST) if file.startswith(start)), len(FIRST))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes (``-n 2 --dist loadgroup --no-loadscope-reorder``): long files first, each in one process.

    What a file's tests share is then made once, and the short tests of contracts and cards fill the gaps at the end.
    """
    items.sort(key=_place)
    for item in items:
        if _place(item) < len(FIRST) and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(TESTS).as_posix()))
