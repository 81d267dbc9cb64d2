from __future__ import annotations

import asyncio
import logging
import selectors
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from kubernetes.aio.client import Configuration

from diffusion_operator.cluster import kinds
from diffusion_operator.cluster.api_client import ApiClient
from diffusion_operator.cluster.connection import Connection
from diffusion_operator.cluster.errors import RefusedError, UnavailableError
from diffusion_operator.cluster.leadership import Leadership, LeaseTimes
from diffusion_operator.cluster.lease_thread import lease_thread
from diffusion_operator.cluster.store import ref
from tests.unit.diffusion_operator.fake_cluster import FakeCluster

LEASE = ref(kinds.LEASE, "operators", "diffusion-operator")
LEASE_OBJECT = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": {"name": LEASE.name, "namespace": LEASE.namespace}}
FAST = LeaseTimes(lease=10, renew=7, retry=0.001)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def leadership(cluster, name, clock):
    return Leadership(cluster, LEASE, name, FAST, clock)


def holder(cluster):
    return cluster.objects[LEASE]["spec"]["holderIdentity"]


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, timeout=10))


def test_a_second_replica_waits_until_the_lease_did_not_change_for_its_time():
    async def scenario():
        cluster, clock = FakeCluster(), Clock()
        await leadership(cluster, "first", clock).acquire()
        waiting = asyncio.create_task(leadership(cluster, "second", clock).acquire())
        for _ in range(5):
            await asyncio.sleep(0.002)
        clock.now += 9.9
        for _ in range(5):
            await asyncio.sleep(0.002)
        assert not waiting.done()
        clock.now += 0.2
        await waiting
        return cluster

    cluster = run(scenario())
    assert holder(cluster) == "second"
    assert cluster.objects[LEASE]["spec"]["leaseTransitions"] == 1


def test_a_lease_that_was_given_back_is_taken_at_once():
    async def scenario():
        cluster, clock = FakeCluster(), Clock()
        first = leadership(cluster, "first", clock)
        await first.acquire()
        await first.release()
        assert holder(cluster) == ""
        await leadership(cluster, "second", clock).acquire()
        await first.release()
        return holder(cluster)

    assert run(scenario()) == "second"


def test_a_leader_that_cannot_renew_stops_before_its_lease_ends():
    async def scenario():
        cluster, clock = FakeCluster(), Clock()
        leader = leadership(cluster, "first", clock)
        await leader.acquire()
        keep = asyncio.create_task(leader.keep())
        await asyncio.sleep(0.005)
        assert not keep.done()

        async def away(lease):
            raise UnavailableError("away")

        cluster.get = away
        clock.now += 7
        await keep
        return clock.now

    assert run(scenario()) - 100 < FAST.lease


def test_a_replica_writes_only_as_long_as_it_surely_leads():
    async def scenario():
        cluster, clock = FakeCluster(), Clock()
        leader = leadership(cluster, "first", clock)
        said = [leader.may_write()]
        await leader.acquire()
        clock.now += FAST.renew - 0.1
        said.append(leader.may_write())
        keep = asyncio.create_task(leader.keep())
        await asyncio.sleep(0.01)
        clock.now += FAST.renew - 0.1
        said.append(leader.may_write())
        keep.cancel()  # Whatever stops the renewals, a stopped process for example.
        clock.now += 0.2
        said.append(leader.may_write())
        await leader.acquire()
        await leader.release()
        return [*said, leader.may_write()]

    assert run(scenario()) == [False, True, True, False, False]


@dataclass(frozen=True)
class SlowToken(Connection):
    """Credentials that take as long to come as the lease lasts."""

    clock: Clock

    async def headers(self):
        self.clock.now += FAST.renew
        return await super().headers()


def test_what_changes_something_is_not_sent_after_the_lease_whatever_took_so_long():
    received = []

    async def answer(reader, writer):
        received.append((await reader.readline()).decode().split()[:1])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()

    async def scenario():
        clock = Clock()
        leader = leadership(FakeCluster(), "first", clock)
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        address = Configuration(host=f"http://{host}:{port}")
        async with (
            server,
            ApiClient(SlowToken(address, clock), leader.may_write) as slow,
            ApiClient(Connection(address), leader.may_write) as fast,
        ):
            for write in (slow.create, slow.replace, slow.apply_status, lambda lease: slow.delete(LEASE, "uid")):
                await leader.acquire()
                with pytest.raises(UnavailableError, match="not sent, for this replica leads no longer"):
                    await write(LEASE_OBJECT)
            await slow.get(LEASE)
            await leader.acquire()
            await fast.create(LEASE_OBJECT)

    run(scenario())
    assert [line for line in received if line] == [["GET"], ["POST"]]


def test_a_leader_whose_lease_another_took_stops_at_once():
    async def scenario():
        cluster, clock = FakeCluster(), Clock()
        leader = leadership(cluster, "first", clock)
        await leader.acquire()
        lease = cluster.objects[LEASE]
        cluster.edit(LEASE, spec={**lease["spec"], "holderIdentity": "second"})
        await leader.keep()
        return holder(cluster)

    assert run(scenario()) == "second"


class Waitless(selectors.DefaultSelector):
    """Waits for nothing: the time that a loop would wait is counted."""

    waited = 0.0

    def select(self, timeout=None):
        self.waited += timeout or 0.0
        return super().select(0)


