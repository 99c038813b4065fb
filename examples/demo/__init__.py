# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The implementation of demo.sh: a database server, Node, the example application and its data, below ``.demo/``.

Only the standard library is used, because the demo's virtual environment does not exist yet when this starts.
Tests use the same parts: with ``examples/`` on ``sys.path``, import ``demo.postgres_server``, ``demo.node_tools`` ...
"""
