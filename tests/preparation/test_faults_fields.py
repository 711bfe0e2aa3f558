"""Tables of fields as spreadsheets and people write them."""

import json
import os
from pathlib import Path

import pytest

from tests.preparation.making import folder_of, prepare, read_all


def labelled(tmp_path: Path, text: str | bytes, name: str = "fields.csv") -> tuple[int, Path]:
    """Prepare two images with a table of fields; return the exit code and the folder of the data set."""
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    source = folder_of(tmp_path / "in", 2, ())
    return prepare(f"folder:{source}", tmp_path / "out", "--fields", tmp_path / name), tmp_path / "out"


ROWS = "file,label\n000.png,a\n001.png,b\n"


@pytest.mark.parametrize(
    "text",
    [
        ROWS,
        ROWS + "\n",
        ROWS + ",\n , \n\r\n",
        ROWS.replace("\n", "\r\n\r\n"),
        "\ufeff" + ROWS,
        ROWS.encode("utf-16"),
        "sep=;\r\n" + ROWS.replace(",", ";"),
        ROWS.replace(",", ";"),
        ROWS.replace(",", "\t"),
        ROWS.replace(",", ", "),
        ROWS.replace("\n", ",,\n"),
        "file,label\n000.png,a,,\n001.png,b,,\n",
        'file,label\n"000.png","a"\n001.png,b\n"",""\n',
        "file,label\n./000.png,a\n001.png ,b\n",
    ],
)
def test_marks_of_spreadsheets_are_no_content(text: str | bytes, tmp_path: Path) -> None:
    code, dest = labelled(tmp_path, text)
    assert code == 0
    index, samples = read_all(dest)
    assert index.classes == ("a", "b")
    originals = [(tmp_path / "in" / f"00{number}.png").read_bytes() for number in range(2)]
    assert {bytes(s["png"]): bytes(s["cls"]) for s in samples.values()} == dict(
        zip(originals, [b"0", b"1"], strict=True)
    )
    assert {kind for members in samples.values() for kind in members} == {"png", "cls"}


@pytest.mark.parametrize(
    ("labels", "classes", "numbering"),
    [
        (["01", "02"], ["01", "02"], "labels are names, in numeric order"),
        (["10", "9"], [str(number) for number in range(11)], "labels are class numbers"),
        (["010", "9"], ["9", "010"], "labels are names, in numeric order"),
        ([" 1", "0"], ["0", "1"], "labels are class numbers"),
        (["1.0", "a"], ["1.0", "a"], "labels are names, in alphabetical order"),
        (["١", "1"], ["1", "١"], "labels are names, in alphabetical order"),
    ],
)
def test_a_label_is_a_name_or_a_number_and_told_which(
    labels: list[str], classes: list[str], numbering: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, dest = labelled(tmp_path, f'file,label\n000.png,"{labels[0]}"\n001.png,"{labels[1]}"\n')
    assert code == 0
    index, samples = read_all(dest)
    assert index.classes == tuple(classes)
    found = {classes[int(bytes(members["cls"]))] for members in samples.values()}
    assert found == {label.strip() for label in labels}
    assert numbering in capsys.readouterr().err


def test_identifiers_stay_as_they_are(tmp_path: Path) -> None:
    cells = {"a": "007", "b": "1_000", "c": "+49", "d": "5", "e": "1e3", "f": "1e999", "g": "inf", "h": "9" * 5000}
    code, dest = labelled(
        tmp_path, f"file,{','.join(cells)}\n" + "".join(f"00{n}.png,{','.join(cells.values())}\n" for n in "01")
    )
    assert code == 0
    _, samples = read_all(dest)
    for members in samples.values():
        assert json.loads(bytes(members["json"])) == {**cells, "d": 5, "e": 1000.0}


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("file,label,label\n000.png,a,b\n", "f.csv", "two columns are named 'label'; rename or delete one"),
        ("id,file\n1,000.png\n", "f.csv", "column 'file' is not the first; put the paths into the first column"),
        ("file,,b\n000.png,a,b\n", "f.csv", "line 2: 'a' is in a column without a name; name it in the header"),
        ("file,label\n000.png," + "x" * 200_000 + "\n", "f.csv", "line 2: not a CSV (field larger than field limit"),
        (
            "file,label\n000.png,99999999999\n001.png,1\n",
            "f.csv",
            "label 99999999999, but only 2 labels; number classes",
        ),
        ("file,label\n000.png," + "9" * 5000 + "\n001.png,1\n", "f.csv", "but only 2 labels; number classes from 0 up"),
        ('{"file": "000.png", "text": "\\ud800"}\n{"file": "001.png"}', "f.jsonl", "'000.png' has a text with half a"),
        ("[" * 100_000, "f.jsonl", "line 1: invalid JSON"),
        ('{"file": "000.png", "n": ' + "9" * 5000 + "}", "f.jsonl", "line 1: invalid JSON"),
    ],
)
def test_a_table_that_is_wrong_is_one_line(
    text: str, name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert labelled(tmp_path, text, name)[0] == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_pipe_of_fields_does_not_hang(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "fields.csv")
    source = folder_of(tmp_path / "in", 1, ())
    assert prepare(f"folder:{source}", tmp_path / "out", "--fields", tmp_path / "fields.csv") == 2
    assert "not a regular file" in capsys.readouterr().err
