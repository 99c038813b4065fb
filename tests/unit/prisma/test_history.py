# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The migrations folder, the history and their comparison, without a database."""

from __future__ import annotations

import datetime
import hashlib
import json
import random

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma import history
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.history import (
    APPLIED,
    FAILED,
    ROLLED_BACK,
    HistoryRow,
    compare,
    effective_state,
    from_mapping,
    history_differences,
    read_folder,
)

START = datetime.datetime(2025, 11, 8, 9, 30, 0, 123456, tzinfo=datetime.timezone.utc)
INIT, RECEIPTS = "20251001000000_init", "20251108000000_add_receipt_data"


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def row(name, state=APPLIED, sql="SELECT 1;\n", number=0, **fields):
    """A row as Prisma leaves it in this state."""
    started = START + datetime.timedelta(seconds=number)
    values = {
        "id": "%s-%d" % (name, number),
        "checksum": sha256(sql),
        "migration_name": name,
        "started_at": started,
        "finished_at": started if state == APPLIED else None,
        "rolled_back_at": started if state == ROLLED_BACK else None,
        "applied_steps_count": 1 if state == APPLIED else 0,
    }
    values.update(fields)
    return HistoryRow(**values)


def folder(*names, sql=b"SELECT 1;\n"):
    return from_mapping(dict.fromkeys(names, sql))


def write_folder(path, scripts, lock='provider = "postgresql"\n'):
    path.mkdir(exist_ok=True)
    if lock is not None:
        (path / "migration_lock.toml").write_text(lock)
    for name, content in scripts.items():
        (path / name).mkdir()
        (path / name / "migration.sql").write_bytes(content)
    return str(path)


# The folder


def test_the_folder_is_read_in_prismas_order(tmp_path):
    names = ["10_next", "1_Init", "1_init", "20251108000000_add_receipt_data", "0_init"]
    found = read_folder(write_folder(tmp_path, dict.fromkeys(names, b"")))
    assert [file.name for file in found] == ["0_init", "1_init", "1_Init", "10_next", "20251108000000_add_receipt_data"]


def test_files_and_links_beside_the_migrations_are_no_migrations(tmp_path):
    path = write_folder(tmp_path, {INIT: b"SELECT 1;"})
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "20990101000000_link").symlink_to(tmp_path / INIT)
    assert [file.name for file in read_folder(path)] == [INIT]


def test_no_folder(tmp_path):
    with pytest.raises(Refused, match="no migrations folder.*prisma/migrations"):
        read_folder(str(tmp_path / "prisma" / "migrations"))


def test_a_migration_without_sql(tmp_path):
    path = write_folder(tmp_path, {INIT: b"SELECT 1;"})
    (tmp_path / RECEIPTS).mkdir()
    with pytest.raises(Refused, match="P3015.*" + RECEIPTS):
        read_folder(path)


@pytest.mark.parametrize("lock", ['provider = "mysql"\n', "# empty\n", 'provider = "sqlite"'])
def test_another_provider(tmp_path, lock):
    path = write_folder(tmp_path, {INIT: b"SELECT 1;"}, lock=lock)
    with pytest.raises(Refused, match="P3019"):
        read_folder(path)


@pytest.mark.parametrize("lock", [None, '# comment\nprovider = "postgresql"\n', 'provider = "postgresql"\r\n'])
def test_a_lock_file_that_prisma_accepts(tmp_path, lock):
    assert len(read_folder(write_folder(tmp_path, {INIT: b"SELECT 1;"}, lock=lock))) == 1


def test_a_folder_that_may_not_be_read_is_a_clear_error(tmp_path):
    (tmp_path / INIT).mkdir()
    (tmp_path / INIT / "migration.sql").mkdir()
    with pytest.raises(BackstopError, match="cannot be read"):
        read_folder(str(tmp_path))


