"""Declaring messages: what a class may be, what is recorded about it, and what is refused with the cure."""

from __future__ import annotations

import dataclasses
import enum
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, NewType, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.core.codec import Codec
from tidings.core.message import MAX_KEY, Gone, Key, Tag, check_key, command, event, message_type, state
from tidings.errors import BadArgument, BadDeclaration, NotAMessage

if TYPE_CHECKING:
    from fractions import Fraction

OrderId = NewType("OrderId", str)


class Colour(enum.StrEnum):
    RED = "red"


class Qualified(str, enum.Enum):  # noqa: UP042 - its str() is not its value
    RED = "red"


# -- what is recorded --------------------------------------------------------------------------------------------------


def test_a_plain_class_becomes_a_frozen_dataclass() -> None:
    @event(topic="orders")
    class Placed:
        order_id: Key[str]
        total: int = 0

    placed = Placed("o")
    assert (placed, placed.total) == (Placed("o", 0), 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        placed.total = 1  # type: ignore[misc]


def test_a_class_that_is_a_model_stays_what_it_is() -> None:
    class Structured(msgspec.Struct):
        id: Key[str]

    @attrs.define
    class Attributed:
        id: Key[str]

    class Modelled(pydantic.BaseModel):
        id: Key[str]

    @dataclasses.dataclass(slots=True)
    class Data:
        id: Key[str]

    for cls in (Structured, Attributed, Modelled, Data):
        assert event(cls) is cls
        message = cls(id="a")
        message.id = "b"
        assert message_type(cls).key_of(message) == "b"


def test_the_kind_the_name_the_topic_and_the_version_are_recorded() -> None:
    @event(topic="orders", name="order-placed", version=3, was=("Ordered", "shop.Placed"))
    class Placed: ...

    @state(topic="customers")
    class Customer:
        id: Key[str]

    @command
    class Ship: ...

    placed = message_type(Placed)
    assert (placed.kind, placed.name, placed.topic, placed.schema) == ("event", "order-placed", "orders", 3)
    assert placed.was == ("Ordered", "shop.Placed")
    customer, ship = message_type(Customer), message_type(Ship)
    assert (customer.kind, customer.name, customer.topic, customer.schema) == ("state", "Customer", "customers", 1)
    assert (ship.kind, ship.name, ship.topic, ship.key_field) == ("command", "Ship", None, None)


def test_a_subclass_of_a_message_is_a_message_only_when_it_is_declared() -> None:
    @event(topic="orders")
    class Placed:
        order_id: Key[str]

    class Quiet(Placed): ...

    @event(topic="gifts")
    class GiftPlaced(Placed):
        card: str

    assert GiftPlaced("o", "to you").card == "to you"
    assert (message_type(GiftPlaced).topic, message_type(GiftPlaced).key_field) == ("gifts", "order_id")
    assert list(message_type(GiftPlaced).hints) == ["order_id", "card"]
    with pytest.raises(NotAMessage, match="Quiet is not a message"):
        message_type(Quiet)


def test_fields_of_the_class_itself_are_no_fields_of_the_message() -> None:
    @event
    class Placed:
        limit: ClassVar[int] = 5
        order_id: Key[str]

    assert list(message_type(Placed).hints) == ["order_id"]


# -- keys and tags -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "value", "text"),
    [
        (Key[str], "a", "a"),
        (Key[int], -7, "-7"),
        (Key[UUID], UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Key[OrderId], OrderId("o"), "o"),
        (Key[Colour], Colour.RED, "red"),
        (Key[str | None], None, None),
        (Key[str] | None, "a", "a"),
        (Annotated[Key[str], "noted"], "b", "b"),
    ],
)
def test_a_key_is_text_a_whole_number_or_a_uuid(hint: Any, value: Any, text: str | None) -> None:
    cls = event(dataclasses.make_dataclass("Placed", [("key", hint), ("other", int, 0)]))
    assert message_type(cls).key_of(cls(value)) == text


