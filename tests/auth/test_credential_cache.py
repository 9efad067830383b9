"""The cache of verified credentials and its reverse index."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from auth.authenticator import CredentialCache, VerifiedCredential
from auth.principal import Principal, Role

DIGESTS = [bytes([number]) for number in range(6)]
TARGETS = ["user:ana", "user:olga", "key:1", "key:2"]


def _verified(*targets: str, valid_until: float = 100.0) -> VerifiedCredential:
    principal = Principal("ana", "ana", Role.CLIENT, frozenset(), None)
    return VerifiedCredential(principal, valid_until, frozenset(targets))


def _check_index(cache: CredentialCache) -> None:
    """Assert that the index holds exactly the targets of the cached credentials."""
    expected: dict[str, set[bytes]] = {}
    for digest, verified in cache.items():
        for target in verified.targets:
            expected.setdefault(target, set()).add(digest)
    assert cache.digests_by_target == expected


def _fill(maxsize: int, digests: Iterable[bytes]) -> CredentialCache:
    cache = CredentialCache(maxsize)
    for digest in digests:
        cache[digest] = _verified("user:ana", f"key:{digest.hex()}")
    return cache


def test_a_full_cache_evicts_the_least_recently_used() -> None:
    """A full cache evicts the credential that was used least recently, and removes its targets from the index."""
    cache = _fill(3, DIGESTS[:3])
    assert cache.find_valid(DIGESTS[0], now=0) is not None
    cache[DIGESTS[3]] = _verified("user:olga")
    assert set(cache) == {DIGESTS[0], DIGESTS[2], DIGESTS[3]}
    assert "key:01" not in cache.digests_by_target
    _check_index(cache)


def test_an_expired_credential_is_removed_when_it_is_looked_up() -> None:
    """A credential is valid before `valid_until`; from then on it is neither returned nor kept."""
    cache = CredentialCache(3)
    cache[DIGESTS[0]] = _verified("user:ana", valid_until=10.0)
    assert cache.find_valid(DIGESTS[0], now=9.9) is not None
    assert cache.find_valid(DIGESTS[0], now=10.0) is None
    assert len(cache) == 0
    assert cache.digests_by_target == {}


def test_invalidation_removes_every_credential_of_the_target() -> None:
    """A change of a user removes that user's credentials and no other user's."""
    cache = _fill(5, DIGESTS[:3])
    cache[DIGESTS[3]] = _verified("user:olga")
    cache.invalidate("user:ana")
    cache.invalidate("user:unknown")
    assert set(cache) == {DIGESTS[3]}
    _check_index(cache)


def test_a_replaced_credential_leaves_no_old_target() -> None:
    """A credential that was verified again is indexed by its new targets only."""
    cache = CredentialCache(3)
    cache[DIGESTS[0]] = _verified("user:ana")
    cache[DIGESTS[0]] = _verified("user:olga")
    cache.invalidate("user:ana")
    assert set(cache) == {DIGESTS[0]}
    _check_index(cache)


def test_clearing_and_popping_keep_the_index_in_step() -> None:
    """The inherited methods that remove items from the mapping update the index too."""
    cache = _fill(4, DIGESTS[:4])
    cache.pop(DIGESTS[1])
    cache.popitem()
    _check_index(cache)
    cache.clear()
    assert cache.digests_by_target == {}


_ADD = st.tuples(st.just("add"), st.sampled_from(DIGESTS), st.sets(st.sampled_from(TARGETS)), st.floats(1, 10))
_FIND = st.tuples(st.just("find"), st.sampled_from(DIGESTS), st.floats(0, 11))
_INVALIDATE = st.tuples(st.just("invalidate"), st.sampled_from(TARGETS))


@given(st.integers(1, 5), st.lists(st.one_of(_ADD, _FIND, _INVALIDATE), max_size=60))
def test_index_and_cache_always_agree(maxsize: int, steps: list[tuple[object, ...]]) -> None:
    """After any sequence of additions, look-ups, evictions and changes the index describes the cache."""
    cache = CredentialCache(maxsize)
    for step in steps:
        match step:
            case ("add", bytes() as digest, set() as targets, float() as valid_until):
                cache[digest] = _verified(*map(str, targets), valid_until=valid_until)
                assert digest in cache
            case ("find", bytes() as digest, float() as now):
                verified = cache.find_valid(digest, now)
                assert verified is None or verified.valid_until > now
            case ("invalidate", str() as target):
                cache.invalidate(target)
                assert not any(target in verified.targets for verified in cache.values())
        assert len(cache) <= maxsize
        _check_index(cache)
