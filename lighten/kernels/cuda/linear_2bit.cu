#include "lighten/kernels/cuda/launch.cuh"

template void lighten::cuda::launch<2>(const Call& call, const Launch& how);
