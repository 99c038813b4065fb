# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the options of modules that inspect, start or stop the application."""

from __future__ import annotations


class ModuleDocFragment:
    """What runs the application."""

    DOCUMENTATION = r"""
notes:
  - Run it as the user that owns the application, with C(become) if need be. For O(systemd.scope=system) that is root, for O(systemd.scope=user) the
    owner of the user manager, which must be running (C(loginctl enable-linger)).
options:
  manager:
    description: What runs the application. The option of that name is required, and those of the others are refused.
    type: str
    choices: [pm2, systemd, commands]
    required: true
  pm2:
    description: The application under pm2.
    type: dict
    suboptions:
      name:
        description:
          - Name of the application, as in its ecosystem file.
          - Other applications of the same pm2 are not touched.
        type: str
        required: true
      executable:
        description: Path of pm2, or its name when it is found in O(pm2.node_bin_dir) or C(PATH).
        type: str
        default: pm2
      home:
        description:
          - C(PM2_HOME), owned by the user who runs this. It is created when a start needs it.
          - At most 98 bytes long, because pm2 keeps its sockets there.
        type: path
        required: true
      node_bin_dir:
        description: Directory of the C(node) that runs pm2 and the application.
        type: path
      ecosystem_file:
        description:
          - pm2's description of the application, relative to the release.
          - Only its application O(pm2.name) is started.
        type: str
        default: ecosystem.config.js
      stable:
        description: Seconds for which it must stay online without a restart.
        type: float
        default: 2
      save:
        description:
          - Where pm2 has a saved list for the next boot, save it again after a start or a removal.
          - After a boot pm2 then starts what runs now.
        type: bool
        default: true
  systemd:
    description: The application as an existing service unit; units are not written.
    type: dict
    suboptions:
      unit:
        description:
          - Name of the unit, with or without C(.service). Its C(WorkingDirectory=) is the link to the current release.
          - The program must stay in its initial working directory; one that changes it cannot be distinguished from another release.
        type: str
        required: true
      scope:
        description: V(system) for the system manager, V(user) for the manager of the user who runs this.
        type: str
        choices: [system, user]
        default: system
      stable:
        description: Seconds for which it must stay active without a restart.
        type: float
        default: 2
  commands:
    description:
      - The application's own commands, such as those of Docker or a platform, each as a list of arguments.
      - They run in the release, without a shell.
      - V(${commit}) and V(${release}) in an argument stand for the release's commit and directory.
    type: dict
    suboptions:
      status:
        description:
          - Ends with status 0 when the application runs, and prints the full commit of the release that runs, as one word. Other output is ignored.
          - One that prints no commit cannot distinguish an older release from the current one.
        type: list
        elements: str
        required: true
      start:
        description:
          - Starts the release in place of another one.
          - It must hand the application over to another process manager. Processes that stay in the command's own process group are ended with it.
        type: list
        elements: str
        default: []
      stop:
        description: Stops the application.
        type: list
        elements: str
        default: []
      log:
        description: Prints the log since V(${since}). Without it no log is checked.
        type: list
        elements: str
        default: []
"""
