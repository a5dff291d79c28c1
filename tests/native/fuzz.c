/* libFuzzer entry: a capture stream, or a packet behind two bytes of link type, through the pipeline of check.c. */
#define PT_NO_MAIN
#include "check.c"

/* The file header of a pcap capture, as files/capture.py reads it. Returns its length; 0: it is not one. */
static size_t start(pt_cutter *c, const uint8_t *p, size_t n)
{
    if (n >= 12 && pt_get32(p, 0) == PT_BLOCK_SECTION) {
        start_pcapng(c);
        return 0;
    }
    if (n < 24) return 1;
    for (int swapped = 0; swapped < 2; swapped++) {
        uint32_t magic = pt_get32(p, swapped);
        if (magic != 0xa1b2c3d4 && magic != 0xa1b23c4d && magic != 0xa1b2cd34) continue;
        start_pcap(c, (uint16_t)pt_get32(p + 20, swapped), swapped, magic == 0xa1b23c4d, magic == 0xa1b2cd34,
                   pt_get16(p + 6, swapped) % 3);
        return 24;
    }
    return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    pt_cutter c;
    uint64_t digest;
    size_t header = start(&c, p, n);
    seed = 0x9e3779b97f4a7c15u; /* one input, one course */
    if (header == 1) {
        if (n >= 2) try_packet(p + 2, (uint32_t)n - 2, (uint32_t)n - 2, p[0] | (uint16_t)(p[1] << 8), n & 3);
    } else {
        feed(&c, p + header, n - header, n, 1, &digest);
        pt_free_interfaces(&c.interfaces);
    }
    if (failed) abort();
    return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    return 0;
}
