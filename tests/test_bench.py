"""The bench's own arithmetic, and that it can read what it wrote."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from bot.clock import SystemClock
from storage import open_store
from tests.bench import footprint, stored, table
from tests.bench.run import linear
from tests.bench.source import Script, Source
from tests.bench.table import Figure, at, ratio


def test_quantiles_are_values_that_were_measured():
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert at(values, 0.5) == 3.0
    assert at(values, 0.0) == 1.0
    assert at(values, 0.99) == at(values, 1.0) == 5.0
    assert at([], 0.5) is None


def test_a_ratio_needs_both_sides():
    assert ratio(6.0, 3.0) == 2.0
    assert ratio(None, 3.0) is None
    assert ratio(6.0, None) is None
    assert ratio(6.0, 0.0) is None


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (Figure("a", "ms", 6.0, floor=3.0, most=2.0), True),
        (Figure("a", "ms", 6.1, floor=3.0, most=2.0), False),
        (Figure("a", "s", 1.0, most=1.2), True),
        (Figure("a", "s", 1.3, most=1.2), False),
        (Figure("a", "s", 1.3), None),
        (Figure("a", "s", None, most=1.2), None),
    ],
)
def test_a_target_is_for_the_ratio_where_there_is_a_floor(figure: Figure, met: bool | None):
    assert figure.met is met


def test_a_run_is_compared_with_the_one_before(tmp_path: Path):
    before = [Figure("ack", "ms", 10.0), Figure("gone", "ms", None)]
    file = tmp_path / "last.json"
    file.write_text(table.as_json(before, {"quick": True}))
    earlier = table.read(file)
    assert earlier == {"ack": 10.0}
    text = table.render([Figure("ack", "ms", 12.5), Figure("new", "ms", 1.0)], earlier)
    ack, new = text.splitlines()[1:]
    assert ack.split() == ["ack", "ms", "12.5", "10", "+25%"]
    assert new.split() == ["new", "ms", "1"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 0, "figures": {"a": {}}}'])
def test_a_file_that_says_nothing_is_no_run(tmp_path: Path, text: str):
    file = tmp_path / "last.json"
    file.write_text(text)
    assert table.read(file) == table.read(tmp_path / "missing") == {}


def test_columns_stand_below_each_other_in_chinese_too():
    text = table.render([Figure("鹊桥", "ms", 1.0), Figure("abcd", "ms", 2.0)], {})
    wide, narrow = text.splitlines()[1:]
    assert wide.index("ms") + 2 == narrow.index("ms")


def test_what_a_further_chunk_costs():
    even = linear({50: 0.010, 400: 0.045, 800: 0.085})[-1]
    assert even.native == pytest.approx(100.0)
    assert even.ratio == pytest.approx(1.0)
    assert even.met
    steeper = linear({50: 0.010, 400: 0.045, 800: 0.165})[-1]
    assert steeper.ratio == pytest.approx(3.0)
    assert steeper.met is False


def test_the_default_install_is_small():
    assert 10 < footprint.packages() <= 36


async def test_the_source_keeps_to_its_script_and_notes_who_hangs_up():
    async with Source() as source, aiohttp.ClientSession() as session:
        source.script = Script(3, piece="桥")
        async with session.post(source.base_url, data=b"{}") as response:
            text = await response.text()
        assert text.count('"content": "桥"') == 3
        assert text.endswith("data: [DONE]\n\n")
        stream = await source.stream(0)
        assert stream.asked_at <= stream.first_at <= stream.last_at
        source.script = Script(1000, pace=0.01)
        response = await session.post(source.base_url, data=b"{}")
        response.close()
        stream = await source.stream(1)
        async with asyncio.timeout(30):
            await stream.over.wait()
        assert stream.cut_at and not stream.last_at


async def test_a_filled_store_holds_what_was_said(tmp_path: Path):
    await stored.make(tmp_path, 3)
    store = await open_store(f"sqlite:///{tmp_path}/queqiao.db", SystemClock())
    last = await store.last_turn("feishu:oc_old2")
    again = await store.accounts("om_old2-50", ("feishu",))
    await store.close()
    assert last is not None and last.no and last.ending is not None
    assert last.ending.text and last.new.message_id == "om_old2-50"
    assert [account.turn.id for account in again if account.turn] == [last.id]
