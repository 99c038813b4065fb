# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the options of meta/shared_options.yml into defaults and argument specs of the roles that use them, the
variables of each role's argument specs into its README, and the names that roles and playbooks give to values of their
own into plugins/plugin_utils/role_variables.py.

A role has the shared options that its tasks, handlers, templates and own defaults name; there is no other list of them.
In the roles' files the generated text is between two marker lines; nothing else is changed.

    python3 meta/write_role_options.py            write
    python3 meta/write_role_options.py --check    change nothing; status 1 when a file would change

A new role needs a line ``options:`` (or ``options: {}``) in every entry point of its meta/argument_specs.yml.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import sys
from typing import Any, Dict, Iterator, List, Tuple

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN = "# Shared options, written by meta/write_role_options.py from meta/shared_options.yml: begin"
END = "# Shared options: end"
#: ansible-lint wants the role's name before every variable in its defaults; these are shared on purpose.
LINT = "  # noqa: var-naming[no-role-prefix]"
NAME = re.compile(r"\b[a-z][a-z0-9_]*\b")
READ = ("tasks", "handlers", "templates", "vars", "defaults")
README_BEGIN = "<!-- Variables, written by meta/write_role_options.py from meta/argument_specs.yml: begin -->"
README_END = "<!-- Variables: end -->"
OWN_NAMES = ROOT / "plugins" / "plugin_utils" / "role_variables.py"
WITH_TASKS = ("roles/*/tasks/**/*.yml", "roles/*/handlers/*.yml", "playbooks/*.yml")
OWN_NAMES_TEXT = '''# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of the internal variables of roles and playbooks; written by meta/write_role_options.py."""

from __future__ import annotations

NAMES = frozenset(
    [
%s    ]
)
'''
#: Semantic markup of Ansible's documentation; in Markdown all of it becomes code.
MARKUP = re.compile(r"\b[A-Z]\(([^)]*)\)")


class IndentedDumper(yaml.SafeDumper):
    """Block style with list items indented below their key, as yamllint requires it."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)


def _represent_text(dumper: IndentedDumper, text: str) -> Any:
    """Expressions and empty texts in double quotes, as in handwritten YAML; all else in PyYAML's default style."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if not text or "{{" in text else None)


IndentedDumper.add_representer(str, _represent_text)


def shared_options() -> Dict[str, Dict[str, Any]]:
    options: Dict[str, Dict[str, Any]] = yaml.safe_load((ROOT / "meta" / "shared_options.yml").read_text("utf-8"))
    return options


def roles() -> List[pathlib.Path]:
    return sorted(path for path in (ROOT / "roles").iterdir() if (path / "meta").is_dir())


def without_blocks(text: str) -> str:
    """A file's text without the blocks that this program wrote into it."""
    return re.sub(r"(?ms)^ *%s\n.*?^ *%s\n" % (re.escape(BEGIN), re.escape(END)), "", text)


def used_options(role: pathlib.Path, options: Dict[str, Dict[str, Any]]) -> List[str]:
    """The shared options that a role names, and those that their defaults name, in the order of shared_options.yml."""
    words = set()
    for folder in READ:
        for path in (role / folder).rglob("*"):
            if path.is_file():
                words |= set(NAME.findall(without_blocks(path.read_text("utf-8"))))
    for name in list(options):
        if name in words:
            words |= set(NAME.findall(str(options[name].get("default", ""))))
    return [name for name in options if name in words]


def as_yaml(value: Any, indent: int) -> str:
    text = yaml.dump(value, Dumper=IndentedDumper, sort_keys=False, width=1000, allow_unicode=True)
    return "".join(" " * indent + line + "\n" for line in text.splitlines())


def block(text: str, indent: int) -> str:
    margin = " " * indent
    return "%s%s\n%s%s%s\n" % (margin, BEGIN, text, margin, END) if text else ""


def defaults_text(text: str, names: List[str], options: Dict[str, Dict[str, Any]]) -> str:
    own = without_blocks(text)
    start = re.match(r"---\n", own)
    head = start.group() if start else ""
    values = {name: options[name]["default"] for name in names if "default" in options[name]}
    written = re.sub(r"(?m)^(\w.*)$", r"\1" + LINT, as_yaml(values, 0)) if values else ""
    return head + block(written, 0) + own[len(head) :]


def specs_text(text: str, names: List[str], options: Dict[str, Dict[str, Any]]) -> str:
    """Insert the block into every entry point, right below its line ``options:``."""
    written = block(as_yaml({name: options[name] for name in names}, 6), 6) if names else ""
    line = "    options:\n" if written else "    options: {}\n"
    own = without_blocks(text)
    own = re.sub(r"(?m)^    options:(?: \{\})?\n(?=      )", lambda _found: "    options:\n" + written, own)
    return re.sub(r"(?m)^    options:(?: \{\})?\n(?!      )", lambda _found: line + written, own)


