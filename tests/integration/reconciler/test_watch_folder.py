"""The watched folder: whole files are taken and moved aside, links are not followed (RC1, RC2, RC16)."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.reconciler.use_cases.ports import Context
from services.reconciler.use_cases.settlement_ports import Intake, RawFile
from services.reconciler.use_cases.watch_folder import FolderWatch
from shared.errors import DatabaseUnavailable
from tests.integration.reconciler.conftest import World
from tests.support.settlement_bytes import a_file
from tests.support.settlement_reader import InProcessReader


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "watched" / "stripe").mkdir(parents=True)
    return tmp_path / "watched"


@pytest.fixture
def context(world: World, folder: Path) -> Context:
    intake = Intake(world.container.context.intake.turn, 1 << 30, folder)
    return replace(world.container.context, reader=InProcessReader(), intake=intake)


@pytest.fixture
def watch(context: Context) -> FolderWatch:
    return FolderWatch(context)


async def files(world: World) -> list[dict[str, Any]]:
    return await world.rows("SELECT * FROM settlement_files ORDER BY file_id")


def names(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}


async def looks(watch: FolderWatch, times: int = 2) -> None:
    for _ in range(times):
        await watch.round()


async def test_a_file_is_taken_at_the_second_look_and_moved(world: World, folder: Path, watch: FolderWatch) -> None:
    (folder / "stripe" / "January.csv").write_bytes(a_file())
    await watch.round()
    assert await files(world) == [], "somebody may still be writing it"
    await watch.round()
    (file,) = await files(world)
    assert (file["gateway"], file["account"], file["name"]) == ("stripe", "", "January.csv")
    assert (file["source"], file["received_by"]) == ("folder", "folder")
    assert names(folder) == {"stripe/done/January.csv"}
    await looks(watch)
    assert len(await files(world)) == 1


async def test_a_file_that_grows_is_left_alone(world: World, folder: Path, watch: FolderWatch) -> None:
    """RC2."""
    path = folder / "stripe" / "January.csv"
    for count in (1, 2, 3):
        path.write_bytes(a_file(count))
        await watch.round()
        assert await files(world) == []
    os.utime(path, ns=(1, 1))  # the same size, written again
    await watch.round()
    assert await files(world) == []
    await watch.round()
    assert len(await files(world)) == 1


async def test_a_directory_names_gateway_and_account(world: World, folder: Path, watch: FolderWatch) -> None:
    for directory in ("stripe__eu-1", "Not a gateway", "done"):
        (folder / directory).mkdir()
        (folder / directory / "a.csv").write_bytes(a_file())
    (folder / "a.csv").write_bytes(a_file())
    await looks(watch)
    known = [(file["gateway"], file["account"]) for file in await files(world)]
    assert known == [("stripe", "eu_1")], "as payment_service writes it"


@pytest.mark.parametrize("name", ["a.csv.part", "a.csv.tmp", "A.PART", ".a.csv", ".a.csv.swp"])
async def test_unfinished_and_hidden_files_are_left_alone(
    world: World, folder: Path, watch: FolderWatch, name: str
) -> None:
    (folder / "stripe" / name).write_bytes(a_file())
    await looks(watch)
    assert await files(world) == []
    assert names(folder) == {f"stripe/{name}"}


async def test_links_pipes_and_directories_are_left_alone(
    world: World, folder: Path, watch: FolderWatch, tmp_path: Path
) -> None:
    """RC16."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.csv").write_bytes(a_file())
    (folder / "stripe" / "link.csv").symlink_to(outside / "a.csv")
    (folder / "stripe" / "deeper").mkdir()
    (folder / "stripe" / "deeper" / "a.csv").write_bytes(a_file())
    (folder / "paypal").symlink_to(outside)
    os.mkfifo(folder / "stripe" / "pipe.csv")
    await looks(watch)
    assert await files(world) == []
    assert (outside / "a.csv").exists()


