"""bot/access.py and bot/personas.py: who may, and in whose voice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from bot.access import Access, Role, entry_of
from bot.contract import ChatKind, Person, Platform
from bot.personas import BUILT_IN, Personas
from bot.settings import Chat, Persona, load
from bot.texts import TABLES, say

BOSS = Person("ou_boss", "老板")
MEMBER = Person("ou_member", "成员")


# ---------------------------------------------------------------- who may


@pytest.mark.parametrize(
    ("admins", "platform", "person", "chat_kind", "role"),
    [
        ({"feishu:ou_boss"}, "feishu", BOSS, "group", "admin"),
        ({"feishu:ou_boss"}, "feishu", BOSS, "p2p", "admin"),
        ({"feishu:ou_boss"}, "feishu", MEMBER, "group", "member"),
        ({"feishu:ou_boss"}, "feishu", MEMBER, "p2p", "owner"),
        ({"feishu:ou_boss"}, "dingtalk", BOSS, "group", "member"),
        ({"dingtalk:ou_boss"}, "feishu", BOSS, "group", "member"),
        (set(), "feishu", BOSS, "group", "member"),
        (set(), "feishu", BOSS, "p2p", "owner"),
        ({"dingtalk:manager7"}, "dingtalk", Person("$:LWCP", "", ("manager7",)), "group", "admin"),
        ({"feishu:ou_bos"}, "feishu", BOSS, "group", "member"),
        ({"feishu:ou_boss2"}, "feishu", BOSS, "group", "member"),
        ({"feishu:OU_BOSS"}, "feishu", BOSS, "group", "member"),
        ({"feishu:老板"}, "feishu", BOSS, "group", "member"),
        ({"ou_boss"}, "feishu", BOSS, "group", "member"),
        ({"feishu:"}, "feishu", Person(""), "group", "member"),
        ({"feishu:"}, "feishu", Person("ou_x", "", ("",)), "group", "member"),
    ],
)
def test_the_role_of_a_person(
    admins: set[str], platform: Platform, person: Person, chat_kind: ChatKind, role: Role
) -> None:
    access = Access(admins)
    assert access.role(platform, person, chat_kind) == role
    assert access.may_steer(platform, person, chat_kind) is (role != "member")


def test_whether_anybody_is_an_admin() -> None:
    assert not Access(set()).anybody
    assert Access({"feishu:ou_boss"}).anybody


def test_rights_are_those_of_the_start() -> None:
    admins = {"feishu:ou_boss"}
    access = Access(admins)
    admins.add("feishu:ou_member")
    assert access.role("feishu", MEMBER, "group") == "member"


@pytest.mark.parametrize("platform", ["feishu", "dingtalk"])
def test_what_whoami_shows_is_what_the_settings_take(platform: Platform, tmp_path: Path) -> None:
    person = Person("AbC-01_x", "名字", ("other",))
    environ = {
        "FEISHU_APP_ID": "cli_1",
        "FEISHU_APP_SECRET": "x",
        "DEEPSEEK_API_KEY": "x",
        "QUEQIAO_ADMINS": entry_of(platform, person),
    }
    (tmp_path / "queqiao.toml").touch()
    settings = load(environ, tmp_path / "queqiao.toml")
    assert Access(settings.admins).role(platform, person, "group") == "admin"


# ---------------------------------------------------------------- personas


def test_the_house_brings_some_and_the_default_is_one_of_them() -> None:
    personas = Personas()
    assert personas.names == tuple(persona.name for persona in BUILT_IN)
    assert Chat().persona in personas.names
    assert len(set(personas.names)) == len(personas.names)
    for name in personas.names:
        assert personas.text(name).strip()
        for lang in TABLES:
            assert personas.label(name, lang) == say(f"persona.{name}", lang)


def test_a_persona_that_is_gone_speaks_as_the_first() -> None:
    assert Personas().text("gone") == Personas().text("") == BUILT_IN[0].text


def test_ones_own_stand_behind_and_replace_those_of_the_same_name() -> None:
    own = (Persona("legal", "法务"), Persona("assistant", "我家的助手"))
    personas = Personas(own)
    assert personas.names == (*(persona.name for persona in BUILT_IN), "legal")
    assert personas.text("assistant") == "我家的助手"
    assert personas.text("legal") == "法务"
    assert personas.label("legal", "zh") == personas.label("legal", "en") == "legal"
    assert Personas().text("assistant") == BUILT_IN[0].text, "the house's stay as they are"


LABELS: Mapping[str, tuple[str, ...]] = {
    "translator": ("translator", "TRANSLATOR", " Translator ", "翻译", "翻译\n"),
    "brief": ("brief", "简洁"),
    "Legal": ("legal", "LEGAL", "Legal"),
    "法务": ("法务",),
    "": ("", " ", "翻", "translat", "no such", "assistant brief"),
}


@pytest.mark.parametrize(
    ("word", "name"), [(word, name) for name, words in LABELS.items() for word in words]
)
def test_a_persona_is_found_by_its_name_or_its_label(word: str, name: str) -> None:
    personas = Personas((Persona("Legal", "a"), Persona("法务", "b")))
    assert personas.find(word) == name


def test_a_name_goes_before_a_label() -> None:
    personas = Personas((Persona("翻译", "我家的翻译"),))
    assert personas.find("翻译") == "翻译"
    assert personas.find("translator") == "translator"


@pytest.mark.parametrize("name", ["now", "set", "none"])
def test_ones_own_may_be_called_like_a_sentence_about_personas(name: str) -> None:
    personas = Personas((Persona(name, "x"),))
    for lang in TABLES:
        assert personas.label(name, lang) == name
    assert personas.find(name) == name
