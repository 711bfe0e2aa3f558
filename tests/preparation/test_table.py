"""`ganrun prepare table:`: rows of numbers with missing ones to points in [0, 1], and what is no such table."""

import json

import numpy as np
import pytest
from PIL import Image

from ganrun.data.columns import columns_of, restored
from ganrun.preparation.table import read_table
from tests.preparation.making import bytes_of, prepare, read_all

TABLE = "height;mass;age\n160;60;NA\n170;;30\n180;90.5;nan\n;;\n\n165; 70 ;45\n"


@pytest.fixture
def table(tmp_path):
    (tmp_path / "people.csv").write_text(TABLE)
    assert prepare(f"table:{tmp_path / 'people.csv'}", tmp_path / "data") == 0
    return tmp_path / "data"


def test_a_table_becomes_points_with_the_ranges_of_its_columns(table):
    index, samples = read_all(table)
    assert (index.image_size, index.channels, index.samples, index.made["missing"]) == (1, 3, 4, 3)
    columns = [tuple(column) for column in columns_of(index)]
    assert columns == [("height", 160, 180), ("mass", 60, 90.5), ("age", 30, 45)]
    assert index.made["left_out"] == ["1 row without a number"]
    rows = np.array([json.loads(bytes(members["json"])) for members in samples.values()], float)
    assert np.nanmin(rows, 0).tolist() == [0, 0, 0]
    assert np.nanmax(rows, 0).tolist() == [1, 1, 1]
    back = restored(rows, columns_of(index))
    found = {tuple(None if np.isnan(x) else round(x, 3) for x in row) for row in back}
    assert found == {(160, 60, None), (170, None, 30), (180, 90.5, None), (165, 70, 45)}
    assert Image.open(table / "preview.png").size[0] > 100


def test_the_same_table_gives_the_same_bytes_and_another_is_refused(table, tmp_path, capsys):
    before = bytes_of(table)
    assert prepare(f"table:{tmp_path / 'people.csv'}", table) == 0
    assert bytes_of(table) == before
    (tmp_path / "people.csv").write_text(TABLE.replace("165", "166"))
    assert prepare(f"table:{tmp_path / 'people.csv'}", table) == 2
    assert "has a data set made of other files" in capsys.readouterr().err


def test_another_table_is_named_by_its_columns(table, tmp_path, capsys):
    (tmp_path / "people.csv").write_text(TABLE.replace("age", "years"))
    assert prepare(f"table:{tmp_path / 'people.csv'}", table) == 2
    words = "made of a table with other columns: height, mass, age; not height, mass, years; choose another folder"
    assert words in capsys.readouterr().err
    (tmp_path / "people.csv").write_text(TABLE.replace("180", "190"))
    assert prepare(f"table:{tmp_path / 'people.csv'}", table) == 2
    assert "made of another table: its columns have the same names, but other numbers" in capsys.readouterr().err


def test_a_table_without_a_header_and_its_text(tmp_path):
    (tmp_path / "plain.csv").write_text("1,2.50\n,na\n3,1e3\n")
    table = read_table(str(tmp_path / "plain.csv"), "it")
    assert table.names == ("1", "2")
    assert np.array_equal(table.values, [[1, 2.5], [np.nan, np.nan], [3, 1000]], equal_nan=True)
    filled = np.where(np.isnan(table.values), 1 / 3, table.values)
    assert table.with_missing(filled) == "1,2.50\n0.333333,0.333333\n3,1e3\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("T,2\nU,3\n", "a.csv, line 1: 'T' in column 1 is not a number; remove the column"),
        ("a,b\n1,2\n3,x\n", "a.csv, line 3: 'x' in column 'b' is not a number"),
        ("a,b\n1,2\n3,inf\n", "line 3: 'inf' in column 'b' is not a number"),
        ("a,b\n1,2\n3\n", "a.csv, line 3: 1 cells, but 2 columns; correct it"),
        ("a,b\n1,\n3,NA\n", "a.csv: column 'b' has no number; remove it"),
        ("a,a\n1,2\n", "a.csv: two columns are named 'a'; rename or remove one"),
        ("a,b\n", "a.csv: no row of numbers; add some"),
        ("", "a.csv: no row of numbers; add some"),
        (None, "a.csv: No such file or directory"),
    ],
)
def test_what_is_no_table_of_numbers_is_one_line(text, words, tmp_path, capsys):
    if text is not None:
        (tmp_path / "a.csv").write_text(text)
    assert prepare(f"table:{tmp_path / 'a.csv'}", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_options_of_images_are_refused(tmp_path, capsys):
    assert prepare("table:a.csv", tmp_path / "out", "--size", 8) == 2
    assert "--size: only for" in capsys.readouterr().err
