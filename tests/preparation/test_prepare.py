"""`ganrun prepare`: its data sets, and continuing an interrupted command."""

import csv
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganrun.data.index import open_data
from ganrun.data.shard import open_shard
from ganrun.preparation.convert_image import Picture, Rule, Stored, convert
from ganrun.preparation.pack import write_tar
from ganrun.prepare import main
from tests.preparation.making import bytes_of, folder_of, idx, noise, png, prepare, read_all, shards_of


def test_a_folder_keeps_its_files_and_its_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder_of(tmp_path / "in")
    assert prepare(f"folder:{source}", tmp_path / "out", "--verify") == 0
    index, samples = read_all(tmp_path / "out")
    assert (index.image_size, index.channels, index.classes) == (8, 3, ("cat", "dog"))
    assert len(samples) == index.samples == 20
    originals = {file.read_bytes(): file.parent.name for file in source.rglob("*.png")}
    found = {bytes(s["png"]): index.classes[int(bytes(s["cls"]))] for s in samples.values()}
    assert found == originals
    assert index.made["images_of_class"] == [10, 10]
    mean = np.mean([np.asarray(Image.open(file)) for file in source.rglob("*.png")], (0, 1, 2))
    assert index.made["channel_means"] == pytest.approx(mean, abs=1e-3)
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == str(tmp_path / "out")
    assert "20 images, 0 skipped" in err
    assert "cat 10, dog 10" in err
    assert Image.open(tmp_path / "out" / "preview.png").size[0] == 8 * 10 + 2


def test_what_counts_as_an_image_and_as_a_class(tmp_path: Path) -> None:
    one = folder_of(tmp_path / "one", 4, ("only",))
    (one / "only" / "notes.txt").write_text("no image")
    noise(1).save(one / "only" / ".hidden.png")
    (one / "only" / "back").symlink_to(one)
    assert prepare(f"folder:{one}", tmp_path / "a") == 0
    index, samples = read_all(tmp_path / "a")
    assert (index.classes, len(samples)) == ((), 4)  # one sub-folder tells nothing apart
    mixed = folder_of(tmp_path / "mixed", 4)
    noise(9).save(mixed / "top.png")
    assert prepare(f"folder:{mixed}", tmp_path / "b") == 0
    assert read_all(tmp_path / "b")[0].classes == ()
    assert prepare(f"folder:{folder_of(tmp_path / 'in', 20)}", tmp_path / "c", "--limit", 8) == 0
    index, samples = read_all(tmp_path / "c")
    assert (index.classes, len(samples)) == (("cat", "dog"), 8)
    assert len({bytes(members["cls"]) for members in samples.values()}) == 2


def test_samples_are_shuffled_over_the_shards(tmp_path: Path) -> None:
    assert prepare(f"folder:{folder_of(tmp_path / 'in', 40)}", tmp_path / "out", "--shard-samples", 10) == 0
    data = open_data(str(tmp_path / "out"))
    assert [shard.samples for shard in data.index.shards] == [10] * 4
    for n, shard in enumerate(data.index.shards):
        labels = {bytes(members["cls"]) for _, members in open_shard(data.read(n), shard, "")}
        assert labels == {b"0", b"1"}


