# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks the variables of a run against the roles' options, on the controller, before any task changes anything."""

from __future__ import annotations

import os
from typing import Any, Dict, Iterable, List, Mapping, Optional, Set

from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars
from ansible.vars.manager import VariableManager
from ansible_collections.backstop.postgres.plugins.plugin_utils.role_variables import NAMES

ROLES = os.path.join(os.path.dirname(__file__), "..", "..", "roles")
KNOWN = "backstop_known_variables"
PREFIXES = (
    "application_", "backstop_", "backup_", "deploy_", "migration_rehearsal_", "operation_report_",
    "restore_drill_", "rollback_", "scheduled_backups_",
)  # fmt: skip
#: Options of earlier versions, and the options that replaced them.
REPLACED = {
    "migration_rehearsal_down_sql": "deploy_down_sql",
    "migration_rehearsal_lock_timeout": "deploy_lock_timeout",
    "migration_rehearsal_smoke_tests": "deploy_smoke_tests_before",
    "migration_rehearsal_start_command": "application_start_command",
    "migration_rehearsal_tables": "deploy_tables",
}
#: Maximum edit distance of a misspelt name from an option. A four-letter word with two edits is another word.
EDITS = 2
SHORT = 4
#: Values of these types are shown in messages; other values may hold a secret.
SHOWN = {"int": "a whole number", "float": "a number", "bool": "true or false"}
Specs = Dict[str, Dict[str, Any]]


class ActionModule(ActionBase):
    """Fails on values that no role could use, and on misspelt extra variables."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """Check; a name in the inventory only causes a warning."""
        variables = task_vars or {}
        result: Dict[str, Any] = super().run(tmp, variables)
        _validation, arguments = self.validate_argument_spec({"roles": {"type": "list", "elements": "str"}})
        specs = {role: self._options(role) for role in sorted(os.listdir(ROLES))}
        wrong: List[str] = []
        if variables["inventory_hostname"] == variables["ansible_play_hosts_all"][0]:
            known = set(self._templar.template(variables.get(KNOWN) or [])) | {KNOWN} | NAMES
            wrong += self._check_names(variables, [name for spec in specs.values() for name in spec], known)
        checked = {name: option for role in arguments["roles"] or specs for name, option in specs[role].items()}
        wrong += self._wrong_values(variables, checked, arguments["roles"] or list(specs))
        if wrong:
            return dict(result, failed=True, msg=" ".join([*wrong, "Nothing was changed."]))
        return dict(result, changed=False)

    def _options(self, role: str) -> Dict[str, Any]:
        """The options of all entry points of a role."""
        path = os.path.join(ROLES, role, "meta", "argument_specs.yml")
        entries: Specs = self._loader.load_from_file(path)["argument_specs"]
        return {name: option for entry in entries.values() for name, option in (entry.get("options") or {}).items()}

    # Names

    def _check_names(self, variables: Mapping[str, Any], options: List[str], known: Set[str]) -> List[str]:
        """Warn of doubtful names, and return the errors in the names of extra variables."""
        extra = load_extra_vars(self._loader)
        wrong = []
        for name in sorted(set(extra) - set(options) - known):
            near = REPLACED.get(name) or nearest(name, options)
            ours = folded(name).startswith(PREFIXES)
            if name == "_raw_params" and str(extra[name]).startswith(PREFIXES):
                wrong.append("Extra variables are NAME=VALUE; found '%s'." % extra[name])
            elif near and ours:
                wrong.append("There is no option %s. %s" % (name, advice(near)))
            elif near or ours:
                Display().warning("There is no option %s, so it has no effect. %s" % (name, advice(near)))
        for name in sorted(self._inventory_names(variables) - set(extra) - set(options) - known):
            near = REPLACED.get(name) or nearest(name, options)
            if near:
                Display().warning("There is no option %s, which the inventory sets. %s" % (name, advice(near)))
        return wrong

    def _inventory_names(self, variables: Mapping[str, Any]) -> Set[str]:
        """Names of the variables of hosts and groups. A new VariableManager has no facts and no registered results."""
        inventory = getattr(variables.get("hostvars"), "_inventory", None)
        if inventory is None:
            return set()
        manager = VariableManager(loader=self._loader, inventory=inventory)
        hosts = [inventory.get_host(name) for name in variables["ansible_play_hosts_all"]]
        found = {name for host in hosts for name in manager.get_vars(host=host, include_hostvars=False)}
        return {name for name in found if not name.startswith("ansible_")}

    # Values

    def _wrong_values(self, variables: Mapping[str, Any], options: Dict[str, Any], roles: Iterable[str]) -> List[str]:
        """The error in each value. A value that needs the result of a later task is left to the role's own check."""
        defaults: Dict[str, Any] = {}
        for role in roles:
            path = os.path.join(ROLES, role, "defaults", "main.yml")
            defaults.update(self._loader.load_from_file(path, trusted_as_template=True))
        templar = self._templar.copy_with_new_env(available_variables={**defaults, **variables})
        wrong = []
        for name in sorted(set(options) & set(variables)):
            try:
                value = templar.template(variables[name])
            except AnsibleError:
                continue
            wrong += wrong_value(name, value, options[name])
        return wrong


def wrong_value(name: str, value: Any, option: Dict[str, Any]) -> List[str]:
    """The error in the value of one option, without any secret."""
    kind = option.get("type", "str")
    if kind in ("str", "path") and isinstance(value, (dict, list)):
        return ["%s must be a text; found a %s." % (name, "list" if isinstance(value, list) else "dictionary")]
    result = ArgumentSpecValidator({name: option}).validate({name: value}, validate_role_argument_spec=True)
    if result.error_messages:
        if kind in SHOWN:
            return ["%s must be %s; found '%s'." % (name, SHOWN[kind], value)]
        if "choices" in option:
            return ["%s must be one of %s; found '%s'." % (name, ", ".join(map(str, option["choices"])), value)]
        if not isinstance(value, {"dict": dict, "list": list}.get(kind, object)):
            return ["%s must be a %s." % (name, {"dict": "dictionary", "list": "list"}.get(kind, kind))]
        return ["%s: %s." % (name, message) for message in result.error_messages]
    if kind in ("int", "float") and not result.validated_parameters[name] >= 0:
        return ["%s must be 0 or more; found '%s'." % (name, value)]
    return []


def advice(near: Optional[str]) -> str:
    meant = "Did you mean %s? " % near if near else ""
    return "%sA variable of your own can be listed in %s." % (meant, KNOWN)


def folded(name: str) -> str:
    """The name in lower case, with underscores for hyphens."""
    return name.lower().replace("-", "_")


def nearest(name: str, options: Iterable[str]) -> Optional[str]:
    """The option that was probably meant, if one is similar enough."""
    close = {option for option in options if abs(len(name) - len(option)) <= EDITS}
    distances = sorted((edits(folded(name), option), option) for option in close)
    for distance, option in distances:
        prefix = max((prefix for prefix in PREFIXES if option.startswith(prefix)), key=len)
        if distance <= (1 if len(option) - len(prefix) <= SHORT else EDITS):
            return option
    return None


def edits(left: str, right: str) -> int:
    """Number of letters to insert, delete, replace or swap with their neighbour (optimal string alignment)."""
    before: List[int] = []
    row = list(range(len(right) + 1))
    for i, letter in enumerate(left, 1):
        before, last, row = row, before, [i]
        for j, other in enumerate(right, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == right[j - 2] and left[i - 2] == other:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
