"""What this machine gives a process."""

import os
import pathlib


def memory_bytes(root: str = "/") -> int:
    """Memory that this process may use: the machine's, or a control group's if that is less."""
    # Of both versions of control groups: this process's own, and those around it.
    groups = {pathlib.PurePosixPath("/")}
    for line in _read(f"{root}/proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if {"", "memory"} & set(controllers.split(",")):
            inner = pathlib.PurePosixPath(group)
            groups |= {inner, *inner.parents}
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for one in groups:
        for name in (f"{one}/memory.max", f"memory{one}/memory.limit_in_bytes"):
            text = _read(f"{root}/sys/fs/cgroup/{name}").strip()
            limits += [int(text)] if text.isdigit() else []  # 'max' is none
    return min(limits)


def _read(path: str) -> str:
    try:
        return pathlib.Path(path).read_text(encoding="ascii")
    except OSError:
        return ""
