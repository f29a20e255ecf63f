#include "lighten/kernels/cuda/launch.cuh"

template void lighten::cuda::launch<3>(const Call& call, const Launch& how);
