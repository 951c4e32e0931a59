"""How one system gives a token: by user name and password, or for the refresh token of the one before.

Belongs here: the two calls that need no token, and what their refusal means.
Does not belong here: when a token is renewed (``tokens``), carrying the calls (``http``).

Source: contract.md, "Common to both".
"""

import json
from collections.abc import Callable
from typing import Final

from syncflow_core.answers import Answer, is_it, read_grant
from syncflow_core.errors import ContractError, RejectedError
from syncflow_core.tokens import Grant, Login

_UNAUTHORIZED: Final = 401
_UNKNOWN: Final = frozenset({404, 405})
EXPECTED: Final = frozenset({_UNAUTHORIZED, *_UNKNOWN})
"""Statuses from 400 on that are told here."""


class SignIn:
    """One account at one system.

    Args:
        system: Its name, which is that of its ``SYNCFLOW_`` variables too.
        url: Its address, for people.
        login: The account.
        post: Carries a body to a path, once; it raises for any status but success and ``EXPECTED``.
    """

    def __init__(
        self, system: str, url: str, login: Login, post: Callable[[str, bytes], Answer]
    ) -> None:
        self._system = system
        self._url = url
        self._login = login
        self._post = post

    def log_in(self) -> Grant:
        """Tokens for user name and password.

        Raises:
            RejectedError: They are wrong, or nothing at the address takes them.
            ContractError: The answer holds no usable token.
        """
        given = {"username": self._login.username, "password": self._login.password}
        answer = self._post("/auth/login", json.dumps(given).encode())
        if answer.status == _UNAUTHORIZED:
            name = self._system.upper()
            raise RejectedError(
                f"{self._system} at {self._url} refused the login of {self._login.username!r} (401): "
                f"wrong credentials; check SYNCFLOW_{name}_USERNAME and SYNCFLOW_{name}_PASSWORD",
                status=_UNAUTHORIZED,
                system=self._system,
            )
        return self._grant(answer, None)

    def refresh(self, token: str) -> Grant | None:
        """Tokens for a refresh token; None where it is spent.

        Raises:
            RejectedError: Nothing at the address takes it.
            ContractError: The answer holds no usable token.
        """
        answer = self._post("/auth/refresh", json.dumps({"refresh_token": token}).encode())
        return None if answer.status == _UNAUTHORIZED else self._grant(answer, token)

    def _grant(self, answer: Answer, refresh: str | None) -> Grant:
        if answer.status in _UNKNOWN:
            raise RejectedError(
                f"{self._system} at {self._url} knows no login ({answer.status}): "
                f"{is_it(self._system)}",
                status=answer.status,
                system=self._system,
            )
        try:
            return read_grant(answer.body, refresh)
        except ValueError as error:
            raise ContractError(
                f"{self._system} answered a login without a usable token: {error}",
                system=self._system,
            ) from error
