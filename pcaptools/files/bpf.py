"""Filter expressions: libpcap's compiler, called directly. The program runs natively (core/csrc/filter.h)."""

from __future__ import annotations

import ctypes
import sys

from pcaptools.errors import UsageError

_NAMES = {"darwin": ("libpcap.dylib", "libpcap.A.dylib")}.get(
    sys.platform, ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so")
)
_NETMASK_UNKNOWN = 0xFFFFFFFF
_SNAPLEN = 262144

# Link types whose number in files (LINKTYPE_) differs from libpcap's own (DLT_) on this platform.
_DLT = {100: 11, 101: 14 if sys.platform.startswith("openbsd") else 12, 106: 19}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(ctypes.c_uint64)))


def _library() -> ctypes.CDLL:
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.pcap_open_dead.restype = ctypes.c_void_p
        library.pcap_geterr.restype = ctypes.c_char_p
        return library
    raise UsageError("filters need libpcap, which is not installed: install the package libpcap0.8 or libpcap")


def compile_filter(expression: str, linktype: int) -> bytes:
    """The BPF program of a filter expression for a link type: 8 bytes an instruction, in this machine's byte order.

    Raises UsageError with libpcap's own words.
    """
    library = _library()
    handle = ctypes.c_void_p(library.pcap_open_dead(_DLT.get(linktype, linktype), _SNAPLEN))
    program = _Program()
    try:
        text = expression.encode(errors="surrogateescape")
        if library.pcap_compile(handle, ctypes.byref(program), text, 1, ctypes.c_uint32(_NETMASK_UNKNOWN)):
            reason = library.pcap_geterr(handle).decode(errors="replace")
            raise UsageError(f"filter '{expression}': {reason}")
        code = ctypes.string_at(program.instructions, program.length * 8)
        library.pcap_freecode(ctypes.byref(program))
        return code
    finally:
        library.pcap_close(handle)
