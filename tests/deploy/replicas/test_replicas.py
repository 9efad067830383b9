"""Three replicas behind the shipped Caddy behave as one gateway, even when one of them dies."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.deploy.replicas.cluster import REPLICAS, REQUESTS, Cluster, address_of, running_cluster
from tests.deploy.replicas.load import CONNECTIONS, Outcome, load
from tests.e2e.proxies.servers import REPLICA
from tests.model.registry.registered_models import make_registry
from tests.support.gateway import Gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until
from tests.support.requirements import missing

IMAGE = FOREST.read_bytes()
JPEG = {"Content-Type": "image/jpeg"}
REVOKED_WITHIN_S = 45.0
"""The gateway promises one second; a slow and busy machine may need more. After 60 s it would read a key anyway."""
KILLS = 5
"""How often a replica is killed until it had a request: now and then, it has none at that moment."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    registry = make_registry(tmp_path_factory.mktemp("registry"))
    try:
        with running_cluster(tmp_path_factory.mktemp("cluster"), registry) as cluster:
            yield cluster
    except LookupError as error:
        missing(str(error))


def test_limits_are_exact_over_all_replicas(cluster: Cluster) -> None:
    """If concurrent requests over all replicas exceed the limit, exactly as many succeed as the limit allows."""
    allowed, extra = REQUESTS - 1, 40  # creating the key is one request
    users = (f"lima{number}" for number in itertools.count())
    counts = Counter[int]()

    def exceed_limit() -> bool:
        """Return whether all replicas served and counted in Redis: one that waits for it too long counts by itself."""
        user = next(users)
        cluster.replicas[0].add_user(user)
        key, reduced = cluster.create_key(user), count_events(cluster, "limits_reduced")
        if reduced != count_events(cluster, "limits_restored"):
            return False

        def get(client: httpx.Client) -> tuple[int, str]:
            response = client.get("/v1/me", headers={"X-API-Key": key})
            return response.status_code, response.headers[REPLICA]

        with cluster.client() as client, ThreadPoolExecutor(8) as pool:
            responses = list(pool.map(get, [client] * (allowed + extra)))
        counts.clear()
        counts.update(status for status, _ in responses)
        all_served = {replica for _, replica in responses} == set(map(address_of, cluster.replicas))
        return all_served and count_events(cluster, "limits_reduced") == reduced

    wait_until(exceed_limit)
    assert counts == {200: allowed, 429: extra}


def count_events(cluster: Cluster, event: str) -> int:
    return sum(replica.complete_log().count(f'"{event}"') for replica in cluster.replicas)


def test_a_revoked_key_is_rejected_by_all_replicas(cluster: Cluster) -> None:
    """Soon after one replica has revoked a key, all replicas reject it."""
    headers = {"X-API-Key": cluster.create_key("rita")}

    def get_status(replica: Gateway) -> int:
        return replica.get("/v1/me", headers=headers).status_code

    assert cluster.each(get_status) == [200] * REPLICAS
    owner = cluster.replicas[0].client("rita")
    (key,) = owner.get("/v1/keys").json()
    assert owner.delete(f"/v1/keys/{key['id']}").is_success
    wait_until(lambda: cluster.each(get_status) == [401] * REPLICAS, within_s=REVOKED_WITHIN_S)


def test_all_replicas_follow_an_alias(cluster: Cluster) -> None:
    """When the alias moves in the registry that the replicas share, all of them serve the new version."""
    headers = {"X-API-Key": cluster.create_key("alia"), **JPEG}

    def get_version(replica: Gateway) -> str:
        return str(replica.post("/v1/predictions", content=IMAGE, headers=headers).json()["model"]["version"])

    def follows(version: str) -> bool:
        return set(cluster.each(get_version)) == {version}

    assert follows("2.0")
    cluster.registry.promote("2.1")
    wait_until(lambda: follows("2.1"))
    cluster.registry.promote("2.0")
    wait_until(lambda: follows("2.0"))


