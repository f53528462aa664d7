#define _GNU_SOURCE
#include "CLinuxText.h"

#include <wchar.h>

int clinux_width(uint32_t scalar) { return wcwidth((wchar_t)scalar); }