async def test_a_link_that_takes_a_files_place_is_not_followed(
    world: World, folder: Path, watch: FolderWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RC16: between the look and the opening."""
    path, outside = folder / "stripe" / "a.csv", tmp_path / "secret.csv"
    path.write_bytes(a_file())
    outside.write_bytes(a_file(9))
    opens = os.open

    def swaps(name: Any, flags: int, *more: Any, **named: Any) -> int:
        if Path(name) == path:
            path.unlink()
            path.symlink_to(outside)
        return opens(name, flags, *more, **named)

    monkeypatch.setattr(os, "open", swaps)
    await looks(watch)
    assert await files(world) == []
    assert outside.exists()


async def test_what_is_refused_is_moved_with_the_reason_beside_it(
    world: World, folder: Path, watch: FolderWatch
) -> None:
    (folder / "stripe" / "photo.png").write_bytes(b"\x89PNG\0\0")
    (folder / "stripe" / "a.csv").write_bytes(a_file())
    await looks(watch)
    assert names(folder) == {"stripe/done/a.csv", "stripe/refused/photo.png", "stripe/refused/photo.png.txt"}
    assert (folder / "stripe" / "refused" / "photo.png.txt").read_text() == (
        "binary: the file is neither text nor a spreadsheet\n"
    )
    assert len(await files(world)) == 1


async def test_a_name_that_is_taken_is_numbered(folder: Path, watch: FolderWatch) -> None:
    for count in (1, 2, 2):
        (folder / "stripe" / "a.tar.csv").write_bytes(a_file(count))
        await looks(watch)
    assert names(folder) == {"stripe/done/a.tar.csv", "stripe/done/a-2.tar.csv", "stripe/done/a-3.tar.csv"}


async def test_a_crash_before_the_file_was_moved_finds_it_known(
    world: World, context: Context, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RC1."""
    (folder / "stripe" / "a.csv").write_bytes(a_file())

    def crashes(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", crashes)
        with pytest.raises(KeyboardInterrupt):
            await looks(FolderWatch(context))
    assert len(await files(world)) == 1
    assert names(folder) == {"stripe/a.csv"}
    await looks(FolderWatch(context))
    assert len(await files(world)) == 1
    assert names(folder) == {"stripe/done/a.csv"}


async def test_a_file_that_cannot_be_moved_is_read_once(
    world: World, context: Context, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_forbidden(*_: Any, **__: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "rename", is_forbidden)
    path, watch = folder / "stripe" / "a.csv", FolderWatch(context)
    path.write_bytes(a_file())
    await looks(watch, 6)
    assert isinstance(context.reader, InProcessReader)
    assert context.reader.inspected == 1
    path.write_bytes(a_file(7))
    await looks(watch, 6)
    assert context.reader.inspected == 2
    assert len(await files(world)) == 2


async def test_while_the_database_is_away_a_file_stays(world: World, context: Context, folder: Path) -> None:
    class Away(InProcessReader):
        async def inspect(self, raw: RawFile, **names: Any) -> Any:
            raise DatabaseUnavailable

    (folder / "stripe" / "a.csv").write_bytes(a_file())
    watch = FolderWatch(replace(context, reader=Away()))
    await watch.round()
    with pytest.raises(DatabaseUnavailable):
        await watch.round()
    assert names(folder) == {"stripe/a.csv"}
    await looks(FolderWatch(context))
    assert len(await files(world)) == 1


async def test_no_folder_and_a_missing_folder_are_nothing_to_do(context: Context, folder: Path) -> None:
    for where in (None, folder / "not there"):
        watch = FolderWatch(replace(context, intake=replace(context.intake, folder=where)))
        assert await watch.round() is False


async def test_many_files_are_taken_in_several_rounds(world: World, folder: Path, watch: FolderWatch) -> None:
    for number in range(25):
        (folder / "stripe" / f"{number:02}.csv").write_bytes(a_file(number + 1))
    assert await watch.round() is False
    assert await watch.round() is True
    assert len(await files(world)) == 20
    assert await watch.round() is False
    assert len(await files(world)) == 25


async def test_a_reason_is_never_written_through_a_link(folder: Path, watch: FolderWatch, tmp_path: Path) -> None:
    """RC16: who may put files there gets no other file overwritten, be it linked early or at the last moment."""
    (folder / "stripe" / "refused").mkdir()
    other = tmp_path / "precious.json"
    other.write_text("precious")
    (folder / "stripe" / "refused" / "a.csv.txt").symlink_to(other)
    (folder / "stripe" / "refused" / "b-2.csv.txt").symlink_to(tmp_path / "made by us")
    (folder / "stripe" / "refused" / "b.csv").touch()
    for name in ("a.csv", "b.csv"):
        (folder / "stripe" / name).write_bytes(b"\x89PNG\0\0")
    await looks(watch)
    assert other.read_text() == "precious"
    assert not (tmp_path / "made by us").exists()
    moved = {"a-2.csv", "a-2.csv.txt", "b-3.csv", "b-3.csv.txt"}
    assert names(folder / "stripe" / "refused") == {"a.csv.txt", "b.csv", "b-2.csv.txt"} | moved


async def test_a_link_that_is_made_at_the_last_moment_is_not_followed_either(
    folder: Path, watch: FolderWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RC16: both the place of the reason and the directory itself."""
    other, outside, rename = tmp_path / "precious.json", tmp_path / "outside", os.rename
    other.write_text("precious")
    outside.mkdir()

    def links(*arguments: Any, **options: Any) -> None:
        rename(*arguments, **options)
        refused = folder / "stripe" / "refused"
        (refused / "a.csv.txt").symlink_to(other)
        rename(refused, folder / "gone")
        refused.symlink_to(outside)

    (folder / "stripe" / "a.csv").write_bytes(b"\x89PNG\0\0")
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", links)
        await looks(watch)
    assert other.read_text() == "precious"
    (folder / "stripe" / "b.csv").write_bytes(b"\x89PNG\0\0")
    await looks(watch)
    assert (folder / "stripe" / "b.csv").exists()
    assert names(outside) == set()


@pytest.mark.parametrize("is_replaced", [True, False])
@pytest.mark.parametrize("is_known", [True, False])
async def test_a_file_that_is_delivered_again_while_it_is_taken_is_read_too(
    world: World, context: Context, folder: Path, is_replaced: bool, is_known: bool
) -> None:
    """RC2: what is moved is what was read, whether the first one was new or known."""
    path, deliveries = folder / "stripe" / "a.csv", [a_file(7)]

    class DeliveredAgain(InProcessReader):
        async def inspect(self, raw: RawFile, **names: Any) -> Any:
            seen = await super().inspect(raw, **names)
            while deliveries:
                corrected = path.with_name("a.csv.part") if is_replaced else path
                corrected.write_bytes(deliveries.pop())
                corrected.rename(path)
            return seen

    if is_known:
        path.write_bytes(a_file())
        await looks(FolderWatch(context))
    path.write_bytes(a_file())
    watch = FolderWatch(replace(context, reader=DeliveredAgain()))
    await looks(watch)
    assert path.read_bytes() == a_file(7)
    await looks(watch)
    assert not path.exists()
    contents = [bytes(row["content"]) for row in await world.rows("SELECT content FROM settlement_file_chunks")]
    assert a_file(7) in contents


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names that cannot be opened; the tests run as root, who may read all."""
    forbidden: set[str] = set()
    opens = os.open

    def refuses(name: Any, *more: Any, **named: Any) -> int:
        if Path(name).name in forbidden:
            raise PermissionError
        return opens(name, *more, **named)

    monkeypatch.setattr(os, "open", refuses)
    return forbidden


async def test_files_that_cannot_be_read_hold_up_no_other_and_are_tried_again(
    world: World, folder: Path, watch: FolderWatch, unreadable: set[str]
) -> None:
    unreadable |= {f"{number:02}.csv" for number in range(25)}
    for number in range(25):
        (folder / "stripe" / f"{number:02}.csv").write_bytes(a_file(number + 1))
    (folder / "stripe" / "good.csv").write_bytes(a_file(100))
    rounds = [await watch.round() for _ in range(4)]
    assert rounds == [False, True, False, False], "what cannot be read is no work that waits"
    assert [file["name"] for file in await files(world)] == ["good.csv"]
    metrics = (await world.http.get("/metrics")).text
    assert 'payrail_settlement_files_refused_total{gateway="stripe",source="folder"}' in metrics
    unreadable.clear()
    await looks(watch)
    assert len(await files(world)) == 26