@pytest.mark.parametrize("content", [b"a\nb\n", b"a\r\nb\r\n", "\ufeffSELECT 'ä'".encode(), b"", b"no newline"])
def test_the_checksum_is_that_of_the_bytes(content):
    [file] = from_mapping({INIT: content})
    assert file.checksum == hashlib.sha256(content).hexdigest()
    assert file.matches(file.checksum)


def test_line_ends_do_not_make_an_edited_file():
    [unix] = from_mapping({INIT: b"CREATE TABLE a ();\n-- end\n"})
    [windows] = from_mapping({INIT: b"CREATE TABLE a ();\r\n-- end\r\n"})
    assert unix.matches(windows.checksum) and windows.matches(unix.checksum)
    assert not unix.matches(from_mapping({INIT: b"CREATE TABLE b ();\n"})[0].checksum)
    assert not unix.matches("")


def test_a_checksum_of_an_old_engine_is_recognised():
    """Old engines left out the leading zero of each byte."""
    files = (from_mapping({INIT: b"SELECT %d;" % number})[0] for number in range(100))
    file = next(file for file in files if "0" in file.checksum[::2])
    old = "".join("%x" % byte for byte in bytes.fromhex(file.checksum))
    assert len(old) < 64
    assert file.matches(old)
    assert not file.matches(old[:-1])


# Comparing


def test_no_table():
    state = compare(folder(INIT, RECEIPTS), None)
    assert (state.table_exists, state.pending, state.applied) == (False, [INIT, RECEIPTS], [])
    assert not state.up_to_date and state.problems() == []


def test_up_to_date():
    state = compare(folder(INIT, RECEIPTS), [row(INIT), row(RECEIPTS, number=1)])
    assert state.up_to_date and state.applied == [INIT, RECEIPTS]
    assert state.problems(expected=[RECEIPTS]) == []


def test_pending():
    state = compare(folder(INIT, RECEIPTS), [row(INIT)])
    assert (state.applied, state.pending) == ([INIT], [RECEIPTS])


def test_a_failed_migration_is_not_pending_and_blocks():
    state = compare(folder(INIT, RECEIPTS), [row(INIT), row(RECEIPTS, FAILED)])
    assert (state.failed, state.pending, state.applied) == ([RECEIPTS], [], [INIT])
    [problem] = state.problems()
    assert (problem.kind, problem.names) == ("failed", [RECEIPTS])


def test_rolled_back_is_pending_again():
    state = compare(folder(INIT, RECEIPTS), [row(INIT), row(RECEIPTS, ROLLED_BACK)])
    assert (state.pending, state.rolled_back, state.failed) == ([RECEIPTS], [RECEIPTS], [])


def test_rolled_back_twice_then_applied():
    rows = [row(RECEIPTS, ROLLED_BACK), row(RECEIPTS, ROLLED_BACK, number=1), row(RECEIPTS, number=2)]
    state = compare(folder(RECEIPTS), rows)
    assert state.up_to_date
    assert (state.applied, state.rolled_back, state.duplicates) == ([RECEIPTS], [], [])


def test_rolled_back_then_failed_again():
    state = compare(folder(RECEIPTS), [row(RECEIPTS, ROLLED_BACK), row(RECEIPTS, FAILED, number=1)])
    assert (state.failed, state.rolled_back, state.pending) == ([RECEIPTS], [], [])


def test_edited():
    state = compare(folder(INIT, sql=b"SELECT 2;\n"), [row(INIT)])
    assert (state.edited, state.applied, state.up_to_date) == ([INIT], [INIT], False)
    assert [problem.kind for problem in state.problems()] == ["edited"]


def test_a_failed_migration_may_be_corrected():
    state = compare(folder(INIT, sql=b"SELECT 2;\n"), [row(INIT, ROLLED_BACK), row(INIT, FAILED, number=1)])
    assert state.edited == []


