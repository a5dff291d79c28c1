/* The bare cost of many files: make them, of given sizes, and nothing else.
 *
 *     files DIRECTORY SIZES [INPUT]      SIZES: a file with one number of bytes a line; INPUT: is read first */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static char buffer[1 << 20], name[4096];
    long size;
    int number = 0;
    FILE *sizes = argc >= 3 ? fopen(argv[2], "r") : NULL;
    if (!sizes) return 2;
    if (argc == 4) {
        int in = open(argv[3], O_RDONLY);
        long n;
        while ((n = read(in, buffer, sizeof buffer)) > 0) continue;
        if (n) return 1;
    }
    memset(buffer, 7, sizeof buffer);
    while (fscanf(sizes, "%ld", &size) == 1) {
        int fd;
        snprintf(name, sizeof name, "%s/in.pcap_flow-%d.pcap", argv[1], ++number);
        fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0666);
        if (fd < 0) return 1;
        while (size > 0) {
            long part = size < (long)sizeof buffer ? size : (long)sizeof buffer;
            if (write(fd, buffer, (size_t)part) != part) return 1;
            size -= part;
        }
        if (close(fd)) return 1;
    }
    return 0;
}