def test_equal_input_gives_equal_bytes_with_any_number_of_processes(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in")
    for workers in (1, 2):
        place = tmp_path / str(workers)
        assert main([f"folder:{source}", str(place), "--size", "6", "--workers", str(workers)]) == 0
    assert bytes_of(tmp_path / "1") == bytes_of(tmp_path / "2")


def test_a_stopped_run_goes_on_and_keeps_whole_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, whole, cut = folder_of(tmp_path / "in"), tmp_path / "whole", tmp_path / "cut"
    assert prepare(f"folder:{source}", whole) == 0

    calls: list[object] = []

    def interrupted_at(limit: int) -> Callable[[Stored, Rule], Picture]:
        def counted(stored: Stored, rule: Rule) -> Picture:
            calls.append(stored)
            if len(calls) == limit:
                raise KeyboardInterrupt
            return convert(stored, rule)

        return counted

    monkeypatch.setattr("ganrun.preparation.convert_samples.convert", interrupted_at(11))
    assert prepare(f"folder:{source}", cut) == 130
    unfinished = (cut / "unfinished.json").read_text()
    assert '"counts"' in unfinished
    (cut / "unfinished.json").write_text(unfinished.replace('"counts"', '"tally"'))  # As ganrun 0.1 wrote it.
    assert "index.json" not in bytes_of(cut)
    assert prepare(f"shards:{cut}") == 2  # half a data set gets no index
    damaged = sorted(cut.glob("*.tar"))[0]
    damaged.write_bytes(b"cut off")
    calls.clear()
    monkeypatch.setattr("ganrun.preparation.convert_samples.convert", interrupted_at(1000))
    assert prepare(f"folder:{source}", cut) == 0
    assert 0 < len(calls) < 20
    assert bytes_of(cut) == bytes_of(whole)


def test_the_same_command_again_does_nothing_another_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = folder_of(tmp_path / "in")
    assert prepare(f"folder:{source}", tmp_path / "out") == 0
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    assert prepare(f"folder:{source}", tmp_path / "out") == 0
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == before
    assert prepare(f"folder:{source}", tmp_path / "out", "--size", 4) == 2
    assert "made with size 8, not 4" in capsys.readouterr().err


def test_unreadable_images_are_listed_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder_of(tmp_path / "in", 10)
    (source / "cat" / "000.png").write_bytes(b"text")
    assert prepare(f"folder:{source}", tmp_path / "out") == 0
    assert "cat/000.png: not an image format that Pillow can read" in capsys.readouterr().err
    assert "cat/000.png" in (tmp_path / "out" / "skipped.txt").read_text()
    index, samples = read_all(tmp_path / "out")
    assert len(samples) == 9
    assert index.made["skipped"] == 1


def test_strict_leaves_nothing_half_made(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 10)
    (source / "cat" / "000.png").write_bytes(b"text")
    assert prepare(f"folder:{source}", tmp_path / "out", "--strict") == 2
    assert list((tmp_path / "out").iterdir()) == []


def test_fashion_mnist_is_padded_and_labelled(tmp_path: Path) -> None:
    assert prepare(f"fashion-mnist:{idx(tmp_path / 'in')}", tmp_path / "out", "--limit", 11, "--gzip") == 0
    index, samples = read_all(tmp_path / "out")
    assert (index.image_size, index.channels, len(index.classes), index.samples) == (32, 1, 10, 11)
    assert all(shard.name.endswith(".tar.gz") for shard in index.shards)
    images = {}
    for members in samples.values():
        (tmp_path / "one.png").write_bytes(members["png"])
        images[int(bytes(members["cls"]))] = np.asarray(Image.open(tmp_path / "one.png"))
    expected = np.arange(784, 2 * 784, dtype=np.uint32).astype(np.uint8).reshape(28, 28)
    assert (images[1][2:-2, 2:-2] == expected).all()
    assert images[1][:2].max() == 0


def test_celeba_is_cropped_to_its_centre_with_its_attributes(tmp_path: Path) -> None:
    faces = tmp_path / "in" / "celeba" / "img_align_celeba"
    faces.mkdir(parents=True)
    for number in (1, 2):
        image = Image.new("RGB", (178, 218), "red")
        image.paste("blue", (0, 20, 178, 198))
        image.save(faces / f"{number:06d}.png")
    (faces.parent / "list_attr_celeba.txt").write_text("2\nMale Young\n000001.png -1  1\n000002.png  1 -1\n")
    assert prepare(f"celeba:{tmp_path / 'in'}", tmp_path / "out") == 0
    index, samples = read_all(tmp_path / "out")
    assert (index.image_size, index.made["channel_means"]) == (64, [0, 0, 255])
    attributes = {json.dumps(json.loads(bytes(members["json"]))) for members in samples.values()}
    assert attributes == {'{"Male": false, "Young": true}', '{"Male": true, "Young": false}'}


def test_cifar10_comes_through_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        data = np.zeros((3, 32, 32, 3), np.uint8)
        targets = (2, 0, 1)
        classes = ("a", "b", "c")

        def __init__(self, root: str) -> None: ...

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Fake)
    assert prepare(f"cifar10:{tmp_path}", tmp_path / "out") == 2  # inside its source
    assert prepare(f"cifar10:{tmp_path / 'in'}", tmp_path / "out") == 0
    index, samples = read_all(tmp_path / "out")
    assert (index.image_size, index.channels, index.classes, len(samples)) == (32, 3, ("a", "b", "c"), 3)


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_fields_become_members(tmp_path: Path, ending: str) -> None:
    source, file = folder_of(tmp_path / "in", 3, ()), tmp_path / f"fields{ending}"
    rows = [{"file": f"00{n}.png", "label": "ab"[n % 2], "text": f"1{n}", "age": n} for n in range(3)]
    with file.open("w") as stream:
        if ending == ".csv":
            writer = csv.DictWriter(stream, ["file", "label", "text", "age"])
            writer.writeheader()
            writer.writerows(rows)
        else:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
    assert prepare(f"folder:{source}", tmp_path / "out", "--fields", file) == 0
    index, samples = read_all(tmp_path / "out")
    assert index.classes == ("a", "b")
    found = {(bytes(m["txt"]), bytes(m["cls"]), bytes(m["json"])) for m in samples.values()}
    assert found == {(f"1{n}".encode(), str(n % 2).encode(), f'{{"age": {n}}}'.encode()) for n in range(3)}


