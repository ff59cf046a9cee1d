// What marks a function that Python calls; everything else stays inside the library.
#pragma once

#include <stdint.h>

#define HELIX_EXPORT __attribute__((visibility("default")))