@pytest.mark.usefixtures("within_one_month")
def test_usage_is_that_of_all_replicas(cluster: Cluster) -> None:
    """Every replica reports the caller's usage of all replicas."""
    headers = {"X-API-Key": cluster.create_key("ulla")}

    def predict(replica: Gateway) -> int:
        return replica.post("/v1/predictions", content=IMAGE, headers={**headers, **JPEG}).status_code

    assert [status for _ in range(4) for status in cluster.each(predict)] == [200] * 12

    def get_usage(replica: Gateway) -> int:
        return int(replica.get("/v1/usage", headers=headers).json()["requests"])

    # Requests whose commit takes too long are counted from the spool.
    wait_until(lambda: cluster.each(get_usage) == [12] * REPLICAS, message=lambda: cluster.each(get_usage))


def test_a_killed_replica_fails_only_the_requests_that_it_had(cluster: Cluster) -> None:
    """If one replica is killed under load and another one restarted, only requests that Caddy had sent to the killed
    one fail, and the ledger contains every prediction that a caller received."""
    key, recorded = cluster.create_key("kim"), cluster.count_entries()
    killed, drained, _ = cluster.replicas

    def count_of(replica: Gateway) -> int:
        return sum(outcome.replica == address_of(replica) for outcome in list(outcomes))

    def kill_and_start() -> float:
        """Kill and restart a replica under load; returns the time of its end."""
        killed.kill()
        killed_at, before = time.monotonic(), count_of(killed)
        later = len(outcomes) + 2 * CONNECTIONS
        wait_until(lambda: len(outcomes) > later)
        killed.start()
        wait_until(lambda: count_of(killed) > before + CONNECTIONS)
        return killed_at

    with load(cluster, key) as outcomes:
        wait_until(lambda: all(count_of(replica) > 2 for replica in cluster.replicas))
        for _ in range(KILLS):
            killed_at = kill_and_start()
            if any(outcome.status != 200 for outcome in list(outcomes)):
                break
        drained.stop()
        drained.start()
        before = count_of(drained)
        wait_until(lambda: count_of(drained) > before)
    check_failures([outcome for outcome in outcomes if outcome.status != 200], killed, killed_at)
    check_records(cluster, outcomes, recorded)


def check_failures(failures: list[Outcome], killed: Gateway, killed_at: float) -> None:
    """Check that requests failed, and that Caddy had sent each of them to the killed replica while it was running."""
    assert failures
    assert len(failures) <= CONNECTIONS
    assert {(failure.status, failure.replica) for failure in failures} == {(502, address_of(killed))}
    assert all(failure.sent_at < killed_at for failure in failures)


def check_records(cluster: Cluster, outcomes: list[Outcome], recorded: int) -> None:
    """Check that the ledger has each returned prediction once, and besides at most those of failed requests.

    An entry whose commit took too long is written from the spool a moment after the response.
    """
    ids = [outcome.id for outcome in outcomes if outcome.status == 200]
    assert len(set(ids)) == len(ids)
    wait_until(lambda: cluster.count_entries(ids) == len(ids))
    assert len(ids) <= cluster.count_entries() - recorded <= len(outcomes)
    verified = cluster.replicas[0].run("ledger", "verify", "--json")
    assert verified.returncode == 0, verified.stdout
    assert json.loads(verified.stdout)["writers"] > len(cluster.replicas)


def read_id(response: httpx.Response) -> str:
    """Return the id of a prediction. Raises AssertionError if it failed."""
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def lacks_database(replica: Gateway) -> bool:
    return bool(replica.get("/readyz").json()["checks"]["database"] != "ok")


def test_predictions_go_on_without_the_database(cluster: Cluster) -> None:
    """While PostgreSQL is down, all replicas stay ready and Caddy serves predictions, which are recorded afterwards."""
    # Not an API key, which each replica reads from the database again after a minute.
    headers = {"Authorization": f"Bearer {cluster.replicas[0].token('dora')}", **JPEG}

    def predict(replica: Gateway) -> str:
        return read_id(replica.post("/v1/predictions", content=IMAGE, headers=headers))

    ids = cluster.each(predict)
    cluster.postgres.stop()
    try:
        wait_until(lambda: cluster.each(lacks_database) == [True] * REPLICAS)
        assert cluster.each(Gateway.is_ready) == [True] * REPLICAS  # what Caddy checks
        with cluster.client() as client:
            ids += [read_id(client.post("/v1/predictions", content=IMAGE, headers=headers)) for _ in range(6)]
    finally:
        cluster.postgres.start()
    wait_until(lambda: cluster.count_entries(ids) == len(ids))
