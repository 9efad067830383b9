"""Adding, authenticating and changing users, on both databases."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from argon2 import PasswordHasher as Argon2
from argon2 import extract_parameters
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.passwords import PasswordHasher, Verification
from auth.accounts.service import AccountService
from auth.accounts.store import UserChange, UserStore
from auth.errors import BadCredentials, BadUserName, LastAdmin, PasswordRefused, UserExists, UserNotFound
from auth.principal import Role
from storage.engine import open_engine
from tests.auth.accounts.hashing import measure_costs

GOOD = "walnut ferry quiet lamp"
OTHER = "another ferry, loud lamp"
IMPOSSIBLE_NAMES = ["", "a b", "a\0b", "\ud800", "a" * 65, "ada\n", "añb", "' OR 1=1", "../ada", "a" * 100_000]
# Names that look like "ada" or "kim": Cyrillic, full width, a Kelvin sign, a combining mark, invisible, with a space.
LOOK_ALIKES = ["\u0430da", "\uff41da", "\u212aim", "a\u0307da", "ada\u200b", "\u2060ada", "ad\u00ada", "ada ", " ada"]
LOOK_ALIKES += ["ada\u00a0", "\ufeffada", "\u202eada", "\U0001d41ada"]


@pytest.fixture
def store(engine: AsyncEngine) -> UserStore:
    return UserStore(engine)


@pytest.fixture
def accounts(store: UserStore, hasher: PasswordHasher) -> AccountService:
    return AccountService(store, hasher)


async def test_a_user_logs_in_with_the_password(accounts: AccountService, store: UserStore) -> None:
    """The right password returns the user, and the database holds only its Argon2id hash."""
    ada = await accounts.add("ada@example.org", Role.CLIENT, GOOD)
    assert await accounts.authenticate("ada@example.org", GOOD) == ada
    found = await store.find("ada@example.org")
    assert found is not None
    assert GOOD not in found[1]
    assert extract_parameters(found[1]).memory_cost == 19_456


async def _add_disabled_user(accounts: AccountService, name: str) -> None:
    user = await accounts.add(name, Role.CLIENT, GOOD)
    await accounts.change(user.id, UserChange(disabled=True))


async def test_every_failed_login_has_the_same_message(accounts: AccountService) -> None:
    """Unknown, impossible and disabled users and wrong, empty and overlong passwords are indistinguishable."""
    await accounts.add("ada", Role.CLIENT, GOOD)
    await _add_disabled_user(accounts, "grace")
    attempts = [
        ("ada", OTHER),
        ("ada", ""),
        ("ada", GOOD + " "),
        ("ada", "x" * 5000),
        ("bob", GOOD),
        ("grace", GOOD),
        ("grace", OTHER),
    ]
    await accounts.add("kim", Role.CLIENT, GOOD)
    attempts += [(name, GOOD) for name in IMPOSSIBLE_NAMES + LOOK_ALIKES]
    messages = set()
    for name, password in attempts:
        with pytest.raises(BadCredentials) as refused:
            await accounts.authenticate(name, password)
        messages.add(str(refused.value))
    assert len(messages) == 1


async def _fail_to_log_in(accounts: AccountService, name: str, password: str) -> None:
    with pytest.raises(BadCredentials):
        await accounts.authenticate(name, password)


async def test_every_failed_login_costs_the_same(accounts: AccountService) -> None:
    """Each failed login runs one Argon2 verification, whether the user is unknown, impossible, disabled or known."""
    await accounts.add("ada", Role.CLIENT, GOOD)
    await _add_disabled_user(accounts, "grace")
    attempts = [("ada", OTHER), ("bob", OTHER), ("B O B", OTHER), ("grace", GOOD)]
    wrong, *others = await measure_costs(*(partial(_fail_to_log_in, accounts, *attempt) for attempt in attempts))
    assert all(0.5 < other / wrong < 2 for other in others)


@pytest.mark.parametrize("name", ["Ada", "ADA", "aDa"])
async def test_a_log_in_ignores_the_case_of_the_name(accounts: AccountService, name: str) -> None:
    """Names are lower case, and a keyboard that capitalises one logs the same user in."""
    ada = await accounts.add("ada", Role.CLIENT, GOOD)
    assert await accounts.authenticate(name, GOOD) == ada
    with pytest.raises(BadCredentials):
        await accounts.authenticate(name, OTHER)


async def test_a_password_hashed_by_release_0_1_0_is_hashed_again(
    accounts: AccountService, store: UserStore, hasher: PasswordHasher
) -> None:
    """A login with a password that was hashed unnormalised replaces the hash, and the composed form then matches."""
    composed, decomposed = "caf\u00e9 walnut ferry", "cafe\u0301 walnut ferry"
    ada = await store.add("ada", Role.CLIENT, Argon2().hash(decomposed))
    with pytest.raises(BadCredentials):
        await accounts.authenticate("ada", decomposed, treat_as_wrong=True)
    assert await accounts.authenticate("ada", decomposed) == ada
    found = await store.find("ada")
    assert found is not None
    assert await hasher.verify(composed, found[1]) == Verification(True)
    assert await accounts.authenticate("ada", composed) == ada


async def test_a_new_hash_does_not_undo_a_new_password(accounts: AccountService, store: UserStore) -> None:
    """A hash is not replaced if the password has changed since the hash was read."""
    ada = await accounts.add("ada", Role.CLIENT, GOOD)
    before = await store.find("ada")
    assert before is not None
    await accounts.change(ada.id, password=OTHER)
    assert await store.replace_hash(ada.id, before[1], before[1]) is None
    assert await accounts.authenticate("ada", OTHER) == ada


async def test_names_that_differ_by_case_only_do_not_collide(accounts: AccountService, store: UserStore) -> None:
    """A user "Ada", a name that no release accepts, cannot log in and does not affect the user "ada"."""
    ada = await accounts.add("ada", Role.CLIENT, GOOD)
    await store.add("Ada", Role.ADMIN, Argon2().hash(OTHER))
    assert await accounts.authenticate("Ada", GOOD) == ada
    with pytest.raises(BadCredentials):
        await accounts.authenticate("Ada", OTHER)


async def test_a_new_password_replaces_the_old(accounts: AccountService) -> None:
    """After a change only the new password logs in."""
    ada = await accounts.add("ada", Role.CLIENT, GOOD)
    await accounts.change(ada.id, password=OTHER)
    assert await accounts.authenticate("ada", OTHER) == ada
    with pytest.raises(BadCredentials):
        await accounts.authenticate("ada", GOOD)


async def test_a_rejected_password_changes_nothing(accounts: AccountService) -> None:
    """The password policy applies to new and existing users, and a rejected password rejects the whole change."""
    ada = await accounts.add("ada", Role.CLIENT, GOOD)
    with pytest.raises(PasswordRefused):
        await accounts.change(ada.id, UserChange(role=Role.ADMIN), password="password1234")
    with pytest.raises(PasswordRefused):
        await accounts.add("thelongest.name", Role.CLIENT, "TheLongest.Name")
    assert await accounts.list() == [ada]
    assert await accounts.authenticate("ada", GOOD) == ada


async def test_the_own_name_is_rejected_as_a_later_password(accounts: AccountService) -> None:
    """A password change is rejected if the new password is the user's name in another case."""
    user = await accounts.add("thelongest.name", Role.CLIENT, GOOD)
    with pytest.raises(PasswordRefused):
        await accounts.change(user.id, password="TheLongest.Name")


