"""How does a process end with the one that started it?"""

import multiprocessing
import os
import threading


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
