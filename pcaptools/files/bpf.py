"""Filter expressions: libpcap's compiler, called directly. The program runs natively (core/csrc/filter.h)."""

from __future__ import annotations

import ctypes
import struct
import sys

from pcaptools.errors import UsageError

_NAMES = {"darwin": ("libpcap.dylib", "libpcap.A.dylib")}.get(
    sys.platform, ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so")
)
_NETMASK_UNKNOWN = 0xFFFFFFFF
_SNAPLEN = 262144


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(ctypes.c_uint64)))


def _library() -> ctypes.CDLL:
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.pcap_fopen_offline.restype = ctypes.c_void_p
        library.pcap_geterr.restype = ctypes.c_char_p
        return library
    raise UsageError("filters need libpcap, which is not installed: install the package libpcap0.8 or libpcap")


def _empty_capture(linktype: int, swapped: bool) -> bytes:
    order = "<>"[(sys.byteorder == "big") ^ swapped]
    return struct.pack(order + "IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, _SNAPLEN, linktype)


def _open(library: ctypes.CDLL, header: bytes) -> ctypes.c_void_p:
    """A handle for an empty capture, whose bytes must outlive it. A handle without one (pcap_open_dead) compiles as for
    this machine's interfaces: it numbers link types otherwise, and knows this machine's number of AF_INET6 alone."""
    libc = ctypes.CDLL(None)
    libc.fmemopen.restype = ctypes.c_void_p
    stream = ctypes.c_void_p(libc.fmemopen(header, ctypes.c_size_t(len(header)), b"rb"))
    reason = ctypes.create_string_buffer(256)
    handle = library.pcap_fopen_offline(stream, reason)
    if not handle:
        raise UsageError(f"filter: {reason.value.decode(errors='replace')}")
    return ctypes.c_void_p(handle)


def compile_filter(expression: str, linktype: int, swapped: bool = False) -> bytes:
    """The BPF program of a filter expression for a link type: 8 bytes an instruction, in this machine's byte order.

    swapped: the capture was written in the other byte order, in which libpcap compares what link types such as NULL
    keep in the writer's. Raises UsageError with libpcap's own words.
    """
    library = _library()
    header = _empty_capture(linktype, swapped)
    handle = _open(library, header)
    program = _Program()
    try:
        text = expression.encode(errors="surrogateescape")
        if library.pcap_compile(handle, ctypes.byref(program), text, 1, ctypes.c_uint32(_NETMASK_UNKNOWN)):
            reason = library.pcap_geterr(handle).decode(errors="replace")
            raise UsageError(f"filter '{expression}': {reason}")
        code = ctypes.string_at(program.instructions, program.length * 8)
        library.pcap_freecode(ctypes.byref(program))
        if any(operation == 5 and k >> 31 for operation, _, _, k in struct.iter_unpack("=HBBI", code)):
            raise UsageError(f"filter '{expression}': protochain, which needs loops, is not supported")
        return code
    finally:
        library.pcap_close(handle)