@pytest.mark.parametrize(
    "hint",
    [Key, Key[float], Key[bool], Key[bytes], Key[list[str]], Key[str | float], Key[Any], Key[Qualified]],
    ids=repr,
)
def test_nothing_else_is_a_key(hint: Any) -> None:
    with pytest.raises(BadDeclaration, match=r"key is a Key of .* Key\[str\], Key\[int\], Key\[UUID\]"):
        event(dataclasses.make_dataclass("Placed", [("key", hint)]))


def test_a_message_has_one_key_and_a_state_has_to_have_one() -> None:
    class Twice:
        a: Key[str]
        b: Key[str]

    class Never:
        a: str

    with pytest.raises(BadDeclaration, match="marks 2 fields as Key: a, b"):
        event(Twice)
    with pytest.raises(BadDeclaration, match="state without a key"):
        state(topic="t")(Never)
    assert message_type(event(Never)).key_field is None


def test_tags_are_listed_in_order() -> None:
    @event
    class Subscribed:
        course: Tag[str]
        note: str
        student: Tag[int] | None

    assert message_type(Subscribed).tag_fields == ("course", "student")


@given(st.text(min_size=1, max_size=MAX_KEY // 4).filter(lambda text: "\0" not in text))
def test_a_key_is_kept_as_it_is(text: str) -> None:
    assert check_key(text, "Placed") == text


def test_keys_that_look_alike_are_different_keys() -> None:
    composed, decomposed = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
    assert check_key(composed, "Placed") != check_key(decomposed, "Placed")


@pytest.mark.parametrize("key", ["", "\0", "a\0b", "x" * 513, "é" * 257, "x" * 2**20, "\ud800"])
def test_a_key_that_cannot_be_stored_everywhere_is_refused(key: str) -> None:
    with pytest.raises(BadArgument, match="Placed: the key") as caught:
        check_key(key, "Placed")
    assert len(str(caught.value)) < 300


# -- annotations that are texts ----------------------------------------------------------------------------------------


@event
class Early:
    """Its annotation names a class that is defined below."""

    order_id: Key[str]
    line: Late | None = None
    parent: Early | None = None


@dataclasses.dataclass(frozen=True)
class Late:
    sku: str


def test_what_is_defined_further_down_is_found_when_it_is_needed() -> None:
    codec = Codec(message_type(Early))
    message = Early("o", Late("a"), Early("p"))
    assert codec.decode(codec.encode(message)) == message


@pytest.mark.parametrize("model", ["plain", "struct", "attrs", "pydantic"])
def test_a_class_inside_a_function_finds_the_names_of_that_function(model: str) -> None:
    @dataclasses.dataclass(frozen=True)
    class Line:
        sku: str

    if model == "plain":

        @event
        class Placed:
            order_id: Key[str]
            lines: list[Line]
            parent: Placed | None = None

    elif model == "struct":

        @event
        class Placed(msgspec.Struct):  # type: ignore[no-redef]
            order_id: Key[str]
            lines: list[Line]
            parent: Placed | None = None

    elif model == "attrs":

        @event
        @attrs.frozen
        class Placed:  # type: ignore[no-redef]
            order_id: Key[str]
            lines: list[Line]
            parent: Placed | None = None

    else:

        @event
        class Placed(pydantic.BaseModel):  # type: ignore[no-redef]
            order_id: Key[str]
            lines: list[Line]
            parent: Placed | None = None

    codec = Codec(message_type(Placed))
    message = Placed(order_id="o", lines=[Line("a")], parent=Placed(order_id="p", lines=[]))
    assert message_type(Placed).key_field == "order_id"
    assert codec.decode(codec.encode(message)) == message


def test_a_name_that_is_never_defined_is_named_when_it_is_needed() -> None:
    @event
    class Placed:
        order_id: Key[str]
        share: Fraction

    with pytest.raises(BadDeclaration, match=r"'Fraction' is not defined.*import the named type"):
        _ = message_type(Placed).hints


# -- what is refused ---------------------------------------------------------------------------------------------------


class Own:
    """It makes its fields itself, so nobody can tell which there are."""

    def __init__(self, order_id: str) -> None:
        self.order_id = order_id


class Flat(msgspec.Struct, array_like=True):
    a: int


class Rooted(pydantic.RootModel[list[int]]): ...


class Pair(NamedTuple):
    a: int


class Fields(TypedDict):
    a: int


class Shared:
    tags: list[str] = []  # noqa: RUF012 - the mistake


@attrs.frozen
class Parent:
    a: int


class Undecorated(Parent):
    b: int


@pytest.mark.parametrize(
    ("cls", "says"),
    [
        (len, "len cannot be a message"),
        (5, "5 cannot be a message"),
        (Pair, "no named fields"),
        (Fields, "no named fields"),
        (Colour, "no named fields"),
        (Flat, "no named fields"),
        (Rooted, "no named fields"),
        (Own, "__init__ of its own"),
        (Shared, "mutable default"),
        (Undecorated, "inherits from an attrs class"),
    ],
)
def test_a_class_whose_json_would_lose_something_is_refused(cls: Any, says: str) -> None:
    for declare in (event, command, state(topic="t")):
        with pytest.raises(BadDeclaration, match=says):
            declare(cls)


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "../x", "a/b", "1a", "a.", ".a", "a..b", "é", "a\n", "tidings.x", "x" * 201, "x" * 4096, 5, b"a"],
)
def test_names_and_topics_have_a_grammar(name: Any) -> None:
    for declare in (event(name=name), event(topic=name), event(was=(name,)), state(topic=name), command(name=name)):
        with pytest.raises(BadDeclaration, match="use letters, digits and _") as caught:
            declare(type("Placed", (), {}))
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["a", "order-placed", "shop.orders:v2", "X1", "a_b", "x" * 200])
def test_names_in_that_grammar_are_taken(name: str) -> None:
    assert message_type(event(name=name, topic=name, was=(name,))(type("Placed", (), {}))).name == name


