// What is kept in `<output>.partial` so that killed work goes on to the same bytes.
#pragma once
#include <optional>
#include <vector>

#include "lighten/compress/calibration.h"
#include "lighten/compress/pipeline.h"

namespace lighten::compress {

/// Both streams at the input of block `layer` and the errors of the blocks before it.
struct Checkpoint {
  int64_t layer = 0;
  std::vector<LayerError> errors;
};

/// One process at a time in a folder of unfinished work. The kernel locks the folder itself: no file is left, and the lock goes
/// with the process, however that ends. Where a file system cannot do that, a warning says so.
class FolderLock {
 public:
  /// Throws FileError "another process is working in FOLDER".
  explicit FolderLock(const fs::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_;
};

/// check_output(), but for the question whether another process works there.
void check_places(const QuantizeRequest& request);

/// Makes the folder hold nothing but work of these settings. Unfinished work of the same ones stays if `resume`; everything
/// else is thrown away with a remark, but finished blocks of other settings only if `force` or not `resume`: else OptionError,
/// which names the first setting that differs.
void claim_folder(const fs::path& folder, const Json& fingerprint, bool resume, bool force);
/// Whether claim_folder() was here.
bool is_unfinished_work(const fs::path& folder);
/// Whether it holds a checkpoint: the head, or blocks.
bool has_saved_work(const fs::path& folder);
/// Removes what a finished folder need not hold.
void release_folder(const fs::path& folder);

/// Written atomically.
void save_checkpoint(const fs::path& folder, const Checkpoint& checkpoint, const CalibrationStreams& streams);
/// Fills the streams (whose rows, chunks and needs are set, stores empty). Nothing if there is no readable checkpoint.
std::optional<Checkpoint> load_checkpoint(const fs::path& folder, CalibrationStreams& streams);

}  // namespace lighten::compress