async def test_an_impossible_name_is_rejected(accounts: AccountService) -> None:
    """Adding or looking up a user with an invalid name raises BadUserName."""
    for name in [*IMPOSSIBLE_NAMES, *LOOK_ALIKES, "Ada", "ADA@EXAMPLE.ORG"]:
        for attempt in (accounts.add(name, Role.ADMIN, GOOD), accounts.get_by_name(name)):
            with pytest.raises(BadUserName):
                await attempt
    assert await accounts.list() == []


async def test_administration_names_the_problem(accounts: AccountService) -> None:
    """Unlike a login, administration distinguishes existing and unknown users."""
    ada = await accounts.add("ada", Role.CLIENT, GOOD)
    with pytest.raises(UserExists):
        await accounts.add("ada", Role.CLIENT, GOOD)
    assert await accounts.get_by_name("ada") == ada
    with pytest.raises(UserNotFound, match="bob"):
        await accounts.get_by_name("bob")
    unknown_id = "00000000-0000-4000-8000-000000000000"
    for attempt in (
        accounts.change(unknown_id, password=GOOD),
        accounts.change(unknown_id, UserChange(disabled=True)),
        accounts.get(unknown_id),
    ):
        with pytest.raises(UserNotFound):
            await attempt


async def test_the_last_administrator_is_protected(accounts: AccountService) -> None:
    """Disabling the last administrator fails and changes no password, unless it is explicitly allowed."""
    root = await accounts.add("root", Role.ADMIN, GOOD)
    with pytest.raises(LastAdmin):
        await accounts.change(root.id, UserChange(disabled=True), password=OTHER)
    assert await accounts.authenticate("root", GOOD) == root
    assert (await accounts.change(root.id, UserChange(disabled=True), allow_last_admin=True)).disabled_at


async def test_an_empty_database_gets_one_admin(accounts: AccountService) -> None:
    """The first start creates `admin` with a random password that logs in; later starts create no user."""
    password = await accounts.bootstrap_admin()
    assert password is not None
    assert len(password) >= 22
    assert (await accounts.authenticate("admin", password)).role is Role.ADMIN
    assert await accounts.bootstrap_admin() is None
    assert len(await accounts.list()) == 1


async def test_a_database_with_users_gets_no_admin(accounts: AccountService) -> None:
    """No administrator is created while any user exists."""
    await accounts.add("ada", Role.CLIENT, GOOD)
    assert await accounts.bootstrap_admin() is None
    assert [user.name for user in await accounts.list()] == ["ada"]


async def test_processes_that_start_together_create_one_admin(
    database_url: str, accounts: AccountService, hasher: PasswordHasher
) -> None:
    """Of four processes that start at once, one returns a password, and that password logs in."""
    engines = [open_engine(database_url) for _ in range(4)]
    try:
        services = [AccountService(UserStore(engine), hasher) for engine in engines]
        results = await asyncio.gather(*(service.bootstrap_admin() for service in services))
    finally:
        for engine in engines:
            await engine.dispose()
    (password,) = [result for result in results if result]
    assert (await accounts.authenticate("admin", password)).name == "admin"
    assert len(await accounts.list()) == 1
