# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the lanes of the test suite one after the other, each with its time, and end with a table of them all.

Called by test.sh with the Python of .test/venv. A lane that cannot run on this machine is listed with what is untested
because of that; with CI=true it counts as failed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import pwd
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK = ROOT / ".test"
PROGRAMS = pathlib.Path(sys.executable).parent
#: A collection tree for Ansible: ansible-test refuses a path with a symbolic link.
COLLECTIONS = WORK / "tree"
TREE = COLLECTIONS / "ansible_collections" / "backstop" / "postgres"
IN_CI = os.environ.get("CI") == "true"
AS_ROOT = os.geteuid() == 0
#: Tests of effects on databases, stores and releases, and of what is computed: these are the same for every user.
SAME_FOR_EVERYBODY = [
    *("tests/integration/%s/*" % folder for folder in ("postgres", "store", "backups", "loss", "migrations", "ways")),
    *("tests/integration/%s/*" % folder for folder in ("runbook", "windows", "peers")),
    "tests/integration/command_line/test_[co]*.py",
    "tests/integration/application/test_releases.py",
    "tests/integration/application/test_service_commands.py",
    "tests/faults/test_random_walk.py",
    # Without servers: texts, rules and properties of data.
    *("tests/unit/%s/*" % folder for folder in ("prisma", "roles", "windows")),
    "tests/unit/application/test_smoke_steps.py",
    "tests/unit/command_line/test_schedule.py",
    "tests/unit/store/test_retention*.py",
]
#: How galaxy-importer's lines about problems begin.
BAD_NEWS = ("WARNING", "ERROR", "CRITICAL")
#: Names of the lanes of this run.
CHOSEN: set[str] = set()
#: Scenarios wait for hosts and services as much as they compute.
SCENARIOS_AT_A_TIME = 2


class LaneFailed(Exception):
    """A lane found an error."""


class NotPossible(Exception):
    """A lane cannot run here; the text says what is missing and what is untested because of that."""


class NotNeeded(Exception):
    """A lane has nothing to do on this machine."""


