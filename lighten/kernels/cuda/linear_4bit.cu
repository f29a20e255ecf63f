#include "lighten/kernels/cuda/launch.cuh"

template void lighten::cuda::launch<4>(const Call& call, const Launch& how);
