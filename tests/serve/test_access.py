from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einthoven.errors import EinthovenError
from einthoven.serve.access import COOKIE, SESSION_SECONDS, Access, check_bind, on_loopback, read_token
from einthoven.serve.options import Options
from einthoven.serve.rates import Rates, client_of

TOKEN = "0123456789abcdef" * 2


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    check_bind(Options(host=host))


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.5", "", "example.org", "localhost.example.org", "127.0.0.1.nip.io"]
)
def test_any_other_bind_needs_a_token(host: str) -> None:
    assert not on_loopback(host)
    with pytest.raises(EinthovenError, match="token"):
        check_bind(Options(host=host))
    check_bind(Options(host=host, token=TOKEN))


@pytest.mark.parametrize("options", [Options(names=("ecg.example.org",)), Options(proxied=True)])
def test_what_a_proxy_shows_to_others_needs_a_token(options: Options) -> None:
    with pytest.raises(EinthovenError, match="token"):
        check_bind(options)
    check_bind(replace(options, token=TOKEN))


def test_a_token_comes_from_a_file_that_others_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o644)
    with pytest.raises(EinthovenError, match="chmod 600"):
        read_token(path)
    path.chmod(0o600)
    assert read_token(path) == TOKEN
    for bad in ("short", "", TOKEN[:31], f"{TOKEN} {TOKEN}", "ä" * 40):
        path.write_text(bad)
        with pytest.raises(EinthovenError, match="expected") as told:
            read_token(path)
        assert not bad or bad not in str(told.value)
    with pytest.raises(EinthovenError, match="cannot be read"):
        read_token(tmp_path / "absent")


def test_the_header_admits_who_has_the_token() -> None:
    access = Access(TOKEN)
    assert access.admits({"authorization": f"Bearer {TOKEN}"})
    assert access.admits({"authorization": f"bearer  {TOKEN}"})
    for given_token in ("", TOKEN[:-1], TOKEN + "0", TOKEN.upper(), "ä", "\udcff"):
        assert not access.admits({"authorization": f"Bearer {given_token}"})
    assert not access.admits({}) and not access.admits({"authorization": TOKEN})
    assert Access(None).admits({})


def test_a_session_ends_and_cannot_be_made_without_the_token() -> None:
    access = Access(TOKEN)
    session = access.session(now=1000.0)
    assert TOKEN not in session
    assert access.holds(f"a=b; {COOKIE}={session}", now=1000.0)
    assert access.holds(f"{COOKIE}={session}", now=1000.0 + SESSION_SECONDS - 1)
    assert not access.holds(f"{COOKIE}={session}", now=1000.0 + SESSION_SECONDS + 1)
    end, _, signed = session.partition(".")
    for forged in (f"{int(end) + 1}.{signed}", f"{end}.{signed[:-1]}", f"{end}.", "", ".", "x" * 5000):
        assert not access.holds(f"{COOKIE}={forged}", now=1000.0)
    assert not Access(TOKEN[::-1]).holds(f"{COOKIE}={session}", now=1000.0)


@settings(deadline=None, max_examples=30)
@given(st.text(max_size=300))
def test_no_cookie_header_fails_or_admits(cookies: str) -> None:
    assert not Access(TOKEN).holds(cookies)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 3), max_size=60), st.floats(0.5, 5), st.integers(1, 5))
def test_a_client_gets_its_burst_and_then_its_rate(gaps: list[float], rate: float, burst: int) -> None:
    now = 0.0
    rates = Rates(rate, burst, clock=lambda: now)
    tokens, last = float(burst), 0.0
    for gap in gaps:  # the bucket, written down plainly
        now += gap
        tokens, last = min(burst, tokens + (now - last) * rate), now
        wait = rates.wait("a")
        if tokens >= 1:
            assert wait == 0
            tokens -= 1
        else:
            assert wait == pytest.approx((1 - tokens) / rate)


def test_clients_are_told_apart_and_forgotten() -> None:
    rates = Rates(1.0, 1, clock=lambda: 0.0, clients=3)
    assert [rates.wait(client) for client in ("a", "b", "a")] == [0, 0, 1]
    for number in range(100):
        assert rates.wait(str(number)) == 0
    assert len(rates) == 3


def test_a_network_of_version_6_is_one_client() -> None:
    assert client_of("2001:db8::1") == client_of("2001:db8::ffff:1") != client_of("2001:db8:0:1::1")
    assert client_of("10.0.0.1") != client_of("10.0.0.2")
    assert client_of("Meier") == "unknown"
