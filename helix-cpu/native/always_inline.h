// For functions whose vectors must stay in registers: a compiler's limit on how much it inlines would end that.

#pragma once

#define HELIX_INLINE __attribute__((always_inline)) inline
