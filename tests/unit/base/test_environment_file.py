# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Environment files as dotenv, dotenv-expand and systemd read them, and which of their values must never be shown."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.environment_file import (
    expand,
    parse_dotenv,
    parse_systemd,
    read,
    secrets_by_name,
    secrets_in,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.processes import HIDDEN, redact
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.secret_texts import forms_of

KEY = "-----BEGIN PRIVATE KEY-----\nMIIBVQIBADANBg\nkqhkiG9w0BAQ==\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    "text, expected",
    [
        # From the tests of dotenv 17.
        (
            "# comment\nPORT=3000 # why\nexport A = 'x # y'\nB=\"two words\"\nnonsense\n C=`c`\nD=\n",
            {"PORT": "3000", "A": "x # y", "B": "two words", "C": "c", "D": ""},
        ),
        ("A='single quotes inside \"double\"'", {"A": 'single quotes inside "double"'}),
        ("A=\"`'b' \"", {"A": "`'b' "}),
        ('A="x\\ny"\nB=\'x\\ny\'\nC=x\\ny\nD="x\\"y"', {"A": "x\ny", "B": "x\\ny", "C": "x\\ny", "D": 'x\\"y'}),
        ('A="secret" # "why"\nB=\'a#b\' # c\nC=a#b\nD="a', {"A": "secret", "B": "a#b", "C": "a", "D": '"a'}),
        ("A: yes\nB : no\nC:no\nE=a=b", {"A": "yes", "E": "a=b"}),
        ("\ufeffA=1\r\nB='x\r\ny'\rC=2", {"A": "1", "B": "x\ny", "C": "2"}),
        ("A='%s' # key\nB=1" % KEY, {"A": KEY, "B": "1"}),
        ("A=${B}\nDOT.TED-NAME=1\n1A=x", {"A": "${B}", "DOT.TED-NAME": "1", "1A": "x"}),
        ("A=1\x85B=2\nC=\u2028D=3", {"A": "1\x85B=2", "C": "D=3"}),
    ],
)
def test_dotenv(text, expected):
    assert parse_dotenv(text) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        # From the tests of systemd (test-env-file.c) and systemd.exec(5).
        (
            "a=a\na=b\na=b\na=a\nb=b\\\nc\nd= d\\\ne  \\\nf  \ng=g\\ \nh= h\nX=\\",
            {"a": "a", "b": "bc", "d": "de  f", "g": "g ", "h": "h", "X": ""},
        ),
        (
            '#SPAMD_ARGS="-d"\n;x=1\nNORMAL1=line1\\\nline2\\\nline3\nNORMAL2=line1\nSUBS="a $b ${c}" ',
            {"NORMAL1": "line1line2line3", "NORMAL2": "line1", "SUBS": "a $b ${c}"},
        ),
        (
            "a='x'\"y\"z  \nb=x'y'\nc=x # y\nd='l1\nl2'\ne=\"a\\$b\\nc\\\"d\\\ne\"",
            {"a": "xyz", "b": "x'y'", "c": "x # y", "d": "l1\nl2", "e": 'a$b\\nc"de'},
        ),
        ("export A=1\n\ufeffB=2\nC D=3\n 1E=4\nF=${A}\nG", {"F": "${A}"}),
        ("A=it's\nB=1\r\nC='open\nend", {"A": "it's", "B": "1", "C": "open\nend"}),
    ],
)
def test_systemd(text, expected):
    assert parse_systemd(text) == expected


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"A": "x", "B": "${A}-$A-${A:-y}-${A:+y}"}, {"A": "x", "B": "x-x-x-y"}),
        ({"B": "${N:-d}${N-e}${N:-${M:-f}}${N:+g}${N}"}, {"B": "def"}),
        ({"B": "\\$A \\${A}", "A": "x"}, {"B": "$A ${A}", "A": "x"}),
        ({"U": "p://u:${PW}@h", "PW": "x"}, {"U": "p://u:x@h", "PW": "x"}),
        ({"PW": "pa$word$", "A": "${A}", "B": "${C}", "C": "${B}"}, {"PW": "pa$word$", "A": "", "B": "", "C": ""}),
    ],
)
def test_references(settings, expected):
    assert expand(settings) == expected


def test_a_file_by_the_rules_of_its_program(tmp_path: pathlib.Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b"\xef\xbb\xbfPW=a\\\nb\nURL='p://${PW}'\n")
    assert read(str(path)) == {"PW": "a\\", "URL": "p://a\\"}
    assert read(str(path), "systemd") == {"URL": "p://${PW}"}
    assert read(str(tmp_path / "missing")) == {} and secrets_in(str(tmp_path / "missing")) == []


@pytest.mark.parametrize(
    "text, shown",
    [
        ('DB="hunter22" # the database\'s', "password authentication with hunter22 failed"),
        ("DB=hunter22 # the database's", "hunter22"),
        ("A='%s'" % KEY, "a line: MIIBVQIBADANBg"),
        ("A='%s'" % KEY, '{"key":"%s"}' % KEY.replace("\n", "\\n")),
        ('A="%s' % KEY, "kqhkiG9w0BAQ=="),
        ("A=one\\\ntwo3", "onetwo3"),
        ("PW=hunter22\nURL=postgresql://u:${PW}@h/x", "postgresql://u:hunter22@h/x"),
        ("URL=postgresql://u:p%40ss%2Fw@h/x", "p@ss/w"),
        ("URL=postgresql://u@h/x?password=p%40ss%2Fw", "p@ss/w"),
        ("URL=postgresql://u:pa/ss#w@h/x", "pa/ss#w"),
        ("URL=postgresql://u:hunter22@h/x?application_name=a@b", "hunter22"),
        ("URL=postgresql://u:pa+ss@h/x", "pa%2Bss"),
        ("BROKEN=http://[::1:x:y@", "http://[::1:x:y@"),
        ("A='say \"friend\"'", '{"A":"say \\"friend\\""}'),
    ],
)
def test_every_value_is_a_secret(tmp_path, text, shown):
    path = tmp_path / ".env"
    path.write_text(text + "\nNODE_ENV=production\nPORT=3000\nLOG_LEVEL=info\nON=1\n", "utf-8")
    said = redact(shown + " in production on 3000: info 1", secrets_in(str(path)))
    assert said.endswith(" in production on 3000: info 1") and HIDDEN in said
    secrets = ("hunter22", "MIIB", "kqhk", "onetwo3", "p@ss/w", "pa/ss", "pa%2Bss", "x:y", "friend")
    assert any(secret in shown for secret in secrets) and not any(secret in said for secret in secrets)


def test_of_headers_only_what_bears_a_secrets_name() -> None:
    given = {"Authorization": "Bearer hidden", "Accept": "text/html", "X-Api-Key": "abcd", "Cookie": "on"}
    assert secrets_by_name(given) == sorted({*forms_of("Bearer hidden"), "abcd"})
