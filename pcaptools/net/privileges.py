"""Giving root up once the devices are open, before the first byte of untrusted input is read."""

from __future__ import annotations

import os

from pcaptools.errors import DeviceError, UsageError


def drop_root(user: str) -> str:
    """Become `user`, with its groups, for good. Returns what to tell the user when there is nothing to give up, or "".

    Raises UsageError for an unknown user, DeviceError when it does not work or does not hold.
    """
    import pwd

    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise UsageError(f"no such user: {user}") from None
    if os.getuid() and os.geteuid():
        return f"not running as root: stays as it is instead of becoming {user}"
    if not account.pw_uid:
        return f"{user} is root: nothing is given up"
    try:
        os.setgroups(os.getgrouplist(user, account.pw_gid))
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    except OSError as error:
        raise DeviceError(f"cannot become {user}: {error.strerror}") from None
    if _can_return() or {os.getuid(), os.geteuid()} != {account.pw_uid}:
        raise DeviceError(f"cannot become {user}: root could be regained")
    return ""


def _can_return() -> bool:
    for become in (os.setuid, os.seteuid):
        try:
            become(0)
        except PermissionError:
            continue
        return True
    return False
