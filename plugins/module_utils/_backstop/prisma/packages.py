# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where npm packages are installed, as Node.js finds them: in a monorepo that may be a folder above the project."""

from __future__ import annotations

import os
from typing import Iterator, Optional

NODE_MODULES = "node_modules"


def find_package(start: str, name: str) -> Optional[str]:
    """The directory of a package that code in a directory can import; None when it is not installed.

    :param start: directory; its own ``node_modules`` takes precedence over those of the folders above
    :param name: of the package, such as ``@prisma/engines``
    """
    for folder in _upwards(os.path.abspath(start)):
        path = os.path.join(folder, NODE_MODULES, name)
        if os.path.isfile(os.path.join(path, "package.json")):
            return path
    return None


def _upwards(folder: str) -> Iterator[str]:
    while True:
        if os.path.basename(folder) != NODE_MODULES:
            yield folder
        parent = os.path.dirname(folder)
        if parent == folder:
            return
        folder = parent