@pytest.mark.parametrize("how, listed", [(APPLIED, "unknown"), (FAILED, "failed")])
def test_unknown_to_the_folder(how, listed):
    state = compare(folder(INIT), [row(INIT), row("20260101000000_later", how)])
    assert state.unknown == ["20260101000000_later"]
    assert "20260101000000_later" in getattr(state, listed)
    assert "unknown" in [problem.kind for problem in state.problems()]


def test_rolled_back_and_not_in_the_folder_is_no_problem():
    state = compare(folder(INIT), [row(INIT), row("20260101000000_later", ROLLED_BACK)])
    assert state.up_to_date and state.rolled_back == ["20260101000000_later"]


def test_two_rows_in_force():
    state = compare(folder(INIT), [row(INIT), row(INIT, number=1)])
    assert state.duplicates == [INIT] and not state.up_to_date


def test_expected_migrations():
    state = compare(folder(INIT, RECEIPTS, "20251109000000_surprise"), [row(INIT)])
    found = {problem.kind: problem for problem in state.problems(expected=[RECEIPTS, "20251108000000_add_recipt_data"])}
    assert found["unexpected"].names == ["20251109000000_surprise"]
    assert found["missing"].names == ["20251108000000_add_recipt_data"]
    assert RECEIPTS in found["missing"].hint
    assert state.problems(expected=[RECEIPTS, "20251109000000_surprise"]) == []


# Effects


def test_effective_state():
    rows = [row(RECEIPTS, ROLLED_BACK), row(INIT, number=1), row(RECEIPTS, number=2), row("2_x", FAILED, number=3)]
    assert [(effect.name, effect.state) for effect in effective_state(rows)] == [
        ("2_x", FAILED),
        (INIT, APPLIED),
        (RECEIPTS, APPLIED),
    ]
    assert effective_state(None) == []


def test_differences_ignore_what_was_rolled_back():
    before = [row(INIT)]
    assert history_differences(before, [row(INIT, number=9), row(RECEIPTS, ROLLED_BACK)]) == []
    assert history_differences(before, [row(INIT), row(RECEIPTS)]) == [RECEIPTS + " was absent and is applied"]
    assert history_differences(before, [row(INIT, FAILED)]) == [INIT + " was applied and is failed"]
    assert history_differences(before, None) == [INIT + " was applied and is absent"]
    assert history_differences(before, [row(INIT, sql="other")]) == [INIT + " has another checksum"]


def test_rows_survive_json():
    rows = [row(INIT, logs="ERROR: ü"), row(RECEIPTS, FAILED), row("x", ROLLED_BACK)]
    assert [HistoryRow.from_json(json.loads(json.dumps(one.to_json()))) for one in rows] == rows


def test_every_history_puts_every_name_where_a_deploy_would(seed):
    """Compared with Prisma's own rule, implemented in another way, on random histories."""
    generator = random.Random(seed)
    names = ["%d_m" % number for number in range(6)]
    for _round in range(300):
        rows = [
            row(generator.choice(names), generator.choice([APPLIED, FAILED, ROLLED_BACK]), number=number)
            for number in range(generator.randrange(8))
        ]
        known = generator.sample(names, generator.randrange(len(names) + 1))
        state = compare(folder(*known), rows)
        for name in names:
            mine = [one.state for one in rows if one.migration_name == name]
            assert (name in state.pending) == (name in known and set(mine) <= {ROLLED_BACK})
            assert (name in state.failed) == (FAILED in mine)
            assert (name in state.unknown) == (name not in known and bool(set(mine) - {ROLLED_BACK}))
            assert (name in state.duplicates) == (len([one for one in mine if one != ROLLED_BACK]) > 1)
        assert state.up_to_date == (not state.pending and not state.problems())
        assert history_differences(rows, [one for one in rows if one.state != ROLLED_BACK]) == []


def test_order_is_total(seed):
    generator = random.Random(seed)
    names = {"".join(generator.choice("aAbB019_-") for _n in range(generator.randrange(1, 5))) for _n in range(300)}
    assert len({str(history.migration_order(name)) for name in names}) == len(names)
