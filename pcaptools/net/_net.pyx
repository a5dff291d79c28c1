# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Thin glue over csrc/send.h and xdp.h: a batch in, GIL released, C called. Described in _net.pyi."""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from pcaptools.core._core cimport NativeBatch, pt_batch


cdef extern from "send.h" nogil:
    enum: PT_ERRNOS, PT_SEND_FATAL, PT_SENDMMSG, PT_WRITE, PT_XDP

    ctypedef struct sockaddr_ll:
        unsigned char sll_halen
        unsigned char sll_addr[8]

    ctypedef struct pt_xdp:
        int fd
        uint8_t zero_copy

    ctypedef struct pt_lane_of:
        int fd
        pt_xdp *xdp
        uint64_t sent, bytes, cut, failed, no_room, again

    ctypedef struct pt_sender:
        int error, only
        uint8_t way, spin, skip_late
        pt_lane_of *lane
        uint32_t lanes
        int64_t margin, latest, tolerance, alive
        int64_t gap[2]
        uint64_t sent, bytes, cut, retried, timed, delayed, skipped, unheard
        uint64_t failed[PT_ERRNOS]
        sockaddr_ll to[2]

    void pt_be_prompt()
    int64_t pt_calibrate()
    int pt_xdp_open(pt_xdp *x, int fd, uint32_t interface, uint32_t queue, uint32_t largest, uint32_t tag)
    void pt_xdp_close(pt_xdp *x)
    void pt_sender_init(pt_sender *s, pt_lane_of *lane, uint32_t lanes, int64_t margin, int interface)
    int64_t pt_lateness(const pt_sender *s, uint64_t rank)
    int pt_send(pt_sender *s, const pt_batch *b, uint32_t start, uint32_t stop, const int64_t *due, int64_t t0,
                uint32_t *next)


def calibrate():
    cdef int64_t margin
    with nogil:
        pt_be_prompt()
        margin = pt_calibrate()
    return margin


cdef class Frames:
    cdef pt_xdp *c

    def __cinit__(self, int fd, uint32_t interface, uint32_t queue, uint32_t largest, uint32_t tag):
        cdef int stage
        self.c = <pt_xdp *>calloc(1, sizeof(pt_xdp))
        if not self.c:
            raise MemoryError()
        with nogil:
            stage = pt_xdp_open(self.c, fd, interface, queue, largest, tag)
        if stage:
            number = errno
            raise OSError(number, os.strerror(number), ("memory", "rings", "bind")[stage - 1])

    def __dealloc__(self):
        self.close()
        free(self.c)

    def close(self):
        if self.c:
            with nogil:
                pt_xdp_close(self.c)

    @property
    def zero_copy(self):
        return bool(self.c.zero_copy)


cdef class Sender:
    cdef pt_sender c
    cdef list frames

    def __cinit__(self, fds, *, int64_t margin_ns=100_000, int interface=0, neighbour=None, way="sendmmsg",
                  bint spin=True, bint skip_late=False, int64_t tolerance_ns=1_000_000, int only=-1):
        cdef const unsigned char *mac
        cdef pt_lane_of *lane
        self.frames = list(fds) if way == "xdp" else []
        fds = [(<Frames?>one).c.fd for one in self.frames] or ([fds] if isinstance(fds, int) else list(fds))
        if margin_ns < 0 or tolerance_ns < 0:
            raise ValueError("a margin is not negative")
        if not fds or (neighbour is not None and len(neighbour) != 6):
            raise ValueError("a sender needs a descriptor, a neighbour has 6 bytes")
        lane = <pt_lane_of *>calloc(len(fds), sizeof(pt_lane_of))
        if not lane:
            raise MemoryError()
        for k, fd in enumerate(fds):
            lane[<int>k].fd = fd
        for k, one in enumerate(self.frames):
            lane[<int>k].xdp = (<Frames>one).c
        pt_sender_init(&self.c, lane, len(fds), margin_ns, interface)
        self.c.way = {"sendmmsg": PT_SENDMMSG, "write": PT_WRITE, "xdp": PT_XDP}[way]
        self.c.spin = spin
        self.c.skip_late = skip_late
        self.c.tolerance = tolerance_ns
        self.c.only = only
        if neighbour is not None:
            mac = neighbour
            for k in range(2):
                self.c.to[<int>k].sll_halen = 6
                memcpy(self.c.to[<int>k].sll_addr, mac, 6)

    def __dealloc__(self):
        free(self.c.lane)

    def send(self, NativeBatch batch, uint32_t start, uint32_t stop, due, int64_t t0):
        cdef Py_buffer view
        if stop > batch.c.n or start > stop:
            raise ValueError(f"records {start} to {stop} of {batch.c.n}")
        if due is None:
            return self.hand_over(batch, start, stop, NULL, t0)
        PyObject_GetBuffer(due, &view, PyBUF_SIMPLE)
        try:
            if view.len < <Py_ssize_t>(stop * sizeof(int64_t)):
                raise ValueError(f"{view.len} bytes are no due times of {stop} records")
            return self.hand_over(batch, start, stop, <const int64_t *>view.buf, t0)
        finally:
            PyBuffer_Release(&view)

    cdef object hand_over(self, NativeBatch batch, uint32_t start, uint32_t stop, const int64_t *due, int64_t t0):
        cdef uint32_t next
        cdef int verdict
        with nogil:
            verdict = pt_send(&self.c, &batch.c, start, stop, due, t0, &next)
        PyErr_CheckSignals()
        if verdict == PT_SEND_FATAL:
            raise OSError(self.c.error, os.strerror(self.c.error))
        return next

    def add_lane(self, int fd):
        cdef pt_lane_of *lane = <pt_lane_of *>calloc(self.c.lanes + 1, sizeof(pt_lane_of))
        if not lane:
            raise MemoryError()
        memcpy(lane, self.c.lane, self.c.lanes * sizeof(pt_lane_of))
        lane[self.c.lanes].fd = fd
        free(self.c.lane)
        self.c.lane = lane
        self.c.lanes += 1

    def lane(self, uint32_t k):
        if k >= self.c.lanes:
            raise IndexError(f"lane {k} of {self.c.lanes}")
        cdef const pt_lane_of *one = &self.c.lane[k]
        return {"sent": one.sent, "bytes": one.bytes, "failed": one.failed, "cut": one.cut, "no_room": one.no_room,
                "again": one.again}

    def lateness(self, double quantile):
        if not 0 <= quantile <= 1:
            raise ValueError("a quantile is between 0 and 1")
        if not self.c.timed:
            return 0
        cdef uint64_t rank = <uint64_t>(quantile * self.c.timed)
        return pt_lateness(&self.c, rank + (rank < quantile * self.c.timed) or 1)

    @property
    def margin_ns(self):
        return self.c.margin

    @property
    def lanes(self):
        return self.c.lanes

    @property
    def alive(self):
        return self.c.alive

    @property
    def gap(self):
        return self.c.gap[0], self.c.gap[1]

    @property
    def timed(self):
        return self.c.timed

    @property
    def delayed(self):
        return self.c.delayed

    @property
    def skipped(self):
        return self.c.skipped

    @property
    def unheard(self):
        return self.c.unheard

    @property
    def sent(self):
        return self.c.sent

    @property
    def sent_bytes(self):
        return self.c.bytes

    @property
    def cut(self):
        return self.c.cut

    @property
    def retried(self):
        return self.c.retried

    @property
    def failed(self):
        return {k: self.c.failed[k] for k in range(PT_ERRNOS) if self.c.failed[k]}
