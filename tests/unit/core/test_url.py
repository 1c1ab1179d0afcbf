"""URLs: what is wrong is said with its place and the cure, and a password is never shown."""

from __future__ import annotations

import traceback
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.core.url import SCHEMES, Url, default_name, parse_url
from tidings.errors import BadUrl


@pytest.mark.parametrize(
    ("text", "path", "safe"),
    [
        ("sqlite:shop.db", "shop.db", "sqlite:shop.db"),
        ("sqlite:data/my shop.db", "data/my shop.db", "sqlite:data/my shop.db"),
        ("sqlite:../shop.db", "../shop.db", "sqlite:../shop.db"),
        ("sqlite:///var/lib/shop.db", "/var/lib/shop.db", "sqlite:///var/lib/shop.db"),
        ("sqlite:/var/lib/shop.db", "/var/lib/shop.db", "sqlite:///var/lib/shop.db"),
        ("sqlite:////var/lib/shop.db", "/var/lib/shop.db", "sqlite:///var/lib/shop.db"),
        ("sqlite:a%23b%3F.db", "a#b?.db", "sqlite:a#b?.db"),
        ("SQLite:cà phê.db", "cà phê.db", "sqlite:cà phê.db"),
        ("sqlite::memory:", "", "sqlite::memory:"),
        ("sqlite:///:memory:", "", "sqlite::memory:"),
    ],
)
def test_a_file_is_named_by_its_path(text: str, path: str, safe: str) -> None:
    assert (parse_url(text).path, parse_url(text).safe) == (path, safe)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://localhost/shop", Url("postgresql", "shop", "localhost")),
        ("postgresql://ada:s3c%40r%2Ft@db:5433/shop", Url("postgresql", "shop", "db", 5433, "ada", "s3c@r/t")),
        ("postgresql://ada@db", Url("postgresql", "", "db", None, "ada")),
        ("postgresql://[::1]:5432/shop/", Url("postgresql", "shop", "::1", 5432)),
        ("kafka://broker:9092/", Url("kafka", "", "broker", 9092)),
        ("amqp://guest:@rabbit/%2F", Url("amqp", "/", "rabbit", None, "guest", "")),
        (
            "sqs://eu-central-1?fifo=true&endpoint=http://localhost:4566",
            Url("sqs", "", "eu-central-1", options={"fifo": "true", "endpoint": "http://localhost:4566"}),
        ),
        ("postgresql://db/shop?sslmode=require", Url("postgresql", "shop", "db", options={"sslmode": "require"})),
    ],
)
def test_a_server_is_named_by_host_port_user_and_options(text: str, expected: Url) -> None:
    assert parse_url(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "text, not NoneType"),
        ("", "environment variable"),
        ("  ", "environment variable"),
        (" sqlite:shop.db", "blanks around"),
        ("sqlite:shop.db\n", "blanks around"),
        ('"sqlite:shop.db"', "quotation marks"),
        ("'sqlite:shop.db'", "quotation marks"),
        ("sqlite:shop\x00.db", r"'\\x00' at character 12"),
        ("sqlite:shop\u202e.db", r"'\\u202e' at character 12"),
        ("shop.db", "no scheme"),
        ("kafak://broker", "did you mean kafka:"),
        ("postgres://db", "did you mean postgresql:"),
        ("redis://x", f"known: {', '.join(SCHEMES)}"),
        ("sqlite:", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:data/", "is a directory"),
        ("sqlite://shop.db", "sqlite:shop.db for a relative path, sqlite:///shop.db for an absolute one"),
        ("sqlite:~/shop.db", "character 8: ~ is not expanded"),
        ("sqlite:///~/shop.db", "~ is not expanded"),
        ("sqlite:$HOME/shop.db", r"\$ is not expanded"),
        ("sqlite:shop#1.db", "%23"),
        ("sqlite:50%.db", "%25"),
        ("sqlite:a%00b", "control character"),
        ("kafka:broker", "// before the host"),
        ("kafka://", "host is missing"),
        ("kafka://:9092", "host is missing"),
        ("kafka://broker:0", "port cannot be read.*1 to 65535"),
        ("kafka://broker:65536", "port cannot be read"),
        ("kafka://broker:nine", "character 15: the port"),
        ("kafka://a:1,b:2", "several hosts"),
        ("kafka://a b", "character 10: there is a blank"),
        ("postgresql://::1/shop", r"\[::1\]"),
        ("postgresql://[::1/shop", "port cannot be read"),
        ("postgresql://db/%ff", "not UTF-8"),
        ("sqs://eu?fifo=true&fifo=false", "twice"),
        ("sqs://eu?fifo", "incomplete"),
        ("sqs://eu?", "incomplete"),
    ],
)
def test_what_is_wrong_is_said_with_the_cure(text: str, says: str) -> None:
    with pytest.raises(BadUrl, match=says) as caught:
        parse_url(text)
    assert caught.value.cure


