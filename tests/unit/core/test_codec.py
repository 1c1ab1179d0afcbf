"""What is written is read back equal, the same bytes whoever made the class; what JSON would change is refused."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.core.codec import MAX_BYTES, Codec
from tidings.core.message import Key, Tag, event, message_type
from tidings.errors import BadDeclaration, BadPayload, PayloadTooLarge, Unreadable


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    S = 1
    L = 3


@dataclasses.dataclass(frozen=True)
class Line:
    sku: str
    price: Decimal
    weight: float | None = None


class StructLine(msgspec.Struct, frozen=True):
    sku: str
    price: Decimal
    weight: float | None = None


@attrs.frozen
class AttrsLine:
    sku: str
    price: Decimal
    weight: float | None = None


class PydanticLine(pydantic.BaseModel):
    sku: str
    price: Decimal
    weight: float | None = None


@event(name="Placed")
class Placed:
    order_id: Key[str]
    course: Tag[int]
    at: datetime | None
    day: date
    amount: Decimal
    ref: UUID | None
    ratio: float
    done: bool
    colour: Colour
    size: Size
    lines: list[Line]
    best: Line | None
    by_name: dict[str, Line]
    rest: dict[str, Any]


@event(name="Placed")
class StructPlaced(msgspec.Struct, frozen=True):
    order_id: Key[str]
    course: Tag[int]
    at: datetime | None
    day: date
    amount: Decimal
    ref: UUID | None
    ratio: float
    done: bool
    colour: Colour
    size: Size
    lines: list[StructLine]
    best: StructLine | None
    by_name: dict[str, StructLine]
    rest: dict[str, Any]


@event(name="Placed")
@attrs.frozen
class AttrsPlaced:
    order_id: Key[str]
    course: Tag[int]
    at: datetime | None
    day: date
    amount: Decimal
    ref: UUID | None
    ratio: float
    done: bool
    colour: Colour
    size: Size
    lines: list[AttrsLine]
    best: AttrsLine | None
    by_name: dict[str, AttrsLine]
    rest: dict[str, Any]


@event(name="Placed")
class PydanticPlaced(pydantic.BaseModel):
    order_id: Key[str]
    course: Tag[int]
    at: datetime | None
    day: date
    amount: Decimal
    ref: UUID | None
    ratio: float
    done: bool
    colour: Colour
    size: Size
    lines: list[PydanticLine]
    best: PydanticLine | None
    by_name: dict[str, PydanticLine]
    rest: dict[str, Any]


MAKERS: list[tuple[Callable[..., Any], Callable[..., Any]]] = [
    (Placed, Line),
    (StructPlaced, StructLine),
    (AttrsPlaced, AttrsLine),
    (PydanticPlaced, PydanticLine),
]
CODECS = {cls: Codec(message_type(cls)) for cls, _ in MAKERS}

texts = st.text(max_size=20)
numbers = st.decimals(allow_nan=False, allow_infinity=False)
floats = st.floats(allow_nan=False, allow_infinity=False)
zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(seconds=-7))])
moments = st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=zones)  # noqa: DTZ001
lines = st.fixed_dictionaries({"sku": texts, "price": numbers, "weight": st.none() | floats})
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
orders = st.fixed_dictionaries(
    {
        "order_id": texts,
        "course": st.integers(-(2**80), 2**80),
        "at": st.none() | moments,
        "day": st.dates(),
        "amount": numbers,
        "ref": st.none() | st.uuids(),
        "ratio": floats,
        "done": st.booleans(),
        "colour": st.sampled_from(Colour),
        "size": st.sampled_from(Size),
        "lines": st.lists(lines, max_size=3),
        "best": st.none() | lines,
        "by_name": st.dictionaries(texts, lines, max_size=2),
        "rest": st.dictionaries(texts, anything, max_size=3),
    }
)


def made(order: Callable[..., Any], line: Callable[..., Any], fields: dict[str, Any]) -> Any:
    return order(
        **fields
        | {
            "lines": [line(**each) for each in fields["lines"]],
            "best": None if fields["best"] is None else line(**fields["best"]),
            "by_name": {name: line(**each) for name, each in fields["by_name"].items()},
        }
    )


@given(orders)
def test_every_kind_of_class_gives_the_same_bytes_and_reads_them_back_equal(fields: dict[str, Any]) -> None:
    written = set()
    for order, line in MAKERS:
        message = made(order, line, fields)
        codec = CODECS[order]
        data = codec.encode(message)
        assert codec.decode(data) == message
        written.add(data)
    assert len(written) == 1


@given(orders)
def test_datetimes_are_written_in_utc(fields: dict[str, Any]) -> None:
    data = json.loads(CODECS[Placed].encode(made(Placed, Line, fields)))
    assert data["at"] is None or data["at"].endswith("Z")


@event
class Loose:
    """A class whose annotations say little: whatever Python value stands in it is told from its value alone."""

    value: Any = None
    number: int | None = None
    text: str | None = None
    ratio: float | None = None
    moment: datetime | None = None
    parent: Loose | None = None
    pair: tuple[int, str] | None = None
    many: Sequence[float] = dataclasses.field(default_factory=list)
    by_number: dict[int, str] = dataclasses.field(default_factory=dict)
    choice: Literal["a", 1] = "a"


LOOSE = Codec(message_type(Loose))
odd = st.recursive(
    st.sampled_from([float("nan"), float("inf"), "\ud800", b"x", {1, 2}, object(), len, 1j])
    | st.sampled_from([2**64, 2**53 + 1, Colour.RED, Size.L])
    | st.none() | st.booleans() | st.integers() | st.floats() | texts | st.uuids() | st.decimals()
    | st.datetimes() | moments | st.timedeltas(),
    lambda inner: st.lists(inner, max_size=3)
    | st.tuples(inner, inner)
    | st.dictionaries(texts | st.integers() | st.none(), inner, max_size=3)
    | st.builds(Line, inner, inner),
    max_leaves=5,
)  # fmt: skip


def with_lists(value: Any) -> Any:
    """The value with lists in place of tuples, which is the one liberty the codec takes."""
    if isinstance(value, list | tuple):
        return [with_lists(each) for each in value]
    if isinstance(value, dict):
        return {name: with_lists(each) for name, each in value.items()}
    return value


@given(st.data())
def test_whatever_stands_in_a_field_is_read_back_equal_or_refused_with_its_path(data: st.DataObject) -> None:
    names = [each.name for each in dataclasses.fields(Loose)]
    fields = data.draw(st.dictionaries(st.sampled_from(names), odd, max_size=3))
    message = Loose(**fields)
    try:
        written = LOOSE.encode(message)
    except BadPayload as error:
        refused = str(error.data["path"]).removeprefix("data.").partition(".")[0].partition("[")[0]
        assert refused in fields
        return
    read = LOOSE.decode(written)
    for name, value in fields.items():
        assert with_lists(getattr(read, name)) == with_lists(value)
    assert LOOSE.encode(read) == written


@given(st.binary() | anything.map(lambda value: json.dumps(value).encode()) | orders.map(lambda it: str(it).encode()))
def test_any_bytes_are_a_message_that_can_be_written_or_are_unreadable(body: bytes) -> None:
    for codec in (LOOSE, *CODECS.values()):
        try:
            message = codec.decode(body)
        except Unreadable:
            continue
        codec.encode(message)


@pytest.mark.parametrize("order", [order for order, _ in MAKERS])
@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("course", "7", "data.course"),
        ("course", 7.0, "data.course"),
        ("course", True, "data.course"),
        ("course", None, "data.course"),
        ("at", "2026-01-01T00:00:00", "data.at"),
        ("at", 7, "data.at"),
        ("at", "10000-01-01T00:00:00Z", "data.at"),
        ("amount", "much", "data.amount"),
        ("ref", "no", "data.ref"),
        ("ratio", "1.5", "data.ratio"),
        ("done", 1, "data.done"),
        ("colour", "green", "data.colour"),
        ("lines", [{"sku": "a", "price": "1"}, {"sku": "b", "price": "1", "weight": "x"}], "data.lines[1].weight"),
        ("lines", [{"sku": "a"}], "data.lines[0].price"),
        ("best", [], "data.best"),
    ],
)
def test_a_wrong_field_is_unreadable_with_its_path(order: type[Any], field: str, value: Any, path: str) -> None:
    fine = {
        "order_id": "o", "course": 1, "at": None, "day": "2026-01-01", "amount": "1.10", "ref": None, "ratio": 1.0,
        "done": True, "colour": "red", "size": 1, "lines": [], "best": None, "by_name": {}, "rest": {},
    }  # fmt: skip
    codec = CODECS[order]
    codec.decode(json.dumps(fine).encode())
    with pytest.raises(Unreadable) as caught:
        codec.decode(json.dumps(fine | {field: value}).encode())
    assert caught.value.data["path"] == path
    with pytest.raises(Unreadable) as caught:
        codec.decode(json.dumps({name: it for name, it in fine.items() if name != field}).encode())
    assert caught.value.data["path"] == f"data.{field}"


@pytest.mark.parametrize("order", [order for order, _ in MAKERS])
@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'"x"', b"{", b'{"ratio": NaN}', b"\xff", b"\x80\x04}.", b'{"a":' + b"[" * 100_000]
)
def test_what_is_no_object_of_json_is_unreadable(order: type[Any], body: bytes) -> None:
    with pytest.raises(Unreadable):
        CODECS[order].decode(body)


def test_what_is_not_known_is_passed_over() -> None:
    message = Loose(number=1)
    body = LOOSE.encode(message)[:-1] + b',"added_later":{"a":[1]}}'
    assert LOOSE.decode(body) == message


# -- values that just fit, and values that do not ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        Loose(number=2**63),
        Loose(number=-(10**4000)),
        Loose(value=2**53 + 1),
        Loose(ratio=3),
        Loose(ratio=2**53),
        Loose(ratio=-0.0),
        Loose(ratio=5e-324),
        Loose(many=[1, 2.5]),
        Loose(value=Size.L, number=Size.S),
        Loose(pair=(1, "a")),
        Loose(by_number={1: "one"}),
        Loose(choice=1),
        Loose(text="\0 \u2028 \U0001f600 \x7f"),
        Loose(moment=datetime.max.replace(tzinfo=UTC)),
        Loose(parent=Loose(parent=Loose(value={"a": [None]}))),
    ],
)
def test_a_value_at_the_edge_is_exact(message: Loose) -> None:
    assert LOOSE.decode(LOOSE.encode(message)) == message


@pytest.mark.parametrize(
    ("message", "path", "says"),
    [
        (Loose(ratio=float("nan")), "data.ratio", "nan"),
        (Loose(number=float("nan")), "data.number", "nan"),
        (Loose(value={"a": [0, float("-inf")]}), "data.value.a[1]", "-inf"),
        (Loose(value=Decimal("NaN")), "data.value", "NaN"),
        (Loose(value=Decimal("sNaN")), "data.value", "sNaN"),
        (Loose(moment=datetime(2026, 1, 1)), "data.moment", "without a time zone"),  # noqa: DTZ001 - the mistake
        (Loose(moment=datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))), "data.moment", "year 1"),
        (Loose(text="\ud800"), "data.text", "lone surrogate"),
        (Loose(value={"\ud800": 1}), "data.value", "name"),
        (Loose(value={None: 1}), "data.value", "name None"),
        (Loose(value={1: 1}), "data.value", "read back"),
        (Loose(value={3, 1}), "data.value", "set"),
        (Loose(value=[(0, {"x": frozenset("a")})]), "data.value[0][1].x", "set"),
        (Loose(value=len), "data.value", "builtin_function"),
        (Loose(value=UUID(int=0)), "data.value", "read back as a str"),
        (Loose(value=b"x"), "data.value", "read back as a str"),
        (Loose(value=Decimal("1.10")), "data.value", "read back as a str"),
        (Loose(value=Colour.RED), "data.value", "read back as a str"),
        (Loose(text=Colour.RED), "data.text", "read back as a str"),
        (Loose(value=Line("a", Decimal(1))), "data.value", "read back as a dict"),
        (Loose(number="7"), "data.number", "Expected `int"),
        (Loose(number=10**5000), "data.number", "4300 digits"),
        (Loose(ratio=2**53 + 1), "data.ratio", "read back as a float"),
        (Loose(choice="b"), "data.choice", "b"),
        (Loose(pair=(1,)), "data.pair", "length"),
        (Loose(parent=Loose(text=5)), "data.parent.text", "Expected `str"),
    ],
)
def test_a_value_that_json_would_change_is_refused(message: Loose, path: str, says: str) -> None:
    with pytest.raises(BadPayload, match=says) as caught:
        LOOSE.encode(message)
    assert caught.value.data["path"] == path
    assert path in caught.value.what


def nested(levels: int) -> list[Any]:
    return [nested(levels - 1)] if levels > 1 else []


def test_a_hundred_levels_are_written_and_read_and_one_more_is_not() -> None:
    data = LOOSE.encode(Loose(value=nested(99)))
    assert LOOSE.decode(data).value == nested(99)
    for levels in (100, 900):
        with pytest.raises(BadPayload, match="deeper than 100 levels"):
            LOOSE.encode(Loose(value=nested(levels)))
        with pytest.raises(Unreadable, match="deeper than 100 levels"):
            LOOSE.decode(b'{"value":' + b"[" * levels + b"]" * levels + b"}")


def test_brackets_inside_texts_do_not_count_as_levels() -> None:
    message = Loose(value='[{"\\' * 200, text="[" * 300)
    assert LOOSE.decode(LOOSE.encode(message)) == message


def test_a_value_that_holds_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(BadPayload, match="deeper than"):
        LOOSE.encode(Loose(value=endless))


def test_a_message_above_the_limit_says_its_size_and_the_limit() -> None:
    with pytest.raises(PayloadTooLarge, match=r"1,000,1\d\d bytes of JSON; the limit is 1,000,000") as caught:
        LOOSE.encode(Loose(text="x" * MAX_BYTES))
    assert caught.value.data["limit"] == MAX_BYTES
    LOOSE.encode(Loose(text="x" * (MAX_BYTES - 200)))


# -- classes -----------------------------------------------------------------------------------------------------------


def test_constraints_of_the_class_are_kept_by_the_publisher() -> None:
    @event
    class Paid:
        total: Annotated[int, msgspec.Meta(gt=0)]

    codec = Codec(message_type(Paid))
    assert codec.decode(codec.encode(Paid(1))) == Paid(1)
    with pytest.raises(BadPayload, match=r"data.total"):
        codec.encode(Paid(0))


@pytest.mark.parametrize(("order", "line"), MAKERS)
def test_a_whole_number_among_floats_is_written_as_a_float(order: Any, line: Any) -> None:
    fields: dict[str, Any] = dict.fromkeys(message_type(Placed).hints) | {
        "order_id": "o", "course": 1, "day": date(2026, 1, 1), "amount": Decimal(1), "ratio": 3, "done": True,
        "colour": Colour.RED, "size": Size.S, "lines": [{"sku": "a", "price": Decimal(2), "weight": 4}],
        "by_name": {}, "rest": {},
    }  # fmt: skip
    data = CODECS[order].encode(made(order, line, fields))
    assert b'"ratio":3.0' in data
    assert b'"weight":4.0' in data


def test_a_subclass_in_a_field_is_refused_because_its_own_fields_would_be_lost() -> None:
    @dataclasses.dataclass(frozen=True)
    class Gift(Line):
        card: str = "to you"

    codec = CODECS[Placed]
    fields: dict[str, Any] = dict.fromkeys(message_type(Placed).hints) | {
        "order_id": "o", "course": 1, "day": date(2026, 1, 1), "amount": Decimal(1), "ratio": 1.0, "done": True,
        "colour": Colour.RED, "size": Size.S, "lines": [Gift("a", Decimal(1))], "by_name": {}, "rest": {},
    }  # fmt: skip
    with pytest.raises(BadPayload, match="read back as a Line") as caught:
        codec.encode(Placed(**fields))
    assert caught.value.data["path"] == "data.lines[0]"


def test_renamed_fields_and_left_out_defaults_of_a_struct_are_kept() -> None:
    @event
    class Renamed(msgspec.Struct, rename="camel", omit_defaults=True):
        order_id: Key[str]
        placed_at: datetime
        note: str = ""

    codec = Codec(message_type(Renamed))
    for zone in (UTC, timezone(timedelta(hours=1))):
        message = Renamed("o", datetime(2026, 1, 1, tzinfo=zone))
        data = codec.encode(message)
        assert sorted(json.loads(data)) == ["orderId", "placedAt"]
        assert codec.decode(data) == message


def test_times_of_day_spans_and_bytes_are_exact() -> None:
    @event
    class Times:
        at: time
        span: timedelta
        raw: bytes

    codec = Codec(message_type(Times))
    for message in (
        Times(time(1, 2, 3, 4), timedelta.max, b"\xff\0"),
        Times(time(1, tzinfo=UTC), timedelta(microseconds=-1), b""),
    ):
        assert codec.decode(codec.encode(message)) == message


def test_types_by_another_name_are_seen_through() -> None:
    OrderId = NewType("OrderId", str)

    class Address(TypedDict):
        street: str
        number: int

    @event
    class Moved:
        order_id: Key[OrderId]
        to: Address

    codec = Codec(message_type(Moved))
    message = Moved(OrderId("o"), {"street": "Way", "number": 4})
    assert codec.decode(codec.encode(message)) == message
    with pytest.raises(BadPayload, match=r"data.to.number"):
        codec.encode(Moved(OrderId("o"), {"street": "Way", "number": "4"}))  # type: ignore[typeddict-item]


def test_a_pydantic_class_with_serializers_of_its_own_is_read_back_to_be_sure() -> None:
    @event
    class Stamped(pydantic.BaseModel):
        at: datetime

        @pydantic.field_serializer("at")
        def as_number(self, at: datetime) -> float:
            return at.timestamp()

    with pytest.raises(BadPayload, match=r"data.at"):
        Codec(message_type(Stamped)).encode(Stamped(at=datetime(2026, 1, 1, tzinfo=UTC)))


def test_fields_of_a_pydantic_class_have_their_alias_in_json() -> None:
    class Line(pydantic.BaseModel):
        unit_price: int = pydantic.Field(0, alias="unitPrice")

    @event
    class Renamed(pydantic.BaseModel):
        order_id: Key[str] = pydantic.Field(alias="orderId")
        note: str = pydantic.Field("", alias="theNote")
        lines: list[Line] = []

    codec = Codec(message_type(Renamed))
    message = Renamed(orderId="o", theNote="fragile", lines=[Line(unitPrice=2)])
    assert codec.encode(message) == b'{"orderId":"o","theNote":"fragile","lines":[{"unitPrice":2}]}'
    assert codec.decode(codec.encode(message)) == message


def test_what_a_pydantic_class_leaves_out_or_reads_under_another_name_is_refused() -> None:
    @event
    class Lossy(pydantic.BaseModel):
        hidden: str = pydantic.Field("", exclude=True)
        note: str = pydantic.Field("", serialization_alias="written", validation_alias="read")

    codec = Codec(message_type(Lossy))
    for lost in (Lossy(hidden="x"), Lossy(read="x")):
        with pytest.raises(BadPayload, match=r"data\.(hidden|note)"):
            codec.encode(lost)


def test_fields_whose_names_no_expression_can_have_are_read_back_to_be_sure() -> None:
    fields: dict[str, Any] = {"from": (int, ...), "of which": (float, ...)}
    codec = Codec(message_type(event(pydantic.create_model("Transfer", **fields))))
    message = codec.kind.cls(**{"from": 1, "of which": 2.5})
    assert codec.encode(message) == b'{"from":1,"of which":2.5}'
    assert codec.decode(codec.encode(message)) == message


def test_bytes_in_a_pydantic_class_are_refused_unless_it_reads_base64() -> None:
    @event
    class Plain(pydantic.BaseModel):
        raw: list[bytes]

    @event
    class Encoded(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(val_json_bytes="base64")
        raw: list[bytes]

    with pytest.raises(BadPayload, match="val_json_bytes='base64'"):
        Codec(message_type(Plain)).encode(Plain(raw=[b"\xff"]))
    codec = Codec(message_type(Encoded))
    assert codec.decode(codec.encode(Encoded(raw=[b"\xff\xfe\0"]))) == Encoded(raw=[b"\xff\xfe\0"])


def test_pydantic_types_that_are_text_are_written_as_text_and_secrets_are_refused() -> None:
    @event
    class Linked(pydantic.BaseModel):
        url: pydantic.HttpUrl

    @event
    class Hidden(pydantic.BaseModel):
        token: pydantic.SecretStr

    codec = Codec(message_type(Linked))
    message = Linked(url="https://example.org/a")
    assert codec.decode(codec.encode(message)) == message
    with pytest.raises(BadPayload, match=r"data.token"):
        Codec(message_type(Hidden)).encode(Hidden(token="canary"))


def test_a_pydantic_object_that_was_changed_past_its_checks_is_refused() -> None:
    message = PydanticPlaced.model_construct(course="x")
    with pytest.raises(BadPayload):
        CODECS[PydanticPlaced].encode(message)


def test_a_class_with_a_set_or_an_unknown_type_cannot_be_a_message() -> None:
    @event
    class Tagged:
        tags: frozenset[str]

    @event
    class Strange:
        what: complex | range

    @event
    class Imaginary:
        what: complex

    with pytest.raises(BadDeclaration, match="set in tags"):
        Codec(message_type(Tagged))
    with pytest.raises(BadDeclaration, match="more than one custom type"):
        Codec(message_type(Strange))
    with pytest.raises(BadPayload, match=r"data\.what is a complex"):
        Codec(message_type(Imaginary)).encode(Imaginary(1j))


def test_a_class_that_points_to_itself_is_read_and_written() -> None:
    message = Loose(parent=Loose(parent=Loose(number=1)))
    assert LOOSE.decode(LOOSE.encode(message)) == message


def test_an_error_of_a_validator_is_unreadable() -> None:
    @event
    class Checked:
        total: int

        def __post_init__(self) -> None:
            if self.total < 0:
                message = "less than nothing"
                raise ArithmeticError(message)

    codec = Codec(message_type(Checked))
    with pytest.raises(Unreadable, match="less than nothing"):
        codec.decode(b'{"total":-1}')
