# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Thin glue over csrc/send.h: a batch in, GIL released, C called. Described in _net.pyi."""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint32_t, uint64_t

from pcaptools.core._core cimport NativeBatch, pt_batch


cdef extern from "send.h" nogil:
    enum: PT_ERRNOS, PT_SEND_FATAL

    ctypedef struct pt_sender:
        int error
        int64_t margin, latest
        uint64_t sent, bytes, cut, retried, timed
        uint64_t failed[PT_ERRNOS]

    void pt_be_prompt()
    int64_t pt_calibrate()
    void pt_sender_init(pt_sender *s, int fd, int64_t margin, int interface)
    int64_t pt_lateness(const pt_sender *s, uint64_t rank)
    int pt_send(pt_sender *s, const pt_batch *b, uint32_t start, uint32_t stop, const int64_t *due, int64_t t0,
                uint32_t *next)


def calibrate():
    cdef int64_t margin
    with nogil:
        pt_be_prompt()
        margin = pt_calibrate()
    return margin


cdef class Sender:
    cdef pt_sender c

    def __cinit__(self, int fd, *, int64_t margin_ns=100_000, int interface=0):
        if margin_ns < 0:
            raise ValueError("a margin is not negative")
        pt_sender_init(&self.c, fd, margin_ns, interface)

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
