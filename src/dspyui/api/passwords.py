"""Accounts from DSPYUI_AUTH: `user:hash` entries, the hash an Argon2id one made by `dspyui auth hash`.

Entries stand apart by white space or `;` (a hash contains `,`, `$` and `=`, but neither of those).
"""

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import VerificationError

from dspyui.errors import BadRequestError

_USER = re.compile(r"^[^\s:;,\"'<>\x00-\x1f]{1,64}$")
# The library checks no more than the parameters; a hash with something hung on would lock its user out.
_HASH = re.compile(r"^\$argon2id\$v=\d+\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+$")
REMEMBERED = 256


def check_user_name(name: str) -> str:
    """Return the name when it can stand in DSPYUI_AUTH. Raises BadRequestError."""
    if not _USER.match(name):
        raise BadRequestError("door.user_name", name=name[:64])
    return name


def hash_password(password: str) -> str:
    """Argon2id with the library's recommended cost (RFC 9106's low-memory choice: 64 MiB)."""
    return PasswordHasher().hash(password)


class TooManyAttempts(BadRequestError):
    """Wait before trying again."""

    http_status = 429


@dataclass(frozen=True, slots=True)
class Attempts:
    """How many wrong passwords are forgiven in `seconds`."""

    limit: int
    seconds: float


PER_ADDRESS = Attempts(limit=5, seconds=60)
PER_USER = Attempts(limit=20, seconds=60)


class Accounts:
    """Who may come in, and how often a wrong password is forgiven. `hashes` are by user name, at least one."""

    def __init__(self, hashes: Mapping[str, str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._hashes = dict(hashes)
        # Verified against for unknown users, at the same cost, so that the time an answer takes does not tell
        # who exists.
        self._hasher = PasswordHasher.from_parameters(extract_parameters(next(iter(self._hashes.values()))))
        self._nobody = self._hasher.hash(secrets.token_hex(16))
        self._clock = clock
        self._failures: defaultdict[str, deque[float]] = defaultdict(deque)
        self._pepper = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, str] = OrderedDict()

    @classmethod
    def parse(cls, entries: str) -> "Accounts":
        """Read DSPYUI_AUTH. Raises BadRequestError that names the entry by its number, never by its content."""
        hashes: dict[str, str] = {}
        for number, entry in enumerate(filter(None, re.split(r"[\s;]+", entries)), start=1):
            user, _, password_hash = entry.partition(":")
            if not _USER.match(user) or not _HASH.match(password_hash):
                raise BadRequestError("door.auth_entry", number=number)
            hashes[user] = password_hash
        if not hashes:
            raise BadRequestError("door.auth_entry", number=1)
        return cls(hashes)

    def find_fingerprint(self, user: str) -> str | None:
        """What ties a login to the password it was made with: changing the password ends it. None: no such user."""
        password_hash = self._hashes.get(user)
        return hashlib.sha256(password_hash.encode()).hexdigest()[:16] if password_hash else None

    def is_known(self, user: str, password: str) -> bool:
        """Whether this very pair was checked before; quick, so that an API client pays the hash only once."""
        return self._known.get(self._key(user, password)) == user

    def check(self, address: str, user: str, password: str) -> None:
        """Raise BadRequestError for a wrong password, TooManyAttempts after too many of them.

        Slow on purpose, and to be called by one thread at a time: else many guesses at once would all be
        let through before the first of them has failed.
        """
        if wait := max(self._wait(f"address:{address}", PER_ADDRESS), self._wait(f"user:{user}", PER_USER)):
            raise TooManyAttempts("door.attempts", seconds=wait)
        if not self._verify(user, password):
            self._note_failure(address, user)
            raise BadRequestError("door.wrong_password")
        self._known[self._key(user, password)] = user
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _verify(self, user: str, password: str) -> bool:
        try:
            self._hasher.verify(self._hashes.get(user, self._nobody), password)
        except VerificationError:
            return False
        return user in self._hashes

    def _key(self, user: str, password: str) -> bytes:
        return hmac.new(self._pepper, f"{user}\0{password}".encode(), hashlib.sha256).digest()

    def _note_failure(self, address: str, user: str) -> None:
        now = self._clock()
        self._forget(now)
        for key in (f"address:{address}", f"user:{user}"):
            self._failures[key].append(now)

    def _wait(self, key: str, attempts: Attempts) -> int:
        now = self._clock()
        recent = [at for at in self._failures.get(key, ()) if now - at < attempts.seconds]
        if len(recent) < attempts.limit:
            return 0
        return max(1, round(recent[-attempts.limit] + attempts.seconds - now))

    def _forget(self, now: float) -> None:
        longest = max(PER_ADDRESS.seconds, PER_USER.seconds)
        for key, moments in list(self._failures.items()):
            while moments and now - moments[0] >= longest:
                moments.popleft()
            if not moments:
                self._failures.pop(key, None)
