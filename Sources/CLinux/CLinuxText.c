#define _GNU_SOURCE
#include "CLinuxText.h"

#include <errno.h>
#include <stdio.h>
#include <wchar.h>

int clinux_width(uint32_t scalar) { return wcwidth((wchar_t)scalar); }

int clinux_flush_output(void) {
    int has_failed = ferror(stdout);
    if (fflush(stdout) != 0) return errno;
    return has_failed ? -1 : 0;
}
