// What the library tells of itself.

#include "export.h"

// The version of the functions' arguments: Python refuses a library of another one.
HELIX_EXPORT int64_t helix_topo_abi(void) { return 1; }