def run(
    argv: Sequence[str | pathlib.Path],
    *,
    cwd: pathlib.Path = ROOT,
    extra: Mapping[str, str] | None = None,
    accept: Sequence[int] = (0,),
    quiet: bool = False,
    shown: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a program with the virtual environment's programs first in PATH.

    :param shown: print the output as it comes, else return it
    :param quiet: show neither the command nor its output, unless it fails
    """
    shown = shown and not quiet
    environment = dict(os.environ, PATH="%s%s%s" % (PROGRAMS, os.pathsep, os.environ.get("PATH", os.defpath)))
    environment.update(extra or {})
    words = [str(part) for part in argv]
    if not quiet:
        print("$ " + " ".join(words), flush=True)
    done = subprocess.run(
        words,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
        stdout=None if shown else subprocess.PIPE,
        stderr=None if shown else subprocess.STDOUT,
    )
    if done.returncode not in accept:
        if quiet:
            print("$ %s\n%s" % (" ".join(words), done.stdout), flush=True)
        raise LaneFailed("%s ended with status %d" % (pathlib.Path(words[0]).name, done.returncode))
    return done


# What a lane needs


def ensure_packages(programs: Mapping[str, str], packages: Sequence[str], cost: str) -> None:
    """Install Debian packages when one of the programs is missing and we have the privileges.

    :param programs: each program and the package that contains it
    :param packages: further packages to install
    :param cost: what stays untested without them
    """
    path = os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin:/sbin"
    missing = [name for name in programs if not shutil.which(name, path=path)]
    if not missing:
        return
    if not (AS_ROOT and shutil.which("apt-get")):
        raise NotPossible("no %s (install: %s); untested: %s" % (", ".join(missing), " ".join(programs.values()), cost))
    quietly = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], quiet=True)
    wanted = sorted({*programs.values(), *packages})
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted], extra=quietly, quiet=True)


def tracked_files() -> list[str]:
    """Files that git tracks or would add: uncommitted work is tested too."""
    listed = run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], quiet=True
    )
    return sorted(name for name in listed.stdout.split("\0") if name and os.path.lexists(ROOT / name))


def copy_files(names: Sequence[str], target: pathlib.Path) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name, follow_symlinks=False)


def make_tree() -> None:
    """Copy what `git archive` would contain: everything except what .gitattributes excludes."""
    shutil.rmtree(COLLECTIONS, ignore_errors=True)
    lines = (ROOT / ".gitattributes").read_text("utf-8").splitlines()
    kept_out = tuple(line.split()[0] + "/" for line in lines if line.endswith(" export-ignore"))
    copy_files([name for name in tracked_files() if not name.startswith(kept_out)], TREE)
    # ansible-test asks git for the list of files, and the repository around this tree ignores them all.
    run(["git", "init", "--quiet", "."], cwd=TREE, quiet=True)
    run(["git", "add", "--all"], cwd=TREE, quiet=True)


def in_tree() -> dict[str, str]:
    return {"ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS)}


# The lanes


def lint() -> None:
    run(["ruff", "check", "."])
    run(["ruff", "format", "--check", "."])
    run(["yamllint", "--strict", "."])


def types() -> None:
    run(["mypy", "plugins/module_utils/_backstop"])


def pytest(*arguments: str) -> None:
    run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--durations=5", *arguments])


def quality() -> None:
    pytest("tests/unit/quality")


def unit() -> None:
    pytest("tests/unit", "--ignore=tests/unit/quality", *left_to_ordinary_user(), "-m", "not prisma", "-n", "2")


def left_to_ordinary_user() -> list[str]:
    """Options of pytest that leave tests to the lane ordinary-user, which runs them all, if this run has it."""
    if not (AS_ROOT and "ordinary-user" in CHOSEN):
        return []
    print("left to the lane ordinary-user: " + ", ".join(SAME_FOR_EVERYBODY), flush=True)
    return ["--ignore-glob=" + path for path in SAME_FOR_EVERYBODY]


def ensure_offsite() -> None:
    programs = {"age": "age", "age-keygen": "age", "rclone": "rclone"}
    ensure_packages(programs, ["ca-certificates"], "encrypted backups and second copies")


def ensure_pgbouncer() -> None:
    ensure_packages({"pgbouncer": "pgbouncer"}, [], "clients behind PgBouncer")


def ensure_ssh() -> None:
    ensure_packages({"sshd": "openssh-server", "ssh": "openssh-client"}, [], "connections that are cut")


def pytest_with(marks: Mapping[str, Callable[[], None]], *arguments: str, chosen: str = "") -> None:
    """Run tests; if programs are missing that the user may not install, without the tests that need them.

    :param marks: for each mark of such tests what installs its programs
    """
    missing = {}
    for mark, ensure in marks.items():
        try:
            ensure()
        except NotPossible as error:
            missing[mark] = error
    pytest(*arguments, "-m", " and ".join(filter(None, [chosen, *("not " + mark for mark in missing)])))
    if missing:
        raise NotPossible("the rest passed; %s" % "; ".join(map(str, missing.values())))


def integration() -> None:
    chosen = "not serial and not prisma"
    marks = {"offsite": ensure_offsite, "pgbouncer": ensure_pgbouncer, "ssh": ensure_ssh}
    shell = pwd.getpwuid(os.geteuid()).pw_shell
    if pathlib.Path(shell).name in ("nologin", "false"):
        del marks["ssh"]
        chosen += " and not ssh"
        print("left to a user with a shell, not %s: logging in over ssh" % shell, flush=True)
    pytest_with(marks, "tests/integration", *left_to_ordinary_user(), "-n", "2", "--dist", "loadfile", chosen=chosen)


def serial() -> None:
    pytest("tests/integration", "-m", "serial and not prisma")


def prisma() -> None:
    places = ["tests/unit", "tests/integration", "--ignore=tests/unit/quality", "--ignore=tests/integration/playbooks"]
    pytest(*places, "-m", "prisma and not serial", "-n", "2", "--dist", "loadfile")


def demo() -> None:
    pytest("tests/integration", "--ignore=tests/integration/playbooks", "-m", "prisma and serial")


def faults() -> None:
    pytest("tests/faults", "--ignore=tests/faults/playbooks", "-n", "2")


def playbooks() -> None:
    """Each of the two workers has its own site, and begins with half of the tests; who is done takes over others."""
    places = ["tests/integration/playbooks", "tests/faults/playbooks"]
    pytest_with({"ssh": ensure_ssh}, *places, "-n", "2", "--dist", "worksteal")


def faults_full() -> None:
    """Everything that tries to lose data, as often as the page shows it; writes docs/reliability.json and its page."""
    for ensure in (ensure_offsite, ensure_pgbouncer, ensure_ssh):
        ensure()
    os.environ["BACKSTOP_FAULTS"] = "full"
    playbooks_alone = ["tests/integration/playbooks", "tests/faults/playbooks"]
    others = ["tests", *("--ignore=" + place for place in playbooks_alone)]
    two = ["-n", "2", "--dist"]
    parts = {
        "together": [*others, "-m", "fault and not serial", *two, "loadfile"],
        "serial": [*others, "-m", "fault and serial"],
        "playbooks": [*playbooks_alone, "-m", "fault", *two, "worksteal"],
    }
    written = [WORK / ("faults-%s.json" % name) for name in parts]
    for path, arguments in zip(written, parts.values()):
        pytest(*arguments, "--fault-results", str(path))
    run([sys.executable, "-m", "support.reliability", *written], extra={"PYTHONPATH": str(ROOT / "tests")})


def reports() -> None:
    """Pages of reports in a browser; alerts and dashboard of the metrics."""
    programs = {"chromium": "chromium", "promtool": "prometheus"}
    cost = "the pages of reports in a browser, the alerts and the dashboard"
    try:
        ensure_packages(programs, [], cost)
    except LaneFailed as error:
        # Ubuntu has Chromium only as a snap.
        raise NotPossible("%s cannot be installed (%s); untested: %s" % (", ".join(programs), error, cost)) from error
    pytest("tests/reports")


def ordinary_user() -> None:
    """Run as a user without root: a copy of the checkout, a new home, no access to ours."""
    if not AS_ROOT:
        raise NotNeeded("this whole run is by an ordinary user")
    ensure_offsite()
    ensure_pgbouncer()
    account = pwd.getpwnam("nobody")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="backstop-ordinary-user-"))
    try:
        copy_files(tracked_files(), folder / "checkout")
        (folder / "home").mkdir()
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
        passed_on = {
            name: value
            for name, value in os.environ.items()
            if name in ("LANG", "CI", "TERM") or any(part in name.upper() for part in ("CERT", "_CA", "PIP_", "NPM_"))
        }
        passed_on.update(HOME=str(folder / "home"), USER=account.pw_name, LOGNAME=account.pw_name)
        passed_on.update(PATH="/usr/local/bin:/usr/bin:/bin")
        # The account has no home directory, and Ansible reads the passwd database, not HOME.
        passed_on.update(ANSIBLE_REMOTE_TEMP=str(folder / "home" / ".ansible" / "tmp"))
        argv = ["bash", "test.sh", "unit", "integration"]
        print("$ %s (as %s, in %s)" % (" ".join(argv), account.pw_name, folder / "checkout"), flush=True)
        done = subprocess.run(
            argv,
            cwd=folder / "checkout",
            env=passed_on,
            stdin=subprocess.DEVNULL,
            check=False,
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
        )
        if done.returncode != 0:
            raise LaneFailed("the tests failed for an ordinary user")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ansible_lint() -> None:
    make_tree()
    run(["ansible-lint", "--offline", "--profile", "production", "--strict"], cwd=TREE, extra=in_tree())


def sanity() -> None:
    ensure_packages({"shellcheck": "shellcheck"}, [], "the shell scripts")
    make_tree()
    home = WORK / "home"
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    shim = "import subprocess, sys\n" + (
        # Replaces the get-pip.py that ansible-test would download from an address that is no package index.
        "wanted = [part for part in sys.argv[1:] if part not in ('--no-setuptools', '--no-wheel')]\n"
        "argv = [%r, '-m', 'pip', '--python', sys.executable, 'install', *wanted]\n"
        "sys.exit(subprocess.call(argv))\n" % sys.executable
    )
    for version in ("24_2", "25_2"):
        (cache / ("get_pip_%s.py" % version)).write_text(shim, "utf-8")
    version = "%d.%d" % sys.version_info[:2]
    # ansible-test keeps its environments in the home directory; pip's settings stay those of the user.
    pip_settings = pathlib.Path.home() / ".config" / "pip" / "pip.conf"
    extra = {"HOME": str(home), "PIP_QUIET": "1"}
    if pip_settings.is_file():
        extra["PIP_CONFIG_FILE"] = str(pip_settings)
    argv = ["ansible-test", "sanity", "--python", version, "--requirements", "--color", "no"]
    done = run(argv, cwd=TREE, extra=extra, accept=range(256), shown=False)
    print(done.stdout)
    if done.returncode != 0 or "All targets skipped" in done.stdout:
        raise LaneFailed("ansible-test sanity ended with status %d" % done.returncode)


def docs() -> None:
    make_tree()
    run(
        ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs=all", "."],
        cwd=TREE,
        extra=in_tree(),
    )
    kinds = {
        "module": sorted(path.stem for path in (TREE / "plugins" / "modules").glob("*.py")),
        "callback": sorted(path.stem for path in (TREE / "plugins" / "callback").glob("*.py")),
        "role": sorted(path.parent.parent.name for path in (TREE / "roles").glob("*/meta/argument_specs.yml")),
    }
    for kind, names in kinds.items():
        full = ["backstop.postgres." + name for name in names]
        done = run(["ansible-doc", "--json", "--type", kind, *full], cwd=WORK, extra=in_tree(), quiet=True)
        said, _brace, content = done.stdout.partition("{\n")
        missing = sorted(set(full) - set(json.loads("{" + content)))
        # ansible-core 2.21 warns about a collection within itself; only messages about ours count.
        if missing or "backstop" in said.replace(str(ROOT), ""):
            raise LaneFailed("ansible-doc: %s; missing: %s" % (said.strip(), missing))
        print("ansible-doc shows %d of type %s" % (len(full), kind))
    if (ROOT / "changelogs" / "config.yaml").is_file():
        run(["antsibull-changelog", "lint"], cwd=TREE)
    build_site()


def build_site() -> None:
    """Build the pages of docs/docsite, and those of modules and roles, as a static site. A warning is an error."""
    pages, site = WORK / "pages", WORK / "site"
    for folder in (pages, site):
        shutil.rmtree(folder, ignore_errors=True)
    pages.mkdir(mode=0o755)
    wanted = ["--use-current", "--squash-hierarchy", "--no-add-antsibull-docs-version", "--fail-on-error"]
    write = ["antsibull-docs", "collection", *wanted, "--dest-dir", pages, "backstop.postgres"]
    run(write, extra=in_tree())
    # antsibull-docs copies the pages, not their pictures.
    shutil.copytree(TREE / "docs" / "docsite" / "rst" / "images", pages / "docsite" / "images")
    run(["sphinx-build", "-q", "-W", "--keep-going", "-b", "html", "-c", TREE / "docs" / "docsite", pages, site])
    print("the site: %s" % (site / "index.html"))


def collection() -> None:
    """Build from the checkout, as a user would, install, and list the playbooks of the installed collection."""
    built, installed = WORK / "build", WORK / "installed"
    for folder in (built, installed):
        shutil.rmtree(folder, ignore_errors=True)
    run(["ansible-galaxy", "collection", "build", "--output-path", built])
    (archive,) = built.glob("*.tar.gz")
    check_archive(archive)
    import_as_galaxy_does(archive)
    run(["ansible-galaxy", "collection", "install", "--offline", archive, "-p", installed])
    extra = {"ANSIBLE_COLLECTIONS_PATH": str(installed)}
    playbooks = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
    if not playbooks:
        raise LaneFailed("there are no playbooks")
    for name in playbooks:
        argv = ["ansible-playbook", "-i", "localhost,", "--syntax-check", "backstop.postgres." + name]
        run(argv, cwd=built, extra=extra)


def import_as_galaxy_does(archive: pathlib.Path) -> None:
    """Check what Galaxy requires when a collection is published. Its lint is a separate lane."""
    settings = archive.with_name("galaxy-importer.cfg")
    settings.write_text("[galaxy-importer]\nRUN_ANSIBLE_LINT = False\nCHECK_REQUIRED_TAGS = True\n", "utf-8")
    extra = {"GALAXY_IMPORTER_CONFIG": str(settings)}
    argv = [sys.executable, "-m", "galaxy_importer.main", archive.name]
    said = run(argv, cwd=archive.parent, extra=extra, shown=False).stdout
    told = [line for line in said.splitlines() if not line.startswith(("Loading ", "Importing ", "Getting "))]
    print("\n".join(told), flush=True)
    if "Importer processing completed successfully" not in said or any(line.startswith(BAD_NEWS) for line in told):
        raise LaneFailed("Galaxy would not take the collection as it is")


def check_archive(archive: pathlib.Path) -> None:
    """The archive contains tracked files and what Ansible adds; no links, no tests, no demo."""
    with tarfile.open(archive) as content:
        members = content.getmembers()
    added = {"MANIFEST.json", "FILES.json"}
    files = {member.name for member in members if member.isfile()}
    unknown = sorted(files - added - set(tracked_files()))
    links = sorted(member.name for member in members if member.issym() or member.islnk())
    tops = {member.name.split("/")[0] for member in members if member.isdir()}
    stray = sorted(tops - {"docs", "meta", "playbooks", "plugins", "roles", "changelogs"})
    empty = [m.name for m in members if m.isdir() and not any(name.startswith(m.name + "/") for name in files)]
    if unknown or links or stray or empty:
        raise LaneFailed("in the archive: not in git %s, links %s, stray %s, empty %s" % (unknown, links, stray, empty))
    print("%s holds %d files" % (archive.name, len(files)))


def molecule() -> None:
    cost = "every playbook on hosts of its own, with systemd, over ssh"
    programs = {"podman": "podman", "mmdebstrap": "mmdebstrap", "ssh": "openssh-client"}
    if AS_ROOT:
        programs.update(runc="runc", nft="nftables")
    ensure_packages(
        programs, ["aardvark-dns", "catatonit", "debian-archive-keyring", "iptables", "netavark", "uidmap"], cost
    )
    try:
        run([ROOT / "tests" / "hosts" / "podman", "info"], quiet=True)
    except LaneFailed as error:
        raise NotPossible("podman does not work here (%s); untested: %s" % (error, cost)) from error
    make_tree()
    run([sys.executable, TREE / "tests" / "hosts" / "containers.py", "image", "before"])
    found = {path.parent.name: path.read_text("utf-8") for path in (TREE / "molecule").glob("*/molecule.yml")}
    # Scenarios that others need come first, then those that take longest.
    first = ["hosts", "schedule_backups", "rollback_complete", "deploy"]
    names = first + sorted(set(found) - {*first, "default"})
    with concurrent.futures.ThreadPoolExecutor(SCENARIOS_AT_A_TIME) as pool:
        deployed = pool.submit(scenario, "default")
        passed = {"default": deployed}
        for name in names:
            passed[name] = pool.submit(scenario, name, deployed if "image: after" in found[name] else None)
    failed = [name for name, result in passed.items() if not result.result()]
    if failed:
        raise LaneFailed("scenarios failed: " + ", ".join(failed))


def scenario(name: str, site: concurrent.futures.Future[bool] | None = None) -> bool:
    """Run one of Molecule's scenarios in separate directories; whether it passed.

    :param site: the scenario that makes the site that this one needs
    """
    if site is not None and not site.result():
        print("--- molecule %s: not run, for scenario default left no site" % name, flush=True)
        return False
    start = time.monotonic()
    # A Unix socket's path ends at 107 bytes, and the path of a checkout can be long.
    with short_directory() as places:
        (pathlib.Path(places) / "s").mkdir(mode=stat.S_IRWXU)
        extra = {
            **in_tree(),
            # As support/bytecode.py has it.
            "ANSIBLE_CALLBACK_PLUGINS": str(TREE / "tests" / "support" / "kept_payloads"),
            "BACKSTOP_TEST_PAYLOADS": str(WORK / "cache" / "payloads"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": places + "/s",
            "MOLECULE_EPHEMERAL_DIRECTORY": places + "/m",
        }
        argv = ["molecule", "test", "--scenario-name", name]
        done = run(argv, cwd=TREE, extra=extra, accept=range(256), shown=False)
    said = (name, "passed" if done.returncode == 0 else "failed", time.monotonic() - start)
    print("%s\n--- molecule %s: %s in %.1f s" % (done.stdout, *said), flush=True)
    return done.returncode == 0


@contextlib.contextmanager
def short_directory() -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="bt-")
    os.chmod(path, stat.S_IRWXU)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@dataclasses.dataclass
class Lane:
    name: str
    what: str
    act: Callable[[], None]
    #: Runs at the same time as this lane, which leaves half of a small machine idle.
    beside: str = ""
    #: Runs only if it is named.
    on_request: bool = False
    result: str = ""
    said: str = ""
    seconds: float = 0

    def go(self) -> None:
        start = time.monotonic()
        try:
            self.act()
            self.result = "passed"
        except LaneFailed as error:
            self.result, self.said = "failed", str(error)
        except NotPossible as error:
            self.result, self.said = ("failed" if IN_CI else "not run"), str(error)
        except NotNeeded as error:
            self.result, self.said = "not needed", str(error)
        self.seconds = time.monotonic() - start


class Beside:
    """Lanes that run in a separate process while another one runs here."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes
        names = [lane.name for lane in lanes]
        self._log, self._results = WORK / ("%s.log" % names[0]), WORK / ("%s.json" % names[0])
        self._results.unlink(missing_ok=True)
        argv = [sys.executable, __file__, "--results", str(self._results), *names]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def end(self) -> None:
        """Wait for them and show their output."""
        status = self._process.wait()
        print(self._log.read_text("utf-8", "replace"), flush=True)
        found = json.loads(self._results.read_text("utf-8")) if self._results.is_file() else {}
        for lane in self._lanes:
            unknown = ("failed", "the process of its own ended with status %d" % status, 0)
            lane.result, lane.said, lane.seconds = found.get(lane.name, unknown)


LANES = [
    Lane("lint", "ruff, yamllint", lint, "quality"),
    Lane("types", "mypy, strict, on the library", types, "quality"),
    Lane("quality", "project rules: imports, sources, documentation, role options", quality),
    Lane("unit", "tests without servers", unit),
    Lane("integration", "tests on a real PostgreSQL", integration),
    Lane("serial", "tests that start or kill much, one at a time: pm2, the role application", serial),
    Lane("prisma", "tests with real Prisma", prisma),
    Lane("faults", "killed, full, locked, unreachable", faults),
    Lane("playbooks", "playbooks on a real site: bad input, failures, kills; every example", playbooks),
    Lane("reports", "pages of reports in Chromium, alerts and dashboard with promtool", reports, "serial"),
    Lane("ordinary-user", "as root: unit and integration again, as an ordinary user", ordinary_user, "molecule"),
    Lane("ansible-lint", "profile production", ansible_lint, "demo"),
    Lane("sanity", "ansible-test sanity", sanity, "serial"),
    Lane("docs", "antsibull-docs, ansible-doc on everything, the site in .test/site", docs, "demo"),
    Lane("collection", "build, install, playbooks of the installed collection", collection, "demo"),
    Lane("demo", "the demo's whole life: begun, cut off, stopped, removed", demo),
    Lane(
        "faults-full",
        "everything that tries to lose data, often; writes docs/reliability.md",
        faults_full,
        on_request=True,
    ),
    Lane("molecule", "a scenario for each playbook, and one with four hosts: hosts in containers", molecule),
]


def report(lanes: Sequence[Lane]) -> int:
    print("\n%-15s %-11s %8s" % ("lane", "result", "seconds"))
    for lane in lanes:
        print("%-15s %-11s %8.1f  %s" % (lane.name, lane.result, lane.seconds, lane.said))
    failed = sum(lane.result == "failed" for lane in lanes)
    print("\n%d passed, %d failed" % (sum(lane.result == "passed" for lane in lanes), failed), flush=True)
    return 1 if failed else 0


def main() -> int:
    table = "\n".join("  %-15s %s" % (lane.name, lane.what) for lane in LANES)
    parser = argparse.ArgumentParser(
        prog="test.sh",
        description="Run the tests.",
        epilog="lanes:\n" + table,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("lanes", nargs="*", metavar="LANE", help="default: all but faults-full")
    parser.add_argument("--results", type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    chosen = arguments.lanes
    unknown = sorted(set(chosen) - {lane.name for lane in LANES})
    if unknown:
        parser.error("no such lane: %s (see --help)" % ", ".join(unknown))
    WORK.mkdir(exist_ok=True)
    # If it is set, every process compiles the library, and pytest rewrites the tests' asserts, again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    lanes = [lane for lane in LANES if lane.name in chosen or not (chosen or lane.on_request)]
    CHOSEN.update(lane.name for lane in lanes)
    go(lanes)
    if arguments.results:
        results = {lane.name: (lane.result, lane.said, lane.seconds) for lane in lanes}
        arguments.results.write_text(json.dumps(results), "utf-8")
    return report(lanes)


def go(lanes: Sequence[Lane]) -> None:
    """Run lanes one after the other; those with `beside` run at the same time as that lane."""
    hosts = [lane for lane in lanes if lane.beside not in {other.name for other in lanes}]
    for number, lane in enumerate(hosts, 1):
        others = [other for other in lanes if other.beside == lane.name]
        told = " (beside it: %s)" % ", ".join(other.name for other in others) if others else ""
        print("\n===== %d/%d %s: %s%s =====" % (number, len(hosts), lane.name, lane.what, told), flush=True)
        beside = Beside(others) if others else None
        lane.go()
        if beside is not None:
            beside.end()
        print("----- %s: %s in %.1f s %s" % (lane.name, lane.result, lane.seconds, lane.said), flush=True)


if __name__ == "__main__":
    sys.exit(main())
