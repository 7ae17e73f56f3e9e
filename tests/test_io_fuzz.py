"""Mutated files, some of those that ``fuzz_io.py`` makes; see docs/files.md."""

import json

from fuzz_io import case, check_many, main

CASES = 2_000


def test_mutated_files_are_refused_or_valid():
    result = check_many(0, CASES)
    assert result["findings"] == []
    # a good part of the mutations does no harm
    assert result["loaded"] > CASES // 20
    assert result["refused"] > CASES // 2
    assert result["slowest"]["seconds"] < 2


def test_cases_are_the_same_in_each_run():
    assert [case(number) for number in range(50)] == [case(n) for n in range(50)]


def test_findings_are_told(monkeypatch, capsys):
    monkeypatch.setattr("fuzz_io.check", lambda *_: 1 / 0)
    monkeypatch.setattr("sys.argv", ["fuzz_io.py", "--start", "7", "--cases", "2"])
    assert main() == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["findings"] == [7, 8]
    assert "case 8:" in printed.err
    assert "ZeroDivisionError" in printed.err
