# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A PostgreSQL server that finds the tests' own extensions, without changes to the machine's installation.

A server looks for its extensions at a path relative to its program (before PostgreSQL 18 nowhere else). Therefore the
programs are copied into a tree of the same layout, whose other parts are links to the original.
"""

from __future__ import annotations

import pathlib
import shutil
from typing import Mapping

from demo.postgres_server import PROGRAMS, Cluster, place_for_server, server_account


def install(directory: pathlib.Path, like: Cluster, extensions: Mapping[str, str]) -> pathlib.Path:
    """Make such a tree and return its folder of programs.

    :param like: a running server, whose programs are copied
    :param extensions: the SQL of version 1.0 of each extension, by its name
    """
    root = place_for_server(directory, server_account())
    places = dict(
        line.split("|", 1) for line in like.sql("SELECT name, setting FROM pg_config()").splitlines() if "|" in line
    )
    programs, share = like.bin_dir.resolve(), pathlib.Path(places["SHAREDIR"]).resolve()
    prefix = next(parent for parent in programs.parents if parent in share.parents)
    bin_dir, ours = root / programs.relative_to(prefix), root / share.relative_to(prefix)
    bin_dir.mkdir(parents=True)
    for name in PROGRAMS:
        shutil.copy2(programs / name, bin_dir / name)
    for name in ("LIBDIR", "PKGLIBDIR"):
        library = pathlib.Path(places[name]).resolve()
        link = root / library.relative_to(prefix)
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(library)
    (ours / "extension").mkdir(parents=True)
    for path in [*share.iterdir(), *(share / "extension").iterdir()]:
        if path.name != "extension":
            (ours / path.relative_to(share)).symlink_to(path)
    for name, sql in extensions.items():
        (ours / "extension" / (name + ".control")).write_text("default_version = '1.0'\nrelocatable = false\n")
        (ours / "extension" / (name + "--1.0.sql")).write_text(sql)
    return bin_dir