@pytest.mark.parametrize(
    ("text", "known", "says"),
    [
        ("sqlite:shop.db?mode=ro", (), "'mode' is not known.*takes no options"),
        ("sqs://eu?poll=1&fifi=true", ("fifo", "poll"), "character 17.*did you mean fifo.*takes fifo, poll"),
    ],
)
def test_an_option_that_an_adapter_does_not_know_is_refused_with_those_it_knows(text, known, says) -> None:
    with pytest.raises(BadUrl, match=says):
        parse_url(text, options=known)
    assert parse_url(text).options


@pytest.mark.parametrize(
    ("password", "place", "cure"),
    [
        ("can@ary", 21, "%40"),
        ("can/ary", 25, "%2F"),
        ("can?ary", 25, "%3F"),
        ("can:ary", 21, "%3A"),
        ("can#ary", 21, "%23"),
        ("can%ary", 21, "%25"),
        ("can ary", 21, "%20"),
    ],
)
def test_an_unescaped_character_in_a_password_is_found_and_the_password_not_shown(
    password: str, place: int, cure: str
) -> None:
    with pytest.raises(BadUrl, match=cure) as caught:
        parse_url(f"postgresql://ada:{password}@db/shop")
    assert caught.value.data["at"] == place
    shown = "".join(traceback.format_exception_only(caught.value)) + repr(caught.value.data)
    assert "can" not in shown
    assert "ary" not in shown


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_user_and_password_come_back_and_stay_hidden(user: str, password: str) -> None:
    url = parse_url(f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@db:1/shop")
    assert (url.user, url.password) == (user, password)
    for text in (repr(url), str(url), url.safe, f"{url}"):
        assert ":***@db:1/shop" in text
        assert parse_url(url.safe).user == user


def test_options_that_are_secrets_stay_hidden() -> None:
    url = parse_url("postgresql://b?sasl_password=canary&api_key=canary&token=canary&acks=all")
    assert str(url) == "postgresql://b?sasl_password=***&api_key=***&token=***&acks=all"


@given(
    st.text(max_size=60) | st.sampled_from(SCHEMES).flatmap(lambda it: st.text(max_size=40).map(f"{it}:{{}}".format))
)
def test_any_text_is_a_url_or_a_bad_one(text: str) -> None:
    try:
        url = parse_url(text)
    except BadUrl:
        return
    assert url.scheme in SCHEMES
    assert repr(url)


def test_adapters_of_others_bring_their_schemes() -> None:
    assert parse_url("nats://hub:4222", [*SCHEMES, "nats"]) == Url("nats", "", "hub", 4222)


def test_a_url_does_not_change_and_can_be_a_key() -> None:
    assert len({parse_url("sqs://eu?fifo=true"), parse_url("sqs://eu?fifo=true")}) == 1
    with pytest.raises(TypeError):
        parse_url("sqs://eu?fifo=true").options["fifo"] = "false"  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("sqlite:shop.db", "shop"),
        ("sqlite:///var/lib/my-shop.v2.db", "my_shop_v2"),
        ("sqlite:data.d/shop", "shop"),
        ("sqlite:.db", "app__db"),
        ("sqlite:3d.db", "app_3d"),
        ("sqlite::memory:", "app"),
    ],
)
def test_an_app_without_a_name_is_called_after_its_file(text: str, name: str) -> None:
    assert default_name(parse_url(text)) == name
