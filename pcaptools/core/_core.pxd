# What other native modules of the project may use: the batch and its records.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "batch.h" nogil:
    ctypedef struct pt_record:
        int64_t time
        uint32_t start, end, data, caplen, wirelen, interface
        uint8_t flags, reason
        uint16_t lane

    ctypedef struct pt_layer:
        uint32_t ip, transport, end
        uint8_t version, protocol, status, flags

    ctypedef struct pt_where:
        uint32_t ethernet, network
        uint16_t ethertype
        uint8_t status, depth
        pt_layer outer, inner

    ctypedef struct pt_interface:
        uint64_t multiply, divide
        int64_t offset
        uint32_t snaplen
        uint16_t linktype
        uint8_t shift, resolution

    ctypedef struct pt_interfaces:
        pt_interface *of
        uint32_t n, room

    ctypedef struct pt_batch:
        uint8_t *bytes
        size_t capacity, filled, used
        pt_record *record
        pt_where *where
        uint32_t n, room, where_room
        const pt_interfaces *interfaces
        uint8_t format, swapped, located, nanoseconds, header, swapped_lengths

    enum: PT_DROP, PT_EDITED, PT_PCAP, PT_PCAPNG, PT_NONE


cdef class NativeBatch:
    cdef pt_batch c
    cdef object interfaces_owner