@pytest.mark.parametrize("wrong", ["orders", print, 3])
def test_what_is_no_class_is_no_message(wrong: Any) -> None:
    with pytest.raises(BadDeclaration, match=r"decorate a class.*@event\(topic="):
        event(wrong)


def test_the_name_of_a_state_ends_where_its_key_begins() -> None:
    with pytest.raises(BadDeclaration, match="leave out the colon"):
        state(topic="customers", name="crm:customer")(type("Customer", (), {}))


@pytest.mark.parametrize("version", [0, -1, 1.0, True, "1", None, 2**31])
def test_versions_count_from_one(version: Any) -> None:
    with pytest.raises(BadDeclaration, match="whole numbers from 1"):
        event(version=version)(type("Placed", (), {}))


def test_former_names_are_a_tuple() -> None:
    with pytest.raises(BadDeclaration, match=r"was=\('Ordered',\)"):
        event(was="Ordered")(type("Placed", (), {}))  # type: ignore[call-overload]


def test_a_class_is_declared_once() -> None:
    with pytest.raises(BadDeclaration, match="twice"):
        event(event(type("Placed", (), {})))


@pytest.mark.parametrize(
    ("thing", "named"), [(str, "str"), ("text", "a str"), (None, "a NoneType"), (Early("o"), "Early")]
)
def test_what_is_no_message_class_is_named(thing: object, named: str) -> None:
    with pytest.raises(NotAMessage, match=f"{named} is not a message.*@event"):
        message_type(thing)


def test_gone_names_a_state_and_a_key() -> None:
    gone: Callable[..., Gone] = Gone
    assert gone(Early, "o") == Gone(Early, "o")
    with pytest.raises(dataclasses.FrozenInstanceError):
        gone(Early, "o").key = "p"  # type: ignore[misc]