def readme_text(text: str, specs: Dict[str, Dict[str, Any]]) -> str:
    """The README with a table of all variables right before its heading "On failure"."""
    pattern = r"(?ms)^## Variables\n\n%s\n.*?^%s\n\n" % (re.escape(README_BEGIN), re.escape(README_END))
    own = re.sub(pattern, "", text)
    table = variables_table(specs)
    written = "## Variables\n\n%s\n%s%s\n\n" % (README_BEGIN, table, README_END) if table else ""
    return re.sub(r"(?m)^## On failure$", lambda found: written + found.group(), own, count=1)


def variables_table(specs: Dict[str, Dict[str, Any]]) -> str:
    """One row per variable; entry points are named where not all of them take it."""
    rows: Dict[str, str] = {}
    for spec in specs.values():
        for name, option in (spec.get("options") or {}).items():
            takers = [entry for entry, other in specs.items() if name in (other.get("options") or {})]
            only = "" if len(takers) == len(specs) else " Only for `%s`." % "`, `".join(takers)
            description = option["description"]
            text = " ".join([description] if isinstance(description, str) else description)
            if "choices" in option:
                text += " One of V(%s)." % "), V(".join(map(str, option["choices"]))
            default = "required" if option.get("required") else in_code(option.get("default", ""))
            rows[name] = "| `%s` | %s | %s | %s%s |\n" % (
                name,
                option["type"],
                default,
                MARKUP.sub(r"`\1`", text).replace("|", "\\|"),
                only,
            )
    return "| variable | type | default | what it is |\n|---|---|---|---|\n" + "".join(rows.values()) if rows else ""


def in_code(value: Any) -> str:
    """A default as code; "computed" for an expression, which is long and does not help the reader."""
    if value in ("", None):
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "computed" if "{{" in text else "`%s`" % text.replace("|", "\\|")


def own_names(value: Any) -> Iterator[str]:
    """Names that tasks set: registered results, facts, loop variables, vars of a task, a block or an included role."""
    if isinstance(value, dict):
        control = value.get("loop_control") or {}
        given = [value.get("register"), control.get("loop_var"), control.get("index_var")]
        yield from (name for name in given if name)
        for key in ("vars", "ansible.builtin.set_fact"):
            yield from value.get(key) or {}
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from own_names(part)


def own_names_text() -> str:
    names, options = set(), set()
    for role in roles():
        options |= set(yaml.safe_load((role / "defaults" / "main.yml").read_text("utf-8")))
    for path in [path for glob in WITH_TASKS for path in ROOT.glob(glob)]:
        names |= set(own_names(yaml.safe_load(path.read_text("utf-8"))))
    for path in ROOT.glob("roles/*/vars/*.yml"):
        names |= set(yaml.safe_load(path.read_text("utf-8")))
    return OWN_NAMES_TEXT % "".join('        "%s",\n' % name for name in sorted(names - options))


def wanted_files() -> Iterator[Tuple[pathlib.Path, str, str]]:
    """Path, present text and wanted text of every file that this program writes."""
    options = shared_options()
    for role in roles():
        names = used_options(role, options)
        for path, rewrite in (
            (role / "defaults" / "main.yml", defaults_text),
            (role / "meta" / "argument_specs.yml", specs_text),
        ):
            present = path.read_text("utf-8") if path.exists() else "---\n"
            wanted = rewrite(present, names, options)
            yield path, present, wanted
        readme = role / "README.md"
        if readme.exists():
            # The specs were rewritten last.
            present = readme.read_text("utf-8")
            yield readme, present, readme_text(present, yaml.safe_load(wanted)["argument_specs"])
    yield OWN_NAMES, OWN_NAMES.read_text("utf-8") if OWN_NAMES.exists() else "", own_names_text()


def defined_twice() -> Iterator[str]:
    """Shared options that a role also defines by hand: the later of two equal keys would win silently."""
    for role in roles():
        for path, indent in ((role / "defaults" / "main.yml", ""), (role / "meta" / "argument_specs.yml", " {6}")):
            own = without_blocks(path.read_text("utf-8")) if path.exists() else ""
            for name in shared_options():
                if re.search(r"(?m)^%s%s:" % (indent, name), own):
                    yield "%s: %s is shared; remove it here" % (path.relative_to(ROOT), name)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 when a file would change")
    arguments = parser.parse_args()
    twice = list(defined_twice())
    if twice:
        print("\n".join(twice))
        return 1
    stale = [(path, wanted) for path, present, wanted in wanted_files() if present != wanted]
    for path, wanted in stale:
        print("%s %s" % ("stale:" if arguments.check else "written:", path.relative_to(ROOT)))
        if not arguments.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted, "utf-8")
    return 1 if arguments.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
