#include "lighten/kernels/cuda/launch.cuh"

template void lighten::cuda::launch<8>(const Call& call, const Launch& how);
