"""Two folders change places in one step, where the operating system and the file system can do that.

Linux: renameat2 with RENAME_EXCHANGE (ext4, xfs, btrfs, tmpfs, ...); macOS: renamex_np with RENAME_SWAP (APFS).
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_EXCHANGE = _SWAP = 2
_AT_FDCWD = -100


def swap_folders(one: Path, other: Path) -> bool:
    """Each takes the other's name, at once. False, and nothing is changed, if that can't be done here."""
    names = os.fsencode(one), os.fsencode(other)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            return bool(libc.renamex_np(*names, _SWAP) == 0)
        return bool(libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE) == 0)
    except (AttributeError, OSError, TypeError):  # no such call in this C library, or no such library
        return False
