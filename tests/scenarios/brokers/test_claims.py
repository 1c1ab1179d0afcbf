"""What is too large for a broker travels beside it, and whoever receives it never sees the difference."""

import asyncio
import hashlib
import json
import os
from pathlib import Path

import boto3
import pytest

from tests.scenarios.brokers.test_carrying import Customer, OrderPlaced, at_work, until
from tests.scenarios.cli.terminal import tidings
from tests.servers.sqs import REGION
from tidings import App, Key, Replica, event
from tidings.claims.bucket import BucketPlace
from tidings.claims.folder import FolderPlace
from tidings.core.claim import claim_of, referring
from tidings.core.cloudevent import to_json
from tidings.core.operations import Append, Redrive
from tidings.errors import BadArgument, BadUrl, BrokerRefused, BrokerUnavailable, PayloadTooLarge, Unreadable
from tidings.runtime.connect import make_store
from tidings.testing.conformance.store.making import envelope

MIB = 1_048_576


@event(topic="scans")
class Scanned:
    scan_id: Key[str]
    image: str


@event
class Noted:
    text: str


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that the apps share."""
    folder = tmp_path / "claims"
    folder.mkdir()
    return folder


def with_claims(url: str, place: object, more: str = "") -> str:
    return f"{url}{'&' if '?' in url else '?'}claims={place}{more}"


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def move(folder: Path, where: Path) -> Path:
    return folder.rename(where)


class Archive(App):
    """Keeps what was scanned.

    Attributes:
        seen: Ids and images, as they were handled.
    """

    def __init__(self, folder: Path, broker: str) -> None:
        super().__init__(f"sqlite:{folder}/archive.db", broker=broker, name="archive")
        self.seen: list[tuple[str, str]] = []

        @self.on(Scanned)
        async def keep(scanned: Scanned) -> None:
            self.seen.append((scanned.scan_id, scanned.image))


def make_scanner(folder: Path, broker: str) -> App:
    return App(f"sqlite:{folder}/scanner.db", broker=broker, name="scanner")


async def held(app: App, group: str, count: int = 1):
    """The dead letters of a group, once there are so many."""
    found = []

    async def there() -> bool:
        found[:] = await app.store.held(group=group, state="dead")
        return len(found) >= count

    await until(there, 30)
    return found


async def test_a_mebibyte_arrives_whole_and_in_order_on_every_broker(broker_url, folder: Path, tmp_path: Path) -> None:
    url = with_claims(broker_url, f"file:{folder}")
    scanner, archive = make_scanner(tmp_path, url), Archive(tmp_path, url)
    sent = [("s-1", "a"), ("s-1", "x" * MIB), ("s-1", "b"), ("s-2", "é" * (MIB // 2)), ("s-1", "c")]
    async with at_work(archive, scanner), scanner, archive:
        for scan_id, image in sent:
            await scanner.publish(Scanned(scan_id, image), headers={"tenant": "acme"})
        await until(lambda: len(archive.seen) == len(sent), 30)
        log, original = [await app.store.read(0, 99, 99, types=["Scanned"]) for app in (archive, scanner)]
    for key in ("s-1", "s-2"):
        assert [each for each in archive.seen if each[0] == key] == [each for each in sent if each[0] == key]
    assert sorted((each.id, each.data, each.headers) for each in log) == sorted(
        (each.id, each.data, each.headers) for each in original
    )
    kept = files(folder)
    assert len(kept) == 2
    assert all(file.name.partition("-")[2] == hashlib.sha256(file.read_bytes()).hexdigest() for file in kept)


async def test_a_large_state_reaches_a_replica_that_starts_late(broker_url, folder: Path, tmp_path: Path) -> None:
    url = with_claims(broker_url, f"file:{folder}")
    shop = App(f"sqlite:{tmp_path}/shop.db", broker=url, name="shop")
    async with at_work(shop), shop:
        await shop.publish(Customer("c-1", "x" * MIB))
    customers = Replica(Customer)
    latecomer = App(f"sqlite:{tmp_path}/late.db", customers, broker=url, name="late")
    async with at_work(latecomer, shop), latecomer:
        await until(lambda: is_there(latecomer, customers, Customer("c-1", "x" * MIB)), 30)


@pytest.fixture
def log_url(tmp_path: Path) -> str:
    """A broker that keeps history, and needs no server."""
    return f"sqlite:{tmp_path}/broker.db"


async def test_a_lower_limit_may_be_chosen(log_url, folder: Path, tmp_path: Path) -> None:
    url = with_claims(log_url, f"file://{folder}", "&claims_over=100")
    scanner, archive = make_scanner(tmp_path, url), Archive(tmp_path, url)
    async with at_work(archive, scanner), scanner:
        await scanner.publish(Scanned("s-1", "x" * 200), Scanned("s-2", "x"))
        await until(lambda: len(archive.seen) == 2)
    assert len(files(folder)) == 1


@pytest.mark.bad_input(15)
async def test_without_a_place_it_is_refused_with_the_option_that_gives_one(
    sqs_url, prefix, log_url, tmp_path: Path
) -> None:
    scanner = make_scanner(tmp_path, f"{sqs_url}&fifo=true&poll=1&prefix={prefix}")
    async with at_work(scanner), scanner:
        with pytest.raises(PayloadTooLarge, match=r"the limit is 229,376.*claims="):
            await scanner.publish(Scanned("s-1", "x" * MIB))
        with pytest.raises(PayloadTooLarge, match=r"the limit is 229,376.*claims="):
            await scanner.publish(Scanned("s-1", "x" * 229_376))
        async with scanner.transaction() as tx:
            with pytest.raises(PayloadTooLarge, match="the limit is 229,376"):
                await tx.publish(Scanned("s-1", "x" * 229_376))
            await tx.publish(Noted("x" * 300_000))
    large = make_scanner(tmp_path, with_claims(log_url, f"file:{tmp_path}"))
    async with large:
        with pytest.raises(PayloadTooLarge, match=r"the limit is 10,000,000"):
            await large.publish(Scanned("s-1", "x" * 10_000_000))


@pytest.mark.bad_input(15)
@pytest.mark.parametrize("harm", ["missing", "changed", "longer"])
async def test_a_claim_that_cannot_be_had_is_a_dead_letter_holds_nobody_up_and_can_be_redriven(
    harm: str, log_url, folder: Path, tmp_path: Path
) -> None:
    url = with_claims(log_url, f"file:{folder}")
    scanner, archive = make_scanner(tmp_path, url), Archive(tmp_path, url)
    async with scanner:
        await scanner.publish(Scanned("s-1", "x" * MIB), Scanned("s-1", "b"), Scanned("s-2", "c"))
    await scanner.run(until_idle=True)
    (file,) = files(folder)
    good = file.read_bytes()
    match harm:
        case "missing":
            file.unlink()
        case "changed":
            file.write_bytes(good.replace(b"xx", b"xy", 1))
        case _:
            file.write_bytes(good + b" ")
    async with at_work(archive), archive:
        await until(lambda: sorted(archive.seen) == [("s-1", "b"), ("s-2", "c")])
        [dead] = await held(archive, "archive.claims")
        assert ("its data are missing" if harm == "missing" else "its data were changed") in dead.reason
        assert await archive.store.write(Redrive([dead.id])) == 1
        [dead] = await held(archive, "archive.claims")  # it is still not there
        file.write_bytes(good)

        async def redriven() -> bool:
            for each in await archive.store.held(group="archive.claims", state="dead"):
                await archive.store.write(Redrive([each.id]))
            return len(archive.seen) == 3

        await until(redriven)
    assert archive.seen[2] == ("s-1", "x" * MIB)


async def test_who_has_no_place_for_claims_keeps_the_message_and_takes_no_state_for_gone(
    log_url, folder: Path, tmp_path: Path
) -> None:
    url = with_claims(log_url, f"file:{folder}")
    shop = App(f"sqlite:{tmp_path}/shop.db", broker=url, name="shop")
    async with shop:
        await shop.publish(Customer("c-1", "Ada"), Customer("c-1", "x" * MIB))
    await shop.run(until_idle=True)
    customers = Replica(Customer)
    other = App(f"sqlite:{tmp_path}/other.db", customers, broker=log_url, name="other")
    async with at_work(other), other:
        [dead] = await held(other, "other.quarantine")
        assert "has no place for claims" in dead.reason
        await until(lambda: is_there(other, customers, Customer("c-1", "Ada")))
        await asyncio.sleep(0.1)
        assert await is_there(other, customers, Customer("c-1", "Ada"))


async def is_there(app: App, customers: Replica, customer: Customer) -> bool:
    return await app.get(customers, customer.customer_id) == customer


async def test_what_the_log_has_already_needs_no_claim_and_another_content_under_its_id_is_kept(
    log_url, folder: Path, tmp_path: Path, caplog
) -> None:
    archive = Archive(tmp_path, with_claims(log_url, f"file:{folder}"))
    image, other = (json.dumps({"scan_id": "s-1", "image": image * 99}).encode() for image in "xy")
    sent = {"id": "a", "type": "Scanned", "topic": "scans", "source": "ada", "key": "s-1"}
    async with archive:
        await archive.store.write(Append([envelope(**sent, data=image)]))
    first, second = (envelope(**sent, data=data) for data in (image, other))
    FolderPlace(f"file:{folder}").put(claim_of(second).name, other)
    for each in (first, second):
        store = make_store(f"{log_url}-{each.data[-10:-9].decode()}")
        await store.open()
        await store.write(Append([referring(each, claim_of(each), f"file://{folder}")]))
        await store.close()
        again = Archive(tmp_path, with_claims(store.url, f"file:{folder}"))
        await again.run(until_idle=True)
        async with again:
            assert not await again.store.held(group="archive.claims")
            kept = await again.store.held(group="archive.quarantine")
            assert [each.reason.partition(":")[0] for each in kept] == ([] if each is first else ["IdConflict"])


@pytest.mark.bad_input(42)
async def test_nothing_is_fetched_for_what_comes_over_http() -> None:
    async with App("sqlite::memory:", name="archive") as app:
        body = {"specversion": "1.0", "id": "1", "source": "x", "type": "Scanned", "dataref": "http://localhost/x"}
        assert await app.receive(json.dumps(body).encode()) == 0
        [kept] = await app.store.held(group="archive.quarantine")
        assert "nothing is fetched from there" in kept.reason


@pytest.mark.bad_input(42)
async def test_references_of_strangers_open_no_file_and_no_address(log_url, folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_bytes(b'{"scan_id":"s-1","image":"secret"}')
    digest, size = hashlib.sha256(secret.read_bytes()).hexdigest(), secret.stat().st_size
    sent = {"type": "Scanned", "topic": "scans", "source": "mallory"}
    linked = envelope(**sent, id="linked", data=secret.read_bytes())
    (folder / claim_of(linked).name).symlink_to(secret)
    known = {"datasha256": digest, "datasize": size}
    odd = [
        {"dataref": f"file://{secret}", **known},
        {"dataref": "../secret.json", **known},
        {"dataref": "http://169.254.169.254/latest/meta-data", **known},
        {"dataref": f"file://{folder}/../../../../etc/passwd", "datasha256": "../../etc/passwd", "datasize": 1},
        {"dataref": "x", "datasha256": digest, "datasize": "9" * 40},
        {"dataref": "x", "datasha256": digest, "datasize": -1},
        {"dataref": "x"},
    ]
    strange = [
        envelope(**sent, id=f"odd-{at}", data=b"", headers=json.dumps(each).encode()) for at, each in enumerate(odd)
    ]
    good = envelope(type="Scanned", topic="scans", source="ada", data=b'{"scan_id":"s-2","image":"c"}')
    store = make_store(log_url)
    await store.open()
    await store.write(Append([*strange, referring(linked, claim_of(linked), f"file://{folder}"), good]))
    await store.close()
    archive = Archive(tmp_path, with_claims(log_url, f"file:{folder}"))
    async with at_work(archive), archive:
        await until(lambda: archive.seen == [("s-2", "c")])
        kept = await held(archive, "archive.claims", len(odd) + 1)
        assert len(kept) == len(odd) + 1
        assert sorted("which is no claim of tidings" in each.reason for each in kept) == [False] + [True] * len(odd)
        assert all(b'"image"' not in each.envelope.data for each in kept)


async def test_while_the_place_is_away_everything_waits_and_says_so(
    log_url, folder: Path, tmp_path: Path, caplog
) -> None:
    url = with_claims(log_url, f"file:{folder}")
    scanner, archive = make_scanner(tmp_path, url), Archive(tmp_path, url)
    async with at_work(scanner), scanner:
        away = move(folder, tmp_path / "away")
        await scanner.publish(Scanned("s-1", "x" * MIB), Scanned("s-1", "b"))
        await until(lambda: f"{folder} cannot be written" in caplog.text)
        move(away, folder)

        async def carried() -> bool:
            return await scanner.store.checkpoint("scanner.outbound") == await scanner.store.head()

        await until(carried)
    async with at_work(archive):
        await until(lambda: len(archive.seen) == 2)
    assert [image[:1] for _, image in archive.seen] == ["x", "b"]


async def test_a_receiver_waits_for_the_place_too(log_url, folder: Path, tmp_path: Path, caplog) -> None:
    url = with_claims(log_url, f"file:{folder}")
    scanner, archive = make_scanner(tmp_path, url), Archive(tmp_path, url)
    async with scanner:
        await scanner.publish(Scanned("s-0", "a"))
    await scanner.run(until_idle=True)
    async with at_work(archive), scanner:
        await until(lambda: len(archive.seen) == 1)
        await scanner.publish(Scanned("s-1", "x" * MIB), Scanned("s-1", "b"))
        await _carry_while_away(scanner, folder, tmp_path / "away")
        await until(lambda: f"{folder} cannot be read" in caplog.text)
        assert len(archive.seen) == 1
        move(tmp_path / "away", folder)
        await until(lambda: len(archive.seen) == 3)
    assert [image[:1] for _, image in archive.seen] == ["a", "x", "b"]


async def _carry_while_away(scanner: App, folder: Path, away: Path) -> None:
    """Carry what is published, and take the folder away before anybody else has read it."""
    put = FolderPlace.put

    def put_and_vanish(self: FolderPlace, name: str, data: bytes) -> None:
        put(self, name, data)
        move(folder, away)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FolderPlace, "put", put_and_vanish)
        await scanner.run(until_idle=True)


# ---- places ----------------------------------------------------------------------------------------------------------


def test_a_file_is_there_whole_or_not_at_all(folder: Path, monkeypatch) -> None:
    place = FolderPlace(f"file:{folder}")
    place.put("a-1", b"one")
    place.put("a-1", b"two")
    assert place.get("a-1", 10) == b"two"
    assert place.get("a-1", 2) == b"tw"
    assert place.get("a-2", 10) is None
    (folder / "a-3").mkdir()
    os.mkfifo(folder / "a-4")
    (folder / "a-5").symlink_to(folder / "a-1")
    assert [place.get(f"a-{n}", 10) for n in (3, 4, 5)] == [None] * 3

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(Unreadable, match="may not be read"):
            place.get("a-1", 10)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BrokerUnavailable, match="No space left"):
        place.put("a-6", b"three")
    assert {each.name for each in folder.iterdir()} == {"a-1", "a-3", "a-4", "a-5"}


@pytest.mark.bad_input(32)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("claims=shared", "is no place that is known.*file:, s3:"),
        ("claims=https://example.com/", "is no place that is known"),
        ("claims=file:shared", "the path is not absolute"),
        ("claims=file://server/shared", "the path is not absolute"),
        ("claims=s3:bucket", "names no bucket"),
        ("claims=s3://bucket/a/../b", "names no bucket"),
        ("claims_over=5", "no place"),
        ("claims=file:/shared&claims_over=1000001", "from 0 to 1000000"),
        ("claims=file:/shared&claims_over=many", "from 0 to 1000000"),
        ("claim=file:/shared", "'claim' is not known"),
    ],
)
def test_a_place_that_cannot_be_is_refused_when_the_app_is_made(options: str, says: str) -> None:
    if "/../" in options:
        says = ""  # a folder of that name is odd, but there
        App("sqlite::memory:", broker=f"sqlite:broker.db?{options.replace('/../', '/')}")
        return
    with pytest.raises(BadUrl, match=says):
        App("sqlite::memory:", broker=f"sqlite:broker.db?{options}")


async def test_a_folder_that_is_not_there_ends_the_app_with_the_cure(log_url, tmp_path: Path) -> None:
    url = with_claims(log_url, f"file:{tmp_path}/nowhere")
    with pytest.raises(BrokerRefused, match=r"there is no folder.*make it, or mount it"):
        await make_scanner(tmp_path, url).run()
    rows = {row["check"]: row for row in tidings("doctor", "--broker", url, "-o", "json", cwd=tmp_path).data}
    assert rows["claims"]["verdict"] == "fail"
    (tmp_path / "nowhere").mkdir()
    rows = {row["check"]: row for row in tidings("doctor", "--broker", url, "-o", "json", cwd=tmp_path).data}
    assert rows["claims"]["verdict"] == "ok"
    assert "more than 1,000,000 bytes go to file:///" in rows["claims"]["found"]


def test_attributes_of_claims_cannot_be_given_by_hand() -> None:
    app = App("sqlite::memory:")
    with app.blocking() as blocking, pytest.raises(BadArgument, match="'dataref' is set by tidings itself"):
        blocking.publish(OrderPlaced("o-1", 1), headers={"dataref": "https://example.com/x"})


# ---- S3 --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(moto_url, monkeypatch):
    """A bucket that all AWS clients of the environment find, also those of processes that a test starts."""
    endpoint = moto_url.partition("endpoint=")[2]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    s3 = boto3.resource("s3", region_name=REGION)
    bucket = s3.create_bucket(Bucket=f"claims-{os.getpid()}")
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()


async def test_a_mebibyte_goes_through_sqs_beside_s3(sqs_url, prefix, bucket, tmp_path: Path) -> None:
    url = with_claims(f"{sqs_url}&fifo=true&poll=1&prefix={prefix}", f"s3://{bucket.name}/shop")
    scanner, archive = make_scanner(tmp_path, url), Archive(tmp_path, url)
    async with at_work(archive, scanner), scanner:
        await scanner.publish(Scanned("s-1", "x" * MIB), Scanned("s-1", "b"))
        await until(lambda: archive.seen == [("s-1", "x" * MIB), ("s-1", "b")], 30)
    assert [each.key.partition("/")[0] for each in bucket.objects.all()] == ["shop"]
    rows = {row["check"]: row for row in tidings("doctor", "--broker", url, "-o", "json", cwd=tmp_path).data}
    assert rows["claims"]["found"] == f"data of more than 229,376 bytes go to s3://{bucket.name}/shop"


async def test_an_object_that_is_missing_is_a_dead_letter(log_url, bucket, tmp_path: Path) -> None:
    url = with_claims(log_url, f"s3://{bucket.name}")
    scanner, archive = make_scanner(tmp_path, url), Archive(tmp_path, url)
    async with scanner:
        await scanner.publish(Scanned("s-1", "x" * MIB), Scanned("s-1", "b"))
    await scanner.run(until_idle=True)
    bucket.objects.all().delete()
    async with at_work(archive), archive:
        await until(lambda: archive.seen == [("s-1", "b")])
        [dead] = await held(archive, "archive.claims")
    assert f"nothing is at 's3://{bucket.name}/" in str(dead.reason)


def test_a_bucket_that_is_not_there_or_does_not_answer_is_told_with_the_cure(bucket, monkeypatch) -> None:
    place = BucketPlace(f"s3://{bucket.name}-other/shop")
    with pytest.raises(BrokerRefused, match="create the bucket"):
        place.check()
    with pytest.raises(BrokerUnavailable, match="create the bucket"):
        place.put("a-1", b"{}")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    with pytest.raises(BrokerUnavailable, match="AWS_ENDPOINT_URL_S3"):
        BucketPlace(f"s3://{bucket.name}").check()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with pytest.raises(BrokerRefused, match="set AWS_PROFILE"):
        BucketPlace(f"s3://{bucket.name}").check()


async def test_reading_and_writing_a_bucket(bucket) -> None:
    place = BucketPlace(f"s3://{bucket.name}/a/b/")
    await asyncio.to_thread(place.check)
    place.put("a-1", b"one")
    place.put("a-1", b"two")
    assert (place.get("a-1", 10), place.get("a-1", 2), place.get("a-2", 10)) == (b"two", b"tw", None)
    assert [each.key for each in bucket.objects.all()] == ["a/b/a-1"]
    assert to_json(envelope())