def test_shards_are_indexed_where_they_are(tmp_path: Path) -> None:
    image = png(noise(0), tmp_path)
    source = shards_of(tmp_path / "in", *([(f"{n}-{m}", {"png": image, "cls": b"2"}) for m in "ab"] for n in "01"))
    before = bytes_of(source)
    assert prepare(f"shards:{source}") == 0
    index, samples = read_all(source)
    assert (index.image_size, index.channels, index.classes, len(samples)) == (8, 3, ("0", "1", "2"), 4)
    assert before.items() <= bytes_of(source).items()
    assert prepare(f"shards:{source}", "--verify") == 0
    (source / "0.tar").write_bytes(before["1.tar"])
    assert prepare(f"shards:{source}", "--verify") == 2
    assert prepare(f"shards:{source}") == 0  # an index made anew says what is there now
    assert prepare(f"shards:{source}", "--verify") == 0


def test_copied_shards_keep_keys_order_and_members(tmp_path: Path) -> None:
    noise(1, (16, 16)).save(tmp_path / "seg.png")
    members = {"jpg": b"", "cls": b"1", "txt": b"words", "seg.png": (tmp_path / "seg.png").read_bytes()}
    noise(0, (16, 16)).save(tmp_path / "one.jpg")
    members["jpg"] = (tmp_path / "one.jpg").read_bytes()
    source = shards_of(
        tmp_path / "in", [("z", members), ("a", members)], [("b" * 120, members), ("broken", {"jpg": b""})]
    )
    assert prepare(f"shards:{source}", tmp_path / "same") == 0
    index, samples = read_all(tmp_path / "same")
    assert list(samples) == ["z", "a", "b" * 120]
    assert {kind: bytes(content) for kind, content in samples["z"].items()} == members
    assert index.made["skipped"] == 1
    assert prepare(f"shards:{source}", tmp_path / "small", "--size", 4, "--channels", 1) == 0
    index, samples = read_all(tmp_path / "small")
    assert (index.image_size, index.channels) == (4, 1)
    assert set(samples["a"]) == {"png", "cls", "txt", "seg.png"}
    paired = Image.open(io.BytesIO(samples["a"]["seg.png"]))
    assert (paired.size, paired.mode) == ((4, 4), "RGB")  # as large as the first, in its own colours


def test_formats(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 2)
    for name in ("png", "jpg", "webp"):
        assert prepare(f"folder:{source}", tmp_path / name, "--format", name) == 0
        assert all(name in members for members in read_all(tmp_path / name)[1].values())


def test_help_answers_without_torch_or_ray() -> None:
    code = (
        "import sys; from ganrun.prepare import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules or 'ray' in sys.modules or 'webdataset' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ganrun prepare folder:" in done.stdout


def test_tars_are_plain_ustar(tmp_path: Path) -> None:
    data, count = write_tar([("000", {"png": b"x", "cls": b"1"})])
    (tmp_path / "a.tar").write_bytes(data)
    assert count == 1
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert [(m.name, m.mtime, m.uid, m.pax_headers) for m in tar] == [
            ("000.cls", 0, 0, {}),
            ("000.png", 0, 0, {}),
        ]
    assert data[257:263] == b"ustar\0"
