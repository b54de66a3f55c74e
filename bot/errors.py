"""Every error that crosses a folder, in one tree.

    QueqiaoError
    ├── SettingsError            the operator must change a setting
    ├── StoreError               the disk or database said no
    │   ├── StoreLocked          another process holds this store
    │   └── StoreTooNew          written by a newer version
    └── BorderError              an outside service said no; translated once, at the border
        ├── AuthError            credentials refused
        ├── PermissionDenied     a scope or right is missing
        ├── RateLimited          too fast; says how long to wait
        ├── QuotaExhausted       money or monthly calls used up
        ├── Gone                 the target no longer exists (recalled, dissolved, expired)
        ├── TooBig               over a size limit; says which
        ├── Transient            try again: the request certainly had no effect
        ├── Uncertain            try again only with the same key: the effect is unknown
        ├── RefusedContent       a content filter said no
        └── Bug                  our own request was wrong

Each error carries two sentences: `cause` for the log, and `note`, the key of a
sentence in `bot.texts` for the person whose message it concerns.
"""

from __future__ import annotations


class QueqiaoError(Exception):
    """The root. `str(error)` is the cause, for the log; it never holds a secret."""

    note = "error.internal"

    def __init__(self, cause: str = "", *, note: str = "", code: str = "") -> None:
        super().__init__(cause or type(self).__name__)
        self.cause = cause
        self.code = code
        if note:
            self.note = note


class SettingsError(QueqiaoError):
    """Wrong or missing settings; `problems` lists every one of them, a line each."""

    note = "error.settings"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class StoreError(QueqiaoError):
    """The store could not do what was asked (disk full, read-only, broken)."""

    note = "error.store"


class StoreLocked(StoreError):
    """Another process holds the store's lock file."""


class StoreTooNew(StoreError):
    """The database was written by a newer version of this program."""


class BorderError(QueqiaoError):
    """An outside service refused or failed. `code` is the service's own code."""

    note = "error.platform"


class AuthError(BorderError):
    """Credentials refused."""


class PermissionDenied(BorderError):
    """A scope or right is missing; `scopes` names them when the service does."""

    def __init__(
        self, cause: str = "", *, note: str = "", code: str = "", scopes: tuple[str, ...] = ()
    ) -> None:
        super().__init__(cause, note=note, code=code)
        self.scopes = scopes


class RateLimited(BorderError):
    """Too fast; nothing was done. `retry_after` is in seconds; `bucket` names the
    charge that was refused (bot.contract.Charge), empty when it is not known."""

    note = "error.busy"

    def __init__(
        self,
        cause: str = "",
        *,
        note: str = "",
        code: str = "",
        retry_after: float = 1.0,
        bucket: str = "",
    ) -> None:
        super().__init__(cause, note=note, code=code)
        self.retry_after = retry_after
        self.bucket = bucket


class QuotaExhausted(BorderError):
    """Money or the month's calls are used up; repeating does not help."""


class Gone(BorderError):
    """The target no longer exists: recalled, dissolved, expired."""


class TooBig(BorderError):
    """Over a limit; `what` is `bytes`, `elements` or `tables`."""

    def __init__(
        self, cause: str = "", *, note: str = "", code: str = "", what: str = "bytes"
    ) -> None:
        super().__init__(cause, note=note, code=code)
        self.what = what


class Transient(BorderError):
    """Certainly without effect (never left, or refused by a server fault); try again."""

    note = "error.busy"


class Uncertain(BorderError):
    """Sent, but the answer was lost; repeat only under the same idempotency key."""

    note = "error.busy"


class RefusedContent(BorderError):
    """A content filter refused the text."""

    note = "error.content"


class Bug(BorderError):
    """Our own request was wrong; repeating it cannot help."""

    note = "error.internal"


RETRYABLE = (RateLimited, Transient, Uncertain)
"""What may pass by itself in a moment."""
