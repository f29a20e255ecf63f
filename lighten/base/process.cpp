#include "lighten/base/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"

namespace lighten {

ProcessResult run_process(const std::vector<std::string>& arguments, const fs::path& folder,
                          const std::vector<std::string>& extra_environment, bool show_errors) {
  int pipe_ends[2];
  if (::pipe2(pipe_ends, O_CLOEXEC) != 0) throw_error<FileError>("cannot start {}: {}", arguments.at(0), std::strerror(errno));
  const pid_t child = ::fork();
  if (child < 0) throw_error<FileError>("cannot start {}: {}", arguments.at(0), std::strerror(errno));
  if (child == 0) {
    ::dup2(pipe_ends[1], STDOUT_FILENO);
    if (!show_errors) ::dup2(pipe_ends[1], STDERR_FILENO);
    if (!folder.empty() && ::chdir(folder.c_str()) != 0) ::_exit(126);
    for (const auto& assignment : extra_environment) ::putenv(const_cast<char*>(assignment.c_str()));
    std::vector<char*> argv;
    for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(pipe_ends[1]);
  ProcessResult result;
  char buffer[4096];
  bool killed = false;
  for (;;) {
    if (interrupt_requested() && !killed) {
      ::kill(child, SIGTERM);
      killed = true;
    }
    pollfd entry{pipe_ends[0], POLLIN, 0};
    const int ready = ::poll(&entry, 1, 200);
    if (ready <= 0) continue;
    const ssize_t n = ::read(pipe_ends[0], buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    result.output.append(buffer, static_cast<size_t>(n));
  }
  ::close(pipe_ends[0]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (killed) throw Interrupted();
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace lighten
