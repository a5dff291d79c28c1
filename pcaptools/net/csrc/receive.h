/* Receiving: the frames that the kernel left in the blocks of a ring (packet(7), TPACKET_V3), as records of a
 * nanosecond pcap in this machine's byte order.
 *
 * A frame is a record as it was on the wire: the outermost VLAN tag, which the kernel takes off, is put back. Cooked
 * frames, which begin with the network header, get the header of LINUX_SLL2 (276) in front, and no tag: the same packet
 * passes the devices of a machine with and without it.
 *
 * Of many devices at once ("any") a packet is taken once: each direction of a conversation from the device where it was
 * seen first, as long as it is seen there. A bridged packet would otherwise look like its own retransmission. */
#ifndef PT_RECEIVE_H
#define PT_RECEIVE_H

#include <arpa/inet.h>
#include <linux/if_arp.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>

#include "batch.h"

#define PT_RECORD_HEADER 16
#define PT_COOKED_HEADER 20   /* LINKTYPE_LINUX_SLL2 */
#define PT_TAG 4
#define PT_HOMES 16384        /* conversations whose device is remembered */
#define PT_AWAY 5             /* s: unseen for so long at its device, a conversation may move to another */

/* Where one direction of a conversation was last taken. */
typedef struct {
    uint64_t flow;
    uint32_t device, second;
} pt_home;

typedef struct {
    uint8_t *blocks;
    uint32_t block_size, count;
    uint32_t block;    /* the next one */
    uint32_t left, at; /* frames of it that are still to be taken; offset of the next of them */
    uint32_t snaplen;
    uint8_t cooked;
    uint8_t once;      /* frames are of any device: take each packet once */
    uint8_t tagged;    /* frames are of Ethernet: put tags back */
    uint64_t again;    /* packets left out because they were seen at another device */
    pt_home *home;     /* PT_HOMES of them, where `once` */
} pt_receiver;

static inline uint64_t pt_mix64(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ x >> 32;
}

/* Which direction of which conversation an IP packet belongs to; 0: cannot tell. */
static inline uint64_t pt_flow_of(const uint8_t *p, uint32_t n)
{
    uint32_t header, protocol, k, ports = 0;
    uint64_t sum = 0, word;
    if (n >= 20 && p[0] >> 4 == 4) {
        header = (p[0] & 15u) * 4;
        protocol = p[9];
        memcpy(&word, p + 12, 8);
        sum = pt_mix64(word);
        if (pt_net16(p + 6) & 0x1fff) protocol = 256; /* a later fragment has no ports */
    } else if (n >= 40 && p[0] >> 4 == 6) {
        header = 40;
        protocol = p[6];
        for (k = 8; k < 40; k += 8) {
            memcpy(&word, p + k, 8);
            sum = pt_mix64(sum + word + k);
        }
    } else return 0;
    if ((protocol == 6 || protocol == 17) && n >= header + 4) memcpy(&ports, p + header, 4);
    return pt_mix64(sum + ((uint64_t)protocol << 32 | ports)) | 1;
}

/* Whether a packet is to be taken from this device. */
static inline int pt_at_home(pt_receiver *r, const uint8_t *p, uint32_t n, uint32_t device, uint32_t second)
{
    uint64_t flow = pt_flow_of(p, n);
    pt_home *home = &r->home[flow >> 8 & (PT_HOMES - 1)];
    if (!flow) return 1;
    if (home->flow == flow && home->device != device && second - home->second <= PT_AWAY) return 0;
    home->flow = flow;
    home->device = device;
    home->second = second;
    return 1;
}

static inline uint32_t pt_put_cooked(uint8_t *out, const struct sockaddr_ll *from)
{
    memcpy(out, &from->sll_protocol, 2);
    memset(out + 2, 0, 2);
    pt_put_net32(out + 4, (uint32_t)from->sll_ifindex);
    pt_put_net16(out + 8, from->sll_hatype);
    out[10] = from->sll_pkttype;
    out[11] = from->sll_halen < 8 ? from->sll_halen : 8;
    memcpy(out + 12, from->sll_addr, 8);
    return PT_COOKED_HEADER;
}

/* The captured bytes of a frame with its tag back in place; returns how many. */
static inline uint32_t pt_put_frame(uint8_t *out, const struct tpacket3_hdr *h, const uint8_t *frame, int tag)
{
    if (!tag) {
        memcpy(out, frame, h->tp_snaplen);
        return h->tp_snaplen;
    }
    memcpy(out, frame, 12);
    pt_put_net16(out + 12, h->tp_status & TP_STATUS_VLAN_TPID_VALID ? h->hv1.tp_vlan_tpid : ETH_P_8021Q);
    pt_put_net16(out + 14, (uint16_t)h->hv1.tp_vlan_tci);
    memcpy(out + 16, frame + 12, h->tp_snaplen - 12);
    return h->tp_snaplen + PT_TAG;
}

/* One frame as a record; returns its size, 0 when it is left out. */
static inline uint32_t pt_put_record(pt_receiver *r, const struct tpacket3_hdr *h, uint8_t *out)
{
    const struct sockaddr_ll *from = (const void *)((const uint8_t *)h + TPACKET_ALIGN(sizeof *h));
    const uint8_t *frame = (const uint8_t *)h + h->tp_mac;
    int tag = r->tagged && h->tp_status & TP_STATUS_VLAN_VALID && h->tp_snaplen >= 12;
    uint32_t caplen = 0, field[4];
    if (r->once) {
        if (from->sll_hatype == ARPHRD_LOOPBACK && from->sll_pkttype == PACKET_OUTGOING) return 0; /* comes in, too */
        if (!pt_at_home(r, frame, h->tp_snaplen, (uint32_t)from->sll_ifindex, h->tp_sec)) {
            r->again++;
            return 0;
        }
    }
    if (r->cooked) caplen = pt_put_cooked(out + PT_RECORD_HEADER, from);
    field[3] = h->tp_len + caplen + (tag ? PT_TAG : 0);
    caplen += pt_put_frame(out + PT_RECORD_HEADER + caplen, h, frame, tag);
    if (caplen > r->snaplen) caplen = r->snaplen;
    field[0] = h->tp_sec;
    field[1] = h->tp_nsec;
    field[2] = caplen;
    memcpy(out, field, sizeof field);
    return PT_RECORD_HEADER + caplen;
}

/* Fill out[0..room) with records; returns the bytes written. Blocks go back to the kernel once they are taken wholly.
 * room: more than a block and its headers, or a large frame would never find any. */
static inline size_t pt_receive(pt_receiver *r, uint8_t *out, size_t room)
{
    size_t size = 0;
    for (;;) {
        struct tpacket_block_desc *block = (void *)(r->blocks + (size_t)r->block * r->block_size);
        if (!r->left) {
            if (!(__atomic_load_n(&block->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER)) return size;
            r->left = block->hdr.bh1.num_pkts;
            r->at = block->hdr.bh1.offset_to_first_pkt;
        }
        for (; r->left; r->left--) {
            const struct tpacket3_hdr *h = (const void *)((const uint8_t *)block + r->at);
            if (room - size < (size_t)h->tp_snaplen + PT_RECORD_HEADER + PT_COOKED_HEADER + PT_TAG) return size;
            size += pt_put_record(r, h, out + size);
            r->at += h->tp_next_offset;
        }
        __atomic_store_n(&block->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
        r->block = (r->block + 1) % r->count;
    }
}

#endif
