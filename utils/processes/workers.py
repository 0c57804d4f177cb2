"""How does a process end with the one that started it?"""

import multiprocessing
import os
import threading


def usable_cores() -> int:
    """How many cores this process may use: a job of a cluster, or a container, may have few."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def end_with_parent() -> None:
    """End this process, which `multiprocessing` started, at once when its parent is gone.

    However the parent ends: the system closes its end of a pipe. Of processes that were forked one
    after the other each holds the pipes of those before it; so the last ends first.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
