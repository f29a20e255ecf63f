// `lighten run --prompts`: a file of prompts, answered together.
#include <algorithm>
#include <chrono>
#include <ostream>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/formats/plain_text.h"
#include "lighten/runtime/batch.h"
#include "lighten/runtime/chat.h"

namespace lighten {
namespace {

std::string prompt_of(const std::string& line, const fs::path& file, int64_t number) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  const Json& prompt = json.is_object() && json.contains("prompt") ? json.at("prompt") : json;
  if (!prompt.is_string())
    throw_error<FormatError>("{}: line {} is neither a JSON string nor an object with a string \"prompt\"", file.string(),
                             number);
  return prompt.get<std::string>();
}

/// The prompts on their way, and which of them have been told.
class Answers {
 public:
  Answers(RuntimeModel& model, const RunOptions& options, const std::vector<std::string>& prompts)
      : batch_(model, {.parallel = options.parallel, .context = options.context}),
        prompts_(prompts),
        told_(prompts.size()),
        numbers_(prompts.size()),
        errors_(prompts.size()) {
    const PromptWriter writer(model, options);
    for (size_t i = 0; i < prompts.size(); ++i) {
      std::vector<ChatMessage> messages;
      if (!options.system.empty()) messages.push_back({"system", options.system});
      messages.push_back({"user", prompts[i]});
      GenerateOptions how = writer.how();
      how.sampling.seed += i;  // equal prompts get answers of their own
      try {
        numbers_[i] = batch_.add(writer.ids(messages), how);
      } catch (const Error& error) {
        errors_[i] = error.what();
        warn(fmt::format("prompt {} (counted from 0) is left out: {}", i, errors_[i]));
      }
    }
  }
  /// One step of all; false when everything is answered.
  bool step() { return batch_.step(); }
  void interrupt() {
    for (size_t i = 0; i < prompts_.size(); ++i)
      if (errors_[i].empty()) batch_.leave(numbers_[i]);
  }
  /// Answers that have come since the last call.
  Json fresh() {
    Json answers = Json::array();
    for (size_t i = 0; i < prompts_.size(); ++i) {
      const bool refused = !errors_[i].empty();
      if (told_[i] || (!refused && !batch_.finished(numbers_[i]))) continue;
      told_[i] = true;
      Json answer = {{"index", i}, {"prompt", prompts_[i]}};
      if (refused)
        answer["error"] = errors_[i];
      else
        answer.update(to_json(batch_.result(numbers_[i])));
      answers.push_back(std::move(answer));
    }
    return answers;
  }
  /// Prompts that could not be answered.
  int64_t refused() const {
    return std::count_if(errors_.begin(), errors_.end(), [](const std::string& error) { return !error.empty(); });
  }
  int64_t reused_tokens() const { return batch_.reused_tokens(); }

 private:
  BatchGenerator batch_;
  const std::vector<std::string>& prompts_;
  std::vector<bool> told_;
  std::vector<size_t> numbers_;      ///< in the batch
  std::vector<std::string> errors_;  ///< why a prompt is not in the batch, else ""
};

}  // namespace

std::vector<std::string> read_prompts(const fs::path& file) {
  const std::string text = read_plain_text(file, "prompts file");
  const bool json = file.extension() == ".jsonl";
  std::vector<std::string> prompts;
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty()) continue;
    prompts.push_back(json ? prompt_of(line, file, number) : std::move(line));
  }
  return prompts;
}

int answer_prompts(RuntimeModel& model, const RunOptions& options, Json report, std::ostream& out) {
  const std::vector<std::string> prompts = read_prompts(options.prompts);
  Answers answers(model, options, prompts);
  const auto start = std::chrono::steady_clock::now();
  Progress progress("answering", static_cast<int64_t>(prompts.size()), "prompts");
  int64_t tokens = 0;
  report["answers"] = Json::array();
  bool more = true;
  while (more && out.good()) {
    if (interrupt_requested()) answers.interrupt();
    more = answers.step();
    for (Json& answer : answers.fresh()) {
      if (options.json != "-") out << json_text(answer) << std::endl;
      if (answer.contains("tokens")) tokens += std::ssize(answer.at("tokens"));
      progress.advance();
      report["answers"].push_back(std::move(answer));
    }
  }
  progress.finish();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double rate = static_cast<double>(tokens) / seconds;
  report.update({{"seconds", seconds}, {"tokens_per_s", rate}, {"reused_prompt_tokens", answers.reused_tokens()}});
  info(fmt::format("[{} prompts, {} tokens, {:.1f} tokens/s in all; {} prompt tokens were shared and computed once]",
                   prompts.size(), tokens, rate, answers.reused_tokens()));
  if (options.json == "-") {
    out << json_text(report, 1) << std::endl;
  } else if (!options.json.empty()) {
    write_file(options.json, json_text(report, 1) + "\n");
  }
  if (!out.good()) throw FileError("cannot write the answers to standard output: the disk is full, or nobody reads it");
  if (interrupt_requested()) return 130;
  return answers.refused() > 0 ? 1 : 0;
}

}  // namespace lighten
