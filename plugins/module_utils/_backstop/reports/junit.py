# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A report as JUnit XML, which CI systems show: a test case for each gate and each phase."""

from __future__ import annotations

import re
from typing import Optional
from xml.etree import ElementTree

from .operation_report import FAILED, WAIVED, OperationReport
from .phases import DONE

#: Characters that XML 1.0 cannot hold, such as the escape sequences of a terminal.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: OperationReport) -> str:
    """Gates and phases of one operation; a waived gate counts as skipped."""
    root = ElementTree.Element("testsuites", name=_text("%s of %s" % (report.kind, report.database)))
    gates = _suite(root, report, "gates")
    for gate in report.gates:
        case = _case(gates, report, gate.name)
        if gate.result == FAILED:
            _problem(case, "failure", gate.found, "expected: %s\n%s" % (gate.expected, gate.hint))
        elif gate.result == WAIVED:
            _problem(case, "skipped", "waived: " + gate.reason)
    phases = _suite(root, report, "phases")
    for phase in report.phases:
        case = _case(phases, report, phase.step, phase.seconds)
        if phase.result != DONE:
            _problem(case, "failure", phase.note or phase.result)
    end = _case(phases, report, "outcome", report.seconds)
    if report.outcome != "done":
        _problem(end, "failure", report.outcome or "not finished", report.reason)
    for suite in (gates, phases):
        cases = suite.findall("testcase")
        suite.set("tests", str(len(cases)))
        for name, kind in (("failures", "failure"), ("skipped", "skipped")):
            suite.set(name, str(sum(case.find(kind) is not None for case in cases)))
        suite.set("time", "%.3f" % sum(float(case.get("time", "0")) for case in cases if case.get("name") != "outcome"))
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _suite(root: ElementTree.Element, report: OperationReport, name: str) -> ElementTree.Element:
    full = "%s %s %s" % (report.kind, report.id, name)
    return ElementTree.SubElement(root, "testsuite", name=full, timestamp=report.began[:19], errors="0")


def _case(
    suite: ElementTree.Element, report: OperationReport, name: str, seconds: Optional[float] = None
) -> ElementTree.Element:
    place = "backstop.%s.%s" % (report.kind, report.database)
    return ElementTree.SubElement(
        suite, "testcase", classname=_text(place), name=_text(name), time="%.3f" % (seconds or 0)
    )


def _problem(case: ElementTree.Element, kind: str, message: str, text: str = "") -> None:
    ElementTree.SubElement(case, kind, message=_text(message)).text = _text(text) or None


def _text(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)
