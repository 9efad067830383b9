from __future__ import annotations

import asyncio
import statistics
import time

import pytest
from argon2 import extract_parameters
from sqlalchemy.ext.asyncio import AsyncEngine

from auth.accounts.passwords import PasswordHasher
from auth.accounts.service import AccountService
from auth.accounts.store import UserStore
from auth.errors import BadCredentials, BadUserName, PasswordRefused, UserExists, UserNotFound
from auth.principal import Role
from storage.engine import open_engine

GOOD = "walnut ferry quiet lamp"
OTHER = "another ferry, loud lamp"
IMPOSSIBLE_NAMES = ["", "Ada", "a b", "a\0b", "\ud800", "a" * 65, "ada\n", "añb", "' OR 1=1", "../ada", "a" * 100_000]


@pytest.fixture
def store(engine: AsyncEngine) -> UserStore:
    return UserStore(engine)


@pytest.fixture
def accounts(store: UserStore) -> AccountService:
    return AccountService(store, PasswordHasher())


async def test_a_user_logs_in_with_the_password(accounts: AccountService, store: UserStore) -> None:
    """The right password returns the user, and the database holds only its Argon2id hash."""
    ada = await accounts.add("ada@example.org", Role.CLIENT, GOOD)
    assert await accounts.authenticate("ada@example.org", GOOD) == ada
    found = await store.find("ada@example.org")
    assert found is not None
    assert GOOD not in found[1]
    assert extract_parameters(found[1]).memory_cost == 19_456


async def test_every_failed_login_looks_the_same(accounts: AccountService) -> None:
    """Unknown user, impossible name, wrong, empty and endless password and disabled user are told alike."""
    await accounts.add("ada", Role.CLIENT, GOOD)
    await accounts.add("grace", Role.CLIENT, GOOD)
    await accounts.disable("grace")
    attempts = [
        ("ada", OTHER),
        ("ada", ""),
        ("ada", GOOD + " "),
        ("ada", "x" * 5000),
        ("bob", GOOD),
        ("grace", GOOD),
        ("grace", OTHER),
    ]
    attempts += [(name, GOOD) for name in IMPOSSIBLE_NAMES]
    messages = set()
    for name, password in attempts:
        with pytest.raises(BadCredentials) as refused:
            await accounts.authenticate(name, password)
        messages.add(str(refused.value))
    assert len(messages) == 1


async def _processor_seconds(accounts: AccountService, name: str, password: str) -> float:
    started = time.process_time()
    with pytest.raises(BadCredentials):
        await accounts.authenticate(name, password)
    return time.process_time() - started


async def test_every_failed_login_costs_the_same(accounts: AccountService) -> None:
    """One Argon2 verification is run for unknown, impossible, disabled and known users alike."""
    await accounts.add("ada", Role.CLIENT, GOOD)
    await accounts.add("grace", Role.CLIENT, GOOD)
    await accounts.disable("grace")
    attempts = [("ada", OTHER), ("bob", OTHER), ("B O B", OTHER), ("grace", GOOD)]
    rounds = [[await _processor_seconds(accounts, *attempt) for attempt in attempts] for _ in range(5)]
    wrong, *others = (statistics.median(column) for column in zip(*rounds, strict=True))
    assert all(0.5 < other / wrong < 2 for other in others)


async def test_a_new_password_replaces_the_old(accounts: AccountService) -> None:
    """After a change only the new password logs in."""
    ada = await accounts.add("ada", Role.CLIENT, GOOD)
    await accounts.set_password("ada", OTHER)
    assert await accounts.authenticate("ada", OTHER) == ada
    with pytest.raises(BadCredentials):
        await accounts.authenticate("ada", GOOD)


async def test_a_refused_password_changes_nothing(accounts: AccountService) -> None:
    """The policy holds for the first password and for later ones."""
    await accounts.add("ada", Role.CLIENT, GOOD)
    with pytest.raises(PasswordRefused):
        await accounts.set_password("ada", "password1234")
    with pytest.raises(PasswordRefused):
        await accounts.add("thelongest.name", Role.CLIENT, "TheLongest.Name")
    assert [user.name for user in await accounts.list()] == ["ada"]
    assert (await accounts.authenticate("ada", GOOD)).name == "ada"


async def test_a_bad_name_is_refused_everywhere(accounts: AccountService) -> None:
    """A name that breaks the rule neither makes nor changes a user."""
    for name in IMPOSSIBLE_NAMES:
        for attempt in (
            accounts.add(name, Role.ADMIN, GOOD),
            accounts.set_password(name, GOOD),
            accounts.disable(name),
        ):
            with pytest.raises(BadUserName):
                await attempt
    assert await accounts.list() == []


async def test_unknown_and_repeated_users_are_told(accounts: AccountService) -> None:
    """Administration, unlike a login, says what is wrong."""
    await accounts.add("ada", Role.CLIENT, GOOD)
    with pytest.raises(UserExists):
        await accounts.add("ada", Role.CLIENT, GOOD)
    with pytest.raises(UserNotFound):
        await accounts.set_password("bob", GOOD)
    with pytest.raises(UserNotFound):
        await accounts.disable("bob")


async def test_an_empty_gateway_gets_an_admin_once(accounts: AccountService) -> None:
    """The first start makes `admin` with a random password that logs in; later starts make nobody."""
    password = await accounts.bootstrap_admin()
    assert password is not None
    assert len(password) >= 22
    assert (await accounts.authenticate("admin", password)).role is Role.ADMIN
    assert await accounts.bootstrap_admin() is None
    assert len(await accounts.list()) == 1


async def test_a_gateway_with_users_gets_no_admin(accounts: AccountService) -> None:
    """While anybody exists, no admin is made."""
    await accounts.add("ada", Role.CLIENT, GOOD)
    assert await accounts.bootstrap_admin() is None
    assert [user.name for user in await accounts.list()] == ["ada"]


async def test_processes_that_start_together_make_one_admin(database_url: str, accounts: AccountService) -> None:
    """Of four starts at once one gets the password, and it is the one that logs in."""
    engines = [open_engine(database_url) for _ in range(4)]
    try:
        starts = [AccountService(UserStore(engine), PasswordHasher()) for engine in engines]
        passwords = [word for word in await asyncio.gather(*(start.bootstrap_admin() for start in starts)) if word]
    finally:
        for engine in engines:
            await engine.dispose()
    assert len(passwords) == 1
    assert (await accounts.authenticate("admin", passwords[0])).name == "admin"
    assert len(await accounts.list()) == 1
