// What programs for people need of the C library and Swift's Glibc module does not import.
#pragma once
#include <stdint.h>

/// Cells that a character takes in a terminal, in the locale set by setlocale; -1 for one that does not print.
int clinux_width(uint32_t scalar);

/// Writes what standard output holds back: 0, the error, or -1 where an earlier write failed, of which no more is known.
int clinux_flush_output(void);
