// What a process under mpirun or srun knows and does without MPI.
#pragma once

namespace lighten {

/// The number of this process among those that the launcher started; 0 without one.
int launched_rank();

/// Whether this process is to tell its error. The first one always is. The others wait first, so that one that fails as they do
/// has told it and ended them: false if they are being ended. After Ctrl-C, which reaches all, they give the first one some
/// seconds to write what it has.
bool tells_error(int exit_code);

}  // namespace lighten
