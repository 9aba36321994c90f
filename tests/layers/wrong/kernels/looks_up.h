// Looks up, for the test of scripts/check_layers. Never compiled.
#include "core/tensor.h"
