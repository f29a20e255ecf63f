// lighten tokenize: text to ids, as the reference library does.
#include <iostream>
#include <iterator>

#include "lighten/apps/lighten/verbs.h"
#include "lighten/base/error.h"
#include "lighten/data/packages.h"
#include "lighten/formats/tokenizer.h"
#include "lighten/formats/weights.h"

namespace lighten {
namespace {

/// Encoders have a tokenizer.json and no decoder that open_weights() knows.
std::shared_ptr<const Tokenizer> tokenizer_of(const fs::path& model) {
  if (fs::is_regular_file(model) && model.extension() == ".json") return Tokenizer::from_file(model);
  if (fs::exists(model / "tokenizer.json")) return Tokenizer::from_file(model / "tokenizer.json");
  return open_weights(model)->tokenizer();
}

}  // namespace

Verb tokenize_verb(CLI::App& root) {
  Verb verb = make_verb(root, "tokenize", "turns a text into token ids",
                        "  lighten tokenize smollm2-135m --text notes.txt --json ids.json\n"
                        "  echo \"Hello, world\" | lighten tokenize gemma3-270m --text -\n");
  struct Options {
    std::string model, text;
    bool pieces = false;
  };
  auto options = std::make_shared<Options>();
  verb.app->add_option("MODEL", options->model, "folder, .gguf, data id or a tokenizer.json")->required();
  verb.app->add_option("--text", options->text, "text file; - reads standard input")->required()->type_name("FILE");
  verb.app->add_flag("--pieces", options->pieces, "print every id with its text");
  verb.run = [options, common = verb.common] {
    const std::shared_ptr<const Tokenizer> tokenizer = tokenizer_of(resolve_model(options->model));
    if (!tokenizer) throw_error<FormatError>("{}: holds no tokenizer", options->model);
    const std::string text =
        options->text == "-" ? std::string(std::istreambuf_iterator<char>(std::cin), {}) : read_file(options->text);
    const std::vector<int32_t> ids = tokenizer->encode(text);
    if (common->for_people()) {
      if (options->pieces)
        for (const int32_t id : ids) fmt::print("{:>7}  {}\n", id, json_text(tokenizer->piece(id)));
      else if (common->json.empty())
        fmt::print("{}\n", fmt::join(ids, " "));
      if (!ids.empty() && !common->quiet)
        fmt::print(stderr, "{} tokens, {:.2f} bytes a token\n", ids.size(),
                   static_cast<double>(text.size()) / static_cast<double>(ids.size()));
    }
    write_json(*common, {{"model", options->model}, {"tokens", ids.size()}, {"bytes", text.size()}, {"ids", ids}});
    return 0;
  };
  return verb;
}

}  // namespace lighten