class SimulatedTime(asyncio.SelectorEventLoop):
    def __init__(self):
        self._waitless = Waitless()
        super().__init__(self._waitless)

    def time(self):
        return self._waitless.waited


def test_a_request_that_hangs_ends_with_the_time_to_renew_well_before_the_lease():
    times = LeaseTimes()

    async def scenario():
        cluster, loop = FakeCluster(), asyncio.get_running_loop()
        leader = Leadership(cluster, LEASE, "first", clock=loop.time)
        await leader.acquire()

        async def hangs(lease):
            await loop.create_future()

        cluster.get = hangs
        began = loop.time()
        await leader.keep()
        return loop.time() - began

    with asyncio.Runner(loop_factory=SimulatedTime) as runner:
        assert times.renew <= runner.run(scenario()) < times.renew + 0.1


def test_a_lease_that_may_not_be_taken_is_a_warning_that_names_the_right(caplog):
    caplog.set_level(logging.INFO)

    async def scenario():
        cluster = FakeCluster()

        async def forbidden(lease):
            raise RefusedError('cannot get resource "leases" in API group "coordination.k8s.io"')

        cluster.get = forbidden
        waiting = asyncio.create_task(leadership(cluster, "first", Clock()).acquire())
        while not caplog.records:
            await asyncio.sleep(0)
        waiting.cancel()

    run(scenario())
    (record, *_) = caplog.records
    assert record.levelno == logging.WARNING
    assert 'cannot get resource "leases"' in record.getMessage()
    assert "get, create and update of leases (coordination.k8s.io) in namespace operators" in record.getMessage()


def test_an_event_loop_that_is_busy_for_longer_than_the_lease_keeps_it():
    times = LeaseTimes(lease=1.5, renew=1.0, retry=0.1)
    cluster = FakeCluster()

    @asynccontextmanager
    async def opened():
        yield Leadership(cluster, LEASE, "first", times)

    async def scenario():
        async with lease_thread(opened()) as lease:
            await lease.acquire()
            taken = cluster.objects[LEASE]["metadata"]["resourceVersion"]
            time.sleep(2 * times.lease)  # What thousands of objects at once are to the operator's event loop.
            lost = asyncio.create_task(lease.lost())
            await asyncio.sleep(0.01)
            assert not lost.done()
            assert lease.may_write()
            assert cluster.objects[LEASE]["metadata"]["resourceVersion"] != taken
            await lease.release()
            assert not lease.may_write()
            await lost

    run(scenario())
    assert holder(cluster) == ""


def test_a_lease_that_is_lost_in_its_thread_is_told_of():
    cluster, clock = FakeCluster(), Clock()

    @asynccontextmanager
    async def opened():
        yield leadership(cluster, "first", clock)

    async def scenario():
        async with lease_thread(opened()) as lease:
            await lease.acquire()
            lost = asyncio.create_task(lease.lost())
            await asyncio.sleep(0.01)
            assert not lost.done()
            cluster.objects[LEASE]["spec"]["holderIdentity"] = "second"
            await lost
            assert not lease.may_write()

    run(scenario())
    assert holder(cluster) == "second"


def test_a_lease_is_given_back_whatever_ends_the_process_and_a_replica_that_waits_gives_nothing_back():
    cluster, clock = FakeCluster(), Clock()

    @asynccontextmanager
    async def opened(name):
        yield leadership(cluster, name, clock)

    async def scenario():
        async with lease_thread(opened("first")) as first:
            await first.acquire()
            async with lease_thread(opened("second")) as second:
                waiting = asyncio.create_task(second.acquire())
                await asyncio.sleep(0.01)
                waiting.cancel()
            assert holder(cluster) == "first"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(scenario())
    assert holder(cluster) == ""


def test_a_lease_that_is_not_kept_for_an_unforeseen_reason_says_it_and_is_given_back():
    cluster = FakeCluster()

    @asynccontextmanager
    async def opened():
        yield leadership(cluster, "first", Clock())

    async def breaks(lease):
        raise ZeroDivisionError

    async def scenario():
        async with lease_thread(opened()) as lease:
            await lease.acquire()
            cluster.get, get = breaks, cluster.get
            with pytest.raises(ZeroDivisionError):
                await lease.lost()
            assert not lease.may_write()
            cluster.get = get
            await lease.release()

    run(scenario())
    assert holder(cluster) == ""


def test_a_token_that_cannot_be_read_is_tried_again():
    async def missing(configuration):
        raise FileNotFoundError("token")

    address = Configuration(host="http://127.0.0.1:9")
    address.refresh_api_key_hook = missing

    async def scenario():
        async with ApiClient(Connection(address), lambda: True) as client:
            with pytest.raises(UnavailableError, match="no token to reach the API server: FileNotFoundError: token"):
                await client.get(LEASE)

    run(scenario())


def test_a_thread_that_cannot_open_its_client_says_why():
    @asynccontextmanager
    async def opened():
        raise UnavailableError("no way to reach a cluster")
        yield

    async def scenario():
        async with lease_thread(opened()):
            pass

    with pytest.raises(UnavailableError, match="no way to reach a cluster"):
        run(scenario())
