"""Several processes that do one command together, as `torchrun` starts them."""

import os


def several() -> bool:
    """Whether this process is one of several."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def follows() -> bool:
    """Whether this process is one of several and not the first, which keeps locks and manifests."""
    return os.environ.get("RANK", "0") != "0"
